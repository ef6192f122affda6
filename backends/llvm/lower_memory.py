"""Guest memory: the softmmu's fast path in line, the helper out of line; locked operations; barriers.

Fast path: the entry of the page is at env.tlb_table + ((gva >> 7) & env.tlb_mask); it hits when its tag equals the page
of the access's last byte (so an access that crosses pages misses), alignment bits kept where alignment is required.

Guest RAM accesses are plain `volatile` ones wherever a block has more than one: neither merged, split, repeated nor
moved past each other, which is all that `monotonic` would give for accesses that the host does in one piece. LLVM
turns an unaligned atomic into a library call, so real atomics on x86 are inline asm, which has no alignment rule.

A load and the store to the same place after it share one look-up, of the write tag (whoever may write may read); jump
threading then gives hit and miss a way of their own. On a miss both helpers run.

The slow path stores the pc, calls `helper_ld<bits>(env, gva)` or `helper_st<bits>(env, gva, value)`, C convention,
values zero-extended to i64, 128 bits in env.scratch[0]; then leaves the block if env.exception is set.
"""

from backends.llvm.emitter import LIKELY, LLVM_TYPE, TBAA_RAM, TBAA_TLB, UNLIKELY, Emitter, Unsupported, attr, lowers
from tcg.ir.block import Hole, Op, Operand
from tcg.ir.types import F32, F64, F80, I8, I16, I32, I64, I128, INT_OF_SIZE, V128, Barrier, MemOp, Type
from tcg.runtime.layout import TLB_ENTRY

_PAGE_MASK = 0xFFF


class _Access:
    """One access: its gva, the labels of its three parts, and the host address on the fast path.

    An access and its parts: look-up, fast path, slow path (`begin_slow` to `end_slow`), and where the two meet.
    """

    __slots__ = ("align", "done", "gva", "host", "slow")

    def __init__(self, e: Emitter, gva: Operand, memop: MemOp, tag: str) -> None:
        self.gva = e.value(gva)
        self.align = memop.align
        fast, self.slow, self.done = (e.new_label(hint) for hint in ("fast", "slow", "done"))
        over = memop.size - min(memop.align, memop.size)  # an aligned access's last byte is on its first byte's page
        if over and (isinstance(gva, Hole) or gva in e.holed):
            # The empty asm keeps LLVM from folding "+ over" into a displacement hole, which could overflow its field.
            # Once a gva, so that accesses to one place share what they can.
            if gva not in e.gvas:
                e.gvas[gva] = e.new(f'call i64 asm "", "=r,0"({e.typed(gva)})')
            self.gva = e.gvas[gva]
        index = e.new(f"lshr i64 {self.gva}, 7")
        index = e.new(f"and i64 {index}, {e.load_env('tlb_mask', 'i64')}")
        entry = e.new(f"getelementptr i8, ptr {e.load_env('tlb_table', 'ptr')}, i64 {index}")
        have = e.new(f"load i64, ptr {self._field(e, entry, tag)}, {TBAA_TLB}")
        last = e.new(f"add i64 {self.gva}, {over}") if over else self.gva
        page = e.new(f"and i64 {last}, {~_PAGE_MASK | (memop.align - 1)}")
        e.branch(e.new(f"icmp eq i64 {have}, {page}"), fast, self.slow, LIKELY)
        e.start(fast)
        addend = e.new(f"load i64, ptr {self._field(e, entry, 'addend')}, {TBAA_TLB}")
        address = e.new(f"add i64 {addend}, {self.gva}")
        self.host = e.new(f"inttoptr i64 {address} to ptr")

    @classmethod
    def again(cls, e: Emitter, gva: str, hit: str, host: str) -> "_Access":
        """The store of a load-modify-store, on the look-up that the load has made."""
        self = cls.__new__(cls)
        self.gva, self.host = gva, host
        self.align = 1  # the load has asked already
        fast, self.slow, self.done = (e.new_label(hint) for hint in ("fast", "slow", "done"))
        e.branch(hit, fast, self.slow, LIKELY)
        e.start(fast)
        return self

    @staticmethod
    def _field(e: Emitter, entry: str, name: str) -> str:
        offset = TLB_ENTRY.offset(name)
        return e.new(f"getelementptr i8, ptr {entry}, i64 {offset}") if offset else entry

    def begin_slow(self, e: Emitter) -> str:
        """End the fast path, begin the slow one; gives the fast path's last label for the phi."""
        fast_end = e.label
        e.jump(self.done)
        e.start(self.slow)
        e.store_pc()
        if self.align > 1:
            self._require_alignment(e)
        return fast_end

    def _require_alignment(self, e: Emitter) -> None:
        """helper_unaligned(env, gva), the guest's, raises its alignment fault."""
        helper = e.module.declare("helper_unaligned", "declare void @helper_unaligned(ptr, i64) nounwind")
        low = e.new(f"and i64 {self.gva}, {self.align - 1}")
        wrong, right = e.new_label("wrong"), e.new_label("right")
        e.branch(e.new(f"icmp ne i64 {low}, 0"), wrong, right, UNLIKELY)
        e.start(wrong)
        e.line(f"call void {helper}(ptr %env, i64 {self.gva})")
        e.tail("@leave")
        e.start(right)

    def end_slow(self, e: Emitter) -> str:
        """Leave on a fault, else meet the fast path; gives the slow path's last label for the phi."""
        e.leave_if_exception()
        slow_end = e.label
        e.start(self.done)
        return slow_end


def _swap(e: Emitter, kind: Type, value: str) -> str:
    if kind is I8:
        return value
    name = LLVM_TYPE[kind]
    return e.new(f"call {name} {e.module.intrinsic(f'llvm.bswap.{name}', name, name)}({name} {value})")


def _resized(e: Emitter, value: str, source: Type, to: Type, *, signed: bool = False) -> str:
    """An integer of type `source` truncated or extended to `to`."""
    if source is to:
        return value
    how = "trunc" if source.width > to.width else "sext" if signed else "zext"
    return e.new(f"{how} {LLVM_TYPE[source]} {value} to {LLVM_TYPE[to]}")


def _carrier(type_: Type, size: int) -> Type:
    """How `size` bytes travel: an integer, or a vector for a vector."""
    return V128 if type_ is V128 else INT_OF_SIZE[size]


def _slow_load(e: Emitter, size: int, gva: str, carrier: Type) -> str:
    if size == 16:
        helper = e.module.declare("helper_ld128", "declare i64 @helper_ld128(ptr, i64) nounwind")
        e.new(f"call i64 {helper}(ptr %env, i64 {gva})")
        return e.load_env("scratch", LLVM_TYPE[carrier])
    name = f"helper_ld{size * 8}"
    helper = e.module.declare(name, f"declare i64 @{name}(ptr, i64) nounwind")
    return _resized(e, e.new(f"call i64 {helper}(ptr %env, i64 {gva})"), I64, carrier)


@lowers("qemu_ld")
def _qemu_ld(e: Emitter, op: Op) -> None:
    memop: MemOp = attr(op, "memop")
    out = op.outs[0]
    carrier = _carrier(out.type, memop.size)
    kind = LLVM_TYPE[carrier]
    store = e.modify.get(op)
    access = _Access(e, op.ins[0], memop, "write" if store else "read")
    fast = e.new(f"load {'volatile ' if e.volatile else ''}{kind}, ptr {access.host}, align 1, {TBAA_RAM}")
    fast_end = access.begin_slow(e)
    slow = _slow_load(e, memop.size, access.gva, carrier)
    slow_end = access.end_slow(e)
    value = e.new(f"phi {kind} [ {fast}, %{fast_end} ], [ {slow}, %{slow_end} ]")
    if store:
        hit = e.new(f"phi i1 [ true, %{fast_end} ], [ false, %{slow_end} ]")
        host = e.new(f"phi ptr [ {access.host}, %{fast_end} ], [ null, %{slow_end} ]")
        e.shared[store] = (hit, host)
    if memop.big_endian:
        value = _swap(e, carrier, value)
    if out.type is V128:
        e.alias(out, value)
    elif out.type in (F32, F64):
        e.set(out, f"bitcast {kind} {value} to {LLVM_TYPE[out.type]}")
    elif out.type is F80:
        raise Unsupported("qemu_ld of an f80: load its 8 and 2 bytes")
    else:
        e.alias(out, _resized(e, value, carrier, out.type, signed=memop.signed))


def _as_carrier(e: Emitter, operand: Operand, memop: MemOp) -> tuple[Type, str]:
    """The low memop.size bytes of a value in memory order."""
    carrier = _carrier(operand.type, memop.size)
    value = e.value(operand)
    if operand.type in (F32, F64):
        value = e.new(f"bitcast {e.typed(operand)} to {LLVM_TYPE[carrier]}")
    elif operand.type.kind == "int":
        value = _resized(e, value, operand.type, carrier)
    elif operand.type is F80:
        raise Unsupported("qemu_st of an f80: store its 8 and 2 bytes")
    return carrier, _swap(e, carrier, value) if memop.big_endian else value


@lowers("qemu_st")
def _qemu_st(e: Emitter, op: Op) -> None:
    memop: MemOp = attr(op, "memop")
    carrier, value = _as_carrier(e, op.ins[1], memop)
    kind = LLVM_TYPE[carrier]
    access = _Access.again(e, e.gvas.get(op.ins[0]) or e.value(op.ins[0]), *e.shared[op]) if op in e.shared else None
    access = access or _Access(e, op.ins[0], memop, "write")
    e.line(f"store {'volatile ' if e.volatile else ''}{kind} {value}, ptr {access.host}, align 1, {TBAA_RAM}")
    access.begin_slow(e)
    if memop.size == 16:
        e.store_env("scratch", f"{kind} {value}")
        helper = e.module.declare("helper_st128", "declare void @helper_st128(ptr, i64) nounwind")
        e.line(f"call void {helper}(ptr %env, i64 {access.gva})")
    else:
        name = f"helper_st{memop.size * 8}"
        helper = e.module.declare(name, f"declare void @{name}(ptr, i64, i64) nounwind")
        e.line(f"call void {helper}(ptr %env, i64 {access.gva}, i64 {_resized(e, value, carrier, I64)})")
    access.end_slow(e)


# --- locked operations ------------------------------------------------------------------------------------------------
# Alone (no PARALLEL): load, compute, store behind one look-up of the write tag. Parallel: one locked host instruction.

_SUFFIX = {I8: "b", I16: "w", I32: "l", I64: "q"}
_PLAIN = {"add": "add", "sub": "sub", "and": "and", "or": "or", "xor": "xor"}


def _locked(e: Emitter, name: str, kind: Type, host: str, value: str) -> str:
    """One locked read-modify-write of the host, unaligned allowed; gives the old value."""
    text, suffix = LLVM_TYPE[kind], _SUFFIX[kind]
    pointer = f"ptr elementtype({text}) {host}"
    if name == "sub":
        value = e.new(f"sub {text} 0, {value}")
    if name in ("add", "sub", "xchg"):
        code = f"xchg{suffix} $0, $1" if name == "xchg" else f"lock xadd{suffix} $0, $1"
        return e.new(
            f'call {text} asm sideeffect "{code}", "={"q" if kind is I8 else "r"},=*m,0,~{{memory}},~{{flags}}"'
            f"({pointer}, {text} {value})"
        )
    # and, or, xor give the old value only through a compare-exchange loop
    loop, after = e.new_label("loop"), e.new_label("after")
    first = e.new(f"load volatile {text}, ptr {host}, align 1, {TBAA_RAM}")
    before = e.label
    e.start(loop)
    e.lines.append(f"  %{loop}.old = phi {text} [ {first}, %{before} ], [ %{loop}.got, %{loop} ]")
    new = e.new(f"{_PLAIN[name]} {text} %{loop}.old, {value}")
    e.lines.append(f"  %{loop}.got = {_cmpxchg_text(kind, host, f'%{loop}.old', new)}")
    same = e.new(f"icmp eq {text} %{loop}.got, %{loop}.old")
    e.branch(same, after, loop)
    e.start(after)
    return f"%{loop}.got"


def _cmpxchg_text(kind: Type, host: str, expected: str, new: str) -> str:
    text = LLVM_TYPE[kind]
    return (
        f'call {text} asm sideeffect "lock cmpxchg{_SUFFIX[kind]} $2, $1", "={{ax}},=*m,{"q" if kind is I8 else "r"},'
        f'{{ax}},~{{memory}},~{{flags}}"(ptr elementtype({text}) {host}, {text} {new}, {text} {expected})'
    )


def _slow_atomic(e: Emitter, name: str, kind: Type, gva: str, *values: str) -> str:
    symbol = f"helper_atomic_{name}{kind.width}"
    helper = e.module.declare(symbol, f"declare i64 @{symbol}(ptr, i64{', i64' * len(values)}) nounwind")
    args = "".join(f", i64 {_resized(e, v, kind, I64)}" for v in values)
    return _resized(e, e.new(f"call i64 {helper}(ptr %env, i64 {gva}{args})"), I64, kind)


@lowers("atomic_xchg", "atomic_add", "atomic_sub", "atomic_and", "atomic_or", "atomic_xor")
def _atomic(e: Emitter, op: Op) -> None:
    name = op.name.removeprefix("atomic_")
    memop: MemOp = attr(op, "memop")
    carrier, value = _as_carrier(e, op.ins[1], memop)
    if carrier not in _SUFFIX or (memop.big_endian and name in ("add", "sub")):
        raise Unsupported(f"{op.name} of {memop}")
    text = LLVM_TYPE[carrier]
    access = _Access(e, op.ins[0], memop, "write")
    if e.module.parallel:
        fast = _locked(e, name, carrier, access.host, value)
    else:
        fast = e.new(f"load volatile {text}, ptr {access.host}, align 1, {TBAA_RAM}")
        new = value if name == "xchg" else e.new(f"{_PLAIN[name]} {text} {fast}, {value}")
        e.line(f"store volatile {text} {new}, ptr {access.host}, align 1, {TBAA_RAM}")
    fast_end = access.begin_slow(e)
    slow = _slow_atomic(e, name, carrier, access.gva, value)
    slow_end = access.end_slow(e)
    _finish_atomic(e, op, memop, carrier, (fast, fast_end), (slow, slow_end))


def _finish_atomic(
    e: Emitter, op: Op, memop: MemOp, carrier: Type, fast: tuple[str, str], slow: tuple[str, str]
) -> None:
    kind, out = LLVM_TYPE[carrier], op.outs[0]
    old = e.new(f"phi {kind} [ {fast[0]}, %{fast[1]} ], [ {slow[0]}, %{slow[1]} ]")
    if memop.big_endian:
        old = _swap(e, carrier, old)
    e.alias(out, _resized(e, old, carrier, out.type))


@lowers("atomic_cmpxchg")
def _atomic_cmpxchg(e: Emitter, op: Op) -> None:
    memop: MemOp = attr(op, "memop")
    carrier, expected = _as_carrier(e, op.ins[1], memop)
    _, new = _as_carrier(e, op.ins[2], memop)
    kind = LLVM_TYPE[carrier]
    access = _Access(e, op.ins[0], memop, "write")
    if e.module.parallel and carrier is I128:
        fast = _cmpxchg16b(e, access.host, expected, new)
    elif e.module.parallel:
        fast = e.new(_cmpxchg_text(carrier, access.host, expected, new))
    else:
        fast = e.new(f"load volatile {kind}, ptr {access.host}, align 1, {TBAA_RAM}")
        same = e.new(f"icmp eq {kind} {fast}, {expected}")
        stored = e.new(f"select i1 {same}, {kind} {new}, {kind} {fast}")
        e.line(f"store volatile {kind} {stored}, ptr {access.host}, align 1, {TBAA_RAM}")
    fast_end = access.begin_slow(e)
    if carrier is I128:
        e.store_env("scratch", f"i128 {expected}", 0)
        e.store_env("scratch", f"i128 {new}", 1)
        helper = e.module.declare(
            "helper_atomic_cmpxchg128", "declare void @helper_atomic_cmpxchg128(ptr, i64) nounwind"
        )
        e.line(f"call void {helper}(ptr %env, i64 {access.gva})")
        slow = e.load_env("scratch", "i128")
    else:
        slow = _slow_atomic(e, "cmpxchg", carrier, access.gva, expected, new)
    slow_end = access.end_slow(e)
    _finish_atomic(e, op, memop, carrier, (fast, fast_end), (slow, slow_end))


def _cmpxchg16b(e: Emitter, host: str, expected: str, new: str) -> str:
    """The frontend asks for memop.align 16: the host instruction faults on anything less."""
    halves = []
    for value in (expected, new):
        low = e.new(f"trunc i128 {value} to i64")
        high = e.new(f"lshr i128 {value}, 64")
        halves += [low, e.new(f"trunc i128 {high} to i64")]
    pair = e.new(
        'call { i64, i64 } asm sideeffect "lock cmpxchg16b $2", '
        '"={ax},={dx},=*m,{ax},{dx},{bx},{cx},~{memory},~{flags}"'
        f"(ptr elementtype(i128) {host}, i64 {halves[0]}, i64 {halves[1]}, i64 {halves[2]}, i64 {halves[3]})"
    )
    low = e.new(f"zext i64 {e.new(f'extractvalue {{ i64, i64 }} {pair}, 0')} to i128")
    high = e.new(f"zext i64 {e.new(f'extractvalue {{ i64, i64 }} {pair}, 1')} to i128")
    return e.new(f"or i128 {low}, {e.new(f'shl i128 {high}, 64')}")


@lowers("mb")
def _mb(e: Emitter, op: Op) -> None:
    """x86-64 hosts order all but a store before a later load; one vCPU alone sees its own accesses in order anyway."""
    if e.module.parallel and attr(op, "barrier") & Barrier.ST_LD:
        e.line('call void asm sideeffect "lock orl $$0, (%rsp)", "~{memory},~{flags}"()')
    elif e.module.parallel:
        e.line('call void asm sideeffect "", "~{memory}"()')
