"""Resource descriptors: what a device uses (_CRS) or could use (_PRS) (ACPI 6.4, section 6.4).

Each function returns one descriptor; `resource_template` joins them with an end tag into an AML buffer.
"""

import struct

from hw.firmware.acpi import aml

PRODUCER, CONSUMER = 0, 1
_FIXED_BOTH_ENDS = 0x0C
"""General flags of an address space descriptor: minimum and maximum fixed, positive decode."""

MEMORY, IO, BUS = 0, 1, 2
CACHEABLE_READ_WRITE = 0x03
NON_CACHEABLE_READ_WRITE = 0x01
ENTIRE_RANGE = 0x03


def resource_template(*descriptors: bytes) -> aml.Term:
    """The end tag's checksum of zero means that none is kept."""
    return aml.buffer(b"".join(descriptors) + b"\x79\x00")


# --- small descriptors (6.4.2)


def irq_no_flags(irq: int) -> bytes:
    """One edge-triggered, active-high ISA interrupt."""
    return struct.pack("<BH", 0x22, 1 << irq)


def io(base: int, size: int) -> bytes:
    """Fixed I/O ports, all 16 address bits decoded."""
    return struct.pack("<BBHHBB", 0x47, 0x01, base, base, 0x01, size)


# --- large descriptors (6.4.3)


def memory32_fixed(base: int, size: int, *, writable: bool) -> bytes:
    return struct.pack("<BHBII", 0x86, 9, writable, base, size)


def interrupt(*gsis: int) -> bytes:
    """Level-triggered, active-high, shared interrupts for the device's own use."""
    flags = 0x01 | 0x08
    return struct.pack("<BHBB", 0x89, 2 + 4 * len(gsis), flags, len(gsis)) + struct.pack(f"<{len(gsis)}I", *gsis)


def word_bus_number(first: int, last: int) -> bytes:
    return struct.pack("<BHBBBHHHHH", 0x88, 13, BUS, _FIXED_BOTH_ENDS, 0, 0, first, last, 0, last - first + 1)


def word_io(first: int, last: int) -> bytes:
    """I/O ports that a bridge passes on, ISA and non-ISA ranges alike."""
    kind = (IO, _FIXED_BOTH_ENDS, ENTIRE_RANGE)
    return struct.pack("<BHBBBHHHHH", 0x88, 13, *kind, 0, first, last, 0, last - first + 1)


def dword_memory(first: int, last: int, *, cacheable: bool = False, consumer: bool = False) -> bytes:
    """Memory that a bridge passes on, or with `consumer` that the device itself takes."""
    flags = CACHEABLE_READ_WRITE if cacheable else NON_CACHEABLE_READ_WRITE
    kind = (MEMORY, _FIXED_BOTH_ENDS | consumer, flags)
    return struct.pack("<BHBBBIIIII", 0x87, 23, *kind, 0, first, last, 0, last - first + 1)


def qword_memory(first: int, last: int) -> bytes:
    """Prefetchable 64-bit memory that a bridge passes on."""
    kind = (MEMORY, _FIXED_BOTH_ENDS, CACHEABLE_READ_WRITE)
    return struct.pack("<BHBBBQQQQQ", 0x8A, 43, *kind, 0, first, last, 0, last - first + 1)
