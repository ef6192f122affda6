"""What the ACPI tables say about one machine, and the fixed addresses of a q35.

The addresses equal QEMU 7.2's q35: PMBASE 0x600, ECAM at 0xB0000000, PIRQ routing registers at 00:1f.0 + 0x60.
"""

from dataclasses import dataclass

OEM_ID = b"TESSRA"
OEM_TABLE_ID = b"TESSQ35 "
CREATOR_ID = b"TSSR"

PM_BASE = 0x600
PM1_EVENT = PM_BASE + 0x00
PM1_CONTROL = PM_BASE + 0x04
PM_TIMER = PM_BASE + 0x08
GPE0 = PM_BASE + 0x20
GPE0_SIZE = 0x10
PM_SIZE = 0x80
SMI_COMMAND = 0xB2
ACPI_ENABLE, ACPI_DISABLE = 2, 3
SCI = 9
RESET_PORT, RESET_VALUE = 0xCF9, 0x0F
RTC_CENTURY = 0x32

LOCAL_APIC_BASE = 0xFEE0_0000
IO_APIC_BASE = 0xFEC0_0000
HPET_BASE, HPET_SIZE = 0xFED0_0000, 0x400
HPET_ID = 0x8086_A201
"""Vendor 8086h, legacy replacement capable, 64-bit counter, three comparators, revision 1."""

ECAM_BASE, ECAM_SIZE = 0xB000_0000, 0x1000_0000
RCRB_BASE, RCRB_SIZE = 0xFED1_C000, 0x4000
PCI_MEMORY_LAST = 0xFEBF_FFFF
PCI_HOLE64_SIZE = 32 << 30
FW_CFG_BASE, FW_CFG_SIZE = 0x510, 0x0C

PIRQ_IRQS = (5, 10, 11)
"""ISA interrupts that a PIRQ may be routed to."""
LEVEL_IRQS = (5, 9, 10, 11)
"""ISA interrupts that are level-triggered and active-high: the SCI and PCI's."""

SERIAL_PORTS = ((0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3))
"""I/O base and interrupt of COM1 to COM4."""


@dataclass(frozen=True, slots=True)
class AcpiConfig:
    """`low_size` and `high_size` are RAM below 4 GiB and from 4 GiB on; `serial_ports` indexes `SERIAL_PORTS`.

    `pci_functions` are further functions on bus 0 (device, function) that get a device node.
    """

    low_size: int
    high_size: int = 0
    cpu_count: int = 1
    serial_ports: tuple[int, ...] = (0,)
    hpet: bool = True
    fw_cfg: bool = True
    pci_functions: tuple[tuple[int, int], ...] = ()
