"""The x86 vCPU's state as a boot protocol or a reset wants it: between firmware's values and env's fields."""

from frontends.x86.state import Mode, Reg, Rflags, Seg
from hw.firmware.cpu_entry import CpuEntry, Segment
from tcg.exec.vcpu import VCpu

_SEGMENTS = (
    (Seg.ES, "es"), (Seg.CS, "cs"), (Seg.SS, "ss"), (Seg.DS, "ds"), (Seg.FS, "fs"), (Seg.GS, "gs"),
    (Seg.LDTR, "ldtr"), (Seg.TR, "tr"),
)  # fmt: skip
_RESET = {
    "pat": 0x0007040600070406, "xcr0": 1, "mxcsr": 0x1F80, "host_mxcsr": 0x1F80, "fpu_control": 0x37F,
    "host_fcw": 0x37F, "misc_enable": 1, "mtrr_def_type": 0xC06, "df": 1, "cc_op": 1,
}  # fmt: skip


def reset_vcpu(vcpu: VCpu, *, bsp: bool = True) -> None:
    """Everything a boot protocol does not define: its value after RESET (SDM volume 3, table 10-1)."""
    env = vcpu.env
    for name, field in env.struct.fields.items():
        if env.struct.offset(name) < env.struct.offset("regs") or name.startswith(("cpuid_", "context")):
            continue
        for index in range(field.count):
            env.set(name, 0, index)
    for name, value in _RESET.items():
        env.set(name, value)
    for n in range(8):
        env.set("fpu_tags", 1, n)
    env.set("dr", 0xFFFF0FF0, 6)
    env.set("dr", 0x400, 7)
    env.set("mtrr_phys_base", 0xC0000000)
    env.set("mtrr_phys_mask", 0xFFC0000800)
    for n in range(11):
        env.set("mtrr_fixed", 0x0606060606060606, n)
    env.set("apic_base", 0xFEE00800 | (0x100 if bsp else 0))
    for name in ("exit_request", "exception", "interrupt_request", "halted", "exit_slot"):
        env.set(name, 0)


def enter_kernel(vcpu: VCpu, entry: CpuEntry) -> None:
    """Put the vCPU into the state in which a boot protocol enters a kernel."""
    reset_vcpu(vcpu)
    env = vcpu.env
    for reg in Reg:
        env.set("regs", entry.gpr[reg], reg)
    env.set("pc", entry.rip)
    env.set("eflags", entry.rflags & ~(Rflags.DF | 0x8D5))
    env.set("cc_src", entry.rflags & 0x8D5)
    for name in ("cr0", "cr3", "cr4", "efer"):
        env.set(name, getattr(entry, name))
    for seg, name in _SEGMENTS:
        _set_segment(vcpu, seg, getattr(entry, name))
    env.set("gdt_base", entry.gdtr.base)
    env.set("gdt_limit", entry.gdtr.limit)
    env.set("idt_base", entry.idtr.base)
    env.set("idt_limit", entry.idtr.limit)
    env.set("cpl", 0)
    runtime = vcpu.machine.runtime
    runtime.call("x86_reset_contexts", env.address)
    runtime.call("tlb_flush_all", env.address)
    env.set("mode", env.get("mode") & Mode.PARALLEL)
    runtime.call("x86_update_mode", env.address)


def _set_segment(vcpu: VCpu, seg: Seg, value: Segment) -> None:
    """Access-rights bits 0..15 are bits 8..23 of the descriptor's high doubleword."""
    vcpu.env.set("seg_selector", value.selector, seg)
    vcpu.env.set("seg_base", value.base, seg)
    vcpu.env.set("seg_limit", value.limit, seg)
    vcpu.env.set("seg_attr", (value.attr & 0xF0FF) << 8, seg)
