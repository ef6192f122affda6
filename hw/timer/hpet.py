"""High precision event timers: three comparators over a 100 MHz counter (IA-PC HPET specification 1.0a).

Capabilities equal QEMU's: id 0x8086A201, period 10 000 000 fs, every timer 64-bit and periodic, routes 0x00FF0104.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hw.core.clock import Clock, Timer, TimerQueue
from hw.core.irq import IrqLine
from hw.core.regs import RO, RW, W1C, Field, Reg, RegFile, RegMap, reserved

TIMERS = 3
MAIN_CNT = 0xF0
TICK_NS = 10
ROUTES = 0x00FF_0104  # GSIs 2, 8 and 16 to 23
MASK64 = (1 << 64) - 1
MASK32 = (1 << 32) - 1
LEGACY_IRQ = (0, 8)  # timers 0 and 1 under legacy replacement


def _timer_rows(n: int) -> tuple[Reg, ...]:
    base = 0x100 + 0x20 * n
    return (
        Reg(
            base,
            f"T{n}_CONF",
            8,
            (
                reserved(1),
                Field("INT_TYPE", 1),
                Field("INT_ENB", 1),
                Field("TYPE", 1),
                Field("PER_INT_CAP", 1, RO, 1),
                Field("SIZE_CAP", 1, RO, 1),
                Field("VAL_SET", 1),
                reserved(1),
                Field("32MODE", 1),
                Field("INT_ROUTE", 5),
                Field("FSB_EN", 1, RO),
                Field("FSB_INT_DEL_CAP", 1, RO),
                reserved(16),
                Field("INT_ROUTE_CAP", 32, RO, ROUTES),
            ),
        ),
        Reg(base + 8, f"T{n}_COMP", 8, (Field("COMP", 64, RW, MASK64),)),
    )


MAP = RegMap(
    0x400,
    (
        Reg(
            0x000,
            "GCAP_ID",
            8,
            (
                Field("REV_ID", 8, RO, 0x01),
                Field("NUM_TIM_CAP", 5, RO, TIMERS - 1),
                Field("COUNT_SIZE_CAP", 1, RO, 1),
                reserved(1),
                Field("LEG_RT_CAP", 1, RO, 1),
                Field("VENDOR_ID", 16, RO, 0x8086),
                Field("COUNTER_CLK_PERIOD", 32, RO, TICK_NS * 1_000_000),
            ),
        ),
        Reg(0x010, "GEN_CONF", 8, (Field("ENABLE_CNF", 1), Field("LEG_RT_CNF", 1), reserved(62))),
        Reg(0x020, "GINTR_STA", 8, (Field("T_INT_STS", TIMERS, W1C), reserved(64 - TIMERS))),
        Reg(0x0F0, "MAIN_CNT", 8),
        *(row for n in range(TIMERS) for row in _timer_rows(n)),
    ),
)

# Tn_CONF
INT_TYPE_LEVEL = 1 << 1
INT_ENB = 1 << 2
PERIODIC = 1 << 3
VAL_SET = 1 << 6
MODE32 = 1 << 8


class Hpet:
    """The block at 0xFED00000. `gsi[n]` are its inputs to the interrupt router; `legacy_changed` tells the board."""

    WIRING = ("_clock", "_nowhere", "gsi", "legacy_changed")
    STATISTICS = ("interrupts",)
    SAVED = ("counter_base", "period", "regs", "timers")
    __slots__ = WIRING + STATISTICS + SAVED

    def __init__(self, clock: Clock, timers: TimerQueue, gsi: dict[int, IrqLine]) -> None:
        self._clock = clock
        self.gsi = gsi
        self._nowhere = IrqLine()
        self.legacy_changed: Callable[[bool], None] = lambda _: None
        self.interrupts = [0] * TIMERS
        self.timers: list[Timer] = []
        self.regs = RegFile(MAP)
        self.regs.on_read["MAIN_CNT"] = self.counter
        self.regs.on_write["GEN_CONF"] = self._general_written
        self.regs.on_write["GINTR_STA"] = lambda old, written: self._drive_all()
        self.regs.on_write["MAIN_CNT"] = self._counter_written
        for n in range(TIMERS):
            self.timers.append(timers.timer(partial(self._expired, n)))
            self.regs.on_write[f"T{n}_CONF"] = partial(self._config_written, n)
        self.counter_base = 0  # the counter's value at time 0 while it runs, its value while it stands
        self.period = [0] * TIMERS

    def reset(self) -> None:
        self.regs.reset()
        self.counter_base = 0
        self.period = [0] * TIMERS
        for timer in self.timers:
            timer.cancel()
        self._drive_all()
        self.legacy_changed(False)

    def mmio_read(self, offset: int, size: int) -> int:
        if offset == MAIN_CNT and size >= 4:  # the clock source's hot path
            return self.counter() & ((1 << 8 * size) - 1)
        if offset & (size - 1):
            return 0  # the specification requires aligned dwords and quadwords
        return self.regs.read(offset, size)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset & (size - 1) or size < 4:
            return
        if 0x100 <= offset < 0x100 + 0x20 * TIMERS and offset & 0x18 == 0x08:
            self._write_comparator((offset - 0x100) >> 5, 8 * (offset & 4), size, value)
        else:
            self.regs.write(offset, size, value)

    # -- counter

    @property
    def enabled(self) -> bool:
        return bool(self.regs.data[0x10] & 1)

    @property
    def legacy(self) -> bool:
        """Timers 0 and 1 replace the 8254 and the RTC on IRQ 0 and IRQ 8."""
        return bool(self.regs.data[0x10] & 2)

    def counter(self) -> int:
        """MAIN_CNT now."""
        if self.enabled:
            return (self.counter_base + self._clock.now_ns() // TICK_NS) & MASK64
        return self.counter_base

    def _general_written(self, old: int, written: int) -> None:
        new = self.regs.get("GEN_CONF")
        now = self._clock.now_ns() // TICK_NS
        if new & ~old & 1:
            self.counter_base = (self.counter_base - now) & MASK64
        elif old & ~new & 1:
            self.counter_base = (self.counter_base + now) & MASK64
        if (old ^ new) & 2:
            self.legacy_changed(bool(new & 2))
        self._arm_all()
        self._drive_all()

    def _counter_written(self, old: int, written: int) -> None:
        value = self.regs.get("MAIN_CNT")
        self.counter_base = (value - self._clock.now_ns() // TICK_NS) & MASK64 if self.enabled else value
        self._arm_all()

    # -- comparators

    def _config(self, n: int) -> int:
        return int.from_bytes(self.regs.data[0x100 + 0x20 * n : 0x104 + 0x20 * n], "little")

    def _config_written(self, n: int, old: int, written: int) -> None:
        new = self._config(n)
        if (old ^ new) & 0x3E00 or (old ^ new) & INT_TYPE_LEVEL:
            self._line(n, old).set(False)
        if new & MODE32:
            self.regs.set(f"T{n}_COMP", self.regs.get(f"T{n}_COMP") & MASK32)
            self.period[n] &= MASK32
        self._arm(n)
        self._drive(n)

    def _write_comparator(self, n: int, shift: int, size: int, value: int) -> None:
        """2.3.9.2.2: in periodic mode a write sets the period; the comparator too, only after VAL_SET."""
        config = self._config(n)
        mask = MASK32 if config & MODE32 else MASK64
        keep = ~(((1 << 8 * size) - 1) << shift)
        value <<= shift
        if config & PERIODIC:
            self.period[n] = (self.period[n] & keep | value) & mask
        if not config & PERIODIC or config & VAL_SET:
            self.regs.set(f"T{n}_COMP", (self.regs.get(f"T{n}_COMP") & keep | value) & mask)
        self.regs.set(f"T{n}_CONF", self.regs.get(f"T{n}_CONF") & ~VAL_SET)
        self._arm(n)

    def _arm_all(self) -> None:
        for n in range(TIMERS):
            self._arm(n)

    def _arm(self, n: int) -> None:
        config = self._config(n)
        if not self.enabled or (not config & INT_ENB and not config & PERIODIC):
            self.timers[n].cancel()
            return
        mask = MASK32 if config & MODE32 else MASK64
        now = self.counter()
        comparator = self.regs.get(f"T{n}_COMP") & mask
        if config & PERIODIC and self.period[n]:
            # Missed periods are coalesced; the comparator moves to the next match in the future.
            behind = (now - comparator) & mask
            if behind <= mask >> 1:
                comparator = (comparator + (behind // self.period[n] + 1) * self.period[n]) & mask
                self.regs.set(f"T{n}_COMP", comparator)
        ticks = (comparator - now) & mask
        if ticks == 0:
            ticks = mask + 1  # the match of this very tick is past
        if ticks > 1 << 58:
            self.timers[n].cancel()  # centuries away
            return
        now_ns = self._clock.now_ns()
        self.timers[n].mod(now_ns - now_ns % TICK_NS + ticks * TICK_NS)

    def _expired(self, n: int) -> None:
        config = self._config(n)
        self._arm(n)
        if not config & INT_ENB:
            if config & INT_TYPE_LEVEL:
                self.regs.set("GINTR_STA", self.regs.get("GINTR_STA") | 1 << n)
            return
        self.interrupts[n] += 1
        line = self._line(n, config)
        if config & INT_TYPE_LEVEL:
            self.regs.set("GINTR_STA", self.regs.get("GINTR_STA") | 1 << n)
            line.set(True)
        else:
            line.pulse()

    def _line(self, n: int, config: int) -> IrqLine:
        if self.legacy and n < len(LEGACY_IRQ):
            return self.gsi[LEGACY_IRQ[n]]
        return self.gsi.get(config >> 9 & 0x1F, self._nowhere)

    def _drive(self, n: int) -> None:
        """Put a level-triggered timer's line where its status bit says."""
        config = self._config(n)
        if config & INT_TYPE_LEVEL:
            status = self.regs.get("GINTR_STA") >> n & 1
            self._line(n, config).set(bool(status and config & INT_ENB))

    def _drive_all(self) -> None:
        for n in range(TIMERS):
            self._drive(n)
