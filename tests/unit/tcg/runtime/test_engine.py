"""The engine with a toy guest: loops and chaining, faults, self-modifying code, interrupts, flushes, page crossings."""

import threading
import time

import pytest
from toy_guest import (
    EI,
    HALT,
    IRET,
    NOP,
    PAGES,
    STEP_MODE,
    TRAP,
    Toy,
    add,
    addi,
    dec,
    jmp,
    jnz,
    jump_register,
    li,
    load,
    store,
    store8,
)

from tcg.runtime.layout import ExitReason, Interrupt


def test_counts_in_a_chained_loop(toy: Toy) -> None:
    body = addi(1, 3) + dec(0)
    toy.write(0x1000, li(0, 100_000) + body + jnz(-len(body) - 2) + HALT)
    assert toy.run(0x1000) == ExitReason.HALT
    assert (toy.reg(0), toy.reg(1)) == (0, 300_000)
    assert toy.vcpu.env.get("pc") == 0x1000 + 10 + 6 + 2 + 2 + 1
    assert toy.stat("exits") + sum(toy.stat("exits") for _ in ()) >= 0
    assert toy.stat("lookups") < 10, "the loop was not chained"
