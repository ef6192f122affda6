"""The guest's memory map, in the form that the BIOS call INT 15h/E820h reports it (ACPI 6.4, section 15).

Invariant: entries are sorted by base and do not overlap. Addresses and sizes are those that QEMU 7.2's q35 with SeaBIOS
leaves to its kernel.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from hw.firmware.acpi.config import ECAM_BASE, ECAM_SIZE, RCRB_BASE, RCRB_SIZE
from hw.firmware.errors import BootError
from hw.firmware.ram import FOUR_GIB

MIB = 1 << 20
PAGE = 0x1000

EBDA_BASE = 0x9FC00
"""Extended BIOS data area: the last KiB of conventional memory."""
BIOS_BASE = 0xF0000
TABLES_SIZE = 0x20000
"""The reserved top of low RAM, where the tables are: what SeaBIOS allocates for etc/acpi/tables."""
FLASH_BASE, FLASH_SIZE = 0xFFFC_0000, 0x4_0000
HYPERTRANSPORT_BASE, HYPERTRANSPORT_SIZE = 0xFD_0000_0000, 0x3_0000_0000
LOW_RAM_MAX = ECAM_BASE
LOW_RAM_SPLIT = 0x8000_0000
MINIMUM_RAM = 2 * MIB


class E820Type(IntEnum):
    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5


@dataclass(frozen=True, slots=True)
class E820Entry:
    base: int
    size: int
    type: E820Type

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.base + self.size

    def pack(self) -> bytes:
        """The 20 bytes that INT 15h, boot_params and fw_cfg share."""
        return struct.pack("<QQI", self.base, self.size, self.type)


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """The whole map. `low_size` is RAM below 4 GiB, `high_size` RAM from 4 GiB on, both in bytes."""

    entries: tuple[E820Entry, ...]
    low_size: int
    high_size: int

    def usable(self) -> Iterator[E820Entry]:
        return (entry for entry in self.entries if entry.type is E820Type.RAM)

    def is_usable(self, gpa: int, size: int) -> bool:
        """Whether all of `size` bytes at `gpa` lie in one usable range."""
        return any(entry.base <= gpa and gpa + size <= entry.end for entry in self.usable())

    def highest_fit(self, size: int, *, below: int, align: int = PAGE, above: int = 0) -> int | None:
        """The highest aligned address at or above `above` where `size` bytes fit and end at or under `below`."""
        best: int | None = None
        for entry in self.usable():
            gpa = (min(entry.end, below) - size) & -align
            if gpa >= max(entry.base, above) and (best is None or gpa > best):
                best = gpa
        return best

    @property
    def tables_base(self) -> int:
        """Where the reserved top of low RAM starts."""
        return self.low_size - TABLES_SIZE

    def pack(self) -> bytes:
        return b"".join(entry.pack() for entry in self.entries)


def split_ram(ram_size: int) -> tuple[int, int]:
    """RAM below and above 4 GiB as q35 lays it out: all low while it ends under the ECAM window, else 2 GiB low."""
    low_size = ram_size if ram_size < LOW_RAM_MAX else LOW_RAM_SPLIT
    return low_size, ram_size - low_size


def q35_memory_map(ram_size: int, *, hypertransport: bool = False) -> MemoryMap:
    """The map that a kernel sees on q35 with `ram_size` bytes of RAM.

    The tables' area is reserved rather than ACPI-reclaimable, as with SeaBIOS: the FACS in it must outlive the tables'
    parsing. `hypertransport` adds the range below 1 TiB that AMD processors cannot use (QEMU: with an AMD `-cpu`).
    """
    if ram_size < MINIMUM_RAM:
        raise BootError(f"{ram_size / MIB:g} MiB of RAM are too few: use -m {MINIMUM_RAM // MIB} or more")
    low_size, high_size = split_ram(ram_size)
    entries = [
        E820Entry(0, EBDA_BASE, E820Type.RAM),
        E820Entry(EBDA_BASE, 0xA0000 - EBDA_BASE, E820Type.RESERVED),
        E820Entry(BIOS_BASE, MIB - BIOS_BASE, E820Type.RESERVED),
        E820Entry(MIB, low_size - TABLES_SIZE - MIB, E820Type.RAM),
        E820Entry(low_size - TABLES_SIZE, TABLES_SIZE, E820Type.RESERVED),
        E820Entry(ECAM_BASE, ECAM_SIZE, E820Type.RESERVED),
        E820Entry(RCRB_BASE, RCRB_SIZE, E820Type.RESERVED),
        E820Entry(FLASH_BASE, FLASH_SIZE, E820Type.RESERVED),
    ]
    if high_size:
        entries.append(E820Entry(FOUR_GIB, high_size, E820Type.RAM))
    if hypertransport:
        entries.append(E820Entry(HYPERTRANSPORT_BASE, HYPERTRANSPORT_SIZE, E820Type.RESERVED))
    return MemoryMap(tuple(entries), low_size, high_size)


def fw_cfg_e820(memory_map: MemoryMap) -> bytes:
    """The content of fw_cfg's `etc/e820`: what the board knows before firmware runs, which is RAM and no-go areas."""
    entries = [entry for entry in memory_map.entries if entry.base == HYPERTRANSPORT_BASE]
    entries.append(E820Entry(0, memory_map.low_size, E820Type.RAM))
    if memory_map.high_size:
        entries.append(E820Entry(FOUR_GIB, memory_map.high_size, E820Type.RAM))
    return b"".join(entry.pack() for entry in entries)
