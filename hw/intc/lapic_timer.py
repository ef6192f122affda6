"""The local APIC's timer: one-shot, periodic, TSC-deadline (Intel SDM volume 3, 10.5.4).

It counts at 1 GHz before the divider, as QEMU's does. `expired` is called at each zero; masking is the LVT's business.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from hw.core.clock import NS_PER_S, Clock, TimerQueue


class TimerMode(IntEnum):
    """LVT timer bits 18:17."""

    ONE_SHOT = 0
    PERIODIC = 1
    TSC_DEADLINE = 2


class ApicTimer:
    """Initial count, divide configuration, current count and IA32_TSC_DEADLINE."""

    WIRING = ("_clock", "_expired")
    STATISTICS = ()
    SAVED = ("_start_ns", "_timer", "deadline_tsc", "divide", "initial", "mode")
    __slots__ = WIRING + SAVED

    def __init__(self, clock: Clock, timers: TimerQueue, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._expired = expired
        self._timer = timers.timer(self._due)
        self.reset()

    def reset(self) -> None:
        self._timer.cancel()
        self._start_ns = 0
        self.deadline_tsc = 0
        self.divide = 0
        self.initial = 0
        self.mode = int(TimerMode.ONE_SHOT)

    def set_mode(self, mode: int) -> None:
        """LVT timer bits 18:17. Changing to or from TSC-deadline mode disarms (10.5.4.1)."""
        if mode != self.mode and TimerMode.TSC_DEADLINE in (mode, self.mode):
            self._timer.cancel()
            self.deadline_tsc = 0
            self.initial = 0
        self.mode = mode

    def set_initial(self, value: int) -> None:
        """A write of the initial count starts or, with 0, stops the timer; ignored in TSC-deadline mode."""
        if self.mode != TimerMode.TSC_DEADLINE:
            self.initial = value
            self._start()

    def set_divide(self, value: int) -> None:
        """A write of the divide configuration; a running count starts anew."""
        self.divide = value
        if self._timer.armed and self.mode != TimerMode.TSC_DEADLINE:
            self._start()

    def current(self) -> int:
        """The current count register."""
        if self.initial == 0 or self.mode == TimerMode.TSC_DEADLINE:
            return 0
        elapsed = (self._clock.now_ns() - self._start_ns) // self._tick_ns()
        if self.mode == TimerMode.PERIODIC:
            return self.initial - elapsed % self.initial
        return max(0, self.initial - elapsed)

    def set_deadline(self, tsc: int) -> None:
        """WRMSR to IA32_TSC_DEADLINE: ignored outside its mode; 0 disarms; the past fires at once."""
        if self.mode != TimerMode.TSC_DEADLINE:
            return
        self.deadline_tsc = tsc
        if tsc == 0:
            self._timer.cancel()
        elif tsc <= self._clock.tsc():
            self._timer.cancel()
            self._due()
        else:
            self._timer.mod(self._deadline_ns())

    def _tick_ns(self) -> int:
        """Nanoseconds a count: bits 3, 1, 0 of the divide configuration name 2, 4, ... 128, 1."""
        return 1 << (((self.divide & 3) | (self.divide >> 1 & 4)) + 1 & 7)

    def _start(self) -> None:
        if self.initial == 0:
            self._timer.cancel()
        else:
            self._start_ns = self._clock.now_ns()
            self._timer.mod(self._start_ns + self.initial * self._tick_ns())

    def _deadline_ns(self) -> int:
        left = max(0, self.deadline_tsc - self._clock.tsc())
        return self._clock.now_ns() + (left * NS_PER_S + self._clock.tsc_hz - 1) // self._clock.tsc_hz

    def _due(self) -> None:
        if self.mode == TimerMode.TSC_DEADLINE:
            if not self.deadline_tsc:
                return
            if self._clock.tsc() < self.deadline_tsc:  # the two clocks drifted: wait for the rest
                self._timer.mod(self._deadline_ns())
                return
            self.deadline_tsc = 0
        elif self.mode == TimerMode.PERIODIC and self.initial:
            period = self.initial * self._tick_ns()
            # Ticks that the host slept through are coalesced: the next deadline lies in the future.
            self._start_ns += max(1, (self._clock.now_ns() - self._start_ns) // period) * period
            self._timer.mod(self._start_ns + period)
        self._expired()
