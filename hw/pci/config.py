"""A PCI function's configuration space (PCI Local Bus 3.0, 6.1), and the type 0 header's rows.

A function is a register file of 256 bytes: its device adds rows to the header and hooks to the rows that act.
"""

from __future__ import annotations

from typing import Protocol

from hw.core.regs import RO, RW, W1C, Field, Reg, RegFile, RegMap, reserved

CONFIG_SIZE = 0x100


def type0_header(
    vendor: int,
    device: int,
    *,
    revision: int = 0,
    class_code: int,
    header_type: int = 0,
    subsystem_vendor: int = 0x1AF4,
    subsystem: int = 0x1100,
    command_reset: int = 0,
    io: bool = True,
    interrupt_pin: int = 0,
) -> tuple[Reg, ...]:
    """The rows of a type 0 header (6.1, figure 6-1). `command_reset` covers the I/O, memory and master enables."""
    return (
        Reg(0x00, "VID", 2, (Field("VID", 16, RO, vendor),)),
        Reg(0x02, "DID", 2, (Field("DID", 16, RO, device),)),
        Reg(
            0x04,
            "PCICMD",
            2,
            (
                Field("IOSE", 1, RW if io else RO, command_reset & 1),
                Field("MSE", 1, RW, command_reset >> 1 & 1),
                Field("BME", 1, RW, command_reset >> 2 & 1),
                reserved(3),
                Field("PERE", 1, RW),
                reserved(1),
                Field("SERRE", 1, RW, command_reset >> 8 & 1),
                reserved(1),
                Field("INTX_DISABLE", 1, RW),
                reserved(5),
            ),
        ),
        Reg(
            0x06,
            "PCISTS",
            2,
            (
                reserved(3),
                Field("INTX", 1, RO),
                Field("CAP", 1, RO),
                reserved(3),
                Field("MDPE", 1, W1C),
                Field("DEVT", 2, RO),
                Field("STA", 1, W1C),
                Field("RTA", 1, W1C),
                Field("RMA", 1, W1C),
                Field("SSE", 1, W1C),
                Field("DPE", 1, W1C),
            ),
        ),
        Reg(0x08, "RID", 1, (Field("RID", 8, RO, revision),)),
        Reg(0x09, "CC", 3, (Field("CC", 24, RO, class_code),)),
        Reg(0x0C, "CLS", 1),
        Reg(0x0D, "MLT", 1, (reserved(8),)),
        Reg(0x0E, "HTYPE", 1, (Field("HTYPE", 8, RO, header_type),)),
        Reg(0x2C, "SVID", 2, (Field("SVID", 16, RO, subsystem_vendor),)),
        Reg(0x2E, "SID", 2, (Field("SID", 16, RO, subsystem),)),
        Reg(0x3C, "INTRLINE", 1),
        Reg(0x3D, "INTRPIN", 1, (Field("INTRPIN", 8, RO, interrupt_pin),)),
    )


class PciFunction(Protocol):
    """One function on a PCI bus. Offsets beyond its configuration space never reach it."""

    @property
    def config_size(self) -> int: ...

    def config_read(self, offset: int, size: int) -> int: ...

    def config_write(self, offset: int, size: int, value: int) -> None: ...


class ConfigSpace(RegFile):
    """A register file of 256 bytes that is a function's configuration space."""

    __slots__ = ()

    def __init__(self, map: RegMap) -> None:
        if map.size != CONFIG_SIZE:
            raise ValueError(f"a configuration space has {CONFIG_SIZE} bytes, not {map.size}")
        super().__init__(map)
