"""Where the vCPU's state is: byte offsets into env and architectural bits as constants that native code freezes."""

from frontends.x86.state import STATE, Mode
from tcg.runtime.layout import ExitReason, Interrupt

EXIT_REQUEST = STATE.offset("exit_request")
EXCEPTION = STATE.offset("exception")
PC = STATE.offset("pc")
EXIT_REASON = STATE.offset("exit_reason")
EXCEPTION_INDEX = STATE.offset("exception_index")
ERROR_CODE = STATE.offset("error_code")
FAULT_GVA = STATE.offset("fault_gva")
MMU_INDEX = STATE.offset("mmu_index")
HALTED = STATE.offset("halted")
INTERRUPT_REQUEST = STATE.offset("interrupt_request")
MODE = STATE.offset("mode")
CPU = STATE.offset("cpu")
HOST_MXCSR = STATE.offset("host_mxcsr")

REGS = STATE.offset("regs")
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = (REGS + 8 * n for n in range(8))
R11 = REGS + 88
CC_DST = STATE.offset("cc_dst")
CC_SRC = STATE.offset("cc_src")
CC_SRC2 = STATE.offset("cc_src2")
CC_OP = STATE.offset("cc_op")
EFLAGS = STATE.offset("eflags")
DF = STATE.offset("df")
SEG_BASE = STATE.offset("seg_base")
SEG_LIMIT = STATE.offset("seg_limit")
SEG_ATTR = STATE.offset("seg_attr")
SEG_SELECTOR = STATE.offset("seg_selector")
GDT_BASE = STATE.offset("gdt_base")
IDT_BASE = STATE.offset("idt_base")
GDT_LIMIT = STATE.offset("gdt_limit")
IDT_LIMIT = STATE.offset("idt_limit")
CR0 = STATE.offset("cr0")
CR2 = STATE.offset("cr2")
CR3 = STATE.offset("cr3")
CR4 = STATE.offset("cr4")
EFER = STATE.offset("efer")
CPL = STATE.offset("cpl")
INT_SHADOW = STATE.offset("int_shadow")
STAR = STATE.offset("star")
LSTAR = STATE.offset("lstar")
CSTAR = STATE.offset("cstar")
SFMASK = STATE.offset("sfmask")
KERNEL_GS_BASE = STATE.offset("kernel_gs_base")
SYSENTER_CS = STATE.offset("sysenter_cs")
SYSENTER_ESP = STATE.offset("sysenter_esp")
SYSENTER_EIP = STATE.offset("sysenter_eip")
PAT = STATE.offset("pat")
TSC_AUX = STATE.offset("tsc_aux")
TSC_OFFSET = STATE.offset("tsc_offset")
XCR0 = STATE.offset("xcr0")
DR = STATE.offset("dr")
MTRR_PHYS_BASE = STATE.offset("mtrr_phys_base")
MTRR_PHYS_MASK = STATE.offset("mtrr_phys_mask")
MTRR_FIXED = STATE.offset("mtrr_fixed")
MTRR_DEF_TYPE = STATE.offset("mtrr_def_type")
MCG_STATUS = STATE.offset("mcg_status")
MCG_CTL = STATE.offset("mcg_ctl")
MCE_BANKS = STATE.offset("mce_banks")
MCE_BANK_COUNT = STATE.fields["mce_banks"].count // 4
MISC_ENABLE = STATE.offset("misc_enable")
APIC_BASE = STATE.offset("apic_base")
MONITOR_GPA = STATE.offset("monitor_gpa")
CPUID_TABLE = STATE.offset("cpuid_table")
CPUID_COUNT = STATE.offset("cpuid_count")
NMI_BLOCKED = STATE.offset("nmi_blocked")
UNIMPLEMENTED = STATE.offset("unimplemented")
UNIMPLEMENTED_WHAT = STATE.offset("unimplemented_what")
MEM_ERROR = STATE.offset("mem_error")
CONTEXT = STATE.offset("context")
CONTEXT_CLOCK = STATE.offset("context_clock")
LOW_GLOBALS = STATE.offset("low_globals")
CONTEXT_TAG = STATE.offset("context_tag")
CONTEXT_AGE = STATE.offset("context_age")
FPREGS = STATE.offset("fpregs")
FPU_TAGS = STATE.offset("fpu_tags")
FPU_TOP = STATE.offset("fpu_top")
FPU_STATUS = STATE.offset("fpu_status")
FPU_CONTROL = STATE.offset("fpu_control")
FPU_OPCODE = STATE.offset("fpu_opcode")
FPU_IP = STATE.offset("fpu_ip")
FPU_DP = STATE.offset("fpu_dp")
MXCSR = STATE.offset("mxcsr")
XMM = STATE.offset("xmm")
XMM_SIZE = STATE.fields["xmm"].stride
STATE_IMAGE = STATE.offset("state_image")
HOST_FCW = STATE.offset("host_fcw")
X87_FLAGS = STATE.offset("x87_flags")

# Segment registers by number (state.Seg)
ES, CS, SS, DS, FS, GS, LDTR, TR = range(8)

# Exit reasons
REASON_INTERRUPT = int(ExitReason.INTERRUPT)
REASON_EXCEPTION = int(ExitReason.EXCEPTION)
REASON_HALT = int(ExitReason.HALT)
REASON_SHUTDOWN = int(ExitReason.SHUTDOWN)
REASON_REFLOW = int(ExitReason.REFLOW)

INTERRUPT_HARD, INTERRUPT_NMI = int(Interrupt.HARD), int(Interrupt.NMI)

# Vectors (SDM vol. 3, table 6-1)
DE, DB, NMI, BP, OF, BR, UD, NM, DFAULT = range(9)
TS, NP, SS_FAULT, GP, PF = range(10, 15)
MF, AC, MC, XM = range(16, 20)

# RFLAGS bits (state.Rflags), as plain ints
FL_CF, FL_PF, FL_AF, FL_ZF, FL_SF, FL_OF = 0x001, 0x004, 0x010, 0x040, 0x080, 0x800
FL_FIXED = 0x002
FL_TF, FL_IF, FL_DF, FL_IOPL, FL_NT = 0x100, 0x200, 0x400, 0x3000, 0x4000
FL_RF, FL_VM, FL_AC, FL_VIF, FL_VIP, FL_ID = 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000
FL_ARITHMETIC = 0x8D5

# Descriptor attributes in place, bits 8..23 of the high doubleword (state.SegAttr)
AT_A, AT_RW, AT_DC, AT_CODE, AT_S, AT_P, AT_L, AT_DB, AT_G = (
    *(0x100, 0x200, 0x400, 0x800, 0x1000, 0x8000),
    *(0x200000, 0x400000, 0x800000),
)
AT_MASK = 0xF0FF00
DPL_SHIFT = 13

CR0_PE, CR0_MP, CR0_EM, CR0_TS, CR0_ET, CR0_NE, CR0_WP, CR0_AM = 1, 2, 4, 8, 16, 32, 1 << 16, 1 << 18
CR0_NW, CR0_CD, CR0_PG = 1 << 29, 1 << 30, 1 << 31
CR4_VME, CR4_PVI, CR4_TSD, CR4_DE, CR4_PSE, CR4_PAE, CR4_MCE, CR4_PGE, CR4_PCE = (1 << n for n in range(9))
CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_UMIP, CR4_FSGSBASE, CR4_PCIDE, CR4_OSXSAVE, CR4_SMEP, CR4_SMAP = (
    1 << n for n in (9, 10, 11, 16, 17, 18, 20, 21)
)
EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE, EFER_FFXSR = 1, 1 << 8, 1 << 10, 1 << 11, 1 << 14

PHYS_BITS = 40  # MAXPHYADDR as CPUID reports it
PHYS_MASK = (1 << PHYS_BITS) - 1

CODE64_MODE = int(Mode.CODE64)  # in env.mode

# MMU indexes
MMU_KERNEL, MMU_USER, MMU_KERNEL_AC = 0, 1, 2
ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH = 0, 1, 2

# What is not implemented, for env.unimplemented_what (detail in the low half)
UNIMPLEMENTED_MSR_READ, UNIMPLEMENTED_MSR_WRITE, UNIMPLEMENTED_TASK_SWITCH = 1, 2, 3
