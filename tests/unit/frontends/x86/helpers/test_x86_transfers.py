"""Fast system calls, far transfers, interrupt returns, segment loads: results, checks, error codes."""

import pytest
from x86guest import (
    CODE32,
    CODE32_USER,
    CODE64,
    CODE64_USER,
    DATA,
    DATA_USER,
    Fault,
    Guest,
    P,
    U,
    W,
    descriptor,
)

from frontends.x86.state import Mode, Seg

GDT = 0x8000
STACK = 0x1F000
# selectors
K64, KDATA, K32, UDATA, U64, U32, CONFORMING, TSS_SEL, GATE = 0x10, 0x18, 0x20, 0x2B, 0x33, 0x3B, 0x40, 0x48, 0x58
ABSENT, READONLY, EXECONLY = 0x68, 0x70, 0x78
M64 = (1 << 64) - 1


@pytest.fixture
def guest() -> Guest:
    guest = Guest()
    guest.identity(P | W | U)
    guest.set_gdt(
        *(0, 0, descriptor(0, 0xFFFFF, CODE64), descriptor(0, 0xFFFFF, DATA), descriptor(0, 0xFFFFF, CODE32)),
        *(descriptor(0, 0xFFFFF, DATA_USER), descriptor(0, 0xFFFFF, CODE64_USER), descriptor(0, 0xFFFFF, CODE32_USER)),
        descriptor(0, 0xFFFFF, 0xA09E00),
        *(descriptor(0x9000, 0x67, 0x8900), 0),
        *(0x0000_EC00_0010_5678, 0),  # 64-bit call gate, DPL 3, to K64:5678
        *(descriptor(0, 0xFFFFF, 0xC01200), descriptor(0x1234, 0x10, 0x9000), descriptor(0, 0xFFFFF, 0xC09800)),
    )
    guest.segment(Seg.TR, TSS_SEL, 0x9000, 0x67, 0x8B00)
    guest.write64(0x9004, 0x2F000)
    guest.set("regs", STACK, 4)
    guest.set("pc", 0x401000)
    guest.set("star", 0x0023 << 48 | 0x0010 << 32)
    guest.set("lstar", 0xFFFF_FFFF_8100_0000)
    guest.set("cstar", 0xFFFF_FFFF_8200_0000)
    guest.set("sfmask", 0x47700)
    return guest


def user(guest: Guest, code: int = U64, attr: int = CODE64_USER) -> None:
    guest.segment(Seg.CS, code, 0, 0xFFFFFFFF, attr)
    guest.segment(Seg.SS, UDATA, 0, 0xFFFFFFFF, DATA_USER)
    guest.set("cpl", 3)
    guest.update()


def fault(guest: Guest, name: str, *args: int) -> tuple[int, int]:
    before = [guest.get("regs", n) for n in range(16)], guest.get("pc"), guest.get("cpl")
    with pytest.raises(Fault) as caught:
        guest.helper(name, *args)
    assert before == ([guest.get("regs", n) for n in range(16)], guest.get("pc"), guest.get("cpl"))
    return caught.value.vector, caught.value.error


# --- SYSCALL, SYSRET --------------------------------------------------------------------------------------------------


def test_syscall_and_sysret(guest: Guest) -> None:
    user(guest)
    guest.set("eflags", 0x40302)  # AC IF TF
    guest.set("cc_src", 0x41)
    guest.helper("syscall", 0x401002)
    assert guest.get("pc") == 0xFFFF_FFFF_8100_0000
    assert guest.get("regs", 1) == 0x401002
    assert guest.get("regs", 11) == 0x40343
    assert guest.get("eflags") == 2
    assert guest.helper("compute_eflags") == 0x41
    assert (guest.get("cpl"), guest.get("mmu_index")) == (0, 0)
    assert [guest.get("seg_selector", s) for s in (Seg.CS, Seg.SS)] == [0x10, 0x18]
    assert guest.mode() == Mode.CODE64 | Mode.PROTECTED
    guest.helper("sysret", 8)
    assert guest.get("pc") == 0x401002
    assert (guest.get("cpl"), guest.get("mmu_index")) == (3, 1)
    assert [guest.get("seg_selector", s) for s in (Seg.CS, Seg.SS)] == [0x33, 0x2B]
    assert guest.get("eflags") == 0x40302
    assert guest.mode() & (Mode.STEP | Mode.CODE64) == Mode.STEP | Mode.CODE64


def test_syscall_from_compatibility_mode(guest: Guest) -> None:
    user(guest, U32, CODE32_USER)
    guest.helper("syscall", 0x401002)
    assert guest.get("pc") == 0xFFFF_FFFF_8200_0000
    guest.set("regs", 0x1_0040_1002, 1)
    guest.helper("sysret", 4)
    assert guest.get("pc") == 0x401002
    assert guest.get("seg_selector", Seg.CS) == 0x23
    assert guest.mode() & (Mode.CODE64 | Mode.CODE32) == Mode.CODE32


def test_syscall_checks(guest: Guest) -> None:
    guest.set("regs", 1 << 47, 1)
    assert fault(guest, "sysret", 8) == (13, 0)
    guest.set("regs", 0, 1)
    user(guest)
    assert fault(guest, "sysret", 8) == (13, 0)
    guest.set("efer", guest.get("efer") & ~1)
    assert fault(guest, "syscall", 0x401002) == (6, 0)
    assert fault(guest, "sysret", 8) == (6, 0)


def test_sysenter_and_sysexit(guest: Guest) -> None:
    user(guest, U32, CODE32_USER)
    assert fault(guest, "sysenter") == (13, 0)
    guest.set("sysenter_cs", 0x10)
    guest.set("sysenter_esp", 0x5000)
    guest.set("sysenter_eip", 0xFFFF_FFFF_8300_0000)
    guest.helper("sysenter")
    assert (guest.get("pc"), guest.get("regs", 4), guest.get("cpl")) == (0xFFFF_FFFF_8300_0000, 0x5000, 0)
    guest.set("regs", 0x401000, 2)
    guest.set("regs", 0x7000, 1)
    guest.helper("sysexit", 8)
    assert (guest.get("pc"), guest.get("regs", 4), guest.get("cpl")) == (0x401000, 0x7000, 3)
    assert [guest.get("seg_selector", s) for s in (Seg.CS, Seg.SS)] == [0x33, 0x3B]


# --- IRET -------------------------------------------------------------------------------------------------------------


def push_frame(guest: Guest, *values: int, size: int = 8) -> None:
    for n, value in enumerate(values):
        guest.write(STACK + size * n, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))


def test_iretq_to_user(guest: Guest) -> None:
    push_frame(guest, 0x402000, U64, 0x3202 | 0x41 | 0x400, 0x7FF0, UDATA)
    guest.segment(Seg.DS, KDATA, 0, 0xFFFFFFFF, DATA)
    guest.helper("iret", 8)
    assert (guest.get("pc"), guest.get("cpl"), guest.get("regs", 4)) == (0x402000, 3, 0x7FF0)
    assert guest.get("eflags") == 0x3202
    assert guest.get("df") == M64
    assert guest.helper("compute_eflags") == 0x41
    assert guest.get("seg_selector", Seg.DS) == 0  # DPL 0 is not for CPL 3
    assert guest.get("seg_attr", Seg.DS) == 0


def test_iretq_same_level_pops_the_stack_too(guest: Guest) -> None:
    push_frame(guest, 0x402000, K64, 2, 0x7FF0, 0)
    guest.helper("iret", 8)
    assert (guest.get("pc"), guest.get("cpl"), guest.get("regs", 4)) == (0x402000, 0, 0x7FF0)
    assert guest.get("seg_selector", Seg.SS) == 0


def test_iretq_to_compatibility_mode(guest: Guest) -> None:
    push_frame(guest, 0x402000, U32, 0x202, 0xAAAA_0000_7FF0, UDATA)
    guest.helper("iret", 8)
    assert guest.get("regs", 4) == 0x7FF0
    assert guest.mode() & (Mode.CODE64 | Mode.CODE32 | Mode.STACK32) == Mode.CODE32 | Mode.STACK32


@pytest.mark.parametrize(
    ("cs", "ss", "expected"),
    [
        (0, UDATA, (13, 0)),
        (U64, 0, (13, 0)),
        (U64, 3, (13, 0)),
        (KDATA, KDATA, (13, KDATA)),
        (U64, KDATA, (13, KDATA)),
        (U64, UDATA & ~3 | 1, (13, UDATA & ~3)),
        (0x208, UDATA, (13, 0x208)),
    ],
)
def test_iretq_checks(guest: Guest, cs: int, ss: int, expected: tuple[int, int]) -> None:
    push_frame(guest, 0x402000, cs, 2, 0x7FF0, ss)
    assert fault(guest, "iret", 8) == expected


def test_iret_pc_not_canonical_and_nested_task(guest: Guest) -> None:
    push_frame(guest, 1 << 47, U64, 2, 0x7FF0, UDATA)
    assert fault(guest, "iret", 8) == (13, 0)
    guest.set("eflags", 0x4002)
    assert fault(guest, "iret", 8) == (13, 0)


@pytest.mark.parametrize(
    ("cpl", "iopl", "changed"),
    [(0, 0, 0x3000 | 0x200), (3, 0, 0), (3, 3, 0x200)],
)
def test_flags_that_iret_and_popf_may_change(guest: Guest, cpl: int, iopl: int, changed: int) -> None:
    """IOPL at CPL 0 only, IF at CPL <= IOPL; NT, AC, ID, TF, DF and the status flags always."""
    if cpl == 3:
        user(guest)
    always = 0x8D5 | 0x100 | 0x400 | 0x4000 | 0x40000 | 0x200000
    guest.set("eflags", 2 | iopl << 12)
    guest.helper("popf", 0xFFFF_FFFF, 8)
    expected = always | changed | 2 | iopl << 12
    assert guest.helper("pushf") == expected
    guest.helper("popf", 0, 2)  # a 16-bit POPF leaves AC and ID
    assert guest.helper("pushf") == expected & ~0xFFFF | 2 | (iopl << 12 if cpl else 0) | (0x200 & expected & ~changed)


# --- far JMP, CALL, RET -----------------------------------------------------------------------------------------------


def test_far_jmp_between_modes(guest: Guest) -> None:
    guest.helper("far_jmp", K32, 0x1_0000_4000, 4, 0)
    assert guest.get("pc") == 0x4000
    assert guest.mode() & (Mode.CODE64 | Mode.CODE32) == Mode.CODE32
    guest.helper("far_jmp", K64, 0x5000, 4, 0)
    assert guest.mode() & Mode.CODE64
    assert guest.get("seg_selector", Seg.CS) == K64


def test_far_jmp_checks(guest: Guest) -> None:
    assert fault(guest, "far_jmp", 0, 0, 8, 0) == (13, 0)
    assert fault(guest, "far_jmp", KDATA, 0, 8, 0) == (13, KDATA)
    assert fault(guest, "far_jmp", U64, 0, 8, 0) == (13, U64 & ~3)
    assert fault(guest, "far_jmp", 0x400, 0, 8, 0) == (13, 0x400)
    assert fault(guest, "far_jmp", K64, 1 << 47, 8, 0) == (13, 0)
    user(guest)
    assert fault(guest, "far_jmp", K64, 0, 8, 0) == (13, K64)
    guest.helper("far_jmp", CONFORMING, 0x4000, 8, 0)  # conforming: the CPL stays
    assert (guest.get("cpl"), guest.get("seg_selector", Seg.CS)) == (3, CONFORMING | 3)


def test_far_call_and_return(guest: Guest) -> None:
    guest.helper("far_call", K64, 0x4000, 8, 0x401007)
    assert guest.get("regs", 4) == STACK - 16
    assert [guest.read64(STACK - 16), guest.read64(STACK - 8)] == [0x401007, K64]
    guest.helper("far_ret", 8, 0x20)
    assert (guest.get("pc"), guest.get("regs", 4)) == (0x401007, STACK + 0x20)


def test_call_gate_to_inner_level_and_back(guest: Guest) -> None:
    user(guest)
    guest.helper("far_call", GATE | 3, 0xDEAD, 8, 0x401007)
    assert (guest.get("pc"), guest.get("cpl"), guest.get("regs", 4)) == (0x5678, 0, 0x2F000 - 32)
    assert [guest.read64(0x2EFE0 + 8 * n) for n in range(4)] == [0x401007, U64, STACK, UDATA]
    assert guest.get("seg_selector", Seg.SS) == 0
    guest.helper("far_ret", 8, 0)
    assert (guest.get("pc"), guest.get("cpl"), guest.get("regs", 4)) == (0x401007, 3, STACK)
    assert guest.get("seg_selector", Seg.SS) == UDATA


# --- segment loads ----------------------------------------------------------------------------------------------------


def test_load_data_segment(guest: Guest) -> None:
    guest.helper("load_seg", Seg.FS, READONLY)
    assert guest.get("seg_selector", Seg.FS) == READONLY
    assert guest.get("seg_base", Seg.FS) == 0x1234
    assert guest.get("seg_limit", Seg.FS) == 0x10
    assert guest.read(GDT + READONLY + 5, 1)[0] & 1  # accessed
    guest.helper("load_seg", Seg.FS, 3)
    assert guest.get("seg_attr", Seg.FS) == 0
    assert guest.get("seg_base", Seg.FS) == 0


@pytest.mark.parametrize(
    ("seg", "selector", "cpl", "expected"),
    [
        (Seg.DS, ABSENT, 0, (11, ABSENT)),
        (Seg.SS, ABSENT, 0, (12, ABSENT)),
        (Seg.DS, EXECONLY, 0, (13, EXECONLY)),
        (Seg.DS, TSS_SEL, 0, (13, TSS_SEL)),
        (Seg.DS, KDATA, 3, (13, KDATA)),
        (Seg.DS, KDATA | 3, 0, (13, KDATA)),
        (Seg.DS, 0x4, 0, (13, 4)),
        (Seg.ES, 0x1FF8, 0, (13, 0x1FF8)),
        (Seg.SS, READONLY, 0, (13, READONLY)),
        (Seg.SS, UDATA, 0, (13, UDATA & ~3)),
        (Seg.SS, 3, 3, (13, 0)),
        (Seg.SS, 1, 0, (13, 0)),
    ],
)
def test_segment_load_faults(guest: Guest, seg: int, selector: int, cpl: int, expected: tuple[int, int]) -> None:
    if seg == Seg.SS and selector == ABSENT:
        guest.write64(GDT + ABSENT, descriptor(0, 0xFFFFF, 0xC01200))
    if cpl == 3:
        user(guest)
    assert fault(guest, "load_seg", seg, selector) == expected


def test_null_stack_segment_in_64_bit_mode(guest: Guest) -> None:
    guest.helper("load_seg", Seg.SS, 0)
    assert guest.get("seg_selector", Seg.SS) == 0
    assert guest.get("int_shadow") == 1
    guest.segment(Seg.CS, K32, 0, 0xFFFFFFFF, CODE32)
    assert fault(guest, "load_seg", Seg.SS, 0) == (13, 0)


def zf(guest: Guest) -> bool:
    return bool(guest.helper("compute_eflags") & 0x40)


def test_lar_lsl_verr_verw(guest: Guest) -> None:
    assert guest.helper("lar", K64, 7) == CODE64 | 0xF0000 and zf(guest)
    assert guest.helper("lsl", KDATA, 7) == 0xFFFFFFFF and zf(guest)
    assert guest.helper("lsl", READONLY, 7) == 0x10 and zf(guest)
    assert guest.helper("lar", 0, 7) == 7 and not zf(guest)
    assert guest.helper("lar", GATE, 7) == 0xEC00 and zf(guest)
    assert guest.helper("lsl", GATE, 7) == 7 and not zf(guest)
    assert guest.helper("lsl", TSS_SEL, 7) == 0x67 and zf(guest)
    for selector, readable, writable in ((KDATA, 1, 1), (READONLY, 1, 0), (EXECONLY, 0, 0), (TSS_SEL, 0, 0)):
        guest.helper("verr", selector)
        assert zf(guest) == bool(readable)
        guest.helper("verw", selector)
        assert zf(guest) == bool(writable)
    user(guest)
    assert guest.helper("lar", KDATA, 7) == 7 and not zf(guest)
    guest.helper("verr", KDATA)
    assert not zf(guest)


def test_ltr_and_lldt(guest: Guest) -> None:
    guest.write64(GDT + TSS_SEL + 8, 0xFFFF_8880)
    guest.helper("ltr", TSS_SEL)
    assert guest.get("seg_base", Seg.TR) == 0xFFFF_8880_0000_9000
    assert guest.read(GDT + TSS_SEL + 5, 1)[0] == 0x8B
    assert fault(guest, "ltr", TSS_SEL) == (13, TSS_SEL)  # busy now
    assert fault(guest, "ltr", 0) == (13, 0)
    assert fault(guest, "ltr", KDATA) == (13, KDATA)
    guest.helper("lldt", 0)
    assert guest.get("seg_attr", Seg.LDTR) == 0
    guest.write64(GDT + GATE, descriptor(0xA000, 0xFF, 0x8200))
    guest.helper("lldt", GATE)
    guest.write64(0xA000, descriptor(0x5000, 0xFF, 0xF300))
    guest.helper("load_seg", Seg.GS, 7)
    assert guest.get("seg_base", Seg.GS) == 0x5000
    user(guest)
    assert fault(guest, "lldt", 0) == (13, 0)
    assert fault(guest, "ltr", TSS_SEL) == (13, 0)
    assert fault(guest, "lgdt", 0, 0) == (13, 0)


def test_swapgs_and_bases(guest: Guest) -> None:
    guest.set("seg_base", 0x1111, Seg.GS)
    guest.set("kernel_gs_base", 0x2222)
    guest.helper("swapgs")
    assert (guest.get("seg_base", Seg.GS), guest.get("kernel_gs_base")) == (0x2222, 0x1111)
    assert fault(guest, "rdbase", Seg.GS) == (6, 0)
    guest.set("cr4", guest.get("cr4") | 1 << 16)
    assert guest.helper("rdbase", Seg.GS) == 0x2222
    guest.helper("wrbase", Seg.FS, 0x5000)
    assert guest.get("seg_base", Seg.FS) == 0x5000
    assert fault(guest, "wrbase", Seg.FS, 1 << 47) == (13, 0)
    user(guest)
    assert fault(guest, "swapgs") == (13, 0)
