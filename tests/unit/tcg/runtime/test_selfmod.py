"""Random toy programs that jump into and write over their own code, engine against model: every byte and register."""

import random

import pytest
from toy_guest import HALT, NOP, PAGES, STEP_MODE, Toy, add, addi, dec, jmp, jnz, jump_register, li, load, store, store8
from toy_model import Model

from tcg.runtime.layout import ExitReason

CODE, SIZE, RAM = 0x1000, 3 * 4096, 0x8000
LIMIT = 3000
ENDINGS = {"halt": ExitReason.HALT, "shutdown": ExitReason.SHUTDOWN}


def instruction(rng: random.Random, at: int) -> bytes:
    """One instruction for the gva `at`: pointers (r1, r2) lead near it or anywhere, values are often opcodes."""
    near = at + rng.randrange(-40, 60)
    kind = rng.randrange(20)
    if kind < 3:
        return li(
            rng.choice((1, 2)), rng.choice((near, near, CODE + rng.randrange(SIZE), 0x7000 + rng.randrange(4000)))
        )
    if kind < 5:
        return li(rng.choice((3, 4)), rng.choice((0, 2, 7, 14, rng.getrandbits(64), 0x0000000000000202)))
    if kind < 9:
        return store8(rng.choice((1, 2)), rng.choice((3, 4)))
    if kind == 9:
        return store(rng.choice((1, 2)), rng.choice((3, 4)))
    if kind == 10:
        return load(rng.choice((3, 4, 5)), rng.choice((1, 2)))
    if kind < 13:
        return addi(rng.choice((0, 1, 2, 5)), rng.choice((1, 8, -1, 64)))
    if kind < 15:
        return dec(rng.choice((5, 6)))
    if kind == 15:
        return jnz(rng.randrange(-60, 40))
    if kind == 16:
        return jmp(rng.choice((rng.randrange(0, 50), rng.randrange(-100, 200), 0)))
    if kind == 17:
        return add(rng.randrange(8), rng.randrange(8))
    if kind == 18:
        return li(7, near) + (jump_register(7) if rng.random() < 0.5 else NOP)
    return NOP


def program(rng: random.Random) -> bytes:
    code = b""
    while len(code) < SIZE - 64:
        code += instruction(rng, CODE + len(code))
    return code + HALT


@pytest.mark.parametrize("step", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_like_the_model(toy: Toy, seed: int, step: bool) -> None:
    rng = random.Random(seed)
    for n in range(RAM >> 12, PAGES):
        toy.page_table[n] = 0
    image = program(rng)
    for round_ in range(3):  # the later ones run in a machine with blocks of the earlier ones
        start = CODE + rng.randrange(SIZE // 2)
        regs = [rng.randrange(1, 200), CODE + rng.randrange(SIZE), 0x7000, 7, 0, 50, 60, start]
        model = Model(bytearray(RAM), RAM)
        model.ram[CODE : CODE + len(image)] = image
        model.regs = list(regs)
        ending = model.run(start, LIMIT)
        if ending == "limit":
            continue
        toy.write(0, bytes(RAM))
        toy.write(CODE, image)
        toy.machine.ram_written(0, RAM)
        toy.vcpu.env.set("mode", STEP_MODE if step else 0)
        toy.vcpu.env.set("status", 0)
        for n, value in enumerate(regs):
            toy.vcpu.env.set("regs", value, n)
        where = f"seed {seed}, round {round_}"
        assert toy.run(start) == ENDINGS[ending], where
        assert [toy.reg(n) for n in range(8)] == model.regs, where
        assert bytes(toy.ram.view[:RAM]) == bytes(model.ram), where
        assert toy.vcpu.env.get("pc") == model.pc, where
