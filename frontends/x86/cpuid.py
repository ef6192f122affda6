"""CPU models and what CPUID says of them (SDM volume 2, CPUID; AMD64 volume 3, appendix E).

A model is a vendor, a signature and a set of features, named as QEMU names them. Only features that this project
implements have a row in FEATURES, so nothing else can be announced or asked for. `leaves` gives the records that the
native CPUID helper searches (env.cpuid_table, env.cpuid_count).
"""

import difflib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from tcg.runtime.struct import Struct, field

LEAF = Struct(
    "CpuidLeaf",
    field("leaf", 4),
    field("subleaf", 4, "or SUBLEAF_ANY"),
    field("eax", 4),
    field("ebx", 4),
    field("ecx", 4),
    field("edx", 4),
)
SUBLEAF_ANY = 0xFFFFFFFF

# name: (leaf, register, bit)
FEATURES: dict[str, tuple[int, str, int]] = {}


def _bits(leaf: int, register: str, **names: int) -> None:
    for name, bit in names.items():
        FEATURES[name.lstrip("_").replace("_", "-")] = (leaf, register, bit)


_bits(1, "edx", fpu=0, de=2, pse=3, tsc=4, msr=5, pae=6, mce=7, cx8=8, apic=9, sep=11, mtrr=12, pge=13, mca=14, cmov=15)
_bits(1, "edx", pat=16, pse36=17, clflush=19, mmx=23, fxsr=24, sse=25, sse2=26, ss=27)
_bits(1, "ecx", pni=0, pclmulqdq=1, monitor=3, ssse3=9, cx16=13, pcid=17, x2apic=21, movbe=22, popcnt=23, aes=25)
_bits(1, "ecx", tsc_deadline=24, xsave=26, rdrand=30, hypervisor=31)
FEATURES["sse4.1"] = (1, "ecx", 19)
FEATURES["sse4.2"] = (1, "ecx", 20)
_bits(6, "eax", arat=2)
_bits(7, "ebx", fsgsbase=0, bmi1=3, smep=7, bmi2=8, erms=9, invpcid=10, rdseed=18, adx=19, smap=20, clflushopt=23)
_bits(7, "ebx", clwb=24, sha_ni=29)
_bits(7, "ecx", rdpid=22)
_bits(7, "edx", fsrm=4)
_bits(0xD, "eax", xsaveopt=0, xsavec=1)  # subleaf 1
_bits(0x80000001, "edx", syscall=11, nx=20, fxsr_opt=25, pdpe1gb=26, rdtscp=27, lm=29)
_bits(0x80000001, "ecx", lahf_lm=0, abm=5, _3dnowprefetch=8)
_bits(0x80000007, "edx", invtsc=8)

_BASE = (  # what x86-64 itself has
    *("fpu", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "sep", "mtrr", "pge", "mca", "cmov", "pat"),
    *("pse36", "clflush", "mmx", "fxsr", "sse", "sse2", "pni", "cx16", "syscall", "nx", "lm", "lahf-lm", "hypervisor"),
)
COMMON_EDX = 0x0183F3FF  # leaf 0x80000001 EDX repeats these bits of leaf 1 EDX on AMD processors


class CpuError(Exception):
    """A -cpu argument that cannot be had; the message names it and the nearest thing that we have."""


@dataclass(frozen=True, slots=True)
class CpuModel:
    """vendor: 12 characters; signature: leaf 1 EAX; brand: at most 47 characters."""

    name: str
    vendor: str
    signature: int
    brand: str
    features: frozenset[str]

    def has(self, feature: str) -> bool:
        return feature in self.features


def _signature(family: int, model: int, stepping: int) -> int:
    base = min(family, 15)
    return (family - base) << 20 | (model >> 4) << 16 | base << 8 | (model & 15) << 4 | stepping


MODELS = {
    model.name: model
    for model in (
        CpuModel("qemu64", "AuthenticAMD", _signature(15, 107, 1), "QEMU Virtual CPU version 2.5+", frozenset(_BASE)),
        CpuModel("max", "AuthenticAMD", _signature(6, 6, 3), "QEMU TCG CPU version 2.5+", frozenset(FEATURES)),
    )
}


def parse(spec: str) -> CpuModel:
    """A model from QEMU's -cpu syntax: name[,+feature|,-feature|,feature=on|off]..."""
    name, *options = spec.split(",")
    model = MODELS.get(name)
    if model is None:
        raise CpuError(f"-cpu: no model '{name}'{_nearest(name, MODELS)}")
    features = set(model.features)
    for option in options:
        if option[:1] in ("+", "-"):
            feature, on = option[1:], option[0] == "+"
        else:
            feature, _, value = option.partition("=")
            if value not in ("", "on", "off"):
                raise CpuError(f"-cpu: '{option}' must be on or off")
            on = value != "off"
        feature = feature.replace("_", "-")
        if feature not in FEATURES:
            if on:
                raise CpuError(f"-cpu: no feature '{feature}'{_nearest(feature, FEATURES)}")
            continue  # taking away what is not there
        if on:
            features.add(feature)
        else:
            features.discard(feature)
    return CpuModel(model.name, model.vendor, model.signature, model.brand, frozenset(features))


def _nearest(word: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, choices, 1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(sorted(choices))}"


Record = tuple[int, int, int, int, int, int]  # leaf, subleaf, EAX, EBX, ECX, EDX


def leaves(model: CpuModel, cpus: int = 1, apic_id: int = 0) -> list[Record]:
    """The records of one vCPU. Leaf 1 ECX.OSXSAVE is left to the helper, which adds CR4.OSXSAVE."""
    bits: dict[tuple[int, str], int] = {}
    for name in model.features:
        leaf, register, bit = FEATURES[name]
        bits[leaf, register] = bits.get((leaf, register), 0) | 1 << bit

    def of(leaf: int, register: str) -> int:
        return bits.get((leaf, register), 0)

    ebx, edx, ecx = struct.unpack("<3I", model.vendor.encode())
    brand = struct.unpack("<12I", model.brand.encode().ljust(48, b"\0"))
    ids = max(cpus - 1, 0).bit_length()  # bits of the APIC id that tell the vCPUs of the package apart
    many = cpus > 1
    edx1 = of(1, "edx") | (1 << 28 if many else 0)
    records: list[Record] = [
        (0, SUBLEAF_ANY, 0xD, ebx, ecx, edx),
        (1, SUBLEAF_ANY, model.signature, apic_id << 24 | cpus << 16 | 8 << 8, of(1, "ecx"), edx1),
        (2, SUBLEAF_ANY, 1, 0, 0x4D, 0x2C307D),
        # Deterministic caches: L1D, L1I 32 KiB 8 ways; L2 4 MiB, L3 16 MiB 16 ways; lines of 64 bytes
        *((4, n, *_cache(n, cpus)) for n in range(4)),
        (6, SUBLEAF_ANY, of(6, "eax"), 0, 0, 0),
        (7, 0, 0, of(7, "ebx"), of(7, "ecx"), of(7, "edx")),
        (0xB, 0, 0, 1, 0x100, apic_id),
        (0xB, 1, ids, cpus, 0x201, apic_id),
    ]
    if model.has("monitor"):
        records.append((5, SUBLEAF_ANY, 0, 0, 3, 0))
    if model.has("xsave"):
        size = 512 + 64  # legacy region and XSAVE header: x87 and SSE are all there is
        records += [(0xD, 0, 3, size, size, 0), (0xD, 1, of(0xD, "eax"), size, 0, 0)]
    if model.has("hypervisor"):
        records += [
            (0x40000000, SUBLEAF_ANY, 0x40000001, *struct.unpack("<3I", b"TCGTCGTCGTCG")),
            (0x40000001, SUBLEAF_ANY, 0, 0, 0, 0),
        ]
    records += [
        (0x80000000, SUBLEAF_ANY, 0x80000008, ebx, ecx, edx),
        (
            *(0x80000001, SUBLEAF_ANY, model.signature, 0, of(0x80000001, "ecx") | (2 if many else 0)),
            of(0x80000001, "edx") | (edx1 & COMMON_EDX),
        ),
        *((0x80000002 + n, SUBLEAF_ANY, *brand[4 * n : 4 * n + 4]) for n in range(3)),
        (0x80000005, SUBLEAF_ANY, 0x01FF01FF, 0x01FF01FF, 0x40020140, 0x40020140),
        (0x80000006, SUBLEAF_ANY, 0, 0x42004200, 0x02008140, 0x00808140),
        (0x80000007, SUBLEAF_ANY, 0, 0, 0, of(0x80000007, "edx")),
        (0x80000008, SUBLEAF_ANY, 48 << 8 | 40, 0, cpus - 1 if many else 0, 0),
    ]
    return records


def _cache(n: int, cpus: int) -> tuple[int, int, int, int]:
    """Leaf 4 of cache n (SDM vol. 2, CPUID leaf 04H)."""
    kind, level, ways, sets = ((1, 1, 8, 64), (2, 1, 8, 64), (3, 2, 16, 4096), (3, 3, 16, 16384))[n]
    sharing = max(cpus - 1, 0) if level == 3 else 0
    eax = kind | level << 5 | 1 << 8 | sharing << 14 | max(cpus - 1, 0) << 26
    return eax, 63 | (ways - 1) << 22, sets - 1, 0 if level < 3 else 6


def table(records: Iterable[Record]) -> bytes:
    """The records as LEAF structs in memory."""
    size = LEAF.size
    return b"".join(struct.pack("<6I", *(v & 0xFFFFFFFF for v in record)).ljust(size, b"\0") for record in records)
