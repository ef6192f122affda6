"""The Linux x86 boot protocol, 64-bit entry (Linux, Documentation/arch/x86/boot.rst and zero-page.rst).

A bzImage is a real-mode part with the setup header at 0x1f1, then the protected-mode kernel. The latter is loaded, a
zero page describes the machine, and the kernel is entered in long mode at its offset 0x200.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from hw.firmware.boot_area import BootArea
from hw.firmware.cpu_entry import ATTR_CODE64, ATTR_DATA32, CpuEntry, DescriptorTable, Segment, long_mode
from hw.firmware.e820 import MIB, PAGE, TABLES_SIZE, MemoryMap
from hw.firmware.errors import BootError
from hw.firmware.module import Module, place_module
from hw.firmware.paging import SIZE as PAGE_TABLES_SIZE
from hw.firmware.paging import write_identity_map
from hw.firmware.ram import FOUR_GIB, GuestRam

HEADER_MAGIC_OFFSET, HEADER_MAGIC = 0x202, b"HdrS"
HEADER_START = 0x1F1
BOOT_FLAG = 0xAA55
MIN_VERSION = 0x020C
"""2.12 (Linux 3.8) brought xloadflags, which say whether there is a 64-bit entry."""

LOADED_HIGH = 1 << 0
XLF_KERNEL_64 = 1 << 0
LOADER_ID = 0xB0
"""The boot loader number of QEMU."""
VIDEO_NORMAL = 0xFFFF
SETUP_RNG_SEED = 9

BOOT_CS, BOOT_DS = 0x10, 0x18
ENTRY64 = 0x200
LOAD_GPA = MIB
ZERO_PAGE_E820, E820_MAX = 0x2D0, 128

_LEGACY_SETUP_SECTS = 4


@dataclass(frozen=True, slots=True)
class SetupHeader:
    """The fields of the setup header that a boot loader reads."""

    setup_size: int
    payload_size: int
    version: int
    loadflags: int
    initrd_addr_max: int
    kernel_alignment: int
    relocatable: bool
    xloadflags: int
    cmdline_size: int
    pref_address: int
    init_size: int
    end: int

    @property
    def load_gpa(self) -> int:
        return self.pref_address if self.relocatable else LOAD_GPA

    @property
    def kernel_end(self) -> int:
        """One past the memory that the kernel needs before it reads the memory map."""
        return max(self.load_gpa + self.payload_size, self.pref_address + self.init_size)


def is_bzimage(data: bytes) -> bool:
    return data[HEADER_MAGIC_OFFSET : HEADER_MAGIC_OFFSET + 4] == HEADER_MAGIC


def parse_setup_header(kernel: Path, data: bytes) -> SetupHeader:
    """Read and check the header of an image that `is_bzimage`."""
    if len(data) < 0x268:
        raise BootError(f"{kernel}: the kernel image is truncated inside its setup header; get a fresh copy")
    version = int.from_bytes(data[0x206:0x208], "little")
    if int.from_bytes(data[0x1FE:0x200], "little") != BOOT_FLAG:
        raise BootError(f"{kernel}: the kernel image is damaged (no boot flag in its setup header); get a fresh copy")
    if version < MIN_VERSION:
        raise BootError(
            f"{kernel}: boot protocol {version >> 8}.{version & 0xFF:02} is too old to have a 64-bit entry; "
            "use an x86-64 kernel of Linux 3.8 or later"
        )
    (syssize,) = struct.unpack_from("<I", data, 0x1F4)
    (initrd_addr_max, kernel_alignment, relocatable) = struct.unpack_from("<IIB", data, 0x22C)
    (xloadflags, cmdline_size) = struct.unpack_from("<HI", data, 0x236)
    (pref_address, init_size) = struct.unpack_from("<QI", data, 0x258)
    header = SetupHeader(
        setup_size=((data[0x1F1] or _LEGACY_SETUP_SECTS) + 1) * 512,
        payload_size=syssize * 16,
        version=version,
        loadflags=data[0x211],
        initrd_addr_max=initrd_addr_max,
        kernel_alignment=kernel_alignment,
        relocatable=bool(relocatable),
        xloadflags=xloadflags,
        cmdline_size=cmdline_size,
        pref_address=pref_address,
        init_size=init_size,
        end=0x202 + data[0x201],
    )
    if not header.xloadflags & XLF_KERNEL_64:
        raise BootError(f"{kernel}: this is a 32-bit x86 kernel without a 64-bit entry; use one for x86-64 (amd64)")
    if not header.loadflags & LOADED_HIGH:
        raise BootError(f"{kernel}: this is a zImage, which loads below 1 MiB; build a bzImage")
    if header.setup_size + header.payload_size > len(data):
        raise BootError(
            f"{kernel}: the kernel image is truncated: {len(data)} bytes of "
            f"{header.setup_size + header.payload_size}; get a fresh copy"
        )
    if header.payload_size <= ENTRY64 or header.end > ZERO_PAGE_E820 or header.load_gpa < LOAD_GPA:
        raise BootError(
            f"{kernel}: the kernel image is damaged (impossible sizes in its setup header); get a fresh copy"
        )
    return header


def load_linux(
    kernel: Path,
    data: bytes,
    initrd: Module | None,
    command_line: bytes,
    ram: GuestRam,
    memory_map: MemoryMap,
    *,
    rsdp: int,
    rng_seed: bytes = b"",
) -> CpuEntry:
    """Load a bzImage and enter it by the 64-bit protocol. `rng_seed` is passed on as SETUP_RNG_SEED when not empty."""
    header = parse_setup_header(kernel, data)
    load_gpa, kernel_end = header.load_gpa, header.kernel_end
    if len(command_line) > header.cmdline_size:
        raise BootError(
            f"{kernel}: the command line has {len(command_line)} bytes and this kernel takes {header.cmdline_size}; "
            "shorten -append"
        )
    if kernel_end > FOUR_GIB:
        raise BootError(f"{kernel}: the kernel image is damaged (it asks for memory above 4 GiB); get a fresh copy")
    if not memory_map.is_usable(load_gpa, kernel_end - load_gpa):
        needed = -(-(kernel_end + TABLES_SIZE) // MIB)
        raise BootError(
            f"{kernel}: this kernel needs {needed} MiB of RAM to start and the guest has {ram.size // MIB}; "
            f"use -m {needed} or more"
        )
    ram.write(load_gpa, memoryview(data)[header.setup_size : header.setup_size + header.payload_size])

    zero_page = bytearray(PAGE)
    zero_page[HEADER_START : header.end] = data[HEADER_START : header.end]
    struct.pack_into("<H", zero_page, 0x1FA, VIDEO_NORMAL)
    zero_page[0x210] = LOADER_ID
    struct.pack_into("<I", zero_page, 0x214, load_gpa)
    struct.pack_into("<Q", zero_page, 0x070, rsdp)

    area = BootArea(ram)
    gdtr = _place_gdt(area)
    cr3 = write_identity_map(ram, area.reserve(PAGE_TABLES_SIZE, PAGE))
    zero_page_gpa = area.reserve(PAGE, PAGE)
    struct.pack_into("<I", zero_page, 0x228, area.place_string(command_line))
    if rng_seed:
        seed = struct.pack("<QII", 0, SETUP_RNG_SEED, len(rng_seed)) + rng_seed
        struct.pack_into("<Q", zero_page, 0x250, area.place(seed))
    if initrd is not None:
        below = min(header.initrd_addr_max + 1, FOUR_GIB)
        gpa = place_module(initrd, ram, memory_map, above=kernel_end, below=below)
        struct.pack_into("<II", zero_page, 0x218, gpa, len(initrd.data))

    entries = memory_map.entries[:E820_MAX]
    zero_page[0x1E8] = len(entries)
    table = b"".join(entry.pack() for entry in entries)
    zero_page[ZERO_PAGE_E820 : ZERO_PAGE_E820 + len(table)] = table
    ram.write(zero_page_gpa, zero_page)
    return long_mode(load_gpa + ENTRY64, cr3=cr3, code=BOOT_CS, data=BOOT_DS, gdtr=gdtr, rsi=zero_page_gpa)


def _place_gdt(area: BootArea) -> DescriptorTable:
    """__BOOT_CS and __BOOT_DS at the selectors that the protocol fixes."""
    code = Segment(BOOT_CS, 0, 0xFFFF_FFFF, ATTR_CODE64)
    data = Segment(BOOT_DS, 0, 0xFFFF_FFFF, ATTR_DATA32)
    gdt = bytes(16) + code.descriptor() + data.descriptor()
    return DescriptorTable(area.place(gdt), len(gdt) - 1)
