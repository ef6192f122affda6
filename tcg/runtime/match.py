"""The first half of block assembly: from guest bytes to instructions with their stencils, in CPU.insns.

    1  walk the pattern trie over the guest bytes until a form ends the block, the page ends, or MAX_INSNS
    2  forward: what sort of status flags comes into each instruction; backward: whether anybody reads what goes out
    3  pick the stencils: one callback compiles all that are missing

Runs under tb_lock. The notes hold offsets into the tables until pass 3: a callback may have moved them.
"""

from tcg.exec.forms import StatusOut
from tcg.runtime.hooks import ask
from tcg.runtime.layout import (
    ASSEMBLED_INSN,
    CPU,
    ENV,
    FORM,
    FORM_ENDS,
    FORM_FAULTS,
    FORM_KILLS,
    FORM_READS,
    MACHINE,
    PATTERN,
    STATS,
    STENCIL,
    Callback,
    ExitReason,
)
from tcg.runtime.memory import ld8, ld32, ld32s, ld64, least, native, st32, st64

_ENV_CPU = ENV.offset("cpu")
_ENV_MODE = ENV.offset("mode")
_ENV_EXCEPTION = ENV.offset("exception")
_ENV_EXIT_REASON = ENV.offset("exit_reason")
_MACHINE = CPU.offset("machine")
_INSNS = CPU.offset("insns")
_MISSING = CPU.offset("missing")
_S_PATTERN_MISSES = CPU.offset("stats") + STATS.offset("pattern_misses")
_S_STENCIL_MISSES = CPU.offset("stats") + STATS.offset("stencil_misses")
_FORMS = MACHINE.offset("forms")
_PATTERNS = MACHINE.offset("patterns")
_VARIANTS = MACHINE.offset("variants")
_STENCILS = MACHINE.offset("stencils")
_TRIE = MACHINE.offset("trie")
_ROOTS = MACHINE.offset("roots")
_F_FLAGS = FORM.offset("flags")
_F_STATUS_OUT = FORM.offset("status_out")
_F_VARIANTS = FORM.offset("variants")
_F_STATUSES = FORM.offset("statuses")
_FORM_SIZE = FORM.size
_P_FORM = PATTERN.offset("form")
_P_LENGTH = PATTERN.offset("length")
_PATTERN_SIZE = PATTERN.size
_T_HOT_SIZE = STENCIL.offset("hot_size")
_T_COLD_SIZE = STENCIL.offset("cold_size")
_STENCIL_SIZE = STENCIL.size
_I_FORM = ASSEMBLED_INSN.offset("form")
_I_BYTES = ASSEMBLED_INSN.offset("bytes")
_I_PC = ASSEMBLED_INSN.offset("pc")
_I_STENCIL = ASSEMBLED_INSN.offset("stencil")
_I_STATUS_IN = ASSEMBLED_INSN.offset("status_in")
_I_STATUS_LIVE = ASSEMBLED_INSN.offset("status_live")
_INSN_SIZE = ASSEMBLED_INSN.size
_KEEP = int(StatusOut.KEEP)
_PATTERN_MISS = int(Callback.PATTERN_MISS)
_STENCIL_MISS = int(Callback.STENCIL_MISS)
_HOST_ERROR = int(ExitReason.HOST_ERROR)


@native
def host_error(env: int) -> int:
    """Something that must not happen: stop the machine. 0."""
    st32(env + _ENV_EXIT_REASON, _HOST_ERROR)
    st32(env + _ENV_EXCEPTION, 1)
    return 0


# ---- pass 1: patterns


@native
def walk_trie(machine: int, mode: int, code: int, room: int) -> int:
    """hva of the pattern whose head begins at `code`; 0: never seen; -1: `room` bytes were not enough to tell."""
    trie = ld64(machine + _TRIE)
    node = ld32(ld64(machine + _ROOTS) + 4 * mode)
    if node == 0:
        return 0
    for i in range(room):
        node = ld32s(trie + node * 1024 + ld8(code + i) * 4)
        if node <= 0:
            if node == 0:
                return 0
            return ld64(machine + _PATTERNS) - (node + 1) * _PATTERN_SIZE
    return -1


@native
def collect(env: int, pc: int, hva: int, room: int, limit: int) -> int:
    """Fill CPU.insns from pc on, `room` bytes at hva: how many instructions; 0: none fits whole; -1: host error."""
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    mode = ld32(env + _ENV_MODE)
    count = 0
    insn = cpu + _INSNS
    tries = 0
    while count < limit and room > 0:
        pattern = walk_trie(machine, mode, hva, room)
        if pattern == 0:
            tries += 1
            st64(cpu + _S_PATTERN_MISSES, ld64(cpu + _S_PATTERN_MISSES) + 1)
            answer = ask(env, _PATTERN_MISS, hva, least(room, 512), pc)
            if answer == 0 or tries > 4:
                host_error(env)
                return -1
            if answer == 2:
                return count
            continue
        if pattern == -1:
            return count
        length = ld8(pattern + _P_LENGTH)
        if length > room:
            return count
        tries = 0
        form = ld64(machine + _FORMS) + ld32(pattern + _P_FORM) * _FORM_SIZE
        st64(insn, pattern - ld64(machine + _PATTERNS))
        st64(insn + _I_FORM, form - ld64(machine + _FORMS))
        st64(insn + _I_BYTES, hva)
        st64(insn + _I_PC, pc)
        insn += _INSN_SIZE
        count += 1
        hva += length
        pc += length
        room -= length
        if ld32(form + _F_FLAGS) & FORM_ENDS != 0:
            return count
    return count


# ---- passes 2 and 3: status flags and stencils


@native
def variant_index(machine: int, insn: int) -> int:
    """Where the insn's stencil id is in the variants array."""
    form = ld64(machine + _FORMS) + ld64(insn + _I_FORM)
    index = ld32(form + _F_VARIANTS)
    if ld32(form + _F_STATUSES) > 1:
        index += ld32(insn + _I_STATUS_IN) * 2
    return index + ld32(insn + _I_STATUS_LIVE)


@native
def track_status(machine: int, first: int, count: int) -> None:
    status = 0
    for i in range(count):
        insn = first + i * _INSN_SIZE
        form = ld64(machine + _FORMS) + ld64(insn + _I_FORM)
        st32(insn + _I_STATUS_IN, status)
        out = ld32s(form + _F_STATUS_OUT)
        if out != _KEEP:
            status = out
    live = 1
    for i in range(count):
        insn = first + (count - 1 - i) * _INSN_SIZE
        form = ld64(machine + _FORMS) + ld64(insn + _I_FORM)
        flags = ld32(form + _F_FLAGS)
        st32(insn + _I_STATUS_LIVE, 1 if ld32s(form + _F_STATUS_OUT) == _KEEP else live)
        if flags & FORM_KILLS != 0:
            live = 0
        if flags & (FORM_READS | FORM_FAULTS) != 0:
            live = 1


@native
def choose(env: int, first: int, count: int) -> int:
    """Set every insn's stencil; the bytes they take, or -1: host error."""
    cpu = ld64(env + _ENV_CPU)
    machine = ld64(cpu + _MACHINE)
    for _attempt in range(2):
        missing = 0
        total = 0
        variants = ld64(machine + _VARIANTS)
        stencils = ld64(machine + _STENCILS)
        for i in range(count):
            insn = first + i * _INSN_SIZE
            stencil_id = ld32s(variants + 4 * variant_index(machine, insn))
            if stencil_id < 0:
                at = cpu + _MISSING + 8 * missing
                form = ld64(machine + _FORMS) + ld64(insn + _I_FORM)
                status = ld32(insn + _I_STATUS_IN) if ld32(form + _F_STATUSES) > 1 else 0
                st32(at, ld64(insn + _I_FORM) // _FORM_SIZE)
                st32(at + 4, status * 2 + ld32(insn + _I_STATUS_LIVE))
                missing += 1
            else:
                stencil = stencils + stencil_id * _STENCIL_SIZE
                st64(insn + _I_STENCIL, stencil)
                total += ld32(stencil + _T_HOT_SIZE) + ld32(stencil + _T_COLD_SIZE)
        if missing == 0:
            return total
        st64(cpu + _S_STENCIL_MISSES, ld64(cpu + _S_STENCIL_MISSES) + missing)
        if ask(env, _STENCIL_MISS, cpu + _MISSING, missing, 0) == 0:
            break
    host_error(env)
    return -1
