"""MC146818-compatible real-time clock with 128 bytes of CMOS RAM (MC146818A data sheet; ICH9 data sheet 13.6).

The time is computed from the chosen clock when it is read; an offset remembers what the guest set. Only interrupts
that are enabled have deadlines. While SET (register B) is one, or the divider is held in reset, time stands still.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from hw.core.clock import NS_PER_S, Clock, TimerQueue
from hw.core.irq import IrqLine

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
DAY_OF_WEEK, DAY, MONTH, YEAR, REG_A, REG_B, REG_C, REG_D = range(6, 14)
CENTURY = 0x32
CENTURY_PS2 = 0x37

TIME_BYTES = frozenset((SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DAY, MONTH, YEAR, CENTURY))

A_UIP = 0x80
B_SET, B_PIE, B_AIE, B_UIE, B_SQWE, B_DM, B_24H, B_DSE = 0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01
C_IRQF, C_PF, C_AF, C_UF = 0x80, 0x40, 0x20, 0x10
D_VRT = 0x80

UPDATE_NS = 244_000  # UIP is set this long before an update (data sheet, table 6: 244 us)
PERIODIC_HZ = 32768
SIZE = 128


class RtcClock(Enum):
    """`-rtc clock=`: what drives the time of day."""

    HOST = "host"  # the host's time of day: jumps with it
    VM = "vm"  # virtual time: stands still with the machine
    RT = "rt"  # the host's monotonic time


@dataclass(frozen=True, slots=True)
class RtcConfig:
    """`-rtc base=,clock=`: `base` is "utc", "localtime" or a date as seconds since the epoch."""

    base: str | int = "utc"
    clock: RtcClock = RtcClock.HOST


class Mc146818:
    """Ports 0x70 (index; bit 7 masks NMI) and 0x71 (data)."""

    WIRING = ("_clock", "_source", "_start_offset_ns", "irq")
    STATISTICS = ("interrupts",)
    SAVED = (
        "cmos",
        "index",
        "offset_ns",
        "periodic_start",
        "periodic_timer",
        "seen_second",
        "stopped_ns",
        "update_timer",
    )
    __slots__ = WIRING + STATISTICS + SAVED

    def __init__(self, clock: Clock, timers: TimerQueue, config: RtcConfig) -> None:
        self._clock = clock
        self.irq = IrqLine()
        self.interrupts = 0
        self._source: Callable[[], int] = {
            RtcClock.HOST: time.time_ns,
            RtcClock.VM: clock.now_ns,
            RtcClock.RT: time.monotonic_ns,
        }[config.clock]
        self._start_offset_ns = _start_seconds(config.base) * NS_PER_S - self._source()
        if config.base == "utc" and config.clock is RtcClock.HOST:
            self._start_offset_ns = 0
        self.offset_ns = self._start_offset_ns
        self.stopped_ns: int | None = None
        self.periodic_timer = timers.timer(self._periodic)
        self.update_timer = timers.timer(self._update_due)
        self.cmos = bytearray(SIZE)
        self.cmos[REG_A] = 0x26
        self.cmos[REG_B] = B_24H
        self.cmos[REG_D] = D_VRT
        self.periodic_start = 0
        self.index = 0
        self.seen_second = self.now_ns() // NS_PER_S
        self._store_time()

    def reset(self) -> None:
        """RESET# (data sheet, table 5): the enables and flags are cleared, time and RAM stay."""
        self.cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE)
        self.cmos[REG_C] = 0
        self.index = 0
        self.irq.set(False)
        self._arm_periodic()
        self._arm_update()

    # -- time

    def now_ns(self) -> int:
        """Guest's time of day, in nanoseconds since 1970."""
        if self.stopped_ns is not None:
            return self.stopped_ns
        return self._source() + self.offset_ns

    def _halted(self) -> bool:
        return bool(self.cmos[REG_B] & B_SET) or self.cmos[REG_A] & 0x60 == 0x60

    def _encode(self, value: int) -> int:
        return value if self.cmos[REG_B] & B_DM else value // 10 << 4 | value % 10

    def _decode(self, value: int) -> int:
        return value if self.cmos[REG_B] & B_DM else (value >> 4) * 10 + (value & 0xF)

    def _encode_hour(self, hour: int) -> int:
        if self.cmos[REG_B] & B_24H:
            return self._encode(hour)
        return self._encode(hour % 12 or 12) | (0x80 if hour >= 12 else 0)

    def _decode_hour(self, value: int) -> int:
        if self.cmos[REG_B] & B_24H:
            return self._decode(value)
        return self._decode(value & 0x7F) % 12 + (12 if value & 0x80 else 0)

    def _store_time(self) -> None:
        """Put the current time into the ten time bytes."""
        t = time.gmtime(min(max(self.now_ns() // NS_PER_S, -62_135_596_800), 253_402_300_799))
        self.cmos[SECONDS] = self._encode(t.tm_sec)
        self.cmos[MINUTES] = self._encode(t.tm_min)
        self.cmos[HOURS] = self._encode_hour(t.tm_hour)
        self.cmos[DAY_OF_WEEK] = self._encode((t.tm_wday + 1) % 7 + 1)
        self.cmos[DAY] = self._encode(t.tm_mday)
        self.cmos[MONTH] = self._encode(t.tm_mon)
        self.cmos[YEAR] = self._encode(t.tm_year % 100)
        self.cmos[CENTURY] = self._encode(t.tm_year // 100)

    def _set_time(self) -> None:
        """Take the time from the time bytes; a date that does not exist counts on as the calendar does."""
        year = self._decode(self.cmos[CENTURY]) * 100 + self._decode(self.cmos[YEAR])
        month = self._decode(self.cmos[MONTH])
        days = _days(min(max(year, 1), 9998), min(max(month, 1), 12)) + self._decode(self.cmos[DAY]) - 1
        minutes = (days * 24 + self._decode_hour(self.cmos[HOURS])) * 60 + self._decode(self.cmos[MINUTES])
        seconds = minutes * 60 + self._decode(self.cmos[SECONDS])
        old = self.now_ns()
        now = seconds * NS_PER_S + old % NS_PER_S
        if self.stopped_ns is not None:
            self.stopped_ns = now
        else:
            self.offset_ns += now - old
        self.seen_second = now // NS_PER_S

    def _catch_up(self) -> None:
        """Set UF and AF for the updates that happened since somebody last looked."""
        second = self.now_ns() // NS_PER_S
        if second == self.seen_second or self.stopped_ns is not None:
            return
        if second > self.seen_second:
            self.cmos[REG_C] |= C_UF
            alarm = self._next_alarm(self.seen_second)
            if alarm is not None and alarm <= second:
                self.cmos[REG_C] |= C_AF
        self.seen_second = second

    def _next_alarm(self, after: int) -> int | None:
        """The first second after `after` at which the alarm bytes match; bytes of 0xC0 and above match anything."""
        bytes_ = self.cmos[SECONDS_ALARM], self.cmos[MINUTES_ALARM], self.cmos[HOURS_ALARM]
        second = None if bytes_[0] >= 0xC0 else self._decode(bytes_[0])
        minute = None if bytes_[1] >= 0xC0 else self._decode(bytes_[1])
        hour = None if bytes_[2] >= 0xC0 else self._decode_hour(bytes_[2])
        if (second or 0) > 59 or (minute or 0) > 59 or (hour or 0) > 23:
            return None
        day = after - after % 86_400
        for h in range(after % 86_400 // 3600, 48):
            if hour is not None and h % 24 != hour:
                continue
            for m in range(60):
                if minute is not None and m != minute:
                    continue
                base = day + h * 3600 + m * 60
                first = max(after + 1, base)
                candidate = first if second is None else base + second
                if after < candidate < base + 60:
                    return candidate
        return None

    # -- interrupts

    def _raise_if_enabled(self) -> None:
        """IRQF is the OR of the enabled flags."""
        if self.cmos[REG_B] & self.cmos[REG_C] & (C_PF | C_AF | C_UF):
            if not self.cmos[REG_C] & C_IRQF:
                self.interrupts += 1
            self.cmos[REG_C] |= C_IRQF
            self.irq.set(True)
        else:
            self.cmos[REG_C] &= ~C_IRQF & 0xFF
            self.irq.set(False)

    def _period_ns(self) -> int:
        """The periodic rate's period, 0 when it is off (data sheet, table 3, 32.768 kHz base)."""
        rate = self.cmos[REG_A] & 0xF
        if not rate or self.cmos[REG_A] & 0x60 == 0x60:
            return 0
        if rate <= 2:
            rate += 7
        return NS_PER_S << (rate - 1) >> 15

    def _arm_periodic(self) -> None:
        period = self._period_ns()
        if period and self.cmos[REG_B] & B_PIE:
            self.periodic_start = self._clock.now_ns()
            self.periodic_timer.mod(self.periodic_start + period)
        else:
            self.periodic_timer.cancel()

    def _periodic(self) -> None:
        period = self._period_ns()
        if not period:
            return
        now = self._clock.now_ns()
        self.periodic_start += max(1, (now - self.periodic_start) // period) * period
        self.periodic_timer.mod(self.periodic_start + period)
        self.cmos[REG_C] |= C_PF
        self._raise_if_enabled()

    def _arm_update(self) -> None:
        if self.stopped_ns is not None or not self.cmos[REG_B] & (B_UIE | B_AIE):
            self.update_timer.cancel()
            return
        now = self.now_ns()
        second = now // NS_PER_S
        due: int | None = second + 1
        if not self.cmos[REG_B] & B_UIE:
            due = self._next_alarm(second)
        if due is None:
            self.update_timer.cancel()
        else:
            self.update_timer.mod(self._clock.now_ns() + due * NS_PER_S - now)

    def _update_due(self) -> None:
        self._catch_up()
        self._raise_if_enabled()
        self._arm_update()

    # -- registers

    def pio_read(self, offset: int, size: int) -> int:
        if offset == 0:
            return 0xFF  # the index is write-only
        index = self.index
        if index in TIME_BYTES:
            if not self._halted():
                self._store_time()
            return self.cmos[index]
        if index == REG_A:
            value = self.cmos[REG_A] & ~A_UIP
            if not self._halted() and self.now_ns() % NS_PER_S >= NS_PER_S - UPDATE_NS:
                value |= A_UIP
            return value
        if index == REG_C:
            self._catch_up()
            self._raise_if_enabled()
            value = self.cmos[REG_C]
            self.cmos[REG_C] = 0
            self.irq.set(False)
            self._arm_update()
            return value
        return self.cmos[index]

    def pio_write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self.index = value & 0x7F
            if self.index == CENTURY_PS2:  # the PS/2's place for it: the same byte
                self.index = CENTURY
            return
        index = self.index
        if index in (REG_C, REG_D):
            return
        self._catch_up()
        if index in (REG_A, REG_B):
            self._write_control(index, value)
            return
        halted = self._halted()
        if not halted and index in TIME_BYTES:
            self._store_time()
        self.cmos[index] = value
        if index in (SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM):
            self._arm_update()
        elif index in TIME_BYTES and not halted:
            self._set_time()
            self._arm_update()

    def _write_control(self, index: int, value: int) -> None:
        halted = self._halted()
        if not halted:
            self._store_time()
        old = self.cmos[index]
        if index == REG_A:
            self.cmos[REG_A] = value & 0x7F
        else:
            if value & B_SET:
                value &= ~B_UIE  # data sheet: SET going high clears UIE
            self.cmos[REG_B] = value
            if (old ^ value) & (B_DM | B_24H) and not halted:
                self._store_time()
        if self._halted() and not halted:
            self.stopped_ns = self.now_ns()
        elif halted and not self._halted():
            self._set_time()
            stopped = self.stopped_ns if self.stopped_ns is not None else self.now_ns()
            self.stopped_ns = None
            # After a divider reset the next update comes 500 ms later (data sheet, "Divider control").
            fraction = NS_PER_S // 2 if index == REG_A else stopped % NS_PER_S
            self.offset_ns = stopped - stopped % NS_PER_S + fraction - self._source()
            self.seen_second = self.now_ns() // NS_PER_S
        self._raise_if_enabled()
        if index == REG_A or (old ^ value) & B_PIE:
            self._arm_periodic()
        self._arm_update()


def _start_seconds(base: str | int) -> int:
    if isinstance(base, int):
        return base
    now = int(time.time())
    return now + time.localtime(now).tm_gmtoff if base == "localtime" else now


def _days(year: int, month: int) -> int:
    """Days from 1970-01-01 to the first of a month of the Gregorian calendar."""
    # Years from March on: a leap day is the last day of its year. (`calendar` would import datetime and locale.)
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 - 719_468
