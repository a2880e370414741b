"""Addresses in words: what is mapped there, and how far into it."""

from __future__ import annotations

from ..model import Region


def place(address: int, mapping: Region | None, path: str | None = None) -> str:
    """Return ``libc.so.6+0x11ca37``, or the address alone where nobody knows what is mapped there.

    ``path`` is what to print for the mapping's; of anonymous memory the start is printed.
    """
    if mapping is None:
        return f"{address:#x}"
    if not mapping.file_backed:
        return f"anonymous {mapping.start:#x}+{address - mapping.start:#x}"
    return f"{path or f'inode {mapping.inode}'}+{mapping.offset_of(address):#x}"
