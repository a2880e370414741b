"""The rule that no page can be written and executed at once holds whatever threads do, and they get on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_tracer.capture.ranges import Ranges
from memory_tracer.model import PAGE_SIZE, Protection
from memory_tracer.record.ptrace.machine import TURNS_BEFORE_STEP, Machine
from memory_tracer.record.ptrace.pages import (
    Area,
    Capture,
    Command,
    Forward,
    Go,
    Protect,
    Space,
    Step,
    is_watched,
)

RW, RX, RWX = (
    Protection.READ | Protection.WRITE,
    Protection.READ | Protection.EXEC,
    Protection.READ | Protection.WRITE | Protection.EXEC,
)
BASE, PAGES, FAR = 0x10000, 4, 0x900000
FILE = (8, 15)


@dataclass
class Kernel:
    """Page protections as the kernel has them, the memory behind them, and threads that try things."""

    machine: Machine = field(default_factory=Machine)
    protections: dict[tuple[int, int], Protection] = field(default_factory=dict)
    contents: dict[object, int] = field(default_factory=dict)
    captured: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    executed: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    spaces: list[Space] = field(default_factory=list)
    faults: int = 0

    def map(self, space: Space, start: int, pages: int, area: Area) -> None:
        if space not in self.spaces:
            self.spaces.append(space)
        granted = area.wanted & ~Protection.EXEC
        end = start + pages * PAGE_SIZE
        for page in range(start, end, PAGE_SIZE):
            self.protections[id(space), page] = granted
        self.carry_out(self.machine.watch(space, start, end, area))

    def memory(self, space: Space, page: int) -> object:
        area = space.area(page)
        assert area is not None
        return (area.backing, page + area.origin) if area.backing else (id(space), page)

    def carry_out(self, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, Protect):
                for page in range(command.start, command.end, PAGE_SIZE):
                    self.protections[id(command.space), page] = command.protection
                self.check_rule()
            elif isinstance(command, Capture):
                key = (id(command.space), command.page)
                self.captured.setdefault(key, []).append(
                    self.contents.get(self.memory(command.space, command.page), 0)
                )

    def check_rule(self) -> None:
        writable, executable = set(), set()
        for space in self.spaces:
            for (owner, page), protection in self.protections.items():
                if owner == id(space) and space.area(page) is not None:
                    memory = self.memory(space, page)
                    writable |= {memory} if protection & Protection.WRITE else set()
                    executable |= {memory} if protection & Protection.EXEC else set()
        assert not writable & executable

    def attempt(self, space: Space, tid: int, address: int, ip: int, needed: Protection) -> bool:
        """Do an access, with as many faults as it takes; False when the fault is the target's own."""
        page = address - address % PAGE_SIZE
        for _ in range(3):
            if self.protections[id(space), page] & needed:
                return True
            self.faults += 1
            commands = self.machine.fault(space, tid, address, ip)
            self.carry_out(commands)
            if isinstance(commands[-1], Forward):
                return False
        raise AssertionError("the thread does not get on")

    def write(self, space: Space, tid: int, address: int, value: int) -> bool:
        if not self.attempt(space, tid, address, FAR, Protection.WRITE):
            return False
        self.contents[self.memory(space, address - address % PAGE_SIZE)] = value
        return True

    def execute(self, space: Space, tid: int, address: int) -> bool:
        if not self.attempt(space, tid, address, address, Protection.EXEC):
            return False
        page = address - address % PAGE_SIZE
        self.executed.setdefault((id(space), page), []).append(self.contents.get(self.memory(space, page), 0))
        return True


actions = st.lists(
    st.tuples(
        st.sampled_from(["write", "execute"]),
        st.integers(0, 1),  # view
        st.integers(0, PAGES - 1),
        st.integers(0, 2),  # thread
        st.integers(1, 9),
    ),
    max_size=60,
)


def last_captured(kernel: Kernel, space: Space, page: int) -> int:
    return kernel.captured[id(space), page][-1]


@given(actions)
def test_everything_executed_in_private_memory_was_captured_right_before(
    steps: list[tuple[str, int, int, int, int]],
) -> None:
    kernel, space = Kernel(), Space()
    kernel.map(space, BASE, PAGES, Area(RWX))
    for action, _, number, tid, value in steps:
        address = BASE + number * PAGE_SIZE + 64
        if action == "write":
            assert kernel.write(space, tid, address, value)
        else:
            assert kernel.execute(space, tid, address)
            page = BASE + number * PAGE_SIZE
            assert last_captured(kernel, space, page) == kernel.executed[id(space), page][-1]


@given(actions, st.booleans(), st.booleans())
def test_everything_executed_through_any_view_was_captured_at_its_address(
    steps: list[tuple[str, int, int, int, int]], code_is_writable: bool, two_processes: bool
) -> None:
    kernel, first = Kernel(), Space()
    second = Space() if two_processes else first
    wanted = RWX if code_is_writable else RX
    other = BASE + 0x100000
    kernel.map(first, BASE, PAGES, Area(RW, FILE, -BASE))
    kernel.map(second, other, PAGES, Area(wanted, FILE, -other))
    for action, view, number, tid, value in steps:
        if action == "write" and view == 1 and code_is_writable:
            assert kernel.write(second, tid, other + number * PAGE_SIZE + 64, value)
        elif action == "write":
            assert kernel.write(first, tid, BASE + number * PAGE_SIZE + 64, value)
        else:
            page = other + number * PAGE_SIZE
            assert kernel.execute(second, tid, page + 64)
            assert last_captured(kernel, second, page) == kernel.executed[id(second), page][-1]


@given(actions)
def test_each_turn_costs_one_fault_and_no_turn_none(steps: list[tuple[str, int, int, int, int]]) -> None:
    kernel, space = Kernel(), Space()
    kernel.map(space, BASE, PAGES, Area(RWX))
    state, turns = [False] * PAGES, 0
    for action, _, number, tid, value in steps:
        address = BASE + number * PAGE_SIZE + 64
        turns += state[number] != (action == "execute")
        state[number] = action == "execute"
        if action == "write":
            kernel.write(space, tid, address, value)
        else:
            kernel.execute(space, tid, address)
    assert kernel.faults == turns


def test_fault_outside_of_what_is_watched_is_the_targets_own() -> None:
    assert Machine().fault(Space(), 1, BASE, FAR) == [Forward()]


@pytest.mark.parametrize("how", ["forget", "release"])
def test_fault_that_is_older_than_what_was_given_back_is_tried_again_once(how: str) -> None:
    machine, space = Machine(), Space()
    machine.watch(space, BASE, BASE + PAGE_SIZE, Area(Protection.READ | Protection.WRITE | Protection.EXEC))
    if how == "forget":
        machine.forget(space, BASE, BASE + PAGE_SIZE)
    else:
        machine.release(space)
    for tid in (1, 2):
        assert machine.fault(space, tid, BASE, BASE) == [Go()]
        assert machine.fault(space, tid, BASE, BASE) == [Forward()]
        assert machine.fault(space, tid, BASE + 1, FAR) == [Forward()]


def test_write_to_memory_that_is_executable_only_is_the_targets_own() -> None:
    kernel, space = Kernel(), Space()
    kernel.map(space, BASE, 1, Area(RX, FILE, -BASE))
    assert kernel.execute(space, 1, BASE)
    assert not kernel.write(space, 1, BASE, 5)


def test_fault_that_another_threads_fault_has_settled_is_tried_again_once() -> None:
    kernel, space = Kernel(), Space()
    kernel.map(space, BASE, 1, Area(RWX))
    # GIVEN two threads that fetch at the same time
    assert kernel.execute(space, 1, BASE + 8)
    # THEN the second one only tries again, and a fault that comes back is taken for what it is
    assert kernel.machine.fault(space, 2, BASE + 8, BASE + 8) == [Go()]
    assert kernel.machine.fault(space, 2, BASE + 8, BASE + 8) != [Go()]


def test_instruction_that_writes_to_its_own_page_is_stepped_over_and_captured() -> None:
    kernel, space = Kernel(), Space()
    kernel.map(space, BASE, 1, Area(RWX))
    assert kernel.execute(space, 1, BASE)
    commands = kernel.machine.fault(space, 1, BASE + 256, BASE)
    assert commands == [
        Protect(space, BASE, BASE + PAGE_SIZE, RWX),
        Step(),
        Protect(space, BASE, BASE + PAGE_SIZE, RX),
        Capture(space, BASE),
        Go(),
    ]


def test_instruction_that_writes_to_its_own_page_through_another_view_is_stepped_over() -> None:
    kernel, space = Kernel(), Space()
    other = BASE + 0x100000
    kernel.map(space, BASE, 1, Area(RW, FILE, -BASE))
    kernel.map(space, other, 1, Area(RX, FILE, -other))
    assert kernel.execute(space, 1, other)
    commands = kernel.machine.fault(space, 1, BASE + 256, other + 16)
    assert Step() in commands
    assert Capture(space, other) in commands


def test_write_that_others_undo_again_and_again_is_stepped_over_and_reported() -> None:
    kernel, space = Kernel(), Space()
    kernel.map(space, BASE, 1, Area(RWX))
    for turn in range(1, TURNS_BEFORE_STEP + 1):
        assert kernel.execute(space, 1, BASE)
        commands = kernel.machine.fault(space, 2, BASE + 512, FAR)
        kernel.carry_out(commands)
        assert (Step() in commands) == (turn == TURNS_BEFORE_STEP)
    commands = kernel.machine.fault(space, 1, BASE, BASE)
    assert Capture(space, BASE, contended=True) in commands


def test_released_memory_gets_what_was_asked_for() -> None:
    kernel, space = Kernel(), Space()
    kernel.map(space, BASE, 2, Area(RWX))
    assert kernel.execute(space, 1, BASE)
    assert kernel.machine.release(space) == [Protect(space, BASE, BASE + 2 * PAGE_SIZE, RWX)]
    assert not space


def test_child_goes_on_where_its_parent_was_and_changes_nothing_there() -> None:
    kernel, parent = Kernel(), Space()
    kernel.map(parent, BASE, 2, Area(RWX))
    assert kernel.execute(parent, 1, BASE)
    child = kernel.machine.fork(parent)
    assert child.executing == parent.executing
    kernel.machine.forget(child, BASE, BASE + 2 * PAGE_SIZE)
    assert parent.executing == {BASE}
    assert parent.area(BASE) == Area(RWX)


def test_copy_that_is_younger_than_ours_is_asked_what_can_be_executed() -> None:
    kernel, space = Kernel(), Space()
    kernel.map(space, BASE, 4, Area(RWX))
    executable: Ranges[bool] = Ranges()
    executable.put(BASE + PAGE_SIZE, BASE + 3 * PAGE_SIZE, True)
    kernel.machine.reconcile(space, executable)
    assert space.executing == {BASE + PAGE_SIZE, BASE + 2 * PAGE_SIZE}


def test_neighbouring_pages_are_opened_with_one_call() -> None:
    kernel, space = Kernel(), Space()
    kernel.map(space, BASE, 4, Area(RWX))
    for number in range(4):
        assert kernel.execute(space, 1, BASE + number * PAGE_SIZE)
    assert kernel.machine.open(space, BASE, BASE + 3 * PAGE_SIZE) == [
        Protect(space, BASE, BASE + 3 * PAGE_SIZE, RW)
    ]
    assert space.executing == {BASE + 3 * PAGE_SIZE}


def test_huge_page_turns_as_a_whole() -> None:
    machine, space, huge = Machine(), Space(), 2 << 20
    machine.watch(space, huge, 3 * huge, Area(RWX, page=huge))
    commands = machine.fault(space, 1, huge + 0x5000, huge + 0x5000)
    assert commands == [Protect(space, huge, 2 * huge, RX), Capture(space, huge), Go()]


@pytest.mark.parametrize(
    ("wanted", "shared", "watched"),
    [(RWX, False, True), (RX, False, False), (RX, True, True), (RW, True, False), (RWX, True, True)],
)
def test_memory_is_watched_that_can_change_while_it_is_executable(
    wanted: Protection, shared: bool, watched: bool
) -> None:
    assert is_watched(wanted, shared=shared) == watched
