rule elf_in_memory : elf
{
    meta:
        description = "Header of an ELF program or library for x86, in memory that was executable"
    strings:
        // magic, class, little-endian, version; ET_EXEC or ET_DYN; EM_386 or EM_X86_64; version
        $header = { 7F 45 4C 46 (01 | 02) 01 01 [9] (02 | 03) 00 (03 | 3E) 00 01 00 00 00 }
    condition:
        $header
}
