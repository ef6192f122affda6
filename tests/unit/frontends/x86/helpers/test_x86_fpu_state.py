"""FXSAVE, XSAVE, FNSAVE, FNSTENV images and MXCSR: layout, round trips, checks (SDM vol. 1, 8.1.10, 10.5, 13)."""

import random
import struct

import pytest
from x86guest import Fault, Guest, P, W

from frontends.x86.state import Mode

AREA = 0x200000
LAST_PAGE = AREA + 0x1000  # the next page is missing
M64 = (1 << 64) - 1


@pytest.fixture
def guest() -> Guest:
    guest = Guest()
    for page in range(2):
        guest.map(AREA + 4096 * page, AREA + 4096 * page, P | W)
    guest.set("cr4", guest.get("cr4") | 1 << 18)
    guest.set("xcr0", 3)
    guest.set("regs", 3, 0)
    guest.helper("ldmxcsr", 0x1F80)
    yield guest
    guest.helper("ldmxcsr", 0x1F80)  # the host's own register is this thread's


def randomize(guest: Guest, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    for n in range(16):
        guest.set("xmm", rng.getrandbits(128), n)
    for n in range(8):
        guest.set("fpregs", rng.getrandbits(80), n)
        guest.set("fpu_tags", rng.getrandbits(1), n)
    guest.set("fpu_top", rng.randrange(8))
    guest.set("fpu_control", 0x40 | rng.getrandbits(13) & 0x1F3F)
    guest.set("fpu_status", rng.getrandbits(16) & 0x477F)
    guest.set("fpu_opcode", rng.getrandbits(11))
    guest.set("fpu_ip", rng.getrandbits(47))
    guest.set("fpu_dp", rng.getrandbits(47))
    guest.helper("ldmxcsr", rng.getrandbits(16))


NAMES = ("fpu_top", "fpu_control", "fpu_status", "fpu_opcode", "fpu_ip", "fpu_dp")


def state(guest: Guest) -> dict[str, object]:
    found: dict[str, object] = {name: guest.get(name) for name in NAMES}
    found["status exceptions"] = guest.get("fpu_status") & 0x477F
    del found["fpu_status"]
    found["st"] = [guest.get("fpregs", n) & (1 << 80) - 1 for n in range(8)]
    found["tags"] = [guest.get("fpu_tags", n) for n in range(8)]
    found["xmm"] = [guest.get("xmm", n) for n in range(16)]
    found["mxcsr"] = guest.helper("stmxcsr")
    return found


def test_fxsave_layout(guest: Guest) -> None:
    randomize(guest, 1)
    guest.write(AREA, b"\xcc" * 512)
    guest.helper("fxsave", AREA, 1)
    image = guest.read(AREA, 512)
    fcw, fsw, ftw, fop, fip, fdp, mxcsr, mask = struct.unpack_from("<HHHHQQII", image)
    top = guest.get("fpu_top")
    assert fcw == guest.get("fpu_control")
    assert fsw & 0x477F == guest.get("fpu_status") & 0x477F and fsw >> 11 & 7 == top
    assert [ftw >> n & 1 for n in range(8)] == [1 - guest.get("fpu_tags", n) for n in range(8)]
    assert (fop, fip, fdp) == tuple(guest.get(f"fpu_{n}") for n in ("opcode", "ip", "dp"))
    assert (mxcsr, mask) == (guest.helper("stmxcsr"), 0xFFFF)
    for n in range(8):
        expected = guest.get("fpregs", top + n & 7) & (1 << 80) - 1
        assert int.from_bytes(image[32 + 16 * n : 42 + 16 * n], "little") == expected
    for n in range(16):
        assert int.from_bytes(image[160 + 16 * n : 176 + 16 * n], "little") == guest.get("xmm", n)
    assert image[416:] == b"\xcc" * 96


@pytest.mark.parametrize("gva", [AREA, LAST_PAGE - 64, LAST_PAGE - 256 + 0])
@pytest.mark.parametrize("pair", ["fxsave", "xsave", "xsaveopt", "xsavec"])
def test_round_trips(guest: Guest, gva: int, pair: str) -> None:
    """Also across a page boundary."""
    for seed in range(5):
        randomize(guest, seed)
        before = state(guest)
        if pair == "fxsave":
            guest.helper("fxsave", gva, 1)
        else:
            guest.helper("xsave", gva, 1, ("xsave", "xsaveopt", "xsavec").index(pair))
        randomize(guest, seed + 100)
        assert state(guest) != before
        guest.helper("fxrstor" if pair == "fxsave" else "xrstor", gva, 1)
        assert state(guest) == before


def test_xsave_writes_what_is_asked_for(guest: Guest) -> None:
    randomize(guest, 7)
    guest.write(AREA, b"\xcc" * 512 + b"\0" * 64)
    guest.set("regs", 1, 0)
    guest.helper("xsave", AREA, 1, 0)
    image = guest.read(AREA, 576)
    assert image[24:32] == b"\xcc" * 8 and image[160:416] == b"\xcc" * 256
    assert image[512:528] == (1).to_bytes(16, "little")
    guest.set("regs", 2, 0)
    guest.helper("xsave", AREA, 1, 0)
    image = guest.read(AREA, 576)
    assert image[512:528] == (3).to_bytes(16, "little")
    guest.helper("xsave", AREA, 1, 2)
    assert struct.unpack_from("<QQ", guest.read(AREA + 512, 16)) == (2, 1 << 63 | 2)


def test_xrstor_initialises_what_is_absent(guest: Guest) -> None:
    randomize(guest, 8)
    guest.helper("xsave", AREA, 1, 0)
    guest.write64(AREA + 512, 0)
    guest.helper("xrstor", AREA, 1)
    assert guest.get("fpu_control") == 0x37F
    assert [guest.get("fpu_tags", n) for n in range(8)] == [1] * 8
    assert [guest.get("xmm", n) for n in range(16)] == [0] * 16
    mxcsr = int.from_bytes(guest.read(AREA + 24, 4), "little")
    assert guest.helper("stmxcsr") == mxcsr  # standard form: MXCSR is loaded all the same
    guest.write64(AREA + 520, 1 << 63 | 3)
    guest.helper("xrstor", AREA, 1)
    assert guest.helper("stmxcsr") == 0x1F80


@pytest.mark.parametrize(
    ("offset", "value"),
    [(512, 4), (520, 1), (528, 1), (520, 1 << 63 | 4), (24, 1 << 16)],
)
def test_xrstor_refuses(guest: Guest, offset: int, value: int) -> None:
    randomize(guest, 9)
    guest.helper("xsave", AREA, 1, 0)
    guest.write64(AREA + 528, 0)
    guest.write64(AREA + offset, value)
    before = state(guest)
    with pytest.raises(Fault) as caught:
        guest.helper("xrstor", AREA, 1)
    assert caught.value.args[:2] == (13, 0)
    assert state(guest) == before


def test_areas_must_be_aligned_and_writable(guest: Guest) -> None:
    for name, args in (("fxsave", (AREA + 8, 1)), ("fxrstor", (AREA + 8, 1)), ("xsave", (AREA + 32, 1, 0)),
                       ("xrstor", (AREA + 16, 1))):  # fmt: skip
        with pytest.raises(Fault) as caught:
            guest.helper(name, *args)
        assert caught.value.args[:2] == (13, 0), name
    randomize(guest, 10)
    end = AREA + 0x2000
    guest.write(end - 64, b"\xcc" * 64)
    for name, args in (("fxsave", (end - 64, 1)), ("xsave", (end - 64, 1, 0)), ("fnsave", (end - 64, 4))):
        with pytest.raises(Fault) as caught:
            guest.helper(name, *args)
        assert caught.value.args[0] == 14 and caught.value.args[2] == end, name
        assert guest.read(end - 64, 64) == b"\xcc" * 64


def test_availability(guest: Guest) -> None:
    guest.set("cr0", guest.get("cr0") | 8)
    for name, args in (("fxsave", (AREA, 1)), ("xrstor", (AREA, 1)), ("fninit", ()), ("fldenv", (AREA, 4))):
        with pytest.raises(Fault) as caught:
            guest.helper(name, *args)
        assert caught.value.vector == 7
    guest.set("cr0", guest.get("cr0") & ~8)
    guest.set("cr4", guest.get("cr4") & ~(1 << 18))
    with pytest.raises(Fault) as caught:
        guest.helper("xsave", AREA, 1, 0)
    assert caught.value.vector == 6


@pytest.mark.parametrize("size", [2, 4])
def test_fnsave_and_frstor(guest: Guest, size: int) -> None:
    for seed in range(5):
        randomize(guest, seed)
        guest.set("fpu_opcode", 0)
        mask = (1 << 8 * size) - 1
        guest.set("fpu_ip", guest.get("fpu_ip") & mask)
        guest.set("fpu_dp", guest.get("fpu_dp") & mask)
        before = state(guest)
        guest.helper("fnsave", AREA + 1, size)
        assert (guest.get("fpu_control"), guest.get("fpu_top")) == (0x37F, 0)
        assert [guest.get("fpu_tags", n) for n in range(8)] == [1] * 8
        guest.helper("frstor", AREA + 1, size)
        assert state(guest) == before


def test_tag_word(guest: Guest) -> None:
    one, infinity, denormal, unnormal = 1 << 63 | 0x3FFF << 64, 0x7FFF << 64 | 1 << 63, 1, 1 << 62 | 5 << 64
    values = [0, one, infinity, denormal, unnormal, 1 << 79, one | 1 << 79]
    for n, value in enumerate(values):
        guest.set("fpregs", value, n)
        guest.set("fpu_tags", 0, n)
    guest.set("fpu_tags", 1, 7)
    guest.helper("fnstenv", AREA, 4)
    tags = int.from_bytes(guest.read(AREA + 8, 2), "little")
    assert [tags >> 2 * n & 3 for n in range(8)] == [1, 0, 2, 2, 2, 1, 0, 3]


def test_fnstenv_masks_and_fldenv_brings_back(guest: Guest) -> None:
    randomize(guest, 3)
    guest.set("fpu_control", 0x340)
    guest.set("fpu_status", 1)
    guest.set("fpu_ip", 5)
    guest.set("fpu_dp", 6)
    before = state(guest)
    guest.helper("fnstenv", AREA, 4)
    assert guest.get("fpu_control") == 0x37F
    assert not guest.get("fpu_status") & 0x8080
    guest.helper("fldenv", AREA, 4)
    assert state(guest) == before
    assert guest.get("fpu_status") & 0x8080 == 0x8080  # an unmasked exception is pending again


def test_mxcsr(guest: Guest) -> None:
    guest.helper("ldmxcsr", 0x9FC5)
    assert guest.helper("stmxcsr") == 0x9FC5
    assert not guest.mode() & Mode.FP_UNMASKED
    guest.helper("ldmxcsr", 0x1F00)
    assert guest.mode() & Mode.FP_UNMASKED
    with pytest.raises(Fault) as caught:
        guest.helper("ldmxcsr", 0x11F80)
    assert caught.value.args[:2] == (13, 0)
    assert guest.helper("stmxcsr") == 0x1F00


def test_fast_fxsave_leaves_xmm_at_cpl0(guest: Guest) -> None:
    randomize(guest, 4)
    guest.write(AREA, b"\xcc" * 512)
    guest.set("efer", guest.get("efer") | 1 << 14)
    guest.helper("fxsave", AREA, 1)
    assert guest.read(AREA + 160, 256) == b"\xcc" * 256
