"""Templates of the integer instructions, by chapter of the frontend, with the flags left undefined by the manual."""

from frontends.x86.flags import AF, CF, OF, PF, SF, ZF
from fuzz.x86.cases import Template

BOTH = (True, False)
SIZES = ("8", "16", "32", "64")
CONDITIONS = ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"]


def _sized(
    text: str, sizes: tuple[str, ...] = SIZES, undefined: int = 0, host: bool = True, unicorn: bool = True
) -> list[Template]:
    """`N` in text is each size; 8- to 32-bit forms exist in 32-bit code too."""
    return [Template(text.replace("N", n), undefined, host, BOTH if n != "64" else (True,), unicorn) for n in sizes]


def _immediate(name: str, undefined: int = 0) -> list[Template]:
    return [
        Template(f"{name} {{rm8}},{{i8}}", undefined, modes=BOTH),
        Template(f"{name} {{rm16}},{{i8}}", undefined, modes=BOTH),
        Template(f"{name} {{rm16}},{{i16}}", undefined, modes=BOTH),
        Template(f"{name} {{rm32}},{{i8}}", undefined, modes=BOTH),
        Template(f"{name} {{rm32}},{{i32}}", undefined, modes=BOTH),
        Template(f"{name} {{rm64}},{{i8}}", undefined),
        Template(f"{name} {{rm64}},{{i32}}", undefined),
    ]


_WIDE = ("16", "32", "64")
_VEX = ("32", "64")

MOVE = [
    *_sized("mov {rmN},{rN}"),
    *_sized("mov {rN},{mN}"),
    *_immediate("mov"),
    Template("movabs {r64},{i64}"),
    *_sized("movzx {rN},{rm8}", _WIDE),
    *_sized("movzx {rN},{rm16}", _VEX),
    *_sized("movsx {rN},{rm8}", _WIDE),
    *_sized("movsx {rN},{rm16}", _VEX),
    Template("movsxd {r64},{rm32}"),
    *_sized("movbe {rN},{mN}", _WIDE),
    *_sized("movbe {mN},{rN}", _WIDE),
    *_sized("bswap {rN}", _VEX),
    *_sized("lea {rN},{m0}", _WIDE),
    *_sized("xchg {rmN},{rN}"),
    *_sized("xadd {rmN},{rN}"),
    *_sized("lock xadd {mN},{rN}"),
    *_sized("cmpxchg {rmN},{rN}", ("8", "16", "64")),
    Template("cmpxchg {m32},{r32}", modes=BOTH, unicorn=False),
    Template("cmpxchg {r32},{r32}", host=False, modes=BOTH),
    *_sized("lock cmpxchg {mN},{rN}", unicorn=False),
    Template("cmpxchg8b {m64}", modes=BOTH),
    Template("cmpxchg16b {m128}"),
    Template("lock cmpxchg8b {m64}", modes=BOTH),
    Template("lock cmpxchg16b {m128}"),
    *(Template(f"cmov{c} {{r{n}}},{{rm{n}}}") for c in CONDITIONS for n in _WIDE),
    *(Template(f"set{c} {{rm8}}") for c in CONDITIONS),
    Template("cbw", modes=BOTH),
    Template("cwde", modes=BOTH),
    Template("cdqe"),
    Template("cwd", modes=BOTH),
    Template("cdq", modes=BOTH),
    Template("cqo"),
    Template("xlatb", modes=BOTH),
    Template(".byte 64d7", host=False),
]

STACK = [
    Template("push {rm64}"),
    Template("push {rm16}", modes=BOTH),
    Template("push {i8}", modes=BOTH),
    Template("push {i32}"),
    Template("push {rm32}", modes=(False,)),
    Template("pop {rm32}", modes=(False,)),
    Template(".byte 666812f4"),
    Template(".byte 666af4"),
    Template("pop {rm64}"),
    Template("pop {rm16}", modes=BOTH),
    Template("pop qword ptr [rsp+8]"),
    Template("pop qword ptr [rsp]"),
    Template("pop rsp"),
    Template("push rsp"),
    Template("pop sp"),
    Template("pushfq", host=False),
    Template(".byte 669c", host=False),
    Template("leave", modes=BOTH),
    Template("enter 16,0", modes=BOTH),
    Template("enter 0,1", modes=BOTH),
    Template("enter 32,3", modes=BOTH),
    Template("enter 256,31"),
    Template(".byte 66c8080002"),
    Template("pushal", modes=(False,)),
    Template("popal", modes=(False,)),
    Template(".byte 6660", modes=(False,)),
    Template(".byte 6661", modes=(False,)),
]

ARITH = [
    *(t for name in ("add", "adc", "sub", "sbb", "cmp") for t in _sized(f"{name} {{rmN}},{{rN}}")),
    *(t for name in ("add", "adc", "sub", "sbb", "cmp") for t in _sized(f"{name} {{rN}},{{mN}}")),
    *(t for name in ("add", "adc", "sub", "sbb", "cmp") for t in _immediate(name)),
    *(t for name in ("add", "adc", "sub", "sbb") for t in _sized(f"lock {name} {{mN}},{{rN}}")),
    *(t for name in ("and", "or", "xor", "test") for t in _sized(f"{name} {{rmN}},{{rN}}", undefined=AF)),
    *(t for name in ("and", "or", "xor") for t in _sized(f"{name} {{rN}},{{mN}}", undefined=AF)),
    *(t for name in ("and", "or", "xor", "test") for t in _immediate(name, AF)),
    *(t for name in ("and", "or", "xor") for t in _sized(f"lock {name} {{mN}},{{rN}}", undefined=AF)),
    *(
        Template(
            f"{name} {r},{r}", AF if name in ("and", "or", "xor", "test") else 0, modes=BOTH if r != "rax" else (True,)
        )
        for name in ("add", "sub", "sbb", "adc", "cmp", "xor", "and", "or", "test")
        for r in ("al", "bh", "cx", "edx", "rax")
    ),
    *(t for name in ("inc", "dec", "neg", "not") for t in _sized(f"{name} {{rmN}}")),
    *(t for name in ("inc", "dec", "not") for t in _sized(f"lock {name} {{mN}}")),
    *_sized("lock neg {mN}", unicorn=False),
    *(t for name in ("mul", "imul") for t in _sized(f"{name} {{rmN}}", undefined=SF | ZF | AF | PF)),
    *_sized("imul {rN},{rmN}", _WIDE, SF | ZF | AF | PF),
    Template("imul {r16},{rm16},{i8}", SF | ZF | AF | PF),
    Template("imul {r16},{rm16},{i16}", SF | ZF | AF | PF),
    Template("imul {r32},{rm32},{i8}", SF | ZF | AF | PF),
    Template("imul {r32},{rm32},{i32}", SF | ZF | AF | PF),
    Template("imul {r64},{rm64},{i8}", SF | ZF | AF | PF),
    Template("imul {r64},{rm64},{i32}", SF | ZF | AF | PF),
    *_sized("adcx {rN},{rmN}", _VEX, unicorn=False),
    *_sized("adox {rN},{rmN}", _VEX, unicorn=False),
    *_sized("mulx {rN},{rN},{rmN}", _VEX),
    Template("daa", OF, modes=(False,)),
    Template("das", OF, modes=(False,)),
    Template("aaa", OF | SF | ZF | PF, modes=(False,)),
    Template("aas", OF | SF | ZF | PF, modes=(False,)),
    Template("aam", OF | AF | CF, modes=(False,)),
    Template("aad", OF | AF | CF, modes=(False,)),
    Template("aam 7", OF | AF | CF, modes=(False,)),
    Template("aad 16", OF | AF | CF, modes=(False,)),
    Template("aam 0", modes=(False,)),
]

DIVIDE = [t for name in ("div", "idiv") for t in _sized(f"{name} {{rmN}}", undefined=0x8D5)]

_SHIFT_FLAGS = AF
SHIFT = [
    *(
        t
        for name in ("shl", "shr", "sar", "rol", "ror", "rcl", "rcr")
        for n in ("1", "cl")
        for t in _sized(f"{name} {{rmN}},{n}", undefined=AF if name[0] == "s" else 0)
    ),
    *(
        t
        for name in ("shl", "shr", "sar", "rol", "ror", "rcl", "rcr")
        for t in _sized(f"{name} {{rmN}},{{i8}}", undefined=AF if name[0] == "s" else 0)
    ),
    *(t for name in ("shld", "shrd") for t in _sized(f"{name} {{rmN}},{{rN}},cl", _WIDE, AF)),
    *(t for name in ("shld", "shrd") for t in _sized(f"{name} {{rmN}},{{rN}},{{i8}}", _WIDE, AF)),
    *(t for name in ("sarx", "shlx", "shrx") for t in _sized(f"{name} {{rN}},{{rmN}},{{rN}}", _VEX)),
    *(
        Template(f"rorx {{r{n}}},{{rm{n}}},{count}", modes=BOTH if n == "32" else (True,))
        for n in _VEX
        for count in (1, 7, 31, 40)
    ),
]

BIT = [
    *(t for name in ("bt", "bts", "btr", "btc") for t in _sized(f"{name} {{rmN}},{{rN}}", _WIDE, OF | SF | AF | PF)),
    *(
        Template(f"{name} {{rm{n}}},{{i8}}", OF | SF | AF | PF, modes=BOTH if n != "64" else (True,))
        for name in ("bt", "bts", "btr", "btc")
        for n in _WIDE
    ),
    *(t for name in ("bts", "btr", "btc") for t in _sized(f"lock {name} {{mN}},{{rN}}", _WIDE, OF | SF | AF | PF)),
    *(t for name in ("bsf", "bsr") for t in _sized(f"{name} {{rN}},{{rmN}}", ("16", "64"), CF | OF | SF | AF | PF)),
    *(
        t
        for name in ("bsf", "bsr")
        for t in _sized(f"{name} {{rN}},{{rmN}}", ("32",), CF | OF | SF | AF | PF, unicorn=False)
    ),
    *(t for name in ("tzcnt", "lzcnt") for t in _sized(f"{name} {{rN}},{{rmN}}", _WIDE, OF | SF | AF | PF)),
    *_sized("popcnt {rN},{rmN}", _WIDE),
    *_sized("andn {rN},{rN},{rmN}", _VEX, AF | PF),
    *(t for name in ("blsr", "blsmsk") for t in _sized(f"{name} {{rN}},{{rmN}}", _VEX, AF | PF)),
    *_sized("blsi {rN},{rmN}", _VEX, AF | PF, unicorn=False),
    *_sized("bextr {rN},{rmN},{rN}", _VEX, AF | SF | PF, unicorn=False),
    *_sized("bzhi {rN},{rmN},{rN}", _VEX, AF | PF, unicorn=False),
    *(t for name in ("pdep", "pext") for t in _sized(f"{name} {{rN}},{{rN}},{{rmN}}", _VEX, unicorn=False)),
    *(Template(f"crc32 {{r32}},{{rm{n}}}", modes=BOTH) for n in ("8", "16", "32")),
    Template("crc32 {r64},{rm8}"),
    Template("crc32 {r64},{rm64}"),
]

CONTROL = [
    *(Template(f"j{c} {d}", host=False) for c in CONDITIONS for d in ("0x10000020", "0x10008000")),
    Template("jmp 0x10000020", host=False),
    Template("jmp 0x10004000", host=False),
    Template("call 0x10004000", host=False),
    Template("jmp {rm64}", host=False),
    Template("call {rm64}", host=False),
    Template("jmp {rm32}", host=False, modes=(False,)),
    Template("call {rm32}", host=False, modes=(False,)),
    Template("ret", host=False, modes=BOTH),
    Template("ret 16", host=False, modes=BOTH),
    *(Template(f".byte {op:x}{d}", host=False, modes=BOTH) for op in range(0xE0, 0xE4) for d in ("0c", "80")),
    Template(".byte 67e210", host=False),
    Template(".byte 67e310", host=False),
    Template(".byte 621e", host=False, modes=(False,)),
]

STRING = [
    *(
        Template(f"{name}{s}", modes=BOTH if s != "q" else (True,))
        for name in ("movs", "stos", "lods", "cmps", "scas")
        for s in "bwdq"
        if f"{name}{s}" != "movsd" and f"{name}{s}" != "cmpsd"
    ),
    Template(".byte a5", modes=BOTH),
    Template(".byte a7", modes=BOTH),
    Template(".byte 67a4"),
    Template(".byte 67a5"),
    Template(".byte 67aa"),
    Template(".byte 67ad"),
    Template(".byte 67af"),
    Template(".byte 64a4", host=False),
    Template(".byte 65a6", host=False),
    Template(".byte 64ac", host=False),
]

MISC = [
    *(Template(name, modes=BOTH) for name in ("clc", "stc", "cmc", "cld", "std", "lahf", "sahf", "nop", "pause")),
    Template("nop {rm32}"),
    Template(".byte f30f1efa", host=False),
    Template("lfence"),
    Template("sfence"),
    Template("mfence"),
    Template("clflush {m8}"),
    Template("prefetcht0 {m8}"),
    Template("ud2", host=False),
]

CHAPTERS = {
    "move": MOVE,
    "stack": STACK,
    "arith": ARITH,
    "divide": DIVIDE,
    "shift": SHIFT,
    "bit": BIT,
    "control": CONTROL,
    "string": STRING,
    "misc": MISC,
}
