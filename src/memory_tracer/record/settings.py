"""What a recording should do, in the user's terms, and its form for the kernel program."""

from __future__ import annotations

import os
import re
import struct
import time
from dataclasses import dataclass, field

from ..errors import UsageError
from ..model import EventKind, Protection
from ..wire.layout import COMM_BYTES, PAGE_BYTES
from .scope import Scope

#: Bits of ``trace_configuration.flags``.
(
    _FOLLOW,
    _EXCLUDE_FILE_BACKED,
    _DEBUG,
    _ANY_UID,
    _ANY_COMM,
    _EXACT,
    _OTHERS,
    _ALL_CALLS,
    _HUGETLB_CACHE,
    _FETCH,
    _SCOPE,
) = (1 << n for n in range(11))

_HASH_KEY_WORDS = 2 * PAGE_BYTES // 8
#: ``struct trace_configuration`` of memory_tracer.h.
_CONFIGURATION = struct.Struct(f"<5Q10I2q{COMM_BYTES}s{_HASH_KEY_WORDS}Q")

#: Ways in which the program can repeat work; see ``enum loop_engine`` in bpf/mapping.bpf.h.
PAGE_LOOPS = ("iterator", "callback", "bounded")

#: By what calls can be seen; see docs/ebpf.md.
HOOKS = ("mm-lock", "tracepoint", "fexit")

MIN_RING_BYTES = PAGE_BYTES
MAX_RING_BYTES = 1 << 30
DEFAULT_RING_BYTES = 64 << 20
DEFAULT_SIZE_LIMIT = 16 << 30
#: Part of the ring that pages leave to other records: an eighth, or this.
_RESERVE_BYTES = 256 << 10
#: How long one call may wait for room in the ring, as long as the recorder gets on (nanoseconds).
_WAIT_NS = 5_000_000_000
#: A file that changed so shortly before the recording may well be gone after it.
RECENT_SECONDS = 300


#: Files are stamped with a clock that is behind by a tick (CONFIG_HZ is 100 at least), not more.
_STAMP_ERROR_NS = 20_000_000


def recently(seconds: float) -> int:
    """What counts as recent for a recording that begins now: the time in nanoseconds since epoch."""
    return time.time_ns() - int(seconds * 1e9) - _STAMP_ERROR_NS


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str) -> int:
    """Read a number of bytes with an optional K, M, G or T (binary units). Raises UsageError."""
    match = re.fullmatch(r"(\d+)([kmgt]?)(i?b)?", text.lower())
    if match is None:
        raise UsageError(f"{text!r} is not a size; write 64M or 4096")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True, slots=True)
class ProtectionFilter:
    """Which requested protections matter: ``requested & mask == value``."""

    mask: Protection = Protection.EXEC
    value: Protection = Protection.EXEC

    @classmethod
    def parse(cls, text: str) -> ProtectionFilter:
        """Read ``x`` or ``wx`` (at least these), ``r-x`` (exactly these) or ``any``.

        Raises UsageError for anything else.
        """
        bits = {"r": Protection.READ, "w": Protection.WRITE, "x": Protection.EXEC}
        if text == "any":
            return cls(Protection.NONE, Protection.NONE)
        exact = (
            len(text) == 3 and all(a in (b, "-") for a, b in zip(text, "rwx", strict=True)) and "-" in text
        )
        letters = text.replace("-", "") if exact else text
        if not text or len(set(letters)) != len(letters) or not set(letters) <= set(bits):
            raise UsageError(f"{text!r} is not a protection; use x, wx, rwx, r-x or any")
        value = Protection.NONE
        for letter in letters:
            value |= bits[letter]
        return cls(Protection(7) if exact else value, value)


@dataclass(frozen=True, slots=True)
class Settings:
    """All options of a recording. Sizes are in bytes."""

    protection: ProtectionFilter = field(default_factory=ProtectionFilter)
    kinds: frozenset[EventKind] | None = None
    follow: bool = True
    exclude_file_backed: bool = False
    uid: int | None = None
    comm: str | None = None
    ring_bytes: int = DEFAULT_RING_BYTES
    size_limit: int | None = DEFAULT_SIZE_LIMIT
    page_limit: int = 1 << 18
    hot_calls: int = 16
    sample_rate: int = 997
    pass_rate: int = 50
    #: See all system calls, those of the 32-bit ABI among them, and look before each.
    all_calls: bool = True
    #: Percent of a target's time that these looks may take.
    call_share: int = 5
    exact: bool = False
    #: Let a call wait for room in the ring instead of losing its pages.
    lossless: bool = True
    debug: bool = False
    #: By what calls are seen; None: the best that this kernel has.
    hook: str | None = None
    page_loop: str | None = None
    #: Mapped files that changed since (nanoseconds since epoch) are recorded by their bytes.
    files_since_ns: int = field(default_factory=lambda: recently(RECENT_SECONDS))
    #: Record the processes for which this holds, instead of named ones. It can be changed later.
    scope: Scope | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not MIN_RING_BYTES <= self.ring_bytes <= MAX_RING_BYTES or self.ring_bytes & (self.ring_bytes - 1):
            raise UsageError(
                "the ring size must be a power of two from 4 KiB to 1 GiB (kernel/bpf/ringbuf.c)"
            )
        if self.page_loop is not None and self.page_loop not in PAGE_LOOPS:
            raise UsageError(f"{self.page_loop!r} is not a page loop; there are {', '.join(PAGE_LOOPS)}")
        if self.hook is not None and self.hook not in HOOKS:
            raise UsageError(f"{self.hook!r} is not a hook; there are {', '.join(HOOKS)}")
        if self.comm is not None and len(self.comm.encode()) >= COMM_BYTES:
            raise UsageError(
                f"a process name has at most {COMM_BYTES - 1} bytes: {self.comm!r} never matches"
            )

    def pack(
        self,
        physical_mask: int,
        physical_gib: int,
        *,
        looks_at_others: bool = False,
        caches_hugetlb: bool = False,
        fetches: bool = False,
    ) -> bytes:
        """The bytes of ``struct trace_configuration``, with a fresh secret hash key."""
        flags = _FOLLOW if self.follow else 0
        flags |= _EXCLUDE_FILE_BACKED if self.exclude_file_backed else 0
        flags |= _DEBUG if self.debug else 0
        flags |= _ANY_UID if self.uid is None else 0
        flags |= _ANY_COMM if self.comm is None else 0
        flags |= _EXACT if self.exact else 0
        flags |= _OTHERS if looks_at_others else 0
        flags |= _ALL_CALLS if self.all_calls else 0
        flags |= _HUGETLB_CACHE if caches_hugetlb else 0
        flags |= _FETCH if fetches else 0
        flags |= _SCOPE if self.scope is not None else 0
        mask = (1 << 64) - 1 if self.kinds is None else sum(1 << kind for kind in self.kinds)
        return _CONFIGURATION.pack(
            mask,
            self.ring_bytes // 4,
            self.ring_bytes - min(self.ring_bytes // 8, _RESERVE_BYTES),
            _WAIT_NS if self.lossless else 0,
            physical_mask,
            self.protection.mask,
            self.protection.value,
            flags,
            self.uid or 0,
            self.hot_calls,
            self.page_limit,
            physical_gib,
            os.getpid(),
            self.call_share,
            len(os.sched_getaffinity(0)) - 1,  # with one CPU nobody would drain meanwhile
            recently(0),
            self.files_since_ns,
            (self.comm or "").encode(),
            *struct.unpack(f"<{_HASH_KEY_WORDS}Q", os.urandom(8 * _HASH_KEY_WORDS)),
        )

    def describe(self) -> dict[str, object]:
        """The filters as they stand in a capture's metadata."""
        return {
            "protection_mask": int(self.protection.mask),
            "protection_value": int(self.protection.value),
            "kinds": sorted(str(kind) for kind in self.kinds) if self.kinds is not None else None,
            "follow": self.follow,
            "exclude_file_backed": self.exclude_file_backed,
            "uid": self.uid,
            "comm": self.comm,
            "files_since_ns": self.files_since_ns,
            "scope": self.scope.describe() if self.scope is not None else None,
        }
