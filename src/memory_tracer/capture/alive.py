"""Whether a recorder is still at work on a capture: as long as it is, it holds a lock on the file.

The kernel gives the lock up when the recorder ends, however it ends. It belongs to the open file and not to
the process (F_OFD_SETLK, fcntl(2)), so that it outlives whatever else the recorder opens and closes; and
asking for it takes nothing away from anybody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

#: ``struct flock`` of 64-bit kernels: type, whence, start, length, process.
_FLOCK = struct.Struct("@hhqqi4x")
_WHOLE_FILE = (os.SEEK_SET, 0, 0, 0)


def hold(descriptor: int) -> bool:
    """Lock the file that ``descriptor`` is open for writing to until it is closed; False where that fails."""
    with contextlib.suppress(OSError):  # the file system knows no locks, or somebody else has one
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, *_WHOLE_FILE))
        return True
    return False


def is_held(descriptor: int) -> bool | None:
    """Tell whether somebody holds the lock; None where that cannot be told."""
    with contextlib.suppress(OSError):
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, *_WHOLE_FILE))
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
    return None
