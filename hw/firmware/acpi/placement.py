"""Where the tables lie, and their export to firmware through fw_cfg.

Direct boot: the tables are written to guest RAM at final addresses. Firmware boot: fw_cfg carries the same tables with
pointers relative to their file, and the commands of `etc/table-loader` tell the firmware to place and link them
(QEMU's bios-linker-loader format, the contract that SeaBIOS and OVMF follow).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from hw.firmware.acpi import tables
from hw.firmware.acpi.config import AcpiConfig
from hw.firmware.acpi.dsdt import dsdt_body

FACS_ALIGN = 64
TABLES_FILE, RSDP_FILE, LOADER_FILE = "etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader"


@dataclass(frozen=True, slots=True)
class AcpiImage:
    """All tables but the RSDP as one block for one address, and where the parts of it are.

    `offsets` is by signature, in the order of placement; `pointers` are (offset, size) of each address inside the
    block, relative to the block's start plus `base`.
    """

    base: int
    data: bytes
    rsdp: bytes
    offsets: dict[str, int]
    pointers: tuple[tuple[int, int], ...]


def acpi_image(config: AcpiConfig, base: int) -> AcpiImage:
    """The tables for the guest address `base`, which must be a multiple of 64 below 4 GiB."""
    assert base % FACS_ALIGN == 0, hex(base)
    data = bytearray()
    offsets: dict[str, int] = {}

    def place(build: Callable[[], bytes]) -> int:
        content = build()
        offsets[content[:4].decode()] = offset = len(data)
        data.extend(content)
        data.extend(bytes(-len(data) % 8))
        return base + offset

    facs = place(tables.facs)
    dsdt = place(lambda: tables.table(b"DSDT", 2, dsdt_body(config)))
    listed = [
        place(lambda: tables.fadt(facs, dsdt)),
        place(lambda: tables.madt(config)),
        *([place(tables.hpet)] if config.hpet else []),
        place(tables.mcfg),
        place(tables.waet),
    ]
    rsdt = place(lambda: tables.rsdt(listed))
    xsdt = place(lambda: tables.xsdt(listed))
    fadt = offsets["FACP"]
    pointers = [(fadt + 36, 4), (fadt + 40, 4), (fadt + 140, 8)]
    pointers += [(offsets["RSDT"] + tables.HEADER_SIZE + 4 * index, 4) for index in range(len(listed))]
    pointers += [(offsets["XSDT"] + tables.HEADER_SIZE + 8 * index, 8) for index in range(len(listed))]
    return AcpiImage(base, bytes(data), tables.rsdp(rsdt, xsdt), offsets, tuple(pointers))


# --- fw_cfg (docs/specs of QEMU: one command is 128 bytes)

_ALLOCATE, _ADD_POINTER, _ADD_CHECKSUM = 1, 2, 3
_ZONE_HIGH, _ZONE_FSEG = 1, 2
_RSDP_POINTERS = ((16, 4), (24, 8))


def _file(name: str) -> bytes:
    return name.encode().ljust(56, b"\0")


def _command(kind: int, body: bytes) -> bytes:
    return (struct.pack("<I", kind) + body).ljust(128, b"\0")


def fw_cfg_files(config: AcpiConfig) -> dict[str, bytes]:
    """The three files by name. Checksums are zero where the loader computes them after linking."""
    image = acpi_image(config, 0)
    data, root = bytearray(image.data), bytearray(image.rsdp)
    commands = [
        _command(_ALLOCATE, _file(RSDP_FILE) + struct.pack("<IB", 16, _ZONE_FSEG)),
        _command(_ALLOCATE, _file(TABLES_FILE) + struct.pack("<IB", FACS_ALIGN, _ZONE_HIGH)),
    ]
    for owner, pointers in ((TABLES_FILE, image.pointers), (RSDP_FILE, _RSDP_POINTERS)):
        for offset, size in pointers:
            commands.append(
                _command(_ADD_POINTER, _file(owner) + _file(TABLES_FILE) + struct.pack("<IB", offset, size))
            )
    for signature, offset in image.offsets.items():
        if signature != "FACS":
            size = int.from_bytes(data[offset + 4 : offset + 8], "little")
            data[offset + 9] = 0
            commands.append(_command(_ADD_CHECKSUM, _file(TABLES_FILE) + struct.pack("<III", offset + 9, offset, size)))
    for position, size in ((8, 20), (32, 36)):
        root[position] = 0
        commands.append(_command(_ADD_CHECKSUM, _file(RSDP_FILE) + struct.pack("<III", position, 0, size)))
    return {TABLES_FILE: bytes(data), RSDP_FILE: bytes(root), LOADER_FILE: b"".join(commands)}
