"""A guest that runs random bytes: each exception, interrupt or system call starts it again elsewhere.

It is a kernel of its own, built here: page tables, descriptor tables, a handler in supervisor pages, 2 MiB of random
bytes and 2 MiB of scratch memory in user pages. Whatever the bytes do, they cannot harm the kernel; the local APIC's
timer ends what would run for ever; after enough starts it leaves through isa-debug-exit.
"""

from __future__ import annotations

import random
import struct

from keystone import KS_ARCH_X86, KS_MODE_32, KS_MODE_64, Ks

BASE = 0x100000
PML4, PDPT, PD0, PD3 = (BASE + 0x1000 * n for n in range(1, 5))
GDT, IDT, TSS = BASE + 0x5000, BASE + 0x6000, BASE + 0x7000
KERNEL, STATE, STACK = BASE + 0x8000, BASE + 0x9000, BASE + 0xB000
RANDOM, RANDOM_SIZE, SCRATCH, USER_STACK = 0x200000, 0x200000, 0x400000, 0x500000
KERNEL_CS, KERNEL_DS, USER32_CS, USER_DS, USER64_CS, TSS_SELECTOR = 0x08, 0x10, 0x1B, 0x23, 0x2B, 0x30
PASS = 0x10

ENTRY = f"""
    lgdt [{KERNEL - 16:#x}]
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov eax, {PML4:#x}
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x901
    xor edx, edx
    wrmsr
    mov eax, 0x80000033
    mov cr0, eax
    .byte 0xea
    .long {KERNEL:#x}
    .word {KERNEL_CS}
"""

# STATE: +0 the generator's state, +8 starts made, +16 to make, +32 code and +40 data segment. The handler has an
# interrupt stack; SYSCALL brings the user's rsp.
HANDLER = f"""
    lidt [{KERNEL - 32:#x}]
    mov ax, {TSS_SELECTOR}
    ltr ax
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, {KERNEL_CS | (USER32_CS << 16):#x}
    wrmsr
    mov ecx, 0xc0000082
    lea rax, [rip + restart]
    mov rdx, rax
    shr rdx, 32
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x47700
    xor edx, edx
    wrmsr
    mov eax, 0xfee000f0
    mov dword ptr [rax], 0x1ff
    mov eax, 0xfee003e0
    mov dword ptr [rax], 0xb
    mov eax, 0xfee00320
    mov dword ptr [rax], 0x20030
    mov eax, 0xfee00380
    mov dword ptr [rax], 3000000
restart:
    cld
    mov esp, {STACK:#x}
    mov eax, 0xfee000b0
    mov dword ptr [rax], 0
    mov rbp, {STATE:#x}
    inc qword ptr [rbp + 8]
    mov rax, [rbp + 8]
    cmp rax, [rbp + 16]
    jae finished
    mov rax, [rbp]
    mov rcx, rax
    shl rcx, 13
    xor rax, rcx
    mov rcx, rax
    shr rcx, 7
    xor rax, rcx
    mov rcx, rax
    shl rcx, 17
    xor rax, rcx
    mov [rbp], rax
    fninit
    mov dword ptr [rbp + 24], 0x1f80
    ldmxcsr dword ptr [rbp + 24]
    push qword ptr [rbp + 40]
    mov ecx, {USER_STACK:#x}
    push rcx
    mov rcx, rax
    shr rcx, 24
    and ecx, 0x40cd5
    or ecx, 0x202
    push rcx
    push qword ptr [rbp + 32]
    mov rcx, rax
    shr rcx, 40
    and ecx, {RANDOM_SIZE - 1:#x}
    add rcx, {RANDOM:#x}
    push rcx
    mov ecx, [rbp + 40]
    mov ds, cx
    mov es, cx
    mov rbx, rax
    and ebx, 0xffff8
    add rbx, {SCRATCH:#x}
    mov rsi, rbx
    add rsi, 0x8000
    mov rdi, rbx
    add rdi, 0x10000
    mov rcx, rax
    shr rcx, 50
    mov rdx, rax
    mov r8, rbx
    mov r9, rsi
    mov r10, rax
    not r10
    mov r11, rdi
    mov r12, rbx
    mov r13, rsi
    mov r14d, eax
    xor r15d, r15d
    mov rbp, rdi
    iretq
finished:
    mov al, {PASS}
    out 0xf4, al
stop:
    hlt
    jmp stop
"""


def _assemble(text: str, mode: int, at: int) -> bytes:
    code, _ = Ks(KS_ARCH_X86, mode).asm(text, at, as_bytes=True)
    assert code is not None
    return bytes(code)


def _restart_address(code: bytes) -> int:
    """Where `restart` is: CLD, then MOV ESP."""
    return KERNEL + code.index(b"\xfc\xbc" + STACK.to_bytes(4, "little"))


def image(seed: int, starts: int, *, code: int = USER64_CS) -> bytes:
    """The kernel, loaded at BASE and entered there in 32-bit protected mode. code: the random bytes' code segment."""
    memory = bytearray(SCRATCH - BASE)

    def put(gpa: int, data: bytes) -> None:
        memory[gpa - BASE : gpa - BASE + len(data)] = data

    put(BASE, _assemble(ENTRY, KS_MODE_32, BASE))
    put(PML4, struct.pack("<Q", PDPT | 7))
    put(PDPT, struct.pack("<QQQQ", PD0 | 7, 0, 0, PD3 | 7))
    # 2 MiB pages: the kernel's, the random bytes, the scratch memory, and the local APIC.
    put(PD0, struct.pack("<QQQ", 0x83, RANDOM | 0x87, SCRATCH | 0x87))
    put(PD3 + 8 * 0x1F7, struct.pack("<Q", 0xFEE00000 | 0x93))
    flat = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF)
    tss = (0x0000890000000067 | (TSS & 0xFFFFFF) << 16 | (TSS >> 24) << 56, 0)
    put(GDT, struct.pack("<8Q", *flat, *tss))
    kernel = _assemble(HANDLER, KS_MODE_64, KERNEL)
    put(KERNEL, kernel)
    handler = _restart_address(kernel)
    for vector in range(256):
        # Interrupt gates with interrupt stack 1; users may call every other one.
        kind = 0x8E01 | (0x6000 if vector & 1 else 0)
        low = handler & 0xFFFF | KERNEL_CS << 16 | kind << 32 | (handler >> 16 & 0xFFFF) << 48
        put(IDT + 16 * vector, struct.pack("<QQ", low, handler >> 32))
    put(TSS, struct.pack("<IQQQQQ", 0, STACK, STACK, STACK, 0, STACK))
    put(TSS + 0x66, struct.pack("<H", 0x68))
    put(KERNEL - 16, struct.pack("<HI", 63, GDT))
    put(KERNEL - 32, struct.pack("<HQ", 4095, IDT))
    rng = random.Random(seed)
    data = KERNEL_DS if code == KERNEL_CS else USER_DS
    put(STATE, struct.pack("<QQQQQQ", rng.getrandbits(64) | 1, 0, starts, 0, code, data))
    put(RANDOM, rng.randbytes(RANDOM_SIZE))
    return bytes(memory)
