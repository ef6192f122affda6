"""The local APIC: xAPIC page, x2APIC MSRs, timer with TSC-deadline (Intel SDM volume 3, chapter 10).

Flow: `accept` (from the bus) or a local source sets IRR; `_update` compares the highest request with PPR and tells the
vCPU through `CpuPort`; the vCPU's thread calls `ack` at an instruction boundary with IF set; the guest's EOI ends it.

All methods run under the machine lock. IRR, ISR and TMR are 256-bit ints: the highest vector is a `bit_length` away.
The timer counts at 1 GHz before the divider, as QEMU's does.
"""

from __future__ import annotations

from typing import Protocol

from hw.core.clock import NS_PER_S, Clock, TimerQueue
from hw.core.log import GuestLog
from hw.intc import lapic_regs as r
from hw.intc.apic_bus import X2APIC_BROADCAST, XAPIC_BROADCAST, ApicBus, Delivery
from hw.intc.lapic_regs import Esr, TimerMode

MSR_APIC_BASE = 0x1B
MSR_TSC_DEADLINE = 0x6E0
MSR_X2APIC = 0x800
BASE_BSP = 1 << 8
BASE_EXTD = 1 << 10
BASE_ENABLE = 1 << 11
DEFAULT_BASE = 0xFEE0_0000
PAGE = 0x1000
VERSION = 0x14 | (len(r.LVTS) - 1) << 16


class CpuPort(Protocol):
    """What the interrupt system asks of a vCPU. Called under the machine lock, from any thread; must not block."""

    def raise_intr(self) -> None:
        """An unmasked interrupt above the task priority is pending: call `LocalApic.ack` when IF allows."""

    def lower_intr(self) -> None:
        """None is pending any more."""

    def raise_nmi(self) -> None: ...

    def raise_init(self) -> None: ...

    def raise_sipi(self, vector: int) -> None: ...

    def raise_smi(self) -> None: ...


class LocalApic:
    """One vCPU's local APIC."""

    WIRING = ("_bus", "_clock", "_cpu", "_log", "apic_id", "bsp", "phys_bits")
    STATISTICS = ("accepted", "intr")
    SAVED = (
        "_deadline_tsc",
        "_timer",
        "_timer_start",
        "base",
        "dfr",
        "divide",
        "esr",
        "esr_pending",
        "icr",
        "initial",
        "irr",
        "isr",
        "ldr",
        "lint1",
        "lvt",
        "pic_level",
        "svr",
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
        self._clock = clock
        self._log = log
        self._timer = timers.timer(self._timer_expired)
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
        self._timer.cancel()
        self._deadline_tsc = 0
        self._timer_start = 0
        self.initial = 0
        self.divide = 0
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

    # -- the timer (10.5.4)

    def _timer_mode(self) -> int:
        return self.lvt[r.LVT_TIMER] >> 17 & 3

    def _tick_ns(self) -> int:
        """Nanoseconds a count: the divide configuration of a 1 GHz clock."""
        return 1 << (((self.divide & 3) | (self.divide >> 1 & 4)) + 1 & 7)

    def _arm_timer(self) -> None:
        if self.initial == 0 or self._timer_mode() == TimerMode.TSC_DEADLINE:
            self._timer.cancel()
        else:
            self._timer_start = self._clock.now_ns()
            self._timer.mod(self._timer_start + self.initial * self._tick_ns())

    def _timer_expired(self) -> None:
        mode = self._timer_mode()
        if mode == TimerMode.TSC_DEADLINE:
            if not self._deadline_tsc:
                return
            if self._clock.tsc() < self._deadline_tsc:
                self._timer.mod(self._deadline_ns())
                return
            self._deadline_tsc = 0
        elif mode == TimerMode.PERIODIC and self.initial:
            period = self.initial * self._tick_ns()
            now = self._clock.now_ns()
            # Ticks that the host slept through are coalesced: the next deadline lies in the future.
            self._timer_start += max(1, (now - self._timer_start) // period) * period
            self._timer.mod(self._timer_start + period)
        self._deliver_local(r.LVT_TIMER)

    def _current_count(self) -> int:
        if self.initial == 0 or self._timer_mode() == TimerMode.TSC_DEADLINE:
            return 0
        elapsed = (self._clock.now_ns() - self._timer_start) // self._tick_ns()
        if self._timer_mode() == TimerMode.PERIODIC:
            return self.initial - elapsed % self.initial
        return max(0, self.initial - elapsed)

    def _deadline_ns(self) -> int:
        left = max(0, self._deadline_tsc - self._clock.tsc())
        return self._clock.now_ns() + (left * NS_PER_S + self._clock.tsc_hz - 1) // self._clock.tsc_hz

    def write_tsc_deadline(self, value: int) -> None:
        """WRMSR to IA32_TSC_DEADLINE: ignored outside TSC-deadline mode; 0 disarms; the past fires at once."""
        if self._timer_mode() != TimerMode.TSC_DEADLINE:
            return
        self._deadline_tsc = value
        if value == 0:
            self._timer.cancel()
        elif value <= self._clock.tsc():
            self._timer.cancel()
            self._timer_expired()
        else:
            self._timer.mod(self._deadline_ns())

    # -- registers

    def read_register(self, offset: int) -> int:
        """The 32-bit register at `offset` of the page."""
        if offset == r.ID:
            return self.apic_id if self.x2apic else self.xapic_id << 24
        if offset == r.VERSION:
            return VERSION
        if offset == r.TPR:
            return self.tpr_value
        if offset == r.PPR:
            return self.ppr
        if offset == r.LDR:
            return (self.apic_id >> 4) << 16 | 1 << (self.apic_id & 15) if self.x2apic else self.ldr
        if offset == r.DFR:
            return self.dfr
        if offset == r.SVR:
            return self.svr
        if r.ISR <= offset < r.ISR + 0x80:
            return self.isr >> 2 * (offset - r.ISR) & 0xFFFF_FFFF
        if r.TMR <= offset < r.TMR + 0x80:
            return self.tmr >> 2 * (offset - r.TMR) & 0xFFFF_FFFF
        if r.IRR <= offset < r.IRR + 0x80:
            return self.irr >> 2 * (offset - r.IRR) & 0xFFFF_FFFF
        if offset == r.ESR:
            return self.esr
        if offset == r.ICR_LOW:
            return self.icr & 0xFFFF_FFFF
        if offset == r.ICR_HIGH:
            return self.icr >> 32
        if offset in self.lvt:
            return self.lvt[offset]
        if offset == r.TIMER_INITIAL:
            return self.initial
        if offset == r.TIMER_CURRENT:
            return self._current_count()
        if offset == r.TIMER_DIVIDE:
            return self.divide
        return 0  # APR, RRD

    def write_register(self, offset: int, value: int) -> None:
        """Write the 32-bit register at `offset` of the page; `value` holds writable bits only."""
        if offset == r.EOI:
            self.eoi()
        elif offset == r.TPR:
            self.tpr = value
        elif offset == r.ICR_LOW:
            self.icr = (self.icr & ~0xFFFF_FFFF) | (value & ~(1 << 12))
            self._send_ipi()
        elif offset == r.ICR_HIGH:
            self.icr = (self.icr & 0xFFFF_FFFF) | value << 32
        elif offset == r.TIMER_INITIAL:
            if self._timer_mode() != TimerMode.TSC_DEADLINE:
                self.initial = value
                self._arm_timer()
        elif offset in self.lvt:
            self._write_lvt(offset, value)
        elif offset == r.ID:
            self.xapic_id = value >> 24
        elif offset == r.LDR:
            self.ldr = value
        elif offset == r.DFR:
            self.dfr = value | 0x0FFF_FFFF
        elif offset == r.SVR:
            self.svr = value
            if not value & r.SVR_ENABLE:
                for lvt in self.lvt:
                    self.lvt[lvt] |= r.LVT_MASKED
            self._update()
        elif offset == r.ESR:
            self.esr = self.esr_pending
            self.esr_pending = 0
        elif offset == r.TIMER_DIVIDE:
            self.divide = value
            if self.initial:
                self._rescale_timer()
        elif offset == r.SELF_IPI:
            self._request_self(value)

    def _rescale_timer(self) -> None:
        """A new divider applies to what is left of the count."""
        if self._timer.armed and self._timer_mode() != TimerMode.TSC_DEADLINE:
            self._arm_timer()

    def _write_lvt(self, offset: int, value: int) -> None:
        old = self.lvt[offset]
        value |= old & r.LVT_READ_ONLY
        if not self.svr & r.SVR_ENABLE:
            value |= r.LVT_MASKED
        self.lvt[offset] = value
        if offset == r.LVT_TIMER and (old ^ value) >> 17 & 3:
            if TimerMode.TSC_DEADLINE in (old >> 17 & 3, value >> 17 & 3):
                # 10.5.4.1: changing to or from TSC-deadline mode disarms the timer.
                self._timer.cancel()
                self._deadline_tsc = 0
                self.initial = 0
        elif offset == r.LVT_LINT0:
            self._drive_lint0()
            self._update()

    def _request_self(self, vector: int) -> None:
        if vector < 16:
            self._error(Esr.SEND_ILLEGAL_VECTOR)
        else:
            self._request(vector, level=False)

    def _send_ipi(self) -> None:
        """Act on ICR (10.6.1)."""
        icr = self.icr
        mode = icr >> 8 & 7
        vector = icr & 0xFF
        shorthand = icr >> 18 & 3
        if mode in (Delivery.FIXED, Delivery.LOWEST) and vector < 16:
            self._error(Esr.SEND_ILLEGAL_VECTOR)
            return
        if shorthand == 1:
            targets = [self]
        elif shorthand:
            targets = [lapic for lapic in self._bus.lapics if lapic is not self or shorthand == 2]
        else:
            destination = icr >> 32 if self.x2apic else icr >> 56
            targets = self._bus.targets(destination, logical=bool(icr & 1 << 11))
        level = bool(icr & 1 << 15) and mode == Delivery.INIT
        self._bus.deliver_to(targets, mode, vector, level=level, assert_=bool(icr & 1 << 14))

    # -- the page

    def mmio_read(self, offset: int, size: int) -> int:
        """A read of the page; all ones when the page is not there (disabled, or x2APIC mode)."""
        if self.base & (BASE_ENABLE | BASE_EXTD) != BASE_ENABLE:
            return (1 << 8 * size) - 1
        row = r.BY_OFFSET.get(offset & ~0xF)
        if row is None or not row.xapic:
            self._error(Esr.ILLEGAL_REGISTER)
            return 0
        if not row.readable or offset & 0xC:
            return 0
        return self.read_register(row.offset) >> 8 * (offset & 3) & ((1 << 8 * size) - 1)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """A write to the page; only aligned dwords count (10.4.1)."""
        if self.base & (BASE_ENABLE | BASE_EXTD) != BASE_ENABLE:
            return
        if offset & 0xF or size != 4:
            self._log.guest_error("local APIC", f"write of {size} bytes at offset {offset:#x}")
            return
        row = r.BY_OFFSET.get(offset)
        if row is None or not row.xapic:
            self._error(Esr.ILLEGAL_REGISTER)
        elif row.writable is not None:
            self.write_register(offset, value & row.writable)

    # -- MSRs

    def read_msr(self, index: int) -> int | None:
        """RDMSR of IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC register; None means #GP."""
        if index == MSR_APIC_BASE:
            return self.base
        if index == MSR_TSC_DEADLINE:
            return self._deadline_tsc if self._timer_mode() == TimerMode.TSC_DEADLINE else 0
        row = self._x2apic_row(index)
        if row is None or not row.readable:
            return None
        if row.offset == r.ICR_LOW:
            return self.icr
        return self.read_register(row.offset)

    def write_msr(self, index: int, value: int) -> bool:
        """WRMSR of the same registers; False means #GP."""
        if index == MSR_APIC_BASE:
            return self.set_apic_base(value)
        if index == MSR_TSC_DEADLINE:
            self.write_tsc_deadline(value)
            return True
        row = self._x2apic_row(index)
        if row is None or row.writable is None or row.offset in r.X2APIC_READ_ONLY:
            return False
        if row.offset == r.ICR_LOW:
            if value & 0xFFFF_FFFF & ~row.writable:
                return False
            self.icr = value
            self._send_ipi()
            return True
        if value & ~row.writable:
            return False
        self.write_register(row.offset, value)
        return True

    def _x2apic_row(self, index: int) -> r.Row | None:
        if not self.base & BASE_EXTD:
            return None
        row = r.BY_OFFSET.get((index - MSR_X2APIC) << 4)
        return row if row is not None and row.x2apic else None


class LapicPage:
    """The window at 0xFEE00000: the accessing vCPU's own APIC page, and the MSI doorbell for bus masters.

    `current` is the local APIC of the vCPU whose access is being served; the vCPU glue sets it when there are several.
    """

    WIRING = ("_bus", "current")
    STATISTICS = ()
    SAVED = ()
    __slots__ = WIRING

    def __init__(self, bus: ApicBus, current: LocalApic) -> None:
        self._bus = bus
        self.current = current

    def mmio_read(self, offset: int, size: int) -> int:
        if offset < PAGE:
            return self.current.mmio_read(offset, size)
        return (1 << 8 * size) - 1

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset < PAGE:
            self.current.mmio_write(offset, size, value)
        elif size == 4:
            self._bus.msi_write(DEFAULT_BASE + offset, value)
