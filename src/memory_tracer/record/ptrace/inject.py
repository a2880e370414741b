"""Have a stopped thread make system calls for us, and leave no trace of that in it.

The thread is pointed at an instruction that makes a call, somewhere in its own executable memory, and
single-stepped over it. Nothing is written into the target. It must be about to return to user space:
stopped for a signal, at the exit of a call, or by PTRACE_INTERRUPT.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence

from ...model import PAGE_SIZE, Protection
from . import system
from .abi import I386, Abi, Call, Machine
from .registers import Registers
from .system import Tracer
from .tracees import Task

_TRAP = signal.SIGTRAP
_ALL_BUT_TRAP = ~(1 << (_TRAP - 1)) & 0xFFFFFFFFFFFFFFFF
_COMPAT_CALL = b"\xcd\x80"
#: So much of a mapping is searched for an instruction at a time.
_SEARCHED_BYTES = 1 << 20

#: A call and its arguments.
Injected = tuple[Call, Sequence[int]]


class Gone(Exception):  # noqa: N818 - no error: threads end
    """The thread has ended."""


class CannotInject(Exception):  # noqa: N818 - the caller decides what it means
    """There is no instruction in the target that could make a call."""


class Injector:
    """Makes calls in tracees."""

    def __init__(
        self,
        tracer: Tracer,
        machine: Machine,
        cookie: int,
        put_off: Callable[[int, int], None],
    ) -> None:
        """``put_off`` takes a thread's status that has to be handled later by somebody else."""
        self._tracer = tracer
        self._machine = machine
        self._cookie = cookie
        self._put_off = put_off

    def registers(self, tid: int) -> Registers:
        """Read the registers of a stopped thread."""
        return Registers(self._machine, self._tracer.registers(tid))

    def abi(self, registers: Registers) -> Abi:
        """The ABI of the calls we make in a thread."""
        return I386 if registers.compat else self._machine.abis[0]

    def run(self, task: Task, registers: Registers, calls: Iterable[Injected]) -> list[int]:
        """Make the calls, restore the registers, return the results. The thread stays stopped.

        Raises ``Gone`` when it is killed meanwhile, ``CannotInject`` when it cannot make calls.
        """
        compat, abi = registers.compat, self.abi(registers)
        names = ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp") if compat else self._machine.arguments
        gadget = self._gadget(task, compat=compat)
        length = len(_COMPAT_CALL if compat else self._machine.call)
        tid, mask, results = task.tid, None, []
        number_register = "rax" if "rax" in self._machine.registers else self._machine.number
        for call, arguments in calls:
            padded = (*arguments, *(0,) * (4 - len(arguments)), self._cookie, self._cookie)[:6]
            values = dict(zip(names, padded, strict=True))
            values[number_register] = abi.numbers[call]
            if "orig_rax" in self._machine.registers:
                values["orig_rax"] = -1
            values[self._machine.pointer] = gadget
            self._tracer.set_registers(tid, registers.changed(**values))
            mask = self._step(task, mask)
            after = self.registers(tid)
            if after.ip != gadget + length:
                task.space.gadgets.pop(compat, None)
                self._restore(task, registers, mask)
                raise CannotInject(f"the instruction at {gadget:#x} is no system call any more")
            results.append(_signed(after[self._machine.result], compat=compat))
        self._restore(task, registers, mask)
        return results

    def _restore(self, task: Task, registers: Registers, mask: int | None) -> None:
        self._tracer.set_registers(task.tid, registers.changed())
        if mask is not None:
            self._tracer.set_signal_mask(task.tid, mask)

    def step(self, task: Task) -> None:
        """Let the thread do one instruction of its own."""
        mask = self._step(task, None)
        if mask is not None:
            self._tracer.set_signal_mask(task.tid, mask)

    def _step(self, task: Task, mask: int | None) -> int | None:
        """Step once. Signals that come first are kept for later, and more of them blocked.

        Returns the thread's own signal mask, if it is not the one it has now.
        """
        tracer, tid = self._tracer, task.tid
        tracer.resume(system.PTRACE_SINGLESTEP, tid)
        while True:
            _, status = tracer.wait(tid)
            event, number = status >> 16, status >> 8 & 0xFF
            if status & 0xFF != 0x7F or event == system.EVENT_EXIT:
                self._put_off(tid, status)
                raise Gone
            if event == 0 and number == _TRAP:
                return mask
            if event == 0:
                fault = tracer.signal(tid)
                task.signals.append((number, tracer.signal_bytes(tid)))
                if fault.code > 0 and number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL):
                    task.signals.pop()  # it was the instruction itself, which is done again
                    return mask
                if mask is None:
                    mask = tracer.signal_mask(tid)
                    tracer.set_signal_mask(tid, _ALL_BUT_TRAP)
            elif event == system.EVENT_STOP and number != _TRAP:
                task.signals.append((number, b""))  # job control wanted it to stop
            tracer.resume(system.PTRACE_SINGLESTEP, tid)

    def _gadget(self, task: Task, *, compat: bool) -> int:
        space, code = task.space, _COMPAT_CALL if compat else self._machine.call
        known = space.gadgets.get(compat)
        if known is not None and not self._is_watched(task, known):
            return known  # forgotten where calls take its memory away, and where it turns out to be none
        if space.memory is not None:
            for mapping in sorted(space.memory.mappings(), key=lambda each: each.name != b"[vdso]"):
                if not mapping.protection & Protection.EXEC or mapping.name == b"[vsyscall]":
                    continue
                for start in range(mapping.start, mapping.end, _SEARCHED_BYTES - len(code)):
                    length = min(_SEARCHED_BYTES, mapping.end - start)
                    at = self._tracer.read(task.tid, start, length).find(code)
                    if at >= 0 and not self._is_watched(task, start + at):
                        space.gadgets[compat] = start + at
                        return start + at
        raise CannotInject("no executable memory holds a system call instruction")

    @staticmethod
    def _is_watched(task: Task, address: int) -> bool:
        return task.space.watched.area(address) is not None


def _signed(value: int, *, compat: bool) -> int:
    """A call's result: an error is a small negative number."""
    bits = 32 if compat else 64
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >= (1 << bits) - PAGE_SIZE else value
