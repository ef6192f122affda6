"""The static ACPI tables (ACPI 6.4, section 5.2; HPET and MCFG by their own specifications).

Each function returns one complete table. Pointers between tables are arguments, so the caller decides the placement.
"""

import struct
from collections.abc import Sequence

from hw.firmware.acpi.config import (
    ACPI_DISABLE,
    ACPI_ENABLE,
    CREATOR_ID,
    ECAM_BASE,
    GPE0,
    GPE0_SIZE,
    HPET_BASE,
    HPET_ID,
    IO_APIC_BASE,
    LEVEL_IRQS,
    LOCAL_APIC_BASE,
    OEM_ID,
    OEM_TABLE_ID,
    PM1_CONTROL,
    PM1_EVENT,
    PM_TIMER,
    RESET_PORT,
    RESET_VALUE,
    RTC_CENTURY,
    SCI,
    SMI_COMMAND,
    AcpiConfig,
)

HEADER_SIZE = 36
SYSTEM_MEMORY, SYSTEM_IO = 0, 1

FADT_WBINVD = 1 << 0
FADT_C1_SUPPORTED = 1 << 2
FADT_NO_SLEEP_BUTTON = 1 << 5
FADT_RTC_WAKES_FROM_S4 = 1 << 7
FADT_RESET_REGISTER = 1 << 10
FADT_USE_PLATFORM_CLOCK = 1 << 15
BOOT_8042 = 1 << 1
NO_C2, NO_C3 = 0xFFF, 0xFFF
"""Latencies above 100 and 1000 µs: the state is not supported."""

MADT_PC_AT = 1 << 0
ACTIVE_HIGH_LEVEL = 0x0D
WAET_PM_TIMER_GOOD = 1 << 1


def checksum(data: bytes | bytearray) -> int:
    """The byte that makes the sum of all bytes zero."""
    return -sum(data) & 0xFF


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A system description table: header with checksum, then `body`."""
    header = struct.pack(
        "<4sIBB6s8sI4sI", signature, HEADER_SIZE + len(body), revision, 0, OEM_ID, OEM_TABLE_ID, 1, CREATOR_ID, 1
    )
    data = bytearray(header + body)
    data[9] = checksum(data)
    return bytes(data)


def generic_address(space: int, bits: int, address: int) -> bytes:
    return struct.pack("<BBBBQ", space, bits, 0, 0, address)


def rsdp(rsdt_gpa: int, xsdt_gpa: int) -> bytes:
    """Revision 2: the first checksum covers the 20 bytes of revision 0, the second all 36."""
    data = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, OEM_ID, 2, rsdt_gpa, 36, xsdt_gpa, 0))
    data[8] = checksum(data[:20])
    data[32] = checksum(data)
    return bytes(data)


def rsdt(gpas: Sequence[int]) -> bytes:
    return table(b"RSDT", 1, struct.pack(f"<{len(gpas)}I", *gpas))


def xsdt(gpas: Sequence[int]) -> bytes:
    return table(b"XSDT", 1, struct.pack(f"<{len(gpas)}Q", *gpas))


def facs() -> bytes:
    """The only table without the common header; 64 bytes, aligned to 64."""
    return struct.pack("<4sI", b"FACS", 64).ljust(64, b"\0")


def fadt(facs_gpa: int, dsdt_gpa: int) -> bytes:
    """Revision 3, 244 bytes, as QEMU's q35 has it. The extended FACS pointer stays zero: only one may be set."""
    flags = (
        FADT_WBINVD
        | FADT_C1_SUPPORTED
        | FADT_NO_SLEEP_BUTTON
        | FADT_RTC_WAKES_FROM_S4
        | FADT_RESET_REGISTER
        | FADT_USE_PLATFORM_CLOCK
    )
    absent = generic_address(SYSTEM_MEMORY, 0, 0)
    body = b"".join(
        (
            struct.pack("<IIBBHIBBBB", facs_gpa, dsdt_gpa, 1, 0, SCI, SMI_COMMAND, ACPI_ENABLE, ACPI_DISABLE, 0, 0),
            struct.pack("<IIIIIIII", PM1_EVENT, 0, PM1_CONTROL, 0, 0, PM_TIMER, GPE0, 0),
            struct.pack("<BBBBBBBB", 4, 2, 0, 4, GPE0_SIZE, 0, 0, 0),
            struct.pack("<HHHHBBBBBHBI", NO_C2, NO_C3, 0, 0, 0, 0, 0, 0, RTC_CENTURY, BOOT_8042, 0, flags),
            generic_address(SYSTEM_IO, 8, RESET_PORT),
            struct.pack("<BHB", RESET_VALUE, 0, 0),
            struct.pack("<QQ", 0, dsdt_gpa),
            generic_address(SYSTEM_IO, 32, PM1_EVENT),
            absent,
            generic_address(SYSTEM_IO, 16, PM1_CONTROL),
            absent,
            absent,
            generic_address(SYSTEM_IO, 32, PM_TIMER),
            generic_address(SYSTEM_IO, 8 * GPE0_SIZE, GPE0),
            absent,
        )
    )
    return table(b"FACP", 3, body)


def madt(config: AcpiConfig) -> bytes:
    """Local APICs 0 to n-1, the I/O APIC, where its inputs differ from the ISA interrupts, NMI on every LINT1."""
    body = [struct.pack("<II", LOCAL_APIC_BASE, MADT_PC_AT)]
    body += [struct.pack("<BBBBI", 0, 8, index, index, 1) for index in range(config.cpu_count)]
    body.append(struct.pack("<BBBBII", 1, 12, 0, 0, IO_APIC_BASE, 0))
    body.append(struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0))
    body += [struct.pack("<BBBBIH", 2, 10, 0, irq, irq, ACTIVE_HIGH_LEVEL) for irq in LEVEL_IRQS]
    body.append(struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1))
    return table(b"APIC", 1, b"".join(body))


def hpet() -> bytes:
    return table(b"HPET", 1, struct.pack("<I", HPET_ID) + generic_address(SYSTEM_MEMORY, 0, HPET_BASE) + bytes(4))


def mcfg() -> bytes:
    """One segment, buses 0 to 255."""
    return table(b"MCFG", 1, bytes(8) + struct.pack("<QHBB4x", ECAM_BASE, 0, 0, 0xFF))


def waet() -> bytes:
    """Windows ACPI emulated devices table: one read of the PM timer is enough."""
    return table(b"WAET", 1, struct.pack("<I", WAET_PM_TIMER_GOOD))
