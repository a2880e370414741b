rule upx : packer
{
    meta:
        description = "Text or marks of the UPX packer"
    strings:
        $info = "$Info: This file is packed with the UPX executable packer"
        $id = "$Id: UPX "
        $mark = "UPX!"
    condition:
        $info or $id or #mark >= 2
}

rule xor_decoder_loop : packer
{
    meta:
        description = "A loop that decodes memory byte by byte with a constant"
    strings:
        // xor byte [reg], constant; inc reg; [cmp or dec;] jump back
        $loop = { 80 (30 | 31 | 32 | 33 | 36 | 37) ?? 48 FF (C0 | C1 | C2 | C3 | C6 | C7) [0-4] (E2 | 72 | 75) (E? | F?) }
    condition:
        $loop
}

rule fileless_exec_stub : packer
{
    meta:
        description = "memfd_create and execveat within 512 bytes: executes a program that is in no file (x86-64)"
    strings:
        $create = { B8 3F 01 00 00 [0-16] 0F 05 }
        $execute = { B8 42 01 00 00 [0-16] 0F 05 }
    condition:
        for any i in (1..#create) : ($execute in (@create[i]..@create[i] + 512))
}
