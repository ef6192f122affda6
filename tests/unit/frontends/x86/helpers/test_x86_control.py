"""Control registers, TLB contexts, MSRs, CPUID, ports, modes."""

import struct

import pytest
from x86guest import CODE32, CODE64_USER, DATA_USER, Fault, G, Guest, P, U, W

from frontends.x86 import cpuid
from frontends.x86.helpers.control import READ_CR8, WRITE_CR8
from frontends.x86.state import Mode, Seg
from tcg.runtime.layout import Callback, ExitReason

M64 = (1 << 64) - 1
PAGE = 0x5000


@pytest.fixture
def guest() -> Guest:
    guest = Guest()
    guest.identity(P | W)
    return guest


def user(guest: Guest, iopl: int = 0) -> None:
    guest.segment(Seg.CS, 0x33, 0, 0xFFFFFFFF, CODE64_USER)
    guest.segment(Seg.SS, 0x2B, 0, 0xFFFFFFFF, DATA_USER)
    guest.set("cpl", 3)
    guest.set("eflags", 2 | iopl << 12)
    guest.update()


def gp(guest: Guest, name: str, *args: int) -> bool:
    with pytest.raises(Fault) as caught:
        guest.helper(name, *args)
    return caught.value.args[:2] == (13, 0)


# --- control registers


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (0, 1 << 32 | 0x80050033),
        (0, 0x80050032),  # PG without PE
        (0, 0xA0050033),  # NW without CD
        (0, 0x00050033),  # PG off in 64-bit mode
        (3, 1 << 40),
        (3, 1 << 63 | 0x1000),  # no-flush without PCIDE
        (4, 0x680),  # PAE off in long mode
        (4, 0x6A0 | 1 << 13),  # VMXE is not there
        (8, 16),
    ],
)
def test_refused_values(guest: Guest, number: int, value: int) -> None:
    before = [guest.get(f"cr{n}") for n in (0, 3, 4)]
    assert gp(guest, "write_cr", number, value)
    assert before == [guest.get(f"cr{n}") for n in (0, 3, 4)]


def test_control_registers_need_cpl0(guest: Guest) -> None:
    user(guest)
    for name, args in (
        *(("read_cr", (0,)), ("write_cr", (0, 0x80050033)), ("read_dr", (0,)), ("write_dr", (7, 0)), ("clts", ())),
        *(("lmsw", (0,)), ("invlpg", (0,)), ("invpcid", (2, 0)), ("wbinvd", ()), ("rdmsr", ()), ("wrmsr", ())),
        *(("hlt", (0,)), ("mwait", (0,)), ("monitor", (0,))),
    ):
        assert gp(guest, name, *args), name


def test_unknown_control_and_debug_registers(guest: Guest) -> None:
    guest.set("cr4", guest.get("cr4") | 8)
    for name, args in (("read_cr", (1,)), ("write_cr", (5, 0)), ("read_dr", (4,)), ("read_dr", (9,))):
        with pytest.raises(Fault) as caught:
            guest.helper(name, *args)
        assert caught.value.vector == 6
    guest.set("cr4", guest.get("cr4") & ~8)
    guest.helper("write_dr", 5, 0x155)
    assert guest.helper("read_dr", 7) == 0x555


def test_cr8_is_the_apics(guest: Guest) -> None:
    guest.callbacks[READ_CR8] = lambda a, b, c: 5
    assert guest.helper("read_cr", 8) == 5
    guest.helper("write_cr", 8, 3)
    assert guest.asked[-1] == (WRITE_CR8, 3, 0, 0)


def test_long_mode_is_entered_and_left(guest: Guest) -> None:
    guest.segment(Seg.CS, 0x10, 0, 0xFFFFFFFF, CODE32)
    guest.set("cr0", 0x11)
    guest.set("cr4", 0)
    guest.set("efer", 0x100)
    guest.update()
    assert guest.mode() & (Mode.CODE32 | Mode.CODE64) == Mode.CODE32
    assert gp(guest, "write_cr", 0, 0x80000011)  # LME needs PAE
    guest.helper("write_cr", 4, 0x20)
    guest.helper("write_cr", 0, 0x80000011)
    assert guest.get("efer") == 0x500
    guest.segment(Seg.CS, 0x10, 0, 0xFFFFFFFF, 0xA09B00)
    guest.update()
    assert guest.mode() & Mode.CODE64
    guest.segment(Seg.CS, 0x10, 0, 0xFFFFFFFF, CODE32)
    guest.update()
    guest.helper("write_cr", 0, 0x11)
    assert guest.get("efer") == 0x100


def test_task_switched_flag_selects_checking_variants(guest: Guest) -> None:
    guest.helper("write_cr", 0, guest.get("cr0") | 8)
    assert guest.mode() & Mode.FPU_TRAP
    for kind in (0, 1, 2, 3):
        with pytest.raises(Fault) as caught:
            guest.helper("check_fpu", kind)
        assert caught.value.vector == 7
    guest.helper("clts")
    assert not guest.mode() & Mode.FPU_TRAP
    for kind in (0, 1, 2, 3):
        guest.helper("check_fpu", kind)
    guest.helper("write_cr", 0, guest.get("cr0") & ~2 | 4)
    for kind, vector in ((0, 7), (2, 6), (3, 6)):
        with pytest.raises(Fault) as caught:
            guest.helper("check_fpu", kind)
        assert caught.value.vector == vector
    guest.helper("check_fpu", 1)


def test_smap_and_ac_choose_the_mmu_index(guest: Guest) -> None:
    guest.helper("write_cr", 4, guest.get("cr4") | 1 << 21)
    assert guest.get("mmu_index") == 0
    guest.helper("stac")
    assert guest.get("mmu_index") == 2
    guest.helper("clac")
    assert guest.get("mmu_index") == 0
    user(guest)
    assert guest.get("mmu_index") == 1
    with pytest.raises(Fault) as caught:
        guest.helper("stac")
    assert caught.value.vector == 6


# --- TLB contexts


def probe(guest: Guest, gva: int) -> int | None:
    """gpa of gva as the TLB sees it now."""
    hva = guest.call("tlb_probe", gva, 0, 0)
    return None if hva <= 0 else hva - guest.ram_hva


def space(guest: Guest, gpa: int) -> int:
    """A new address space with `gpa` mapped at PAGE's place in the upper half; its root."""
    root, guest.root = guest.root, guest.new_table()
    guest.map(0xFFFF_8000_0000_0000, gpa)
    new, guest.root = guest.root, root
    return new


GVA = 0xFFFF_8000_0000_0000


def test_cr3_write_without_pcid_flushes(guest: Guest) -> None:
    one, two = space(guest, 0x5000), space(guest, 0x6000)
    guest.helper("write_cr", 3, one)
    assert probe(guest, GVA) == 0x5000
    guest.helper("write_cr", 3, two)
    assert probe(guest, GVA) == 0x6000


def test_pcid_contexts_keep_and_flush(guest: Guest) -> None:
    one, two = space(guest, 0x5000), space(guest, 0x6000)
    guest.helper("write_cr", 3, one)
    guest.helper("write_cr", 4, guest.get("cr4") | 1 << 17)
    guest.helper("write_cr", 3, one | 1)
    assert probe(guest, GVA) == 0x5000
    guest.helper("write_cr", 3, two | 2)
    assert probe(guest, GVA) == 0x6000
    # A stale entry shows that PCID 1 was kept; the architecture lets it be seen until it is flushed.
    entry = one
    for _ in range(3):
        entry = guest.read64(entry + (256 * 8 if entry == one else 0)) & 0xFFFFFFFFFF000
    guest.write64(entry, 0x7000 | P | W)
    guest.helper("write_cr", 3, one | 1 | 1 << 63)
    assert guest.get("cr3") == one | 1
    assert probe(guest, GVA) == 0x5000
    guest.helper("write_cr", 3, one | 1)
    assert probe(guest, GVA) == 0x7000


def test_more_pcids_than_contexts(guest: Guest) -> None:
    spaces = [space(guest, 0x10000 + 0x1000 * n) for n in range(40)]
    guest.helper("write_cr", 3, spaces[0])
    guest.helper("write_cr", 4, guest.get("cr4") | 1 << 17)
    for _ in range(3):
        for n, root in enumerate(spaces):
            guest.helper("write_cr", 3, root | n | 1 << 63)
            assert probe(guest, GVA) == 0x10000 + 0x1000 * n


def descriptor_for_invpcid(guest: Guest, pcid: int, gva: int) -> int:
    guest.write64(0x3000, pcid)
    guest.write64(0x3008, gva)
    return 0x3000


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_invpcid(guest: Guest, kind: int) -> None:
    guest.helper("write_cr", 4, guest.get("cr4") | 1 << 17)
    at = guest.map(GVA, 0x5000)
    guest.helper("write_cr", 3, guest.root | 1)
    assert probe(guest, GVA) == 0x5000
    guest.helper("write_cr", 3, guest.root | 2)
    guest.write64(at, 0x6000 | P | W)
    guest.helper("invpcid", kind, descriptor_for_invpcid(guest, 1, GVA))
    guest.helper("write_cr", 3, guest.root | 1 | 1 << 63)
    assert probe(guest, GVA) == 0x6000


def test_invpcid_checks(guest: Guest) -> None:
    assert gp(guest, "invpcid", 1, descriptor_for_invpcid(guest, 1, 0))  # PCIDE is off
    guest.helper("write_cr", 4, guest.get("cr4") | 1 << 17)
    assert gp(guest, "invpcid", 4, descriptor_for_invpcid(guest, 0, 0))
    assert gp(guest, "invpcid", 2, descriptor_for_invpcid(guest, 1 << 12, 0))
    assert gp(guest, "invpcid", 0, descriptor_for_invpcid(guest, 0, 1 << 47))
    guest.helper("write_cr", 3, guest.root | 5)
    assert gp(guest, "write_cr", 4, 0x680)


def test_invlpg(guest: Guest) -> None:
    at = guest.map(GVA, 0x5000)
    assert probe(guest, GVA) == 0x5000
    guest.write64(at, 0x6000 | P | W)
    assert probe(guest, GVA) == 0x5000
    guest.helper("invlpg", GVA + 0x123)
    assert probe(guest, GVA) == 0x6000


@pytest.mark.parametrize("gva", [GVA, 0x7000_0000_0000])
@pytest.mark.parametrize("flags", [P | W, P | W | G])
def test_invlpg_reaches_global_pages_of_other_pcids(guest: Guest, gva: int, flags: int) -> None:
    guest.helper("write_cr", 4, guest.get("cr4") | 1 << 17)
    at = guest.map(gva, 0x5000, flags)
    for pcid in (1, 2):
        guest.helper("write_cr", 3, guest.root | pcid)
        assert probe(guest, gva) == 0x5000
    guest.write64(at, 0x6000 | flags)
    guest.helper("invlpg", gva)
    assert probe(guest, gva) == 0x6000
    guest.helper("write_cr", 3, guest.root | 1 | 1 << 63)
    if flags & G:
        assert probe(guest, gva) == 0x6000


# --- halting


def test_hlt(guest: Guest) -> None:
    guest.set("int_shadow", 1)
    guest.runtime.call("helper_x86_hlt", guest.env, 0x1234)
    assert (guest.get("pc"), guest.get("halted"), guest.get("int_shadow")) == (0x1234, 1, 0)
    assert (guest.get("exception"), guest.get("exit_reason")) == (1, ExitReason.HALT)


# --- MSRs


def rdmsr(guest: Guest, number: int) -> int:
    guest.set("regs", number, 1)
    guest.helper("rdmsr")
    return guest.get("regs", 2) << 32 | guest.get("regs", 0)


def wrmsr(guest: Guest, number: int, value: int) -> None:
    guest.set("regs", number | 0xABCD << 32, 1)
    guest.set("regs", value & 0xFFFFFFFF | 0x1234 << 32, 0)
    guest.set("regs", value >> 32 | 0x1234 << 32, 2)
    guest.helper("wrmsr")


STORED = [
    *(0x174, 0x175, 0x176, 0x1A0, 0x17A, 0x17B, 0x200, 0x20F, 0x400, 0x424),
    *(0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102),
]


@pytest.mark.parametrize("number", STORED, ids=hex)
def test_stored_msrs(guest: Guest, number: int) -> None:
    wrmsr(guest, number, 0x1234_5678_9ABC)
    assert rdmsr(guest, number) == 0x1234_5678_9ABC
    others = {n: rdmsr(guest, n) for n in STORED if n != number}
    assert not any(value == 0x1234_5678_9ABC for value in others.values())
    assert guest.asked == []


def test_msr_checks(guest: Guest) -> None:
    for number, value in (
        *((0xC0000082, 1 << 47), (0xC0000100, 1 << 63), (0x176, 1 << 47), (0xC0000103, 1 << 32)),
        *((0x277, 0x02), (0x277, 0x08 << 56), (0x2FF, 0x1000), (0x2FF, 2), (0x250, 0x02), (0x401, 1)),
        *((0xC0000080, 1 << 1), (0xC0000080, 0x401)),
    ):
        with pytest.raises(Fault) as caught:
            wrmsr(guest, number, value)
        assert caught.value.args[:2] == (13, 0), hex(number)
    wrmsr(guest, 0x277, 0x0007040600070406)
    assert rdmsr(guest, 0x277) == 0x0007040600070406
    assert rdmsr(guest, 0xFE) == 0x508
    assert rdmsr(guest, 0x179) & 0xFF == 10


def test_efer_nx_changes_what_tables_mean(guest: Guest) -> None:
    at = guest.map(GVA, 0x5000)
    guest.write64(at, 0x5000 | P | 1 << 63)
    assert probe(guest, GVA) == 0x5000
    wrmsr(guest, 0xC0000080, 0x501)
    with pytest.raises(Fault) as caught:
        guest.call("tlb_probe", GVA, 0, 0)
    assert caught.value.args[:2] == (14, 9)


def test_other_msrs_are_asked_for(guest: Guest) -> None:
    def read(number: int, b: int, c: int) -> int:
        guest.set("scratch", 0xFEE0_0900)
        return 1

    guest.callbacks[Callback.MSR_READ] = read
    guest.callbacks[Callback.MSR_WRITE] = lambda number, value, c: 1
    assert rdmsr(guest, 0x1B) == 0xFEE0_0900
    wrmsr(guest, 0x6E0, 0x1_0000_0002)
    assert guest.asked == [(Callback.MSR_READ, 0x1B, 0, 0), (Callback.MSR_WRITE, 0x6E0, 0x1_0000_0002, 0)]
    guest.callbacks.clear()
    with pytest.raises(Fault):
        rdmsr(guest, 0xC001_0015)
    assert guest.get("unimplemented") == 1
    assert guest.get("unimplemented_what") == 1 << 32 | 0xC001_0015


def test_time_stamp(guest: Guest) -> None:
    wrmsr(guest, 0x10, 1 << 50)
    first = rdmsr(guest, 0x10)
    guest.helper("rdtsc")
    second = guest.get("regs", 2) << 32 | guest.get("regs", 0)
    assert 1 << 50 <= first <= second < (1 << 50) + (1 << 40)
    guest.set("tsc_aux", 77)
    guest.helper("rdtscp")
    assert guest.get("regs", 1) == 77
    user(guest)
    guest.helper("rdtsc")
    guest.set("cr4", guest.get("cr4") | 4)
    assert gp(guest, "rdtsc") and gp(guest, "rdtscp")


def test_xcr0(guest: Guest) -> None:
    guest.set("regs", 0, 1)
    with pytest.raises(Fault) as caught:
        guest.helper("xgetbv")
    assert caught.value.vector == 6
    guest.helper("write_cr", 4, guest.get("cr4") | 1 << 18)
    for value, good in ((1, True), (3, True), (2, False), (7, False)):
        guest.set("regs", 0, 1)
        guest.set("regs", value, 0)
        guest.set("regs", 0, 2)
        if good:
            guest.helper("xsetbv")
            guest.helper("xgetbv")
            assert guest.get("regs", 0) == value
        else:
            assert gp(guest, "xsetbv")


# --- CPUID


def load_cpuid(guest: Guest, model: cpuid.CpuModel) -> None:
    data = cpuid.table(cpuid.leaves(model))
    guest.write(0xA00000, data)
    guest.set("cpuid_table", guest.ram_hva + 0xA00000)
    guest.set("cpuid_count", len(data) // cpuid.LEAF.size)


def run_cpuid(guest: Guest, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    guest.set("regs", leaf | 1 << 40, 0)
    guest.set("regs", subleaf, 1)
    guest.helper("cpuid")
    eax, ecx, edx, ebx = (guest.get("regs", n) for n in range(4))
    return eax, ebx, ecx, edx


def test_cpuid(guest: Guest) -> None:
    load_cpuid(guest, cpuid.parse("max"))
    eax, ebx, ecx, edx = run_cpuid(guest, 0)
    assert (eax, struct.pack("<3I", ebx, edx, ecx)) == (0xD, b"AuthenticAMD")
    assert struct.pack("<3I", *run_cpuid(guest, 0x40000000)[1:]) == b"TCGTCGTCGTCG"
    brand = b"".join(struct.pack("<4I", *run_cpuid(guest, 0x80000002 + n)) for n in range(3))
    assert brand.rstrip(b"\0") == b"QEMU TCG CPU version 2.5+"
    assert not run_cpuid(guest, 1)[2] & 1 << 27
    guest.helper("write_cr", 4, guest.get("cr4") | 1 << 18)
    assert run_cpuid(guest, 1)[2] & 1 << 27
    assert run_cpuid(guest, 0xD) == (3, 576, 576, 0)
    assert run_cpuid(guest, 0xD, 1)[0] == 3
    assert run_cpuid(guest, 0xD, 2) == (0, 0, 0, 0)
    assert run_cpuid(guest, 0x7FFF) == run_cpuid(guest, 0xD)  # above the highest
    assert run_cpuid(guest, 0x8FFF_FFFF) == run_cpuid(guest, 0xD)
    assert run_cpuid(guest, 7)[1] & (1 << 7 | 1 << 9 | 1 << 20) == 1 << 7 | 1 << 9 | 1 << 20


def test_cpuid_without_a_table(guest: Guest) -> None:
    assert run_cpuid(guest, 1) == (0, 0, 0, 0)


def test_cpu_models() -> None:
    assert cpuid.parse("qemu64").has("lm") and not cpuid.parse("qemu64").has("bmi1")
    changed = cpuid.parse("qemu64,+bmi1,-cx16,pcid=on").features ^ cpuid.parse("qemu64").features
    assert changed == {"bmi1", "cx16", "pcid"}
    assert cpuid.parse("max,-avx2") == cpuid.parse("max")
    for wrong, hint in (("quemu64", "qemu64"), ("max,+avx", "no feature 'avx'"), ("max,smap=2", "on or off")):
        with pytest.raises(cpuid.CpuError, match=hint):
            cpuid.parse(wrong)


def test_every_leaf_register_fits_and_is_unique() -> None:
    for cpus in (1, 4):
        records = cpuid.leaves(cpuid.parse("max"), cpus, 3)
        assert len({r[:2] for r in records}) == len(records)
        assert all(0 <= v < 1 << 32 for r in records for v in r)


# --- ports


def test_ports(guest: Guest) -> None:
    guest.callbacks[Callback.PORT_READ] = lambda port, size, c: 0xAB
    assert guest.helper("in", 0x1_0060, 1) == 0xAB
    guest.helper("out", 0x80, 0x12345678, 2)
    assert guest.asked == [(Callback.PORT_READ, 0x60, 1, 0), (Callback.PORT_WRITE, 0x80, 2, 0x5678)]


def test_port_permissions(guest: Guest) -> None:
    user(guest)
    assert gp(guest, "in", 0x60, 1)  # no TSS
    guest.segment(Seg.TR, 0x40, 0x9000, 0x67 + 0x2000, 0x8B00)
    guest.write(0x9066, (0x68).to_bytes(2, "little"))
    guest.write(0x9068, b"\xff" * 0x2000)
    assert gp(guest, "out", 0x60, 0, 1)
    guest.write(0x9068 + 0x60 // 8, b"\xf0")
    guest.helper("in", 0x60, 4)
    assert gp(guest, "in", 0x61, 4)  # 0x64 is closed
    guest.segment(Seg.TR, 0x40, 0x9000, 0x68 + 0x60 // 8, 0x8B00)  # the second byte of the word is past the limit
    assert gp(guest, "in", 0x60, 1)
    user(guest, iopl=3)
    guest.helper("in", 0x70, 1)


def test_cli_and_sti_follow_iopl(guest: Guest) -> None:
    user(guest)
    assert gp(guest, "cli") and gp(guest, "sti")
    user(guest, iopl=3)
    guest.helper("sti")
    assert guest.get("eflags") & 0x200
    guest.helper("cli")
    assert not guest.get("eflags") & 0x200


def test_user_pages_need_user_rights_through_the_tlb(guest: Guest) -> None:
    guest.map(GVA, 0x5000, P | W | U)
    user(guest)
    assert guest.call("tlb_probe", GVA, 0, 1) > 0
    with pytest.raises(Fault) as caught:
        guest.call("tlb_probe", 0x200000, 0, 1)
    assert caught.value.args == (14, 5, 0x200000)


def test_microcode_revision(guest: Guest) -> None:
    wrmsr(guest, 0x8B, 5)  # ignored, as an update that is not newer
    assert rdmsr(guest, 0x8B) == 0x01000065
