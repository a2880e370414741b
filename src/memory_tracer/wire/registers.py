"""Which registers a REGISTERS record holds, in order, by machine.

They lie as PTRACE_GETREGSET(NT_PRSTATUS) returns them: arch/x86/include/asm/user_64.h,
arch/arm64/include/uapi/asm/ptrace.h. 32-bit programs of x86-64 have its registers.
"""

from __future__ import annotations

#: ``e_machine`` of ELF files (include/uapi/linux/elf-em.h).
EM_X86_64, EM_AARCH64 = 62, 183

REGISTERS: dict[int, tuple[str, ...]] = {
    EM_X86_64: (
        *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8"),
        *("rax", "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss"),
        *("fs_base", "gs_base", "ds", "es", "fs", "gs"),
    ),
    EM_AARCH64: (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate"),
}
