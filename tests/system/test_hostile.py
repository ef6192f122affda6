"""Guests that misbehave: whatever they do ends as the hardware would have it, never with the host process's crash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from . import tiny
from .harness import GUEST_FILES, Emulator, linux

PROGRAM = GUEST_FILES.parent / "build" / "tbench"

# A triple fault resets the machine; with -no-reboot the emulator ends, with status 0.
RESETS = {
    "no IDT": "lidt [idt]\n int3\n idt: .word 0\n .long 0",
    "bad CR0": "lidt [idt]\n mov eax, 0x80000000\n mov cr0, eax\n idt: .word 0\n .long 0",
    "paging onto nothing": "lidt [idt]\n mov eax, 0xfffff000\n mov cr3, eax\n mov eax, cr0\n or eax, 0x80000000\n"
    " mov cr0, eax\n nop\n nop\n idt: .word 0\n .long 0",
    "stack on nothing": "lidt [idt]\n mov esp, 0xc0000000\n ud2\n idt: .word 0xfff\n .long 0xc0000000",
    "undefined instruction": "lidt [idt]\n .byte 0x0f, 0xff, 0xff\n idt: .word 0\n .long 0",
}

# What is read where nothing is, is not said: it may fault at once or run on for as long as it is let.
NOWHERE = {
    "no memory there": "mov eax, 0xdead0000\n jmp eax",
    "off the end of RAM": "mov eax, 0x01fffffe\n mov word ptr [eax], 0x9090\n jmp eax",
    "a device": "mov eax, 0xfec00000\n jmp eax",
    "the local APIC": "mov eax, 0xfee00300\n jmp eax",
}

CODE_WRITERS = {
    # The store changes the next instruction, in the same block: each round must run the new one.
    "within the running block": """
        mov ecx, 20000
        xor ebx, ebx
    again:
        mov dword ptr [patched + 1], ecx
    patched:
        mov eax, 0x11111111
        add ebx, eax
        dec ecx
        jnz again
        lea eax, [ebx - 200010000]
    """,
    # The same block is written back and forth between two instructions of one length (inc ebx, dec ebx).
    "two faces": """
        mov ecx, 20000
        xor ebx, ebx
    again:
        mov eax, ecx
        and eax, 1
        lea eax, [eax * 8 + 0x43]
        mov byte ptr [face], al
        jmp face
    face:
        inc ebx
        dec ecx
        jnz again
        mov eax, ebx
    """,
    # A string instruction overwrites the instructions behind it: inc eax by nop.
    "by rep stosb": """
        mov esi, 2000
        xor ebx, ebx
    again:
        lea edi, [target]
        mov ecx, 16
        mov al, 0x43
        test esi, 1
        jz fill
        mov al, 0x90
    fill:
        rep stosb
    target:
        .byte 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90
        dec esi
        jnz again
        lea eax, [ebx - 16000]
    """,
    # An instruction that lies across two pages, its second half changed from elsewhere.
    "across pages": """
        mov esp, 0x180000
        mov ecx, 2000
        xor ebx, ebx
        mov edi, 0x200ffe
        mov dword ptr [edi], 0x000000b8
        mov word ptr [edi + 4], 0xc300
    again:
        mov byte ptr [edi + 2], cl
        call edi
        sub ah, cl
        or bl, ah
        dec ecx
        jnz again
        movzx eax, bl
    """,
    # A loop moves itself on by its own length, over and over, leaving its old copy behind as data.
    "moving on": """
        mov edx, 3000
        lea esi, [mover]
        mov edi, 0x200000
        mov ebp, edi
        mov ecx, 64
        rep movsb
        xor ebx, ebx
        jmp ebp
    after:
        lea eax, [ebx - 3000]
        jmp done
    mover:
        inc ebx
        dec edx
        jz out_of_here
        mov esi, ebp
        lea edi, [ebp + 64]
        mov ecx, 64
        add ebp, 64
        rep movsb
        jmp ebp
    out_of_here:
        lea eax, [after]
        jmp eax
        .fill 64, 1, 0x90
    done:
    """,
}


@pytest.mark.parametrize("name", RESETS)
def test_triple_fault_resets(emulator: Emulator, tmp_path: Path, name: str) -> None:
    status, output = tiny.run(emulator, tiny.assemble(RESETS[name], tmp_path))
    assert status == 0, output
    assert "Traceback" not in output


@pytest.mark.parametrize("name", CODE_WRITERS)
def test_guest_that_writes_its_own_code(emulator: Emulator, tmp_path: Path, name: str) -> None:
    status, output = tiny.run(emulator, tiny.assemble(CODE_WRITERS[name] + tiny.REPORT, tmp_path))
    assert status == tiny.exit_status(tiny.PASS), output


def test_exit_status_of_a_failed_check(emulator: Emulator, tmp_path: Path) -> None:
    """The tests above can fail."""
    status, _ = tiny.run(emulator, tiny.assemble("mov eax, 7\n" + tiny.REPORT, tmp_path))
    assert status == tiny.exit_status(tiny.FAIL)


def run_then_stop(emulator: Emulator, kernel: Path) -> int:
    """Let the guest run for some seconds, ask the emulator to end, return its status."""
    command = tiny.command(emulator, kernel, "-serial", "none")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.terminate()
        try:
            return process.wait(20)
        finally:
            process.kill()


@pytest.mark.parametrize("name", NOWHERE)
def test_execution_where_no_memory_is(emulator: Emulator, tmp_path: Path, name: str) -> None:
    assert run_then_stop(emulator, tiny.assemble(NOWHERE[name], tmp_path)) == 0


def test_endless_rewriting_can_be_stopped(emulator: Emulator, tmp_path: Path) -> None:
    source = "again: inc dword ptr [patched + 1]\n patched: mov eax, 1\n jmp again"
    assert run_then_stop(emulator, tiny.assemble(source, tmp_path)) == 0


def test_full_code_buffer(emulator: Emulator, guest_files: None, tmp_path: Path) -> None:
    """Far more code than the smallest buffer holds, and results as on the host."""
    if not PROGRAM.is_file() or not (GUEST_FILES / "initrd-bench.gz").is_file():
        pytest.skip("no benchmark program (make guest builds it where gcc is)")
    request = "never_seen_blocks:30000,coremark:20,never_seen_blocks:30001,interpreter:20"
    native = subprocess.run([str(PROGRAM), "run", request], capture_output=True, text=True, check=True).stdout
    path = emulator.path()
    assert path is not None
    command = [path, "-M", "q35", "-cpu", "max", "-m", "256", "-nodefaults", "-display", "none", "-serial", "stdio"]
    command += ["-accel", "tcg,tb-size=1", *linux("initrd-bench.gz", run=f"tbench run {request}")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for line in native.splitlines():
        assert line.rsplit(" ", 1)[0] in done.stdout, line
