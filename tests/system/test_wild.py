"""Guests gone wild: they hang with interrupts off, hit every port and device register, garble what the CPU walks.

Nothing of it may crash or hang the emulator: it ends when it is told to, with the status of an orderly end.
"""

from __future__ import annotations

import os
import pty
import random
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from keystone import KS_ARCH_X86, KS_MODE_32, KS_MODE_64, Ks

from benchmarks.first_instruction import pvh_kernel

from . import randomcode, tiny
from .harness import TESSERA, Emulator

SEED = 20261120
ENDLESS = {
    "loop with interrupts off": "cli\n again: jmp again",
    "halted with interrupts off": "cli\n again: hlt\n jmp again",
    "halted in the dark": "lidt [idt]\n cli\n hlt\n again: jmp again\n idt: .word 0\n .long 0",
    "rep movsb for ever": "mov esi, 0x200000\n mov edi, 0x300000\n again: mov ecx, 0x80000\n rep movsb\n"
    " sub esi, 0x80000\n sub edi, 0x80000\n jmp again",
    "port input for ever": "mov dx, 0x3fd\n again: in al, dx\n jmp again",
    "calls without returns": "mov esp, 0x90000\n again: call again",
    "rewriting the next instruction": "again: inc byte ptr [patched + 1]\n patched: mov al, 0\n jmp again",
    "a storm of faults": """
        lidt [idt]
        lea eax, [handler]
        mov ebx, eax
        and eax, 0xffff
        or eax, 0x80000
        shr ebx, 16
        shl ebx, 16
        or ebx, 0x8e00
        mov ecx, 32
        mov edi, 0x200000
    gates:
        mov [edi], eax
        mov [edi + 4], ebx
        add edi, 8
        dec ecx
        jnz gates
        mov esp, 0x180000
    handler:
        mov esp, 0x180000
        ud2
    idt:
        .word 0xff
        .long 0x200000
    """,
}


SAY_UP = "mov dx, 0x3f8\n mov al, 'U'\n out dx, al\n"


def started(emulator: Emulator, kernel: Path) -> subprocess.Popen[str]:
    """Runs, and the guest has said `U` on its serial port."""
    command = tiny.command(emulator, kernel, "-serial", "stdio")
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if process.stdout.read(1) != "U":
        process.kill()
        raise AssertionError(process.communicate())
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Status and standard error of a process that was told to end; one that does not is killed and fails."""
    try:
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, errors


@pytest.mark.parametrize("name", ENDLESS)
def test_sigterm_ends_it(emulator: Emulator, tmp_path: Path, name: str) -> None:
    process = started(emulator, tiny.assemble(SAY_UP + ENDLESS[name], tmp_path))
    time.sleep(1)  # to be in the middle of it; that it is not over before is the test
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    status, errors = ended(process)
    assert (status, "Traceback" in errors) == (0, False), errors


@pytest.mark.parametrize("name", ["loop with interrupts off", "halted with interrupts off"])
def test_ctrl_a_x_ends_it(emulator: Emulator, tmp_path: Path, name: str) -> None:
    master, slave = pty.openpty()
    command = tiny.command(emulator, tiny.assemble(SAY_UP + ENDLESS[name], tmp_path), "-serial", "mon:stdio")
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        try:
            seen = b""
            while b"U" not in seen:
                assert select.select([master], [], [], 60)[0], seen
                seen += os.read(master, 4096)
            os.write(master, b"\x01x")
            end = time.monotonic() + 30
            while process.poll() is None and time.monotonic() < end:
                if select.select([master], [], [], 0.1)[0]:
                    try:
                        os.read(master, 4096)
                    except OSError:
                        break  # the other end is closed
            assert process.wait(10) == 0
        finally:
            process.kill()
            os.close(master)


def test_triple_faults_reset_again_and_again(emulator: Emulator, tmp_path: Path) -> None:
    """Without -no-reboot: the machine starts again, and says so each time."""
    source = "mov dx, 0x3f8\n mov al, 'R'\n out dx, al\n lidt [idt]\n ud2\n idt: .word 0\n .long 0"
    command = [word for word in tiny.command(emulator, tiny.assemble(source, tmp_path)) if word != "-no-reboot"]
    output = tmp_path / "serial"
    process = subprocess.Popen([*command, "-serial", f"file:{output}"], stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and (not output.exists() or output.stat().st_size < 4):
            time.sleep(0.1)
        assert output.read_bytes()[:4] == b"RRRR"
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_every_port(tmp_path: Path) -> None:
    """Each port is read in three sizes, but for those that end or reset the machine; then random ones are written.

    QEMU 7.2 ends by an assertion at a wide read of its serial port.
    """
    if reason := TESSERA.missing():
        pytest.skip(reason)
    rng = random.Random(SEED)
    harmful = {0x92, 0x64, 0xCF9, 0xCF8, 0xB2, 0xF4, 0x604, 0x605, 0x600, 0x601, 0x602, 0x603, 0x606, 0x607, 0x501}
    # fw_cfg's DMA and the PCI registers could take the ground away under the guest's feet.
    harmful |= set(range(0x510, 0x520)) | set(range(0xCF8, 0xD00)) | set(range(0x600, 0x680)) | set(range(0x60, 0x65))
    ports = [
        port for port in (rng.randrange(0x10000) for _ in range(400)) if not any(port + n in harmful for n in range(4))
    ]
    writes = "\n".join(
        f"mov dx, {port}\n mov eax, {rng.getrandbits(32)}\n out dx, {rng.choice(('al', 'ax', 'eax'))}" for port in ports
    )
    source = f"""
        cli
        xor edx, edx
    again:
        cmp dx, 0x510
        jb read
        cmp dx, 0x51f
        jbe skip
    read:
        in al, dx
        in ax, dx
        in eax, dx
    skip:
        inc dx
        jnz again
        {writes}
        xor eax, eax
    """
    status, output = tiny.run(TESSERA, tiny.assemble(source + tiny.REPORT, tmp_path), timeout=120)
    assert status == tiny.exit_status(tiny.PASS), output


def test_device_registers_in_memory(emulator: Emulator, tmp_path: Path) -> None:
    """The I/O APIC, the HPET and the local APIC are read in each size and at each alignment, and written at random."""
    print("seed", SEED)
    rng = random.Random(SEED)
    writes = []
    for _ in range(600):
        gpa = rng.choice((0xFEC00000, 0xFED00000, 0xFEE00000)) + rng.randrange(0x3FF)
        size, register = rng.choice((("byte", "al"), ("word", "ax"), ("dword", "eax")))
        if gpa & ~0xF != 0xFEE00300:  # no IPI: INIT would end it
            writes.append(f"mov eax, {rng.getrandbits(32)}\n mov {size} ptr [{gpa:#x}], {register}")
    source = f"""
        cli
        mov ebx, 0xfec00000
        call read
        mov ebx, 0xfed00000
        call read
        mov ebx, 0xfee00000
        call read
        jmp write
    read:
        mov ecx, 0x3f0
    again:
        mov al, [ebx + ecx]
        mov ax, [ebx + ecx]
        mov eax, [ebx + ecx]
        dec ecx
        jnz again
        ret
    write:
        {chr(10).join(writes)}
        xor eax, eax
    """
    status, output = tiny.run(
        emulator, tiny.assemble("mov esp, 0x180000\n" + source + tiny.REPORT, tmp_path), timeout=120
    )
    assert status == tiny.exit_status(tiny.PASS), output


LONG_MODE_ENDS = {
    "jump to a non-canonical address": "mov rax, 0x8000000000000000\n jmp rax",
    "return to a non-canonical address": "mov rax, 0x1234567812345678\n push rax\n ret",
    "load CR3 with noise": "mov rax, 0x00000000deadb000\n mov cr3, rax\n nop\n nop",
    "page tables full of ones": "mov rdi, 0x101000\n mov ecx, 0x800\n mov rax, -1\n rep stosq\n"
    " mov rax, cr3\n mov cr3, rax",
    "page tables that lead to themselves": "mov rdi, 0x101000\n mov ecx, 512\n mov rax, 0x101007\n rep stosq\n"
    " mov rax, cr3\n mov cr3, rax\n mov rbx, 0x7f00000000\n jmp rbx",
    "an interrupt stack in the void": "mov rax, 0x1111111111111111\n mov [0x107024], rax\n ud2",
    "an interrupt stack on nothing": "mov rax, 0x40000000\n mov [0x107024], rax\n ud2",
    "an IDT of noise": "mov rdi, 0x106000\n mov ecx, 512\n again: rdtsc\n imul rax, rax, 0x5851f42d\n"
    " stosq\n loop again\n sti\n int 0x21\n ud2",
    "a GDT of noise": "mov rdi, 0x105000\n mov ecx, 8\n mov rax, 0x5a5a5a5a5a5a5a5a\n rep stosq\n ud2",
    "a task register of noise": "mov rax, 0x00008900deadbeef\n mov [0x105030], rax\n mov ax, 0x30\n ltr ax\n ud2",
}


@pytest.mark.parametrize("name", LONG_MODE_ENDS)
def test_long_mode_garbage(emulator: Emulator, tmp_path: Path, name: str) -> None:
    """It ends by a triple fault or runs wild: then it is stopped."""
    image = bytearray(randomcode.image(SEED, 1 << 40))
    code, _ = Ks(KS_ARCH_X86, KS_MODE_64).asm(SAY_UP + LONG_MODE_ENDS[name], randomcode.RANDOM, as_bytes=True)
    assert code is not None
    # The handler's place after LIDT and LTR: jump to the test's code instead of starting the timer.
    at = randomcode.KERNEL - randomcode.BASE + 14
    place, stack = (value.to_bytes(4, "little") for value in (randomcode.RANDOM, randomcode.STACK))
    jump = b"\xb8" + place + b"\xbc" + stack + b"\xff\xe0"  # mov eax, place; mov esp, stack; jmp rax
    image[at : at + len(jump)] = jump
    start = randomcode.RANDOM - randomcode.BASE
    image[start : start + len(code)] = code
    kernel = tmp_path / "wild.elf"
    kernel.write_bytes(pvh_kernel(bytes(image)))
    process = started(emulator, kernel)
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.terminate()
    status, errors = ended(process)
    assert (status, "Traceback" in errors, "internal error" in errors) == (0, False, False), errors


def test_smallest_code_buffer(tmp_path: Path) -> None:
    """Random code, which never stops making new blocks, in 1 MiB."""
    if reason := TESSERA.missing():
        pytest.skip(reason)
    kernel = tmp_path / "random.elf"
    kernel.write_bytes(pvh_kernel(randomcode.image(SEED, 300)))
    status, output = tiny.run(TESSERA, kernel, "-accel", "tcg,tb-size=1", timeout=300)
    assert status == tiny.exit_status(randomcode.PASS), output


# Instructions, and of how many of their bytes few continuations are instructions: what is cut off there must not be
# taken for undefined. That split comes first, before the translator has seen the encoding whole.
SPLIT = (
    *(("f00fb10e", 2), ("660f3a0fc104", 3), ("f20f38f1c1", 3), ("0fc70e", 2), ("660f3817c1", 3), ("f30fb8c1", 2)),
    *(("660f3a44c100", 4), ("660f3a63c100", 4), ("f00fc10e", 3), ("f00fab0e", 3), ("0fc7f0", 2), ("0f3800c1", 2)),
    *(("660f6fc1", 2), ("f30f6fc1", 2), ("0f01d0", 2), ("0faee8", 2)),
)


def test_instructions_across_pages(emulator: Emulator, tmp_path: Path) -> None:
    """Each is split at each of its bytes."""
    calls, places = [], []
    at = tiny.ENTRY + 0x10000
    for text, first in SPLIT:
        code = bytes.fromhex(text)
        for before in sorted(range(1, len(code)), key=lambda size: size != first):
            places.append((at + 0x1000 - before, code + b"\xc3"))
            calls.append(f"mov ecx, 0\n mov eax, {at + 0x1000 - before:#x}\n call eax")
            at += 0x2000
    source = f"""
        mov esp, 0x90000
        mov eax, cr0
        and eax, 0xfffffffb
        or eax, 2
        mov cr0, eax
        mov eax, 0x40600
        mov cr4, eax
        mov esi, 0x80000
        {chr(10).join(calls)}
        xor eax, eax
    """
    main, _ = Ks(KS_ARCH_X86, KS_MODE_32).asm(source + tiny.REPORT, tiny.ENTRY, as_bytes=True)
    assert main is not None and len(main) < 0x10000
    image = bytearray(at - tiny.ENTRY)
    image[: len(main)] = main
    for gpa, code in places:
        image[gpa - tiny.ENTRY : gpa - tiny.ENTRY + len(code)] = code
    kernel = tmp_path / "split.elf"
    kernel.write_bytes(pvh_kernel(bytes(image)))
    status, output = tiny.run(emulator, kernel, timeout=60)
    assert status == tiny.exit_status(tiny.PASS), output
