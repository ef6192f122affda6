"""Multiboot kernels, version 1 (Multiboot specification 0.6.96).

The image has a header in its first 8 KiB. It is an ELF executable, or any file whose header gives the addresses itself
(the "a.out kludge"). It is entered in 32-bit protected mode without paging, eax the magic, ebx the information block.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hw.firmware.boot_area import BootArea
from hw.firmware.cpu_entry import CpuEntry, protected_mode
from hw.firmware.e820 import EBDA_BASE, MIB, PAGE, MemoryMap
from hw.firmware.elf import (
    ELF_MAGIC,
    FLAT_CS,
    FLAT_DS,
    ElfImage,
    LoadSegment,
    load_segments,
    parse_elf,
    place_flat_gdt,
)
from hw.firmware.errors import BootError
from hw.firmware.module import Module, place_module
from hw.firmware.ram import FOUR_GIB, GuestRam

HEADER_MAGIC = 0x1BADB002
ENTRY_MAGIC = 0x2BADB002
SEARCH_SIZE = 8192

ALIGN_MODULES, WANT_MEMORY, WANT_VIDEO = 1 << 0, 1 << 1, 1 << 2
KNOWN_REQUIREMENTS = ALIGN_MODULES | WANT_MEMORY | WANT_VIDEO
"""Bits 0 to 15 must be understood by the loader. A video mode is a wish that cannot be granted: there is no display."""
ADDRESSES_VALID = 1 << 16

INFO_MEMORY, INFO_BOOT_DEVICE, INFO_COMMAND_LINE, INFO_MODULES = 1 << 0, 1 << 1, 1 << 2, 1 << 3
INFO_MEMORY_MAP, INFO_LOADER_NAME = 1 << 6, 1 << 9
FIRST_DISK = 0x8000_FFFF
LOADER_NAME = b"tessera"


@dataclass(frozen=True, slots=True)
class MultibootHeader:
    """`offset` is the header's place in the file; the addresses count only with `ADDRESSES_VALID` in `flags`."""

    offset: int
    flags: int
    header_addr: int
    load_addr: int
    load_end_addr: int
    bss_end_addr: int
    entry_addr: int


def find_header(data: bytes) -> MultibootHeader | None:
    """The first valid header in the part of the file where one may be."""
    for offset in range(0, min(len(data), SEARCH_SIZE) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", data, offset)
        if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFF_FFFF == 0:
            addresses = data[offset + 12 : offset + 32].ljust(20, b"\0")
            return MultibootHeader(offset, flags, *struct.unpack("<IIIII", addresses))
    return None


def _flat_image(kernel: Path, data: bytes, header: MultibootHeader) -> ElfImage:
    """The image by the header's own addresses, as one segment."""
    start = header.offset - (header.header_addr - header.load_addr)
    load_end = header.load_end_addr or header.load_addr + len(data) - start
    size = max(header.bss_end_addr, load_end) - header.load_addr
    content = data[start : start + load_end - header.load_addr] if start >= 0 else b""
    if start < 0 or load_end <= header.load_addr or len(content) != load_end - header.load_addr:
        raise BootError(f"{kernel}: the multiboot image is truncated or its header is damaged; get a fresh copy")
    return ElfImage(32, header.entry_addr, (LoadSegment(header.load_addr, content, size),), None)


def load_multiboot(
    kernel: Path,
    data: bytes,
    header: MultibootHeader,
    modules: Sequence[Module],
    command_line: bytes,
    ram: GuestRam,
    memory_map: MemoryMap,
) -> CpuEntry:
    """Load the kernel and its modules and enter it."""
    if header.flags & 0xFFFF & ~KNOWN_REQUIREMENTS:
        raise BootError(f"{kernel}: its multiboot header requires features that do not exist (flags {header.flags:#x})")
    if header.flags & ADDRESSES_VALID:
        image = _flat_image(kernel, data, header)
    elif data.startswith(ELF_MAGIC):
        image = parse_elf(kernel, data)
    else:
        raise BootError(f"{kernel}: a multiboot image that is neither ELF nor gives its own addresses; link it as ELF")
    if image.bits != 32:
        raise BootError(
            f"{kernel}: multiboot enters 32-bit code and this is a 64-bit ELF image; "
            "convert it (objcopy -O elf32-i386) or give it a PVH note"
        )
    load_segments(kernel, image, ram, memory_map)

    area = BootArea(ram)
    gdtr = place_flat_gdt(area)
    module_list: list[bytes] = []
    above, below = -(-max(image.end, MIB) // PAGE) * PAGE, FOUR_GIB
    for module in modules:
        below = place_module(module, ram, memory_map, above=above, below=below)
        text = area.place_string(module.command_line)
        module_list.append(struct.pack("<IIII", below, below + len(module.data), text, 0))
    memory = b"".join(struct.pack("<IQQI", 20, entry.base, entry.size, entry.type) for entry in memory_map.entries)
    upper = next(entry for entry in memory_map.usable() if entry.base == MIB)
    info = struct.pack(
        "<IIIIIII16sIIIIIIII",
        INFO_MEMORY | INFO_BOOT_DEVICE | INFO_COMMAND_LINE | INFO_MODULES | INFO_MEMORY_MAP | INFO_LOADER_NAME,
        EBDA_BASE >> 10, upper.size >> 10, FIRST_DISK, area.place_string(os.fsencode(kernel) + b" " + command_line),
        len(module_list), area.place(b"".join(module_list)),
        bytes(16), len(memory), area.place(memory), 0, 0, 0, area.place_string(LOADER_NAME), 0, 0,
    )  # fmt: skip
    return protected_mode(image.entry, code=FLAT_CS, data=FLAT_DS, gdtr=gdtr, rax=ENTRY_MAGIC, rbx=area.place(info))
