"""Bit gathering, CRC-32C and random numbers: what a few user-level instructions need beyond the IR."""

from tcg.runtime.hooks import ask
from tcg.runtime.layout import Callback
from tcg.runtime.memory import exported, lsr

# The guest's callback kind: Python answers with 64 random bits (os.urandom).
RANDOM = int(Callback.GUEST) + 16
_CASTAGNOLI = 0x82F63B78  # reflected polynomial (SDM vol. 2, CRC32)


@exported
def helper_x86_crc32c(env: int, crc: int, value: int, size: int) -> int:
    """CRC-32C of `size` bytes of value, low byte first, from crc (both reflected, no final inversion)."""
    for _ in range(size):
        crc ^= value & 0xFF
        value = lsr(value, 8)
        for _ in range(8):
            crc = (crc >> 1) ^ (_CASTAGNOLI & -(crc & 1))
    return crc


@exported
def helper_x86_pdep(env: int, source: int, mask: int) -> int:
    """The low bits of source, in order, at the places where mask has ones."""
    result = 0
    place = 0
    while mask != 0:
        if mask & 1:
            result |= (source & 1) << place
            source = lsr(source, 1)
        mask = lsr(mask, 1)
        place += 1
    return result


@exported
def helper_x86_pext(env: int, source: int, mask: int) -> int:
    """The bits of source where mask has ones, packed at the low end."""
    result = 0
    place = 0
    while mask != 0:
        if mask & 1:
            result |= (source & 1) << place
            place += 1
        source = lsr(source, 1)
        mask = lsr(mask, 1)
    return result


@exported
def helper_x86_random(env: int) -> int:
    """64 random bits from the host."""
    return ask(env, RANDOM, 0, 0, 0)
