"""HelperDecls of the x86 system helpers: what the frontend may call, and what the optimizer must assume of it.

Conventions, for all of them:
* The frontend has stored the pc of the instruction (MAY_FAULT does that) and, for helpers that read or write the status
  flags (STATUS below), the lazy flags; after those the flags are in env (CcOp.EFLAGS unless said otherwise).
* A guest exception is left in env (exception, exception_index, error_code, fault_gva); the result is then void.
* A helper of TRANSFERS sets env.pc itself; the form ends its block with goto_ptr of env.pc. One of ENDS may change what
  translation depends on (mode, interrupts, address space): the form ends its block by goto_ptr of next_pc. Forms whose
  helper is in neither set go on in line.
* size: operand size in bytes; asize: address size in bytes; seg: a Seg.
"""

from tcg.ir.block import HelperDecl
from tcg.ir.types import I64, Effect, Type

_ENV = Effect.READS_ENV | Effect.WRITES_ENV
_MEM = Effect.READS_MEM | Effect.WRITES_MEM
_SYS = _ENV | _MEM | Effect.MAY_FAULT | Effect.SIDE

HELPERS: dict[str, HelperDecl] = {}


def _helper(name: str, args: int, ret: Type | None, effects: Effect) -> HelperDecl:
    decl = HelperDecl(f"x86_{name}", (I64,) * args, ret, effects)
    HELPERS[decl.name] = decl
    return decl


# --- flags ------------------------------------------------------------------------------------------------------------
# The six status flags at their RFLAGS places, from cc_* in env; env is not changed.
COMPUTE_EFLAGS = _helper("compute_eflags", 0, I64, Effect.READS_ENV)
# RFLAGS as PUSHF stores it (RF and VM clear).
PUSHF = _helper("pushf", 0, I64, Effect.READS_ENV)
POPF = _helper("popf", 2, None, _SYS)  # (value, size)
CLI = _helper("cli", 0, None, _SYS)
STI = _helper("sti", 0, None, _SYS)
CLAC = _helper("clac", 0, None, _SYS)
STAC = _helper("stac", 0, None, _SYS)

# --- segments and descriptor tables -----------------------------------------------------------------------------------
LOAD_SEG = _helper("load_seg", 2, None, _SYS)  # (seg, selector): MOV Sreg, POP Sreg, LDS and kin
LAR = _helper("lar", 2, I64, _SYS)  # (selector, old destination) -> destination; sets ZF
LSL = _helper("lsl", 2, I64, _SYS)  # the same
VERR = _helper("verr", 1, None, _SYS)  # (selector); sets ZF
VERW = _helper("verw", 1, None, _SYS)
LLDT = _helper("lldt", 1, None, _SYS)
LTR = _helper("ltr", 1, None, _SYS)
LGDT = _helper("lgdt", 2, None, _SYS)  # (limit, base)
LIDT = _helper("lidt", 2, None, _SYS)
SWAPGS = _helper("swapgs", 0, None, _SYS)
RDBASE = _helper("rdbase", 1, I64, _SYS)  # (seg): RDFSBASE, RDGSBASE; the frontend truncates
WRBASE = _helper("wrbase", 2, None, _SYS)  # (seg, value)

# --- control transfers ------------------------------------------------------------------------------------------------
FAR_JMP = _helper("far_jmp", 4, None, _SYS)  # (selector, offset, size, next_pc)
FAR_CALL = _helper("far_call", 4, None, _SYS)
FAR_RET = _helper("far_ret", 2, None, _SYS)  # (size, bytes to drop)
IRET = _helper("iret", 1, None, _SYS)  # (size)
INT = _helper("int", 3, None, _SYS)  # (vector, next_pc, kind: 0 INT n, 1 INT3 and INTO, 2 INT1)
SYSCALL = _helper("syscall", 1, None, _SYS)  # (next_pc)
SYSRET = _helper("sysret", 1, None, _SYS)  # (size)
SYSENTER = _helper("sysenter", 0, None, _SYS)
SYSEXIT = _helper("sysexit", 1, None, _SYS)  # (size)
HLT = _helper("hlt", 1, None, _SYS)  # (next_pc): leaves the block (env.exception is set) unless it faults
MWAIT = _helper("mwait", 1, None, _SYS)  # (next_pc): the same, or a no-op when the monitor is not armed
MONITOR = _helper("monitor", 1, None, _SYS)  # (gva)

# --- control, debug, model-specific registers -------------------------------------------------------------------------
READ_CR = _helper("read_cr", 1, I64, _SYS)  # (number)
WRITE_CR = _helper("write_cr", 2, None, _SYS)  # (number, value)
READ_DR = _helper("read_dr", 1, I64, _SYS)
WRITE_DR = _helper("write_dr", 2, None, _SYS)
CLTS = _helper("clts", 0, None, _SYS)
LMSW = _helper("lmsw", 1, None, _SYS)
INVLPG = _helper("invlpg", 1, None, _SYS)  # (gva)
INVPCID = _helper("invpcid", 2, None, _SYS)  # (type, gva of the descriptor)
WBINVD = _helper("wbinvd", 0, None, _SYS)  # WBINVD, INVD: the privilege check
RDMSR = _helper("rdmsr", 0, None, _SYS)  # ECX -> EDX:EAX
WRMSR = _helper("wrmsr", 0, None, _SYS)
RDTSC = _helper("rdtsc", 0, None, _SYS)  # -> EDX:EAX
RDTSCP = _helper("rdtscp", 0, None, _SYS)  # -> EDX:EAX, ECX
RDPMC = _helper("rdpmc", 0, None, _SYS)
RDPID = _helper("rdpid", 0, I64, _SYS)
XGETBV = _helper("xgetbv", 0, None, _SYS)
XSETBV = _helper("xsetbv", 0, None, _SYS)
CPUID = _helper("cpuid", 0, None, _SYS)  # EAX, ECX -> EAX, EBX, ECX, EDX

# --- ports and strings ------------------------------------------------------------------------------------------------
IN = _helper("in", 2, I64, _SYS)  # (port, size) -> value
OUT = _helper("out", 3, None, _SYS)  # (port, value, size)
# Repeated string instructions give 0 when done, 1 when interrupted with the registers advanced: exit(INTERRUPT) at
# this pc. base: the source segment's base (0 in 64-bit mode but for FS and GS); ES's base is read from env.
REP_MOVS = _helper("rep_movs", 3, I64, _SYS)  # (size, asize, base)
REP_STOS = _helper("rep_stos", 2, I64, _SYS)  # (size, asize)
REP_LODS = _helper("rep_lods", 3, I64, _SYS)
# CMPS and SCAS set cc_op, cc_dst, cc_src when at least one element was compared (status_out UNKNOWN).
REP_CMPS = _helper("rep_cmps", 4, I64, _SYS)  # (size, asize, base, repne: 0 or 1)
REP_SCAS = _helper("rep_scas", 3, I64, _SYS)  # (size, asize, repne)
# INS and OUTS, once (rep 0) or repeated (rep 1).
INS = _helper("ins", 3, I64, _SYS)  # (size, asize, rep)
OUTS = _helper("outs", 4, I64, _SYS)  # (size, asize, base, rep)

# --- floating-point state ---------------------------------------------------------------------------------------------
CHECK_FPU = _helper("check_fpu", 1, None, _SYS)  # (0 x87, 1 WAIT, 2 MMX, 3 SSE): #NM, #UD by CR0 and CR4
FXSAVE = _helper("fxsave", 2, None, _SYS)  # (gva, 1: the 64-bit form)
FXRSTOR = _helper("fxrstor", 2, None, _SYS)
XSAVE = _helper("xsave", 3, None, _SYS)  # (gva, 1: the 64-bit form, 0 XSAVE, 1 XSAVEOPT, 2 XSAVEC)
XRSTOR = _helper("xrstor", 2, None, _SYS)
FNSAVE = _helper("fnsave", 2, None, _SYS)  # (gva, size 2 or 4)
FRSTOR = _helper("frstor", 2, None, _SYS)
FNSTENV = _helper("fnstenv", 2, None, _SYS)
FLDENV = _helper("fldenv", 2, None, _SYS)
FNINIT = _helper("fninit", 0, None, _SYS)
LDMXCSR = _helper("ldmxcsr", 1, None, _SYS)  # (value); ends the block: the mode may change
STMXCSR = _helper("stmxcsr", 0, I64, _SYS)

# --- bits and random numbers (helpers.bits) ---------------------------------------------------------------------------
CRC32C = _helper("crc32c", 3, I64, Effect.NONE)  # (crc, value, size) -> crc
PDEP = _helper("pdep", 2, I64, Effect.NONE)  # (source, mask)
PEXT = _helper("pext", 2, I64, Effect.NONE)
RANDOM = _helper("random", 0, I64, Effect.SIDE)  # 64 random bits

STATUS = frozenset(
    d.name for d in (COMPUTE_EFLAGS, PUSHF, POPF, LAR, LSL, VERR, VERW, IRET, INT, SYSCALL, SYSRET, REP_CMPS, REP_SCAS)
)
TRANSFERS = frozenset(d.name for d in (FAR_JMP, FAR_CALL, FAR_RET, IRET, INT, SYSCALL, SYSRET, SYSENTER, SYSEXIT))
ENDS = frozenset(
    d.name
    for d in (
        *(POPF, STI, CLAC, STAC, LOAD_SEG, WRITE_CR, WRITE_DR, CLTS, LMSW, INVLPG, INVPCID, WRMSR, XSETBV, HLT, MWAIT),
        *(OUT, OUTS, INS, LDMXCSR, FXRSTOR, XRSTOR),
    )
)
