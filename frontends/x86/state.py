"""The x86 vCPU's architectural state in env, declared once (Intel SDM volume 1, section 3.2; volume 3, chapter 2).

Flags are lazy: CF, PF, AF, ZF, SF, OF follow from cc_op, cc_dst, cc_src, cc_src2 (see `flags`); `eflags` holds every
other bit of RFLAGS (with those six and DF clear); DF is `df` (+1 or -1).
"""

from enum import IntEnum, IntFlag

from tcg.runtime.layout import ENV, ENV_LIMIT, GUEST_BASE
from tcg.runtime.struct import field

XMM_STRIDE = 32  # room for YMM (the x86-whole issue); XMM is the low half


class Reg(IntEnum):
    """General registers by encoding number."""

    RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
    R8, R9, R10, R11, R12, R13, R14, R15 = range(8, 16)


class Seg(IntEnum):
    """Segment registers by encoding number; LDTR and TR share the descriptor cache's shape."""

    ES, CS, SS, DS, FS, GS, LDTR, TR = range(8)


class SegAttr(IntFlag):
    """Descriptor attributes as bits 8..23 of the descriptor's high doubleword (SDM vol. 3, 3.4.5), kept in place."""

    A = 1 << 8
    RW = 1 << 9  # data: writable; code: readable
    DC = 1 << 10  # data: expand-down; code: conforming
    CODE = 1 << 11
    S = 1 << 12
    DPL = 3 << 13
    P = 1 << 15
    AVL = 1 << 20
    L = 1 << 21
    DB = 1 << 22
    G = 1 << 23


class Rflags(IntFlag):
    CF, FIXED1, PF, AF, ZF, SF, TF, IF, DF, OF = (1 << n for n in (0, 1, 2, 4, 6, 7, 8, 9, 10, 11))
    IOPL = 3 << 12
    NT, RF, VM, AC, VIF, VIP, ID = (1 << n for n in (14, 16, 17, 18, 19, 20, 21))


ARITHMETIC = 0x8D5  # CF PF AF ZF SF OF

STATE = ENV.extend(
    "X86Env",
    field("regs", 8, "RAX..R15 by encoding number", count=16),
    field("cc_dst", 8, "lazy flags: result"),
    field("cc_src", 8, "lazy flags: source (or the flags themselves for CcOp.EFLAGS)"),
    field("cc_src2", 8, "lazy flags: carry in of ADC/SBB, overflow of ADCX/ADOX"),
    field("cc_op", 4, "lazy flags: a CcOp"),
    field("eflags", 4, "RFLAGS without the six arithmetic bits and DF"),
    field("df", 8, "+1 or -1 (as 64-bit two's complement)"),
    field("seg_base", 8, "by Seg", count=8),
    field("seg_limit", 4, "in bytes, granularity applied, by Seg", count=8),
    field("seg_attr", 4, "SegAttr by Seg (0: null)", count=8),
    field("seg_selector", 4, "16-bit selector by Seg", count=8),
    field("gdt_base", 8),
    field("idt_base", 8),
    field("gdt_limit", 4),
    field("idt_limit", 4),
    field("cr0", 8),
    field("cr2", 8),
    field("cr3", 8),
    field("cr4", 8),
    field("efer", 8),
    field("cpl", 4),
    field("int_shadow", 4, "interrupts held off for one instruction (MOV SS, STI)"),
    field("star", 8),
    field("lstar", 8),
    field("cstar", 8),
    field("sfmask", 8),
    field("kernel_gs_base", 8),
    field("sysenter_cs", 8),
    field("sysenter_esp", 8),
    field("sysenter_eip", 8),
    field("pat", 8),
    field("tsc_aux", 8),
    field("tsc_offset", 8, "guest TSC = host clock + offset"),
    field("xcr0", 8),
    field("dr", 8, count=8),
    field("mtrr_phys_base", 8, count=8),
    field("mtrr_phys_mask", 8, count=8),
    field("mtrr_fixed", 8, count=11),
    field("mtrr_def_type", 8),
    field("mcg_status", 8),
    field("mcg_ctl", 8),
    field("mce_banks", 8, "IA32_MCi_CTL, STATUS, ADDR, MISC of each bank", count=40),
    field("misc_enable", 8),
    field("apic_base", 8),
    field("monitor_gpa", 8),
    field("cpuid_table", 8, "hva of the CPUID leaves (frontends.x86.cpuid.LEAF records)"),
    field("cpuid_count", 4, "number of records"),
    field("nmi_blocked", 4, "an NMI handler runs: no further NMI until IRET"),
    field("unimplemented", 8, "times the guest asked for something that is not there (answered by an exception)"),
    field("unimplemented_what", 8, "the last of them: UNIMPLEMENTED_* << 32 | detail"),
    field("mem_error", 8, "scratch of system helpers: vector of a failed implicit access"),
    field("context", 4, "current TLB context: slot of context_tag"),
    field("context_clock", 4, "LRU clock of context_age"),
    field("low_globals", 4, "nonzero: a global page below 2^63 may be cached (INVLPG there concerns every context)"),
    field("context_tag", 4, "PCID + 1 of each TLB context, 0: free", count=16),
    field("context_age", 4, "context_clock when last switched to", count=16),
    # FPU: physical registers; ST(i) is fpregs[(fpu_top + i) & 7]. MMn is the low half of fpregs[n].
    field("fpregs", 16, "80-bit values in 16-byte slots", count=8),
    field("fpu_tags", 1, "1: empty, by physical register", count=8),
    field("fpu_top", 4, "0..7"),
    field("fpu_status", 4, "FSW without TOP"),
    field("fpu_control", 4, "FCW"),
    field("fpu_opcode", 4),
    field("fpu_ip", 8),
    field("fpu_dp", 8),
    field("mxcsr", 4, "control and mask bits as the guest wrote them; sticky flags may be fresher in the host's MXCSR"),
    field("fpu_pad", 4),
    field("xmm", 16, "XMM0..15", count=16, stride=XMM_STRIDE, align=64),
    field("state_image", 8, "FXSAVE, XSAVE, FNSAVE images on their way", count=80, align=64),
    field("xmm_t0", 16, "scratch vectors of helpers", count=4),
    base=GUEST_BASE,
    limit=ENV_LIMIT,
)


class Mode(IntFlag):
    """All of the vCPU's state that translation depends on (env.mode); selects the pattern root and keys blocks."""

    CODE64 = 1  # CS.L: 64-bit code
    CODE32 = 2  # CS.D: 32-bit default sizes (neither: 16-bit)
    SEGMENTED = 4  # DS, ES or SS has a base other than 0, CS too, or a limit that is not flat (legacy modes)
    FPU_TRAP = 8  # CR0.EM or CR0.TS: floating-point instructions take the checking variants
    FP_UNMASKED = 16  # MXCSR has an exception unmasked: SSE arithmetic checks after each operation
    PARALLEL = 32  # more than one vCPU: locked instructions use host atomics
    STEP = 64  # RFLAGS.TF: one instruction a block, then #DB
    PROTECTED = 128  # CR0.PE
    STACK32 = 256  # SS.B (legacy modes)
    NO_SSE = 512  # CR4.OSFXSR clear: SSE instructions raise #UD
