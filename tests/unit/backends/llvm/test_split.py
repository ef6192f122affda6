"""How host code is cut and laid: hot part, cold part, jumps between."""

import capstone
from laying import Machine

from backends.llvm.split import Fixup, basic_blocks, split
from backends.llvm.stencils import StencilCompiler
from tcg.exec.forms import RelocKind, SymbolKind
from tcg.ir.block import Block, EnvRef, HelperDecl, Hole
from tcg.ir.builder import Builder
from tcg.ir.types import I64, Cond, Effect
from tcg.runtime.layout import GUEST_BASE


def cut(code: bytes, *fixups: Fixup) -> tuple[bytes, int, list[tuple[int, str, int]]]:
    """(code, hot size, [(offset, symbol, addend)])."""
    boundaries = list(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm_lite(code, 0))
    out, hot, relocs = split(basic_blocks(code, boundaries, list(fixups)), b"")
    return out, hot, [(r.offset, r.symbol.name, r.addend) for r in relocs]


def rel32(offset: int, symbol: SymbolKind, name: str = "") -> Fixup:
    return Fixup(offset, RelocKind.REL32, symbol, 0, name, -4)


JMP = b"\xe9\0\0\0\0"
CALL = b"\xe8\0\0\0\0"
NOP4 = b"\x0f\x1f\x40\x00"


def test_the_last_jump_to_next_goes_away() -> None:
    assert cut(NOP4 + JMP, rel32(5, SymbolKind.NEXT)) == (NOP4, 4, [])


def test_a_slow_path_in_the_middle_goes_out_of_line() -> None:
    # je over; call helper; over: nop; jmp next
    code = b"\x74\x05" + CALL + NOP4 + JMP
    out, hot, relocs = cut(code, rel32(3, SymbolKind.HELPER, "helper_ld64"), rel32(12, SymbolKind.NEXT))
    assert out == b"\x0f\x85\0\0\0\0" + NOP4 + CALL + JMP  # jne cold; nop | call; jmp hot
    assert hot == 10
    assert relocs == [(2, "COLD", -4), (11, "HELPER", -4), (16, "HOT", 6 - 4)]


def test_a_conditional_jump_to_next_is_turned_round() -> None:
    # jns next; jmp exit0
    out, hot, relocs = cut(b"\x0f\x89\0\0\0\0" + JMP, rel32(2, SymbolKind.NEXT), rel32(7, SymbolKind.EXIT))
    assert (out, hot, relocs) == (b"\x0f\x88\0\0\0\0", 6, [(2, "EXIT", -4)])


def test_jumps_to_jumps_are_shortened() -> None:
    # jne out; nop; jmp next; out: jmp leave
    code = b"\x75\x09" + NOP4 + JMP + JMP
    out, hot, relocs = cut(code, rel32(7, SymbolKind.NEXT), rel32(12, SymbolKind.LEAVE))
    assert (out, hot, relocs) == (b"\x0f\x85\0\0\0\0" + NOP4, 10, [(2, "LEAVE", -4)])


def conditional(body: int, effect: HelperDecl | None = None) -> Block:
    """if (a != 0) { body stores } last = 7"""
    b = Builder()
    b.insn_start(Hole("pc", I64))
    over = b.new_label()
    b.brcond(b.setcond(Cond.EQ, b.ld(I64, EnvRef(GUEST_BASE)), 0), over)
    for i in range(body):
        b.st(EnvRef(GUEST_BASE + 16 + 8 * i), b.const(I64, i + 1))
    if effect:
        b.call_void(effect)
    b.label(over)
    b.st(EnvRef(GUEST_BASE + 8), b.const(I64, 7))
    return b.block


def test_long_and_short_bodies_run() -> None:
    compiler = StencilCompiler()
    probe = HelperDecl("probe", (), None, Effect.SIDE)
    for body in (1, 12, 60):
        for effect in (None, probe):
            (stencil,) = compiler.compile([("x", conditional(body, effect))])
            for taken in (False, True):
                machine = Machine()
                calls: list[int] = []
                machine.helper("helper_probe", calls.append, None)
                machine.write_env(GUEST_BASE, int(taken).to_bytes(8, "little"))
                machine.run(machine.lay([(stencil, {"pc": 1})]))
                got = [int.from_bytes(machine.read_env(GUEST_BASE + 16 + 8 * i, 8), "little") for i in range(body)]
                assert got == [(i + 1) * taken for i in range(body)]
                assert machine.read_env(GUEST_BASE + 8, 1) == b"\x07"
                assert len(calls) == (taken and effect is not None)
