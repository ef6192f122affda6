"""What the interrupt system asks of a vCPU."""

from __future__ import annotations

from typing import Protocol


class CpuPort(Protocol):
    """One vCPU's interrupt side. Called under the machine lock, from any thread; must not block."""

    def raise_intr(self) -> None:
        """An unmasked interrupt above the task priority is pending: call `LocalApic.ack` when IF allows."""

    def lower_intr(self) -> None:
        """None is pending any more."""

    def raise_nmi(self) -> None: ...

    def raise_init(self) -> None: ...

    def raise_sipi(self, vector: int) -> None: ...

    def raise_smi(self) -> None: ...
