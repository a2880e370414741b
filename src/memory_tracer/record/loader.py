"""Load the kernel program: open, configure, load, attach, read counters, close.

The order is that of every libbpf program. What may differ between kernels is decided in two
places: which variant of a program is loaded (``_selected``) and how the direct map is found.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import LoadError, PrivilegeError, UnsupportedError
from ..wire.layout import COUNTERS
from . import functions
from .ahead import Ahead
from .kernel import Kernel
from .libbpf import BPF_EXIST, Library, Map, Object
from .process import has_ended
from .scope import EFFECT, KEY, Scope
from .settings import Settings

OBJECT_PATH: Final = Path(__file__).parent.parent / "bpf" / "memory_tracer.bpf.o"

#: Programs that serve several tracepoints; their section names only the first.
_SHARED_PROGRAMS: Final = {
    "exit_call": (
        "sys_exit_mmap",
        "sys_exit_mprotect",
        "sys_exit_pkey_mprotect",
        "sys_exit_mremap",
        "sys_exit_shmat",
    ),
    "enter_execve": ("sys_enter_execve", "sys_enter_execveat"),
    "enter_discard": (
        "sys_enter_process_madvise",
        "sys_enter_ftruncate",
        "sys_enter_truncate",
        "sys_enter_fallocate",
    ),
}

#: Programs that are called by others or by us, never attached.
_UNATTACHED: Final = (
    "exit_other__fexit_callback",
    "exit_other__fexit_iterator",
    "find_direct_map",
    "look__iterator",
    "look__lock",
    "look_at_other__lock",
    "sample__iterator",
    "decide_all",
)
#: Programs that are there for a scope only.
_SCOPE_PROGRAMS: Final = ("task_renamed", "decide_all")
#: The suffix of programs of the hook mm-lock, and what it shares with the others.
_LOCK_VARIANT: Final = "lock"
_SHARED_BY_HOOKS: Final = ("process_fork", "find_direct_map", "sample__iterator", *_SCOPE_PROGRAMS)
#: What the hook mm-lock learns results by, and the hook fexit does without.
_RESULT_PROGRAMS: Final = ("area_found", "lock_released")
#: The suffix of the programs by which the hook fexit does it. With the name of a page loop after it they
#: capture; others end in one of those, in the one whose function has the same prototype.
_FEXIT_VARIANT: Final = "fexit"
_FEXIT_ENDS: Final = ("exit_mmap", "exit_other")
#: Where there is no 32-bit ABI, this function can have the other prototype.
_OTHER_FUNCTION: Final = "__x64_sys_mprotect"
#: Programs that walk over VMAs (bpf_iter_task_vma_new, Linux 6.7).
_VMA_PROGRAMS: Final = (
    "look",
    "sample",
    "enter_execve",
    "enter_exit_group",
    "enter_madvise",
    "enter_discard",
    "submit_request",
    "before_lock",
)
#: Programs whose tracepoints a kernel can be built without.
_OPTIONAL: Final = ("submit_request__iterator", "before_lock__iterator")

#: ``struct bpf_raw_tracepoint_args`` with twelve arguments, of which at most two are looked at.
_RAW_TRACEPOINT_CONTEXT: Final = struct.Struct("<2Q80x")

#: What is needed for everything else is not spent on samplers (two files for each thread).
_RESERVED_FILES: Final = 24

_ONE_KEY: Final = bytes(4)

#: The variable ``all_calls`` of state.bpf.h: whether all calls are wanted, and seen.
_CALLS: Final = struct.Struct("<2I")
_CALLS_SECTION: Final = ".data.calls"

_TARGET: Final = struct.Struct("<QIIQQqQqQ4I")
_TARGET_KEY: Final = struct.Struct("<I")
_TARGET_WAITS_FOR_EXEC: Final = 1 << 0
_TARGET_COMPARES_MUCH: Final = 1 << 1
_TARGET_CHANGES: Final = 1 << 2
_TARGET_OUTSIDE: Final = 1 << 3

#: The variable ``scope_generation`` of scope.bpf.h.
_GENERATION: Final = struct.Struct("<I")
_GENERATION_SECTION: Final = ".data.scope"

#: ADVICE_PASS and PASS_PIECES of memory_tracer.h.
_ADVICE_PASS: Final = 0x7061
_PASS_PIECES: Final = 3
#: ``struct iovec``: empty pieces but one, and a page that nobody has.
_PASS_BYTE: Final = ctypes.create_string_buffer(1)
_PASS_TO: Final = (ctypes.c_size_t * (2 * _PASS_PIECES))(ctypes.addressof(_PASS_BYTE), 1)
_PASS_FROM: Final = (ctypes.c_size_t * 2)(0, 1)


class Joined(NamedTuple):
    """A process that came into the scope while it was running, and how often it did."""

    pid: int
    start_time_ns: int
    times: int


class Program:
    """The kernel program, loaded and configured; attach it, tell it whom to trace, read its counters."""

    def __init__(
        self,
        settings: Settings,
        kernel: Kernel,
        library: Library | None = None,
        *,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """Load. Raises UnsupportedError, PrivilegeError or LoadError, each with one sentence.

        What the caller wants done anyway, ``meanwhile``, is done while the kernel verifies.
        """
        if not OBJECT_PATH.exists():
            raise UnsupportedError(
                "this installation has no compiled BPF program; "
                "build it with `python -m memory_tracer.bpf.build`"
            )
        self.settings = settings
        self._generation = 0
        self._kernel = kernel
        self._libc = ctypes.CDLL(None)
        self.library = library or Library()
        kernel.check_pid_namespace()
        self.page_loop = settings.page_loop or kernel.page_loop
        self.hook = self._choose_hook()
        self._ahead = Ahead(self.library, kernel, settings.ring_bytes, tracepoint=self.hook == "tracepoint")
        try:
            self._load_what_fits(meanwhile)
        except BaseException:
            self._ahead.close()
            raise

    def _choose_hook(self) -> str:
        """The hook that was asked for, or the best one. Raises UnsupportedError, also without BTF."""
        fits = self._kernel.has_lock_hook and self.page_loop == "iterator"
        if self.settings.hook == "mm-lock" and not fits:
            raise UnsupportedError(
                "the hook mm-lock needs Linux 6.18 on x86-64, and its page loop; use --hook tracepoint"
            )
        if self.settings.hook == "fexit":
            reason = functions.why_not(self._kernel, self.library, self.page_loop)
            if reason is not None:
                raise UnsupportedError(
                    f"the hook fexit cannot be used, because {reason}; use --hook tracepoint"
                )
        return self.settings.hook or ("mm-lock" if fits else "tracepoint")

    def _load_what_fits(self, meanwhile: Callable[[], None] | None) -> None:
        kernel = self._kernel
        self.looks_last = self.page_loop == "iterator" and kernel.knows("bpf_iter_task_vma_new")
        choices = [False]
        if self.looks_last and kernel.knows("bpf_task_from_pid"):
            # Before Linux 6.12 tracepoints may not use that function, which BTF does not tell.
            choices.insert(0, True)
        with self.library.silenced():
            for looks_at_others in choices:
                with contextlib.suppress(LoadError, PrivilegeError):
                    self._load(looks_at_others=looks_at_others, meanwhile=meanwhile)
                    return
        self._load(looks_at_others=False)  # once more, to hear why not

    def _load(self, *, looks_at_others: bool, meanwhile: Callable[[], None] | None = None) -> None:
        self.looks_at_others = looks_at_others
        self._object = Object(self.library, OBJECT_PATH)
        try:
            self._programs = self._select()
            self._configure()
            self._object.load(meanwhile)
            self.walks_page_tables = self._find_direct_map()
            if self.looks_last and self.hook == "tracepoint":
                self._object.fill_program_array("look_program", "look__iterator")
            elif self.looks_last:
                self._object.fill_program_array("look_program", "look__lock")
                self._object.fill_program_array("look_at_others", "look_at_other__lock")
            self._join_exits()
        except BaseException:
            self._object.close()
            raise

    def _select(self) -> list[str]:
        """Choose one variant of each program; returns the names of those to attach."""
        chosen = []
        for name in self._object.programs():
            variant = name.partition("__")[2]
            if variant.startswith(_FEXIT_VARIANT):
                wanted = self.hook == "fexit" and self._is_for_exits(name)
            elif self.hook == "mm-lock" or (self.hook == "fexit" and self.looks_last):
                wanted = self._is_for_locks(name)
            elif self.hook == "fexit" and name == "lock_started__lock":
                wanted = True
            else:
                wanted = variant != _LOCK_VARIANT and self._is_for_tracepoints(name)
            wanted &= name not in _SCOPE_PROGRAMS or self.settings.scope is not None
            self._object.set_autoload(name, wanted)
            if wanted and name not in _UNATTACHED:
                chosen.append(name)
        return chosen

    def _is_for_tracepoints(self, name: str) -> bool:
        base, _, variant = name.partition("__")
        if base == "process_exec":
            return (variant == "vmas") == self.looks_last
        if self.hook == "fexit" and "syscalls/" in self._object.section(name):
            return False
        wanted = variant in ("", self.page_loop)
        wanted &= self.looks_last or base not in _VMA_PROGRAMS
        wanted &= base != "enter_exit_group" or not self._kernel.exits_with_memory
        return wanted and (base != "before_call" or self.settings.all_calls)

    def _is_for_exits(self, name: str) -> bool:
        function = self._object.section(name).partition("/")[2]
        base, _, variant = name.partition("__")
        if variant not in (_FEXIT_VARIANT, f"{_FEXIT_VARIANT}_{self.page_loop}"):
            return False
        if self._kernel.knows(function):
            return True
        if base == "exit_other":
            self._object.set_function(name, _OTHER_FUNCTION)
        return base == "exit_other"

    def _join_exits(self) -> None:
        """Have each program of the hook fexit that does not capture itself end in one that does."""
        for name in self._programs:
            base, _, variant = name.partition("__")
            if variant != _FEXIT_VARIANT:
                continue
            first, second = (f"{end}__{_FEXIT_VARIANT}_{self.page_loop}" for end in _FEXIT_ENDS)
            try:
                self._object.fill_program_array(f"{base}_to", first)
            except LoadError:  # another prototype
                self._object.fill_program_array(f"{base}_to", second)

    def _is_for_locks(self, name: str) -> bool:
        base, _, variant = name.partition("__")
        if base in _RESULT_PROGRAMS and self.hook == "fexit":
            return False
        if base == "before_call":
            return variant == _LOCK_VARIANT and self.settings.all_calls
        if base == "submit_request":
            return variant == _LOCK_VARIANT and self._kernel.has_raw_tracepoint("io_uring_submit_req")
        return variant == _LOCK_VARIANT or name in _SHARED_BY_HOOKS

    def _configure(self) -> None:
        configuration = self.settings.pack(
            self._kernel.physical_mask,
            self._kernel.physical_gib,
            looks_at_others=self.looks_at_others,
            caches_hugetlb=self._kernel.caches_hugetlb,
            fetches=self.page_loop == "iterator" and self._kernel.has_task_work,
        )
        offset = self._object.variable_offset(".rodata", "configured")
        self._object.map(".rodata").write_initial(offset, configuration)
        self._ahead.give_ring(self._object.map("events"))

    def _find_direct_map(self) -> bool:
        """Let the program look for the direct map, by which it sees absent pages at once."""
        try:
            return self._object.test_run("find_direct_map", _RAW_TRACEPOINT_CONTEXT.pack(0, 0)) == 1
        except LoadError:
            return False  # before 5.10 raw tracepoints cannot be run on request: pages are probed

    def attach(self) -> None:
        """Attach every program. From here on events of targets arrive."""
        self._ahead.wait()
        # Tracepoints show all system calls from the start, those of the 32-bit ABI among them.
        self._on_request = [name for name in self._programs if name == "before_call__lock"]
        if not self._on_request:
            self._object.map(_CALLS_SECTION).update(_ONE_KEY, _CALLS.pack(1, 1))
        try:
            for name in (name for name in self._programs if name not in self._on_request):
                kind, _, event = self._object.section(name).partition("/")
                if kind == "tracepoint":
                    category, _, tracepoint = event.partition("/")
                    base = name.partition("__")[0]
                    if base == "exit_call" and self.settings.all_calls:
                        self._attach_tracepoint(name, "raw_syscalls", "sys_exit")
                        continue
                    for each in _SHARED_PROGRAMS.get(base, (tracepoint,)):
                        self._attach_tracepoint(name, category, each)
                else:
                    self._object.attach(name)
        except (LoadError, PrivilegeError, UnsupportedError):
            self._object.detach()
            raise

    def _attach_tracepoint(self, name: str, category: str, tracepoint: str) -> None:
        try:
            descriptor = self._kernel.open_tracepoint(category, tracepoint)
        except UnsupportedError:
            if name not in _OPTIONAL:
                raise
            return
        self._object.attach_perf_event(name, descriptor)

    def attach_wanted(self) -> None:
        """Attach what is only attached on request: the program before each call, with the hook mm-lock.

        The target may be waiting for it.
        """
        if not self._on_request:
            return
        watch = self._object.map(_CALLS_SECTION)
        value = watch.lookup(_ONE_KEY, _CALLS.size)
        if value is None or not _CALLS.unpack(value)[0]:
            return
        while self._on_request:
            self._object.attach(self._on_request.pop())
        watch.update(_ONE_KEY, _CALLS.pack(1, 1))

    @property
    def events(self) -> Map:
        """The ring buffer."""
        return self._object.map("events")

    def add_target(self, pid: int, *, waits_for_exec: bool = False) -> None:
        """Trace process ``pid`` from now on, or from its next execve on."""
        flags = _TARGET_WAITS_FOR_EXEC if waits_for_exec else 0
        self._object.map("targets").update(_TARGET_KEY.pack(pid), _TARGET.pack(0, flags, *[0] * 11))

    def set_scope(self, scope: Scope) -> None:
        """Trace the processes of ``scope`` from now on, and no others.

        The new rules are all there before they hold. Raises TargetError for what ``scope`` names and is
        not there; the old one then goes on.
        """
        self._generation += 1
        rules, table = scope.rules(self._generation), self._object.map("scope_rules")
        for key, effect in rules.items():
            table.update(key, effect)
        self._object.map(_GENERATION_SECTION).update(_ONE_KEY, _GENERATION.pack(self._generation))
        self._object.run_iterator("decide_all")
        for key, _ in list(table.items(KEY.size, EFFECT.size)):
            if key not in rules:
                table.delete(key)

    def sample_all_cpus(self) -> int:
        """Interrupt whatever runs, to see what targets execute; returns for how many CPUs it was refused."""
        if not self.looks_last or not self.settings.sample_rate:
            return 0
        cpus = range(self.library.call("libbpf_num_possible_cpus"))
        return sum(not self._sample(-1, cpu) for cpu in cpus)

    def sample(self, pid: int) -> int:
        """Interrupt process ``pid`` and what it starts, to see what it executes.

        Returns the number of threads for which the kernel refused.
        """
        if not self.looks_last or not self.settings.sample_rate:
            return 0
        refused = 0
        done: set[int] = set()
        # A thread started by one that is sampled is sampled, too; others may start while we go round.
        while waiting := self._threads(pid) - done:
            refused += sum(not self._sample(tid) for tid in waiting)
            done |= waiting
        return refused

    @staticmethod
    def _threads(pid: int) -> set[int]:
        try:
            return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
        except OSError:
            return set()  # it ended

    def _sample(self, tid: int, cpu: int = -1) -> bool:
        """Returns False when the kernel refuses; a thread that ended, or a CPU that is off, needs none."""
        try:
            descriptor = self._kernel.open_sampler(tid, self.settings.sample_rate, cpu)
        except OSError as error:
            return has_ended(error) or (cpu >= 0 and error.errno == errno.ENODEV)
        if descriptor < resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _RESERVED_FILES:
            with contextlib.suppress(LoadError):
                self._object.attach_perf_event("sample__iterator", descriptor)
                return True
        os.close(descriptor)
        return False

    def remove_target(self, pid: int) -> None:
        """Stop tracing process ``pid``."""
        self._object.map("targets").delete(_TARGET_KEY.pack(pid))

    def targets(self) -> list[int]:
        """PIDs traced at this moment."""
        return [pid for pid, _ in self._entries()]

    def decided(self) -> set[int]:
        """PIDs of all that are remembered: the targets, and with a scope those outside."""
        items = self._object.map("targets").items(_TARGET_KEY.size, _TARGET.size)
        return {_TARGET_KEY.unpack(key)[0] for key, _ in items}

    def changing_targets(self) -> list[int]:
        """PIDs of those that may have executable memory which changes without a call."""
        return [pid for pid, (_, flags, *_) in self._entries() if flags & _TARGET_CHANGES]

    def joined(self) -> set[Joined]:
        """Those that came into the scope while they were running."""
        return {Joined(pid, start, times) for pid, (start, *_, times, _) in self._entries() if times}

    def _entries(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """PID and fields of each process that is traced."""
        for key, value in self._object.map("targets").items(_TARGET_KEY.size, _TARGET.size):
            fields = _TARGET.unpack(value)
            if not fields[1] & _TARGET_OUTSIDE:
                yield _TARGET_KEY.unpack(key)[0], fields

    def comparing_much(self) -> list[tuple[int, int]]:
        """PIDs and start times (ns since boot) of those who would gain from a new epoch."""
        return [(pid, start) for pid, (start, flags, *_) in self._entries() if flags & _TARGET_COMPARES_MUCH]

    def step(self, pid: int, tid: int) -> bool:
        """Compare the next pages of process ``pid`` that can change without a call; False at the end.

        ``tid`` is one of its threads. The program takes the request from a system call that does nothing
        else: the kernel does not know this advice, and there is nothing to be read at this address.
        """
        if self.hook != "tracepoint":
            self._libc.process_vm_readv(tid, _PASS_TO, _PASS_PIECES, _PASS_FROM, 1, 0)
        else:
            self._libc.madvise(ctypes.c_void_p(pid), ctypes.c_size_t(tid), _ADVICE_PASS)
        value = self._object.map("targets").lookup(_TARGET_KEY.pack(pid), _TARGET.size)
        return value is not None and _TARGET.unpack(value)[3] != 0

    def set_epoch(self, pid: int, epoch: int) -> bool:
        """Tell the program which clearing of accessed bits it may rely on (0: none).

        Returns False when ``pid`` is no target any more. The kernel may write to the same entry at
        this moment. What can get lost are a start time, which it finds again, and the wish for an
        epoch, which it repeats.
        """
        table, key = self._object.map("targets"), _TARGET_KEY.pack(pid)
        value = table.lookup(key, _TARGET.size)
        if value is None:
            return False
        start, flags, _, *others = _TARGET.unpack(value)
        try:
            table.update(key, _TARGET.pack(start, flags & ~_TARGET_COMPARES_MUCH, epoch, *others), BPF_EXIST)
        except LoadError:  # it ended just now: BPF_EXIST finds nothing to replace
            return False
        return True

    def counters(self) -> dict[str, int]:
        """The kernel's counters, summed over all CPUs."""
        totals = [0] * len(COUNTERS)
        for values in self._object.map("statistics").lookup_per_cpu(_ONE_KEY):
            # struct trace_statistics: the sequence number comes first.
            for index, value in enumerate(struct.unpack_from(f"<{len(COUNTERS)}Q", values, 8)):
                totals[index] += value
        return dict(zip(COUNTERS, totals, strict=True))

    def detach(self) -> None:
        """Stop the flow of events; what is in the ring stays readable."""
        self._object.detach()

    def close(self) -> None:
        """Detach and free everything. May be called twice."""
        self._object.close()
        self._ahead.close()
