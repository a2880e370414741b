"""What the running kernel has: its BTF, its tracepoints, its page tables.

Features are looked for, never inferred from a version number.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from functools import cached_property
from pathlib import Path

from ..errors import PrivilegeError, UnsupportedError

BTF_PATH = Path("/sys/kernel/btf/vmlinux")
#: Those without which the hook mm-lock would not see all.
_LOCK_TRACEPOINTS = (
    "mmap_lock_start_locking",
    "mmap_lock_released",
    "vm_unmapped_area",
    "sched_prepare_exec",
)
#: ``hdr_len``, ``str_off`` and ``str_len`` of ``struct btf_header``.
_BTF_HEADER = struct.Struct("<4xI8xII")
TRACEFS_PATHS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))

# The mount API of Linux 5.2 has no glibc wrappers before 2.36; numbers are the same on every
# architecture (include/uapi/asm-generic/unistd.h).
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6
_CLOEXEC = 1
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

#: PROC_PID_INIT_INO, include/linux/proc_ns.h.
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC

_SYS_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_PERF_TYPE_TRACEPOINT = 2
_PERF_FLAG_FD_CLOEXEC = 8
_PERF_TYPE_SOFTWARE = 1
_PERF_COUNT_SW_CPU_CLOCK = 0
#: Bits of struct perf_event_attr's flags.
_PERF_INHERIT, _PERF_EXCLUDE_KERNEL, _PERF_FREQUENCY = 1 << 1, 1 << 5, 1 << 10
#: The first version of ``struct perf_event_attr``: type, size, config, sample_period or _freq,
#: sample_type, read_format, flags, wakeup_events, bp_type, config1 (linux/perf_event.h).
_PERF_ATTRIBUTES = struct.Struct("<IIQQQQQIIQ")


class Kernel:
    """Questions about the kernel we run on, answered once."""

    def __init__(self) -> None:
        """Ask nothing yet."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._tracepoint_ids: dict[tuple[str, str], int] = {}

    def check_pid_namespace(self) -> None:
        """Raise UnsupportedError inside a PID namespace, where our PIDs are not the kernel's."""
        try:
            inside = Path("/proc/self/ns/pid").stat().st_ino != _INITIAL_PID_NAMESPACE
        except OSError:
            return  # a kernel without namespaces
        if inside:
            raise UnsupportedError(
                "this is a PID namespace of its own (a container); run on the host, "
                "or start the container with the host's PID namespace (docker run --pid=host)"
            )

    @cached_property
    def names(self) -> bytes:
        """All names in the kernel's type information (BTF); raises UnsupportedError when there is none."""
        try:
            with BTF_PATH.open("rb") as file:
                header_bytes, offset, length = _BTF_HEADER.unpack(file.read(_BTF_HEADER.size))
                file.seek(header_bytes + offset)
                return file.read(length)
        except OSError as error:
            raise UnsupportedError(
                f"this kernel has no type information at {BTF_PATH}; "
                "use a kernel built with CONFIG_DEBUG_INFO_BTF (all current distributions' are)",
                detail=str(error),
            ) from error

    def knows(self, name: str) -> bool:
        """Whether a function, type or enumerator of that name is in the kernel's BTF."""
        return b"\0" + name.encode() + b"\0" in self.names

    @cached_property
    def page_loop(self) -> str:
        """How the program repeats work here: ``iterator``, ``callback`` or ``bounded``."""
        if self.knows("bpf_iter_num_new"):
            return "iterator"
        if self.knows("BPF_FUNC_loop") and self.knows("BPF_FUNC_find_vma"):
            return "callback"
        return "bounded"

    @cached_property
    def exits_with_memory(self) -> bool:
        """Whether sched_process_exit fires while the process still has its memory.

        It does since Linux 6.16 (the commit that moved it also gave it a field of its own).
        """
        return self.knows("trace_event_raw_sched_process_exit")

    @cached_property
    def has_lock_hook(self) -> bool:
        """Whether calls can be seen by the lock of the address space (the hook mm-lock), on x86-64.

        Its programs are for the raw tracepoints of Linux 6.16 and later; errors are learnt by task work.
        """
        return (
            os.uname().machine == "x86_64"
            and self.exits_with_memory
            and self.has_task_work
            and self.knows("bpf_iter_task_vma_new")
            and all(self.has_raw_tracepoint(name) for name in _LOCK_TRACEPOINTS)
        )

    def has_raw_tracepoint(self, name: str) -> bool:
        """Whether there is a tracepoint of that name, which programs can be attached to directly."""
        return self.knows(f"btf_trace_{name}")

    @cached_property
    def preempts_itself(self) -> bool:
        """Whether a thread can lose its CPU inside the kernel; also where that is not known."""
        model = re.search(r"\bPREEMPT\w*", os.uname().version)
        if model is None:
            return False
        if model[0] != "PREEMPT_DYNAMIC":
            return True
        try:
            directory = self._mount(b"debugfs")
        except OSError:
            return True
        try:
            descriptor = os.open("sched/preempt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
            with os.fdopen(descriptor) as file:
                return not {"(none)", "(voluntary)"} & set(file.read().split())
        except OSError:
            return True
        finally:
            os.close(directory)

    @cached_property
    def has_task_work(self) -> bool:
        """Whether programs can leave work to a thread that may wait, before it returns (Linux 6.18)."""
        return self.knows("bpf_task_work_schedule_resume_impl") and self.knows("bpf_preempt_disable")

    @cached_property
    def caches_hugetlb(self) -> bool:
        """Whether hugetlbfs's page cache is indexed in small pages, as all others are.

        It is since Linux 6.7 (a08c7193e4f1 "mm/filemap: remove hugetlb special casing in filemap.c"),
        which took away the function that converted.
        """
        return not self.knows("hugetlb_basepage_index") and not self.knows("__basepage_index")

    @cached_property
    def physical_mask(self) -> int:
        """Bits of a page-table entry that hold an address; 0 where the layout is not known (x86-64 only)."""
        if os.uname().machine != "x86_64":
            return 0
        match = re.search(
            r"^address sizes\s*: (\d+) bits physical", Path("/proc/cpuinfo").read_text(), re.MULTILINE
        )
        bits = min(int(match[1]), 52) if match else 0
        return (1 << bits) - 4096 if bits > 12 else 0

    @cached_property
    def physical_gib(self) -> int:
        """Upper bound of physical addresses in GiB: memory, and as much again for holes in the map."""
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return 2 * (pages >> 30) + 8

    @cached_property
    def tracefs(self) -> int:
        """A directory descriptor of tracefs: the mounted one, else a mount of our own nobody sees."""
        for path in TRACEFS_PATHS:
            try:
                return os.open(path / "events" / "syscalls" / ".." / "..", _DIRECTORY)
            except OSError:
                continue
        try:
            return self._mount(b"tracefs")
        except PermissionError as error:
            raise PrivilegeError("tracefs is for root only; run with sudo", detail=str(error)) from error
        except OSError as error:
            raise UnsupportedError(
                "tracefs is not available; mount it with `mount -t tracefs tracefs /sys/kernel/tracing`",
                detail=str(error),
            ) from error

    def _mount(self, file_system: bytes) -> int:
        """A directory descriptor of a new mount that nobody else sees."""
        context = self._syscall(_SYS_FSOPEN, file_system, _CLOEXEC)
        try:
            self._syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
            return self._syscall(_SYS_FSMOUNT, context, _CLOEXEC, 0)
        finally:
            os.close(context)

    def tracepoint_id(self, category: str, name: str) -> int:
        """The number of a tracepoint; raises UnsupportedError when this kernel lacks it."""
        if (category, name) not in self._tracepoint_ids:
            try:
                descriptor = os.open(
                    f"events/{category}/{name}/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.tracefs
                )
                with os.fdopen(descriptor) as file:
                    self._tracepoint_ids[category, name] = int(file.read())
            except OSError as error:
                raise UnsupportedError(
                    f"this kernel has no tracepoint {category}:{name}", detail=str(error)
                ) from error
        return self._tracepoint_ids[category, name]

    def open_tracepoint(self, category: str, name: str) -> int:
        """Open a perf event on a tracepoint (perf_event_open(2)); returns the descriptor."""
        attributes = _PERF_ATTRIBUTES.pack(
            _PERF_TYPE_TRACEPOINT,
            _PERF_ATTRIBUTES.size,
            self.tracepoint_id(category, name),
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        )
        try:
            return self._perf_event_open(attributes, -1, 0)
        except PermissionError as error:
            raise PrivilegeError(
                "the kernel refused a tracepoint: run as root, or with CAP_PERFMON", detail=str(error)
            ) from error
        except OSError as error:
            raise UnsupportedError(
                f"the tracepoint {category}:{name} cannot be used", detail=str(error)
            ) from error

    def open_sampler(self, tid: int, frequency: int, cpu: int = -1) -> int:
        """Open a perf event on thread ``tid`` and all it starts: ``frequency`` interrupts per CPU second.

        With -1 for ``tid`` it is on all that runs on ``cpu``. Counts user time only; raises OSError when the
        kernel refuses.
        """
        attributes = _PERF_ATTRIBUTES.pack(
            _PERF_TYPE_SOFTWARE,
            _PERF_ATTRIBUTES.size,
            _PERF_COUNT_SW_CPU_CLOCK,
            frequency,
            0,
            0,
            (_PERF_INHERIT if cpu < 0 else 0) | _PERF_EXCLUDE_KERNEL | _PERF_FREQUENCY,
            0,
            0,
            0,
        )
        return self._perf_event_open(attributes, tid, cpu)

    def _perf_event_open(self, attributes: bytes, tid: int, cpu: int) -> int:
        number = _SYS_PERF_EVENT_OPEN.get(os.uname().machine)
        if number is None:
            raise UnsupportedError(f"{os.uname().machine} is not a supported machine (x86_64, aarch64)")
        return self._syscall(number, attributes, tid, cpu, -1, _PERF_FLAG_FD_CLOEXEC)

    def _syscall(self, number: int, *arguments: int | bytes | None) -> int:
        converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
        result = int(self._libc.syscall(ctypes.c_long(number), *converted))
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return result
