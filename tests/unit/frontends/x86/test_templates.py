"""Patterns by analogy agree with patterns by decoding, and heads stay free of each other's prefixes."""

import random
from collections.abc import Iterator

import pytest

from frontends.x86.frontend import X86Frontend
from frontends.x86.state import Mode
from frontends.x86.templates import Templates
from tcg.exec.forms import Pattern, Truncated

LONG = Mode.CODE64 | Mode.PROTECTED
SEED = 2026
# Opcode bytes of each kind that has templates, with what kinds need before and behind them.
_ONE_BYTE = "00010203 0b232b31 39636b69 80818384 85868788 898a8b8d c0c1c6c7 d0d1f6f7 feff"
_TWO_BYTES = "10112829 404f586f 707e7f90 9fa3a4ab acafb0b1 b6b7b8ba bcbec1c2 c6d6ef"
OPCODES = (
    *(bytes((byte,)) for byte in bytes.fromhex(_ONE_BYTE)),
    *(bytes((0x0F, byte)) for byte in bytes.fromhex(_TWO_BYTES)),
)
PREFIXES = ("", "66", "f2", "f3", "f0", "64", "67", "65", "2e", "f266")


class Counted(Templates):
    """Counts what it finds."""

    hits = 0

    def find(self, code: bytes, mode: int) -> Pattern | None:
        found = super().find(code, mode)
        self.hits += found is not None
        return found


class Forgetful(Templates):
    """Never learns: every encoding is decoded in full."""

    def learn(self, code: bytes, mode: int, pattern: Pattern) -> None:
        del code, mode, pattern


def frontend(templates: Templates) -> X86Frontend:
    made = X86Frontend()
    made._templates = templates
    return made


def encodings(rng: random.Random) -> Iterator[bytes]:
    for opcode in OPCODES:
        for prefix in PREFIXES:
            for _ in range(24):
                rex = bytes((rng.randrange(0x40, 0x50),)) if rng.random() < 0.5 else b""
                code = bytes.fromhex(prefix) + rex + opcode + rng.randbytes(3) + bytes(8)
                yield code[: rng.randrange(2, 8)] if rng.random() < 0.1 else code


def decode(by: X86Frontend, code: bytes) -> Pattern | None:
    try:
        return by.decode(code, 0x1000, LONG)
    except Truncated:
        return None


def test_analogy_agrees_with_decoding() -> None:
    print("seed", SEED)
    counted = Counted()
    quick, full = frontend(counted), frontend(Forgetful())
    total = 0
    for code in encodings(random.Random(SEED)):
        assert decode(quick, code) == decode(full, code), code.hex()
        total += 1
    assert counted.hits > total // 10


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("4889d8", "4c89c1"),  # mov r64, r64: REX.R and REX.B are numbers
        ("8b448b10", "428b5ca710"),  # with a SIB; without and with REX: not alike
        ("0fb6c3", "0fb6c7"),  # movzx eax, bl and bh
    ],
)
def test_register_numbers_become_holes(first: str, second: str) -> None:
    quick, full = frontend(Templates()), frontend(Forgetful())
    for code in (first, second):
        assert decode(quick, bytes.fromhex(code)) == decode(full, bytes.fromhex(code))


@pytest.mark.parametrize(
    ("code", "other"),
    [
        ("4889d8", "48894308"),  # register and memory
        ("88c3", "4088c4"),  # without and with REX: AH or SPL
        ("8b4308", "67 8b4308"),  # address size
        ("8d4308", "8d4500"),  # no difference but the base
        ("31d8", "31c0"),  # one register twice has a form of its own
        ("0fbae005", "0fbae805"),  # ModRM.reg is part of the opcode
        ("48c1e005", "48c1e000"),  # a count of 0 has a form of its own
    ],
)
def test_what_is_not_alike_is_told_apart(code: str, other: str) -> None:
    for order in ((code, other), (other, code)):
        quick, full = frontend(Templates()), frontend(Forgetful())
        for text in order:
            assert decode(quick, bytes.fromhex(text)) == decode(full, bytes.fromhex(text))


@pytest.mark.parametrize("shift", ["c1e0", "48c1e0", "c0e0", "48c1f8", "c14308", "66c1c0"])
def test_heads_of_all_counts_are_prefix_free(shift: str) -> None:
    by = X86Frontend()
    heads = {by.decode(bytes.fromhex(shift) + bytes((count,)), 0, LONG).head for count in range(256)}
    assert not any(a != b and b.startswith(a) for a in heads for b in heads)
