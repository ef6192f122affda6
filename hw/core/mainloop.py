"""The main loop: waits for descriptors, deadlines and wake-ups, and serves them under the machine lock.

One thread runs it. `wake` is the only method for other threads and signal handlers; `TimerQueue.on_earlier` is led to
it. Work queued with `post` runs under the lock at the next turn.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable

from hw.core.chardev import Chardev, Poller
from hw.core.clock import NS_PER_S, Clock, TimerQueue

IDLE_S = 3600.0


class MainLoop:
    """See the module. The loop owns its wake-up descriptor only; the character devices stay their owners'."""

    def __init__(self, lock: threading.RLock, timers: TimerQueue, clock: Clock) -> None:
        self._lock = lock
        self._timers = timers
        self._clock = clock
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._awake = False  # a wake-up is pending: further ones need no system call
        self._stop = False
        self._thread: int | None = None
        self._chardevs: list[Chardev] = []
        self._posted: deque[Callable[[], None]] = deque()
        timers.on_earlier = self.wake

    def add_chardev(self, chardev: Chardev) -> None:
        """Poll this device's descriptors."""
        self._chardevs.append(chardev)
        self.wake()

    def remove_chardev(self, chardev: Chardev) -> None:
        self._chardevs.remove(chardev)
        self.wake()

    def post(self, work: Callable[[], None]) -> None:
        """Run `work` on the loop's thread under the lock. From any thread, and from signal handlers."""
        self._posted.append(work)
        self.wake()

    def wake(self) -> None:
        """End the loop's present wait. From any thread, and from signal handlers."""
        # The loop itself looks at everything again before it waits.
        if self._awake or self._thread == threading.get_ident():
            return
        self._awake = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake_fd, 1)

    def stop(self) -> None:
        """Let `run_until_stopped` return. From any thread, and from signal handlers."""
        self._stop = True
        self._awake = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake_fd, 1)

    @property
    def stopped(self) -> bool:
        return self._stop

    def run_until_stopped(self) -> None:
        """Serve until `stop`. May be called again after it."""
        self._thread = threading.get_ident()
        try:
            while not self._stop:
                self.turn(IDLE_S)
        finally:
            self._stop = False
            self._thread = None

    def close(self) -> None:
        """Give the wake-up descriptor back."""
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1

    def turn(self, timeout_s: float) -> None:
        """One turn: run what is due, wait at most `timeout_s`, serve what is ready."""
        with self._lock:
            while self._posted:
                self._posted.popleft()()
            self._timers.run_expired(self._clock.now_ns())
            readers: dict[int, Poller] = {}
            writers: dict[int, Poller] = {}
            for chardev in self._chardevs:
                for poller in chardev.pollers:
                    fd = poller.fileno()
                    if fd < 0:
                        continue
                    if poller.wants_read():
                        readers[fd] = poller
                    if poller.wants_write():
                        writers[fd] = poller
        if self._stop:
            return
        readable, writable = self._wait(readers, writers, timeout_s)
        if not readable and not writable:
            return
        with self._lock:
            for fd in writable:
                if writers[fd].fileno() == fd:
                    writers[fd].on_writable()
            for fd in readable:
                if fd in readers and readers[fd].fileno() == fd:
                    readers[fd].on_readable()

    def _wait(
        self, readers: dict[int, Poller], writers: dict[int, Poller], timeout_s: float
    ) -> tuple[list[int], list[int]]:
        deadline = self._timers.next_deadline_ns()
        if deadline is not None:
            # select takes microseconds; poll would round a timer interrupt to milliseconds.
            timeout_s = min(timeout_s, max(0.0, (deadline - self._clock.now_ns()) / NS_PER_S))
        readable, writable, _ = select.select([self._wake_fd, *readers], list(writers), [], timeout_s)
        if self._wake_fd in readable:
            # Drain before clearing: a wake-up in between is not lost, as the next turn looks at everything first.
            with contextlib.suppress(OSError):
                os.eventfd_read(self._wake_fd)
            self._awake = False
        return readable, writable
