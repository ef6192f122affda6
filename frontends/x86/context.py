"""X86Insn: what an instruction function sees. It reads operands, writes results and flags, and never asks whether it is
making a stencil (holes) or a region (constants): `Operands` answers for both.

    @instruction("add", status=lambda x: Status(kills=True, out=sized(CcOp.ADDB, x.size)))
    def ADD(x: X86Insn) -> None:
        a, b = x.read(0), x.read(1)
        result = x.b.add(a, b)
        x.write(0, result)
        set_status(x, CcOp.ADDB, result, b)  # frontends.x86.status
"""

from collections.abc import Callable, Mapping

from frontends.x86.operands import ImmShape, MemShape, RegShape, Shape, X86Key
from frontends.x86.state import STATE, XMM_STRIDE, Mode, Reg, Seg
from tcg.exec.forms import HoleSlot, Variant
from tcg.ir.block import Const, EnvRef, HelperDecl, Hole, Operand, Temp
from tcg.ir.builder import Builder, Value
from tcg.ir.types import I16, I32, I64, INT_OF_SIZE, V128, Cond, MemOp, Type

_REGS = STATE.offset("regs")
_XMM = STATE.offset("xmm")
_FPREGS = STATE.offset("fpregs")
_SPANS = {
    "gpr": (_REGS, _REGS + 16 * 8),
    "xmm": (_XMM, _XMM + 16 * XMM_STRIDE),
    "mm": (_FPREGS, _FPREGS + 8 * 16),
}
_S32 = (-(1 << 31), (1 << 31) - 1)

Concrete = Mapping[HoleSlot, int]


def env(name: str, index: int = 0) -> EnvRef:
    """The place of a declared state field."""
    return EnvRef(STATE.offset(name, index))


class X86Insn:
    """One instruction being emitted into `b`. `key`: the form. `concrete`: hole values, or None for a stencil."""

    def __init__(self, key: X86Key, variant: Variant, builder: Builder, concrete: Concrete | None = None) -> None:
        self.key = key
        self.variant = variant
        self.b = builder
        self.ops: tuple[Shape, ...] = key.operands
        self.size = key.opsize
        self.type = INT_OF_SIZE.get(key.opsize, I64)
        self.code64 = bool(key.mode & Mode.CODE64)
        self.stack_size = 8 if self.code64 else 4 if key.mode & Mode.STACK32 else 2
        # One vCPU alone needs no host atomics: nothing else interrupts an instruction.
        self.locked = key.lock and bool(key.mode & Mode.PARALLEL)
        self._concrete = concrete

    @property
    def in_region(self) -> bool:
        """One of many instructions compiled together, every operand known, as opposed to a stencil with holes."""
        return self._concrete is not None

    # --- holes -------------------------------------------------------------------------------------------------------
    def _hole(self, slot: HoleSlot, type_: Type = I64, lo: int = -(1 << 63), hi: int = (1 << 63) - 1) -> Operand:
        if self._concrete is not None:
            return Const(type_, self._concrete[slot] & type_.mask)
        return Hole(slot.name.lower(), type_, lo, hi)

    @property
    def pc(self) -> Operand:
        return self._hole(HoleSlot.PC)

    @property
    def next_pc(self) -> Operand:
        return self._hole(HoleSlot.NEXT_PC)

    @property
    def target(self) -> Operand:
        """Where a relative branch goes."""
        return self._hole(HoleSlot.TARGET)

    # --- registers ---------------------------------------------------------------------------------------------------
    def _slot_ref(self, bank: str, slot: int) -> EnvRef:
        if self._concrete is not None:
            return EnvRef(self._concrete[HoleSlot(HoleSlot.R0 + slot)])
        lo, hi = _SPANS[bank]
        return EnvRef(0, Hole(f"r{slot}", I64, 0, 65535), (lo, hi))

    def reg_ref(self, i: int) -> EnvRef:
        """Operand i's register, as a place in env."""
        shape = self.ops[i]
        assert isinstance(shape, RegShape) and shape.slot >= 0, shape
        return self._slot_ref(shape.bank, shape.slot)

    def reg(self, reg: Reg, size: int = 8) -> Temp:
        """An implicit register's low `size` bytes."""
        return self.b.ld(INT_OF_SIZE[size], env("regs", reg))

    def set_reg(self, reg: Reg, value: Operand, size: int | None = None) -> None:
        """Write an implicit register: 32-bit results clear the upper half, smaller ones keep the rest."""
        self._write_gpr(env("regs", reg), value, size if size is not None else value.type.size)

    def _write_gpr(self, ref: EnvRef, value: Operand, size: int) -> None:
        """In a region a part is written as a whole register: it is often read as one, and hosts stall on that."""
        assert value.type.size == size, (value, size)
        b = self.b
        within = ref.offset - _REGS
        if size < 4 and self.in_region and 0 <= within < 8 * STATE.fields["regs"].count:
            at = within & 7
            whole = ref + -at
            kept = b.and_(b.ld(I64, whole), I64.mask & ~(value.type.mask << 8 * at))
            b.st(whole, b.or_(kept, b.shl(b.zext(value, I64), 8 * at)))
            return
        b.st(ref, b.zext(value, I64) if size == 4 else value)

    # --- integer operands ---------------------------------------------------------------------------------------------
    def is_mem(self, i: int) -> bool:
        return isinstance(self.ops[i], MemShape)

    def is_reg(self, i: int, bank: str = "gpr") -> bool:
        shape = self.ops[i]
        return isinstance(shape, RegShape) and shape.bank == bank

    def read(self, i: int, size: int | None = None) -> Operand:
        """Operand i as an integer of `size` bytes (default: a register's or memory's own; an immediate: operand 0's).

        Immediates are sign-extended from their encoded size, as almost every instruction wants.
        """
        shape = self.ops[i]
        if isinstance(shape, ImmShape):
            return self.imm(i, size if size is not None else self.size)
        if isinstance(shape, RegShape):
            return self.b.ld(INT_OF_SIZE[size or shape.size], self.reg_ref(i))
        size = size or shape.size
        return self.load(self.address(i), size)

    def write(self, i: int, value: Operand) -> None:
        """Operand i := value, whose type has the operand's size (a register may also be written at value's size)."""
        shape = self.ops[i]
        if isinstance(shape, RegShape):
            self._write_gpr(self.reg_ref(i), value, value.type.size)
        else:
            assert isinstance(shape, MemShape)
            self.store(self.address(i), value)

    def imm(self, i: int, size: int) -> Operand:
        """Immediate operand i, sign-extended to (or cut to) `size` bytes."""
        shape = self.ops[i]
        assert isinstance(shape, ImmShape), shape
        type_ = INT_OF_SIZE[size]
        if shape.value is not None:
            bits = 8 * shape.size
            value = shape.value - (1 << bits) if shape.value >> (bits - 1) & 1 else shape.value
            return Const(type_, value & type_.mask)
        slot = HoleSlot.IMM2 if shape.second else HoleSlot.IMM
        bounds = _S32 if shape.size <= 4 else (-(1 << 63), (1 << 63) - 1)
        if shape.size == 1:
            bounds = (-128, 127)
        return self._hole(slot, type_, *bounds)

    def imm_value(self, i: int) -> int:
        """The unsigned value of an immediate that is part of the form."""
        shape = self.ops[i]
        assert isinstance(shape, ImmShape) and shape.value is not None, shape
        return shape.value

    # --- memory -------------------------------------------------------------------------------------------------------
    def effective(self, i: int) -> Operand:
        """Operand i's effective address (no segment base), wrapped to the address size, as i64: what LEA gives."""
        shape = self.ops[i]
        assert isinstance(shape, MemShape), shape
        b = self.b
        parts: list[Operand] = []
        if shape.base >= 0:
            parts.append(b.ld(I64, self._slot_ref("gpr", shape.base)))
        if shape.index >= 0:
            index: Operand = b.ld(I64, self._slot_ref("gpr", shape.index))
            if shape.scale > 1:
                index = b.shl(index, shape.scale.bit_length() - 1)
            parts.append(index)
        if shape.has_disp:
            wide = shape.pc_relative or (not parts and shape.address_size == 8)
            bounds = (-(1 << 63), (1 << 63) - 1) if wide else _S32
            parts.append(self._hole(HoleSlot.DISP, I64, *bounds))
        if not parts:
            return Const(I64, 0)
        total = parts[0]
        for part in parts[1:]:
            total = b.add(total, part)
        return self.wrap(total, shape.address_size)

    def wrap(self, offset: Operand, address_size: int) -> Operand:
        """The i64 offset cut to the address size."""
        if address_size == 8:
            return offset
        return self.b.zext(self.b.trunc(offset, I32 if address_size == 4 else I16), I64)

    @property
    def data_segment(self) -> int:
        """DS for `linear`, or -1 when its base is 0 (implicit operands without an override)."""
        return Seg.DS if self.key.mode & Mode.SEGMENTED else -1

    def address(self, i: int) -> Operand:
        """Operand i's linear address: segment base plus effective address (wrapped to 32 bits outside 64-bit code)."""
        shape = self.ops[i]
        assert isinstance(shape, MemShape), shape
        return self.linear(self.effective(i), shape.seg)

    def linear(self, offset: Operand, seg: int) -> Operand:
        """offset + base of segment `seg` (-1: known to be 0)."""
        if seg < 0:
            return offset
        total = self.b.add(offset, self.b.ld(I64, env("seg_base", seg)))
        return total if self.code64 else self.b.zext(self.b.trunc(total, I32), I64)

    def load(self, gva: Operand, size: int, *, signed: bool = False, to: Type | None = None, align: int = 1) -> Temp:
        """Guest load of `size` bytes as an integer (16: use load_v), widened to `to` if given."""
        return self.b.qemu_ld(to or INT_OF_SIZE[size], gva, MemOp(size, signed=signed, align=align))

    def store(self, gva: Operand, value: Operand, *, align: int = 1) -> None:
        self.b.qemu_st(gva, value, MemOp(value.type.size, align=align))

    def modify(
        self,
        i: int,
        compute: Callable[[Operand], Operand],
        atomic: str | None = None,
        value: Operand | None = None,
        gva: Operand | None = None,
    ) -> tuple[Operand, Operand]:
        """Read-modify-write operand i; gives (old, new). The address is computed once (or given: `gva`).

        atomic: the atomic op ("atomic_add") with `value` as its input that a LOCKed memory form uses; `compute` then
        only recomputes the new value. Without one a locked form runs a compare-and-exchange loop.
        """
        if not self.is_mem(i):
            old: Operand = self.read(i)
            new = compute(old)
            self.write(i, new)
            return old, new
        gva = gva if gva is not None else self.address(i)
        shape = self.ops[i]
        memop = MemOp(shape.size)
        if not self.locked:
            old = self.load(gva, shape.size)
            new = compute(old)
            self.store(gva, new)
            return old, new
        if atomic is not None:
            assert value is not None
            old = self.b.atomic(atomic, gva, value, memop)
            return old, compute(old)
        b = self.b
        again = b.new_label()
        b.label(again)
        old = self.load(gva, shape.size)
        new = compute(old)
        seen = b.atomic_cmpxchg(gva, old, new, memop)
        b.brcond(b.setcond(Cond.NE, seen, old), again, likely=False)
        return old, new

    # --- stack --------------------------------------------------------------------------------------------------------
    def push(self, value: Operand) -> None:
        """Push value (its type's size); RSP changes only after the store can no longer fault."""
        new = self.b.sub(self.reg(Reg.RSP), value.type.size)
        self.store(self.stack(new), value)
        self.set_rsp(new)

    def pop(self, size: int) -> Temp:
        """Pop; the caller writes the destination after this (POP RSP: the popped value wins)."""
        value, new = self.peek(size)
        self.set_rsp(new)
        return value

    def peek(self, size: int) -> tuple[Temp, Temp]:
        """(the value on top of the stack, the RSP that a pop leaves): for pops that may still fault."""
        rsp = self.reg(Reg.RSP)
        return self.load(self.stack(rsp), size), self.b.add(rsp, size)

    def stack(self, rsp: Operand) -> Operand:
        """gva of a stack pointer's value (i64, cut to the stack's address size)."""
        if self.code64:
            return rsp
        return self.linear(self.wrap(rsp, self.stack_size), Seg.SS if self.key.mode & Mode.SEGMENTED else -1)

    def set_rsp(self, new: Operand) -> None:
        """RSP := new (i64), at the stack's address size."""
        if self.stack_size == 8:
            self.b.st(env("regs", Reg.RSP), new)
        else:
            self.set_reg(Reg.RSP, self.b.trunc(new, I32 if self.stack_size == 4 else I16))

    # --- vectors ------------------------------------------------------------------------------------------------------
    def read_v(self, i: int, size: int = 16, *, aligned: bool = False) -> Operand:
        """Operand i as a v128: an XMM or MM register (MM: the low half), or memory of `size` bytes; zero-extended.

        aligned: a 16-byte memory operand must be aligned (#GP), as the non-VEX SSE instructions demand.
        """
        shape = self.ops[i]
        b = self.b
        if isinstance(shape, RegShape):
            if shape.bank == "xmm" and size == 16:
                return b.ld(V128, self.reg_ref(i))
            return self._vector_of(b.ld(INT_OF_SIZE[8 if shape.bank == "mm" else size], self.reg_ref(i)))
        gva = self.address(i)
        if size == 16:
            return b.qemu_ld(V128, gva, MemOp(16, align=16 if aligned else 1))
        return self._vector_of(self.load(gva, size))

    def _vector_of(self, value: Operand) -> Operand:
        from tcg.ir.types import I128

        return self.b.bitcast(self.b.zext(value, I128), V128)

    def write_v(self, i: int, value: Operand, *, aligned: bool = False) -> None:
        """Operand i := v128 (an MM register or 8-byte memory takes the low half)."""
        shape = self.ops[i]
        b = self.b
        assert value.type is V128
        if isinstance(shape, RegShape):
            if shape.bank == "xmm":
                b.st(self.reg_ref(i), value)
            else:
                b.st(self.reg_ref(i), self.low64(value))
        elif isinstance(shape, MemShape) and shape.size == 8:
            self.store(self.address(i), self.low64(value))
        else:
            b.qemu_st(self.address(i), value, MemOp(16, align=16 if aligned else 1))

    def low64(self, value: Operand) -> Operand:
        from tcg.ir.types import Lane

        return self.b.vext(value, Lane.D, 0)

    # --- flags --------------------------------------------------------------------------------------------------------
    @property
    def status_live(self) -> bool:
        return self.variant.status_live

    @property
    def status_in(self) -> int:
        """The CcOp that is known to hold here, or 0: read env.cc_op."""
        return self.variant.status_in

    # --- control ------------------------------------------------------------------------------------------------------
    def call(self, helper: HelperDecl, *args: Value) -> Temp:
        """Call a helper that returns a value (b.call_void: one that does not)."""
        return self.b.call(helper, *args)

    def raise_(self, vector: int, error: Value = 0) -> None:
        """Raise a guest exception at this instruction; nothing may follow on this path."""
        self.b.raise_(vector, error)

    def raise_if(self, condition: Operand, vector: int, error: Value = 0) -> None:
        b = self.b
        bad, good = b.new_label(), b.new_label()
        b.brcond(condition, bad, likely=False)
        b.br(good)
        b.label(bad)
        b.raise_(vector, error)
        b.label(good)

    def reflow(self) -> None:
        """End the block after this instruction: state that translation depends on may have changed.

        The jump cache follows mode and address space, so it finds the right block.
        """
        self.b.goto_ptr(self.next_pc)
