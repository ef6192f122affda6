"""Lazy flags: the stated rules against plain arithmetic over 8 bits, the native helper against the rules."""

import random

import pytest
from x86guest import Guest

from frontends.x86.flags import USES_DST, USES_SRC, USES_SRC2, CcOp, status

CF, PF, AF, ZF, SF, OF = 0x001, 0x004, 0x010, 0x040, 0x080, 0x800


def by_definition(result: int, carry: bool, overflow: bool, half: bool) -> int:
    """SDM vol. 1, 3.4.3.1, of an 8-bit result."""
    parity = bin(result).count("1") % 2 == 0
    return CF * carry | PF * parity | AF * half | ZF * (result == 0) | SF * (result >> 7) | OF * overflow


def signed(value: int) -> int:
    return value - 256 if value & 128 else value


def test_addition_and_subtraction_of_bytes() -> None:
    for a in range(256):
        for b in range(256):
            for c in (0, 1):
                total = a + b + c
                overflow = not -128 <= signed(a) + signed(b) + c <= 127
                expected = by_definition(total & 255, total > 255, overflow, (a & 15) + (b & 15) + c > 15)
                assert status(CcOp.ADCB, total & 255, b, c) == expected
                if not c:
                    assert status(CcOp.ADDB, total & 255, b) == expected
                total = a - b - c
                overflow = not -128 <= signed(a) - signed(b) - c <= 127
                expected = by_definition(total & 255, total < 0, overflow, (a & 15) - (b & 15) - c < 0)
                assert status(CcOp.SBBB, total & 255, b, c) == expected
                if not c:
                    assert status(CcOp.SUBB, total & 255, b) == expected


def test_increment_decrement_and_shifts_of_bytes() -> None:
    for a in range(256):
        for carry in (0, 1):
            up, down = (a + 1) & 255, (a - 1) & 255
            assert status(CcOp.INCB, up, carry) == by_definition(up, bool(carry), a == 127, a & 15 == 15)
            assert status(CcOp.DECB, down, carry) == by_definition(down, bool(carry), a == 128, a & 15 == 0)
        for n in range(1, 8):
            left, last = (a << n) & 255, (a << (n - 1)) & 255
            flags = status(CcOp.SHLB, left, last)
            assert bool(flags & CF) == bool(a << n & 256)
            if n == 1:
                assert bool(flags & OF) == bool((a >> 7) ^ (left >> 7))
            for right, previous, overflow in (
                (a >> n, a >> (n - 1), bool(a & 128)),
                ((signed(a) >> n) & 255, (signed(a) >> (n - 1)) & 255, False),
            ):
                flags = status(CcOp.SARB, right, previous)
                assert bool(flags & CF) == bool(a >> (n - 1) & 1)
                if n == 1:
                    assert bool(flags & OF) == overflow


@pytest.fixture(scope="module")
def guest() -> Guest:
    return Guest()


@pytest.mark.parametrize("op", [op for op in CcOp if op], ids=lambda op: op.name)
def test_native_helper_agrees(guest: Guest, op: CcOp) -> None:
    seed = 20260000 + op
    print(f"seed {seed}")
    rng = random.Random(seed)
    mask = (1 << op.width) - 1
    edges = [0, 1, mask, mask >> 1, (mask >> 1) + 1, 15, 16]
    for _ in range(300):
        dst, src, src2 = (rng.choice([rng.getrandbits(64) & mask, rng.choice(edges)]) for _ in range(3))
        if op in (CcOp.ADCX, CcOp.ADCOX):
            dst &= 1
        if op.family in (CcOp.INCB, CcOp.DECB):
            src &= 1
        if op in USES_SRC2:
            src2 &= 1
        guest.set("cc_op", op)
        guest.set("cc_dst", dst if op in USES_DST else rng.getrandbits(64))
        guest.set("cc_src", src if op in USES_SRC else rng.getrandbits(64))
        guest.set("cc_src2", src2 if op in USES_SRC2 else rng.getrandbits(64))
        assert guest.helper("compute_eflags") == status(op, dst, src, src2), (op, hex(dst), hex(src), src2)


def test_rflags_image(guest: Guest) -> None:
    guest.set("cc_op", CcOp.SUBQ)
    guest.set("cc_dst", 0)
    guest.set("cc_src", 5)
    guest.set("eflags", 0x50202 | 0x3000)  # RF, AC, IF, IOPL 3
    guest.set("df", -1 & (1 << 64) - 1)
    assert guest.helper("pushf") == 0x40000 | 0x3000 | 0x400 | 0x200 | ZF | PF | 2
