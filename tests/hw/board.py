"""A q35 board for tests: fake time, a vCPU that only remembers what it was told, a serial line that collects."""

from __future__ import annotations

from hw.core.chardev import NullChardev
from hw.core.clock import FakeClock
from hw.machines.q35 import Q35, Q35Config

US = 1_000
MS = 1_000_000
S = 1_000_000_000


class FakeCpu:
    """Records the requests of its local APIC."""

    def __init__(self) -> None:
        self.intr = False
        self.events: list[str] = []

    def raise_intr(self) -> None:
        self.intr = True

    def lower_intr(self) -> None:
        self.intr = False

    def raise_nmi(self) -> None:
        self.events.append("nmi")

    def raise_init(self) -> None:
        self.events.append("init")

    def raise_sipi(self, vector: int) -> None:
        self.events.append(f"sipi {vector:#x}")

    def raise_smi(self) -> None:
        self.events.append("smi")


class Capture(NullChardev):
    """Keeps what was written; `blocked` plays a host that takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.out = bytearray()
        self.blocked = False

    @property
    def congested(self) -> bool:
        return self.blocked

    def write(self, data: bytes) -> None:
        self.out += data


class Board(Q35):
    """The machine with short names for what tests do."""

    def __init__(self, *, ram: int = 16 << 20, cpus: int = 1, config: Q35Config | None = None) -> None:
        self.fake_clock = FakeClock(tsc_hz=2_000_000_000)
        self.fake_cpus = [FakeCpu() for _ in range(cpus)]
        self.line = Capture()
        self.shutdowns: list[tuple[str, int | None]] = []
        self.resets: list[str] = []
        super().__init__(
            config if config is not None else Q35Config(),
            clock=self.fake_clock,
            ram=memoryview(bytearray(ram)),
            cpus=self.fake_cpus,
            serial=[self.line],
        )
        self.on_shutdown = lambda cause, code: self.shutdowns.append((cause, code))
        self.on_reset = self.resets.append

    def inb(self, port: int) -> int:
        return self.ports.read(port, 1)

    def inw(self, port: int) -> int:
        return self.ports.read(port, 2)

    def inl(self, port: int) -> int:
        return self.ports.read(port, 4)

    def outb(self, port: int, value: int) -> None:
        self.ports.write(port, 1, value)

    def outw(self, port: int, value: int) -> None:
        self.ports.write(port, 2, value)

    def outl(self, port: int, value: int) -> None:
        self.ports.write(port, 4, value)

    def readl(self, gpa: int) -> int:
        return self.memory.mmio_read(gpa, 4)

    def writel(self, gpa: int, value: int) -> None:
        self.memory.mmio_write(gpa, 4, value)

    def config_read(self, device: int, function: int, offset: int, size: int = 4) -> int:
        self.outl(0xCF8, 0x8000_0000 | device << 11 | function << 8 | offset & 0xFC)
        return self.ports.read(0xCFC + (offset & 3), size)

    def config_write(self, device: int, function: int, offset: int, value: int, size: int = 4) -> None:
        self.outl(0xCF8, 0x8000_0000 | device << 11 | function << 8 | offset & 0xFC)
        self.ports.write(0xCFC + (offset & 3), size, value)

    def advance(self, ns: int) -> None:
        self.fake_clock.advance(ns, self.timers)
