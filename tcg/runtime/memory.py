"""Raw memory, atomics and unsigned arithmetic for native code. Addresses are host addresses (hva) as int64.

All values are int64 (see `native` for the rule and the decorators, which are re-exported here). Loads narrower than 64
bits zero-extend (`ld8`..`ld32`) or sign-extend (`ld8s`..`ld32s`); stores take the low bits. No alignment is needed
except where said. Each primitive carries the LLVM text that the object is built from and a Python body with the same
meaning.
"""

import ctypes
import time

from tcg.runtime.native import bind_hook, exported, external, native, primitive, wrap

__all__ = [
    "add32",
    "alloc_zeroed",
    "asr",
    "atomic_add32",
    "atomic_add64",
    "atomic_and32",
    "atomic_and64",
    "atomic_or32",
    "atomic_or64",
    "bind_hook",
    "bswap16",
    "bswap32",
    "bswap64",
    "call_ptr1",
    "call_ptr2",
    "call_ptr3",
    "call_ptr5",
    "cas8",
    "cas16",
    "cas32",
    "cas64",
    "cas128",
    "clz64",
    "compiler_barrier", "copy16",
    "ctz64",
    "exported",
    "external",
    "fence",
    "fence_acquire",
    "fence_release",
    "ld8",
    "ld8s",
    "ld16",
    "ld16s",
    "ld32",
    "ld32s",
    "ld64",
    "load32_acquire",
    "load64_acquire",
    "lsr",
    "memcmp_eq",
    "memcpy",
    "memmove",
    "memset",
    "mulhs",
    "mulhu",
    "native",
    "pause",
    "popcount64",
    "primitive",
    "rdtsc",
    "release",
    "shl",
    "st8",
    "st16",
    "st32",
    "st64",
    "store32_release",
    "store64_release",
    "sx8",
    "sx16",
    "sx32",
    "udiv",
    "udiv128",
    "ule",
    "ult",
    "urem",
    "wrap",
    "xchg32",
    "xchg64",
    "zx8",
    "zx16",
    "zx32",
]  # fmt: skip

M64 = (1 << 64) - 1
_INTS = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}


def _read(hva: int, size: int) -> int:
    return int(_INTS[size].from_address(hva & M64).value)


def _write(hva: int, size: int, value: int) -> None:
    _INTS[size].from_address(hva & M64).value = value & ((1 << 8 * size) - 1)


def _load(bits: int, extend: str) -> str:
    load = f"%p = inttoptr i64 %hva to ptr\n%v = load i{bits}, ptr %p, align 1\n"
    return f"{load}%r = {extend} i{bits} %v to i64\nret i64 %r"


def _store(bits: int) -> str:
    return (
        f"%p = inttoptr i64 %hva to ptr\n%v = trunc i64 %value to i{bits}\n"
        f"store i{bits} %v, ptr %p, align 1\nret ptr null"
    )


@primitive(_load(8, "zext"))
def ld8(hva: int) -> int:
    return _read(hva, 1)


@primitive(_load(16, "zext"))
def ld16(hva: int) -> int:
    return _read(hva, 2)


@primitive(_load(32, "zext"))
def ld32(hva: int) -> int:
    return _read(hva, 4)


@primitive("%p = inttoptr i64 %hva to ptr\n%v = load i64, ptr %p, align 1\nret i64 %v")
def ld64(hva: int) -> int:
    return wrap(_read(hva, 8))


@primitive(_load(8, "sext"))
def ld8s(hva: int) -> int:
    return sx8(_read(hva, 1))


@primitive(_load(16, "sext"))
def ld16s(hva: int) -> int:
    return sx16(_read(hva, 2))


@primitive(_load(32, "sext"))
def ld32s(hva: int) -> int:
    return sx32(_read(hva, 4))


@primitive(_store(8))
def st8(hva: int, value: int) -> None:
    _write(hva, 1, value)


@primitive(_store(16))
def st16(hva: int, value: int) -> None:
    _write(hva, 2, value)


@primitive(_store(32))
def st32(hva: int, value: int) -> None:
    _write(hva, 4, value)


@primitive("%p = inttoptr i64 %hva to ptr\nstore i64 %value, ptr %p, align 1\nret ptr null")
def st64(hva: int, value: int) -> None:
    _write(hva, 8, value)


# ---- narrow and unsigned arithmetic


def _extend(bits: int, how: str) -> str:
    return f"%v = trunc i64 %a to i{bits}\n%r = {how} i{bits} %v to i64\nret i64 %r"


@primitive(_extend(8, "zext"))
def zx8(a: int) -> int:
    return a & 0xFF


@primitive(_extend(16, "zext"))
def zx16(a: int) -> int:
    return a & 0xFFFF


@primitive(_extend(32, "zext"))
def zx32(a: int) -> int:
    return a & 0xFFFFFFFF


@primitive(_extend(8, "sext"))
def sx8(a: int) -> int:
    return (a & 0xFF ^ 0x80) - 0x80


@primitive(_extend(16, "sext"))
def sx16(a: int) -> int:
    return (a & 0xFFFF ^ 0x8000) - 0x8000


@primitive(_extend(32, "sext"))
def sx32(a: int) -> int:
    return (a & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


@primitive("%s = add i64 %a, %b\n%m = and i64 %s, 4294967295\nret i64 %m")
def add32(a: int, b: int) -> int:
    """(a + b) modulo 2^32."""
    return (a + b) & 0xFFFFFFFF


@primitive("%m = and i64 %n, 63\n%r = lshr i64 %a, %m\nret i64 %r")
def lsr(a: int, n: int) -> int:
    """Logical shift right by n modulo 64."""
    return (a & M64) >> (n & 63)


@primitive("%m = and i64 %n, 63\n%r = ashr i64 %a, %m\nret i64 %r")
def asr(a: int, n: int) -> int:
    """Arithmetic shift right by n modulo 64."""
    return wrap(a) >> (n & 63)


@primitive("%m = and i64 %n, 63\n%r = shl i64 %a, %m\nret i64 %r")
def shl(a: int, n: int) -> int:
    """Shift left by n modulo 64."""
    return wrap(a << (n & 63))


@primitive("%c = icmp ult i64 %a, %b\n%r = zext i1 %c to i64\nret i64 %r")
def ult(a: int, b: int) -> int:
    """1 if a < b unsigned."""
    return int((a & M64) < (b & M64))


@primitive("%c = icmp ule i64 %a, %b\n%r = zext i1 %c to i64\nret i64 %r")
def ule(a: int, b: int) -> int:
    """1 if a <= b unsigned."""
    return int((a & M64) <= (b & M64))


@native
def least(a: int, b: int) -> int:
    """The smaller one, signed (Numba compiles the built-in `min` as a function of its own)."""
    if a < b:
        return a
    return b


@primitive("%r = udiv i64 %a, %b\nret i64 %r")
def udiv(a: int, b: int) -> int:
    """Unsigned quotient; b must not be 0."""
    return (a & M64) // (b & M64)


@primitive("%r = urem i64 %a, %b\nret i64 %r")
def urem(a: int, b: int) -> int:
    """Unsigned remainder; b must not be 0."""
    return (a & M64) % (b & M64)


@primitive(
    '%r = call { i64, i64 } asm "divq $4", "={ax},={dx},0,1,r,~{cc}"(i64 %low, i64 %high, i64 %divisor)\n'
    "%q = extractvalue { i64, i64 } %r, 0\n%m = extractvalue { i64, i64 } %r, 1\n"
    "%p = inttoptr i64 %remainder_hva to ptr\nstore i64 %m, ptr %p, align 1\nret i64 %q"
)
def udiv128(high: int, low: int, divisor: int, remainder_hva: int) -> int:
    """(high:low) / divisor unsigned with the remainder stored; high must be below divisor. x86-64 hosts."""
    value = (high & M64) << 64 | (low & M64)
    _write(remainder_hva, 8, value % (divisor & M64))
    return value // (divisor & M64)


def _mulh(how: str) -> str:
    return (
        f"%x = {how} i64 %a to i128\n%y = {how} i64 %b to i128\n%z = mul i128 %x, %y\n"
        "%h = lshr i128 %z, 64\n%r = trunc i128 %h to i64\nret i64 %r"
    )


@primitive(_mulh("zext"))
def mulhu(a: int, b: int) -> int:
    """High half of the unsigned 128-bit product."""
    return (a & M64) * (b & M64) >> 64


@primitive(_mulh("sext"))
def mulhs(a: int, b: int) -> int:
    """High half of the signed 128-bit product."""
    return wrap(a) * wrap(b) >> 64


@primitive("%r = call i64 @llvm.ctlz.i64(i64 %a, i1 false)\nret i64 %r")
def clz64(a: int) -> int:
    """Leading zeros; 64 for 0."""
    return 64 - (a & M64).bit_length()


@primitive("%r = call i64 @llvm.cttz.i64(i64 %a, i1 false)\nret i64 %r")
def ctz64(a: int) -> int:
    """Trailing zeros; 64 for 0."""
    a &= M64
    return (a & -a).bit_length() - 1 if a else 64


@primitive("%r = call i64 @llvm.ctpop.i64(i64 %a)\nret i64 %r")
def popcount64(a: int) -> int:
    return (a & M64).bit_count()


def _bswap(bits: int) -> str:
    return (
        f"%v = trunc i64 %a to i{bits}\n%s = call i{bits} @llvm.bswap.i{bits}(i{bits} %v)\n"
        f"%r = zext i{bits} %s to i64\nret i64 %r"
    )


@primitive(_bswap(16))
def bswap16(a: int) -> int:
    return int.from_bytes((a & 0xFFFF).to_bytes(2, "little"), "big")


@primitive(_bswap(32))
def bswap32(a: int) -> int:
    return int.from_bytes((a & 0xFFFFFFFF).to_bytes(4, "little"), "big")


@primitive("%r = call i64 @llvm.bswap.i64(i64 %a)\nret i64 %r")
def bswap64(a: int) -> int:
    return wrap(int.from_bytes((a & M64).to_bytes(8, "little"), "big"))


# ---- atomics: sequentially consistent unless the name says otherwise, naturally aligned; the result is the old value


def _rmw(op: str, bits: int) -> str:
    if bits == 64:
        return f"%p = inttoptr i64 %hva to ptr\n%o = atomicrmw {op} ptr %p, i64 %value seq_cst\nret i64 %o"
    return (
        f"%p = inttoptr i64 %hva to ptr\n%v = trunc i64 %value to i{bits}\n"
        f"%o = atomicrmw {op} ptr %p, i{bits} %v seq_cst\n%r = zext i{bits} %o to i64\nret i64 %r"
    )


def _cas(bits: int) -> str:
    if bits == 64:
        return (
            "%p = inttoptr i64 %hva to ptr\n%x = cmpxchg ptr %p, i64 %expected, i64 %value seq_cst seq_cst\n"
            "%o = extractvalue { i64, i1 } %x, 0\nret i64 %o"
        )
    return (
        f"%p = inttoptr i64 %hva to ptr\n%e = trunc i64 %expected to i{bits}\n%v = trunc i64 %value to i{bits}\n"
        f"%x = cmpxchg ptr %p, i{bits} %e, i{bits} %v seq_cst seq_cst\n"
        f"%o = extractvalue {{ i{bits}, i1 }} %x, 0\n%r = zext i{bits} %o to i64\nret i64 %r"
    )


def _exchange(hva: int, size: int, value: int) -> int:
    old = _read(hva, size)
    _write(hva, size, value)
    return old


@primitive(_rmw("or", 32))
def atomic_or32(hva: int, value: int) -> int:
    return _exchange(hva, 4, _read(hva, 4) | value)


@primitive(_rmw("or", 64))
def atomic_or64(hva: int, value: int) -> int:
    return wrap(_exchange(hva, 8, _read(hva, 8) | value))


@primitive(_rmw("and", 32))
def atomic_and32(hva: int, value: int) -> int:
    return _exchange(hva, 4, _read(hva, 4) & value)


@primitive(_rmw("and", 64))
def atomic_and64(hva: int, value: int) -> int:
    return wrap(_exchange(hva, 8, _read(hva, 8) & value))


@primitive(_rmw("add", 32))
def atomic_add32(hva: int, value: int) -> int:
    return _exchange(hva, 4, _read(hva, 4) + value)


@primitive(_rmw("add", 64))
def atomic_add64(hva: int, value: int) -> int:
    return wrap(_exchange(hva, 8, _read(hva, 8) + value))


@primitive(_rmw("xchg", 32))
def xchg32(hva: int, value: int) -> int:
    return _exchange(hva, 4, value)


@primitive(_rmw("xchg", 64))
def xchg64(hva: int, value: int) -> int:
    return wrap(_exchange(hva, 8, value))


def _compare_exchange(hva: int, size: int, expected: int, value: int) -> int:
    old = _read(hva, size)
    if old == expected & ((1 << 8 * size) - 1):
        _write(hva, size, value)
    return old


@primitive(_cas(8))
def cas8(hva: int, expected: int, value: int) -> int:
    return _compare_exchange(hva, 1, expected, value)


@primitive(_cas(16))
def cas16(hva: int, expected: int, value: int) -> int:
    return _compare_exchange(hva, 2, expected, value)


@primitive(_cas(32))
def cas32(hva: int, expected: int, value: int) -> int:
    return _compare_exchange(hva, 4, expected, value)


@primitive(_cas(64))
def cas64(hva: int, expected: int, value: int) -> int:
    return wrap(_compare_exchange(hva, 8, expected, value))


@primitive(
    "%p = inttoptr i64 %hva to ptr\n%ep = inttoptr i64 %expected_hva to ptr\n%vp = inttoptr i64 %value_hva to ptr\n"
    "%e = load i128, ptr %ep, align 1\n%v = load i128, ptr %vp, align 1\n"
    "%x = cmpxchg ptr %p, i128 %e, i128 %v seq_cst seq_cst, align 16\n%o = extractvalue { i128, i1 } %x, 0\n"
    "%ok = extractvalue { i128, i1 } %x, 1\nstore i128 %o, ptr %ep, align 1\n%r = zext i1 %ok to i64\nret i64 %r"
)
def cas128(hva: int, expected_hva: int, value_hva: int) -> int:
    """16-byte compare-exchange (aligned); the old value goes to `expected_hva`; 1 if it was swapped. Host: CX16."""
    old = ctypes.string_at(hva & M64, 16)
    same = old == ctypes.string_at(expected_hva & M64, 16)
    if same:
        ctypes.memmove(hva & M64, value_hva & M64, 16)
    ctypes.memmove(expected_hva & M64, old, 16)
    return int(same)


@primitive(
    "%p = inttoptr i64 %hva to ptr\n%v = load atomic i32, ptr %p acquire, align 4\n%r = zext i32 %v to i64\nret i64 %r"
)
def load32_acquire(hva: int) -> int:
    return _read(hva, 4)


@primitive("%p = inttoptr i64 %hva to ptr\n%v = load atomic i64, ptr %p acquire, align 8\nret i64 %v")
def load64_acquire(hva: int) -> int:
    return wrap(_read(hva, 8))


@primitive(
    "%p = inttoptr i64 %hva to ptr\n%v = trunc i64 %value to i32\n"
    "store atomic i32 %v, ptr %p release, align 4\nret ptr null"
)
def store32_release(hva: int, value: int) -> None:
    _write(hva, 4, value)


@primitive("%p = inttoptr i64 %hva to ptr\nstore atomic i64 %value, ptr %p release, align 8\nret ptr null")
def store64_release(hva: int, value: int) -> None:
    _write(hva, 8, value)


@primitive("fence seq_cst\nret ptr null")
def fence() -> None:
    """Full barrier."""


@primitive("fence acquire\nret ptr null")
def fence_acquire() -> None:
    """Earlier loads stay before later accesses (x86-64 hosts: the compiler only)."""


@primitive("fence release\nret ptr null")
def fence_release() -> None:
    """Earlier accesses stay before later stores (x86-64 hosts: the compiler only)."""


@primitive('fence syncscope("singlethread") seq_cst\nret ptr null')
def compiler_barrier() -> None:
    """Keeps the compiler from moving accesses across it; no instruction."""


@primitive('call void asm sideeffect "pause", ""()\nret ptr null')
def pause() -> None:
    """Spin-wait hint (x86-64 hosts)."""


@primitive(
    "%p = call ptr @aligned_alloc(i64 64, i64 %size)\n"
    "call void @llvm.memset.p0.i64(ptr %p, i8 0, i64 %size, i1 false)\n"
    "%r = ptrtoint ptr %p to i64\nret i64 %r"
)
def alloc_zeroed(size: int) -> int:
    """`size` bytes (a multiple of 64) from the C heap, 64-byte aligned, zero. For rare growth only."""
    raise NotImplementedError("native code only")


@primitive("%p = inttoptr i64 %hva to ptr\ncall void @free(ptr %p)\nret ptr null")
def release(hva: int) -> None:
    """Give back what alloc_zeroed gave."""
    raise NotImplementedError("native code only")


# ---- bulk memory, time, calls through pointers


@primitive(
    "%d = inttoptr i64 %to to ptr\n%s = inttoptr i64 %source to ptr\n"
    "call void @llvm.memcpy.p0.p0.i64(ptr %d, ptr %s, i64 %size, i1 false)\nret ptr null"
)
def memcpy(to: int, source: int, size: int) -> None:
    """Copy without overlap."""
    ctypes.memmove(to & M64, source & M64, size)


@primitive(
    "%d = inttoptr i64 %to to ptr\n%s = inttoptr i64 %source to ptr\n"
    "%v = load <2 x i64>, ptr %s, align 1\nstore <2 x i64> %v, ptr %d, align 1\nret ptr null"
)
def copy16(to: int, source: int) -> None:
    """Copy 16 bytes, without alignment."""
    ctypes.memmove(to & M64, source & M64, 16)


@primitive(
    "%d = inttoptr i64 %to to ptr\n%s = inttoptr i64 %source to ptr\n"
    "call void @llvm.memmove.p0.p0.i64(ptr %d, ptr %s, i64 %size, i1 false)\nret ptr null"
)
def memmove(to: int, source: int, size: int) -> None:
    """Copy as if through a buffer."""
    ctypes.memmove(to & M64, source & M64, size)


@primitive(
    "%d = inttoptr i64 %to to ptr\n%b = trunc i64 %byte to i8\n"
    "call void @llvm.memset.p0.i64(ptr %d, i8 %b, i64 %size, i1 false)\nret ptr null"
)
def memset(to: int, byte: int, size: int) -> None:
    ctypes.memset(to & M64, byte & 0xFF, size)


@primitive(
    "%x = inttoptr i64 %one to ptr\n%y = inttoptr i64 %other to ptr\n"
    "%c = call i32 @memcmp(ptr %x, ptr %y, i64 %size)\n%z = icmp eq i32 %c, 0\n%r = zext i1 %z to i64\nret i64 %r"
)
def memcmp_eq(one: int, other: int, size: int) -> int:
    """1 if the bytes are equal."""
    return int(ctypes.string_at(one & M64, size) == ctypes.string_at(other & M64, size))


@primitive("%r = call i64 @llvm.readcyclecounter()\nret i64 %r")
def rdtsc() -> int:
    """The host's cycle counter."""
    return time.perf_counter_ns()


def _call(count: int) -> str:
    args = ", ".join(f"i64 %{name}" for name in "abcde"[:count])
    return f"%f = inttoptr i64 %code to ptr\n%r = call i64 %f({args})\nret i64 %r"


@primitive(_call(1))
def call_ptr1(code: int, a: int) -> int:
    """Call the C function at `code`."""
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64])(code & M64)(a))


@primitive(_call(2))
def call_ptr2(code: int, a: int, b: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 2)(code & M64)(a, b))


@primitive(_call(3))
def call_ptr3(code: int, a: int, b: int, c: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(code & M64)(a, b, c))


@primitive(_call(5))
def call_ptr5(code: int, a: int, b: int, c: int, d: int, e: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)(code & M64)(a, b, c, d, e))
