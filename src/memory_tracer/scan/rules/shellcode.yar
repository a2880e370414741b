rule execve_shell_x86_64 : shellcode
{
    meta:
        description = "Puts /bin/sh into a register and makes a system call (x86-64)"
    strings:
        // movabs reg, "/bin//sh" or "/bin/sh\0" or "//bin/sh", also shifted right afterwards
        $path = { (48 | 49) (B8 | B9 | BA | BB | BD | BE | BF) (2F 62 69 6E 2F (2F 73 68 | 73 68 ??) | 2F 2F 62 69 6E 2F 73 68) }
        $call = { 0F 05 }
    condition:
        for any i in (1..#path) : ($call in (@path[i]..@path[i] + 64))
}

rule execve_shell_i386 : shellcode
{
    meta:
        description = "Pushes /bin//sh and makes a system call (32-bit)"
    strings:
        $path = { 68 (2F 2F 73 68 | 6E 2F 73 68) [0-2] 68 (2F 62 69 6E | 2F 2F 62 69) }
        $call = { CD 80 }
    condition:
        for any i in (1..#path) : ($call in (@path[i]..@path[i] + 64))
}

rule socket_shellcode_x86_64 : shellcode
{
    meta:
        description = "socket(AF_INET, SOCK_STREAM, ...) as position-independent code writes it (x86-64)"
    strings:
        // push 41; pop rax; [cdq;] push 2; pop rdi; push 1; pop rsi; [cdq;] syscall
        $call = { 6A 29 58 [0-1] 6A 02 5F 6A 01 5E [0-1] 0F 05 }
    condition:
        $call
}

rule mmap_stager_x86_64 : shellcode
{
    meta:
        description = "mmap of memory that is writable and executable, as first stages do (x86-64)"
    strings:
        // xor edi, edi; push 9; pop rax; cdq; mov dh, 16; mov rsi, rdx; xor r9, r9; push 34; pop r10; prot 7
        $call = { 31 FF 6A 09 58 99 B6 10 48 89 D6 4D 31 C9 6A 22 41 5A (B2 07 | 6A 07 5A) 0F 05 }
    condition:
        $call
}

rule getpc_call : shellcode
{
    meta:
        description = "Asks where it is by a call to the next instruction; compilers for x86-64 never do"
    strings:
        $call = { E8 00 00 00 00 (58 | 59 | 5A | 5B | 5D | 5E | 5F) }
    condition:
        $call
}

rule getpc_fnstenv : shellcode
{
    meta:
        description = "Asks where it is by the floating-point environment, as encoders do"
    strings:
        // a floating-point instruction; fnstenv [rsp-12]; pop
        $environment = { (D9 | DA | DB | DD) (C? | D? | E?) [0-12] D9 74 24 F4 [0-12] (58 | 59 | 5A | 5B | 5D | 5E | 5F) }
    condition:
        $environment
}

rule nop_sled : shellcode
{
    meta:
        description = "64 one-byte no-ops in a row; compilers use longer ones to pad"
    strings:
        $sled = { 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 }
    condition:
        $sled
}
