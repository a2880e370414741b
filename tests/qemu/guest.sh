#!/bin/sh
# Runs in the guest, as root: guest.sh REPOSITORY PYTHON ARGUMENT...
# What Python says and what it writes into /run/results are the host's to read.
set -eu
exec >/run/results/log 2>&1

# virtme-ng mounts the host's files without a cache: importing NumPy takes ten seconds. Mount them
# once more with one, and make that the root: paths in captures start at the root of the mounts.
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 host /mnt
for directory in dev proc run sys; do
	mount --rbind /$directory /mnt/$directory
done
cd /mnt
pivot_root . mnt
umount -l /mnt
mount -t tmpfs tmpfs /mnt
mount -t tmpfs tmpfs /var/tmp
mountpoint -q /dev/shm || { mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm; }

export HOME=/mnt TMPDIR=/mnt HYPOTHESIS_STORAGE_DIRECTORY=/mnt/hypothesis PYTHONDONTWRITEBYTECODE=1
cd "$1"
python=$2
shift
"$python" -c '
from memory_tracer.record.kernel import Kernel
print(Kernel().page_loop)' >/run/results/page_loop
exec "$@"
