"""What a guest did that no device answers: counted always, told only to those who listen.

A device or bus never raises for a guest's access. It calls `unimp` (the book has it, we do not) or `guest_error` (the
book forbids it) and answers with a value. `-d unimp,guest_errors` attaches a listener; the counters feed `--stats`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class GuestLog:
    """Counters and an optional listener for unimplemented features and guest errors. Called under the machine lock."""

    __slots__ = ("guest_errors", "listener", "unimplemented")

    def __init__(self, listener: Callable[[str, str], None] | None = None) -> None:
        self.unimplemented: Counter[str] = Counter()
        self.guest_errors: Counter[str] = Counter()
        self.listener = listener

    def unimp(self, where: str, what: str = "") -> None:
        """Count an access to something that real hardware has and we lack; `where` is the counter's key."""
        self.unimplemented[where] += 1
        if self.listener is not None:
            self.listener("unimp", f"{where}: {what}" if what else where)

    def guest_error(self, where: str, what: str = "") -> None:
        """Count an access that the data sheet forbids; `where` is the counter's key."""
        self.guest_errors[where] += 1
        if self.listener is not None:
            self.listener("guest_errors", f"{where}: {what}" if what else where)
