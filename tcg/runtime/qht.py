"""QHT: the one hash table from (physical pc, pc, mode) to block. Look-ups take no lock; writers hold tb_lock.

A bucket is one cache line: a sequence number, four 32-bit hashes, four block addresses, a link to an overflow bucket. A
writer makes the head bucket's sequence odd while it changes the chain; a reader that saw it change looks again. Block
records never move and are not reused while a reader may hold one, so comparing their keys needs no lock either. The map
doubles at two entries a bucket; the old one stays (readers may be in it) until the next flush.
"""

from tcg.runtime.layout import BLOCK, MACHINE, QHT_BUCKET, QHT_ENTRIES, QHT_MAP
from tcg.runtime.lock import tb_lock, tb_unlock
from tcg.runtime.memory import (
    alloc_zeroed,
    exported,
    fence_acquire,
    fence_release,
    ld32,
    ld64,
    load32_acquire,
    load64_acquire,
    lsr,
    memset,
    native,
    pause,
    release,
    st32,
    st64,
    store32_release,
    store64_release,
)

_QHT = MACHINE.offset("qht")
_COUNT = MACHINE.offset("qht_count")
_MASK = QHT_MAP.offset("mask")
_BUCKETS = QHT_MAP.offset("buckets")
_OLDER = QHT_MAP.offset("older")
_MAP_BYTES = (QHT_MAP.size + 63) & -64
_SEQUENCE = QHT_BUCKET.offset("sequence")
_HASHES = QHT_BUCKET.offset("hashes")
_BLOCKS = QHT_BUCKET.offset("blocks")
_NEXT = QHT_BUCKET.offset("next")
_BUCKET_SIZE = QHT_BUCKET.size
_B_PC = BLOCK.offset("pc")
_B_GPA = BLOCK.offset("gpa")
_B_MODE = BLOCK.offset("mode")
_B_HASH = BLOCK.offset("hash")
_K1 = -7046029254386353131  # 2^64 / golden ratio
_K2 = -4417276706812531889
QHT_FIRST_BUCKETS = 1 << 14

assert _BUCKET_SIZE == 64


@native
def qht_hash(gpa: int, pc: int, mode: int) -> int:
    x = (gpa ^ (mode << 48)) * _K1
    x = (x ^ lsr(x, 29) ^ lsr(pc, 12)) * _K2
    return lsr(x, 32)


@native
def qht_new_map(buckets: int) -> int:
    at = alloc_zeroed(_MAP_BYTES)
    st64(at + _MASK, buckets - 1)
    st64(at + _BUCKETS, alloc_zeroed(buckets * _BUCKET_SIZE))
    return at


@exported
def qht_init(machine: int) -> None:
    st64(machine + _QHT, qht_new_map(QHT_FIRST_BUCKETS))
    st64(machine + _COUNT, 0)


@native
def qht_free_map(at: int) -> None:
    buckets = ld64(at + _BUCKETS)
    for i in range(ld64(at + _MASK) + 1):
        extra = ld64(buckets + i * _BUCKET_SIZE + _NEXT)
        while extra != 0:
            following = ld64(extra + _NEXT)
            release(extra)
            extra = following
    release(buckets)
    release(at)


@exported
def qht_clear(machine: int) -> None:
    """Forget everything; no other thread may be looking up (all vCPUs are stopped)."""
    at = ld64(machine + _QHT)
    older = ld64(at + _OLDER)
    st64(at + _OLDER, 0)
    while older != 0:
        following = ld64(older + _OLDER)
        qht_free_map(older)
        older = following
    buckets = ld64(at + _BUCKETS)
    for i in range(ld64(at + _MASK) + 1):
        bucket = buckets + i * _BUCKET_SIZE
        while bucket != 0:
            memset(bucket + _HASHES, 0, QHT_ENTRIES * 12)
            bucket = ld64(bucket + _NEXT)
    st64(machine + _COUNT, 0)


@exported
def qht_free(machine: int) -> None:
    """Give back all memory of the table."""
    qht_clear(machine)
    qht_free_map(ld64(machine + _QHT))
    st64(machine + _QHT, 0)


@native
def same_key(block: int, gpa: int, pc: int, mode: int) -> int:
    if ld64(block + _B_PC) == pc and ld64(block + _B_GPA) == gpa and ld32(block + _B_MODE) == mode:
        return 1
    return 0


@exported
def qht_find(machine: int, gpa: int, pc: int, mode: int) -> int:
    """hva of the block at (gpa, pc, mode), or 0. Any thread, no lock."""
    key = qht_hash(gpa, pc, mode)
    at = load64_acquire(machine + _QHT)
    head = ld64(at + _BUCKETS) + (key & ld64(at + _MASK)) * _BUCKET_SIZE
    while True:
        sequence = load32_acquire(head + _SEQUENCE)
        if sequence & 1 != 0:
            pause()
            continue
        found = 0
        bucket = head
        while bucket != 0 and found == 0:
            for i in range(QHT_ENTRIES):
                if ld32(bucket + _HASHES + 4 * i) == key:
                    block = load64_acquire(bucket + _BLOCKS + 8 * i)
                    if block != 0 and same_key(block, gpa, pc, mode) != 0:
                        found = block
                        break
            bucket = load64_acquire(bucket + _NEXT)
        fence_acquire()
        if ld32(head + _SEQUENCE) == sequence:
            return found


@native
def qht_put(at: int, block: int, key: int) -> None:
    """Add a block to the map at `at`."""
    head = ld64(at + _BUCKETS) + (key & ld64(at + _MASK)) * _BUCKET_SIZE
    sequence = ld32(head + _SEQUENCE)
    st32(head + _SEQUENCE, sequence + 1)
    fence_release()
    bucket = head
    while True:
        for i in range(QHT_ENTRIES):
            if ld64(bucket + _BLOCKS + 8 * i) == 0:
                st32(bucket + _HASHES + 4 * i, key)
                store64_release(bucket + _BLOCKS + 8 * i, block)
                store32_release(head + _SEQUENCE, sequence + 2)
                return
        if ld64(bucket + _NEXT) == 0:
            store64_release(bucket + _NEXT, alloc_zeroed(_BUCKET_SIZE))
        bucket = ld64(bucket + _NEXT)


@native
def qht_grow(machine: int) -> None:
    old = ld64(machine + _QHT)
    new = qht_new_map(2 * (ld64(old + _MASK) + 1))
    buckets = ld64(old + _BUCKETS)
    for n in range(ld64(old + _MASK) + 1):
        bucket = buckets + n * _BUCKET_SIZE
        while bucket != 0:
            for i in range(QHT_ENTRIES):
                block = ld64(bucket + _BLOCKS + 8 * i)
                if block != 0:
                    qht_put(new, block, ld32(bucket + _HASHES + 4 * i))
            bucket = ld64(bucket + _NEXT)
    st64(new + _OLDER, old)
    store64_release(machine + _QHT, new)


@native
def qht_add_locked(machine: int, block: int) -> None:
    """Add a block whose key is not there; tb_lock is held."""
    key = qht_hash(ld64(block + _B_GPA), ld64(block + _B_PC), ld32(block + _B_MODE))
    st32(block + _B_HASH, key)
    count = ld64(machine + _COUNT) + 1
    st64(machine + _COUNT, count)
    if count > 2 * (ld64(ld64(machine + _QHT) + _MASK) + 1):
        qht_grow(machine)
    qht_put(ld64(machine + _QHT), block, key)


@native
def qht_remove_locked(machine: int, block: int) -> int:
    """Remove a block; 1 if it was there. tb_lock is held. The chain's last entry fills the gap."""
    at = ld64(machine + _QHT)
    key = ld32(block + _B_HASH)
    head = ld64(at + _BUCKETS) + (key & ld64(at + _MASK)) * _BUCKET_SIZE
    place = 0
    place_hash = 0
    last = 0
    last_hash = 0
    bucket = head
    while bucket != 0:
        for i in range(QHT_ENTRIES):
            here = bucket + _BLOCKS + 8 * i
            entry = ld64(here)
            if entry != 0:
                last = here
                last_hash = bucket + _HASHES + 4 * i
                if entry == block:
                    place = here
                    place_hash = last_hash
        bucket = ld64(bucket + _NEXT)
    if place == 0:
        return 0
    sequence = ld32(head + _SEQUENCE)
    st32(head + _SEQUENCE, sequence + 1)
    fence_release()
    st32(place_hash, ld32(last_hash))
    store64_release(place, ld64(last))
    store64_release(last, 0)
    store32_release(head + _SEQUENCE, sequence + 2)
    st64(machine + _COUNT, ld64(machine + _COUNT) - 1)
    return 1


@exported
def qht_add(machine: int, block: int) -> None:
    tb_lock(machine)
    qht_add_locked(machine, block)
    tb_unlock(machine)


@exported
def qht_remove(machine: int, block: int) -> int:
    tb_lock(machine)
    gone = qht_remove_locked(machine, block)
    tb_unlock(machine)
    return gone
