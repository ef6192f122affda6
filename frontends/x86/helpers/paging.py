"""Page walks: 4-level long mode, PAE, two-level 32-bit paging, paging off (SDM volume 3, chapter 4).

The softmmu calls `x86_translate` on a TLB miss. It answers in the vCPU's run-time struct (walk_gpa: the physical
address of gva, walk_prot: what this mmu index may do there until the next walk, walk_size: bytes of the mapping) or
leaves the guest exception in env. Accessed and dirty bits are set by compare-exchange, and only by an access that is
allowed; walk_prot has PROT_WRITE only when the dirty bit is set, so that the first store walks again.

mmu index 0: supervisor with SMAP enforced (if CR4.SMAP); 1: user; 2: supervisor with EFLAGS.AC set.
"""

from frontends.x86.helpers.env import (
    ACCESS_FETCH,
    ACCESS_WRITE,
    CPU,
    CR0,
    CR0_PG,
    CR0_WP,
    CR3,
    CR4,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER,
    EFER_LMA,
    EFER_NXE,
    ERROR_CODE,
    EXCEPTION,
    EXCEPTION_INDEX,
    EXIT_REASON,
    FAULT_GVA,
    GP,
    LOW_GLOBALS,
    MMU_KERNEL,
    MMU_USER,
    PF,
    PHYS_MASK,
    REASON_EXCEPTION,
)
from frontends.x86.helpers.runtime import ram_hva
from tcg.runtime.layout import CPU as CPU_STRUCT
from tcg.runtime.layout import PROT_EXEC, PROT_READ, PROT_WRITE, TLB_GLOBAL
from tcg.runtime.memory import cas32, cas64, exported, ld32, ld64, native, shl, st32, st64

WALK_GPA = CPU_STRUCT.offset("walk_gpa")
WALK_PROT = CPU_STRUCT.offset("walk_prot")
WALK_SIZE = CPU_STRUCT.offset("walk_size")

PTE_P, PTE_W, PTE_U, PTE_A, PTE_D, PTE_PS, PTE_G = 1, 2, 4, 0x20, 0x40, 0x80, 0x100
PTE_NX = -(1 << 63)
ADDRESS = 0x000FFFFFFFFFF000
RESERVED_HIGH = ADDRESS & ~PHYS_MASK  # address bits above MAXPHYADDR

ERR_P, ERR_W, ERR_U, ERR_RSVD, ERR_I = 1, 2, 4, 8, 16


@native
def read_entry64(env: int, gpa: int) -> int:
    """A page-table entry; 0 (not present) where there is no RAM."""
    hva = ram_hva(env, gpa)
    if hva == -1:
        return 0
    return ld64(hva)


@native
def read_entry32(env: int, gpa: int) -> int:
    hva = ram_hva(env, gpa)
    if hva == -1:
        return 0
    return ld32(hva)


@native
def mark_entry64(env: int, gpa: int, entry: int, bits: int) -> int:
    """Set accessed/dirty `bits` in the entry read as `entry`; 0 if somebody has changed it in between."""
    if entry & bits == bits:
        return 1
    if cas64(ram_hva(env, gpa), entry, entry | bits) == entry:
        return 1
    return 0


@native
def mark_entry32(env: int, gpa: int, entry: int, bits: int) -> int:
    if entry & bits == bits:
        return 1
    if cas32(ram_hva(env, gpa), entry, entry | bits) == entry:
        return 1
    return 0


@native
def walk_fault(env: int, gva: int, vector: int, error: int) -> int:
    st32(env + EXCEPTION_INDEX, vector)
    st64(env + ERROR_CODE, error)
    st64(env + FAULT_GVA, gva)
    st32(env + EXIT_REASON, REASON_EXCEPTION)
    st32(env + EXCEPTION, 1)
    return 1


@native
def walk_done(env: int, gpa: int, prot: int, size: int) -> int:
    cpu = ld64(env + CPU)
    st64(cpu + WALK_GPA, gpa)
    st64(cpu + WALK_PROT, prot)
    st64(cpu + WALK_SIZE, size)
    return 0


@native
def fault_error(env: int, access: int, mmu_idx: int, error: int) -> int:
    """The page-fault error code (SDM vol. 3, 4.7) with W, U and I of this access added to `error`."""
    if access == ACCESS_WRITE:
        error |= ERR_W
    if mmu_idx == MMU_USER:
        error |= ERR_U
    if access == ACCESS_FETCH and (
        ld64(env + CR4) & CR4_SMEP or (ld64(env + EFER) & EFER_NXE and ld64(env + CR4) & CR4_PAE)
    ):
        error |= ERR_I
    return error


@native
def page_prot(env: int, rights: int, mmu_idx: int) -> int:
    """PROT_* for `mmu_idx` of a mapping with W and U of all levels and_ed, NX (PTE_NX) or_ed (SDM vol. 3, 4.6)."""
    user = rights & PTE_U
    if mmu_idx == MMU_USER:
        if user == 0:
            return 0
        prot = PROT_READ | PROT_EXEC
        if rights & PTE_W:
            prot |= PROT_WRITE
    else:
        cr4 = ld64(env + CR4)
        prot = PROT_EXEC
        if not (user and mmu_idx == MMU_KERNEL and cr4 & CR4_SMAP):
            prot |= PROT_READ
            if rights & PTE_W or not ld64(env + CR0) & CR0_WP:
                prot |= PROT_WRITE
        if user and cr4 & CR4_SMEP:
            prot &= ~PROT_EXEC
    if rights < 0:  # PTE_NX
        prot &= ~PROT_EXEC
    return prot


@native
def global_flag(env: int, gva: int, leaf: int) -> int:
    """TLB_GLOBAL for a leaf entry that is global; notes whether one is in the lower half (see helper_x86_invlpg)."""
    if not leaf & PTE_G or not ld64(env + CR4) & CR4_PGE:
        return 0
    if gva >= 0:
        st32(env + LOW_GLOBALS, 1)
    return TLB_GLOBAL


@native
def walk_long(env: int, gva: int, access: int, mmu_idx: int, long: int) -> int:
    """4-level (long = 1) or PAE walk; 0 done, 1 fault, 2 somebody changed an entry: walk again."""
    no_nx = 0
    if not ld64(env + EFER) & EFER_NXE:
        no_nx = PTE_NX
    need = 1 << access
    rights = PTE_W | PTE_U
    cr3 = ld64(env + CR3)
    shift = 39
    table = cr3 & ADDRESS
    if not long:
        # PDPTEs have no rights and no accessed bit (SDM vol. 3, table 4-8); PAE's CR3 is 32-byte aligned.
        entry = read_entry64(env, (cr3 & 0xFFFFFFE0) + ((gva >> 30) & 3) * 8)
        if not entry & PTE_P:
            return walk_fault(env, gva, PF, fault_error(env, access, mmu_idx, 0))
        if entry & (RESERVED_HIGH | PTE_NX | 0x1E6):
            return walk_fault(env, gva, PF, fault_error(env, access, mmu_idx, ERR_P | ERR_RSVD))
        table = entry & ADDRESS
        shift = 21
    # The entries on the way, for the accessed bits: at most PML4E, PDPTE, PDE above the leaf.
    gpa0 = gpa1 = gpa2 = entry0 = entry1 = entry2 = 0
    count = 0
    while True:
        gpa = table + ((gva >> shift) & 511) * 8
        entry = read_entry64(env, gpa)
        if not entry & PTE_P:
            return walk_fault(env, gva, PF, fault_error(env, access, mmu_idx, 0))
        reserved = RESERVED_HIGH | no_nx
        leaf = 0
        if shift == 12:
            leaf = 1
        elif shift == 39:
            reserved |= PTE_PS
        elif entry & PTE_PS:
            leaf = 1
            reserved |= shl(1, shift) - 0x2000  # address bits below the page size; bit 12 is PAT
        if not long:
            reserved |= 0x7FF0000000000000  # bits 62:52 are ignored in long mode only
        if entry & reserved:
            return walk_fault(env, gva, PF, fault_error(env, access, mmu_idx, ERR_P | ERR_RSVD))
        rights &= entry | PTE_NX
        if entry < 0:
            rights |= PTE_NX
        if leaf:
            break
        if count == 0:
            gpa0, entry0 = gpa, entry
        elif count == 1:
            gpa1, entry1 = gpa, entry
        else:
            gpa2, entry2 = gpa, entry
        count += 1
        table = entry & ADDRESS
        shift -= 9
    prot = page_prot(env, rights, mmu_idx)
    if not prot & need:
        return walk_fault(env, gva, PF, fault_error(env, access, mmu_idx, ERR_P))
    bits = PTE_A
    if access == ACCESS_WRITE:
        bits |= PTE_D
    if count > 0 and not mark_entry64(env, gpa0, entry0, PTE_A):
        return 2
    if count > 1 and not mark_entry64(env, gpa1, entry1, PTE_A):
        return 2
    if count > 2 and not mark_entry64(env, gpa2, entry2, PTE_A):
        return 2
    if not mark_entry64(env, gpa, entry, bits):
        return 2
    if not (entry | bits) & PTE_D:
        prot &= ~PROT_WRITE
    prot |= global_flag(env, gva, entry)
    size = shl(1, shift)
    return walk_done(env, (entry & ADDRESS & -size) | (gva & (size - 1)), prot, size)


@native
def walk_legacy(env: int, gva: int, access: int, mmu_idx: int) -> int:
    """Two-level 32-bit walk (SDM vol. 3, 4.3), 4 MiB pages with PSE-36; answers as walk_long."""
    need = 1 << access
    pde_gpa = (ld64(env + CR3) & 0xFFFFF000) + ((gva >> 22) & 1023) * 4
    pde = read_entry32(env, pde_gpa)
    if not pde & PTE_P:
        return walk_fault(env, gva, PF, fault_error(env, access, mmu_idx, 0))
    bits = PTE_A
    if access == ACCESS_WRITE:
        bits |= PTE_D
    if pde & PTE_PS and ld64(env + CR4) & CR4_PSE:
        if pde & (1 << 21):
            return walk_fault(env, gva, PF, fault_error(env, access, mmu_idx, ERR_P | ERR_RSVD))
        prot = page_prot(env, pde & (PTE_W | PTE_U), mmu_idx)
        if not prot & need:
            return walk_fault(env, gva, PF, fault_error(env, access, mmu_idx, ERR_P))
        if not mark_entry32(env, pde_gpa, pde, bits):
            return 2
        if not (pde | bits) & PTE_D:
            prot &= ~PROT_WRITE
        prot |= global_flag(env, gva, pde)
        gpa = (pde & 0xFFC00000) | ((pde >> 13) & 0xFF) << 32 | (gva & 0x3FFFFF)
        return walk_done(env, gpa, prot, 1 << 22)
    pte_gpa = (pde & 0xFFFFF000) + ((gva >> 12) & 1023) * 4
    pte = read_entry32(env, pte_gpa)
    if not pte & PTE_P:
        return walk_fault(env, gva, PF, fault_error(env, access, mmu_idx, 0))
    prot = page_prot(env, pde & pte & (PTE_W | PTE_U), mmu_idx)
    if not prot & need:
        return walk_fault(env, gva, PF, fault_error(env, access, mmu_idx, ERR_P))
    if not mark_entry32(env, pde_gpa, pde, PTE_A):
        return 2
    if not mark_entry32(env, pte_gpa, pte, bits):
        return 2
    if not (pte | bits) & PTE_D:
        prot &= ~PROT_WRITE
    prot |= global_flag(env, gva, pte)
    return walk_done(env, (pte & 0xFFFFF000) | (gva & 0xFFF), prot, 1 << 12)


@exported
def x86_translate(env: int, gva: int, access: int, mmu_idx: int) -> int:
    """Walk the guest's page tables for gva; 0: walk_gpa, walk_prot, walk_size are set; 1: the exception is in env.

    access: 0 read, 1 write, 2 fetch. A gva that is not canonical raises #GP(0) in long mode.
    """
    efer = ld64(env + EFER)
    if not ld64(env + CR0) & CR0_PG:
        return walk_done(env, gva & 0xFFFFFFFF, PROT_READ | PROT_WRITE | PROT_EXEC, 1 << 12)
    if efer & EFER_LMA:
        top = gva >> 47
        if top != 0 and top != -1:
            return walk_fault(env, gva, GP, 0)
        while True:
            status = walk_long(env, gva, access, mmu_idx, 1)
            if status != 2:
                return status
    gva &= 0xFFFFFFFF
    if ld64(env + CR4) & CR4_PAE:
        while True:
            status = walk_long(env, gva, access, mmu_idx, 0)
            if status != 2:
                return status
    while True:
        status = walk_legacy(env, gva, access, mmu_idx)
        if status != 2:
            return status
