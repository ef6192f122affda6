"""Virtual time, and the one queue of all deadlines of the machine.

Every device asks the one `Clock` what time it is and puts its deadlines into the one `TimerQueue`; no device owns a
thread. The main loop sleeps until the head of the queue and runs what has expired under the machine lock.

`TimerQueue` itself is thread-safe: `schedule`, `Timer.mod` and `Timer.cancel` may be called from any thread. Callbacks
run in the thread that calls `run_expired`, never under the queue's own lock.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from typing import Protocol

NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """The machine's time."""

    tsc_hz: int

    def now_ns(self) -> int:
        """Virtual time in nanoseconds since the machine started; stands still while paused; never runs backwards."""

    def tsc(self) -> int:
        """The guest's time-stamp counter, before any TSC_ADJUST of a vCPU."""


class HostClock:
    """Virtual time that follows CLOCK_MONOTONIC. The vCPU side may supply a counter read as the guest's rdtsc does."""

    __slots__ = ("_offset_ns", "_paused_at", "tsc_hz", "tsc_source")

    def __init__(self, tsc_hz: int = NS_PER_S, tsc_source: Callable[[], int] | None = None) -> None:
        self.tsc_hz = tsc_hz
        self.tsc_source = tsc_source
        self._offset_ns = time.monotonic_ns()
        self._paused_at: int | None = None

    def now_ns(self) -> int:
        if self._paused_at is not None:
            return self._paused_at
        return time.monotonic_ns() - self._offset_ns

    def tsc(self) -> int:
        if self.tsc_source is not None:
            return self.tsc_source()
        return self.now_ns() * self.tsc_hz // NS_PER_S

    def pause(self) -> None:
        """Virtual time stands still from now on."""
        if self._paused_at is None:
            self._paused_at = self.now_ns()

    def resume(self) -> int:
        """Virtual time goes on where it stood; how long it has stood still, in ns of the host's time."""
        if self._paused_at is None:
            return 0
        offset = time.monotonic_ns() - self._paused_at
        stood = offset - self._offset_ns
        self._offset_ns = offset
        self._paused_at = None
        return stood


class FakeClock:
    """Time that moves only when a test says so."""

    __slots__ = ("ns", "tsc_hz")

    def __init__(self, tsc_hz: int = NS_PER_S) -> None:
        self.ns = 0
        self.tsc_hz = tsc_hz

    def now_ns(self) -> int:
        return self.ns

    def tsc(self) -> int:
        return self.ns * self.tsc_hz // NS_PER_S

    def advance(self, ns: int, timers: TimerQueue | None = None) -> None:
        """Move on by `ns`, stopping at each deadline of `timers` to run what is due there."""
        end = self.ns + ns
        if timers is not None:
            while (deadline := timers.next_deadline_ns()) is not None and deadline <= end:
                self.ns = max(self.ns, deadline)
                timers.run_expired(self.ns)
        self.ns = end


class Timer:
    """A callback of the queue, armed or not. Create it with `TimerQueue.timer` or `TimerQueue.schedule`."""

    __slots__ = ("_queue", "callback", "deadline_ns", "sequence")

    def __init__(self, queue: TimerQueue, callback: Callable[[], None]) -> None:
        self._queue = queue
        self.callback = callback
        self.deadline_ns: int | None = None
        self.sequence = 0

    def mod(self, deadline_ns: int) -> None:
        """Arm, or move the deadline."""
        self._queue._arm(self, deadline_ns)

    def cancel(self) -> None:
        """Disarm. The callback may still be running in another thread when this returns, unless the lock is held."""
        self._queue._disarm(self)

    @property
    def armed(self) -> bool:
        return self.deadline_ns is not None

    def save(self) -> int | None:
        return self.deadline_ns

    def load(self, deadline_ns: int | None) -> None:
        if deadline_ns is None:
            self.cancel()
        else:
            self.mod(deadline_ns)


class TimerQueue:
    """A heap of deadlines. A moved or cancelled timer leaves its old entry behind; its sequence number tells."""

    __slots__ = ("_compact_at", "_heap", "_lock", "_sequence", "on_earlier")

    def __init__(self, on_earlier: Callable[[], None] | None = None) -> None:
        self.on_earlier = on_earlier
        self._heap: list[tuple[int, int, Timer]] = []
        self._lock = threading.Lock()
        self._sequence = 0
        self._compact_at = 64

    def timer(self, callback: Callable[[], None]) -> Timer:
        """A timer that is not armed yet."""
        return Timer(self, callback)

    def schedule(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """A timer armed for `deadline_ns` of the machine's clock."""
        timer = Timer(self, callback)
        self._arm(timer, deadline_ns)
        return timer

    def next_deadline_ns(self) -> int | None:
        """The earliest deadline, None when nothing is armed."""
        with self._lock:
            self._drop_stale_locked()
            return self._heap[0][0] if self._heap else None

    def run_expired(self, now_ns: int) -> None:
        """Run the callbacks of all deadlines at or before `now_ns`, earliest first, also those that they arm anew.

        The caller holds the machine lock.
        """
        while True:
            with self._lock:
                self._drop_stale_locked()
                if not self._heap or self._heap[0][0] > now_ns:
                    return
                timer = heapq.heappop(self._heap)[2]
                timer.deadline_ns = None
            timer.callback()

    def _arm(self, timer: Timer, deadline_ns: int) -> None:
        with self._lock:
            self._drop_stale_locked()
            earlier = not self._heap or deadline_ns < self._heap[0][0]
            self._sequence += 1
            timer.sequence = self._sequence
            timer.deadline_ns = deadline_ns
            heapq.heappush(self._heap, (deadline_ns, self._sequence, timer))
            if len(self._heap) > self._compact_at:
                self._compact_locked()
        if earlier and self.on_earlier is not None:
            self.on_earlier()

    def _disarm(self, timer: Timer) -> None:
        with self._lock:
            timer.deadline_ns = None
            timer.sequence = 0

    def _drop_stale_locked(self) -> None:
        """Remove dead entries from the head. Needs `_lock`."""
        heap = self._heap
        while heap and (heap[0][2].sequence != heap[0][1] or heap[0][2].deadline_ns is None):
            heapq.heappop(heap)

    def _compact_locked(self) -> None:
        """Remove every dead entry: a timer moved often must not fill the heap. Needs `_lock`."""
        self._heap = [entry for entry in self._heap if entry[2].sequence == entry[1] and entry[2].armed]
        heapq.heapify(self._heap)
        self._compact_at = max(64, 2 * len(self._heap))
