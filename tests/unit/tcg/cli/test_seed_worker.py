"""The worker's stages on the real frontend, and the shipped list against it."""

from frontends.x86.frontend import X86Frontend
from tcg.cli.seed_worker import SEEDS, batches, compile_batch, decode
from tcg.exec.forms import Form, Stencil, Variant
from tcg.exec.seeds import BATCH, Seed, parse
from tcg.ir.block import Block

LIST = parse(SEEDS.read_text())


def test_the_shipped_list_is_not_stale() -> None:
    """Nine lines in ten still decode to the form they name; `tessera cache seeds` makes a new list."""
    frontend = X86Frontend()
    named = sum(frontend.decode(seed.code, 0, seed.mode).form.name == seed.name for seed in LIST)
    assert len(LIST) > 500
    assert named > 0.9 * len(LIST)


def test_decode_skips_what_is_stale() -> None:
    good = Seed(0x81, bytes.fromhex("4889c0"), (Variant(),), "mov")
    cut = Seed(0x81, bytes.fromhex("48"), (Variant(),), "?")
    unread = Seed(0x81, bytes.fromhex("4889c0"), (Variant(True, 7),), "mov reads no flags")
    forms = decode(X86Frontend(), [cut, good, unread])
    assert [(form.key.name, variants) for form, variants in forms] == [("mov", [Variant()])]  # type: ignore[attr-defined]


def test_batches_begin_small_and_lose_nothing() -> None:
    todo = [(Form((n,), "f"), Variant()) for n in range(500)]
    made = list(batches(todo))
    assert [one for batch in made for one in batch] == todo
    assert len(made[0]) < BATCH
    assert max(map(len, made)) == BATCH


class Picky:
    """A compiler that refuses batches with form "bad" in them."""

    def compile(self, blocks: list[tuple[str, Block]]) -> list[Stencil]:
        if any("bad" in name for name, _ in blocks):
            raise ValueError("bad")
        return [Stencil(name.encode(), 1, ()) for name, _ in blocks]


def test_one_bad_seed_spoils_no_batch() -> None:
    frontend = X86Frontend()
    good = frontend.decode(b"\x90", 0, 0x81).form
    bad = Form(good.key, "bad")
    batch = [(good, Variant()), (bad, Variant()), (good, Variant(False, 0))]
    made = compile_batch(frontend, Picky(), batch)  # type: ignore[arg-type]
    assert [stencil and stencil.code for stencil in made] == [good.name.encode(), None, good.name.encode()]
