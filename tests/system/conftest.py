"""Fixtures for tests that boot a guest: each runs under QEMU (the harness's self-check) and under ours."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .harness import GUEST_FILES, QEMU, TESSERA, Emulator, Guest, linux

os.environ["TESSERA_PROGRESS"] = "0"  # what is compared is what the guest prints


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; `make soak` selects by it."""
    config.addinivalue_line("markers", "soak: minutes long; runs only with -m soak")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave soak tests out unless they were asked for."""
    if "soak" not in (config.option.markexpr or ""):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="long: make soak runs it"))


@pytest.fixture(scope="session", params=[QEMU, TESSERA], ids=lambda emulator: emulator.name)
def emulator(request: pytest.FixtureRequest) -> Emulator:
    """The emulator under test."""
    chosen: Emulator = request.param
    if reason := chosen.missing():
        pytest.skip(reason)
    return chosen


@pytest.fixture(scope="session")
def guest_files() -> None:
    """Debian's kernel and the images are there."""
    if not (GUEST_FILES / "initrd-programs.gz").is_file():
        pytest.skip("no guest files (make guest fetches them from a Debian archive)")


@pytest.fixture(scope="session")
def shell(emulator: Emulator, guest_files: None) -> Iterator[Guest]:
    """A guest at its shell prompt, shared by tests that leave it as it was."""
    with Guest(emulator, *linux()) as guest:
        guest.wait_for_shell()
        yield guest
