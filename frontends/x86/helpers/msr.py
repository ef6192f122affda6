"""Model-specific registers, time stamp, CPUID, XCR0 (SDM volume 4; volume 2, RDMSR, CPUID, XSETBV).

What the vCPU itself holds is here; the local APIC's registers, IA32_APIC_BASE and IA32_TSC_DEADLINE belong to a device
and go through the callback, as does any number that is not known here. What that does not know either is #GP(0),
counted.
"""

from frontends.x86.cpuid import LEAF, SUBLEAF_ANY
from frontends.x86.helpers.access import raise_gp, raise_ud, require_cpl0, unimplemented
from frontends.x86.helpers.contexts import reset_contexts
from frontends.x86.helpers.descriptors import canonical
from frontends.x86.helpers.env import (
    CPL,
    CPUID_COUNT,
    CPUID_TABLE,
    CR0,
    CR0_PG,
    CR4,
    CR4_OSXSAVE,
    CR4_TSD,
    CSTAR,
    EFER,
    EFER_FFXSR,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
    FS,
    GS,
    KERNEL_GS_BASE,
    LSTAR,
    MCE_BANK_COUNT,
    MCE_BANKS,
    MCG_CTL,
    MCG_STATUS,
    MISC_ENABLE,
    MTRR_DEF_TYPE,
    MTRR_FIXED,
    MTRR_PHYS_BASE,
    MTRR_PHYS_MASK,
    PAT,
    RAX,
    RBX,
    RCX,
    RDX,
    SEG_BASE,
    SFMASK,
    STAR,
    SYSENTER_CS,
    SYSENTER_EIP,
    SYSENTER_ESP,
    TSC_AUX,
    TSC_OFFSET,
    UNIMPLEMENTED_MSR_READ,
    UNIMPLEMENTED_MSR_WRITE,
    XCR0,
)
from frontends.x86.helpers.mode import x86_update_mode
from frontends.x86.helpers.runtime import ask
from frontends.x86.state import STATE
from tcg.runtime.layout import Callback
from tcg.runtime.memory import exported, ld32, ld64, lsr, native, rdtsc, st64

MSR_READ, MSR_WRITE = int(Callback.MSR_READ), int(Callback.MSR_WRITE)
SCRATCH = STATE.offset("scratch")

IA32_TSC, IA32_UCODE_REV, IA32_MTRRCAP = 0x10, 0x8B, 0xFE
IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP = 0x174, 0x175, 0x176
IA32_MCG_CAP, IA32_MCG_STATUS, IA32_MCG_CTL = 0x179, 0x17A, 0x17B
IA32_MISC_ENABLE, IA32_DEBUGCTL, IA32_PAT, IA32_MTRR_DEF_TYPE = 0x1A0, 0x1D9, 0x277, 0x2FF
IA32_MTRR_PHYSBASE0, IA32_MTRR_FIX64K = 0x200, 0x250
IA32_MC0_CTL = 0x400
IA32_EFER, IA32_STAR, IA32_LSTAR, IA32_CSTAR, IA32_FMASK = range(0xC0000080, 0xC0000085)
IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE, IA32_TSC_AUX = range(0xC0000100, 0xC0000104)
MTRR_CAP = 0x508  # 8 variable ranges, fixed ranges, write-combining
MCG_CAP = MCE_BANK_COUNT | 1 << 8 | 1 << 24  # MCG_CTL_P, MCG_SER_P
UCODE_REVISION = 0x01000065  # as QEMU reports it for an AMD processor
EFER_BITS = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_FFXSR
XCR0_ALLOWED = 3  # x87 and SSE


@native
def guest_tsc(env: int) -> int:
    return rdtsc() + ld64(env + TSC_OFFSET)


@native
def mtrr_fixed_index(number: int) -> int:
    """Index of a fixed-range MTRR into mtrr_fixed, or -1."""
    if number == IA32_MTRR_FIX64K:
        return 0
    if 0x258 <= number <= 0x259:
        return number - 0x257
    if 0x268 <= number <= 0x26F:
        return number - 0x265
    return -1


@native
def msr_place(number: int) -> int:
    """Offset in env of an MSR that is stored as it is, or -1."""
    if number >= IA32_EFER:
        if number == IA32_STAR:
            return STAR
        if number == IA32_LSTAR:
            return LSTAR
        if number == IA32_CSTAR:
            return CSTAR
        if number == IA32_FMASK:
            return SFMASK
        if number == IA32_FS_BASE:
            return SEG_BASE + 8 * FS
        if number == IA32_GS_BASE:
            return SEG_BASE + 8 * GS
        if number == IA32_KERNEL_GS_BASE:
            return KERNEL_GS_BASE
        if number == IA32_TSC_AUX:
            return TSC_AUX
        return -1
    if number == IA32_SYSENTER_CS:
        return SYSENTER_CS
    if number == IA32_SYSENTER_ESP:
        return SYSENTER_ESP
    if number == IA32_SYSENTER_EIP:
        return SYSENTER_EIP
    if number == IA32_PAT:
        return PAT
    if number == IA32_MISC_ENABLE:
        return MISC_ENABLE
    if number == IA32_MCG_STATUS:
        return MCG_STATUS
    if number == IA32_MCG_CTL:
        return MCG_CTL
    if number == IA32_MTRR_DEF_TYPE:
        return MTRR_DEF_TYPE
    if IA32_MTRR_PHYSBASE0 <= number < IA32_MTRR_PHYSBASE0 + 16:
        base = MTRR_PHYS_MASK if number & 1 else MTRR_PHYS_BASE
        return base + 8 * ((number - IA32_MTRR_PHYSBASE0) >> 1)
    if IA32_MC0_CTL <= number < IA32_MC0_CTL + 4 * MCE_BANK_COUNT:
        return MCE_BANKS + 8 * (number - IA32_MC0_CTL)
    fixed = mtrr_fixed_index(number)
    if fixed >= 0:
        return MTRR_FIXED + 8 * fixed
    return -1


@native
def memory_types_ok(value: int, allowed: int) -> int:
    """1 if each byte of value is a memory type in the bit set `allowed`."""
    for n in range(8):
        kind = lsr(value, 8 * n) & 0xFF
        if kind > 7 or not (allowed >> kind) & 1:
            return 0
    return 1


@native
def write_ok(number: int, value: int) -> int:
    """The checks of a stored MSR's new value (0: #GP)."""
    if IA32_LSTAR <= number <= IA32_CSTAR or IA32_FS_BASE <= number <= IA32_KERNEL_GS_BASE:
        return canonical(value)
    if IA32_SYSENTER_ESP <= number <= IA32_SYSENTER_EIP:
        return canonical(value)
    if number == IA32_TSC_AUX:
        return 1 if lsr(value, 32) == 0 else 0
    if number == IA32_PAT:
        return memory_types_ok(value, 0xF3)
    if mtrr_fixed_index(number) >= 0:
        return memory_types_ok(value, 0x73)
    if number == IA32_MTRR_DEF_TYPE:
        return 1 if value & ~0xC07 == 0 and memory_types_ok(value & 7, 0x73) else 0
    if IA32_MC0_CTL <= number < IA32_MC0_CTL + 4 * MCE_BANK_COUNT and number & 3 != 0:
        return 1 if value == 0 else 0
    return 1


@native
def edx_eax(env: int, value: int) -> None:
    st64(env + RAX, value & 0xFFFFFFFF)
    st64(env + RDX, lsr(value, 32))


@exported
def helper_x86_rdmsr(env: int) -> None:
    if not require_cpl0(env):
        return
    number = ld64(env + RCX) & 0xFFFFFFFF
    place = msr_place(number)
    if place >= 0:
        edx_eax(env, ld64(env + place))
    elif number == IA32_EFER:
        edx_eax(env, ld64(env + EFER))
    elif number == IA32_TSC:
        edx_eax(env, guest_tsc(env))
    elif number == IA32_MTRRCAP:
        edx_eax(env, MTRR_CAP)
    elif number == IA32_MCG_CAP:
        edx_eax(env, MCG_CAP)
    elif number == IA32_UCODE_REV:
        edx_eax(env, UCODE_REVISION)
    elif number == IA32_DEBUGCTL:
        edx_eax(env, 0)
    elif ask(env, MSR_READ, number, 0, 0) == 1:
        edx_eax(env, ld64(env + SCRATCH))
    else:
        unimplemented(env, UNIMPLEMENTED_MSR_READ, number)


@native
def write_efer(env: int, value: int) -> None:
    """LMA follows LME and CR0.PG; LME cannot change under paging (SDM vol. 3, 9.8.5)."""
    old = ld64(env + EFER)
    if value & ~EFER_BITS or ((old ^ value) & EFER_LME and ld64(env + CR0) & CR0_PG):
        raise_gp(env, 0)
        return
    st64(env + EFER, (value & ~EFER_LMA) | (old & EFER_LMA))
    if (old ^ value) & EFER_NXE:
        reset_contexts(env)
    x86_update_mode(env)


@exported
def helper_x86_wrmsr(env: int) -> None:
    if not require_cpl0(env):
        return
    number = ld64(env + RCX) & 0xFFFFFFFF
    value = (ld64(env + RAX) & 0xFFFFFFFF) | (ld64(env + RDX) & 0xFFFFFFFF) << 32
    place = msr_place(number)
    if place >= 0:
        if write_ok(number, value):
            st64(env + place, value)
        else:
            raise_gp(env, 0)
    elif number == IA32_EFER:
        write_efer(env, value)
    elif number == IA32_TSC:
        st64(env + TSC_OFFSET, value - rdtsc())
    elif number == IA32_UCODE_REV:
        return
    elif number == IA32_DEBUGCTL:
        # Branch recording is not announced: only "all off" is taken.
        if value != 0:
            unimplemented(env, UNIMPLEMENTED_MSR_WRITE, number)
    elif number == IA32_MTRRCAP or number == IA32_MCG_CAP:
        raise_gp(env, 0)
    elif ask(env, MSR_WRITE, number, value, 0) != 1:
        unimplemented(env, UNIMPLEMENTED_MSR_WRITE, number)


@native
def tsc_allowed(env: int) -> int:
    if ld64(env + CR4) & CR4_TSD and ld32(env + CPL) != 0:
        raise_gp(env, 0)
        return 0
    return 1


@exported
def helper_x86_rdtsc(env: int) -> None:
    if tsc_allowed(env):
        edx_eax(env, guest_tsc(env))


@exported
def helper_x86_rdtscp(env: int) -> None:
    if tsc_allowed(env):
        edx_eax(env, guest_tsc(env))
        st64(env + RCX, ld64(env + TSC_AUX))


@exported
def helper_x86_rdpmc(env: int) -> None:
    """RDPMC: no counter exists."""
    raise_gp(env, 0)


@exported
def helper_x86_rdpid(env: int) -> int:
    return ld64(env + TSC_AUX)


@exported
def helper_x86_xgetbv(env: int) -> None:
    if not ld64(env + CR4) & CR4_OSXSAVE:
        raise_ud(env)
    elif ld64(env + RCX) & 0xFFFFFFFF:
        raise_gp(env, 0)
    else:
        edx_eax(env, ld64(env + XCR0))


@exported
def helper_x86_xsetbv(env: int) -> None:
    if not ld64(env + CR4) & CR4_OSXSAVE:
        raise_ud(env)
        return
    if not require_cpl0(env):
        return
    value = (ld64(env + RAX) & 0xFFFFFFFF) | (ld64(env + RDX) & 0xFFFFFFFF) << 32
    if ld64(env + RCX) & 0xFFFFFFFF or value & ~XCR0_ALLOWED or not value & 1:
        raise_gp(env, 0)
    else:
        st64(env + XCR0, value)


LEAF_LEAF = LEAF.offset("leaf")
LEAF_SUBLEAF = LEAF.offset("subleaf")
LEAF_EAX, LEAF_EBX, LEAF_ECX, LEAF_EDX = (LEAF.offset(r) for r in ("eax", "ebx", "ecx", "edx"))
LEAF_SIZE = LEAF.size
ANY = SUBLEAF_ANY


@native
def find_leaf(env: int, leaf: int, subleaf: int) -> int:
    """hva of the record of (leaf, subleaf), or 0."""
    at = ld64(env + CPUID_TABLE)
    for _ in range(ld32(env + CPUID_COUNT)):
        if ld32(at + LEAF_LEAF) == leaf:
            its = ld32(at + LEAF_SUBLEAF)
            if its == ANY:
                return at
            if its == subleaf:
                return at
        at += LEAF_SIZE
    return 0


@exported
def helper_x86_cpuid(env: int) -> None:
    """CPUID from the table. A basic leaf above the highest gives the highest one's, as Intel's processors do."""
    leaf = ld64(env + RAX) & 0xFFFFFFFF
    subleaf = ld64(env + RCX) & 0xFFFFFFFF
    first = find_leaf(env, leaf & 0xFFFF0000, 0)
    if first == 0 or leaf > ld32(first + LEAF_EAX):
        first = find_leaf(env, 0, 0)
        if first != 0:
            leaf = ld32(first + LEAF_EAX)
    at = find_leaf(env, leaf, subleaf)
    eax = ebx = ecx = edx = 0
    if at != 0:
        eax = ld32(at + LEAF_EAX)
        ebx = ld32(at + LEAF_EBX)
        ecx = ld32(at + LEAF_ECX)
        edx = ld32(at + LEAF_EDX)
    if leaf == 1 and ld64(env + CR4) & CR4_OSXSAVE:
        ecx |= 1 << 27
    st64(env + RAX, eax)
    st64(env + RBX, ebx)
    st64(env + RCX, ecx)
    st64(env + RDX, edx)
