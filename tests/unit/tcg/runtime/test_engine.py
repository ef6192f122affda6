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
    signed,
    store,
    store8,
)

from backends.llvm.stencils import StencilCompiler
from tcg.exec.forms import Variant
from tcg.runtime.layout import ExitReason, Interrupt
from tcg.runtime.object import Runtime

CODE, DATA = 0x1000, 0x8000


def test_counts_in_a_chained_loop(toy: Toy) -> None:
    body = addi(1, 3) + dec(0)
    toy.write(CODE, li(0, 100_000) + body + jnz(-len(body) - 2) + HALT)
    assert toy.run(CODE) == ExitReason.HALT
    assert (toy.reg(0), toy.reg(1)) == (0, 300_000)
    assert toy.vcpu.env.get("pc") == CODE + 10 + len(body) + 2 + 1
    assert toy.stat("lookups") < 10, "the loop was not chained"


def test_dead_status_is_not_stored_and_live_status_is(toy: Toy) -> None:
    toy.write(CODE, li(0, 7) + dec(0) + dec(0) + jnz(0) + HALT)
    toy.run(CODE)
    assert toy.vcpu.env.get("status") == 5
    form = next(n for n in range(toy.tables.form_count()) if toy.tables.form(n).key == 2)
    assert toy.tables.has_stencil(form, Variant(False)) and toy.tables.has_stencil(form, Variant(True))


def test_blocks_are_found_again_without_translation(toy: Toy) -> None:
    toy.write(CODE, addi(0, 1) + jmp(0x2000) + HALT)
    toy.write(CODE + 11 + 0x2000, addi(0, 1) + HALT)
    for _ in range(3):
        assert toy.run(CODE) == ExitReason.HALT
    assert toy.reg(0) == 6
    assert toy.stat("blocks") == 2


@pytest.mark.parametrize("start", [CODE + 4096 - n for n in range(1, 7)])
def test_instruction_across_pages(toy: Toy, start: int) -> None:
    """Bytes in two pages: right inside a block and as its first instruction, and after either page changes."""
    code = NOP + addi(0, 5) + HALT
    toy.write(start - 1, code)
    for n in range(1, 3):
        assert toy.run(start - 1) == ExitReason.HALT
        assert toy.reg(0) == 5 * n
    toy.write(start + 2, signed(100, 4))
    toy.machine.ram_written(start + 2, 4)
    toy.run(start)
    assert toy.reg(0) == 110


def test_second_page_is_part_of_the_key(toy: Toy) -> None:
    """The same first page mapped before two different second pages: two different instructions."""
    start = CODE + 4096 - 4  # opcode, register and two bytes of the immediate, then two bytes in the next page
    toy.write(start, addi(0, 0x10005) + HALT)
    assert toy.run(start) == ExitReason.HALT
    assert toy.reg(0) == 0x10005
    toy.write(0x40000, signed(0x0002, 2) + HALT)
    toy.page_table[2] = 0x40000 | 7
    toy.machine.runtime.call("tlb_flush_page", toy.vcpu.env.address, 0, 0x2000)
    toy.run(start)
    assert toy.reg(0) == 0x10005 + 0x20005


def test_fetch_fault_in_second_page(toy: Toy) -> None:
    start = CODE + 4096 - 3
    toy.write(start, addi(0, 1))
    toy.write(0x5000, HALT)
    toy.vcpu.env.set("vector", 0x5000)
    toy.page_table[2] = 0
    toy.run(start - 0)
    env = toy.vcpu.env
    assert (env.get("cause"), env.get("saved_pc"), env.get("fault_gva"), toy.reg(0)) == (14, start, 0x2000, 0)


def test_faults_are_precise(toy: Toy) -> None:
    toy.write(CODE, li(1, 0x300000) + addi(0, 1) + load(2, 1) + addi(0, 100) + HALT)
    toy.write(0x5000, HALT)
    toy.vcpu.env.set("vector", 0x5000)
    toy.page_table[0x300] = 0
    toy.run(CODE)
    env = toy.vcpu.env
    assert (env.get("cause"), env.get("saved_pc"), env.get("fault_gva")) == (14, CODE + 16, 0x300000)
    assert (toy.reg(0), toy.reg(2)) == (1, 0)


def test_undefined_instruction_raises_and_no_vector_shuts_down(toy: Toy) -> None:
    toy.write(CODE, b"\xff")
    assert toy.run(CODE) == ExitReason.SHUTDOWN
    toy.write(0x5000, HALT)
    toy.vcpu.env.set("vector", 0x5000)
    toy.write(0x2000, NOP + TRAP)
    assert toy.run(0x2000) == ExitReason.HALT
    assert (toy.vcpu.env.get("cause"), toy.vcpu.env.get("saved_pc")) == (6, 0x2001)


@pytest.mark.parametrize("offset", range(4088, 4097))
def test_store_and_load_across_pages(toy: Toy, offset: int) -> None:
    """8 bytes around a page boundary whose pages are not neighbours in RAM."""
    toy.page_table[0x10] = 0x20000 | 7
    toy.page_table[0x11] = 0x90000 | 7
    value = 0x1122334455667788
    toy.write(CODE, li(1, 0x10000 + offset) + li(2, value) + store(1, 2) + load(3, 1) + HALT)
    assert toy.run(CODE) == ExitReason.HALT
    assert toy.reg(3) == value
    first = min(8, 4096 - offset)
    whole = bytes(toy.ram.view[0x20000 + offset : 0x20000 + offset + first])
    whole += bytes(toy.ram.view[0x90000 + max(0, offset - 4096) : 0x90000 + max(0, offset - 4096) + 8 - first])
    assert whole == value.to_bytes(8, "little")


def test_crossing_store_that_faults_stores_nothing(toy: Toy) -> None:
    toy.page_table[0x11] = 0x11000 | 1  # read only
    toy.write(CODE, li(1, 0x10FFC) + li(2, -1) + store(1, 2) + HALT)
    assert toy.run(CODE) == ExitReason.SHUTDOWN
    assert bytes(toy.ram.view[0x10FF0:0x11010]) == bytes(32)
    assert toy.vcpu.env.get("fault_gva") == 0x11000


def test_mmio_goes_to_the_callback(toy: Toy) -> None:
    toy.on_mmio_read = lambda gpa, size: 0x1234
    toy.write(CODE, li(1, 0x200008) + load(2, 1) + store(1, 2) + store8(1, 2) + HALT)
    assert toy.run(CODE) == ExitReason.HALT
    assert toy.mmio == [("read", 0x200008, 8, 0), ("write", 0x200008, 8, 0x1234), ("write", 0x200008, 1, 0x34)]


def test_python_error_in_a_callback_stops_loudly(toy: Toy) -> None:
    def broken(_gpa: int, _size: int) -> int:
        raise RuntimeError("device")

    toy.on_mmio_read = broken
    toy.write(CODE, li(1, 0x200000) + load(2, 1) + addi(0, 1) + HALT)
    assert toy.run(CODE) == ExitReason.HOST_ERROR
    assert isinstance(toy.vcpu.error, RuntimeError)
    assert toy.reg(0) == 0


# ---- self-modifying code


def test_store_into_another_block_invalidates_it(toy: Toy) -> None:
    """A routine whose immediate is rewritten before each call, reached by a chained jump."""
    routine = CODE + 0x200
    toy.write(routine, addi(0, 1) + jump_register(7))
    loop = store8(1, 2) + addi(2, 1) + li(7, CODE + 100)
    toy.write(CODE, li(1, routine + 2) + li(2, 1) + li(3, 50))
    toy.write(CODE + 30, loop + jmp(routine - (CODE + 30 + len(loop) + 5)))
    toy.write(CODE + 100, dec(3) + jnz(30 - 104) + HALT)
    assert toy.run(CODE) == ExitReason.HALT
    assert toy.reg(0) == sum(range(1, 51))
    assert toy.stat("invalidations") >= 49


def test_store_into_the_running_block_ahead(toy: Toy) -> None:
    """The very next instruction is rewritten by the one before it, again and again."""
    at = CODE + 30 + 6 + 3 + 2  # the immediate of addi(0, ..)
    code = li(1, at) + li(2, 0) + li(3, 20) + addi(2, 1) + store8(1, 2) + addi(0, 0) + dec(3)
    toy.write(CODE, code + jnz(30 - len(code) - 2) + HALT)
    assert toy.run(CODE) == ExitReason.HALT
    assert toy.reg(0) == sum(range(1, 21))
    assert toy.stat("reflows") >= 20


def test_instruction_that_overwrites_itself_completes(toy: Toy) -> None:
    at = CODE + 20
    toy.write(CODE, li(1, at) + li(2, 0x07) + store8(1, 2) + addi(0, 1) + HALT)
    assert toy.run(CODE) == ExitReason.HALT
    assert toy.ram.view[at] == 7
    assert toy.reg(0) == 1


def test_data_beside_code_stays_correct_and_blocks_survive(toy: Toy) -> None:
    """Stores to other lines of a code page neither invalidate nor get lost."""
    data = CODE + 0x800
    body = store(1, 3) + addi(1, 8) + addi(3, 1) + dec(0)
    toy.write(CODE, li(0, 100) + li(1, data) + li(3, 1) + body + jnz(-len(body) - 2) + HALT)
    assert toy.run(CODE) == ExitReason.HALT
    assert [int.from_bytes(toy.ram.view[data + 8 * n : data + 8 * n + 8], "little") for n in range(100)] == [
        n + 1 for n in range(100)
    ]
    assert toy.stat("invalidations") == 0


def test_code_page_becomes_plain_again(toy: Toy) -> None:
    """Once its blocks are gone, stores to the page take the fast path."""
    toy.write(0x6000, NOP + jump_register(7))
    body = store(1, 3) + dec(0)
    code = li(7, CODE + 0x100) + li(6, 0x6000) + jump_register(6)
    toy.write(CODE, code)
    toy.write(CODE + 0x100, li(0, 1000) + li(1, 0x6000) + body + jnz(-len(body) - 2) + HALT)
    assert toy.run(CODE) == ExitReason.HALT
    assert toy.stat("invalidations") == 1
    assert toy.stat("code_stores") <= 3


def test_code_patched_and_run_in_turns(toy: Toy) -> None:
    """Every patch is seen at once, and the page stays protected for longer the oftener that happens, not for ever."""
    toy.write(0x6000, addi(2, 0) + jump_register(7))
    rounds, plain = 100, 5000
    turn = store8(1, 0) + jump_register(6)  # the addend := r0
    head = li(0, rounds) + li(1, 0x6002) + li(2, 0) + li(6, 0x6000)
    head += li(7, CODE + len(head) + len(li(7, 0)) + len(turn))
    more = dec(0)
    more += jnz(-len(turn) - len(more) - 2)
    body = store(1, 3) + dec(0)
    toy.write(CODE, head + turn + more + li(0, plain) + li(1, 0x6000) + body + jnz(-len(body) - 2) + HALT)
    assert toy.run(CODE) == ExitReason.HALT
    assert toy.reg(2) == rounds * (rounds + 1) // 2
    assert toy.stat("invalidations") == rounds
    assert rounds < toy.stat("code_stores") < rounds + plain // 2


def test_dma_invalidates(toy: Toy) -> None:
    toy.write(CODE, addi(0, 1) + HALT)
    toy.run(CODE)
    toy.write(CODE + 2, signed(10, 4))
    toy.machine.ram_written(CODE + 2, 4)
    toy.run(CODE)
    assert toy.reg(0) == 11


# ---- interrupts, stops, steps


def test_interrupt_leaves_a_chained_loop(toy: Toy) -> None:
    """A loop without end is left for a handler within a block, and goes on after it."""
    toy.write(CODE, EI + addi(0, 1) + jmp(-11))
    toy.write(0x5000, addi(1, 1) + IRET)
    toy.vcpu.env.set("vector", 0x5000)
    thread = threading.Thread(target=toy.run, args=(CODE,))
    thread.start()
    for n in range(1, 6):
        toy.vcpu.request(Interrupt.HARD)
        while toy.reg(1) != n:
            time.sleep(0)
    toy.vcpu.request(Interrupt.STOP)
    thread.join()
    assert toy.reg(1) == 5
    assert toy.reg(0) > 0


def test_held_off_interrupt_waits_one_instruction(toy: Toy) -> None:
    toy.write(CODE, addi(0, 1) + addi(0, 1) + HALT)
    toy.write(0x5000, HALT)
    env = toy.vcpu.env
    env.set("vector", 0x5000)
    env.set("enabled", 1)
    env.set("shadow", 1)
    toy.vcpu.request(Interrupt.HARD)
    toy.run(CODE)
    assert (env.get("saved_pc"), toy.reg(0), env.get("cause")) == (CODE + 6, 1, 256)


def test_halt_returns_and_wakes(toy: Toy) -> None:
    toy.write(CODE, EI + HALT + addi(0, 1) + HALT)
    toy.write(0x5000, addi(1, 1) + IRET)
    toy.vcpu.env.set("vector", 0x5000)
    assert toy.run(CODE) == ExitReason.HALT
    assert toy.machine.runtime.call("cpu_exec", toy.vcpu.env.address) == ExitReason.HALT
    toy.vcpu.request(Interrupt.HARD)
    assert toy.machine.runtime.call("cpu_exec", toy.vcpu.env.address) == ExitReason.HALT
    assert (toy.reg(0), toy.reg(1)) == (1, 1)


def test_stop_request(toy: Toy) -> None:
    toy.write(CODE, jmp(-5))
    toy.vcpu.request(Interrupt.STOP)
    assert toy.run(CODE) == ExitReason.STOP


def test_step_mode_runs_one_instruction_a_block(toy: Toy) -> None:
    body = addi(1, 3) + dec(0)
    toy.write(CODE, li(0, 10) + body + jnz(-len(body) - 2) + HALT)
    toy.vcpu.env.set("mode", STEP_MODE)
    assert toy.run(CODE) == ExitReason.HALT
    assert toy.reg(1) == 30
    assert toy.vcpu.env.get("steps") == 1 + 30


# ---- limits of the host's structures


def test_full_code_buffer_is_flushed(toy_runtime: Runtime, toy_compiler: StencilCompiler) -> None:
    """A guest whose code does not fit runs on, through many flushes."""
    toy = Toy(toy_runtime, toy_compiler, tb_size=1 << 16)
    code = b"".join(addi(n & 7, 1) + jmp(0) for n in range(8000))
    toy.write(0x10000, code + HALT)
    for n in range(1, 4):
        assert toy.run(0x10000) == ExitReason.HALT
        assert [toy.reg(r) for r in range(8)] == [1000 * n] * 8
    assert toy.stat("flushes") > 2


def test_many_pages_through_the_tlb(toy: Toy) -> None:
    """More pages than a small TLB has entries: values stay right, the table grows."""
    body = store(1, 1) + load(2, 1) + add(3, 2) + addi(1, 4096) + dec(0)
    toy.write(CODE, li(0, 200) + li(1, 0x10000) + body + jnz(-len(body) - 2) + HALT)
    for _ in range(3):
        toy.vcpu.env.set("regs", 0, 3)
        assert toy.run(CODE) == ExitReason.HALT
        assert toy.reg(3) == sum(0x10000 + 4096 * n for n in range(200))
    assert toy.stat("tlb_resizes") >= 1


def test_page_flush_forgets_data_and_code(toy: Toy) -> None:
    toy.page_table[0x50] = 0x20000 | 7
    toy.write(0x20000, addi(0, 1) + HALT)
    toy.write(0x30000, addi(0, 100) + HALT)
    toy.run(0x50000)
    toy.page_table[0x50] = 0x30000 | 7
    toy.run(0x50000)
    assert toy.reg(0) == 2, "without a flush the old mapping stays"
    toy.machine.runtime.call("tlb_flush_page", toy.vcpu.env.address, 0, 0x50000)
    toy.run(0x50000)
    assert toy.reg(0) == 102
    assert PAGES > 0x50


@pytest.mark.parametrize("size", [1 << 12, 1 << 21, 1 << 22, 1 << 30])
def test_page_flush_forgets_all_of_a_large_page(toy: Toy, size: int) -> None:
    """One flush anywhere in a large page drops every 4 KiB piece of it that had been used, data and code."""
    toy.vcpu.env.set("page_size", size)
    pages = (0x210, 0x2F0, 0x3FF) if size > 4096 else (0x210,)  # of one 2 MiB page
    for page in pages:
        toy.page_table[page] = 0x20000 | 7
    toy.write(0x20000, addi(0, 1) + HALT)
    toy.write(0x30000, addi(0, 100) + HALT)
    for page in pages:
        toy.run(page << 12)
        toy.page_table[page] = 0x30000 | 7
    toy.machine.runtime.call("tlb_flush_page", toy.vcpu.env.address, 0, 0x210123)
    for page in pages:
        toy.run(page << 12)
    assert toy.reg(0) == 101 * len(pages)


def test_contexts_keep_their_mappings(toy: Toy) -> None:
    """Switching the context switches data and code; switching back finds the old ones without a walk."""
    call = toy.machine.runtime.call
    env = toy.vcpu.env.address
    toy.write(0x20000, addi(0, 1) + HALT)
    toy.write(0x30000, addi(0, 100) + HALT)
    toy.page_table[0x50] = 0x20000 | 7
    toy.run(0x50000)
    call("tlb_switch", env, 1, 0)
    toy.page_table[0x50] = 0x30000 | 7
    toy.run(0x50000)
    walks = toy.stat("walks")
    for n in range(4):
        call("tlb_switch", env, n & 1, 0)
        toy.run(0x50000)
    assert toy.reg(0) == 3 * 101
    assert toy.stat("walks") == walks
    call("tlb_flush_context", env, 0, 0)
    call("tlb_switch", env, 0, 0)
    toy.run(0x50000)
    assert toy.reg(0) == 303 + 100


@pytest.mark.parametrize("pc", [-1, -2, 1, 0xFFF, 1 << 63, -4096, 0xFFFFFFFF])
def test_jump_to_nowhere(toy: Toy, pc: int) -> None:
    """Whatever marks free slots of the jump cache, no pc hits one: with a block dropped from that slot before, too."""
    for n in range(PAGES):
        if n != CODE >> 12:
            toy.page_table[n] = 0
    toy.write(CODE, li(1, pc) + jump_register(1))
    for _ in range(2):
        assert toy.run(CODE) == ExitReason.SHUTDOWN
        assert toy.vcpu.env.get("fault_gva") == pc & (1 << 64) - 1
        toy.machine.ram_written(CODE, 16)


def test_loop_through_a_page_crossing_instruction_stays_in_jit_code(toy: Toy) -> None:
    """The jump to a block of two pages goes through the jump cache, not through the exec loop each time."""
    start = CODE + 4096 - 4
    toy.write(start - 12, NOP * 12 + addi(1, 1) + dec(0) + jnz(-4 - 6 - 12))
    toy.write(start + 10, HALT)
    toy.vcpu.env.set("regs", 20_000, 0)
    assert toy.run(start - 12) == ExitReason.HALT
    assert toy.reg(1) == 20_000
    assert toy.stat("lookups") < 20


def test_flush_that_keeps_global_pages(toy: Toy) -> None:
    """Global mappings, data and code, survive such a flush; others do not."""
    flush = toy.machine.runtime.function("tlb_flush_context", 3)
    toy.page_table[0x50] = 0x20000 | 15
    toy.page_table[0x60] = 0x20000 | 7
    toy.write(0x20000, addi(0, 1) + HALT)
    toy.write(0x30000, addi(0, 100) + HALT)
    toy.run(0x50000)
    toy.run(0x60000)
    toy.page_table[0x50] = 0x30000 | 15
    toy.page_table[0x60] = 0x30000 | 7
    flush(toy.vcpu.env.address, 0, 1)
    toy.run(0x50000)
    assert toy.reg(0) == 3
    toy.run(0x60000)
    assert toy.reg(0) == 103
    flush(toy.vcpu.env.address, 0, 0)
    toy.run(0x50000)
    assert toy.reg(0) == 203


def test_code_outside_ram(toy: Toy) -> None:
    """Instructions that come from a device run one at a time and are read again each time."""
    program = addi(0, 1) + HALT
    toy.on_mmio_read = lambda gpa, size: program[gpa - 0x200000] if gpa - 0x200000 < len(program) else 0
    for n in range(1, 3):
        assert toy.run(0x200000) == ExitReason.HALT
        assert toy.reg(0) == n
    assert toy.machine.view.get("qht_count") == 0
