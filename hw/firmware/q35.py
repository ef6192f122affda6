"""What SeaBIOS would have left in a q35's memory, written directly: BIOS data area, ACPI tables, SMBIOS tables."""

import struct
from dataclasses import dataclass

from hw.firmware.acpi import AcpiConfig, acpi_image, fw_cfg_files
from hw.firmware.acpi.config import SERIAL_PORTS
from hw.firmware.e820 import EBDA_BASE, TABLES_SIZE, MemoryMap, fw_cfg_e820
from hw.firmware.errors import BootError
from hw.firmware.ram import GuestRam
from hw.firmware.smbios import ENTRY_POINT_SIZE, STRUCTURES_OFFSET, SmbiosConfig, smbios_image

RSDP_GPA = 0xF59E0
SMBIOS_GPA = 0xF5A20
F_SEGMENT_END = 0x100000

_BDA_BASE, _BDA_SIZE = 0x400, 0x100


@dataclass(frozen=True, slots=True)
class FirmwareConfig:
    """What the tables describe; `pci_functions` are those on bus 0 besides 00.0 and 1f.0, as (device, function)."""

    cpu_count: int = 1
    serial_ports: tuple[int, ...] = (0,)
    hpet: bool = True
    processor_id: int = 0
    pci_functions: tuple[tuple[int, int], ...] = ()

    def smbios(self, memory_map: MemoryMap) -> SmbiosConfig:
        return SmbiosConfig(
            low_size=memory_map.low_size,
            high_size=memory_map.high_size,
            cpu_count=self.cpu_count,
            processor_id=self.processor_id,
        )

    def acpi(self, memory_map: MemoryMap) -> AcpiConfig:
        return AcpiConfig(
            low_size=memory_map.low_size,
            high_size=memory_map.high_size,
            cpu_count=self.cpu_count,
            serial_ports=self.serial_ports,
            hpet=self.hpet,
            pci_functions=self.pci_functions,
        )


def install_q35_tables(ram: GuestRam, memory_map: MemoryMap, config: FirmwareConfig) -> int:
    """Write everything; returns the address of the RSDP. To be called at each machine reset, before `load_kernel`."""
    acpi = acpi_image(config.acpi(memory_map), memory_map.tables_base)
    if len(acpi.data) > TABLES_SIZE:
        raise BootError(f"the ACPI tables for {config.cpu_count} processors do not fit: use a smaller -smp")
    smbios = smbios_image(config.smbios(memory_map), SMBIOS_GPA)
    if SMBIOS_GPA + len(smbios) > F_SEGMENT_END:
        raise BootError(f"the SMBIOS tables for {config.cpu_count} processors do not fit: use a smaller -smp")
    ram.write(_BDA_BASE, bios_data_area(config.serial_ports))
    ram.write(EBDA_BASE, b"\x01")
    ram.write(acpi.base, acpi.data)
    ram.write(RSDP_GPA, acpi.rsdp)
    ram.write(SMBIOS_GPA, smbios)
    return RSDP_GPA


def fw_cfg_contents(memory_map: MemoryMap, config: FirmwareConfig) -> dict[str, bytes]:
    """The same description as fw_cfg files, by name, for firmware that places the tables itself."""
    smbios = smbios_image(config.smbios(memory_map), 0)
    return {
        "etc/e820": fw_cfg_e820(memory_map),
        "etc/smbios/smbios-anchor": smbios[:ENTRY_POINT_SIZE],
        "etc/smbios/smbios-tables": smbios[STRUCTURES_OFFSET:],
        **fw_cfg_files(config.acpi(memory_map)),
    }


def bios_data_area(serial_ports: tuple[int, ...]) -> bytes:
    """The 256 bytes at 0x400, of which kernels read the serial ports, the EBDA's segment and the memory size."""
    bda = bytearray(_BDA_SIZE)
    for slot, index in enumerate(serial_ports):
        struct.pack_into("<H", bda, 2 * slot, SERIAL_PORTS[index][0])
    struct.pack_into("<H", bda, 0x0E, EBDA_BASE >> 4)
    struct.pack_into("<H", bda, 0x13, EBDA_BASE >> 10)
    return bytes(bda)
