"""Delivery of interrupt messages among local APICs, the I/O APIC and MSI (Intel SDM volume 3, 10.6 and 10.11).

Written for many local APICs. Machine lock held throughout; a delivery ends in a `CpuPort` call of the target, which is
an atomic request to that vCPU's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hw.intc.lapic_core import LapicCore


class Delivery(IntEnum):
    """Delivery modes as the ICR, LVT, redirection entries and MSI data encode them."""

    FIXED = 0
    LOWEST = 1
    SMI = 2
    RESERVED = 3
    NMI = 4
    INIT = 5
    STARTUP = 6
    EXTINT = 7


X2APIC_BROADCAST = 0xFFFF_FFFF
XAPIC_BROADCAST = 0xFF


class ApicBus:
    """All local APICs, and the receivers of EOI broadcasts."""

    __slots__ = ("eoi_receivers", "lapics", "pic_acknowledge")

    def __init__(self, pic_acknowledge: Callable[[], int]) -> None:
        self.lapics: list[LapicCore] = []
        self.eoi_receivers: list[Callable[[int], None]] = []
        self.pic_acknowledge = pic_acknowledge

    def targets(self, destination: int, *, logical: bool) -> list[LapicCore]:
        """The local APICs that a destination field names."""
        return [lapic for lapic in self.lapics if lapic.matches(destination, logical=logical)]

    def deliver(
        self, destination: int, *, logical: bool, mode: int, vector: int, level: bool, assert_: bool = True
    ) -> None:
        """Send one message to a destination."""
        self.deliver_to(self.targets(destination, logical=logical), mode, vector, level=level, assert_=assert_)

    def deliver_to(
        self, targets: list[LapicCore], mode: int, vector: int, *, level: bool, assert_: bool = True
    ) -> None:
        """Send one message to each of `targets`, or to the one of lowest priority."""
        if mode == Delivery.LOWEST:
            usable = [lapic for lapic in targets if lapic.enabled]
            if usable:
                min(usable, key=lambda lapic: lapic.ppr).accept(Delivery.FIXED, vector, level=level)
            return
        if mode == Delivery.INIT and level and not assert_:
            return  # INIT level de-assert: only arbitration IDs, which no processor since the Pentium 4 has
        for lapic in targets:
            lapic.accept(mode, vector, level=level)

    def msi_write(self, address: int, data: int) -> None:
        """A memory write to 0xFEExxxxx (10.11.1): destination in bits 19:12, redirection hint 3, logical 2."""
        destination = address >> 12 & 0xFF
        logical = bool(address & 4) and bool(address & 8)
        self.deliver(
            destination,
            logical=logical,
            mode=data >> 8 & 7,
            vector=data & 0xFF,
            level=bool(data >> 15 & 1),
            assert_=bool(data >> 14 & 1),
        )

    def broadcast_eoi(self, vector: int) -> None:
        """A local APIC ended a level-triggered interrupt."""
        for receiver in self.eoi_receivers:
            receiver(vector)
