"""Guest bytes to a Pattern: capstone reads the encoding once, this file keeps what the form and the holes need.

capstone 5 quirks that are mended here: `disp_size` is wrong under a 66 prefix (taken from ModRM instead), `imm_size` is
not the whole immediate, the names of compare pseudo-ops, string and SSE instructions collide (movsd, cmpsd), most far
branches through memory have the near ones' names.
"""

from dataclasses import replace

import capstone
import capstone.x86_const as cx

from frontends.x86.operands import ImmShape, MemShape, RegShape, Shape, X86Key
from frontends.x86.state import STATE, XMM_STRIDE, Mode, Seg

MAX_LENGTH = 15

_GPR_NAMES = (
    ("al cl dl bl spl bpl sil dil", 1), ("ax cx dx bx sp bp si di", 2), ("eax ecx edx ebx esp ebp esi edi", 4),
    ("rax rcx rdx rbx rsp rbp rsi rdi", 8),
)  # fmt: skip
_REGS_OFFSET = STATE.offset("regs")
_SEG_OF_CAPSTONE = {
    cx.X86_REG_ES: Seg.ES, cx.X86_REG_CS: Seg.CS, cx.X86_REG_SS: Seg.SS,
    cx.X86_REG_DS: Seg.DS, cx.X86_REG_FS: Seg.FS, cx.X86_REG_GS: Seg.GS,
}  # fmt: skip


_SEG_OF_PREFIX = {0x26: Seg.ES, 0x2E: Seg.CS, 0x36: Seg.SS, 0x3E: Seg.DS, 0x64: Seg.FS, 0x65: Seg.GS}


def _register_table() -> dict[int, tuple[str, int, int]]:
    """capstone register id -> (bank, size, env offset or register number)."""
    table: dict[int, tuple[str, int, int]] = {}

    def add(name: str, bank: str, size: int, value: int) -> None:
        table[getattr(cx, "X86_REG_" + name.upper())] = (bank, size, value)

    for names, size in _GPR_NAMES:
        for number, name in enumerate(names.split()):
            add(name, "gpr", size, _REGS_OFFSET + 8 * number)
    for number, name in enumerate(("ah", "ch", "dh", "bh")):
        add(name, "gpr", 1, _REGS_OFFSET + 8 * number + 1)
    for number in range(8, 16):
        for suffix, size in (("b", 1), ("w", 2), ("d", 4), ("", 8)):
            add(f"r{number}{suffix}", "gpr", size, _REGS_OFFSET + 8 * number)
    for number in range(16):
        add(f"xmm{number}", "xmm", 16, STATE.offset("xmm") + XMM_STRIDE * number)
        add(f"cr{number}", "cr", 8, number)
        add(f"dr{number}", "dr", 8, number)
    for number in range(8):
        add(f"mm{number}", "mm", 8, STATE.offset("fpregs", number))
        add(f"st{number}", "st", 10, number)
    for register, seg in _SEG_OF_CAPSTONE.items():
        table[register] = ("seg", 2, int(seg))
    return table


_REGISTERS = _register_table()
_STRING = {0xA4: "movs", 0xA6: "cmps", 0xAA: "stos", 0xAC: "lods", 0xAE: "scas", 0x6C: "ins", 0x6E: "outs"}
# Shifts whose form knows only whether the count is 0, and those whose form holds the count.
_COUNT_IS_HOLE = frozenset(("shl", "sal", "shr", "sar", "rol", "ror"))
_SHIFTS = frozenset(("rcl", "rcr", "shld", "shrd", "rorx"))
# Immediates that choose the IR rather than enter it, besides shift counts: every SSE imm8, and these.
_IMM_IN_FORM = frozenset(("enter", "int", "ret", "retf", "retfq", "in", "out", "aam", "aad"))
# Instructions for which `[base]` is worth a form beside `[base+disp]`; the others add a displacement of 0.
_NO_DISP_FORM = frozenset(
    ("mov", "movzx", "cmp", "test", "add", "movaps", "movups", "movdqa", "movdqu", *_STRING.values())
)
# Instructions for which two equal register operands are worth (or need) a form of their own.
_SAME = frozenset(
    ("xor", "sub", "sbb", "and", "or", "test", "cmp", "pxor", "xorps", "xorpd", "pcmpeqb", "pcmpeqw", "pcmpeqd")
)
# Two operands of one size; capstone takes F2 66 and 66 REX.W wrong for the one in memory.
_EQUAL_SIZES = frozenset(
    ("bt", "bts", "btr", "btc", "bsf", "bsr", "cmpxchg", "xadd", "popcnt", "tzcnt", "lzcnt", "imul")
)
_STACK_SEG = (cx.X86_REG_RSP, cx.X86_REG_RBP, cx.X86_REG_ESP, cx.X86_REG_EBP, cx.X86_REG_SP, cx.X86_REG_BP)
_IP = (cx.X86_REG_RIP, cx.X86_REG_EIP)

_FLAT = Mode.CODE64 | Mode.CODE32 | Mode.SEGMENTED | Mode.STACK32 | Mode.PROTECTED


class Decoded:
    """One decoded instruction: its key and all that the pattern needs. `undefined`: no such instruction."""

    __slots__ = ("disp", "head", "imm", "imm2", "key", "length", "regs", "text", "undefined")

    def __init__(self, key: X86Key, length: int, head: bytes) -> None:
        self.key = key
        self.length = length
        self.head = head
        self.disp = self.imm = self.imm2 = (0, 0)
        self.regs: tuple[int, ...] = ()
        self.text = ""
        self.undefined = False


class Decoder:
    """One capstone handle a code size. Not thread-safe: the caller holds tb_lock."""

    def __init__(self) -> None:
        self._handles: dict[int, capstone.Cs] = {}

    def _handle(self, mode: int) -> capstone.Cs:
        bits = mode & (Mode.CODE64 | Mode.CODE32)
        handle = self._handles.get(bits)
        if handle is None:
            cs_mode = {Mode.CODE64: capstone.CS_MODE_64, Mode.CODE32: capstone.CS_MODE_32}.get(
                Mode(bits), capstone.CS_MODE_16
            )
            handle = capstone.Cs(capstone.CS_ARCH_X86, cs_mode)
            handle.detail = True
            self._handles[bits] = handle
        return handle

    def disassemble(self, code: bytes, pc: int, mode: int) -> list[tuple[int, bytes, str]]:
        """(pc, bytes, text) of each instruction, for logs."""
        return [
            (pc + i.address - pc, bytes(i.bytes), f"{i.mnemonic} {i.op_str}".strip())
            for i in self._handle(mode).disasm(code, pc)
        ]

    def decode(self, code: bytes, pc: int, mode: int) -> Decoded | None:
        """The first instruction of `code`, or None when capstone sees none (undefined, or cut off)."""
        insn = next(self._handle(mode).disasm(code[:MAX_LENGTH], pc, 1), None)
        if insn is None:
            return None
        return _digest(insn, mode)


def _name(insn: capstone.CsInsn) -> str:
    """A unique name: the manual's mnemonic in lower case, string instructions without their size."""
    name = str(insn.mnemonic).split()[-1]
    opcode = bytes(insn.opcode)
    if opcode[0] & 0xFE in _STRING and opcode[1] == 0 and not name.startswith(("p", "test")):
        return _STRING[opcode[0] & 0xFE]
    if opcode[:2] == b"\x0f\xc2":
        return "cmp" + name[-2:]
    if opcode[:3] == b"\x0f\x3a\x44":
        return "pclmulqdq"
    if opcode[0] == 0xFF and (insn.modrm >> 3 & 7) in (3, 5):  # capstone says call, jmp for most far ones
        return "lcall" if insn.modrm >> 3 & 7 == 3 else "ljmp"
    return name


def _digest(insn: capstone.CsInsn, mode: int) -> Decoded:
    name = _name(insn)
    raw = bytes(insn.bytes)
    length = len(raw)
    code64 = bool(mode & Mode.CODE64)
    prefixes = bytes(insn.prefix)
    is_string = name in _STRING.values()
    encoding = insn.encoding
    imm_at = encoding.imm_offset if encoding.imm_offset else 0
    if name in ("movabs",) and any(o.type == cx.X86_OP_MEM for o in insn.operands):
        imm_at = 0
    disp_at, disp_size = _displacement(insn, raw, name, imm_at)

    regs: list[int] = []
    shapes: list[Shape] = []

    def slot(value: int) -> int:
        regs.append(value)
        return len(regs) - 1

    opcode = bytes(insn.opcode)
    sse_imm = (
        opcode[0] == 0x0F
        and imm_at != 0
        and name not in ("bt", "bts", "btr", "btc", "shld", "shrd", "imul")
        and not name.startswith("j")
    )
    in_form = name in _SHIFTS or name in _IMM_IN_FORM or sse_imm
    if name in _COUNT_IS_HOLE and imm_at:
        in_form = not raw[-1] & (63 if insn.rex & 8 else 31)
    mem_size = 0
    for operand in insn.operands:
        if operand.type == cx.X86_OP_REG:
            known = _REGISTERS.get(operand.reg)
            if known is None:  # ymm, zmm, k, bnd: not in this machine
                shapes.append(RegShape("none", operand.size))
                continue
            bank, size, value = known
            if bank in ("gpr", "xmm", "mm"):
                shapes.append(RegShape(bank, size, slot=slot(value)))
            else:
                shapes.append(RegShape(bank, size, number=value))
        elif operand.type == cx.X86_OP_MEM:
            mem = operand.mem
            explicit = _SEG_OF_CAPSTONE.get(mem.segment)
            default = Seg.SS if mem.base in _STACK_SEG else Seg.DS
            seg = int(explicit if explicit is not None else default)
            needs_base = seg in (Seg.FS, Seg.GS) if code64 else bool(mode & Mode.SEGMENTED) or seg in (Seg.FS, Seg.GS)
            relative = mem.base in _IP
            base = slot(_REGISTERS[mem.base][2]) if mem.base and not relative and mem.base in _REGISTERS else -1
            index = slot(_REGISTERS[mem.index][2]) if mem.index and mem.index in _REGISTERS else -1
            mem_size = operand.size
            shapes.append(
                MemShape(operand.size, base, index, mem.scale if index >= 0 else 1,
                         disp_size > 0 or index >= 0 or (base >= 0 and name not in _NO_DISP_FORM), relative,
                         seg if needs_base else -1, insn.addr_size)
            )  # fmt: skip
        elif operand.type == cx.X86_OP_IMM:
            second = any(isinstance(s, ImmShape) for s in shapes)
            relative = _is_relative(name)
            if imm_at == 0:  # an implied 1 (D1 /r) or 3 (INT3)
                shapes.append(ImmShape(operand.size, value=operand.imm & 0xFF))
                continue
            size = length - imm_at if not second else 1
            fixed = operand.imm & (1 << 8 * size) - 1 if in_form and not relative else None
            shapes.append(ImmShape(size, second=second, relative=relative, value=fixed))
    imm2: tuple[int, int] = (0, 0)
    if name in ("xlatb", "monitor", "maskmovq", "maskmovdqu"):  # their address is implicit, its segment is not
        override = int(_SEG_OF_PREFIX.get(prefixes[1], Seg.DS))
        based = override in (Seg.FS, Seg.GS) or bool(mode & Mode.SEGMENTED and not code64)
        implicit = MemShape(1, -1, -1, 1, False, False, override if based else -1, insn.addr_size)
        shapes = [implicit] if name in ("xlatb", "monitor") else [*shapes, implicit]
    if name == "enter":
        shapes = [ImmShape(2, value=int.from_bytes(raw[-3:-1], "little")), ImmShape(1, value=raw[-1])]
    elif name in ("lcall", "ljmp") and imm_at:  # offset, then selector; capstone's imm_at is the latter's
        offset_size = _effective_size(mode, prefixes, insn.rex)
        imm_at = length - 2 - offset_size
        shapes = [ImmShape(2, second=True), ImmShape(offset_size)]
        imm2 = (length - 2, 2)
    elif name == "nop" or name.startswith("prefetch"):  # not even the address is looked at
        shapes.clear()
        regs.clear()
    elif name.startswith("cmp") and len(name) == 5 and name[3:] in ("ps", "pd", "ss", "sd"):
        shapes = [s for s in shapes if not isinstance(s, ImmShape)] + [ImmShape(1, value=raw[-1])]
    if (name in _EQUAL_SIZES or name.startswith("cmov")) and regs:
        sizes = [s.size for s in shapes if isinstance(s, RegShape)]
        shapes = [replace(s, size=sizes[0]) if isinstance(s, MemShape) and sizes else s for s in shapes]
    head_end = length
    # A count of 0 has a form of its own, so the count tells forms apart even where it is a hole.
    if not in_form and not (name in _COUNT_IS_HOLE and imm_at):
        head_end = disp_at if disp_size else imm_at if imm_at else length
    same = (
        name in _SAME and len(shapes) >= 2 and isinstance(shapes[0], RegShape) and isinstance(shapes[1], RegShape)
        and len(regs) >= 2 and regs[0] == regs[1]
    )  # fmt: skip
    opsize = _operand_size(insn, name, shapes, mem_size, mode, prefixes, raw)
    lock = prefixes[0] == 0xF0
    key_mode = mode & _FLAT
    if lock or name == "xchg":
        key_mode |= mode & Mode.PARALLEL
    if (
        any(isinstance(s, RegShape) and s.bank in ("xmm", "mm", "st") for s in shapes)
        or 0xD8 <= opcode[0] <= 0xDF
        or opcode[:2] == b"\x0f\xae"
    ):
        key_mode |= mode & (Mode.FPU_TRAP | Mode.FP_UNMASKED | Mode.NO_SSE)
    elif name in ("wait", "fwait", "emms"):
        key_mode |= mode & Mode.FPU_TRAP
    rep = prefixes[0] if is_string and prefixes[0] in (0xF2, 0xF3) else 0
    key = X86Key(name, key_mode, lock, rep, opsize, insn.addr_size, same, tuple(shapes))
    decoded = Decoded(key, length, raw[:head_end])
    decoded.regs = tuple(regs)
    decoded.disp = (disp_at, disp_size)
    if name in ("lcall", "ljmp") and imm_at:
        decoded.imm = (imm_at, length - imm_at - 2)
        decoded.imm2 = imm2
    elif imm_at and name != "enter":
        decoded.imm = (imm_at, length - imm_at)
    decoded.text = f"{insn.mnemonic} {insn.op_str}".strip()
    return decoded


def _is_relative(name: str) -> bool:
    return name == "call" or name.startswith(("j", "loop", "xbegin"))


def _displacement(insn: capstone.CsInsn, raw: bytes, name: str, imm_at: int) -> tuple[int, int]:
    """(offset, size) of the displacement, read from ModRM and SIB (SDM vol. 2, tables 2-1 to 2-3)."""
    if name == "movabs" or (not insn.encoding.modrm_offset and any(o.type == cx.X86_OP_MEM for o in insn.operands)):
        opcode = insn.opcode[0]
        if 0xA0 <= opcode <= 0xA3:  # moffs
            return len(raw) - insn.addr_size, insn.addr_size
        return 0, 0
    at = insn.encoding.modrm_offset
    if not at or (not any(o.type == cx.X86_OP_MEM for o in insn.operands) and name not in ("nop", "lea", "prefetchw")):
        return 0, 0
    modrm = raw[at]
    mod, rm = modrm >> 6, modrm & 7
    if mod == 3:
        return 0, 0
    after = at + 1
    if insn.addr_size == 2:
        size = {1: 1, 2: 2}.get(mod, 2 if rm == 6 else 0)
        return (after, size) if size else (0, 0)
    base = rm
    if rm == 4:
        base = raw[after] & 7
        after += 1
    size = {1: 1, 2: 4}.get(mod, 4 if base == 5 else 0)
    return (after, size) if size else (0, 0)


def _operand_size(
    insn: capstone.CsInsn, name: str, shapes: list[Shape], mem_size: int, mode: int, prefixes: bytes, raw: bytes
) -> int:
    """Operand 0's size, or the effective operand size by prefixes and mode for instructions without one."""
    if name in _STRING.values():
        return 1 if not insn.opcode[0] & 1 else _effective_size(mode, prefixes, insn.rex)
    if name in ("lcall", "ljmp", "monitor", "lgdt", "lidt"):
        return _effective_size(mode, prefixes, insn.rex)
    if name.startswith("pcmpestr"):  # of the lengths: RAX and RDX, or EAX and EDX
        return 8 if insn.rex & 8 else 4
    for shape in shapes:
        if isinstance(shape, (RegShape, MemShape)) and not (
            isinstance(shape, RegShape) and shape.bank in ("seg", "cr", "dr")
        ):
            return shape.size
    return _effective_size(mode, prefixes, insn.rex)


def _effective_size(mode: int, prefixes: bytes, rex: int) -> int:
    if rex & 8:
        return 8
    if mode & (Mode.CODE64 | Mode.CODE32):
        return 2 if prefixes[2] == 0x66 else 4
    return 4 if prefixes[2] == 0x66 else 2
