"""Guests of a few instructions: 32-bit code at 1 MiB, entered by PVH (flat protected mode, no paging, no IDT)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from keystone import KS_ARCH_X86, KS_MODE_32, Ks

from benchmarks.first_instruction import pvh_kernel

from .harness import Emulator

ENTRY = 0x100000
EXIT_DEVICE = ("-device", "isa-debug-exit,iobase=0xf4,iosize=4")
PASS, FAIL = 0x10, 0x11


def exit_status(value: int) -> int:
    """The emulator's status after the guest wrote ``value`` to isa-debug-exit."""
    return value << 1 | 1


# eax is 0 for PASS, anything else for FAIL.
REPORT = f"""
    test eax, eax
    mov al, {PASS}
    jz report
    mov al, {FAIL}
report:
    out 0xf4, al
stop:
    hlt
    jmp stop
"""


def assemble(source: str, directory: Path) -> Path:
    """A kernel file of that source."""
    code, _ = Ks(KS_ARCH_X86, KS_MODE_32).asm(source, ENTRY, as_bytes=True)
    assert code is not None
    path = directory / "tiny.elf"
    path.write_bytes(pvh_kernel(bytes(code)))
    return path


def command(emulator: Emulator, kernel: Path, *arguments: str) -> list[str]:
    """The command line that runs ``kernel`` with its serial port on standard output."""
    path = emulator.path()
    assert path is not None
    machine = ["-M", "q35", "-cpu", "max", "-m", "32", "-nodefaults", "-display", "none", "-no-reboot", *EXIT_DEVICE]
    return [path, *machine, *emulator.extra, "-kernel", str(kernel), *arguments]


def run(emulator: Emulator, kernel: Path, *arguments: str, timeout: float = 30.0) -> tuple[int, str]:
    """Run to the end; exit status and output. A guest that hangs fails by the timeout."""
    done = subprocess.run(
        command(emulator, kernel, "-serial", "stdio", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace")
