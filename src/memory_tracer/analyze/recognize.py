"""Say in a few words what a page of bytes looks like."""

from __future__ import annotations

import re

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
SHELLCODE = "shellcode prologue"
#: How code begins, after no-ops: position-independent code that asks where it is, or makes a system call at
#: once; jumps to addresses far away; functions. The rules for ``scan`` look for more, everywhere.
_BEGINNINGS = tuple(
    (re.compile(rb"\xfc?\x90*" + pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"\xe8\0\0\0\0[\x58-\x5b\x5d-\x5f]", SHELLCODE),  # call next; pop
        (rb"\xeb[\x01-\x7f][\x58-\x5b\x5d-\x5f]", SHELLCODE),  # jmp to a call of the next; pop
        (rb"[\xd9-\xdd][\xc0-\xef].{0,12}\xd9\x74\x24\xf4", SHELLCODE),  # fnstenv [rsp-12]
        (rb"(\x48?\x31.){0,3}\x6a[\x09\x29\x3b]\x58", SHELLCODE),  # push mmap, socket, execve; pop rax
        (rb".{0,16}[\x48\x49][\xb8-\xbf]/bin/(/sh|sh\0)", SHELLCODE),
        (rb"\xff\x25|[\x48\x49][\xb8-\xbf].{8}\x41?\xff[\xd0-\xd7\xe0-\xe7]", "jump stub"),
        (rb"(\xf3\x0f\x1e\xfa|\x55\x48\x89\xe5)", "function prologue"),  # endbr64, or push rbp; mov rbp, rsp
    )
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
    beginning = next((f"{name}, " for pattern, name in _BEGINNINGS if pattern.match(content)), "")
    if len(content) - content.count(0) < _MEANINGFUL_BYTES:
        return f"{beginning}mostly zero"
    return f"{beginning}entropy {bits:.1f}"


def entropy(content: bytes) -> float:
    """Return the Shannon entropy of ``content`` in bits per byte, 0 to 8."""
    counts = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
    shares = counts[counts > 0] / max(1, len(content))
    return abs(float((shares * np.log2(shares)).sum()))


def first_bytes(content: bytes, count: int = 8) -> str:
    """Return the first ``count`` bytes in hexadecimal, separated by spaces."""
    return content[:count].hex(" ")
