"""Small kernel images built by hand, and a machine to load them into."""

import struct
from dataclasses import dataclass, field

from hw.firmware import MemoryMap, SplitRam, q35_memory_map

MIB = 1 << 20


@dataclass
class Machine:
    """RAM of `mib` MiB with its map."""

    mib: int = 64
    buffer: bytearray = field(init=False)
    map: MemoryMap = field(init=False)
    ram: SplitRam = field(init=False)

    def __post_init__(self) -> None:
        self.buffer = bytearray(self.mib * MIB)
        self.map = q35_memory_map(self.mib * MIB)
        self.ram = SplitRam(self.buffer, self.map.low_size)

    def string(self, gpa: int) -> bytes:
        return bytes(self.buffer[gpa : self.buffer.index(0, gpa)])


def bzimage(payload: bytes = b"\x90" * 0x400, **fields: int) -> bytes:
    """A bzImage whose setup is one sector; `fields` replace header fields by name."""
    values = {
        "setup_sects": 1, "syssize": len(payload) // 16, "boot_flag": 0xAA55, "version": 0x020F, "loadflags": 1,
        "initrd_addr_max": 0x7FFFFFFF, "kernel_alignment": 0x200000, "relocatable": 1, "xloadflags": 1,
        "cmdline_size": 255, "pref_address": 0x1000000, "init_size": 0x800000,
    }  # fmt: skip
    assert set(fields) <= set(values), fields
    values |= fields
    image = bytearray(0x400)
    image[0x1F1] = values["setup_sects"]
    struct.pack_into("<I", image, 0x1F4, values["syssize"])
    struct.pack_into("<H", image, 0x1FE, values["boot_flag"])
    image[0x200:0x202] = b"\xeb\x6a"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, values["version"])
    image[0x211] = values["loadflags"]
    struct.pack_into("<IIB", image, 0x22C, values["initrd_addr_max"], values["kernel_alignment"], values["relocatable"])
    struct.pack_into("<HI", image, 0x236, values["xloadflags"], values["cmdline_size"])
    struct.pack_into("<QI", image, 0x258, values["pref_address"], values["init_size"])
    return bytes(image) + payload


def xen_note(entry: int) -> bytes:
    return struct.pack("<III4sI", 4, 4, 18, b"Xen\0", entry)


def elf(
    code: bytes,
    gpa: int = 0x100000,
    *,
    bits: int = 32,
    machine: int = 3,
    note: bytes = b"",
    bss: int = 0,
    entry: int = 0,
) -> bytes:
    """An executable with one PT_LOAD, and a PT_NOTE when there is one. `code` is at file offset 0x1000."""
    count = 2 if note else 1
    entry = entry or gpa
    if bits == 32:
        header = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, entry, 52, 0, 0, 52, 32, count, 40, 0, 0)
        load = struct.pack("<IIIIIIII", 1, 0x1000, gpa, gpa, len(code), len(code) + bss, 7, 0x1000)
        notes = struct.pack("<IIIIIIII", 4, 0x200, 0, 0, len(note), len(note), 4, 4)
    else:
        header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, entry, 64, 0, 0, 64, 56, count, 64, 0, 0)
        load = struct.pack("<IIQQQQQQ", 1, 7, 0x1000, gpa, gpa, len(code), len(code) + bss, 0x1000)
        notes = struct.pack("<IIQQQQQQ", 4, 4, 0x200, 0, 0, len(note), len(note), 4)
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    start = (ident + header + load + (notes if note else b"")).ljust(0x200, b"\0") + note
    return start.ljust(0x1000, b"\0") + code


def multiboot_header(flags: int, *addresses: int) -> bytes:
    magic = 0x1BADB002
    return struct.pack("<III", magic, flags, -(magic + flags) & 0xFFFFFFFF) + struct.pack(
        f"<{len(addresses)}I", *addresses
    )
