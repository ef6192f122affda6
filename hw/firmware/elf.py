"""ELF images: their loadable segments and notes, and the PVH entry (Xen, docs/misc/pvh.pandoc; ELF specification).

A kernel with the note XEN_ELFNOTE_PHYS32_ENTRY is entered in 32-bit protected mode without paging, ebx pointing to an
hvm_start_info.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hw.firmware.boot_area import BootArea
from hw.firmware.cpu_entry import ATTR_CODE32, ATTR_DATA32, CpuEntry, DescriptorTable, Segment, protected_mode
from hw.firmware.e820 import MIB, TABLES_SIZE, MemoryMap
from hw.firmware.errors import BootError
from hw.firmware.module import Module, place_module
from hw.firmware.ram import FOUR_GIB, GuestRam

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

ELF_MAGIC = b"\x7fELF"
X86_MACHINES = ("EM_386", "EM_X86_64")
XEN_ELFNOTE_PHYS32_ENTRY = 18
START_INFO_MAGIC = 0x336EC578
FLAT_CS, FLAT_DS = 0x08, 0x10


@dataclass(frozen=True, slots=True)
class LoadSegment:
    """One PT_LOAD: `data` goes to `gpa`, zeros follow up to `size` bytes."""

    gpa: int
    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class ElfImage:
    """`bits` is 32 or 64; `pvh_entry` is the physical entry of the PVH note, if there is one."""

    bits: int
    entry: int
    segments: tuple[LoadSegment, ...]
    pvh_entry: int | None

    @property
    def end(self) -> int:
        return max(segment.gpa + segment.size for segment in self.segments)


def parse_elf(kernel: Path, data: bytes) -> ElfImage:
    """Read and check an x86 ELF executable."""
    # Imported here: pyelftools takes half the time of all imports of this package, and a bzImage needs none of it.
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        image = _read(kernel, data, ELFFile(io.BytesIO(data)))
    except (ELFError, ConstructError, struct.error, ValueError, KeyError, TypeError, OverflowError) as error:
        raise BootError(f"{kernel}: the ELF image is damaged ({error}); get a fresh copy") from None
    if not image.segments:
        raise BootError(f"{kernel}: the ELF image has nothing to load; give a linked kernel with -kernel")
    return image


def _read(kernel: Path, data: bytes, elf: "ELFFile") -> ElfImage:
    machine = elf["e_machine"]
    if machine not in X86_MACHINES:
        name = str(machine).removeprefix("EM_").lower()
        raise BootError(f"{kernel}: this ELF image is for another architecture ({name}); use one for x86-64")
    segments: list[LoadSegment] = []
    pvh_entry: int | None = None
    for header in (segment.header for segment in elf.iter_segments()):
        content = data[header.p_offset : header.p_offset + header.p_filesz]
        if header.p_type in ("PT_LOAD", "PT_NOTE") and len(content) != header.p_filesz:
            raise BootError(f"{kernel}: the ELF image is truncated; get a fresh copy")
        if header.p_type == "PT_LOAD" and header.p_memsz:
            segments.append(LoadSegment(header.p_paddr, content[: header.p_memsz], header.p_memsz))
        elif header.p_type == "PT_NOTE":
            for owner, kind, description in _notes(content, header.p_align):
                if owner == b"Xen" and kind == XEN_ELFNOTE_PHYS32_ENTRY and len(description) in (4, 8):
                    pvh_entry = int.from_bytes(description, "little")
    return ElfImage(elf.elfclass, elf["e_entry"], tuple(segments), pvh_entry)


def _notes(content: bytes, align: int) -> Iterator[tuple[bytes, int, bytes]]:
    """Owner, type and description of each note; a malformed rest is ignored."""
    align = 8 if align == 8 else 4
    offset = 0
    while offset + 12 <= len(content):
        name_size, size, kind = struct.unpack_from("<III", content, offset)
        start = offset + 12
        description = start + -(-name_size // align) * align if align == 4 else -(-(start + name_size) // 8) * 8
        yield content[start : start + name_size].rstrip(b"\0"), kind, content[description : description + size]
        offset = description + -(-size // align) * align


def load_segments(kernel: Path, image: ElfImage, ram: GuestRam, memory_map: MemoryMap) -> None:
    """Write all segments; `BootError` when one is not in usable RAM."""
    BootArea.check_clear(str(kernel), ((segment.gpa, segment.size) for segment in image.segments))
    for segment in image.segments:
        if not memory_map.is_usable(segment.gpa, segment.size):
            end = segment.gpa + segment.size
            needed = -(-(end + TABLES_SIZE) // MIB)
            way_out = (
                f"use -m {needed} or more" if end <= FOUR_GIB and end > memory_map.tables_base else "link it elsewhere"
            )
            raise BootError(
                f"{kernel}: its segment at {segment.gpa:#x} of {segment.size:#x} bytes is not in the guest's "
                f"{ram.size // MIB} MiB of RAM; {way_out}"
            )
        ram.write(segment.gpa, segment.data)
        ram.write(segment.gpa + len(segment.data), bytes(segment.size - len(segment.data)))


def place_flat_gdt(area: BootArea) -> DescriptorTable:
    """A GDT with flat 32-bit code and data at `FLAT_CS` and `FLAT_DS`."""
    code = Segment(FLAT_CS, 0, 0xFFFF_FFFF, ATTR_CODE32)
    data = Segment(FLAT_DS, 0, 0xFFFF_FFFF, ATTR_DATA32)
    gdt = bytes(8) + code.descriptor() + data.descriptor()
    return DescriptorTable(area.place(gdt), len(gdt) - 1)


def load_pvh(
    kernel: Path,
    image: ElfImage,
    initrd: Module | None,
    command_line: bytes,
    ram: GuestRam,
    memory_map: MemoryMap,
    *,
    rsdp: int,
) -> CpuEntry:
    """Load an image with a PVH note and enter it. The start info is version 1 (with a memory map)."""
    assert image.pvh_entry is not None
    load_segments(kernel, image, ram, memory_map)
    area = BootArea(ram)
    gdtr = place_flat_gdt(area)
    modules = modules_gpa = 0
    if initrd is not None:
        gpa = place_module(initrd, ram, memory_map, above=image.end)
        modules, modules_gpa = 1, area.place(struct.pack("<QQQQ", gpa, len(initrd.data), 0, 0))
    memory = [struct.pack("<QQII", entry.base, entry.size, entry.type, 0) for entry in memory_map.entries]
    start_info = struct.pack(
        "<IIIIQQQQII", START_INFO_MAGIC, 1, 0, modules, modules_gpa, area.place_string(command_line), rsdp,
        area.place(b"".join(memory)), len(memory), 0,
    )  # fmt: skip
    return protected_mode(image.pvh_entry, code=FLAT_CS, data=FLAT_DS, gdtr=gdtr, rbx=area.place(start_info))
