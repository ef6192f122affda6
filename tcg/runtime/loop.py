"""The exec loop: what happens between two visits to JIT code.

    cpu_exec(env) -> ExitReason     runs the vCPU until somebody outside is needed:
        STOP        Interrupt.STOP or WORK is in interrupt_request (the caller clears it)
        HALT        halted and nothing to take; call again when interrupt_request has changed
        SHUTDOWN, HOST_ERROR, or a reason that the guest part made up

Anyone stops it by an atomic OR into interrupt_request followed by a store of 1 to exit_request: the next block head
sees it.

A block is looked up in the current jump cache, then in the QHT by physical pc, else assembled. An exit that came back
unchained is then chained to it. With CPU.one_insn set (a store hit the running block; interrupts are held off for one
instruction) the next instruction runs alone, from a block that is not kept.
"""

from tcg.runtime.assemble import FULL, assemble_locked
from tcg.runtime.blocks import chain_locked, flush_locked, invalidate_locked
from tcg.runtime.hooks import ask, enter, guest_deliver, guest_step, guest_take_interrupt
from tcg.runtime.hot import hot_note
from tcg.runtime.layout import (
    BLOCK,
    CPU,
    ENV,
    JC_BITS,
    JC_ENTRIES,
    JC_ENTRY,
    JUMP_CACHE,
    MACHINE,
    MAX_INSNS,
    STATS,
    TLB_ENTRY,
    TLB_MMIO,
    Callback,
    ExitReason,
    Interrupt,
    Trace,
)
from tcg.runtime.lock import tb_lock, tb_unlock
from tcg.runtime.match import host_error
from tcg.runtime.memory import (
    exported,
    fence,
    ld32,
    ld64,
    load32_acquire,
    lsr,
    native,
    rdtsc,
    st32,
    st64,
    xchg32,
)
from tcg.runtime.place import BLOCK_LINK, divert_locked
from tcg.runtime.qht import qht_find
from tcg.runtime.tlb import entry_gpa, entry_is_local, jc_drop, jc_fill, jump_cache_of, tlb_find, tlb_switch

_EXIT_REQUEST = ENV.offset("exit_request")
_EXCEPTION = ENV.offset("exception")
_ENV_PC = ENV.offset("pc")
_EXIT_SLOT = ENV.offset("exit_slot")
_EXIT_REASON = ENV.offset("exit_reason")
_MMU_INDEX = ENV.offset("mmu_index")
_HALTED = ENV.offset("halted")
_INTERRUPT_REQUEST = ENV.offset("interrupt_request")
_MODE = ENV.offset("mode")
_ENV_CPU = ENV.offset("cpu")
_MACHINE = CPU.offset("machine")
_CONTEXT = CPU.offset("context")
_ONE_INSN = CPU.offset("one_insn")
_SAMPLED = CPU.offset("sampled")
_IN_BLOCK = CPU.offset("in_block")
_LAST_EXIT = CPU.offset("last_exit")
_TRACE = CPU.offset("trace")
_STATS = CPU.offset("stats")
_LOOKUPS = _STATS + STATS.offset("lookups")
_JC_HITS = _STATS + STATS.offset("jc_hits")
_QHT_HITS = _STATS + STATS.offset("qht_hits")
_CHAINED = _STATS + STATS.offset("chained")
_DELIVERIES = _STATS + STATS.offset("deliveries")
_INTERRUPTS = _STATS + STATS.offset("interrupts")
_ASSEMBLE_CYCLES = _STATS + STATS.offset("assemble_cycles")
_EXEC_CYCLES = _STATS + STATS.offset("exec_cycles")
_CALLBACK_CYCLES = _STATS + STATS.offset("callback_cycles")
_CHAIN_CYCLES = _STATS + STATS.offset("chain_cycles")
_EXITS = _STATS + STATS.offset("exits")
_STEP_MODES = MACHINE.offset("step_modes")
_JC_TABLE = JUMP_CACHE.offset("table")
_JC_ENTRY_SIZE = JC_ENTRY.size
_B_GPA2 = BLOCK.offset("gpa2")
_B_CODE = BLOCK.offset("code")
_B_VALID = BLOCK.offset("valid")
_CODE_TAG = TLB_ENTRY.offset("code")
_FETCH = 2
_STOP_BITS = int(Interrupt.STOP | Interrupt.WORK)
_CHAIN = int(ExitReason.CHAIN)
_LOOKUP = int(ExitReason.LOOKUP)
_INTERRUPT = int(ExitReason.INTERRUPT)
_REASON_EXCEPTION = int(ExitReason.EXCEPTION)
_HALT = int(ExitReason.HALT)
_REFLOW = int(ExitReason.REFLOW)
_FULL_REASON = int(ExitReason.CODE_BUFFER_FULL)
_STOP = int(ExitReason.STOP)
_TRACE_BLOCKS = int(Trace.BLOCKS)
_TRACE_ENTRIES = int(Trace.ENTRIES)
_TRACE_UNCHAINED = int(Trace.UNCHAINED)
_TRACE_BLOCK = int(Callback.TRACE_BLOCK)
_TRACE_ENTRY = int(Callback.TRACE_ENTRY)
_TRACE_STOP = int(Callback.TRACE_STOP)


@native
def translate_block(env: int, pc: int, limit: int, keep: int) -> int:
    """assemble_locked under the lock, after a flush if the buffer is full; a record, or 0 with env.exception set."""
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    start = rdtsc() - ld64(cpu + _CALLBACK_CYCLES)
    tb_lock(machine)
    block = assemble_locked(env, pc, limit, keep)
    if block == FULL:
        flush_locked(machine)
        block = assemble_locked(env, pc, limit, keep)
        if block == FULL:
            block = host_error(env)
    tb_unlock(machine)
    net = rdtsc() - ld64(cpu + _CALLBACK_CYCLES) - start
    st64(cpu + _ASSEMBLE_CYCLES, ld64(cpu + _ASSEMBLE_CYCLES) + net)
    if block != 0 and ld64(cpu + _TRACE) & _TRACE_BLOCKS != 0:
        ask(env, _TRACE_BLOCK, block, 0, 0)
    return block


@native
def second_page(env: int, block: int, pc: int) -> int:
    """For a block that goes on into the next page. 0: pc leads to it now, by two global pages; 1: by a local one;

    2: pc leads to something else; 3: that page cannot be fetched, the exception is in env.
    """
    index = ld32(env + _MMU_INDEX)
    entry = tlb_find(env, (pc & -4096) + 4096, _FETCH, index)
    if entry == 0:
        return 3
    if entry_gpa(env, entry, index) != ld64(block + _B_GPA2):
        return 2
    if entry_is_local(env, entry, index) != 0:
        return 1
    return 0


@native
def remember(jc: int, pc: int, block: int, local: int) -> None:
    """Enter the block into the jump cache, unless somebody (who may have looked there already) invalidates it now."""
    jc_fill(jc, pc, ld64(block + _B_CODE), local)
    fence()
    if ld32(block + _B_VALID) == 0:
        jc_drop(jc, pc)


@native
def find_block(env: int) -> int:
    """The block to run at env.pc in env.mode, translated if need be; 0 with env.exception set."""
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    pc = ld64(env + _ENV_PC)
    mode = ld32(env + _MODE)
    index = ld32(env + _MMU_INDEX)
    st64(cpu + _LOOKUPS, ld64(cpu + _LOOKUPS) + 1)
    if ld32(cpu + _ONE_INSN) != 0 or mode & ld64(machine + _STEP_MODES) != 0:
        return translate_block(env, pc, 1, 0)
    context = ld64(cpu + _CONTEXT)
    tlb_switch(env, context, index)
    jc = jump_cache_of(cpu, context, index)
    at = ld64(jc + _JC_TABLE) + ((pc ^ lsr(pc, JC_BITS)) & (JC_ENTRIES - 1)) * _JC_ENTRY_SIZE
    last = ld64(cpu + _LAST_EXIT)
    if ld64(at) == pc:
        st64(cpu + _JC_HITS, ld64(cpu + _JC_HITS) + 1)
        block = ld64(ld64(at + 8) - BLOCK_LINK)
    else:
        entry = tlb_find(env, pc, _FETCH, index)
        if entry == 0:
            return 0
        local = entry_is_local(env, entry, index)
        block = 0
        if ld64(entry + _CODE_TAG) & TLB_MMIO == 0:
            block = qht_find(machine, entry_gpa(env, entry, index) | (pc & 4095), pc, mode)
        if block != 0 and ld64(block + _B_GPA2) != -1:
            second = second_page(env, block, pc)
            if second == 3:
                return 0
            if second == 1:
                local = 1
            if second == 2:
                tb_lock(machine)
                invalidate_locked(machine, block)
                tb_unlock(machine)
                block = 0
        fresh = 0
        if block != 0:
            st64(cpu + _QHT_HITS, ld64(cpu + _QHT_HITS) + 1)
        else:
            fresh = 1
            block = translate_block(env, pc, MAX_INSNS, 1)
            if block == 0:
                return 0
            last = ld64(cpu + _LAST_EXIT)  # 0 if the buffer was flushed
        # A fresh block of two pages waits for its first look-up, which knows whether the second page is global.
        whole = fresh == 0 or ld64(block + _B_GPA2) == -1
        if whole and ld32(block + _B_VALID) != 0 and ld64(cpu + _TRACE) & _TRACE_ENTRIES == 0:
            remember(jc, pc, block, local)
    if last != 0 and ld64(cpu + _TRACE) & _TRACE_UNCHAINED == 0:
        begun = rdtsc()
        tb_lock(machine)
        if ld64(block + _B_GPA2) == -1:
            chain_locked(machine, last, block)
        else:
            divert_locked(env, last)
        tb_unlock(machine)
        st64(cpu + _CHAINED, ld64(cpu + _CHAINED) + 1)
        st64(cpu + _CHAIN_CYCLES, ld64(cpu + _CHAIN_CYCLES) + rdtsc() - begun)
    return block


@native
def after_exit(env: int, reason: int) -> int:
    """What an exit of JIT code or a failed look-up asks for; a reason to return to the caller, or -1 to go on."""
    cpu = ld64(env + _ENV_CPU)
    if reason == _REASON_EXCEPTION:
        st64(cpu + _DELIVERIES, ld64(cpu + _DELIVERIES) + 1)
        if guest_deliver(env) != 0:
            return ld32(env + _EXIT_REASON)
        return -1
    if reason == _HALT:
        st32(env + _HALTED, 1)
        return -1
    if reason == _FULL_REASON:
        machine = ld64(cpu + _MACHINE)
        tb_lock(machine)
        flush_locked(machine)
        tb_unlock(machine)
        return -1
    if reason == _INTERRUPT or reason == _REFLOW or reason == _LOOKUP or reason == _CHAIN:
        return -1
    return reason


@native
def run(env: int) -> int:
    """One visit to JIT code and what follows from it; a reason to return to the caller, or -1."""
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    st32(env + _EXCEPTION, 0)
    block = find_block(env)
    st64(cpu + _LAST_EXIT, 0)
    if block == 0:
        st32(env + _EXCEPTION, 0)
        st32(cpu + _ONE_INSN, 0)
        return after_exit(env, ld32(env + _EXIT_REASON))
    stepping = ld32(env + _MODE) & ld64(machine + _STEP_MODES)
    alone = ld32(cpu + _ONE_INSN)
    if ld32(cpu + _SAMPLED) != 0:
        st32(cpu + _SAMPLED, 0)
        hot_note(cpu, block)
    traced = ld64(cpu + _TRACE) & _TRACE_ENTRIES
    if traced != 0:
        ask(env, _TRACE_ENTRY, block, 0, 0)
    st32(cpu + _IN_BLOCK, 1)
    start = rdtsc() - ld64(cpu + _CALLBACK_CYCLES)
    enter(env, ld64(block + _B_CODE))
    net = rdtsc() - ld64(cpu + _CALLBACK_CYCLES) - start
    st64(cpu + _EXEC_CYCLES, ld64(cpu + _EXEC_CYCLES) + net)
    st32(cpu + _IN_BLOCK, 0)
    reason = ld32(env + _EXIT_REASON)
    st32(env + _EXCEPTION, 0)
    count = cpu + _EXITS + 8 * (reason & 15)
    st64(count, ld64(count) + 1)
    if traced != 0 and reason == _INTERRUPT:
        ask(env, _TRACE_STOP, block, 0, 0)
    if reason == _INTERRUPT and ld32(env + _INTERRUPT_REQUEST) == 0:
        st32(cpu + _SAMPLED, 1)
    if alone != 0 and reason != _INTERRUPT:
        st32(cpu + _ONE_INSN, 0)
    if reason == _CHAIN:
        st64(cpu + _LAST_EXIT, ld64(env + _EXIT_SLOT))
    if stepping != 0 and (reason == _CHAIN or reason == _LOOKUP):
        st64(cpu + _LAST_EXIT, 0)
        if guest_step(env) != 0:
            return ld32(env + _EXIT_REASON)
        return -1
    return after_exit(env, reason)


@exported
def cpu_exec(env: int) -> int:
    """Run the vCPU until the world outside is needed; an ExitReason."""
    cpu = ld64(env + _ENV_CPU)
    st64(cpu + _LAST_EXIT, 0)
    while True:
        xchg32(env + _EXIT_REQUEST, 0)
        pending = load32_acquire(env + _INTERRUPT_REQUEST)
        if pending != 0:
            if pending & _STOP_BITS != 0:
                return _STOP
            # Not in the middle of an instruction that is being run again alone.
            if ld32(cpu + _ONE_INSN) == 0:
                taken = guest_take_interrupt(env)
                if taken == 1:
                    st64(cpu + _LAST_EXIT, 0)
                    st64(cpu + _INTERRUPTS, ld64(cpu + _INTERRUPTS) + 1)
                elif taken == 2:
                    st32(cpu + _ONE_INSN, 1)
                elif taken == 3:
                    return ld32(env + _EXIT_REASON)
        if ld32(env + _HALTED) != 0:
            return _HALT
        reason = run(env)
        if reason != -1:
            return reason
