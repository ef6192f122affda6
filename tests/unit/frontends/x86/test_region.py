"""Whole blocks as one piece of IR: the same meaning as their instructions one by one; loops can be interrupted."""

import struct

import keystone
import pytest

from backends.llvm.stencils import StencilCompiler
from frontends.x86.frontend import X86Frontend
from frontends.x86.region import decode_block, emit_block
from frontends.x86.state import STATE, Mode
from tcg.ir.interp import FlatMemory, run
from tcg.ir.types import I64, V128
from tcg.ir.verify import verify
from tcg.opt.pipeline import optimize

PC = 0x1000
MODE = int(Mode.CODE64 | Mode.PROTECTED)


def assemble(text: str) -> tuple[bytes, int]:
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(text, PC)
    return bytes(code), len([line for line in text.split(";") if line.strip() and not line.strip().endswith(":")])


@pytest.fixture(scope="module")
def frontend() -> X86Frontend:
    return X86Frontend()


def set_reg(env: bytearray, n: int, value: int) -> None:
    at = STATE.offset("regs", n)
    env[at : at + 8] = value.to_bytes(8, "little")


def reg(env: bytearray, n: int) -> int:
    at = STATE.offset("regs", n)
    return int.from_bytes(env[at : at + 8], "little")


def test_a_loop_stays_inside_and_leaves_by_its_other_exit(frontend: X86Frontend) -> None:
    code, count = assemble("add rax, rcx; dec rcx; jne 0x1000")
    block = optimize(emit_block(frontend, code, PC, MODE, count))
    verify(block)
    env = bytearray(65536)
    set_reg(env, 1, 100)
    outcome = run(block, env, FlatMemory(bytearray(4096)), {}, {}, limit=100_000)
    assert (outcome.kind, outcome.slot, outcome.pc) == ("goto_tb", 1, PC + len(code))
    assert (reg(env, 0), reg(env, 1)) == (5050, 0)


def test_a_loop_leaves_when_asked(frontend: X86Frontend) -> None:
    code, count = assemble("inc rax; jmp 0x1000")
    block = optimize(emit_block(frontend, code, PC, MODE, count))
    env = bytearray(65536)
    env[STATE.offset("exit_request")] = 1
    outcome = run(block, env, FlatMemory(bytearray(4096)), {}, {}, limit=1000)
    assert (outcome.kind, outcome.pc, reg(env, 0)) == ("exit", PC, 0)


def test_llvm_reads_the_exit_request_at_every_turn(frontend: X86Frontend) -> None:
    code, count = assemble("inc rax; jmp 0x1000")
    text = StencilCompiler().llvm_text(optimize(emit_block(frontend, code, PC, MODE, count)))
    assert "load volatile i32" in text


def test_decoding_stops_where_told(frontend: X86Frontend) -> None:
    code, count = assemble("mov eax, 1; add eax, 2; ret")
    assert [pc - PC for pc, _ in decode_block(frontend, code, PC, MODE, count)] == [0, 5, 8]


def test_scalar_results_travel_as_whole_registers(frontend: X86Frontend) -> None:
    code, count = assemble(
        "addsd xmm1, xmm2; movapd xmm3, xmm1; mulsd xmm3, xmm3; cvtsd2ss xmm4, xmm3; addss xmm4, xmm4"
    )
    block = emit_block(frontend, code, PC, MODE, count)
    better = optimize(block)
    verify(better)
    stores = [op.ins[0].type for op in better.ops if op.name == "st"]
    assert stores == [V128] * 3  # one a register, none narrow
    for values in ((1.5, 2.25), (-0.0, 0.0), (1e300, 1e300), (float("nan"), 1.0), (3e38, 1e30)):
        env = bytearray(65536)
        at = STATE.offset("xmm", 1)
        size = STATE.offset("xmm", 2) - at
        env[at : at + 4 * size] = bytes(n & 255 for n in range(4 * size))
        for n, value in enumerate(values):
            env[at + n * size : at + n * size + 8] = struct.pack("<d", value)
        plain = bytearray(env)
        run(block, plain, FlatMemory(bytearray(16)), {}, {}, limit=1000)
        run(better, env, FlatMemory(bytearray(16)), {}, {}, limit=1000)
        assert env[at : at + 4 * size] == plain[at : at + 4 * size], values
        (low,) = struct.unpack_from("<d", env, at)
        assert low == sum(values) or low != low
        assert env[at + 8 : at + 16] == bytes(n & 255 for n in range(8, 16))


def test_parts_of_registers_travel_as_whole_ones(frontend: X86Frontend) -> None:
    code, count = assemble(
        "cmp rdx, rdi; mov al, cl; mov ah, dl; mov bx, ax; mov ecx, eax; setne dh; setne r8b; mov sil, r8b"
    )
    better = optimize(emit_block(frontend, code, PC, MODE, count))
    verify(better)
    at, end = STATE.offset("regs"), STATE.offset("regs", 15) + 8
    written = [op for op in better.ops if op.name == "st" and at <= op.attrs["ref"].offset < end]
    assert written and all(op.ins[0].type is I64 for op in written)
    env = bytearray(65536)
    for n in range(16):
        set_reg(env, n, 0x0F11_1111_1111_1111 * n + 0x0070_6050_4030_2010)
    before = [reg(env, n) for n in range(16)]
    run(better, env, FlatMemory(bytearray(16)), {}, {}, limit=1000)
    cl, dl, flag = before[1] & 255, before[2] & 255, reg(env, 2) >> 8 & 255
    ax = cl | dl << 8
    assert flag in (0, 1)
    assert reg(env, 0) == before[0] & ~0xFFFF | ax
    assert reg(env, 3) == before[3] & ~0xFFFF | ax
    assert reg(env, 1) == (before[0] & 0xFFFF0000 | ax) & 0xFFFFFFFF
    assert reg(env, 2) == before[2] & ~0xFF00 | flag << 8
    assert reg(env, 8) == before[8] & ~0xFF | flag
    assert reg(env, 6) == before[6] & ~0xFF | flag
    assert [reg(env, n) for n in (4, 5, 7, *range(9, 16))] == [before[n] for n in (4, 5, 7, *range(9, 16))]
