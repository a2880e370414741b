"""Say in a few words what a page of bytes looks like."""

from __future__ import annotations

import numpy as np

ELF_HEADER = "ELF header"
#: Content of captured memory is hostile: only its start decides, and only by fixed bytes.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x7fELF", ELF_HEADER),
    (b"MZ", "PE header"),
    (b"\xcf\xfa\xed\xfe", "Mach-O header"),
    (b"\xca\xfe\xba\xbe", "Java class file"),
    (b"\0asm", "WebAssembly module"),
    (b"#!", "script"),
    (b"UPX!", "UPX data"),
)
#: Bits per byte. Random bytes give 7.95 over a page; machine code stays below 6.8.
_ENCRYPTED_ENTROPY = 7.5
#: Below this many bytes other than zero an entropy says nothing.
_MEANINGFUL_BYTES = 256


def recognize(content: bytes) -> str:
    """Return what ``content`` (usually one page) starts with or looks like, in a few words.

    The words are ours alone; no byte of ``content`` is repeated in them.
    """
    if not content.strip(b"\0"):
        return "all zero"
    for magic, name in _SIGNATURES:
        if content.startswith(magic):
            return name
    bits = entropy(content)
    if bits >= _ENCRYPTED_ENTROPY:
        return f"encrypted or compressed (entropy {bits:.1f})"
    if len(content) - content.count(0) < _MEANINGFUL_BYTES:
        return "mostly zero"
    return f"entropy {bits:.1f}"


def entropy(content: bytes) -> float:
    """Return the Shannon entropy of ``content`` in bits per byte, 0 to 8."""
    counts = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
    shares = counts[counts > 0] / max(1, len(content))
    return abs(float((shares * np.log2(shares)).sum()))


def first_bytes(content: bytes, count: int = 8) -> str:
    """Return the first ``count`` bytes in hexadecimal, separated by spaces."""
    return content[:count].hex(" ")
