"""Exceptions, interrupts, INT n: which is delivered, and what a fault on the way becomes (SDM volume 3, chapter 6).

A fault met by `delivery` is left in env like any other; `deliver_event` makes a double fault of it where table 6-5
says so.
"""

from frontends.x86.helpers.access import failed, leave_block, raise_exception
from frontends.x86.helpers.delivery import (
    EVENT_ERROR,
    EVENT_EXT,
    EVENT_RF,
    EVENT_SOFT,
    deliver64,
)
from frontends.x86.helpers.delivery32 import deliver32
from frontends.x86.helpers.descriptors import long_mode
from frontends.x86.helpers.env import (
    BP,
    CPU,
    CR2,
    DB,
    DFAULT,
    DR,
    EFLAGS,
    ERROR_CODE,
    EXCEPTION,
    EXCEPTION_INDEX,
    EXIT_REASON,
    FAULT_GVA,
    FL_IF,
    HALTED,
    INT_SHADOW,
    INTERRUPT_HARD,
    INTERRUPT_NMI,
    INTERRUPT_REQUEST,
    NMI,
    NMI_BLOCKED,
    OF,
    PC,
    PF,
    REASON_EXCEPTION,
    REASON_SHUTDOWN,
)
from frontends.x86.helpers.runtime import ask
from tcg.runtime.layout import CPU as CPU_STRUCT
from tcg.runtime.layout import Callback, Trace
from tcg.runtime.memory import atomic_and32, exported, ld32, ld64, native, st32, st64

ACKNOWLEDGE = int(Callback.ACKNOWLEDGE)
TRACE_EVENT = int(Callback.TRACE_EVENT)
TRACE_EVENTS = int(Trace.EVENTS)
TRACE = CPU_STRUCT.offset("trace")
HAS_ERROR_CODE = 0x00227D00  # vectors 8, 10 to 14, 17, 21
CONTRIBUTORY = 0x00203C01  # 0, 10 to 13, 21
NO_RF = 1 << DB | 1 << NMI | 1 << BP | 1 << OF | 1 << DFAULT  # traps and aborts: RF is not set in the image
EVENT_BENIGN = 16  # an interrupt: never the first half of a double fault
EVENT_AGAIN = 32  # (in logs only) raised by the delivery of another


@native
def trace_event(env: int, vector: int, error: int, event: int) -> None:
    if ld64(ld64(env + CPU) + TRACE) & TRACE_EVENTS:
        ask(env, TRACE_EVENT, vector, error, event)


@native
def deliver_once(env: int, vector: int, error: int, event: int, return_pc: int) -> None:
    if long_mode(env):
        deliver64(env, vector, error, event, return_pc)
    else:
        deliver32(env, vector, error, event, return_pc)


@native
def deliver_event(env: int, vector: int, error: int, event: int) -> int:
    """Deliver, and what faults on the way in its turn (SDM vol. 3, table 6-5). 1: exit_reason says why not."""
    again = 0
    while True:
        if vector == PF:
            st64(env + CR2, ld64(env + FAULT_GVA))
        st32(env + EXCEPTION, 0)
        trace_event(env, vector, error, event | again)
        again = EVENT_AGAIN
        deliver_once(env, vector, error, event, ld64(env + PC))
        if not failed(env):
            return 0
        second = ld32(env + EXCEPTION_INDEX)
        error = ld64(env + ERROR_CODE)
        if ld32(env + EXIT_REASON) != REASON_EXCEPTION:
            return 1
        if not event & EVENT_BENIGN:
            contributory = (CONTRIBUTORY >> second) & 1
            if vector == DFAULT and (contributory or second == PF):
                leave_block(env, REASON_SHUTDOWN)
                return 1
            if (vector == PF and (contributory or second == PF)) or ((CONTRIBUTORY >> vector) & 1 and contributory):
                if second == PF:
                    st64(env + CR2, ld64(env + FAULT_GVA))
                second = DFAULT
                error = 0
        vector = second
        event = EVENT_EXT
        if (HAS_ERROR_CODE >> vector) & 1:
            event |= EVENT_ERROR
        if not (NO_RF >> vector) & 1:
            event |= EVENT_RF


@exported
def x86_deliver(env: int) -> int:
    """Deliver the exception in env (exception_index, error_code, fault_gva; env.pc as pushed).

    1: nothing was delivered, exit_reason says why (SHUTDOWN after a triple fault).
    """
    vector = ld32(env + EXCEPTION_INDEX)
    event = EVENT_EXT
    if (HAS_ERROR_CODE >> vector) & 1:
        event |= EVENT_ERROR
    if not (NO_RF >> vector) & 1:
        event |= EVENT_RF
    error = ld64(env + ERROR_CODE)
    if vector == DFAULT:
        error = 0
    st32(env + INT_SHADOW, 0)
    return deliver_event(env, vector, error, event)


@exported
def x86_take_interrupt(env: int) -> int:
    """Look at interrupt_request at a block boundary, env.pc being the next instruction.

    0: nothing to take now (the request stays; STI and kin look again); 1: taken; 2: held off by STI or MOV SS: run one
    instruction, then ask again; 3: exit_reason says why the vCPU stops. A taken interrupt ends HLT.
    """
    request = ld32(env + INTERRUPT_REQUEST)
    nmi = request & INTERRUPT_NMI and not ld32(env + NMI_BLOCKED)
    hard = request & INTERRUPT_HARD and ld32(env + EFLAGS) & FL_IF
    if not nmi and not hard:
        return 0
    if ld32(env + INT_SHADOW):
        st32(env + INT_SHADOW, 0)
        return 2
    if nmi:
        atomic_and32(env + INTERRUPT_REQUEST, ~INTERRUPT_NMI)
        vector = NMI
        st32(env + NMI_BLOCKED, 1)
    else:
        vector = ask(env, ACKNOWLEDGE, 0, 0, 0)
        if vector < 0:
            return 0
    st32(env + HALTED, 0)
    if deliver_event(env, vector, 0, EVENT_EXT | EVENT_BENIGN):
        return 3
    return 1


@exported
def helper_x86_int(env: int, vector: int, next_pc: int, kind: int) -> None:
    """INT n (kind 0), INT3 and INTO (1), INT1 (2): a trap at next_pc; a fault leaves env.pc at this instruction."""
    event = EVENT_SOFT
    if kind == 2:
        event = EVENT_EXT
    trace_event(env, vector & 0xFF, 0, EVENT_SOFT)
    deliver_once(env, vector & 0xFF, 0, event, next_pc)


@exported
def x86_step(env: int) -> int:
    """After an instruction with RFLAGS.TF set, env.pc being the next: #DB with DR6.BS (SDM vol. 3, 17.3.1.4)."""
    st64(env + DR + 48, ld64(env + DR + 48) | 1 << 14)
    raise_exception(env, DB, 0)
    return x86_deliver(env)
