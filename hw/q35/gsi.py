"""The machine's interrupt inputs: global system interrupts 0 to 23, and the PIRQ router in front of them.

GSI n < 16 is ISA interrupt n: it drives the 8259 pair and the I/O APIC's pin n, except that ISA 0 drives pin 2. GSIs 16
to 23 are PIRQA to PIRQH on the I/O APIC; the same PIRQs drive the 8259 pair as PIRQ[n]_ROUT says.
"""

from __future__ import annotations

from functools import partial

from hw.core.irq import IrqLine, SharedLine
from hw.intc.i8259 import Pic8259Pair
from hw.intc.ioapic import IoApic

PIRQS = 8
FIRST_PIRQ_GSI = 16
ROUTE_DISABLED = 0x80
TIMER_PIN = 2


class GsiRouter:
    """Where the devices' lines go. `line` hands out inputs; PIRQs have inputs of their own."""

    __slots__ = ("_ioapic", "_pic", "_pirq_level", "_pirq_lines", "_pirq_pic", "_pirq_routes", "_shared")

    def __init__(self, pic: Pic8259Pair, ioapic: IoApic) -> None:
        self._pic = pic
        self._ioapic = ioapic
        self._shared = [SharedLine(partial(self._set, gsi)) for gsi in range(24)]
        self._pirq_routes = [ROUTE_DISABLED] * PIRQS
        self._pirq_level = [False] * PIRQS
        self._pirq_pic: list[IrqLine] = [IrqLine() for _ in range(PIRQS)]
        self._pirq_lines = [SharedLine(partial(self._set_pirq, pirq)) for pirq in range(PIRQS)]

    def line(self, gsi: int) -> IrqLine:
        """A new input of a GSI."""
        return self._shared[gsi].input()

    def pirq_line(self, pirq: int) -> IrqLine:
        """A new input of PIRQ `pirq` (0 is A)."""
        return self._pirq_lines[pirq].input()

    def route_pirq(self, pirq: int, route: int) -> None:
        """PIRQ[n]_ROUT: bit 7 keeps the PIRQ from the 8259 pair, bits 3:0 name its ISA interrupt."""
        self._pirq_routes[pirq] = route
        self._pirq_pic[pirq].set(False)
        irq = route & 0xF
        if route & ROUTE_DISABLED or irq in (0, 1, 2, 8, 13):
            self._pirq_pic[pirq] = IrqLine()
        else:
            self._pirq_pic[pirq] = self._shared[irq].input()
            self._pirq_pic[pirq].set(self._pirq_level[pirq])

    def _set_pirq(self, pirq: int, level: bool) -> None:
        self._pirq_level[pirq] = level
        self._ioapic.set_pin(FIRST_PIRQ_GSI + pirq, level)
        self._pirq_pic[pirq].set(level)

    def _set(self, gsi: int, level: bool) -> None:
        if gsi < 16:
            self._pic.set_irq(gsi, level)
            self._ioapic.set_pin(gsi or TIMER_PIN, level)
        else:
            self._ioapic.set_pin(gsi, level)
