"""Delivery of exceptions, interrupts and software interrupts through the IDT (SDM volume 3, chapter 6).

Everything is read and pushed first, with the new stack pointer in a local; guest registers change only when nothing can
fault any more. A fault on the way is left in env like any other, and `x86_deliver` makes a double fault of it where
table 6-5 says so. Task gates are not implemented: #GP, counted.
"""

from frontends.x86.helpers.access import (
    cpl_index,
    failed,
    leave_block,
    raise_exception,
    raise_gp,
    system_load,
    unimplemented,
)
from frontends.x86.helpers.env import (
    ACCESS_WRITE,
    AT_CODE,
    AT_DB,
    AT_DC,
    AT_L,
    AT_P,
    AT_S,
    BP,
    CPL,
    CPU,
    CR2,
    CS,
    DB,
    DFAULT,
    DPL_SHIFT,
    DR,
    EFLAGS,
    ERROR_CODE,
    EXCEPTION,
    EXCEPTION_INDEX,
    EXIT_REASON,
    FAULT_GVA,
    FL_IF,
    FL_NT,
    FL_RF,
    FL_TF,
    FL_VM,
    HALTED,
    IDT_BASE,
    IDT_LIMIT,
    INT_SHADOW,
    INTERRUPT_HARD,
    INTERRUPT_NMI,
    INTERRUPT_REQUEST,
    NMI,
    NMI_BLOCKED,
    NP,
    OF,
    PC,
    PF,
    REASON_EXCEPTION,
    REASON_SHUTDOWN,
    RSP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SELECTOR,
    SS,
    SS_FAULT,
    TR,
    TS,
    UNIMPLEMENTED_TASK_SWITCH,
)
from frontends.x86.helpers.flags import read_rflags
from frontends.x86.helpers.mode import x86_update_mode
from frontends.x86.helpers.runtime import ask, store_as, tlb_probe
from frontends.x86.helpers.segments import (
    canonical,
    check_stack_desc,
    desc_attr,
    desc_base,
    desc_dpl,
    desc_limit,
    descriptor_gva,
    long_mode,
    set_segment,
)
from tcg.runtime.layout import CPU as CPU_STRUCT
from tcg.runtime.layout import Callback, Trace
from tcg.runtime.memory import atomic_and32, exported, ld32, ld64, lsr, native, st32, st64, ult

ACKNOWLEDGE = int(Callback.ACKNOWLEDGE)
TRACE_EVENT = int(Callback.TRACE_EVENT)
TRACE_EVENTS = int(Trace.EVENTS)
TRACE = CPU_STRUCT.offset("trace")
HAS_ERROR_CODE = 0x00227D00  # vectors 8, 10 to 14, 17, 21
CONTRIBUTORY = 0x00203C01  # 0, 10 to 13, 21
NO_RF = 1 << DB | 1 << NMI | 1 << BP | 1 << OF | 1 << DFAULT  # traps and aborts: RF is not set in the image
EVENT_SOFT = 1  # INT n, INT3, INTO: the gate's DPL is checked
EVENT_ERROR = 2  # an error code is pushed
EVENT_EXT = 4  # not caused by the program: bit 0 of selector error codes
EVENT_RF = 8  # the pushed image has RF set
EVENT_BENIGN = 16  # an interrupt: never the first half of a double fault
EVENT_AGAIN = 32  # (in logs only) raised by the delivery of another
GATE_ERROR_IDT = 2
GATES32 = 0xC0E0  # types 5 task, 6 and 7 16-bit, 14 and 15 32-bit interrupt and trap gate
BUSY_TSS32 = 8  # type bit of a 32-bit TSS


@native
def push(env: int, rsp: int, size: int, value: int, mmu_idx: int, ss_base: int, sp_mask: int) -> int:
    """Store below `rsp` (not yet the register); the new stack pointer. The caller tests failed()."""
    rsp = (rsp & ~sp_mask) | ((rsp - size) & sp_mask)
    if sp_mask == -1:
        gva = rsp
    else:
        gva = (ss_base + (rsp & sp_mask)) & 0xFFFFFFFF
    store_as(env, gva, size, value, mmu_idx)
    return rsp


@native
def stack_mask(attr: int) -> int:
    """Which bits of (E)SP a legacy-mode stack with these SS attributes uses."""
    return 0xFFFFFFFF if attr & AT_DB else 0xFFFF


@native
def interrupted_flags(env: int, event: int) -> int:
    flags = read_rflags(env) & ~FL_RF
    if event & EVENT_RF:
        flags |= FL_RF
    return flags


@native
def finish_delivery(env: int, clear_if: int, pc: int) -> None:
    eflags = ld32(env + EFLAGS) & ~(FL_TF | FL_NT | FL_RF | FL_VM)
    if clear_if:
        eflags &= ~FL_IF
    st32(env + EFLAGS, eflags)
    st64(env + PC, pc)
    x86_update_mode(env)


@native
def tss_stack64(env: int, offset: int, error: int) -> int:
    """A stack pointer of the 64-bit TSS; 0 with a fault left when it is out of limit or not canonical."""
    if offset + 7 > ld32(env + SEG_LIMIT + 4 * TR) or not ld32(env + SEG_ATTR + 4 * TR) & AT_P:
        return raise_exception(env, TS, (ld32(env + SEG_SELECTOR + 4 * TR) & 0xFFFC) | error)
    rsp = system_load(env, ld64(env + SEG_BASE + 8 * TR) + offset, 8)
    if failed(env):
        return 0
    if not canonical(rsp):
        return raise_exception(env, SS_FAULT, error)
    return rsp


@native
def code_target(env: int, selector: int, ext: int) -> int:
    """The code descriptor a gate leads to, checked (SDM vol. 2, INT n); 0 with a fault left."""
    if selector & 0xFFFC == 0:
        return raise_gp(env, ext)
    error = (selector & 0xFFFC) | ext
    gva = descriptor_gva(env, selector, 8)
    if gva == -1:
        return raise_gp(env, error)
    desc = system_load(env, gva, 8)
    if failed(env):
        return 0
    attr = desc_attr(desc)
    if attr & (AT_S | AT_CODE) != AT_S | AT_CODE or desc_dpl(desc) > ld32(env + CPL):
        return raise_gp(env, error)
    if not attr & AT_P:
        return raise_exception(env, NP, error)
    if long_mode(env) and attr & (AT_L | AT_DB) != AT_L:
        return raise_gp(env, error)
    return desc


@native
def push_frame64(env: int, top: int, frame: int, index: int, error: int, event: int, return_pc: int) -> int:
    """The frame from `top` down to `frame`: SS, RSP, RFLAGS, CS, RIP, error code; 0 with a fault left."""
    flags = interrupted_flags(env, event)
    if top - 1 >> 12 == frame >> 12:
        hva = tlb_probe(env, top - 8, ACCESS_WRITE, index)
        if hva == -1:
            return 0
        if hva != 0:
            st64(hva, ld32(env + SEG_SELECTOR + 4 * SS))
            st64(hva - 8, ld64(env + RSP))
            st64(hva - 16, flags)
            st64(hva - 24, ld32(env + SEG_SELECTOR + 4 * CS))
            st64(hva - 32, return_pc)
            if event & EVENT_ERROR:
                st64(hva - 40, error)
            return 1
    store_as(env, top - 8, 8, ld32(env + SEG_SELECTOR + 4 * SS), index)
    if failed(env):
        return 0
    store_as(env, top - 16, 8, ld64(env + RSP), index)
    if failed(env):
        return 0
    store_as(env, top - 24, 8, flags, index)
    if failed(env):
        return 0
    store_as(env, top - 32, 8, ld32(env + SEG_SELECTOR + 4 * CS), index)
    if failed(env):
        return 0
    store_as(env, top - 40, 8, return_pc, index)
    if failed(env):
        return 0
    if event & EVENT_ERROR:
        store_as(env, top - 48, 8, error, index)
        if failed(env):
            return 0
    return 1


@native
def deliver64(env: int, vector: int, error: int, event: int, return_pc: int) -> None:
    """One delivery in long mode (SDM vol. 3, 6.14)."""
    ext = 1 if event & EVENT_EXT else 0
    gate_error = vector << 3 | GATE_ERROR_IDT | ext
    if vector * 16 + 15 > ld32(env + IDT_LIMIT):
        raise_gp(env, gate_error)
        return
    gate = ld64(env + IDT_BASE) + vector * 16
    low = system_load(env, gate, 8)
    if failed(env):
        return
    high = system_load(env, gate + 8, 8)
    if failed(env):
        return
    kind = lsr(low, 40) & 31
    cpl = ld32(env + CPL)
    if kind != 14 and kind != 15:
        raise_gp(env, gate_error)
        return
    if event & EVENT_SOFT and desc_dpl(low) < cpl:
        raise_gp(env, gate_error)
        return
    if not lsr(low, 32) & AT_P:
        raise_exception(env, NP, gate_error)
        return
    selector = lsr(low, 16) & 0xFFFF
    target = (low & 0xFFFF) | (lsr(low, 32) & 0xFFFF0000) | (high & 0xFFFFFFFF) << 32
    desc = code_target(env, selector, ext)
    if failed(env):
        return
    if not canonical(target):
        raise_gp(env, ext)
        return
    new_cpl = cpl
    if not desc_attr(desc) & AT_DC:
        new_cpl = desc_dpl(desc)
    ist = lsr(low, 32) & 7
    if ist:
        rsp = tss_stack64(env, 28 + 8 * ist, ext)
    elif new_cpl < cpl:
        rsp = tss_stack64(env, 4 + 8 * new_cpl, ext)
    else:
        rsp = ld64(env + RSP)
    if failed(env):
        return
    rsp &= ~15
    frame = rsp - 40
    if event & EVENT_ERROR:
        frame -= 8
    if not canonical(frame) or not canonical(rsp - 1):
        raise_exception(env, SS_FAULT, ext)
        return
    if not push_frame64(env, rsp, frame, cpl_index(env, new_cpl), error, event, return_pc):
        return
    if new_cpl < cpl:
        set_segment(env, SS, new_cpl, 0, 0, new_cpl << DPL_SHIFT)
    st64(env + RSP, frame)
    set_segment(env, CS, (selector & 0xFFFC) | new_cpl, desc_base(desc), desc_limit(desc), desc_attr(desc) | 0x100)
    st32(env + CPL, new_cpl)
    finish_delivery(env, 1 if kind == 14 else 0, target)


@native
def inner_stack(env: int, new_cpl: int, ext: int) -> int:
    """Legacy TSS: the stack for `new_cpl`, as selector << 32 | (E)SP; a fault is left when out of limit."""
    kind = lsr(ld32(env + SEG_ATTR + 4 * TR), 8) & 15
    base = ld64(env + SEG_BASE + 8 * TR)
    limit = ld32(env + SEG_LIMIT + 4 * TR)
    if kind & BUSY_TSS32:
        offset = 4 + 8 * new_cpl
        if offset + 5 <= limit:
            sp = system_load(env, base + offset, 4)
            if failed(env):
                return 0
            return (system_load(env, base + offset + 4, 2) << 32) | sp
    else:
        offset = 2 + 4 * new_cpl
        if offset + 3 <= limit:
            sp = system_load(env, base + offset, 2)
            if failed(env):
                return 0
            return (system_load(env, base + offset + 2, 2) << 32) | sp
    return raise_exception(env, TS, (ld32(env + SEG_SELECTOR + 4 * TR) & 0xFFFC) | ext)


@native
def stack_desc(env: int, selector: int, cpl: int, ext: int) -> int:
    """The checked descriptor of an inner stack: #TS(selector) unless fit for `cpl`, #SS(selector) unless present."""
    error = (selector & 0xFFFC) | ext
    if selector & 0xFFFC == 0:
        return raise_exception(env, TS, ext)
    gva = descriptor_gva(env, selector, 8)
    if gva == -1:
        return raise_exception(env, TS, error)
    desc = system_load(env, gva, 8)
    if failed(env):
        return 0
    if not check_stack_desc(selector, desc, cpl):
        return raise_exception(env, TS, error)
    if not desc_attr(desc) & AT_P:
        return raise_exception(env, SS_FAULT, error)
    return desc


@native
def deliver32(env: int, vector: int, error: int, event: int, return_pc: int) -> None:
    """One delivery in protected mode without long mode (SDM vol. 3, 6.12): same or inner privilege."""
    ext = 1 if event & EVENT_EXT else 0
    gate_error = vector << 3 | GATE_ERROR_IDT | ext
    if vector * 8 + 7 > ld32(env + IDT_LIMIT):
        raise_gp(env, gate_error)
        return
    gate = system_load(env, (ld64(env + IDT_BASE) + vector * 8) & 0xFFFFFFFF, 8)
    if failed(env):
        return
    kind = lsr(gate, 40) & 31
    cpl = ld32(env + CPL)
    if not (GATES32 >> kind) & 1 or (event & EVENT_SOFT and desc_dpl(gate) < cpl):
        raise_gp(env, gate_error)
        return
    if not lsr(gate, 32) & AT_P:
        raise_exception(env, NP, gate_error)
        return
    if kind == 5:
        unimplemented(env, UNIMPLEMENTED_TASK_SWITCH, vector)
        return
    size = 4 if kind & 8 else 2
    selector = lsr(gate, 16) & 0xFFFF
    target = gate & 0xFFFF
    if size == 4:
        target |= lsr(gate, 32) & 0xFFFF0000
    desc = code_target(env, selector, ext)
    if failed(env):
        return
    new_cpl = cpl
    if not desc_attr(desc) & AT_DC:
        new_cpl = desc_dpl(desc)
    if ult(desc_limit(desc), target):
        raise_gp(env, ext)
        return
    index = cpl_index(env, new_cpl)
    rsp = ld64(env + RSP)
    ss_desc = 0
    ss_selector = ld32(env + SEG_SELECTOR + 4 * SS)
    ss_base = ld64(env + SEG_BASE + 8 * SS)
    mask = stack_mask(ld32(env + SEG_ATTR + 4 * SS))
    if new_cpl < cpl:
        stack = inner_stack(env, new_cpl, ext)
        if failed(env):
            return
        ss_selector = stack >> 32
        rsp = stack & 0xFFFFFFFF
        ss_desc = stack_desc(env, ss_selector, new_cpl, ext)
        if failed(env):
            return
        ss_base = desc_base(ss_desc)
        mask = stack_mask(desc_attr(ss_desc))
        rsp = push(env, rsp, size, ld32(env + SEG_SELECTOR + 4 * SS), index, ss_base, mask)
        if failed(env):
            return
        rsp = push(env, rsp, size, ld64(env + RSP), index, ss_base, mask)
        if failed(env):
            return
    rsp = push(env, rsp, size, interrupted_flags(env, event), index, ss_base, mask)
    if failed(env):
        return
    rsp = push(env, rsp, size, ld32(env + SEG_SELECTOR + 4 * CS), index, ss_base, mask)
    if failed(env):
        return
    rsp = push(env, rsp, size, return_pc, index, ss_base, mask)
    if failed(env):
        return
    if event & EVENT_ERROR:
        rsp = push(env, rsp, size, error, index, ss_base, mask)
        if failed(env):
            return
    if new_cpl < cpl:
        attr = desc_attr(ss_desc) | 0x100
        set_segment(env, SS, (ss_selector & 0xFFFC) | new_cpl, ss_base, desc_limit(ss_desc), attr)
    st64(env + RSP, rsp)
    set_segment(env, CS, (selector & 0xFFFC) | new_cpl, desc_base(desc), desc_limit(desc), desc_attr(desc) | 0x100)
    st32(env + CPL, new_cpl)
    finish_delivery(env, 0 if kind & 1 else 1, target)


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
