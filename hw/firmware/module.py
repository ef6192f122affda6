"""Files that a kernel finds in memory beside itself: an initrd, multiboot modules."""

from dataclasses import dataclass
from pathlib import Path

from hw.firmware.e820 import MIB, PAGE, TABLES_SIZE, MemoryMap
from hw.firmware.errors import BootError
from hw.firmware.ram import FOUR_GIB, GuestRam


@dataclass(frozen=True, slots=True)
class Module:
    """`command_line` is what a multiboot kernel is told with it."""

    path: Path
    data: bytes
    command_line: bytes = b""


def place_module(module: Module, ram: GuestRam, memory_map: MemoryMap, *, above: int, below: int = FOUR_GIB) -> int:
    """Write it page-aligned, as high as possible in [`above`, `below`); returns its address.

    High, so that it is clear of the kernel while that unpacks itself.
    """
    gpa = memory_map.highest_fit(len(module.data), below=below, above=above)
    if gpa is None:
        needed = -(-(above + PAGE + len(module.data) + TABLES_SIZE) // MIB)
        fits = needed * MIB <= below
        raise BootError(
            f"{module.path}: {len(module.data) / MIB:.1f} MiB do not fit beside the kernel in the guest's "
            f"{ram.size // MIB} MiB of RAM; "
            + (f"use -m {needed} or more" if fits else f"it must end below {below:#x}, so use a smaller file")
        )
    ram.write(gpa, module.data)
    return gpa
