"""ICH9 LPC bridge, 00:1f.0: PMBASE, ACPI control, PIRQ routing, root complex block (ICH9 data sheet 13.1, 10.1)."""

from __future__ import annotations

from functools import partial

from hw.core.bus import AddressSpace, PortSpace, PortWindow
from hw.core.flatview import Region
from hw.core.irq import IrqLine
from hw.core.log import GuestLog
from hw.core.regs import RO, Field, Reg, RegFile, RegMap, reserved
from hw.pci.config import CONFIG_SIZE, type0_header
from hw.q35.gsi import GsiRouter
from hw.q35.pm import SIZE as PM_SIZE
from hw.q35.pm import PowerManagement
from hw.q35.tco import SIZE as TCO_SIZE
from hw.q35.tco import Tco

ACPI_EN = 1 << 7
SCI_ROUTES = (9, 10, 11, 9, 20, 21, 22, 23)  # SCI_IRQ_SEL; 3 is reserved
RCBA_SIZE = 0x4000
TCO_OFFSET = 0x60
GCS_NO_REBOOT = 1 << 5


def _pirq(offset: int, name: str) -> Reg:
    return Reg(offset, name, 1, (Field("ROUTE", 4), reserved(3), Field("IRQEN", 1, reset=1)))


MAP = RegMap(
    CONFIG_SIZE,
    (
        *type0_header(0x8086, 0x2918, revision=0x02, class_code=0x06_01_00, header_type=0x80),
        Reg(0x40, "PMBASE", 4, (Field("RTE", 1, RO, 1), reserved(6), Field("BASE", 9), reserved(16))),
        Reg(0x44, "ACPI_CNTL", 1, (Field("SCI_IRQ_SEL", 3), reserved(4), Field("ACPI_EN", 1))),
        *(_pirq(0x60 + i, f"PIRQ{name}_ROUT") for i, name in enumerate("ABCD")),
        Reg(0x64, "SIRQ_CNTL", 1),
        *(_pirq(0x68 + i, f"PIRQ{name}_ROUT") for i, name in enumerate("EFGH")),
        Reg(0x80, "LPC_IO_DEC", 2),
        Reg(0x82, "LPC_EN", 2),
        Reg(0xA0, "GEN_PMCON_1", 2),
        Reg(0xA2, "GEN_PMCON_2", 2),
        Reg(0xA4, "GEN_PMCON_3", 2),
        Reg(0xDC, "BIOS_CNTL", 1),
        Reg(0xF0, "RCBA", 4, (Field("EN", 1), reserved(13), Field("BASE", 18))),
    ),
)


def _interrupt_route(offset: int, name: str) -> Reg:
    fields = tuple(Field(f"I{pin}R", 4, reset=i) for i, pin in enumerate("ABCD"))
    return Reg(offset, name, 2, fields)


# The interrupt route registers of devices 31 to 25: which PIRQ each INTx pin drives (10.1.45 and following).
ROUTE_OFFSETS = {31: 0x3140, 29: 0x3144, 28: 0x3146, 27: 0x3148, 26: 0x314C, 25: 0x3150}
ROOT_COMPLEX_MAP = RegMap(
    RCBA_SIZE,
    (
        Reg(0x3100, "D31IP", 4),
        Reg(0x3104, "D30IP", 4),
        *(_interrupt_route(offset, f"D{device}IR") for device, offset in ROUTE_OFFSETS.items()),
        Reg(0x31FF, "OIC", 1),
        Reg(0x3410, "GCS", 4, (reserved(5), Field("NR", 1, reset=1), reserved(26))),
    ),
)


class RootComplexBlock:
    """The memory-mapped registers behind RCBA: the interrupt routes of the chipset's own devices."""

    WIRING = ()
    STATISTICS = ()
    SAVED = ("regs",)
    __slots__ = SAVED

    def __init__(self) -> None:
        self.regs = RegFile(ROOT_COMPLEX_MAP)

    def reset(self) -> None:
        self.regs.reset()

    def mmio_read(self, offset: int, size: int) -> int:
        return self.regs.read(offset, size)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        self.regs.write(offset, size, value)

    @property
    def no_reboot(self) -> bool:
        """GCS.NR: the TCO watchdog must not reset the machine."""
        return bool(self.regs.get("GCS") & GCS_NO_REBOOT)

    def pirq(self, device: int, pin: int) -> int:
        """The PIRQ (0 is A) that INTx `pin` (0 is A) of a device drives: fixed for slots, programmed on the chip."""
        if device in ROUTE_OFFSETS:
            return self.regs.get(f"D{device}IR") >> 4 * pin & 7
        return (device + pin) % 4 + 4


class Lpc:
    """The function, and what its registers put where."""

    WIRING = (
        "_gsi",
        "_log",
        "_memory",
        "_pm",
        "_pm_window",
        "_ports",
        "_rcba_region",
        "_sci",
        "_tco",
        "_tco_window",
        "root_complex",
    )
    STATISTICS = ()
    SAVED = ("regs",)
    __slots__ = WIRING + STATISTICS + SAVED

    config_size = CONFIG_SIZE

    def __init__(
        self,
        ports: PortSpace,
        memory: AddressSpace,
        pm: PowerManagement,
        tco: Tco,
        gsi: GsiRouter,
        root_complex: RootComplexBlock,
        log: GuestLog,
    ) -> None:
        self._ports = ports
        self._memory = memory
        self._pm = pm
        self._tco = tco
        self._gsi = gsi
        self._log = log
        self.root_complex = root_complex
        self._pm_window: PortWindow | None = None
        self._tco_window: PortWindow | None = None
        self._rcba_region: Region | None = None
        self._sci: dict[int, IrqLine] = {}
        self.regs = RegFile(MAP)
        for name in ("PMBASE", "ACPI_CNTL"):
            self.regs.on_write[name] = lambda old, written: self._map_pm()
        self.regs.on_write["RCBA"] = lambda old, written: self._map_root_complex()
        for pirq, letter in enumerate("ABCDEFGH"):
            self.regs.on_write[f"PIRQ{letter}_ROUT"] = partial(self._route_written, pirq)
        pm.sci.receiver = self._drive_sci

    def reset(self) -> None:
        self.regs.reset()
        self.apply()

    def apply(self) -> None:
        """Bring windows and routes to what the registers say (after reset or a restored state)."""
        self._map_pm()
        self._map_root_complex()
        for pirq in range(8):
            self._route_written(pirq, 0, 0)

    def config_read(self, offset: int, size: int) -> int:
        return self.regs.read(offset, size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        self.regs.write(offset, size, value)

    def _map_pm(self) -> None:
        base = self.regs.get("PMBASE") & 0xFF80
        wanted = base if self.regs.get("ACPI_CNTL") & ACPI_EN else None
        window = self._pm_window
        if (window.base if window is not None else None) != wanted:
            for old in (window, self._tco_window):
                if old is not None:
                    self._ports.unmap(old)
            self._pm_window = self._tco_window = None
            if wanted is not None:
                self._pm_window = self._ports.map(wanted, PM_SIZE, self._pm, "ich9-pm", max_size=4, priority=-2)
                self._tco_window = self._ports.map(
                    wanted + TCO_OFFSET, TCO_SIZE, self._tco, "sm-tco", max_size=4, priority=-1
                )
        self._drive_sci(self._pm.sci.level)

    def _map_root_complex(self) -> None:
        value = self.regs.get("RCBA")
        base = value & ~(RCBA_SIZE - 1)
        wanted = base if value & 1 else None
        region = self._rcba_region
        if (region.base if region is not None else None) == wanted:
            return
        with self._memory.transaction():
            if region is not None:
                self._memory.unmap(region)
            self._rcba_region = None
            if wanted is not None:
                self._rcba_region = self._memory.map_mmio(wanted, RCBA_SIZE, self.root_complex, "lpc-rcrb", priority=-1)

    def _route_written(self, pirq: int, old: int, written: int) -> None:
        self._gsi.route_pirq(pirq, self.regs.get(f"PIRQ{'ABCDEFGH'[pirq]}_ROUT"))

    def _drive_sci(self, level: bool) -> None:
        """The SCI goes to the GSI that SCI_IRQ_SEL names; the other ones fall."""
        selected = SCI_ROUTES[self.regs.get("ACPI_CNTL") & 7]
        if selected not in self._sci:
            self._sci[selected] = self._gsi.line(selected)
        for gsi, line in self._sci.items():
            line.set(level and gsi == selected)

    def pci_line(self, device: int, pin: int) -> IrqLine:
        """The INTx line of a device in a slot; the PIRQ is looked up when the line changes."""
        inputs = [self._gsi.pirq_line(pirq) for pirq in range(8)]

        def receive(level: bool) -> None:
            target = self.root_complex.pirq(device, pin)
            for pirq, line in enumerate(inputs):
                line.set(level and pirq == target)

        return IrqLine(receive)
