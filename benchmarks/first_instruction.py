"""Images whose first guest instructions write one byte to the serial port: process start to first guest instruction.

An emulator that starts in firmware gets the code as its ROM, at the reset vector (SDM volume 3, 10.1.4); one that
starts a kernel directly gets it as the entry point of an ELF file with the PVH note (Xen, docs/misc/pvh.pandoc). Both
measure everything up to, and nothing behind, the first instructions.
"""

from __future__ import annotations

import os
import select
import struct
import time
from pathlib import Path

from benchmarks.machines import Emulator, running

MARK = b"!"

# mov dx,0x3f8 / mov al,'!' / out dx,al / cli / hlt / jmp to hlt; the first has an operand-size prefix in 32-bit code.
_OUT_AND_STOP = b"\xb0" + MARK + b"\xee\xfa\xf4\xeb\xfd"
_REAL_MODE = b"\xba\xf8\x03" + _OUT_AND_STOP
_PROTECTED_MODE = b"\x66\xba\xf8\x03" + _OUT_AND_STOP

_ROM_SIZE = 0x10000
_ENTRY = 0x100000
_XEN_ELFNOTE_PHYS32_ENTRY = 18


def rom() -> bytes:
    """A 64 KiB ROM: the code at its start, a near jump there at the reset vector."""
    image = bytearray(_ROM_SIZE)
    image[: len(_REAL_MODE)] = _REAL_MODE
    reset = _ROM_SIZE - 16
    image[reset : reset + 3] = b"\xe9" + struct.pack("<H", -(reset + 3) & 0xFFFF)
    return bytes(image)


def pvh_kernel(code: bytes = _PROTECTED_MODE) -> bytes:
    """A 64-bit ELF file: one loaded segment with 32-bit code at 1 MiB, one PT_NOTE with the entry point there."""
    note = struct.pack("<III4sI", 4, 4, _XEN_ELFNOTE_PHYS32_ENTRY, b"Xen\0", _ENTRY)
    headers = 64 + 2 * 56
    code_at = headers + len(note)
    pt_load, pt_note, all_access = 1, 4, 7
    size = len(code)
    load = struct.pack("<IIQQQQQQ", pt_load, all_access, code_at, _ENTRY, _ENTRY, size, size, 4)
    notes = struct.pack("<IIQQQQQQ", pt_note, 4, headers, 0, 0, len(note), len(note), 4)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    et_exec, em_x86_64 = 2, 62
    header = identity + struct.pack("<HHIQQQIHHHHHH", et_exec, em_x86_64, 1, _ENTRY, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    return header + load + notes + note + code


def measure(emulator: Emulator, directory: Path, timeout: float = 30.0) -> float | None:
    """Seconds from starting the process to the mark on its output; None when it never came."""
    if emulator.label == "qemu":
        image = directory / "first.rom"
        image.write_bytes(rom())
        arguments = ["-bios", str(image)]
    else:
        image = directory / "first.elf"
        image.write_bytes(pvh_kernel())
        arguments = ["-kernel", str(image)]
    start = time.monotonic()
    with running(emulator, *arguments) as process:
        assert process.stdout is not None
        seen = b""
        while MARK not in seen:
            rest = start + timeout - time.monotonic()
            if rest <= 0 or not select.select([process.stdout], [], [], rest)[0]:
                return None
            chunk = os.read(process.stdout.fileno(), 4096)
            if not chunk:
                return None
            seen += chunk
        return time.monotonic() - start
