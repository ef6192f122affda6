"""ICH9 TCO watchdog at PMBASE + 0x60 (ICH9 data sheet 13.9): counts TCO_TMR ticks of 0.6 s; its second timeout resets.

The timer starts with the first reload and stops while TCO_TMR_HLT is set. NO_REBOOT in the root complex's GCS, which
is set after reset as on QEMU's machine, keeps the second timeout from resetting.
"""

from __future__ import annotations

from collections.abc import Callable

from hw.core.clock import Clock, TimerQueue
from hw.core.regs import RO, W1C, Field, Reg, RegFile, RegMap, reserved

SIZE = 0x20
TICK_NS = 600_000_000
TIMEOUT = 1 << 3
SECOND_TO = 1 << 1
TMR_HLT = 1 << 11

MAP = RegMap(
    SIZE,
    (
        Reg(0x00, "TCO_RLD", 2, (Field("TCO_TIMER", 10), reserved(6))),
        Reg(0x02, "TCO_DAT_IN", 1),
        Reg(0x03, "TCO_DAT_OUT", 1),
        Reg(0x04, "TCO1_STS", 2, (Field("STS", 16, W1C),)),
        Reg(0x06, "TCO2_STS", 2, (Field("STS", 16, W1C),)),
        Reg(0x08, "TCO1_CNT", 2),
        Reg(0x0A, "TCO2_CNT", 2, (Field("CNT", 16, reset=0x0008),)),
        Reg(0x0C, "TCO_MESSAGE1", 1),
        Reg(0x0D, "TCO_MESSAGE2", 1),
        Reg(0x0E, "TCO_WDCNT", 1),
        Reg(0x10, "SW_IRQ_GEN", 1, (Field("IRQ1_CAUSE", 1, reset=1), Field("IRQ12_CAUSE", 1, reset=1), reserved(6))),
        Reg(0x11, "-", 1, (Field("-", 8, RO),)),
        Reg(0x12, "TCO_TMR", 2, (Field("TCO_TMR", 10, reset=4), reserved(6))),
    ),
)


class Tco:
    """The block, and `timed_out`, called at the second timeout in a row."""

    WIRING = ("_clock", "timed_out")
    STATISTICS = ()
    SAVED = ("deadline_ns", "first_timeout", "regs", "timer")
    __slots__ = WIRING + STATISTICS + SAVED

    def __init__(self, clock: Clock, timers: TimerQueue) -> None:
        self._clock = clock
        self.timed_out: Callable[[], None] = lambda: None
        self.timer = timers.timer(self._expired)
        self.regs = RegFile(MAP)
        self.regs.on_read["TCO_RLD"] = self._left
        self.regs.on_write["TCO_RLD"] = lambda old, written: self._reload(new=True)
        self.regs.on_write["TCO1_CNT"] = self._control_written
        self.deadline_ns = 0
        self.first_timeout = False

    def reset(self) -> None:
        self.regs.reset()
        self.timer.cancel()
        self.deadline_ns = 0
        self.first_timeout = False

    def pio_read(self, offset: int, size: int) -> int:
        return self.regs.read(offset, size)

    def pio_write(self, offset: int, size: int, value: int) -> None:
        self.regs.write(offset, size, value)

    def _left(self) -> int:
        """TCO_RLD reads the ticks left."""
        if not self.timer.armed:
            return self.regs.get("TCO_RLD")
        return max(0, self.deadline_ns - self._clock.now_ns()) // TICK_NS & 0x3FF

    def _reload(self, *, new: bool) -> None:
        if new:
            self.first_timeout = False
        ticks = max(self.regs.get("TCO_TMR"), 4)  # values below 4 are not to be used
        self.regs.set("TCO_RLD", ticks)
        self.deadline_ns = self._clock.now_ns() + ticks * TICK_NS
        if not self.regs.get("TCO1_CNT") & TMR_HLT:
            self.timer.mod(self.deadline_ns)

    def _control_written(self, old: int, written: int) -> None:
        new = self.regs.get("TCO1_CNT")
        if new & TMR_HLT:
            self.regs.set("TCO_RLD", self._left())
            self.timer.cancel()
        elif old & TMR_HLT and self.deadline_ns:
            self.deadline_ns = self._clock.now_ns() + self.regs.get("TCO_RLD") * TICK_NS
            self.timer.mod(self.deadline_ns)

    def _expired(self) -> None:
        if not self.first_timeout:
            self.first_timeout = True
            self.regs.set("TCO1_STS", self.regs.get("TCO1_STS") | TIMEOUT)
            self._reload(new=False)
        else:
            self.first_timeout = False
            self.regs.set("TCO2_STS", self.regs.get("TCO2_STS") | SECOND_TO)
            self.timed_out()
