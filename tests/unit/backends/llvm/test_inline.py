"""Helpers that are expanded in line: every row compiles without a call, a few are run against known answers."""

import pytest
from laying import Machine

from backends.llvm.host import host
from backends.llvm.inline import INLINE
from backends.llvm.stencils import StencilCompiler
from tcg.exec.forms import SymbolKind
from tcg.ir.block import Block, EnvRef, HelperDecl, Hole, Operand
from tcg.ir.builder import Builder
from tcg.ir.types import I8, I16, I32, I64, INT_OF_SIZE, V128, Effect, Type
from tcg.runtime.layout import GUEST_BASE

_TYPES = {"i8": I8, "i16": I16, "i32": I32, "i64": I64}


def type_of(text: str) -> Type:
    return _TYPES.get(text, V128)


def block_of(name: str, imm: int | None = 0) -> Block:
    """result at GUEST_BASE + 64 = name(arguments at GUEST_BASE, + 16, ...)."""
    row = INLINE[name]
    types = tuple(I32 if a == "imm" else type_of(a) for a in row.args)
    helper = HelperDecl(name, types, type_of(row.result), Effect.NONE)
    b = Builder()
    b.insn_start(0)
    args = []
    for i, (kind, type_) in enumerate(zip(row.args, types, strict=True)):
        if kind == "imm":
            args.append(b.const(I32, imm) if imm is not None else Hole("imm", I32))
        else:
            args.append(b.ld(type_, EnvRef(GUEST_BASE + 16 * i)))
    b.st(EnvRef(GUEST_BASE + 80), b.call(helper, *args))
    return b.block


def available(name: str) -> None:
    if INLINE[name].feature not in host().on:
        pytest.skip(f"the host lacks {INLINE[name].feature}")


@pytest.mark.parametrize("name", INLINE)
def test_compiles_without_a_call(name: str) -> None:
    available(name)
    (stencil,) = StencilCompiler().compile([(name, block_of(name))])
    assert not [r for r in stencil.relocs if r.symbol is SymbolKind.HELPER]


def test_an_immediate_hole_leaves_a_call() -> None:
    (stencil,) = StencilCompiler().compile([("x", block_of("x86_pclmulqdq", None))])
    assert [r.name for r in stencil.relocs if r.symbol is SymbolKind.HELPER] == ["helper_x86_pclmulqdq"]


@pytest.mark.parametrize(
    ("name", "imm", "args", "want"),
    [
        # carry-less product of the low halves: (x^2 + 1)(x + 1)
        ("x86_pclmulqdq", 0, (5, 3), 0b1111),
        ("x86_pext", None, (0x1234, 0xF0F0), 0x13),
        ("x86_pdep", None, (0x13, 0xF0F0), 0x1030),
        ("x86_psadbw", None, (0x0105, 0x0402), 3 + 3),
        ("x86_pmaddwd", None, (0x0003_0002, 0xFFFF_0005), 10 - 3),
        # FIPS 197 appendix B, round 1: state after AddRoundKey, round key 1
        (
            "x86_aesenc",
            None,
            (
                int.from_bytes(bytes.fromhex("193de3bea0f4e22b9ac68d2ae9f84808"), "little"),
                int.from_bytes(bytes.fromhex("a0fafe1788542cb123a339392a6c7605"), "little"),
            ),
            int.from_bytes(bytes.fromhex("a49c7ff2689f352b6b5bea43026a5049"), "little"),
        ),
    ],
)
def test_known_answers(name: str, imm: int | None, args: tuple[int, ...], want: int) -> None:
    available(name)
    (stencil,) = StencilCompiler().compile([(name, block_of(name, imm))])
    machine = Machine()
    for i, value in enumerate(args):
        machine.write_env(GUEST_BASE + 16 * i, value.to_bytes(16, "little"))
    machine.run(machine.lay([(stencil, {})]))
    size = type_of(INLINE[name].result).size
    assert int.from_bytes(machine.read_env(GUEST_BASE + 80, size), "little") == want


@pytest.mark.skipif("sse4.2" not in host().on, reason="the host lacks SSE4.2")
def test_crc32c() -> None:
    """CRC-32C of "123456789" is E3069283 (RFC 3720's polynomial), byte by byte and in wider steps."""
    helper = HelperDecl("x86_crc32c", (I64, I64, I64), I64, Effect.NONE)
    data = b"123456789"
    for steps in ((1,) * 9, (8, 1), (4, 4, 1), (2, 1, 4, 2)):
        b = Builder()
        b.insn_start(0)
        crc: Operand = b.const(I64, 0xFFFFFFFF)
        at = 0
        for size in steps:
            value = b.zext(b.ld(INT_OF_SIZE[size], EnvRef(GUEST_BASE + at)), I64)
            crc = b.call(helper, crc, value, size)
            at += size
        b.st(EnvRef(GUEST_BASE + 80), crc)
        (stencil,) = StencilCompiler().compile([("crc", b.block)])
        machine = Machine()
        machine.write_env(GUEST_BASE, data)
        machine.run(machine.lay([(stencil, {})]))
        assert int.from_bytes(machine.read_env(GUEST_BASE + 80, 8), "little") == 0xE3069283 ^ 0xFFFFFFFF, steps
