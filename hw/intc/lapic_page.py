"""The local APICs' window in guest-physical memory."""

from __future__ import annotations

from hw.intc.apic_bus import ApicBus
from hw.intc.lapic import LocalApic
from hw.intc.lapic_core import DEFAULT_BASE, PAGE


class LapicPage:
    """The window at 0xFEE00000: the accessing vCPU's own APIC page, and the MSI doorbell for bus masters.

    `current` is the local APIC of the vCPU whose access is being served; the vCPU glue sets it when there are several.
    """

    WIRING = ("_bus", "current")
    STATISTICS = ()
    SAVED = ()
    __slots__ = WIRING

    def __init__(self, bus: ApicBus, current: LocalApic) -> None:
        self._bus = bus
        self.current = current

    def mmio_read(self, offset: int, size: int) -> int:
        if offset < PAGE:
            return self.current.mmio_read(offset, size)
        return (1 << 8 * size) - 1

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset < PAGE:
            self.current.mmio_write(offset, size, value)
        elif size == 4:
            self._bus.msi_write(DEFAULT_BASE + offset, value)
