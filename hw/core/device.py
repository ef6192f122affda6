"""The capabilities that a device may declare. A device implements the Protocols it needs; nothing derives from a base.

Contracts shared by all of them:

* Every method runs under the machine lock, on whichever thread.
* No access raises, whatever its offset, size or value. A read returns `0 <= value < 1 << 8*size`.
* Offsets count from the start of the window that the bus mapped; the bus splits accesses wider than the window allows.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class MmioDevice(Protocol):
    """Answers memory-mapped accesses."""

    def mmio_read(self, offset: int, size: int) -> int: ...

    def mmio_write(self, offset: int, size: int, value: int) -> None: ...


@runtime_checkable
class PioDevice(Protocol):
    """Answers accesses to I/O ports."""

    def pio_read(self, offset: int, size: int) -> int: ...

    def pio_write(self, offset: int, size: int, value: int) -> None: ...


@runtime_checkable
class Resettable(Protocol):
    """Returns to the state after the platform reset (PLTRST#)."""

    def reset(self) -> None: ...


@runtime_checkable
class Savable(Protocol):
    """Declares every instance attribute in exactly one of three groups (`state.py` derives the rest).

    WIRING: what the board connected (lines, clocks, callbacks); never saved. STATISTICS: counters, no guest can see
    them. SAVED: what a guest can observe; saved, restored, compared after reset.
    """

    @property
    def WIRING(self) -> tuple[str, ...]: ...

    @property
    def STATISTICS(self) -> tuple[str, ...]: ...

    @property
    def SAVED(self) -> tuple[str, ...]: ...


Saved = dict[str, Any]
