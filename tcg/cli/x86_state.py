"""The x86 vCPU's state as a boot protocol, a reset or a monitor wants it: between firmware's values and env's fields."""

from frontends.x86.state import Mode, Reg, Rflags, Seg
from hw.firmware.cpu_entry import CpuEntry, Segment
from tcg.exec.vcpu import VCpu

_SEGMENTS = (
    (Seg.ES, "es"), (Seg.CS, "cs"), (Seg.SS, "ss"), (Seg.DS, "ds"), (Seg.FS, "fs"), (Seg.GS, "gs"),
    (Seg.LDTR, "ldtr"), (Seg.TR, "tr"),
)  # fmt: skip
_RESET = {
    "pat": 0x0007040600070406, "xcr0": 1, "mxcsr": 0x1F80, "host_mxcsr": 0x1F80, "fpu_control": 0x37F, "host_fcw": 0x37F,
    "misc_enable": 1, "mtrr_def_type": 0xC06, "df": 1, "cc_op": 1,
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


def dump(vcpu: VCpu) -> str:
    """The registers as QEMU's `info registers` prints them."""
    env = vcpu.env
    eflags = vcpu.machine.runtime.call("helper_x86_pushf", env.address) & (1 << 64) - 1
    code64 = bool(env.get("mode") & Mode.CODE64)
    width = 16 if code64 else 8
    mask = (1 << 4 * width) - 1
    names = ["RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP"] + [f"R{n}" for n in range(8, 16)]
    if not code64:
        names = [n.replace("R", "E", 1) for n in names[:8]]
    order = (0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15)
    values = [
        f"{name:<3}={env.get('regs', number) & mask:0{width}x}" for name, number in zip(names, order, strict=False)
    ]
    lines = [" ".join(values[n : n + 4]) for n in range(0, len(values), 4)]
    bits = "".join(
        c if eflags >> n & 1 else "-"
        for c, n in (("D", 10), ("O", 11), ("S", 7), ("Z", 6), ("A", 4), ("P", 2), ("C", 0))
    )
    ip = "RIP" if code64 else "EIP"
    lines.append(f"{ip}={env.get('pc') & mask:0{width}x} {'RFL' if code64 else 'EFL'}={eflags:08x} [{bits}] CPL={env.get('cpl')} "
                 f"II={env.get('int_shadow') & 1} A20=1 SMM=0 HLT={env.get('halted')}")  # fmt: skip
    for seg, name in ((0, "ES"), (1, "CS"), (2, "SS"), (3, "DS"), (4, "FS"), (5, "GS"), (6, "LDT"), (7, "TR")):
        lines.append(f"{name:<3}={env.get('seg_selector', seg):04x} {env.get('seg_base', seg) & mask:0{width}x} "
                     f"{env.get('seg_limit', seg):08x} {env.get('seg_attr', seg):08x}")  # fmt: skip
    for name in ("gdt", "idt"):
        lines.append(f"{name.upper()}=     {env.get(name + '_base') & mask:0{width}x} {env.get(name + '_limit'):08x}")
    lines.append(
        f"CR0={env.get('cr0'):08x} CR2={env.get('cr2'):016x} CR3={env.get('cr3'):016x} CR4={env.get('cr4'):08x}"
    )
    lines.append(" ".join(f"DR{n}={env.get('dr', n):016x}" for n in range(4)))
    lines.append(f"DR6={env.get('dr', 6):016x} DR7={env.get('dr', 7):016x}")
    lines.append(f"CCS={env.get('cc_src'):016x} CCD={env.get('cc_dst'):016x} CCO={_cc_name(env.get('cc_op'))}")
    lines.append(f"EFER={env.get('efer'):016x}")
    lines.append(f"FCW={env.get('fpu_control'):04x} FSW={env.get('fpu_status') | env.get('fpu_top') << 11:04x} "
                 f"[ST={env.get('fpu_top')}] FTW={_tags(vcpu):02x} MXCSR={env.get('mxcsr'):08x}")  # fmt: skip
    for n in range(0, 8, 2):
        lines.append(
            " ".join(
                f"FPR{i}={env.get('fpregs', i) & (1 << 64) - 1:016x} {env.get('fpregs', i) >> 64 & 0xFFFF:04x}"
                for i in (n, n + 1)
            )
        )
    for n in range(0, 16, 2):
        lines.append(" ".join(f"XMM{i:02}={env.get('xmm', i):032x}" for i in (n, n + 1)))
    return "\n".join(lines)


def _cc_name(op: int) -> str:
    from frontends.x86.flags import CcOp

    return CcOp(op).name if op in CcOp._value2member_map_ else f"{op}"


def _tags(vcpu: VCpu) -> int:
    return sum((not vcpu.env.get("fpu_tags", n)) << n for n in range(8))
