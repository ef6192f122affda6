"""What the monitor's `info` commands say of the q35 board, laid out as QEMU does it. Reads only; machine lock held."""

from collections.abc import Iterator

from hw.core.flatview import Kind
from hw.intc import ioapic as io
from hw.intc import lapic_regs as r
from hw.intc.i8259 import Pic8259
from hw.intc.ioapic import IoApic
from hw.intc.lapic import LocalApic
from hw.machines.q35 import Q35

_DELIVERY = ("fixed", "lowest", "SMI", "...", "NMI", "INIT", "...", "extINT")
_LVT_DELIVERY = ("Fixed", "LowPri", "SMI", "...", "NMI", "INIT", "SIPI", "ExtINT")
_LVT_NAMES = (
    ("LVT0", r.LVT_LINT0), ("LVT1", r.LVT_LINT1), ("LVTPC", r.LVT_PERFMON), ("LVTERR", r.LVT_ERROR),
    ("LVTTHMR", r.LVT_THERMAL), ("LVTT", r.LVT_TIMER),
)  # fmt: skip
_TIMER_MODES = ("one-shot", "periodic", "tsc-deadline", "")
_CLASSES = {
    0x0101: "IDE controller", 0x0106: "SATA controller", 0x0200: "Ethernet controller", 0x0300: "VGA controller",
    0x0600: "Host bridge", 0x0601: "ISA bridge", 0x0604: "PCI bridge", 0x0C03: "USB controller", 0x0C05: "SMBus",
}  # fmt: skip


def pic(board: Q35) -> str:
    lines = [*_ioapic(board.ioapic), _chip(1, board.pic.slave), _chip(0, board.pic.master)]
    return "\n".join(lines)


def _ioapic(ioapic: IoApic) -> Iterator[str]:
    yield f"ioapic0: ver=0x{io.VERSION:x} id=0x{ioapic.id:02x} sel=0x{ioapic.select:02x}" + (
        f" (redir[{(ioapic.select - 0x10) >> 1}])" if ioapic.select >= 0x10 else ""
    )
    remote = 0
    for pin, entry in enumerate(ioapic.redirection):
        remote |= bool(entry & io.LEVEL and entry & io.REMOTE_IRR) << pin
        yield (
            f"  pin {pin:<2} 0x{entry:016x} dest={entry >> 56:x} vec={entry & 0xFF:<3} "
            f"{'active-lo' if entry & io.ACTIVE_LOW else 'active-hi'} {'level' if entry & io.LEVEL else 'edge '} "
            f"{'masked' if entry & io.MASKED else '':<6} {_DELIVERY[entry >> 8 & 7]:<6} "
            f"{'logical' if entry & 1 << 11 else 'physical'}"
        )
    yield f"  IRR      {_pins(ioapic.irr)}"
    yield f"  Remote IRR {_pins(remote)}"


def _pins(bits: int) -> str:
    return " ".join(str(n) for n in range(bits.bit_length()) if bits >> n & 1) or "(none)"


def _chip(number: int, chip: Pic8259) -> str:
    return (
        f"pic{number}: irr={chip.irr:02x} imr={chip.imr:02x} isr={chip.isr:02x} hprio={chip.priority_add} "
        f"irq_base={chip.vector_base:02x} rr_sel={int(chip.read_isr)} elcr={chip.elcr:02x} "
        f"fnm={int(chip.special_fully_nested)}"
    )


def irq(board: Q35) -> str:
    counts = [f"{pin:>2}: {count}" for pin, count in enumerate(board.ioapic.delivered) if count]
    return "\n".join(["IRQ statistics for ioapic:", *counts])


def lapic(apic: LocalApic) -> str:
    lines = [f"dumping local APIC state for CPU {apic.apic_id} ", ""]
    for name, offset in _LVT_NAMES:
        lines.append(f"{name}\t {_lvt(apic.lvt[offset], timer=offset == r.LVT_TIMER)}")
    divide = apic.timer.divide & 3 | apic.timer.divide >> 1 & 4
    lines.append(
        f"Timer\t DCR=0x{apic.timer.divide:x} (divide by {1 << (divide + 1 & 7)}) "
        f"initial_count = {apic.timer.initial} current_count = {apic.timer.current()}"
    )
    svr, icr = apic.svr, apic.icr & 0xFFFFFFFF
    lines.append(
        f"SPIV\t 0x{svr:08x} APIC {'enabled' if svr & r.SVR_ENABLE else 'disabled'}, "
        f"focus={'on' if svr & 1 << 9 else 'off'}, spurious vec {svr & 0xFF}"
    )
    shorthand = ("", "self", "all", "all-self")[icr >> 18 & 3]
    lines.append(
        f"ICR\t 0x{icr:08x} {'logical' if icr & 1 << 11 else 'physical'} {'level' if icr & 1 << 15 else 'edge'} "
        f"{'assert' if icr & 1 << 14 else 'de-assert'} {shorthand}".rstrip()
    )
    lines += [f"ICR2\t 0x{apic.icr >> 32:08x}", f"ESR\t 0x{apic.esr:08x}"]
    lines += [f"ISR\t {_vectors(apic.isr, apic.tmr)}", f"IRR\t {_vectors(apic.irr, apic.tmr)}", ""]
    dfr, ldr = apic.dfr >> 28, apic.ldr >> 24
    lines.append(f"APR 0x00 TPR 0x{apic.tpr_value:02x} DFR 0x{dfr:02x} LDR 0x{ldr:02x} PPR 0x{apic.ppr:02x}")
    return "\n".join(lines)


def _lvt(value: int, *, timer: bool) -> str:
    delivery = _LVT_DELIVERY[value >> 8 & 7]
    vector = "" if delivery == "NMI" else f"(vec {value & 0xFF})"
    return (
        f"0x{value:08x} {'active-lo' if value & 1 << 13 else 'active-hi'} "
        f"{'level' if value & r.LVT_LEVEL else 'edge':<5} {'masked' if value & r.LVT_MASKED else '':<6} "
        f"{'pending' if value & 1 << 12 else '':<7} {_TIMER_MODES[value >> 17 & 3] if timer else '':<12} "
        f"{delivery:<6} {vector}"
    )


def _vectors(bits: int, level: int) -> str:
    return " ".join(f"{n}{'(level)' if level >> n & 1 else ''}" for n in range(256) if bits >> n & 1) or "(none)"


def pci(board: Q35) -> str:
    lines = []
    for devfn, function in sorted(board.pci.functions.items()):
        lines.append(f"  Bus  0, device {devfn >> 3:3}, function {devfn & 7}:")
        class_code = function.config_read(0x0A, 2)
        name = _CLASSES.get(class_code, f"Class {class_code:04x}")
        vendor, device = function.config_read(0, 2), function.config_read(2, 2)
        lines.append(f"    {name}: PCI device {vendor:04x}:{device:04x}")
        lines.append(f"      PCI subsystem {function.config_read(0x2C, 2):04x}:{function.config_read(0x2E, 2):04x}")
        if pin := function.config_read(0x3D, 1):
            lines.append(f"      IRQ {function.config_read(0x3C, 1)}, pin {chr(64 + pin)}")
        lines.append('      id ""')
    return "\n".join(lines)


def mtree(board: Q35) -> str:
    """Both address spaces flat, as `info mtree -f` prints them, without what nobody answers."""
    lines = ["FlatView #0", ' AS "I/O", root: io', " Root memory region: io"]
    windows = sorted(board.ports.windows, key=lambda w: (w.base, -w.priority))
    lines += [_range(w.base, w.base + w.length - 1, w.priority, "i/o", w.name, 0) for w in windows]
    lines += ["", "FlatView #1", ' AS "memory", root: system', ' AS "cpu-memory-0", root: system']
    lines.append(" Root memory region: system")
    names = {Kind.RAM: "ram", Kind.ROM: "rom", Kind.MMIO: "i/o"}
    for flat in board.memory.view:
        offset = flat.device_offset if flat.kind is Kind.MMIO else flat.ram_offset
        lines.append(_range(flat.gpa, flat.end - 1, 0, names[flat.kind], flat.name, offset))
    return "\n".join(lines)


def _range(first: int, last: int, priority: int, kind: str, name: str, offset: int) -> str:
    text = f"  {first:016x}-{last:016x} (prio {priority}, {kind}): {name}"
    return text + (f" @{offset:016x}" if offset else "")
