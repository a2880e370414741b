"""The C side of the wire and the Python side are one: the object's BTF and the header say so."""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

import memory_tracer
from memory_tracer.model import EventKind, LookArgument, Missing, Outcome, Protection, Status
from memory_tracer.record.loader import OBJECT_PATH
from memory_tracer.record.scope import KEY as SCOPE_KEY
from memory_tracer.record.scope import Criteria, Scope
from memory_tracer.record.scope import Kind as ScopeKind
from memory_tracer.record.settings import Settings
from memory_tracer.wire import layout
from memory_tracer.wire.layout import FIELD_OFFSETS, RECORDS, SIZES, RecordType, TextKind

from .btf import Btf

HEADER = Path(memory_tracer.__path__[0]) / "bpf" / "memory_tracer.h"

FLAGS = ("LATE", "PHYSICAL", "FETCHED", "FOLLOWS")
RECORD_STRUCTURES = {kind: f"{kind.name.lower()}_record" for kind in RecordType}
#: The kernel's own types have a stack_record.
RECORD_STRUCTURES[RecordType.STACK] = "user_stack_record"


#: What the kernel program does not send is described in Python only.
OF_USER_SPACE = frozenset({RecordType.REGISTERS})


@pytest.fixture(scope="module")
def btf() -> Btf:
    """The types of the compiled object."""
    assert OBJECT_PATH.exists(), "compile it with `python -m memory_tracer.bpf.build`"
    return Btf(OBJECT_PATH)


def enumerators(name: str) -> dict[str, int]:
    """Return the enumerators of ``enum NAME`` in the header, as its C compiler numbers them."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    match = re.search(rf"enum {name} {{(.*?)}};", text, re.DOTALL)
    assert match is not None, name
    values: dict[str, int] = {}
    following = 0
    for item in filter(None, (part.strip() for part in match[1].split(","))):
        label, _, value = (word.strip() for word in item.partition("="))
        shift = re.fullmatch(r"1 << (\d+)", value)
        following = 1 << int(shift[1]) if shift else int(value) if value else following
        values[label] = following
        following += 1
    return values


def constant(name: str) -> int:
    match = re.search(rf"^#define {name} (\d+)$", HEADER.read_text(), re.MULTILINE)
    assert match is not None, name
    return int(match[1])


@pytest.mark.parametrize(
    "kind", [kind for kind in RecordType if kind not in OF_USER_SPACE], ids=lambda kind: kind.name.lower()
)
def test_every_field_of_a_record_is_where_c_puts_it(btf: Btf, kind: RecordType) -> None:
    structure = RECORD_STRUCTURES[kind]
    assert FIELD_OFFSETS[kind] == btf.fields(structure)
    assert list(FIELD_OFFSETS[kind]) == [field.name for field in RECORDS[kind]]
    assert SIZES[kind] == btf.size(structure)


def test_header_is_the_one_all_records_begin_with(btf: Btf) -> None:
    assert layout.field_offsets(layout.HEADER) == btf.fields("record_header")
    assert btf.size("record_header") == layout.HEADER_BYTES


@pytest.mark.parametrize("kind", RecordType, ids=lambda kind: kind.name.lower())
def test_record_with_its_ring_header_keeps_the_alignment(kind: RecordType) -> None:
    assert (SIZES[kind] + layout.RING_HEADER_BYTES) % layout.RECORD_ALIGNMENT == 0


def test_content_of_a_page_starts_on_a_cache_line() -> None:
    offset, size = FIELD_OFFSETS[RecordType.PAGE]["content"]
    assert (offset + layout.RING_HEADER_BYTES) % layout.RECORD_ALIGNMENT == 0
    assert size == layout.PAGE_BYTES


@pytest.mark.parametrize("kind", RecordType, ids=lambda kind: kind.name.lower())
def test_record_has_no_padding_that_nobody_names(kind: RecordType) -> None:
    end = 0
    for offset, size in FIELD_OFFSETS[kind].values():
        assert offset == end
        end += size
    assert end == SIZES[kind]


def test_settings_are_packed_where_the_program_looks_for_them(btf: Btf) -> None:
    fields = btf.fields("trace_configuration")
    settings = Settings(kinds=frozenset({EventKind.FORK}), comm="fifteen-letters", hot_calls=17, uid=99)
    packed = settings.pack(physical_mask=0x1234000, physical_gib=5)
    assert len(packed) == btf.size("trace_configuration")
    expected = {
        "event_mask": 1 << EventKind.FORK,
        "physical_mask": 0x1234000,
        "physical_gib": 5,
        "protection_mask": Protection.EXEC,
        "protection_value": Protection.EXEC,
        "hot_calls": 17,
        "uid": 99,
        "comm": int.from_bytes(b"fifteen-letters", "little"),
    }
    for name, value in expected.items():
        offset, size = fields[name]
        assert int.from_bytes(packed[offset : offset + size], "little") == value


def test_rules_of_a_scope_are_packed_where_the_program_looks_for_them(btf: Btf) -> None:
    assert btf.fields("scope_key") == {"generation": (0, 4), "kind": (4, 4), "value": (8, 16)}
    assert btf.size("scope_key") == SCOPE_KEY.size
    scope = Scope(Criteria(uids=(7, 8), comms=("fifteen-letters",)), exclude=Criteria(uids=(8,), pids=(9,)))
    rules = {
        SCOPE_KEY.unpack(key): int.from_bytes(effect, "little") for key, effect in scope.rules(3).items()
    }
    include, exclude = (enumerators("scope_effect")[f"SCOPE_{name}"] for name in ("INCLUDE", "EXCLUDE"))
    excludes = constant("SCOPE_HEAD_EXCLUDES")
    head = (1 << ScopeKind.HEAD) | (1 << ScopeKind.UID) | (1 << ScopeKind.COMM)
    head |= (1 << ScopeKind.UID | 1 << ScopeKind.PID) << excludes
    assert rules == {
        (3, ScopeKind.HEAD, bytes(16)): head,
        (3, ScopeKind.UID, bytes([7]).ljust(16, b"\0")): include,
        (3, ScopeKind.UID, bytes([8]).ljust(16, b"\0")): include | exclude,
        (3, ScopeKind.COMM, b"fifteen-letters\0"): include,
        (3, ScopeKind.PID, bytes([9]).ljust(16, b"\0")): exclude,
    }


@pytest.mark.parametrize(
    ("enum", "prefix", "values"),
    [
        (
            "record_type",
            "RECORD_",
            {kind.name: kind for kind in RecordType if kind not in OF_USER_SPACE},
        ),
        ("text_kind", "TEXT_", TextKind.__members__),
        ("event_kind", "EVENT_", {kind.name: kind for kind in EventKind if kind is not EventKind.UNKNOWN}),
        ("event_status", "STATUS_", {bit.name: bit for bit in Status}),
        (
            "missing_reason",
            "MISSING_",
            {reason.name: reason for reason in Missing if reason not in (Missing.UNKNOWN, Missing.DAMAGED)},
        ),
        ("look_argument", "LOOK_", LookArgument.__members__),
        ("scope_kind", "SCOPE_", ScopeKind.__members__),
        ("record_flags", "FLAG_", {name: getattr(layout, f"FLAG_{name}") for name in FLAGS}),
    ],
    ids=lambda value: value if isinstance(value, str) and not value.endswith("_") else "",
)
def test_enumerators_have_the_names_and_values_of_c(
    enum: str, prefix: str, values: Mapping[str, int]
) -> None:
    assert {prefix + name: int(value) for name, value in values.items()} == enumerators(enum)


def test_counters_are_in_the_order_of_c() -> None:
    numbered = enumerators("trace_counter")
    assert numbered.pop("COUNTER_COUNT") == len(layout.COUNTERS)
    assert [name.removeprefix("COUNTER_").lower() for name in numbered] == list(layout.COUNTERS)
    assert list(numbered.values()) == list(range(len(layout.COUNTERS)))


def test_counters_fit_what_the_kernel_keeps_of_them(btf: Btf) -> None:
    assert btf.fields("trace_statistics") == {"sequence": (0, 8), "counters": (8, 8 * len(layout.COUNTERS))}


def test_every_counter_that_means_loss_exists() -> None:
    assert set(layout.LOSS_COUNTERS) <= set(layout.COUNTERS)


def test_outcome_has_the_same_names_everywhere() -> None:
    assert tuple(Outcome.__dataclass_fields__) == layout.OUTCOME_COUNTS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WIRE_VERSION", layout.WIRE_VERSION),
        ("PAGE_BYTES", layout.PAGE_BYTES),
        ("COMM_BYTES", layout.COMM_BYTES),
        ("TEXT_BYTES", layout.TEXT_BYTES),
        ("STACK_FRAMES", layout.STACK_FRAMES),
    ],
)
def test_constant_is_that_of_the_header(name: str, value: int) -> None:
    assert constant(name) == value


def test_protection_bits_are_those_of_mmap() -> None:
    assert (Protection.READ, Protection.WRITE, Protection.EXEC) == (
        mmap.PROT_READ,
        mmap.PROT_WRITE,
        mmap.PROT_EXEC,
    )
