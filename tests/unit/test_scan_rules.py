"""The starter rules: each finds what it is for, and none of them ordinary code."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from memory_tracer.scan.rulebook import BUNDLED, compile_rules
from memory_tracer.scan.search import rules_of

yara_x = pytest.importorskip("yara_x")

#: For each rule bytes as they are met with, from the programs named.
SAMPLES = {
    # the first 24 bytes of a 64-bit ELF file
    "elf_in_memory": "7f454c46 02010100 00000000 00000000 0300 3e00 01000000",
    # xor rsi, rsi; push rsi; movabs rdi, "/bin//sh"; push rdi; push rsp; pop rdi; push 59; ...
    "execve_shell_x86_64": "4831f6 56 48bf2f62696e2f2f7368 57 54 5f 6a3b 58 99 0f05",
    # xor eax, eax; push eax; push "//sh"; push "/bin"; mov ebx, esp; ...; mov al, 11; int 0x80
    "execve_shell_i386": "31c0 50 682f2f7368 682f62696e 89e3 50 53 89e1 b00b cd80",
    # push 41; pop rax; cdq; push 2; pop rdi; push 1; pop rsi; syscall
    "socket_shellcode_x86_64": "6a29 58 99 6a02 5f 6a01 5e 0f05",
    # xor edi, edi; push 9; pop rax; cdq; mov dh, 16; mov rsi, rdx; xor r9, r9; push 34; ...
    "mmap_stager_x86_64": "4831ff 6a09 58 99 b610 4889d6 4d31c9 6a22 415a b207 0f05",
    # call the next instruction; pop rsi
    "getpc_call": "e800000000 5e",
    # fldz; fnstenv [esp-12]; pop ebx, as in shikata_ga_nai
    "getpc_fnstenv": "d9ee d97424f4 5b",
    "nop_sled": "90" * 64,
    "upx": b"$Info: This file is packed with the UPX executable packer".hex(),
    # xor byte [rdi], 0x5a; inc rdi; dec ecx; jnz back
    "xor_decoder_loop": "80375a 48ffc7 ffc9 75f6",
    # mov eax, memfd_create; syscall; ...; mov eax, execveat; syscall
    "fileless_exec_stub": "b83f010000 0f05 4889c7 b842010000 41b800100000 0f05",
}

COMPILED = compile_rules([BUNDLED])


def matching(content: bytes) -> set[str]:
    return {rule.identifier for rule in COMPILED.scan(content).matching_rules}


def test_every_rule_has_a_sample_and_says_what_it_is() -> None:
    rules = rules_of(COMPILED)
    assert {rule.name for rule in rules} == set(SAMPLES)
    assert all(rule.tags and rule.metadata["description"] for rule in rules)


@pytest.mark.parametrize("name", SAMPLES)
def test_rule_finds_its_sample_and_no_other_does(name: str) -> None:
    assert matching(bytes(300) + bytes.fromhex(SAMPLES[name]) + bytes(300)) == {name}


@pytest.mark.parametrize("program", ["python", "libc.so.6", "gcc"])
def test_ordinary_programs_are_nothing_but_elf_files(program: str) -> None:
    paths = {
        "python": Path(sys.executable).resolve(),
        "libc.so.6": next(iter(Path("/usr/lib").glob("*/libc.so.6")), None),
        "gcc": Path(shutil.which("gcc") or "/nonexistent").resolve(),
    }
    path = paths[program]
    if path is None or not path.exists():
        pytest.skip(f"{program} is not installed where it is looked for")
    assert matching(path.read_bytes()) == {"elf_in_memory"}
