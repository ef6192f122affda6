"""The line on standard error that says what a first boot is busy with.

On a terminal it is one line, drawn over itself and erased when the guest prints or the run ends; it appears only while
the guest's own output stands at the beginning of a line, so that it never garbles it. Elsewhere there is none, unless
TESSERA_PROGRESS is set: then a line a second. TESSERA_PROGRESS=0 turns it off everywhere.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

ERASE = "\r\x1b[K"
_REDRAW_S, _REPEAT_S = 0.1, 1.0


class Progress:
    """May be used from any thread. `clock`: seconds, for how often it is drawn."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._lock = threading.RLock()
        self._terminal = self._stream.isatty()
        wanted = os.environ.get("TESSERA_PROGRESS", "")
        self.enabled = wanted != "0" and (self._terminal or bool(wanted))
        self._shown = False
        self._at_line_start = True
        self._next = 0.0

    def show(self, text: str) -> None:
        """Say what is going on; dropped when it comes too soon after the last one, or when the guest is in mid-line."""
        if not self.enabled:
            return
        with self._lock:
            now = self._clock()
            if now < self._next or not self._at_line_start:
                return
            self._next = now + (_REDRAW_S if self._terminal else _REPEAT_S)
            if self._terminal:
                text = f"tessera: {text}"[: self._columns() - 1]
                self._write(ERASE + text)
                self._shown = True
            else:
                self._write(f"tessera: {text}\n")

    def erase(self) -> None:
        """Take the line away; the next `show` is not held back."""
        with self._lock:
            self._next = 0.0
            self._erase()

    @property
    def eraser(self) -> str:
        """What a message from a signal handler begins with."""
        return ERASE if self._shown else ""

    def guest_output(self, data: bytes) -> None:
        """The guest is about to print on the same terminal."""
        if not data:
            return
        with self._lock:
            self._erase()
            self._at_line_start = data.endswith((b"\n", b"\r"))

    def _erase(self) -> None:
        if self._shown:
            self._shown = False
            self._write(ERASE)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self.enabled = False

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def shares_terminal_with(self, fd: int) -> bool:
        """Whether `fd` is the terminal that the line is drawn on."""
        try:
            mine, other = os.fstat(self._stream.fileno()), os.fstat(fd)
        except (OSError, ValueError):
            return False
        return self._terminal and os.isatty(fd) and mine.st_rdev == other.st_rdev
