"""Operand shapes: what of an operand is part of the form. Values that are left open are holes.

A form's operands hold no register number, immediate or displacement unless those change the IR (segment, control and
x87 registers; immediates that pick a shuffle or a shift count).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RegShape:
    """A register. bank: gpr, xmm, mm (by hole `slot`); st, seg, cr, dr (by `number`). size in bytes.

    A high-byte register (AH..BH) is a gpr of size 1 whose hole carries the byte offset.
    """

    bank: str
    size: int
    slot: int = -1
    number: int = -1


@dataclass(frozen=True, slots=True)
class MemShape:
    """A memory operand. base, index: R-slot numbers (0..5) or -1; pc_relative: the displacement hole is absolute.

    seg: the segment (a state.Seg number) whose base is added, or -1 when it is known to be 0.
    address_size: 2, 4 or 8 bytes; the effective address wraps to it.
    """

    size: int
    base: int
    index: int
    scale: int
    has_disp: bool
    pc_relative: bool
    seg: int
    address_size: int


@dataclass(frozen=True, slots=True)
class ImmShape:
    """An immediate of `size` bytes in the encoding: hole `imm` or `imm2`, or `value` when it is part of the form.

    relative: a branch target (hole `target`).
    """

    size: int
    second: bool = False
    relative: bool = False
    value: int | None = None


Shape = RegShape | MemShape | ImmShape


@dataclass(frozen=True, slots=True)
class X86Key:
    """Everything an x86 form depends on.

    mode: the state.Mode bits that matter; rep: 0, 0xF2 or 0xF3; opsize: of operand 0 or, where there is none, the
    effective operand size, in bytes; same: the first two register operands are one register.
    """

    name: str
    mode: int
    lock: bool
    rep: int
    opsize: int
    address_size: int
    same: bool
    operands: tuple[Shape, ...]

    def __str__(self) -> str:
        def show(o: Shape) -> str:
            match o:
                case RegShape(bank, size, slot, number):
                    return f"{bank}{size * 8}{'' if slot >= 0 else f'#{number}'}"
                case MemShape():
                    parts = ["base"] * (o.base >= 0) + [f"index*{o.scale}"] * (o.index >= 0)
                    parts += ["rip+disp" if o.pc_relative else "disp"] * o.has_disp
                    seg = ("es", "cs", "ss", "ds", "fs", "gs")[o.seg] + ":" if o.seg >= 0 else ""
                    return f"m{o.size * 8}[{seg}{'+'.join(parts)}]" + (
                        f"a{o.address_size}" if o.address_size != 8 else ""
                    )
                case _:
                    return f"imm{o.size * 8}" + (f"={o.value}" if o.value is not None else "rel" if o.relative else "")

        prefix = ("lock " if self.lock else "") + {0: "", 0xF2: "repne ", 0xF3: "rep "}[self.rep]
        same = " same" if self.same else ""
        return (
            f"{prefix}{self.name}.{self.opsize * 8} {', '.join(map(show, self.operands))}{same} m{self.mode:x}".strip()
        )
