"""Bytes to patterns: names, operand sizes, fixed parts and fields that capstone alone gets wrong or leaves open."""

import pytest

from frontends.x86.decode import Decoder
from frontends.x86.frontend import X86Frontend
from frontends.x86.operands import ImmShape, MemShape, RegShape, X86Key
from frontends.x86.state import STATE, Mode, Seg
from tcg.exec.forms import Truncated

LONG = Mode.CODE64 | Mode.PROTECTED
FLAT32 = Mode.CODE32 | Mode.STACK32 | Mode.PROTECTED
SEGMENTED32 = FLAT32 | Mode.SEGMENTED


@pytest.fixture(scope="module")
def frontend() -> X86Frontend:
    return X86Frontend()


def key_of(code: str, mode: int = LONG) -> X86Key:
    decoded = Decoder().decode(bytes.fromhex(code), 0x1000, mode)
    assert decoded is not None
    return decoded.key


@pytest.mark.parametrize(
    ("code", "mode", "name", "opsize"),
    [
        ("ff18", LONG, "lcall", 4),
        ("48ff28", LONG, "ljmp", 8),
        ("66ff18", FLAT32, "lcall", 2),
        ("ff10", LONG, "call", 8),
        ("ea112233445566", FLAT32, "ljmp", 4),
        ("66ea11223344", FLAT32, "ljmp", 2),
        ("cb", LONG, "retf", 4),
        ("48cb", LONG, "retfq", 8),
        ("cf", LONG, "iretd", 4),
        ("48cf", LONG, "iretq", 8),
        ("66cf", LONG, "iret", 2),
        ("480f07", LONG, "sysretq", 8),
        ("a4", LONG, "movs", 1),
        ("66a5", LONG, "movs", 2),
        ("48a7", LONG, "cmps", 8),
        ("f20f10c1", LONG, "movsd", 16),
        ("660f38f6c1", LONG, "adcx", 4),
        ("0f0118", LONG, "lidt", 4),
        ("660f0118", FLAT32, "lidt", 2),
    ],
)
def test_names_and_sizes(code: str, mode: int, name: str, opsize: int) -> None:
    key = key_of(code, mode)
    assert (key.name, key.opsize) == (name, opsize)


@pytest.mark.parametrize(
    ("code", "mode", "head", "disp", "imm", "imm2"),
    [
        ("488b8511223344", LONG, "488b85", (3, 4), (0, 0), (0, 0)),
        ("668b8511223344", LONG, "668b85", (3, 4), (0, 0), (0, 0)),
        ("c744240811223344", LONG, "c74424", (3, 1), (4, 4), (0, 0)),
        ("648b042528000000", LONG, "648b0425", (4, 4), (0, 0), (0, 0)),
        ("a11122334455667788", LONG, "a1", (1, 8), (0, 0), (0, 0)),
        ("48b81122334455667788", LONG, "48b8", (0, 0), (2, 8), (0, 0)),
        ("0f8411223344", LONG, "0f84", (0, 0), (2, 4), (0, 0)),
        ("66e811223344", LONG, "66e8", (0, 0), (2, 4), (0, 0)),
        ("ea112233445566", FLAT32, "ea", (0, 0), (1, 4), (5, 2)),
        ("66ea11223344", FLAT32, "66ea", (0, 0), (2, 2), (4, 2)),
        ("c1e005", LONG, "c1e005", (0, 0), (2, 1), (0, 0)),
        ("c1e020", LONG, "c1e020", (0, 0), (2, 1), (0, 0)),
        ("c1d005", LONG, "c1d005", (0, 0), (2, 1), (0, 0)),
        ("c20090", LONG, "c20090", (0, 0), (1, 2), (0, 0)),
        ("e480", LONG, "e480", (0, 0), (1, 1), (0, 0)),
        ("678b4310", LONG, "678b43", (3, 1), (0, 0), (0, 0)),
        ("67668b4710", FLAT32, "67668b47", (4, 1), (0, 0), (0, 0)),
    ],
)
def test_fixed_parts_and_fields(
    code: str, mode: int, head: str, disp: tuple[int, int], imm: tuple[int, int], imm2: tuple[int, int]
) -> None:
    decoded = Decoder().decode(bytes.fromhex(code), 0x1000, mode)
    assert decoded is not None
    assert decoded.length == len(code) // 2
    assert decoded.head.hex() == head
    assert (decoded.disp, decoded.imm, decoded.imm2) == (disp, imm, imm2)


def test_high_byte_registers_are_byte_offsets() -> None:
    decoded = Decoder().decode(bytes.fromhex("88e7"), 0, LONG)  # mov bh, ah
    assert decoded is not None
    assert decoded.regs == (STATE.offset("regs", 3) + 1, STATE.offset("regs", 0) + 1)


def test_registers_are_no_part_of_a_form() -> None:
    assert key_of("4801d8") == key_of("4d01c1")
    assert key_of("488b4308") == key_of("498b442410")  # nor is a SIB byte without index
    assert key_of("488b4308") == key_of("488b4508")  # nor the stack's default segment in 64-bit code


def test_equal_registers_are() -> None:
    assert key_of("31c0").same and not key_of("31c8").same
    assert not key_of("30e0").same  # xor al, ah


def test_segments() -> None:
    def mem(code: str, mode: int) -> MemShape:
        shape = next(o for o in key_of(code, mode).operands if isinstance(o, MemShape))
        assert isinstance(shape, MemShape)
        return shape

    assert mem("8b00", LONG).seg == -1
    assert mem("658b00", LONG).seg == Seg.GS
    assert mem("3e8b00", LONG).seg == -1  # ignored in 64-bit code
    assert mem("8b00", FLAT32).seg == -1
    assert mem("8b00", SEGMENTED32).seg == Seg.DS
    assert mem("8b4500", SEGMENTED32).seg == Seg.SS
    assert mem("268b4500", SEGMENTED32).seg == Seg.ES
    assert mem("64d7", LONG).seg == Seg.FS  # xlat's operand is implicit


def test_immediates() -> None:
    assert key_of("c1e005").operands[1] == ImmShape(1)
    assert key_of("c1e020").operands[1] == ImmShape(1, value=0x20)  # moves nothing: another form
    assert key_of("48c1e020").operands[1] == ImmShape(1)
    assert key_of("d1e0").operands[1] == ImmShape(4, value=1)
    assert key_of("83c005").operands[1] == ImmShape(1)
    assert key_of("c8100003").operands == (ImmShape(2, value=16), ImmShape(1, value=3))
    assert key_of("cd80").operands == (ImmShape(1, value=0x80),)
    assert key_of("0f20e0").operands == (RegShape("gpr", 8, 0), RegShape("cr", 8, number=4))


def test_cut_off_encodings(frontend: X86Frontend) -> None:
    for code in (
        *("48", "488b", "488b85", "488b85112233", "0f", "66", "f3", "c744240811"),
        # Few continuations of these are instructions: LOCK CMPXCHG, PALIGNR, CRC32, CMPXCHG8B, RDRAND, VEX.
        *("f00f", "f0480f", "660f3a", "0f3a", "f20f38", "f2480f38", "0fc7", "480fc7", "f30fc7", "c4", "c4e2", "c5"),
    ):
        with pytest.raises(Truncated):
            frontend.decode(bytes.fromhex(code), 0x1000, LONG)


@pytest.mark.parametrize("code", ["06", "0fff", "d6", "62f1", "f089c8", "f0" * 15, "0f0a", "66" * 15])
def test_undefined_encodings_raise_ud(frontend: X86Frontend, code: str) -> None:
    pattern = frontend.decode(bytes.fromhex(code).ljust(15, b"\x90"), 0x1000, LONG)
    assert pattern.form.ends_block and pattern.form.may_fault
    assert pattern.form.name.startswith(("(undefined)", "ud0"))


@pytest.mark.parametrize("code", ["06", "d4", "66f248d4", "60"])
def test_opcodes_of_other_modes_have_the_same_head_at_the_end_of_a_page(frontend: X86Frontend, code: str) -> None:
    """Heads are prefix-free: what stands behind must not change them."""
    alone = frontend.decode(bytes.fromhex(code), 0x1000, LONG)
    assert alone.head == bytes.fromhex(code)
    assert frontend.decode(bytes.fromhex(code).ljust(15, b"\x90"), 0x1000, LONG) == alone


@pytest.mark.parametrize("code", ["48" * 14 + "90", "2e" * 10 + "4889d8"])
def test_long_encodings(frontend: X86Frontend, code: str) -> None:
    assert frontend.decode(bytes.fromhex(code), 0x1000, LONG).length == len(code) // 2
