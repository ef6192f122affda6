"""The x86 vCPU's registers as QEMU prints them: `info registers`, `-d cpu`, `-d int`, an internal error.

System segment types are called as the manual's tables have them (SDM volume 3, 3.4.5.1 and 3.5).
"""

from frontends.x86.flags import CcOp, status
from frontends.x86.state import ARITHMETIC, Mode, Reg, Rflags, Seg, SegAttr
from tcg.exec.vcpu import VCpu
from tcg.runtime.struct import View

_ORDER = (Reg.RAX, Reg.RBX, Reg.RCX, Reg.RDX, Reg.RSI, Reg.RDI, Reg.RBP, Reg.RSP)
_FLAGS = (("D", 10), ("O", 11), ("S", 7), ("Z", 6), ("A", 4), ("P", 2), ("C", 0))
_SEGMENTS = (
    ("ES", Seg.ES), ("CS", Seg.CS), ("SS", Seg.SS), ("DS", Seg.DS), ("FS", Seg.FS), ("GS", Seg.GS), ("LDT", Seg.LDTR),
    ("TR", Seg.TR),
)  # fmt: skip
_SYSTEM_TYPES32 = (
    "Reserved", "TSS16-avl", "LDT", "TSS16-busy", "CallGate16", "TaskGate", "IntGate16", "TrapGate16", "Reserved",
    "TSS32-avl", "Reserved", "TSS32-busy", "CallGate32", "Reserved", "IntGate32", "TrapGate32",
)  # fmt: skip
_SYSTEM_TYPES64 = (
    "<hiword>", "Reserved", "LDT", "Reserved", "Reserved", "Reserved", "Reserved", "Reserved", "Reserved", "TSS64-avl",
    "Reserved", "TSS64-busy", "CallGate64", "Reserved", "IntGate64", "TrapGate64",
)  # fmt: skip
_LMA = 1 << 10
_M64 = (1 << 64) - 1


def dump(vcpu: VCpu, *, lazy_flags: bool = False, fpu: bool = True) -> str:
    """All registers, one text without a last newline. Reads env only.

    `lazy_flags`: the line that says how the flags follow; `fpu`: x87, MMX and SSE registers too.
    """
    env = vcpu.env
    digits = 16 if env.get("mode") & Mode.CODE64 else 8
    lines = [*_general(env, digits), _status(env, digits)]
    lines += [_segment(env, name, seg, digits) for name, seg in _SEGMENTS]
    for name in ("gdt", "idt"):
        lines.append(f"{name.upper()}=     {_hex(env, f'{name}_base', digits)} {env.get(f'{name}_limit'):08x}")
    cr2, cr3 = _hex(env, "cr2", digits), _hex(env, "cr3", digits)
    lines.append(f"CR0={env.get('cr0'):08x} CR2={cr2} CR3={cr3} CR4={env.get('cr4'):08x}")
    lines.append("".join(f"DR{n}={env.get('dr', n):016x} " for n in range(4)))
    lines.append(f"DR6={env.get('dr', 6):016x} DR7={env.get('dr', 7):016x}")
    if lazy_flags:
        src, dst = _hex(env, "cc_src", digits), _hex(env, "cc_dst", digits)
        lines.append(f"CCS={src} CCD={dst} CCO={_cc_name(env.get('cc_op'))}")
    lines.append(f"EFER={env.get('efer'):016x}")
    if fpu:
        lines += _fpu(env)
    return "\n".join(lines)


def rflags(env: View) -> int:
    """RFLAGS, worked out of its lazy parts."""
    op = env.get("cc_op")
    lazy = 0
    if op in CcOp._value2member_map_ and op != CcOp.UNKNOWN:
        lazy = status(CcOp(op), env.get("cc_dst"), env.get("cc_src"), env.get("cc_src2")) & ARITHMETIC
    direction = Rflags.DF if env.get("df") >> 63 else 0
    return env.get("eflags") | lazy | direction | Rflags.FIXED1


def _hex(env: View, name: str, digits: int, index: int = 0) -> str:
    return f"{env.get(name, index) & (1 << 4 * digits) - 1:0{digits}x}"


def _general(env: View, digits: int) -> list[str]:
    registers = [*_ORDER, *(Reg(n) for n in range(8, 16))] if digits == 16 else list(_ORDER)
    prefix = "R" if digits == 16 else "E"
    texts = [f"{prefix + r.name[1:]:<3}={_hex(env, 'regs', digits, r)}" for r in registers]
    return [" ".join(texts[n : n + 4]) for n in range(0, len(texts), 4)]


def _status(env: View, digits: int) -> str:
    names = ("RIP", "RFL") if digits == 16 else ("EIP", "EFL")
    flags = rflags(env)
    letters = "".join(letter if flags >> bit & 1 else "-" for letter, bit in _FLAGS)
    return (
        f"{names[0]}={_hex(env, 'pc', digits)} {names[1]}={flags:08x} [{letters}] CPL={env.get('cpl')} "
        f"II={env.get('int_shadow') & 1} A20=1 SMM=0 HLT={env.get('halted') & 1}"
    )


def _segment(env: View, name: str, seg: Seg, digits: int) -> str:
    attr = SegAttr(env.get("seg_attr", seg) & 0x00F0FF00)
    selector, limit = env.get("seg_selector", seg), env.get("seg_limit", seg)
    # The last column is the descriptor's high doubleword, with the limit's upper bits where they stand in it.
    word = int(attr) | (limit >> 12 if attr & SegAttr.G else limit) & 0xF0000
    line = f"{name:<3}={selector:04x} {_hex(env, 'seg_base', digits, seg)} {limit:08x} {word:08x}"
    if not env.get("mode") & Mode.PROTECTED or not attr & SegAttr.P:
        return line
    return f"{line} DPL={int(attr) >> 13 & 3} {_kind(attr, long_mode=bool(env.get('efer') & _LMA))}"


def _kind(attr: SegAttr, *, long_mode: bool) -> str:
    if not attr & SegAttr.S:
        return (_SYSTEM_TYPES64 if long_mode else _SYSTEM_TYPES32)[int(attr) >> 8 & 15]
    if attr & SegAttr.CODE:
        size, letters = "CS64" if attr & SegAttr.L else "CS32" if attr & SegAttr.DB else "CS16", "CRA"
    else:
        size, letters = "DS  " if attr & SegAttr.DB or long_mode else "DS16", "EWA"
    bits = zip(letters, (SegAttr.DC, SegAttr.RW, SegAttr.A), strict=True)
    return f"{size} [{''.join(letter if attr & bit else '-' for letter, bit in bits)}]"


def _cc_name(op: int) -> str:
    return CcOp(op).name if op in CcOp._value2member_map_ else f"[{op}]"


def _fpu(env: View) -> list[str]:
    top = env.get("fpu_top") & 7
    valid = sum((not env.get("fpu_tags", n)) << n for n in range(8))
    words = env.get("fpu_status") & ~0x3800 | top << 11
    mxcsr = env.get("mxcsr") | env.get("host_mxcsr") & 0x3F  # the sticky flags may be fresher there
    lines = [f"FCW={env.get('fpu_control'):04x} FSW={words:04x} [ST={top}] FTW={valid:02x} MXCSR={mxcsr:08x}"]
    x87 = [env.get("fpregs", n) for n in range(8)]
    texts = [f"FPR{n}={value & _M64:016x} {value >> 64 & 0xFFFF:04x}" for n, value in enumerate(x87)]
    lines += [" ".join(texts[n : n + 2]) for n in range(0, 8, 2)]
    vectors = [env.get("xmm", n) for n in range(16 if env.get("mode") & Mode.CODE64 else 8)]
    texts = [f"XMM{n:02}={value >> 64:016x} {value & _M64:016x}" for n, value in enumerate(vectors)]
    return lines + [" ".join(texts[n : n + 2]) for n in range(0, len(texts), 2)]
