"""Delivery through the IDT: frames, stacks, flags, and what faults on the way (SDM vol. 3, chapter 6)."""

import pytest
from x86guest import CODE32, CODE64, CODE64_USER, DATA, DATA_USER, Fault, Guest, P, U, W, descriptor, gate64

from frontends.x86.state import Mode, Seg
from tcg.runtime.layout import Callback, ExitReason, Interrupt

IDT, GDT, TSS = 0x6000, 0x8000, 0x9000
KERNEL_STACK, IST1 = 0x1F000, 0x2F000
HANDLER = 0x12340
NULL = 0
ATTR_TSS64 = 0x8B00


@pytest.fixture
def guest() -> Guest:
    """CPL 0 in 64-bit mode: GDT (0x10 code, 0x18 data, 0x2B data, 0x33 code for CPL 3), TSS with RSP0 and IST1."""
    guest = Guest()
    guest.identity(P | W)
    guest.map(0x400000, 0x400000, P | W | U, 2)
    guest.set_gdt(
        *(NULL, NULL, descriptor(0, 0xFFFFF, CODE64), descriptor(0, 0xFFFFF, DATA), NULL),
        *(descriptor(0, 0xFFFFF, DATA_USER), descriptor(0, 0xFFFFF, CODE64_USER)),
    )
    guest.set("idt_base", IDT)
    guest.set("idt_limit", 0xFFF)
    for vector in range(256):
        guest.write(IDT + 16 * vector, gate64(0x10, HANDLER + vector))
    guest.segment(Seg.TR, 0x40, TSS, 0x67, ATTR_TSS64)
    guest.write64(TSS + 4, KERNEL_STACK)
    guest.write64(TSS + 36, IST1)
    guest.set("regs", 0x1FFF8, 4)
    guest.set("pc", 0x401000)
    return guest


def user(guest: Guest) -> None:
    guest.segment(Seg.CS, 0x33, 0, 0xFFFFFFFF, CODE64_USER)
    guest.segment(Seg.SS, 0x2B, 0, 0xFFFFFFFF, DATA_USER)
    guest.set("cpl", 3)
    guest.set("regs", 0x404008, 4)
    guest.update()


def raise_(guest: Guest, vector: int, error: int = 0, gva: int = 0) -> int:
    guest.set("exception", 1)
    guest.set("exit_reason", ExitReason.EXCEPTION)
    guest.set("exception_index", vector)
    guest.set("error_code", error)
    guest.set("fault_gva", gva)
    return guest.call("x86_deliver")


def frame(guest: Guest, count: int) -> list[int]:
    rsp = guest.get("regs", 4)
    return [guest.read64(rsp + 8 * n) for n in range(count)]


def test_fault_at_the_same_level(guest: Guest) -> None:
    guest.set("eflags", 0x302)  # IF TF
    guest.set("cc_src", 0x41)
    assert raise_(guest, 13, 0x18) == 0
    assert guest.get("pc") == HANDLER + 13
    # RSP is aligned down to 16 before the frame; RF is set in the image of a fault
    assert guest.get("regs", 4) == 0x1FFF0 - 48
    assert frame(guest, 6) == [0x18, 0x401000, 0x10, 0x10000 | 0x302 | 0x41, 0x1FFF8, 0x18]
    assert guest.get("eflags") == 2
    assert not guest.mode() & Mode.STEP
    assert guest.get("seg_selector", Seg.SS) == 0x18


def test_fault_from_user_switches_stacks(guest: Guest) -> None:
    user(guest)
    assert raise_(guest, 14, 4, 0xDEAD000) == 0
    assert guest.get("cr2") == 0xDEAD000
    assert guest.get("cpl") == 0
    assert guest.get("regs", 4) == KERNEL_STACK - 48
    assert frame(guest, 6) == [4, 0x401000, 0x33, 0x10002, 0x404008, 0x2B]
    assert guest.get("seg_selector", Seg.SS) == 0
    assert guest.get("seg_selector", Seg.CS) == 0x10
    assert guest.get("mmu_index") == 0


def test_ist_is_used_at_any_level(guest: Guest) -> None:
    guest.write(IDT + 16 * 2, gate64(0x10, HANDLER, ist=1))
    assert raise_(guest, 2) == 0
    assert guest.get("regs", 4) == IST1 - 40
    assert frame(guest, 5) == [0x401000, 0x10, 2, 0x1FFF8, 0x18]


def test_trap_gate_keeps_if(guest: Guest) -> None:
    guest.write(IDT + 16 * 3, gate64(0x10, HANDLER, kind=15))
    guest.set("eflags", 0x4202)  # NT IF
    guest.helper("int", 3, 0x401001, 1)
    assert guest.get("eflags") == 0x202
    assert frame(guest, 3) == [0x401001, 0x10, 0x4202]


def test_soft_interrupt_checks_the_gate(guest: Guest) -> None:
    user(guest)
    for kind in (0, 1):
        with pytest.raises(Fault) as caught:
            guest.helper("int", 0x80, 0x401002, kind)
        assert caught.value.args[:2] == (13, 0x80 * 8 + 2)
        assert guest.get("pc") == 0x401000
    guest.write(IDT + 16 * 0x80, gate64(0x10, HANDLER, dpl=3))
    guest.helper("int", 0x80, 0x401002, 0)
    assert frame(guest, 2) == [0x401002, 0x33]
    user(guest)
    guest.helper("int", 1, 0x401001, 2)  # INT1 asks no gate's DPL
    assert guest.get("pc") == HANDLER + 1


@pytest.mark.parametrize(
    ("gate", "fault"),
    [
        (gate64(0x10, HANDLER, present=0), (11, 0x30 * 8 + 2)),
        (gate64(0x10, HANDLER, kind=12), (13, 0x30 * 8 + 2)),
        (gate64(0, HANDLER), (13, 0)),
        (gate64(0x18, HANDLER), (13, 0x18)),
        (gate64(0x100, HANDLER), (13, 0x100)),
        (gate64(0x10, 0x8000_0000_0000), (13, 0)),
    ],
)
def test_bad_gates(guest: Guest, gate: bytes, fault: tuple[int, int]) -> None:
    guest.write(IDT + 16 * 0x30, gate)
    with pytest.raises(Fault) as caught:
        guest.helper("int", 0x30, 0x401002, 0)
    assert caught.value.args[:2] == fault
    assert guest.get("regs", 4) == 0x1FFF8


def test_external_event_sets_ext(guest: Guest) -> None:
    """A bad gate met by a hardware exception: bit 0 of the error code; #NP here is delivered in its place."""
    guest.write(IDT + 16 * 6, gate64(0x10, HANDLER, present=0))
    assert raise_(guest, 6) == 0  # #UD is benign: #NP follows alone
    assert guest.get("pc") == HANDLER + 11
    assert frame(guest, 1) == [6 * 8 + 2 + 1]


@pytest.mark.parametrize(
    ("first", "gate_missing", "double"),
    [(13, True, True), (14, True, True), (0, True, True), (6, True, False), (1, True, False)],
)
def test_double_fault_table(guest: Guest, first: int, gate_missing: bool, double: bool) -> None:
    guest.write(IDT + 16 * first, gate64(0x10, HANDLER, present=0))
    assert raise_(guest, first, 0, 0x5000) == 0
    assert guest.get("pc") == HANDLER + (8 if double else 11)
    assert frame(guest, 1) == [0 if double else first * 8 + 3]


def test_page_fault_while_delivering(guest: Guest) -> None:
    """A page fault on the stack after a contributory exception is delivered alone; after a page fault it doubles."""
    guest.write64(TSS + 4, 0x7000_0000)  # not mapped
    user(guest)
    guest.write(IDT + 16 * 14, gate64(0x10, HANDLER + 14, ist=1))
    guest.write(IDT + 16 * 8, gate64(0x10, HANDLER + 8, ist=1))
    assert raise_(guest, 13, 0x18) == 0
    assert guest.get("pc") == HANDLER + 14
    assert frame(guest, 2) == [2, 0x401000]
    assert guest.get("cr2") == 0x7000_0000 - 8
    user(guest)
    guest.set("pc", 0x401000)
    guest.write(IDT + 16 * 14, gate64(0x10, HANDLER + 14))
    assert raise_(guest, 14, 4, 0x123000) == 0
    assert guest.get("pc") == HANDLER + 8
    assert frame(guest, 1) == [0]


def test_triple_fault(guest: Guest) -> None:
    guest.set("idt_limit", 0)
    assert raise_(guest, 3) == 1
    assert guest.get("exit_reason") == ExitReason.SHUTDOWN
    assert guest.get("regs", 4) == 0x1FFF8


def request(guest: Guest, bits: int, vector: int = 0x41) -> None:
    guest.set("interrupt_request", bits)
    guest.callbacks[Callback.ACKNOWLEDGE] = lambda a, b, c: vector


def test_interrupt(guest: Guest) -> None:
    request(guest, Interrupt.HARD)
    assert guest.call("x86_take_interrupt") == 0
    assert guest.asked == []
    guest.set("eflags", 0x202)
    guest.set("halted", 1)
    guest.set("int_shadow", 1)
    assert guest.call("x86_take_interrupt") == 2
    assert guest.call("x86_take_interrupt") == 1
    assert guest.get("pc") == HANDLER + 0x41
    assert not guest.get("halted")
    assert frame(guest, 3) == [0x401000, 0x10, 0x202]
    assert not guest.get("eflags") & 0x200


def test_interrupt_that_went_away(guest: Guest) -> None:
    request(guest, Interrupt.HARD, -1)
    guest.set("eflags", 0x202)
    assert guest.call("x86_take_interrupt") == 0
    assert guest.get("pc") == 0x401000


def test_interrupt_is_no_first_fault(guest: Guest) -> None:
    guest.set("eflags", 0x202)
    guest.write(IDT + 16 * 0x41, gate64(0x10, HANDLER, present=0))
    request(guest, Interrupt.HARD)
    assert guest.call("x86_take_interrupt") == 1
    assert guest.get("pc") == HANDLER + 11
    assert frame(guest, 1) == [0x41 * 8 + 3]


def test_nmi_is_blocked_until_iret(guest: Guest) -> None:
    request(guest, Interrupt.NMI)
    assert guest.call("x86_take_interrupt") == 1
    assert guest.get("pc") == HANDLER + 2
    assert guest.get("interrupt_request") == 0
    request(guest, Interrupt.NMI)
    assert guest.call("x86_take_interrupt") == 0
    guest.helper("iret", 8)
    assert guest.get("pc") == 0x401000
    assert guest.call("x86_take_interrupt") == 1


def test_sti_asks_for_a_look(guest: Guest) -> None:
    request(guest, Interrupt.HARD)
    guest.helper("sti")
    assert guest.get("exit_request") == 1
    assert guest.get("int_shadow") == 1


def test_single_step(guest: Guest) -> None:
    guest.set("eflags", 0x102)
    guest.set("pc", 0x401003)
    guest.call("x86_step")
    assert guest.get("pc") == HANDLER + 1
    assert frame(guest, 3) == [0x401003, 0x10, 0x102]
    assert guest.get("dr", 6) & 0x4000


# --- without long mode ------------------------------------------------------------------------------------------------


def gate32(selector: int, target: int, kind: int = 14, dpl: int = 0, present: int = 1) -> int:
    return target & 0xFFFF | selector << 16 | (kind | dpl << 5 | present << 7) << 40 | (target >> 16 & 0xFFFF) << 48


@pytest.fixture
def legacy() -> Guest:
    """CPL 0 in flat 32-bit protected mode without paging; TSS32 with SS0:ESP0."""
    guest = Guest()
    guest.set("cr0", 0x11)
    guest.set("cr4", 0)
    guest.set("efer", 0)
    guest.set_gdt(
        *(NULL, NULL, descriptor(0, 0xFFFFF, CODE32), descriptor(0, 0xFFFFF, DATA)),
        *(descriptor(0, 0xFFFFF, 0xC0FB00), descriptor(0, 0xFFFFF, 0xC0F300), descriptor(0, 0xFFFF, 0x009300)),
    )
    guest.segment(Seg.CS, 0x10, 0, 0xFFFFFFFF, CODE32)
    for seg in (Seg.SS, Seg.DS, Seg.ES):
        guest.segment(seg, 0x18, 0, 0xFFFFFFFF, DATA)
    guest.set("idt_base", IDT)
    guest.set("idt_limit", 0x7FF)
    for vector in range(256):
        guest.write64(IDT + 8 * vector, gate32(0x10, HANDLER + vector))
    guest.segment(Seg.TR, 0x40, TSS, 0x67, ATTR_TSS64)
    guest.write(TSS + 4, KERNEL_STACK.to_bytes(4, "little"))
    guest.write(TSS + 8, (0x18).to_bytes(4, "little"))
    guest.set("regs", 0x1FFF8, 4)
    guest.set("pc", 0x401000)
    guest.update()
    return guest


def words(guest: Guest, count: int, size: int = 4) -> list[int]:
    rsp = guest.get("regs", 4)
    return [int.from_bytes(guest.read(rsp + size * n, size), "little") for n in range(count)]


def test_legacy_same_level(legacy: Guest) -> None:
    assert legacy.mode() & (Mode.CODE32 | Mode.CODE64 | Mode.SEGMENTED | Mode.STACK32) == Mode.CODE32 | Mode.STACK32
    assert raise_(legacy, 13, 0x18) == 0
    assert legacy.get("regs", 4) == 0x1FFF8 - 16
    assert words(legacy, 4) == [0x18, 0x401000, 0x10, 0x10002]


def test_legacy_inner_level(legacy: Guest) -> None:
    legacy.segment(Seg.CS, 0x23, 0, 0xFFFFFFFF, 0xC0FB00)
    legacy.segment(Seg.SS, 0x2B, 0, 0xFFFFFFFF, 0xC0F300)
    legacy.set("cpl", 3)
    legacy.write64(IDT + 8 * 0x80, gate32(0x10, HANDLER, dpl=3))
    legacy.helper("int", 0x80, 0x401002, 0)
    assert legacy.get("regs", 4) == KERNEL_STACK - 20
    assert words(legacy, 5) == [0x401002, 0x23, 2, 0x1FFF8, 0x2B]
    assert legacy.get("seg_selector", Seg.SS) == 0x18
    legacy.helper("iret", 4)
    assert legacy.get("cpl") == 3
    assert legacy.get("regs", 4) == 0x1FFF8
    assert legacy.get("pc") == 0x401002
    assert legacy.get("seg_selector", Seg.SS) == 0x2B


def test_legacy_16_bit_gate_and_stack(legacy: Guest) -> None:
    legacy.segment(Seg.SS, 0x30, 0x10000, 0xFFFF, 0x009300)
    legacy.set("regs", 0xABCD_0002, 4)
    legacy.write64(IDT + 8 * 5, gate32(0x10, 0x1234, kind=6))
    assert raise_(legacy, 5) == 0
    assert legacy.get("regs", 4) == 0xABCD_FFFC
    assert legacy.read(0x1FFFC, 4) == b"\x00\x10\x10\x00"
    assert legacy.read(0x10000, 2) == b"\x02\x00"
    assert legacy.get("pc") == 0x1234


def test_task_gate_is_counted(legacy: Guest) -> None:
    legacy.write64(IDT + 8 * 7, gate32(0x10, 0, kind=5))
    with pytest.raises(Fault) as caught:
        legacy.helper("int", 7, 0x401002, 0)
    assert caught.value.vector == 13
    assert legacy.get("unimplemented") == 1
