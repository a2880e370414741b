"""Whether programs can be attached to the kernel's functions: what the hook fexit needs.

They are attached by trampolines, which a kernel can be built without, or refuse when it is locked down. So
besides looking for what is needed, a program that does nothing is attached for a moment.
"""

from __future__ import annotations

import ctypes
import os

from .kernel import Kernel
from .libbpf import Library

#: The functions whose results have to be seen; those of the 32-bit ABI are there or not.
_FUNCTIONS = ("mmap", "mprotect", "pkey_mprotect", "mremap", "shmat")
_TRIED = b"__x64_sys_mmap"

_BPF_PROG_TYPE_TRACING = 26
_BPF_TRACE_FEXIT = 25
#: ``r0 = 0; exit``
_DO_NOTHING = bytes.fromhex("b700000000000000 9500000000000000")


class _LoadOptions(ctypes.Structure):
    """``struct bpf_prog_load_opts`` (bpf/bpf.h); the fields up to the ones used here."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_uint32),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
    ]


def why_not(kernel: Kernel, library: Library, page_loop: str) -> str | None:
    """Return why the hook fexit does not work with this page loop here, as a clause; None if it does."""
    if os.uname().machine != "x86_64":
        return "it needs x86-64"
    if page_loop == "bounded":
        return "it needs a page loop of Linux 5.17"
    if not all(kernel.knows(f"__x64_sys_{name}") for name in _FUNCTIONS):
        return "this kernel does not say which functions it has"
    if not kernel.has_raw_tracepoint("mmap_lock_start_locking"):
        return "this kernel has no tracepoint of the lock on mappings"
    if kernel.knows("bpf_iter_task_vma_new") and not kernel.has_raw_tracepoint("sched_prepare_exec"):
        return "this kernel has no tracepoint before execve (Linux 6.10)"
    if kernel.preempts_itself:
        return "this kernel preempts itself (preempt=full)"
    if not _attaches(library):
        return "this kernel refuses to attach programs to its functions"
    return None


def _attaches(library: Library) -> bool:
    """Attach a program that does nothing, and take it away again."""
    options = _LoadOptions()
    options.size = ctypes.sizeof(options)
    options.expected_attach_type = _BPF_TRACE_FEXIT
    function = library.call("libbpf_find_vmlinux_btf_id", _TRIED, _BPF_TRACE_FEXIT)
    if function < 0:
        return False
    options.attach_btf_id = function
    program = library.call(
        "bpf_prog_load",
        _BPF_PROG_TYPE_TRACING,
        b"try",
        b"GPL",
        _DO_NOTHING,
        len(_DO_NOTHING) // 8,
        ctypes.byref(options),
    )
    if program < 0:
        return False
    link = library.call("bpf_raw_tracepoint_open", None, program)
    os.close(program)
    if link < 0:
        return False
    os.close(link)
    return True
