"""Options of the fuzzer: `pytest tests/fuzz/x86 --states 1000 --fuzz-seed 7`."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fuzz")
    group.addoption("--states", type=int, default=10, help="random states for each form (many: campaign.py)")
    group.addoption("--fuzz-seed", type=int, default=1, help="seed of the random states")


@pytest.fixture
def states(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--states", 10))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--fuzz-seed", 1))
