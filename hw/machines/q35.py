"""The q35 board: which device sits where. No behaviour of its own.

Addresses, IRQs, PCI slots and reset values equal those of QEMU 7.2's `-machine q35`. A machine that boots a kernel
without firmware is left by `reset` as SeaBIOS leaves it (`q35_firmware.py`).

Threads: everything runs under `lock`. The vCPU's thread enters through `ports`, `memory` and `lapics`; the main loop's
thread through `timers` and the character devices. `on_shutdown` and `on_reset` are called under the lock from inside a
guest's access: they only take note, and the owner acts once the vCPU has stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hw.char.uart16550 import Uart16550
from hw.core.bus import AddressSpace, PortSpace
from hw.core.chardev import Chardev
from hw.core.clock import Clock, TimerQueue
from hw.core.device import Resettable, Savable
from hw.core.irq import IrqLine
from hw.core.log import GuestLog
from hw.input.i8042 import I8042, I8042Port, Port92
from hw.intc.apic_bus import ApicBus
from hw.intc.cpu_port import CpuPort
from hw.intc.i8259 import Elcr, Pic8259Pair
from hw.intc.ioapic import IoApic
from hw.intc.lapic import LocalApic
from hw.intc.lapic_page import LapicPage
from hw.machines import q35_firmware
from hw.misc import fw_cfg as fwcfg
from hw.misc.debug_exit import DEFAULT_IOBASE, DEFAULT_IOSIZE, DebugExit
from hw.misc.delay_port import COPROCESSOR_ERROR, POST_CODE, DelayPort
from hw.misc.fw_cfg import FwCfg, FwCfgDma
from hw.pci.host import ConfigAddressPort, ConfigDataPort, Ecam, PciBus
from hw.q35.gsi import GsiRouter
from hw.q35.lpc import Lpc, RootComplexBlock
from hw.q35.mch import Mch
from hw.q35.pm import ApmPorts, PowerManagement, ResetControl
from hw.q35.tco import Tco
from hw.timer.hpet import Hpet
from hw.timer.i8254 import NmiStatusControl, Pit8254
from hw.timer.mc146818 import Mc146818, RtcConfig

MIB = 1 << 20
GIB = 1 << 30
LOW_RAM_MAX = 0x8000_0000  # with more RAM than this, the rest lies above 4 GiB
LOW_RAM_LIMIT = 0xB000_0000  # ECAM starts here: as much as fits below stays low
VGA_HOLE = 0xA_0000
ISA_END = 0x10_0000
FOUR_GIB = 0x1_0000_0000

PCIEXBAR_BASE = 0xB000_0000
IOAPIC_BASE = 0xFEC0_0000
HPET_BASE = 0xFED0_0000
LAPIC_BASE = 0xFEE0_0000
SERIAL_PORTS = ((0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3))


@dataclass(frozen=True, slots=True)
class DebugExitConfig:
    """`-device isa-debug-exit,iobase=,iosize=`."""

    iobase: int = DEFAULT_IOBASE
    iosize: int = DEFAULT_IOSIZE


@dataclass(frozen=True, slots=True)
class Q35Config:
    """What the command line chooses. `firmware`: a firmware will run and programs the chipset itself."""

    rtc: RtcConfig = field(default_factory=RtcConfig)
    debug_exits: tuple[DebugExitConfig, ...] = ()
    firmware: bool = False
    phys_bits: int = 40
    nographic: bool = True


def low_ram_size(ram_size: int) -> int:
    """How much RAM lies below 4 GiB."""
    return ram_size if ram_size < LOW_RAM_LIMIT else LOW_RAM_MAX


class Q35:
    """The machine. `ram`: all of guest RAM; `cpus[i]`: vCPU i's interrupt side; `serial[i]`: the host's end of COMi."""

    def __init__(
        self,
        config: Q35Config,
        *,
        clock: Clock,
        ram: memoryview,
        cpus: Sequence[CpuPort],
        serial: Sequence[Chardev | None],
        log: GuestLog | None = None,
        lock: threading.RLock | None = None,
        timers: TimerQueue | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.lock = lock if lock is not None else threading.RLock()
        self.timers = timers if timers is not None else TimerQueue()
        self.log = log if log is not None else GuestLog()
        self.ports = PortSpace(self.log)
        self.memory = AddressSpace(ram, self.log)
        self.on_shutdown: Callable[[str, int | None], None] = lambda cause, code: None
        self.on_reset: Callable[[str], None] = lambda cause: None
        self.devices: dict[str, Savable] = {}

        with self.memory.transaction():
            self._map_ram(len(ram))
            self._build_interrupts(cpus)
            self._build_chipset()
            self._build_legacy(serial)
            self._build_firmware_interface(len(ram), len(cpus))
            self.reset()

    # -- construction

    def _add(self, name: str, device: Savable) -> None:
        self.devices[name] = device

    def _map_ram(self, size: int) -> None:
        low = low_ram_size(size)
        self.memory.map_ram(0, min(low, VGA_HOLE), 0, "pc.ram")
        if low > ISA_END:  # what lies between is the MCH's to map
            self.memory.map_ram(ISA_END, low - ISA_END, ISA_END, "pc.ram")
        if size > low:
            self.memory.map_ram(FOUR_GIB, size - low, low, "pc.ram")

    def _build_interrupts(self, cpus: Sequence[CpuPort]) -> None:
        self.pic = Pic8259Pair()
        self.apic_bus = ApicBus(self.pic.acknowledge)
        self.lapics = [
            LocalApic(i, cpu, self.apic_bus, self.clock, self.timers, self.log, phys_bits=self.config.phys_bits)
            for i, cpu in enumerate(cpus)
        ]
        self.ioapic = IoApic(self.apic_bus)
        self.gsi = GsiRouter(self.pic, self.ioapic)
        self.pic.connect(self._pic_output)
        self.lapic_page = LapicPage(self.apic_bus, self.lapics[0])
        self.memory.map_mmio(LAPIC_BASE, MIB, self.lapic_page, "apic-msi", priority=1)
        self.memory.map_mmio(IOAPIC_BASE, 0x1000, self.ioapic, "ioapic")
        self.ports.map(0x20, 2, self.pic.master, "pic")
        self.ports.map(0xA0, 2, self.pic.slave, "pic")
        elcr = Elcr(self.pic)
        self.ports.map(0x4D0, 2, elcr, "elcr")
        self._add("pic", self.pic)
        self._add("ioapic", self.ioapic)
        for lapic in self.lapics:
            self._add(f"lapic{lapic.apic_id}", lapic)

    def _pic_output(self, level: bool) -> None:
        for lapic in self.lapics:
            lapic.set_pic_level(level)

    def _build_chipset(self) -> None:
        self.pci = PciBus()
        self.pm = PowerManagement(self.clock, self.timers, self.log)
        self.pm.shutdown = lambda cause: self.on_shutdown(cause, None)
        self.pm.raise_smi = self._raise_smi
        self.mch = Mch(self.memory, Ecam(self.pci), self.log)
        self.root_complex = RootComplexBlock()
        self.tco = Tco(self.clock, self.timers)
        self.tco.timed_out = self._watchdog
        self.lpc = Lpc(self.ports, self.memory, self.pm, self.tco, self.gsi, self.root_complex, self.log)
        self.pci.add(0, 0, self.mch)
        self.pci.add(0x1F, 0, self.lpc)
        self.config_address = ConfigAddressPort()
        self.ports.map(0xCF8, 4, self.config_address, "pci-conf-idx", max_size=4)
        self.ports.map(0xCFC, 4, ConfigDataPort(self.config_address, self.pci), "pci-conf-data", max_size=4)
        self.reset_control = ResetControl()
        self.reset_control.reset_machine = lambda: self.on_reset("guest-reset")
        self.ports.map(0xCF9, 1, self.reset_control, "lpc-reset-control", priority=1)
        self.apm = ApmPorts(self.pm)
        self.ports.map(0xB2, 2, self.apm, "apm-io")
        for name, device in (
            ("mch", self.mch),
            ("rcrb", self.root_complex),
            ("lpc", self.lpc),
            ("pm", self.pm),
            ("tco", self.tco),
            ("apm", self.apm),
            ("pci-conf", self.config_address),
            ("reset-control", self.reset_control),
        ):
            self._add(name, device)

    def _build_legacy(self, serial: Sequence[Chardev | None]) -> None:
        self.pit = Pit8254(self.clock, self.timers)
        self.port61 = NmiStatusControl(self.pit)
        self.rtc = Mc146818(self.clock, self.timers, self.config.rtc)
        self.hpet = Hpet(self.clock, self.timers, {gsi: self.gsi.line(gsi) for gsi in range(24)})
        self._wire_legacy_timers()
        self.ports.map(0x40, 4, self.pit, "pit")
        self.ports.map(0x61, 1, self.port61, "pcspk")
        self.ports.map(0x70, 2, self.rtc, "rtc")
        self.memory.map_mmio(HPET_BASE, 0x400, self.hpet, "hpet", max_size=8)

        self.i8042 = I8042(self.log)
        self.i8042.keyboard_irq.receiver = self.gsi.line(1).set
        self.i8042.mouse_irq.receiver = self.gsi.line(12).set
        self.i8042.reset_cpu = lambda: self.on_reset("guest-reset")
        self.ports.map(0x60, 1, I8042Port(self.i8042, 0), "i8042-data")
        self.ports.map(0x64, 1, I8042Port(self.i8042, 4), "i8042-cmd")
        self.port92 = Port92()
        self.port92.init_cpu = lambda: self.on_reset("guest-reset")
        self.ports.map(0x92, 1, self.port92, "port92")

        for port in (POST_CODE, COPROCESSOR_ERROR):
            self.ports.map(port, 1, DelayPort(), "delay")

        self.serial: list[Uart16550] = []
        for (base, irq), chardev in zip(SERIAL_PORTS, serial, strict=False):
            if chardev is None:
                continue
            uart = Uart16550(self.clock, self.timers, chardev)
            uart.irq.receiver = self.gsi.line(irq).set
            self.ports.map(base, 8, uart, "serial")
            self.serial.append(uart)
            self._add(f"serial@{base:x}", uart)
        for name, device in (
            ("pit", self.pit),
            ("port61", self.port61),
            ("rtc", self.rtc),
            ("hpet", self.hpet),
            ("i8042", self.i8042),
            ("port92", self.port92),
        ):
            self._add(name, device)

        for exit_config in self.config.debug_exits:
            debug_exit = DebugExit(lambda status: self.on_shutdown("debug-exit", status))
            self.ports.map(exit_config.iobase, exit_config.iosize, debug_exit, "isa-debug-exit", max_size=4)

    def _wire_legacy_timers(self) -> None:
        """The HPET's legacy replacement takes IRQ 0 and IRQ 8 away from the 8254 and the RTC."""
        timer, clock = self.gsi.line(0), self.gsi.line(8)

        def gated(line: IrqLine) -> Callable[[bool], None]:
            return lambda level: line.set(level and not self.hpet.legacy)

        def legacy_changed(legacy: bool) -> None:
            timer.set(self.pit.irq.level and not legacy)
            clock.set(self.rtc.irq.level and not legacy)

        self.pit.irq.receiver = gated(timer)
        self.rtc.irq.receiver = gated(clock)
        self.hpet.legacy_changed = legacy_changed

    def _build_firmware_interface(self, ram_size: int, cpus: int) -> None:
        self.fw_cfg = FwCfg(self.memory)
        self.ports.map(0x510, 2, self.fw_cfg, "fwcfg", max_size=4)
        self.ports.map(0x514, 8, FwCfgDma(self.fw_cfg), "fwcfg.dma", max_size=4)
        self.fw_cfg.add_i64(fwcfg.RAM_SIZE, ram_size)
        self.fw_cfg.add_i16(fwcfg.NOGRAPHIC, int(self.config.nographic))
        self.fw_cfg.add_i16(fwcfg.NB_CPUS, cpus)
        self.fw_cfg.add_i16(fwcfg.MAX_CPUS, cpus)
        self.fw_cfg.add_i16(fwcfg.BOOT_MENU, 0)
        self._add("fw_cfg", self.fw_cfg)

    def _watchdog(self) -> None:
        if not self.root_complex.no_reboot:
            self.on_reset("watchdog")

    def _raise_smi(self) -> None:
        for lapic in self.lapics:
            lapic.accept(2, 0, level=False)

    # -- the owner's side

    def reset(self) -> None:
        """Platform reset. The owner calls it with the vCPUs stopped, then resets them and loads what boots."""
        with self.lock, self.memory.transaction():
            for device in self.devices.values():
                if isinstance(device, Resettable):
                    device.reset()
            q35_firmware.fill_cmos(self)
            if not self.config.firmware:
                q35_firmware.leave_as_seabios(self)

    def power_button(self) -> None:
        """The user presses the power button. Thread-safe."""
        with self.lock:
            self.pm.power_button()

    def nmi(self) -> None:
        """The user asks for an NMI, through LINT1 of every local APIC. Thread-safe."""
        with self.lock:
            for lapic in self.lapics:
                lapic.set_nmi_level(True)
                lapic.set_nmi_level(False)

    def flush_output(self) -> None:
        """Hand what the UARTs gathered to the host; the owner calls it before the process ends. Thread-safe."""
        with self.lock:
            for uart in self.serial:
                uart.flush()
