"""Shows the micro series' times per unit below pytest-benchmark's table."""

from typing import Any


def readable(seconds: float) -> str:
    return f"{seconds * 1e9:9.1f} ns" if seconds < 1e-5 else f"{seconds * 1e6:9.1f} µs"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    rows = [row for row in getattr(session, "benchmarks", []) if "units" in row.extra_info]
    if not rows:
        return
    terminalreporter.section("per unit: least, median")
    for row in rows:
        least, median = (readable(value / row.extra_info["units"]) for value in (row.stats.min, row.stats.median))
        terminalreporter.write_line(f"{row.name.removeprefix('test_'):<20}{least}{median}  {row.extra_info['unit']}")
