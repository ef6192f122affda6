"""System management BIOS tables: what the machine calls itself (DMTF DSP0134, version 2.8).

The same structures as QEMU 7.2 makes for q35, with our own names.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

ENTRY_POINT_SIZE = 0x1F
STRUCTURES_OFFSET = 0x20
"""The structures follow the entry point at the next multiple of 16."""
MAJOR, MINOR = 2, 8
PRODUCT = "Standard PC (Q35 + ICH9, 2009)"
MIB = 1 << 20
GIB = 1 << 30
DIMM_MAX = 16 * GIB
"""Memory is described as modules of at most this size."""
NO_HANDLE = 0xFFFE


@dataclass(frozen=True, slots=True)
class SmbiosConfig:
    """`processor_id` is CPUID leaf 1: EAX in the low, EDX in the high half."""

    low_size: int
    high_size: int = 0
    cpu_count: int = 1
    processor_id: int = 0
    manufacturer: str = "Tessera"
    version: str = "tessera-q35"
    bios_version: str = "0.1.0"
    bios_date: str = "11/20/2026"
    uuid: bytes = bytes(16)


def structure(kind: int, handle: int, body: bytes, strings: Iterable[str] = ()) -> bytes:
    """One structure: header, formatted part, then its strings, which `body` names by their number from 1."""
    texts = b"".join(text.encode("ascii") + b"\0" for text in strings)
    return struct.pack("<BBH", kind, 4 + len(body), handle) + body + (texts or b"\0") + b"\0"


def _bios_information(config: SmbiosConfig) -> bytes:
    """Type 0. The characteristics say "not supported"; the extension bytes say virtual machine, targeted content."""
    body = struct.pack("<BBHBBQBBBBBB", 1, 2, 0xE800, 3, 0, 1 << 3, 0, 0x14, 0, 0, 0xFF, 0xFF)
    return structure(0, 0x0000, body, (config.manufacturer, config.bios_version, config.bios_date))


def _system_information(config: SmbiosConfig) -> bytes:
    """Type 1; wake-up type: power switch."""
    body = struct.pack("<BBBB16sBBB", 1, 2, 3, 0, config.uuid, 6, 0, 0)
    return structure(1, 0x0100, body, (config.manufacturer, PRODUCT, config.version))


def _chassis(config: SmbiosConfig) -> bytes:
    """Type 3: type other; boot-up, power supply and thermal states safe; security unknown."""
    body = struct.pack("<BBBBBBBBBIBBBBB", 1, 1, 2, 0, 0, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0)
    return structure(3, 0x0300, body, (config.manufacturer, config.version))


def _processor(config: SmbiosConfig, index: int) -> bytes:
    """Type 4: one socket with one core and one thread, enabled; family and upgrade other, caches not described."""
    body = struct.pack(
        "<BBBBQBBHHHBBHHHBBBBBBHH",
        1, 3, 1, 2, config.processor_id, 3, 0, 0, 2000, 2000, 0x41, 1,
        0xFFFF, 0xFFFF, 0xFFFF, 0, 0, 0, 1, 1, 1, 0x0002, 0x0001,
    )  # fmt: skip
    return structure(4, 0x0400 + index, body, (f"CPU {index}", config.manufacturer, config.version))


def _memory_array(size: int, modules: int) -> bytes:
    """Type 16: system memory on the board, multi-bit ECC; capacity in KiB, or 64-bit in bytes from 2 TiB on."""
    kib = size >> 10
    short, extended = (kib, 0) if kib < 0x8000_0000 else (0x8000_0000, size)
    return structure(16, 0x1000, struct.pack("<BBBIHHQ", 1, 3, 6, short, NO_HANDLE, modules, extended))


def _memory_device(config: SmbiosConfig, index: int, size: int) -> bytes:
    """Type 17: one module; size in MiB, or in the extended field when it does not fit 15 bits."""
    mib = size // MIB
    short, extended = (mib, 0) if mib < 0x7FFF else (0x7FFF, mib)
    body = struct.pack(
        "<HHHHHBBBBBHHBBBBBIHHHH",
        0x1000, NO_HANDLE, 0xFFFF, 0xFFFF, short, 9, 0, 1, 0, 7, 0x0002, 0, 2, 0, 0, 0, 0, extended, 0, 0, 0, 0,
    )  # fmt: skip
    return structure(17, 0x1100 + index, body, (f"DIMM {index}", config.manufacturer))


def _mapped_range(index: int, base: int, size: int) -> bytes:
    """Type 19: a range of addresses, in KiB with an inclusive end, in one partition."""
    return structure(19, 0x1300 + index, struct.pack("<IIHBQQ", base >> 10, (base + size >> 10) - 1, 0x1000, 1, 0, 0))


def smbios_structures(config: SmbiosConfig) -> list[bytes]:
    total = config.low_size + config.high_size
    modules = [min(DIMM_MAX, total - offset) for offset in range(0, total, DIMM_MAX)]
    ranges = [(0, config.low_size), (4 * GIB, config.high_size)]
    return [
        _bios_information(config),
        _system_information(config),
        _chassis(config),
        *(_processor(config, index) for index in range(config.cpu_count)),
        _memory_array(total, len(modules)),
        *(_memory_device(config, index, size) for index, size in enumerate(modules)),
        *(_mapped_range(index, base, size) for index, (base, size) in enumerate(ranges) if size),
        structure(32, 0x2000, bytes(7)),
        structure(127, 0x7F00, b""),
    ]


def smbios_image(config: SmbiosConfig, gpa: int) -> bytes:
    """Entry point (31 bytes, at a multiple of 16 in the F segment) followed by the structures."""
    structures = smbios_structures(config)
    data = b"".join(structures)
    intermediate = bytearray(
        struct.pack("<5sBHIHB", b"_DMI_", 0, len(data), gpa + STRUCTURES_OFFSET, len(structures), MAJOR << 4 | MINOR)
    )
    intermediate[5] = -sum(intermediate) & 0xFF
    longest = max(len(one) for one in structures)
    entry = bytearray(struct.pack("<4sBBBBHB5s", b"_SM_", 0, ENTRY_POINT_SIZE, MAJOR, MINOR, longest, 0, bytes(5)))
    entry += intermediate
    entry[4] = -sum(entry) & 0xFF
    return bytes(entry).ljust(STRUCTURES_OFFSET, b"\0") + data
