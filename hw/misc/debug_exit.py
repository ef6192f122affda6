"""isa-debug-exit: a write ends the machine with a status that a test can read (QEMU's device of that name).

Exit status `(value << 1) | 1`, so that a guest's zero differs from a normal end.
"""

from __future__ import annotations

from collections.abc import Callable

DEFAULT_IOBASE = 0x501
DEFAULT_IOSIZE = 2


class DebugExit:
    """`exit_machine(status)` is called under the machine lock; reads are zero."""

    WIRING = ("exit_machine",)
    STATISTICS = ()
    SAVED = ()
    __slots__ = WIRING

    def __init__(self, exit_machine: Callable[[int], None]) -> None:
        self.exit_machine = exit_machine

    def pio_read(self, offset: int, size: int) -> int:
        return 0

    def pio_write(self, offset: int, size: int, value: int) -> None:
        self.exit_machine((value << 1 | 1) & 0xFF)
