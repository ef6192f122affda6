"""Interrupt lines: a driver sets a level, one receiver hears of each change.

A receiver is a plain callable taking the level, so that the hot path is one Python call. Machine lock held throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Receiver = Callable[[bool], None]


def unconnected(level: bool) -> None:
    """The receiver of a line that leads nowhere."""


class IrqLine:
    """One wire. `set` tells the receiver of changes only; `pulse` is a rising and a falling edge."""

    __slots__ = ("level", "receiver")

    def __init__(self, receiver: Receiver = unconnected) -> None:
        self.receiver = receiver
        self.level = False

    def set(self, level: bool) -> None:
        if level != self.level:
            self.level = level
            self.receiver(level)

    def pulse(self) -> None:
        self.set(True)
        self.set(False)


def fan_out(receivers: Sequence[Receiver]) -> Receiver:
    """A receiver that passes the level to all of `receivers`, in order."""

    def receive(level: bool) -> None:
        for receiver in receivers:
            receiver(level)

    return receive


class SharedLine:
    """A wired-OR of several inputs onto one receiver, as level-triggered interrupts share a pin."""

    __slots__ = ("_asserted", "_inputs", "line")

    def __init__(self, receiver: Receiver) -> None:
        self.line = IrqLine(receiver)
        self._asserted = 0
        self._inputs = 0

    def input(self) -> IrqLine:
        """A new input of this line."""
        bit = 1 << self._inputs
        self._inputs += 1

        def receive(level: bool) -> None:
            self._asserted = self._asserted | bit if level else self._asserted & ~bit
            self.line.set(self._asserted != 0)

        return IrqLine(receive)
