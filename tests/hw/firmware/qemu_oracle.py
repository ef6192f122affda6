"""Start qemu-system-x86_64 in a `CpuEntry`, without its firmware: the oracle of what the boot code leaves in memory.

A ROM of our own stands in for SeaBIOS: it sets the few chip set registers that a kernel finds set (ECAM, PMBASE, PIRQs,
shadow RAM), copies the F segment, loads the state and jumps. The rest of RAM comes in through QEMU's loader device.
"""

import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keystone import KS_ARCH_X86, KS_MODE_32, Ks

from hw.firmware.cpu_entry import GPR_NAMES, CpuEntry

QEMU = shutil.which("qemu-system-x86_64")

ROM_SIZE = 0x20000
ROM_GPA = (1 << 32) - ROM_SIZE
CODE_GPA = (1 << 32) - 0x10000
F_SEGMENT, F_SEGMENT_SIZE = 0xF0000, 0x10000
CHUNK = 0x10000

PCI_REGISTERS = (
    (0x80000060, 0xB0000001),  # 00:00.0 PCIEXBAR: 0xB0000000, 256 MiB, enabled
    (0x80000090, 0x33333330),  # PAM0 to PAM3: shadow RAM readable and writable
    (0x80000094, 0x00333333),  # PAM4 to PAM6
    (0x8000F840, 0x00000601),  # 00:1f.0 PMBASE 0x600
    (0x8000F844, 0x00000080),  # ACPI_CNTL: enabled, SCI is IRQ 9
    (0x8000F860, 0x0B0B0A0A),  # PIRQ A to D
    (0x8000F868, 0x0B0B0A0A),  # PIRQ E to H
)


def rom(entry: CpuEntry, ram: bytes | bytearray | memoryview) -> bytes:
    """The ROM image: F segment, then code up to the reset vector."""
    pci = "\n".join(
        f"mov edx, 0xcf8\nmov eax, {address}\nout dx, eax\nmov edx, 0xcfc\nmov eax, {value}\nout dx, eax"
        for address, value in PCI_REGISTERS
    )
    long = entry.long_mode
    load_gpr = "\n".join(
        f"mov {name if long else name.replace('r', 'e', 1)}, {value:#x}"
        for name, value in zip(GPR_NAMES, entry.gpr, strict=True)
        if long or not name[1:].isdigit()
    )
    enter_long = f"""
        mov eax, {entry.cr4:#x}
        mov cr4, eax
        mov eax, {entry.cr3:#x}
        mov cr3, eax
        mov ecx, 0xc0000080
        mov eax, {entry.efer & ~0x400:#x}
        xor edx, edx
        wrmsr
    """
    source = f"""
        .code32
        start:
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        {pci}
        mov esi, {ROM_GPA:#x}
        mov edi, {F_SEGMENT:#x}
        mov ecx, {F_SEGMENT_SIZE:#x}
        rep movsb
        mov eax, gdtr
        .byte 0x0f, 0x01, 0x10
        {enter_long if long else ""}
        mov eax, {entry.cr0:#x}
        mov cr0, eax
        push {entry.cs.selector:#x}
        mov eax, go
        push eax
        mov ebp, {entry.ds.selector:#x}
        retf
        {".code64" if long else ""}
        go:
        mov ds, ebp
        mov es, ebp
        mov fs, ebp
        mov gs, ebp
        mov ss, ebp
        {load_gpr}
        {"jmp qword ptr [rip+target]" if long else "jmp dword ptr [target]"}
        target: .quad {entry.rip:#x}
        gdtr: .word {entry.gdtr.limit}
        .long {entry.gdtr.base}
    """
    # `retf` needs a stack before the entry's own: free low memory.
    source = source.replace("start:", "start:\nmov esp, 0x7000", 1)
    code, _ = Ks(KS_ARCH_X86, KS_MODE_32).asm(source, CODE_GPA, as_bytes=True)
    assert code is not None and len(code) < 0xFF00
    image = bytearray(ROM_SIZE)
    image[:F_SEGMENT_SIZE] = ram[F_SEGMENT : F_SEGMENT + F_SEGMENT_SIZE]
    image[0x10000 : 0x10000 + len(code)] = code
    # Real mode at the reset vector's segment: load a flat GDT, enter protected mode, jump to `start`.
    flat_gdt = struct.pack("<QQQ", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
    image[0x1FF00 : 0x1FF00 + 24] = flat_gdt
    image[0x1FF20:0x1FF26] = struct.pack("<HI", 23, 0xFFFFFF00)
    real = b"\xfa\x2e\x66\x0f\x01\x16\x20\xff" + b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0"
    real += b"\x66\xea" + struct.pack("<IH", CODE_GPA, 8)
    image[0x1FF30 : 0x1FF30 + len(real)] = real
    image[0x1FFF0:0x1FFF3] = b"\xe9" + struct.pack("<h", 0xFF30 - 0xFFF3)
    return bytes(image)


def used_ranges(ram: bytes | bytearray | memoryview) -> list[tuple[int, int]]:
    """(start, end) of the memory that is not zero, outside the F segment."""
    ranges: list[tuple[int, int]] = []
    zero = bytes(CHUNK)
    for start in range(0, len(ram), CHUNK):
        if start == F_SEGMENT or ram[start : start + CHUNK] == zero:
            continue
        if ranges and ranges[-1][1] == start and start != 0x100000:
            ranges[-1] = (ranges[-1][0], start + CHUNK)
        else:
            ranges.append((start, start + CHUNK))
    return ranges


@dataclass(frozen=True, slots=True)
class Result:
    status: int
    output: str


def run(
    entry: CpuEntry, ram: bytearray, directory: Path, *, options: Sequence[str] = (), stdin: str = "", timeout: int = 60
) -> Result:
    """Run to the end; the serial console is the output."""
    assert QEMU is not None
    (directory / "rom.bin").write_bytes(rom(entry, ram))
    command = [QEMU, "-M", "q35", "-m", str(len(ram) >> 20), "-bios", str(directory / "rom.bin")]
    command += ["-display", "none", "-nodefaults", "-serial", "stdio", "-no-reboot", *options]
    for index, (start, end) in enumerate(used_ranges(ram)):
        path = directory / f"ram{index}.bin"
        path.write_bytes(ram[start:end])
        command += ["-device", f"loader,file={path},addr={start:#x},force-raw=on"]
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
    )
    return Result(done.returncode, done.stdout)
