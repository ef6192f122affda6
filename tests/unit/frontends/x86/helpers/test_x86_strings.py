"""Repeated string instructions against an element-by-element model: overlaps, wraps, faults, interruptions."""

import random

import pytest
from x86guest import CODE32, Fault, Guest, P, W

from frontends.x86.flags import CcOp, status
from frontends.x86.state import Seg
from tcg.runtime.layout import Callback

M64 = (1 << 64) - 1
BASE, SIZE = 0x200000, 0x6000  # mapped at the same physical address, page 5 of it missing
MISSING = BASE + 0x5000
RAX, RCX, RDX, RSI, RDI = 0, 1, 2, 6, 7


@pytest.fixture
def guest() -> Guest:
    guest = Guest()
    for page in range(0, 0x5000, 4096):
        guest.map(BASE + page, BASE + page, P | W)
    guest.map(BASE + 0x8000, BASE + 0x8000, P)  # read-only
    return guest


class Model:
    """The manual's loop over a copy of the memory."""

    def __init__(self, guest: Guest) -> None:
        self.memory = bytearray(guest.read(BASE, SIZE))
        self.regs = [guest.get("regs", n) for n in range(16)]
        self.step = 1 if guest.get("df") == 1 else -1
        self.fault: int | None = None
        self.storing = False

    def at(self, gva: int, size: int) -> int:
        for n in (0, size - 1):
            if not BASE <= gva + n < MISSING:
                raise LookupError(max(gva, MISSING) if gva + size > MISSING else gva)
        return gva - BASE

    def load(self, gva: int, size: int) -> int:
        self.storing = False
        at = self.at(gva, size)
        return int.from_bytes(self.memory[at : at + size], "little")

    def store(self, gva: int, size: int, value: int) -> None:
        self.storing = True
        at = self.at(gva, size)
        self.memory[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def run(self, op: str, size: int, asize: int, repne: int = 0) -> tuple[int, int] | None:
        """Returns the operands of the last comparison. A fault stops with `fault` set."""
        mask = (1 << 8 * asize) - 1
        last = None
        accumulator = self.regs[RAX] & (1 << 8 * size) - 1

        def write(n: int, value: int) -> None:
            keep = self.regs[n] & ~0xFFFF if asize == 2 else 0
            self.regs[n] = keep | value & mask

        while self.regs[RCX] & mask:
            source, to = self.regs[RSI] & mask, self.regs[RDI] & mask
            try:
                if op == "movs":
                    self.store(to, size, self.load(source, size))
                elif op == "stos":
                    self.store(to, size, accumulator)
                elif op == "lods":
                    value = self.load(source, size)
                    keep = self.regs[RAX] & ~((1 << 8 * size) - 1) if size < 4 else 0
                    self.regs[RAX] = keep | value
                elif op == "cmps":
                    last = self.load(source, size), self.load(to, size)
                elif op == "scas":
                    last = accumulator, self.load(to, size)
            except LookupError as error:
                self.fault = error.args[0]
                break
            if op in ("movs", "lods", "cmps"):
                write(RSI, source + self.step * size)
            if op != "lods":
                write(RDI, to + self.step * size)
            write(RCX, (self.regs[RCX] & mask) - 1)
            if last and (last[0] == last[1]) == bool(repne):
                break
        return last


def arguments(op: str, size: int, asize: int, repne: int) -> tuple[int, ...]:
    return {
        "movs": (size, asize, 0),
        "stos": (size, asize),
        "lods": (size, asize, 0),
        "cmps": (size, asize, 0, repne),
        "scas": (size, asize, repne),
    }[op]


def compare(guest: Guest, op: str, size: int, asize: int, repne: int, *, interrupt: bool = False) -> None:
    model = Model(guest)
    guest.set("exit_request", int(interrupt))
    guest.set("cc_op", CcOp.EFLAGS)
    guest.set("cc_src", 0x8D5)
    rounds, fault = 0, None
    try:
        while guest.helper(f"rep_{op}", *arguments(op, size, asize, repne)):
            rounds += 1
            assert interrupt and rounds < 100_000
    except Fault as caught:
        fault = caught
    last = model.run(op, size, asize, repne)
    if fault is None:
        assert model.fault is None
    else:
        write = op == "stos" or (op == "movs" and model.storing)
        assert fault.args == (14, 2 * write, model.fault)
    assert [guest.get("regs", n) for n in range(16)] == model.regs
    assert guest.read(BASE, SIZE) == model.memory
    if last:
        flags = status(CcOp(CcOp.SUBB + size.bit_length() - 1), (last[0] - last[1]) & (1 << 8 * size) - 1, last[1])
        assert guest.helper("compute_eflags") == flags
    else:
        assert guest.helper("compute_eflags") == 0x8D5


def fill(guest: Guest, rng: random.Random, values: int) -> None:
    guest.write(BASE, bytes(rng.randrange(values) for _ in range(SIZE)))


@pytest.mark.parametrize("op", ["movs", "stos", "lods", "cmps", "scas"])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_against_the_model(guest: Guest, op: str, size: int) -> None:
    seed = hash((len(op), ord(op[0]), size)) & 0xFFFF
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(60):
        fill(guest, rng, rng.choice([2, 3, 256]) if op in ("movs", "stos", "lods") else rng.choice([1, 1, 2]))
        backwards = rng.random() < 0.4
        guest.set("df", -1 & M64 if backwards else 1)
        start = rng.randrange(0x100, 0x4F00)
        distance = rng.choice([0, 1, 2, 3, size, 7, 8, 9, 16, 100, 4096, rng.randrange(0x1000)]) * rng.choice([1, -1])
        guest.set("regs", rng.getrandbits(64), RAX)
        guest.set("regs", BASE + start, RSI)
        guest.set("regs", BASE + min(max(start + distance, 16), 0x4FF0), RDI)
        guest.set("regs", rng.choice([0, 1, 2, rng.randrange(64), rng.randrange(0x800)]), RCX)
        if op in ("scas", "cmps") and rng.random() < 0.5:
            guest.write(BASE + rng.randrange(0x5000), bytes([255]))
        asize = rng.choice([8, 8, 4])
        compare(guest, op, size, asize, rng.randrange(2), interrupt=rng.random() < 0.3)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 8, 12, 16, 17, 100])
def test_overlapping_forward_copy_replicates(guest: Guest, size: int, distance: int) -> None:
    fill(guest, random.Random(distance), 256)
    guest.set("regs", BASE + 0x10, RSI)
    guest.set("regs", BASE + 0x10 + distance, RDI)
    guest.set("regs", 0x2000 // size, RCX)
    compare(guest, "movs", size, 8, 0)


def test_store_fault_is_precise(guest: Guest) -> None:
    guest.set("regs", MISSING - 16, RDI)
    guest.set("regs", 5, RCX)
    guest.set("regs", 0x1122334455667788, RAX)
    with pytest.raises(Fault) as caught:
        guest.helper("rep_stos", 8, 8)
    assert caught.value.args == (14, 2, MISSING)
    assert (guest.get("regs", RDI), guest.get("regs", RCX)) == (MISSING, 3)
    guest.set("regs", BASE + 0x8000, RDI)
    with pytest.raises(Fault) as caught:
        guest.helper("rep_stos", 8, 8)
    assert caught.value.args == (14, 3, BASE + 0x8000)


def test_element_across_pages_faults_whole(guest: Guest) -> None:
    """Nothing of an 8-byte element is stored when its second page is missing."""
    fill(guest, random.Random(1), 256)
    before = guest.read(BASE, SIZE)
    guest.set("regs", MISSING - 3, RDI)
    guest.set("regs", 1, RCX)
    with pytest.raises(Fault) as caught:
        guest.helper("rep_stos", 8, 8)
    assert caught.value.args == (14, 2, MISSING)
    assert guest.read(BASE, SIZE) == before


def test_16_bit_addresses_wrap_and_keep_the_upper_part(guest: Guest) -> None:
    guest.set("cr0", 0x11)
    guest.set("efer", 0)
    guest.segment(Seg.CS, 0x10, 0, 0xFFFFFFFF, CODE32)
    guest.segment(Seg.ES, 0x18, 0x300000, 0xFFFF, 0x009300)
    guest.update()
    guest.set("regs", 0x5555_FFFE, RDI)
    guest.set("regs", 0x7777_0004, RCX)
    guest.set("regs", 0xAB, RAX)
    assert guest.helper("rep_stos", 1, 2) == 0
    assert (guest.get("regs", RDI), guest.get("regs", RCX)) == (0x5555_0002, 0x7777_0000)
    assert guest.read(0x30FFFE, 3) == b"\xab\xab\x00"
    assert guest.read(0x300000, 3) == b"\xab\xab\x00"


def test_mmio_goes_element_by_element(guest: Guest) -> None:
    guest.map(0x7000_0000, 0xFEB0_0000, P | W)
    guest.callbacks[Callback.MMIO_READ] = lambda gpa, size, c: gpa & 0xFF
    guest.set("regs", 0x7000_0010, RSI)
    guest.set("regs", BASE, RDI)
    guest.set("regs", 3, RCX)
    assert guest.helper("rep_movs", 4, 8, 0) == 0
    assert [a[:3] for a in guest.asked] == [(Callback.MMIO_READ, 0xFEB0_0010 + 4 * n, 4) for n in range(3)]
    assert guest.read(BASE, 12) == b"\x10\0\0\0\x14\0\0\0\x18\0\0\0"


def test_ins_and_outs(guest: Guest) -> None:
    written: list[tuple[int, int, int]] = []
    guest.callbacks[Callback.PORT_READ] = lambda port, size, c: 0x1234
    guest.callbacks[Callback.PORT_WRITE] = lambda port, size, c: written.append((port, size, c)) or 0
    guest.set("regs", 0x1F0, RDX)
    guest.set("regs", BASE, RDI)
    guest.set("regs", BASE, RSI)
    guest.set("regs", 3, RCX)
    assert guest.helper("ins", 2, 8, 1) == 0
    assert guest.read(BASE, 8) == b"\x34\x12" * 3 + b"\0\0"
    assert (guest.get("regs", RDI), guest.get("regs", RCX)) == (BASE + 6, 0)
    assert guest.helper("outs", 4, 8, 0, 0) == 0
    assert written == [(0x1F0, 4, 0x12341234)]
    guest.set("regs", MISSING, RDI)
    asked = len(guest.asked)
    with pytest.raises(Fault):
        guest.helper("ins", 2, 8, 0)
    assert len(guest.asked) == asked  # the port was not read
