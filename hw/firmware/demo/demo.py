"""The embedded demo guest: demo.asm, assembled by keystone.

It has three ways in: `load_demo` enters it in long mode directly, `image` is a multiboot kernel (so also one for
`qemu-system-x86_64 -kernel`, the oracle of its checks), `elf_image` the same with a PVH note.
"""

import re
import struct
from functools import cache
from importlib import resources

from keystone import KS_ARCH_X86, KS_MODE_32, Ks

from hw.firmware.boot_area import BootArea
from hw.firmware.cpu_entry import ATTR_CODE64, ATTR_DATA32, CpuEntry, DescriptorTable, Segment, long_mode
from hw.firmware.e820 import PAGE, MemoryMap
from hw.firmware.elf import XEN_ELFNOTE_PHYS32_ENTRY
from hw.firmware.errors import BootError
from hw.firmware.files import encode_command_line
from hw.firmware.paging import SIZE as PAGE_TABLES_SIZE
from hw.firmware.paging import write_identity_map
from hw.firmware.ram import GuestRam

LOAD_GPA = 0x100000
END_GPA = 0x420000
"""One past the last byte that the guest uses."""
DEBUG_EXIT_PORT = 0xF4
EXIT_OK, EXIT_FAILED = 0x10, 0x11
"""What it writes to isa-debug-exit when all checks were good, or not."""
BANNER = "Tessera demo guest: x86-64 long mode"
SUCCESS = "self-check: OK"

_CODE_SELECTOR, _DATA_SELECTOR = 0x08, 0x10


def source() -> str:
    return resources.files("hw.firmware.demo").joinpath("demo.asm").read_text(encoding="ascii")


@cache
def image() -> bytes:
    """The flat image for `LOAD_GPA`: a multiboot kernel by its header's own addresses."""
    text = re.sub(r"#.*", "", source())
    code, _ = Ks(KS_ARCH_X86, KS_MODE_32).asm(text, LOAD_GPA, as_bytes=True)
    assert code is not None
    return bytes(code)


def _header() -> tuple[int, int, int]:
    """End of the uninitialised data, the 32-bit and the 64-bit entry, from the words that open the image."""
    bss_end, entry32, entry64 = struct.unpack_from("<III", image(), 24)
    return bss_end, entry32, entry64


def elf_image() -> bytes:
    """The image as a 64-bit ELF executable with one segment and the PVH note."""
    bss_end, entry32, _ = _header()
    note = struct.pack("<III4sI", 4, 4, XEN_ELFNOTE_PHYS32_ENTRY, b"Xen\0", entry32)
    headers_size = 64 + 2 * 56
    offset = PAGE
    header = struct.pack(
        "<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 2, 62, 1, entry32, 64, 0, 0, 64, 56, 2, 64, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 7, offset, LOAD_GPA, LOAD_GPA, len(image()), bss_end - LOAD_GPA, PAGE)
    notes = struct.pack("<IIQQQQQQ", 4, 4, headers_size, 0, 0, len(note), len(note), 4)
    return (header + load + notes + note).ljust(offset, b"\0") + image()


def load_demo(ram: GuestRam, memory_map: MemoryMap, cmdline: str = "") -> CpuEntry:
    """Write the guest into RAM and enter it in long mode."""
    if not memory_map.is_usable(LOAD_GPA, END_GPA - LOAD_GPA):
        raise BootError("the demo guest needs 8 MiB of RAM: use -m 8 or more")
    bss_end, _, entry64 = _header()
    ram.write(LOAD_GPA, image().ljust(bss_end - LOAD_GPA, b"\0"))
    area = BootArea(ram)
    code = Segment(_CODE_SELECTOR, 0, 0xFFFF_FFFF, ATTR_CODE64)
    data = Segment(_DATA_SELECTOR, 0, 0xFFFF_FFFF, ATTR_DATA32)
    gdt = bytes(8) + code.descriptor() + data.descriptor()
    gdtr = DescriptorTable(area.place(gdt), len(gdt) - 1)
    cr3 = write_identity_map(ram, area.reserve(PAGE_TABLES_SIZE, PAGE))
    return long_mode(
        entry64,
        cr3=cr3,
        code=_CODE_SELECTOR,
        data=_DATA_SELECTOR,
        gdtr=gdtr,
        rbx=area.place_string(encode_command_line(cmdline)),
    )
