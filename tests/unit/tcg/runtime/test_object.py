"""The cached object: whatever is wrong with a file, it is rebuilt; nothing of it is trusted."""

from pathlib import Path

import native_samples
import pytest

from tcg.runtime import object as runtime_object
from tcg.runtime.object import load, pack, source_key, unpack
from tcg.runtime.registry import Recipe, register_runtime

RECIPE = Recipe((native_samples.__name__,))


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts builds; each gives the same small object."""
    from tcg.runtime import build as builder

    done: list[str] = []
    code = builder.compile_object(RECIPE, None, 1, ("sample_unary",), modules=())

    def build(_recipe: Recipe, _progress: object = None) -> bytes:
        done.append("build")
        return pack(code, ["sample_unary"])

    monkeypatch.setattr(runtime_object, "build", build)
    register_runtime("samples", RECIPE)
    return done


def test_second_load_comes_from_the_cache(builds: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        assert load("samples", directory=tmp_path).call("sample_unary", 3, 0x80) == -128
    assert len(builds) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign", "directory"])
def test_damaged_file_is_rebuilt(builds: list[str], tmp_path: Path, damage: str) -> None:
    load("samples", directory=tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "empty":
        data.clear()
    elif damage == "foreign":
        data = bytearray(b"\x7fELF" + bytes(1000))
    path.unlink()
    if damage == "directory":
        path.mkdir()
    else:
        path.write_bytes(data)
    assert load("samples", directory=tmp_path).call("sample_unary", 0, 0x180) == 0x80
    assert len(builds) == 2


def test_no_place_for_the_cache_costs_only_the_build(builds: list[str], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    for _ in range(2):
        assert load("samples", directory=blocked / "below").call("sample_unary", 0, 0x180) == 0x80
    assert len(builds) == 2


def test_key_depends_on_sources_and_hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = source_key(RECIPE)
    assert source_key(Recipe(RECIPE.guest_modules, {"a": "b"})) != key
    module = tmp_path / "changing_module.py"
    monkeypatch.syspath_prepend(tmp_path)
    module.write_text("A = 1\n")
    first = source_key(Recipe((*RECIPE.guest_modules, "changing_module")))
    module.write_text("A = 2\n")
    assert source_key(Recipe((*RECIPE.guest_modules, "changing_module"))) != first


def test_unpack_gives_back_what_was_packed() -> None:
    assert unpack(pack(b"\n\0code", ["a", "b"])) == (b"\n\0code", ["a", "b"])
