"""The root bus and its two configuration mechanisms: CF8/CFC (PCI 3.0, 3.2.2.3.2) and ECAM (PCIe 3.0, 7.2.2).

Both lead to the same functions. A function that is not there reads as all ones and swallows writes.
"""

from __future__ import annotations

from hw.pci.config import PciFunction

CONFIG_ENABLE = 1 << 31


class PciBus:
    """Bus 0 of the root complex: functions by (device, function). No bridges yet, so no other bus answers."""

    __slots__ = ("functions",)

    def __init__(self) -> None:
        self.functions: dict[int, PciFunction] = {}

    def add(self, device: int, function: int, function_object: PciFunction) -> None:
        """Put a function into a slot."""
        devfn = device << 3 | function
        if devfn in self.functions:
            raise ValueError(f"slot {device:02x}.{function} is taken")
        self.functions[devfn] = function_object

    def config_read(self, bus: int, devfn: int, offset: int, size: int) -> int:
        function = self.functions.get(devfn) if bus == 0 else None
        if function is None or offset >= function.config_size:
            return (1 << 8 * size) - 1
        return function.config_read(offset, size)

    def config_write(self, bus: int, devfn: int, offset: int, size: int, value: int) -> None:
        function = self.functions.get(devfn) if bus == 0 else None
        if function is not None and offset < function.config_size:
            function.config_write(offset, size, value)


class ConfigAddressPort:
    """CONFIG_ADDRESS at 0xCF8: a dword register; narrower accesses do not reach it (they are plain I/O)."""

    WIRING = ()
    STATISTICS = ()
    SAVED = ("address",)
    __slots__ = SAVED

    def __init__(self) -> None:
        self.address = 0

    def reset(self) -> None:
        self.address = 0

    def pio_read(self, offset: int, size: int) -> int:
        return self.address >> 8 * offset & ((1 << 8 * size) - 1)

    def pio_write(self, offset: int, size: int, value: int) -> None:
        if offset == 0 and size == 4:
            self.address = value


class ConfigDataPort:
    """CONFIG_DATA at 0xCFC to 0xCFF: the bytes of the selected configuration dword."""

    WIRING = ("bus", "select")
    STATISTICS = ()
    SAVED = ()
    __slots__ = WIRING

    def __init__(self, select: ConfigAddressPort, bus: PciBus) -> None:
        self.select = select
        self.bus = bus

    def pio_read(self, offset: int, size: int) -> int:
        address = self.select.address
        if not address & CONFIG_ENABLE:
            return (1 << 8 * size) - 1
        return self.bus.config_read(address >> 16 & 0xFF, address >> 8 & 0xFF, (address & 0xFC) + offset, size)

    def pio_write(self, offset: int, size: int, value: int) -> None:
        address = self.select.address
        if address & CONFIG_ENABLE:
            self.bus.config_write(address >> 16 & 0xFF, address >> 8 & 0xFF, (address & 0xFC) + offset, size, value)


class Ecam:
    """The enhanced configuration window: bus in bits 27:20, device and function in 19:12, register in 11:0."""

    WIRING = ("bus",)
    STATISTICS = ()
    SAVED = ()
    __slots__ = WIRING

    def __init__(self, bus: PciBus) -> None:
        self.bus = bus

    def mmio_read(self, offset: int, size: int) -> int:
        return self.bus.config_read(offset >> 20, offset >> 12 & 0xFF, offset & 0xFFF, size)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        self.bus.config_write(offset >> 20, offset >> 12 & 0xFF, offset & 0xFFF, size, value)
