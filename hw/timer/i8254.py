"""8254 programmable interval timer and the port 0x61 glue (Intel 8254 data sheet; ICH9 data sheet 5.7, 13.7.1).

Counting is computed from virtual time when somebody looks; only counter 0, whose OUT is IRQ 0, has a deadline. An
interrupt is raised at each rising edge of OUT; the falling edges of modes 2 and 3 are folded into it, as no guest can
see IRQ 0's line while it is high.
"""

from __future__ import annotations

from hw.core.clock import NS_PER_S, Clock, TimerQueue
from hw.core.irq import IrqLine

HZ = 1_193_182
LATCH, LSB, MSB, WORD = range(4)


class Counter:
    """One of the three 16-bit counters. Gates: 0 and 1 are tied high, 2 is port 0x61's bit 0."""

    WIRING = ("_clock", "index")
    STATISTICS = ()
    SAVED = (
        "access",
        "bcd",
        "count",
        "gate",
        "latched_count",
        "latched_status",
        "low_byte",
        "mode",
        "mode_bits",
        "null_count",
        "read_high",
        "start_ns",
        "stopped_at",
        "write_high",
    )
    __slots__ = WIRING + SAVED

    def __init__(self, index: int, clock: Clock) -> None:
        self.index = index
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        self.mode = self.mode_bits = 3
        self.access = WORD
        self.bcd = False
        self.count = 0x1_0000
        self.gate = self.index != 2
        self.start_ns = self._clock.now_ns()
        self.stopped_at: int | None = None  # ticks counted when the gate fell (level-gated modes)
        self.latched_count: list[int] = []
        self.latched_status: int | None = None
        self.low_byte = 0
        self.write_high = False
        self.read_high = False
        self.null_count = True

    # -- counting

    def ticks(self) -> int:
        """Input clocks since the count was loaded or the gate triggered."""
        if self.stopped_at is not None:
            return self.stopped_at
        return (self._clock.now_ns() - self.start_ns) * HZ // NS_PER_S

    def time_of(self, tick: int) -> int:
        """The first nanosecond at which `ticks` is `tick`."""
        return self.start_ns + (tick * NS_PER_S + HZ - 1) // HZ

    def value(self) -> int:
        """The counting element, as a latch command freezes it."""
        ticks = self.ticks()
        if self.mode == 2:
            value = self.count - ticks % self.count
        elif self.mode == 3:
            value = self.count - 2 * ticks % self.count
            value &= ~1
        else:
            value = self.count - ticks
        modulus = 10_000 if self.bcd else 0x1_0000
        value %= modulus
        return _to_bcd(value) if self.bcd else value

    def output(self) -> bool:
        """OUT."""
        ticks = self.ticks()
        if self.mode == 0:
            return not self.null_count and ticks >= self.count
        if self.mode == 1:
            return ticks >= self.count
        if self.mode == 2:
            return not self.gate or ticks % self.count != self.count - 1
        if self.mode == 3:
            return not self.gate or ticks % self.count < (self.count + 1) // 2
        return ticks != self.count

    def next_rise(self) -> int | None:
        """The time of OUT's next rising edge after now, None when there is none."""
        if self.null_count or self.stopped_at is not None:
            return None
        ticks = self.ticks()
        if self.mode in (2, 3):
            return self.time_of((ticks // self.count + 1) * self.count)
        if self.mode in (4, 5):
            return self.time_of(self.count + 1) if ticks <= self.count else None
        return self.time_of(self.count) if ticks < self.count else None

    def load_count(self, count: int) -> None:
        """A full count has been written."""
        modulus = 10_000 if self.bcd else 0x1_0000
        if self.bcd:
            count = _from_bcd(count)
        self.count = count or modulus
        if self.mode in (2, 3) and self.count == 1:
            self.count = 2  # 1 is illegal in modes 2 and 3 (data sheet, figures 17 and 18)
        self.null_count = False
        if self.mode in (1, 5):
            return  # loaded by the gate's next rising edge
        self.start_ns = self._clock.now_ns()
        self.stopped_at = None if self.gate else 0

    def set_gate(self, level: bool) -> None:
        rising = level and not self.gate
        falling = self.gate and not level
        if self.mode in (1, 5):
            if rising:
                self.start_ns = self._clock.now_ns()
        elif self.mode in (2, 3):
            if rising:
                self.start_ns = self._clock.now_ns()
                self.stopped_at = None
            elif falling:
                self.stopped_at = 0
        elif falling:
            self.stopped_at = self.ticks()
        elif rising and self.stopped_at is not None:
            self.start_ns = self._clock.now_ns() - self.stopped_at * NS_PER_S // HZ
            self.stopped_at = None
        self.gate = level

    # -- programming

    def control(self, access: int, mode: int, bcd: bool) -> None:
        """A control word for this counter."""
        self.access = access
        self.mode_bits = mode
        self.mode = mode if mode < 6 else mode - 4
        self.bcd = bcd
        self.null_count = True
        self.write_high = False
        self.read_high = False
        self.latched_count = []
        self.latched_status = None
        self.stopped_at = None if self.gate or self.mode in (1, 5) else 0
        self.start_ns = self._clock.now_ns()

    def latch(self) -> None:
        if not self.latched_count:
            value = self.value()
            low, high = value & 0xFF, value >> 8
            self.latched_count = {LSB: [low], MSB: [high]}.get(self.access, [low, high])

    def latch_status(self) -> None:
        if self.latched_status is None:
            self.latched_status = (
                self.output() << 7 | self.null_count << 6 | self.access << 4 | self.mode_bits << 1 | int(self.bcd)
            )

    def read(self) -> int:
        if self.latched_status is not None:
            status, self.latched_status = self.latched_status, None
            return status
        if self.latched_count:
            return self.latched_count.pop(0)
        value = self.value()
        if self.access == LSB:
            return value & 0xFF
        if self.access == MSB:
            return value >> 8
        self.read_high = not self.read_high
        return value & 0xFF if self.read_high else value >> 8

    def write(self, value: int) -> bool:
        """A byte of the count; True when it completed a new count."""
        if self.access == LSB:
            self.load_count(value)
        elif self.access == MSB:
            self.load_count(value << 8)
        elif not self.write_high:
            self.low_byte = value
            self.write_high = True
            if self.mode == 0:
                self.stopped_at = self.ticks()  # writing the first byte stops mode 0
                self.null_count = True
            return False
        else:
            self.write_high = False
            self.load_count(value << 8 | self.low_byte)
        return True


class Pit8254:
    """Ports 0x40 to 0x43."""

    WIRING = ("_clock", "irq")
    STATISTICS = ("interrupts",)
    SAVED = ("counters", "timer")
    __slots__ = WIRING + STATISTICS + SAVED

    def __init__(self, clock: Clock, timers: TimerQueue) -> None:
        self._clock = clock
        self.irq = IrqLine()
        self.interrupts = 0
        self.counters = [Counter(i, clock) for i in range(3)]
        self.timer = timers.timer(self._expired)

    def reset(self) -> None:
        for counter in self.counters:
            counter.reset()
        self.timer.cancel()
        self.irq.set(False)

    def pio_read(self, offset: int, size: int) -> int:
        return self.counters[offset].read() if offset < 3 else 0

    def pio_write(self, offset: int, size: int, value: int) -> None:
        if offset < 3:
            if self.counters[offset].write(value):
                self._reload(offset)
            elif offset == 0 and self.counters[0].null_count:
                self.timer.cancel()
            return
        select = value >> 6
        access = value >> 4 & 3
        if select == 3:  # read-back
            for counter in self.counters:
                if value >> 1 + counter.index & 1:
                    if not value & 0x20:
                        counter.latch()
                    if not value & 0x10:
                        counter.latch_status()
        elif access == LATCH:
            self.counters[select].latch()
        else:
            self.counters[select].control(access, value >> 1 & 7, bool(value & 1))
            self._reload(select)

    def _reload(self, index: int) -> None:
        if index:
            return
        counter = self.counters[0]
        self.irq.set(counter.output() and counter.mode not in (2, 3))
        self._arm()

    def _arm(self) -> None:
        deadline = self.counters[0].next_rise()
        if deadline is None:
            self.timer.cancel()
        else:
            self.timer.mod(deadline)

    def _expired(self) -> None:
        self.interrupts += 1
        self.irq.set(False)
        self.irq.set(True)
        self._arm()


class NmiStatusControl:
    """NMI_SC, port 0x61: counter 2's gate (bit 0), speaker (1), refresh toggle (4), counter 2's OUT (5)."""

    WIRING = ("_pit",)
    STATISTICS = ()
    SAVED = ("control", "refresh")
    __slots__ = WIRING + SAVED

    def __init__(self, pit: Pit8254) -> None:
        self._pit = pit
        self.reset()

    def reset(self) -> None:
        self.control = 0
        self.refresh = False
        self._pit.counters[2].set_gate(False)

    def pio_read(self, offset: int, size: int) -> int:
        self.refresh = not self.refresh
        return self.control | self.refresh << 4 | self._pit.counters[2].output() << 5

    def pio_write(self, offset: int, size: int, value: int) -> None:
        self.control = value & 0x0F
        self._pit.counters[2].set_gate(bool(value & 1))


def _to_bcd(value: int) -> int:
    return int(str(value % 10_000), 16)


def _from_bcd(value: int) -> int:
    """The decimal value of four BCD digits; a digit above nine counts as its binary value, as the chip borrows."""
    return sum((value >> 4 * i & 0xF) * 10**i for i in range(4))
