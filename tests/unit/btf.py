"""Reads the structures in a BPF object's BTF (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_BTF_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MEMBER = struct.Struct("<III")
_ARRAY = struct.Struct("<III")

_INT, _POINTER, _ARRAY_KIND, _STRUCT, _UNION = 1, 2, 3, 4, 5
#: Bytes after the common part of a type, by kind: fixed, and for each of its elements.
_EXTRA = {
    _INT: (4, 0),
    _ARRAY_KIND: (12, 0),
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    6: (0, 8),  # enum
    13: (0, 8),  # function prototype
    14: (4, 0),  # variable
    15: (0, 12),  # data section
    17: (4, 0),  # declaration tag
    19: (0, 12),  # 64-bit enum
}
#: Kinds that only stand for another type: typedef, volatile, const, restrict, type tag.
_ALIASES = frozenset({8, 9, 10, 11, 18})


@dataclass(frozen=True)
class _Type:
    kind: int
    size_or_type: int
    members: tuple[tuple[str, int, int], ...]  # name, type, offset in bits
    array: tuple[int, int]  # element type, count


class Btf:
    """The types of one object file."""

    def __init__(self, path: Path) -> None:
        """Read the section .BTF of the ELF file at ``path``."""
        data = _section(path.read_bytes(), b".BTF")
        _, _, _, header, types, types_length, strings, strings_length = _BTF_HEADER.unpack_from(data)
        self._strings = data[header + strings : header + strings + strings_length]
        self._types = [_Type(0, 0, (), (0, 0))]
        self._structures: dict[str, int] = {}
        position, end = header + types, header + types + types_length
        while position < end:
            position = self._read_type(data, position)

    def _read_type(self, data: bytes, position: int) -> int:
        name, info, size_or_type = _TYPE.unpack_from(data, position)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        position += _TYPE.size
        members: tuple[tuple[str, int, int], ...] = ()
        array = (0, 0)
        if kind in (_STRUCT, _UNION):
            raw = [_MEMBER.unpack_from(data, position + index * _MEMBER.size) for index in range(count)]
            members = tuple((self._name(n), t, offset & 0xFFFFFF) for n, t, offset in raw)
            self._structures[self._name(name)] = len(self._types)
        elif kind == _ARRAY_KIND:
            element, _, length = _ARRAY.unpack_from(data, position)
            array = (element, length)
        self._types.append(_Type(kind, size_or_type, members, array))
        fixed, each = _EXTRA.get(kind, (0, 0))
        end: int = position + fixed + each * count
        return end

    def _name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _size(self, number: int) -> int:
        kind = self._types[number].kind
        if kind in _ALIASES:
            return self._size(self._types[number].size_or_type)
        if kind == _ARRAY_KIND:
            element, count = self._types[number].array
            return count * self._size(element)
        return 8 if kind == _POINTER else self._types[number].size_or_type

    def size(self, structure: str) -> int:
        """Return the size of ``struct NAME`` in bytes."""
        return self._size(self._structures[structure])

    def fields(self, structure: str) -> dict[str, tuple[int, int]]:
        """Return offset and size in bytes of each field; those of a nested ``header`` are its own."""
        found: dict[str, tuple[int, int]] = {}
        for name, number, bits in self._types[self._structures[structure]].members:
            if name == "header":
                assert bits == 0
                found |= self.fields("record_header")
            else:
                found[name] = (bits // 8, self._size(number))
        return found


def _section(data: bytes, name: bytes) -> bytes:
    """Return the section ``name`` of a little-endian ELF64 file."""
    assert data[:6] == b"\x7fELF\x02\x01"
    (start,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [_SECTION_HEADER.unpack_from(data, start + index * size) for index in range(count)]
    names_start = headers[names][4]
    for label, _, _, _, offset, length, *_ in headers:
        position = names_start + label
        if data[position : data.index(b"\0", position)] == name:
            return data[offset : offset + length]
    raise AssertionError(f"there is no section {name.decode()}")
