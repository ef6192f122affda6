"""Character devices: the host's end of a serial line.

A `Chardev` belongs to one frontend (a UART, a monitor). Output: the frontend calls `write`, which never blocks; what
the host does not take stays buffered, and `congested` asks the frontend to hold back until `on_drained`. Input: the
main loop polls `fileno()` only while the frontend's `can_accept()` has room, and passes bytes to `on_input`.

`hw/core/chardev_open.py` makes them from `-serial` specifications. All methods run under the machine lock, except
`close`, which the board's owner may also call at exit without it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Protocol

HIGH_WATER = 1 << 16
READ_SIZE = 4096


class Chardev(Protocol):
    """What a frontend and the main loop see."""

    on_input: Callable[[bytes], None]
    can_accept: Callable[[], int]
    on_drained: Callable[[], None]
    on_break: Callable[[], None]

    @property
    def congested(self) -> bool:
        """The host takes no more for now."""

    @property
    def pollers(self) -> tuple[Poller, ...]:
        """The descriptors that the main loop watches for this device."""

    def write(self, data: bytes) -> None: ...

    def input_changed(self) -> None:
        """The frontend can accept input again."""

    def close(self) -> None:
        """Write out what the host takes at once, restore and close. May be called twice."""


class Poller(Protocol):
    """A descriptor of the main loop."""

    def fileno(self) -> int:
        """The descriptor, -1 when there is none at the moment."""

    def wants_read(self) -> bool: ...

    def wants_write(self) -> bool: ...

    def on_readable(self) -> None: ...

    def on_writable(self) -> None: ...


def _discard(data: bytes) -> None:
    """Data that nobody wants."""


def _nothing() -> None:
    """An event that no frontend wants."""


class NullChardev:
    """`null`: swallows output, never has input. Also the base of those that have a frontend's callbacks."""

    def __init__(self) -> None:
        self.on_input: Callable[[bytes], None] = _discard
        self.can_accept: Callable[[], int] = lambda: READ_SIZE
        self.on_drained: Callable[[], None] = _nothing
        self.on_break: Callable[[], None] = _nothing

    @property
    def congested(self) -> bool:
        return False

    @property
    def pollers(self) -> tuple[Poller, ...]:
        return ()

    def write(self, data: bytes) -> None:
        pass

    def input_changed(self) -> None:
        pass

    def close(self) -> None:
        pass


class FdChardev(NullChardev):
    """Output and input through file descriptors; either may be -1. The write side need not be non-blocking if it is a
    regular file."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        super().__init__()
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.before_output: Callable[[bytes], None] = _discard
        self._out = bytearray()
        self._writer = _Writer(self)
        self._reader = _Reader(self)

    @property
    def congested(self) -> bool:
        return len(self._out) >= HIGH_WATER

    @property
    def pollers(self) -> tuple[Poller, ...]:
        return (self._reader, self._writer)

    def write(self, data: bytes) -> None:
        if self.write_fd < 0:
            return
        self.before_output(data)
        self._out += data
        self.push()

    def push(self) -> None:
        """Give the host what it takes without blocking."""
        while self._out and self.write_fd >= 0:
            try:
                count = os.write(self.write_fd, self._out)
            except BlockingIOError:
                return
            except InterruptedError:
                continue
            except OSError as error:
                self.write_failed(error)
                return
            del self._out[:count]

    def write_failed(self, error: OSError) -> None:
        """The host's end is gone or full: the guest goes on without it."""
        self._out.clear()
        if error.errno != errno.ENOSPC:
            self.write_fd = -1

    def writable(self) -> None:
        was_congested = self.congested
        self.push()
        if was_congested and not self.congested:
            self.on_drained()

    def readable(self) -> None:
        room = min(self.can_accept(), READ_SIZE)
        if room <= 0:
            return
        try:
            data = os.read(self.read_fd, room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self.received(data)
        else:
            self.end_of_input()

    def received(self, data: bytes) -> None:
        self.on_input(data)

    def end_of_input(self) -> None:
        """The host's end closed: no more input."""
        self.read_fd = -1

    def close(self) -> None:
        if self.write_fd >= 0:
            self.push()
        for fd in {self.read_fd, self.write_fd}:
            if fd > 2:
                os.close(fd)
        self.read_fd = self.write_fd = -1


class _Reader:
    def __init__(self, owner: FdChardev) -> None:
        self._owner = owner

    def fileno(self) -> int:
        return self._owner.read_fd

    def wants_read(self) -> bool:
        return self._owner.can_accept() > 0

    def wants_write(self) -> bool:
        return False

    def on_readable(self) -> None:
        self._owner.readable()

    def on_writable(self) -> None:
        pass


class _Writer:
    def __init__(self, owner: FdChardev) -> None:
        self._owner = owner

    def fileno(self) -> int:
        return self._owner.write_fd

    def wants_read(self) -> bool:
        return False

    def wants_write(self) -> bool:
        return bool(self._owner._out)

    def on_readable(self) -> None:
        pass

    def on_writable(self) -> None:
        self._owner.writable()
