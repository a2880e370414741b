"""The C records and their Python description are the same, byte for byte: read from the object's BTF."""

from __future__ import annotations

import ctypes
import re
import struct
from pathlib import Path

import pytest

from memory_tracer.model import EventKind, Missing, Outcome, Status
from memory_tracer.record.libbpf import Library
from memory_tracer.record.loader import OBJECT_PATH
from memory_tracer.record.settings import Settings
from memory_tracer.wire.layout import (
    COUNTERS,
    HEADER,
    OUTCOME_COUNTS,
    RECORDS,
    SIZES,
    FieldSpec,
    RecordType,
    TextKind,
    codec,
    field_offsets,
)

HEADER_FILE = OBJECT_PATH.parent / "memory_tracer.h"

_KIND_STRUCT, _KIND_ENUM = 4, 6
_STRUCTS = {
    RecordType.EVENT: "event_record",
    RecordType.PAGE: "page_record",
    RecordType.MISSING: "missing_record",
    RecordType.OUTCOME: "outcome_record",
    RecordType.TEXT: "text_record",
}


class Btf:
    """The types of the compiled object (Documentation/bpf/btf.rst)."""

    def __init__(self, path: Path) -> None:
        library = Library()
        functions = ctypes.CDLL("libbpf.so.1")
        functions.btf__parse.restype = ctypes.c_void_p
        functions.btf__parse.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
        self._handle = functions.btf__parse(str(path).encode(), None)
        assert self._handle
        self._library = library

    def _words(self, name: str, kind: int) -> tuple[int, list[int]]:
        identifier = self._library.call("btf__find_by_name_kind", self._handle, name.encode(), kind)
        assert identifier > 0, name
        words = self._library.words("btf__type_by_id", self._handle, identifier)
        return words[2], [int(words[index]) for index in range(3 + 3 * (words[1] & 0xFFFF))]

    def _text(self, offset: int) -> str:
        return self._library.text("btf__name_by_offset", self._handle, offset)

    def struct(self, name: str) -> tuple[int, dict[str, int]]:
        """Size and byte offset of each member."""
        size, words = self._words(name, _KIND_STRUCT)
        members = zip(words[3::3], words[5::3], strict=True)
        return size, {self._text(label): bits // 8 for label, bits in members}


@pytest.fixture(scope="module")
def btf() -> Btf:
    return Btf(OBJECT_PATH)


def enumerators(name: str) -> dict[str, int]:
    """Read an enum from the header: names without prefix, in order, with their values."""
    body = re.search(rf"^enum {name} \{{(.*?)^\}};", HEADER_FILE.read_text(), re.MULTILINE | re.DOTALL)
    assert body, name
    found: dict[str, int] = {}
    for label, value in re.findall(r"^\t[A-Z]+?_(\w+)(?: = ([^,]+))?,", body[1], re.MULTILINE):
        shift = re.fullmatch(r"1 << (\d+)", value)
        found[label] = 1 << int(shift[1]) if shift else int(value) if value else len(found)
    return found


def own(kind: RecordType) -> tuple[FieldSpec, ...]:
    return RECORDS[kind][len(HEADER) :]


def test_header_has_the_same_fields_at_the_same_places(btf: Btf) -> None:
    size, members = btf.struct("record_header")
    assert size == codec(HEADER).size
    assert members == {name: offset for name, (offset, _) in field_offsets(HEADER).items()}


@pytest.mark.parametrize("kind", RecordType)
def test_record_has_the_same_fields_at_the_same_places(kind: RecordType, btf: Btf) -> None:
    size, members = btf.struct(_STRUCTS[kind])
    assert size == SIZES[kind]
    assert members.pop("header") == 0
    offsets = field_offsets(RECORDS[kind])
    assert members == {field.name: offsets[field.name][0] for field in own(kind)}


def test_configuration_has_the_size_that_user_space_writes(btf: Btf) -> None:
    size, members = btf.struct("trace_configuration")
    packed = Settings(comm="sixteen-letters").pack(0, 0)
    assert size == len(packed)
    assert packed[members["comm"] :].startswith(b"sixteen-letters\0")
    assert struct.unpack_from("<Q", packed, members["event_mask"])[0] == (1 << 64) - 1


def test_enumerators_have_the_same_values() -> None:
    assert enumerators("record_type") == {kind.name: kind.value for kind in RecordType}
    assert enumerators("text_kind") == {kind.name: kind.value for kind in TextKind}
    kinds = {kind.name: kind.value for kind in EventKind if kind is not EventKind.UNKNOWN}
    assert enumerators("event_kind") == kinds
    reasons = {reason.name: reason.value for reason in Missing}
    assert enumerators("missing_reason").items() <= reasons.items()
    assert enumerators("event_status") == {flag.name: flag.value for flag in Status if flag}


def test_counters_stand_in_the_same_order() -> None:
    counters = enumerators("trace_counter")
    assert counters.pop("COUNT") == len(COUNTERS)
    assert [name.lower() for name in counters] == list(COUNTERS)


def test_outcome_counts_are_those_of_the_model() -> None:
    assert tuple(Outcome.__dataclass_fields__) == OUTCOME_COUNTS
