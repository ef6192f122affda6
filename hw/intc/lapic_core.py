"""The heart of the local APIC: modes, acceptance, priority, delivery to the vCPU (Intel SDM volume 3, chapter 10).

Flow: `accept` (from the bus) or a local source sets IRR; `_update` compares the highest request with PPR and tells the
vCPU through `CpuPort`; the vCPU's thread calls `ack` at an instruction boundary with IF set; the guest's EOI ends it.

All methods run under the machine lock. IRR, ISR and TMR are 256-bit ints: the highest vector is a `bit_length` away.
"""

from __future__ import annotations

from hw.core.clock import Clock, TimerQueue
from hw.core.log import GuestLog
from hw.intc import lapic_regs as r
from hw.intc.apic_bus import X2APIC_BROADCAST, XAPIC_BROADCAST, ApicBus, Delivery
from hw.intc.cpu_port import CpuPort
from hw.intc.lapic_regs import Esr
from hw.intc.lapic_timer import ApicTimer

BASE_BSP = 1 << 8
BASE_EXTD = 1 << 10
BASE_ENABLE = 1 << 11
DEFAULT_BASE = 0xFEE0_0000
PAGE = 0x1000


class LapicCore:
    """One vCPU's local APIC without its register interface (`lapic.LocalApic`)."""

    WIRING = ("_bus", "_cpu", "_log", "apic_id", "bsp", "phys_bits")
    STATISTICS = ("accepted", "intr")
    SAVED = (
        "base",
        "dfr",
        "esr",
        "esr_pending",
        "icr",
        "irr",
        "isr",
        "ldr",
        "lint1",
        "lvt",
        "pic_level",
        "svr",
        "timer",
        "tmr",
        "tpr_value",
        "xapic_id",
    )
    __slots__ = WIRING + STATISTICS + SAVED

    def __init__(
        self,
        apic_id: int,
        cpu: CpuPort,
        bus: ApicBus,
        clock: Clock,
        timers: TimerQueue,
        log: GuestLog,
        *,
        phys_bits: int = 40,
    ) -> None:
        self.apic_id = apic_id
        self.bsp = apic_id == 0
        self.phys_bits = phys_bits
        self._cpu = cpu
        self._bus = bus
        self._log = log
        self.timer = ApicTimer(clock, timers, lambda: self._deliver_local(r.LVT_TIMER))
        self.accepted = 0
        self.intr = False
        self.pic_level = False
        self.lint1 = False
        bus.lapics.append(self)
        self.reset()

    def reset(self) -> None:
        """Power-up (10.4.7.1), APIC base included."""
        self.base = DEFAULT_BASE | BASE_ENABLE | (BASE_BSP if self.bsp else 0)
        self.xapic_id = self.apic_id & 0xFF
        self.init()

    def init(self) -> None:
        """INIT (10.4.7.3): as reset, but the APIC ID and base stay."""
        self.timer.reset()
        self.tpr_value = 0
        self.ldr = 0
        self.dfr = 0xFFFF_FFFF
        self.svr = 0xFF
        self.irr = self.isr = self.tmr = 0
        self.esr = self.esr_pending = 0
        self.icr = 0
        self.lvt = dict.fromkeys(r.LVTS, r.LVT_MASKED)
        self._update()

    # -- modes

    @property
    def hardware_enabled(self) -> bool:
        """IA32_APIC_BASE.EN."""
        return bool(self.base & BASE_ENABLE)

    @property
    def x2apic(self) -> bool:
        return bool(self.base & BASE_EXTD)

    @property
    def enabled(self) -> bool:
        """Globally and by software: fixed interrupts are accepted."""
        return bool(self.base & BASE_ENABLE and self.svr & r.SVR_ENABLE)

    @property
    def apic_base(self) -> int:
        """IA32_APIC_BASE."""
        return self.base

    def set_apic_base(self, value: int) -> bool:
        """WRMSR to IA32_APIC_BASE; False means #GP: a reserved bit or a transition that 10.12.5 forbids."""
        if value & ~(((1 << self.phys_bits) - PAGE) | BASE_BSP | BASE_EXTD | BASE_ENABLE):
            return False
        old_mode = self.base & (BASE_ENABLE | BASE_EXTD)
        mode = value & (BASE_ENABLE | BASE_EXTD)
        if mode == BASE_EXTD or (old_mode == 0 and mode & BASE_EXTD) or (old_mode & BASE_EXTD and mode == BASE_ENABLE):
            return False
        self.base = value
        if value & ~(PAGE - 1) != DEFAULT_BASE:
            self._log.unimp("local APIC", f"base moved to {value & ~(PAGE - 1):#x}")
        if mode == 0 and old_mode:
            self.init()
        elif mode & BASE_EXTD and not old_mode & BASE_EXTD:
            self.ldr = 0
        self._update()
        return True

    # -- priority and the vCPU's side

    @property
    def ppr(self) -> int:
        """Processor priority (10.8.3.1)."""
        in_service = self.isr.bit_length() - 1
        if in_service < 0 or (self.tpr_value >> 4) >= (in_service >> 4):
            return self.tpr_value
        return in_service & 0xF0

    @property
    def tpr(self) -> int:
        return self.tpr_value

    @tpr.setter
    def tpr(self, value: int) -> None:
        self.tpr_value = value & 0xFF
        self._update()

    @property
    def cr8(self) -> int:
        """The task priority class, as MOV from CR8 reads it."""
        return self.tpr_value >> 4

    @cr8.setter
    def cr8(self, value: int) -> None:
        self.tpr = (value & 0xF) << 4

    def _accepts_pic(self) -> bool:
        """Does INTR of the 8259 pair reach the vCPU? Through LINT0 as ExtINT, or directly when the APIC is off."""
        if not self.base & BASE_ENABLE:
            return self.bsp
        lvt = self.lvt[r.LVT_LINT0]
        return not lvt & r.LVT_MASKED and lvt >> 8 & 7 == Delivery.EXTINT

    def pending(self) -> bool:
        """Would `ack` return a vector?"""
        if self.irr and self.svr & r.SVR_ENABLE and (self.irr.bit_length() - 1) >> 4 > self.ppr >> 4:
            return True
        return self.pic_level and self._accepts_pic()

    def ack(self) -> int:
        """The vCPU takes an interrupt: its vector, now in service; -1 when nothing is pending after all."""
        vector = self.irr.bit_length() - 1
        if vector >= 0 and self.svr & r.SVR_ENABLE and vector >> 4 > self.ppr >> 4:
            bit = 1 << vector
            self.irr &= ~bit
            self.isr |= bit
        elif self.pic_level and self._accepts_pic():
            vector = self._bus.pic_acknowledge()
        else:
            vector = -1
        self._update()
        return vector

    def eoi(self) -> None:
        """The guest's end of interrupt (10.8.5)."""
        vector = self.isr.bit_length() - 1
        if vector < 0:
            return
        bit = 1 << vector
        self.isr &= ~bit
        if self.tmr & bit:
            lint0 = self.lvt[r.LVT_LINT0]
            if lint0 & r.LVT_REMOTE_IRR and lint0 & 0xFF == vector:
                self.lvt[r.LVT_LINT0] = lint0 & ~r.LVT_REMOTE_IRR
                self._drive_lint0()
            self._bus.broadcast_eoi(vector)
        self._update()

    def _update(self) -> None:
        """Tell the vCPU. A pending request is repeated: the vCPU may have dropped it when it last looked."""
        if self.pending():
            self.intr = True
            self._cpu.raise_intr()
        elif self.intr:
            self.intr = False
            self._cpu.lower_intr()

    # -- messages in

    def matches(self, destination: int, *, logical: bool) -> bool:
        """Does a message's destination name this APIC (10.6.2, 10.12.10)?"""
        if not self.base & BASE_ENABLE:
            return False
        if destination in (X2APIC_BROADCAST, XAPIC_BROADCAST):
            return True
        if self.base & BASE_EXTD:
            if not logical:
                return destination == self.apic_id
            return destination >> 16 == self.apic_id >> 4 and bool(destination & 1 << (self.apic_id & 15))
        if not logical:
            return destination == self.xapic_id
        ldr = self.ldr >> 24
        if self.dfr >> 28 == 0xF:
            return bool(destination & ldr)
        return destination >> 4 == ldr >> 4 and bool(destination & ldr & 0xF)

    def accept(self, mode: int, vector: int, *, level: bool) -> None:
        """A message for this APIC."""
        self.accepted += 1
        if mode == Delivery.FIXED or mode == Delivery.EXTINT:
            self._request(vector, level=level)
        elif mode == Delivery.NMI:
            self._cpu.raise_nmi()
        elif mode == Delivery.SMI:
            self._cpu.raise_smi()
        elif mode == Delivery.INIT:
            self.init()
            self._cpu.raise_init()
        elif mode == Delivery.STARTUP:
            self._cpu.raise_sipi(vector)

    def _request(self, vector: int, *, level: bool) -> None:
        if not self.enabled:
            return
        if vector < 16:
            self._error(Esr.RECEIVE_ILLEGAL_VECTOR)
            return
        bit = 1 << vector
        self.irr |= bit
        self.tmr = self.tmr | bit if level else self.tmr & ~bit
        self._update()

    def _error(self, error: Esr) -> None:
        self.esr_pending |= error
        self._deliver_local(r.LVT_ERROR)

    def _deliver_local(self, offset: int) -> None:
        """An event of a local vector table entry."""
        lvt = self.lvt[offset]
        if lvt & r.LVT_MASKED:
            return
        mode = lvt >> 8 & 7 if offset not in (r.LVT_TIMER, r.LVT_ERROR) else Delivery.FIXED
        if mode in (Delivery.FIXED, Delivery.NMI, Delivery.SMI, Delivery.INIT):
            vector = lvt & 0xFF
            if mode == Delivery.FIXED and vector < 16:
                self.esr_pending |= Esr.RECEIVE_ILLEGAL_VECTOR
                return
            self.accept(mode, vector, level=False)

    def set_pic_level(self, level: bool) -> None:
        """LINT0: the INT output of the 8259 pair."""
        rising = level and not self.pic_level
        self.pic_level = level
        lvt = self.lvt[r.LVT_LINT0]
        if self.base & BASE_ENABLE and not lvt & r.LVT_MASKED and lvt >> 8 & 7 != Delivery.EXTINT:
            if lvt & r.LVT_LEVEL:
                self._drive_lint0()
            elif rising:
                self._deliver_local(r.LVT_LINT0)
        self._update()

    def _drive_lint0(self) -> None:
        """A level-triggered fixed LINT0 requests while its line is high and its remote IRR clear."""
        lvt = self.lvt[r.LVT_LINT0]
        wanted = not lvt & (r.LVT_MASKED | r.LVT_REMOTE_IRR) and lvt & r.LVT_LEVEL and lvt >> 8 & 7 == Delivery.FIXED
        if wanted and self.pic_level and self.enabled:
            self.lvt[r.LVT_LINT0] = lvt | r.LVT_REMOTE_IRR
            self._request(lvt & 0xFF, level=True)

    def set_nmi_level(self, level: bool) -> None:
        """LINT1: the platform's NMI."""
        rising = level and not self.lint1
        self.lint1 = level
        if rising:
            if self.base & BASE_ENABLE:
                self._deliver_local(r.LVT_LINT1)
            else:
                self._cpu.raise_nmi()
