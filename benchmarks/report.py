"""Results as values, one table and one JSON file."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Row:
    """One benchmark: the seconds of each run, by machine label, and whether every checksum was the host's."""

    group: str
    name: str
    unit: str = "s"
    runs: dict[str, list[float]] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)  # machines whose result differed from the host's
    failed: set[str] = field(default_factory=set)  # machines that gave no result

    def add(self, label: str, value: float) -> None:
        """Note one run."""
        self.runs.setdefault(label, []).append(value)

    def median(self, label: str) -> float | None:
        """The median of a machine's runs, None without any or with a wrong result."""
        values = self.runs.get(label)
        return statistics.median(values) if values and label not in self.wrong else None

    def speed(self, label: str, base: str) -> float | None:
        """How many times as fast (or as small) as ``base``: its value over ours."""
        mine, other = self.median(label), self.median(base)
        return other / mine if mine and other else None


def geomean(values: Iterable[float | None]) -> float | None:
    """Geometric mean of the values that are there."""
    there = [value for value in values if value is not None and value > 0]
    return math.exp(statistics.fmean(map(math.log, there))) if there else None


def _value(row: Row, label: str) -> str:
    if label in row.wrong:
        return "WRONG"
    value = row.median(label)
    if value is None:
        return "failed" if label in row.failed else "-"
    return f"{value / (1 << 20):.0f} MiB" if row.unit == "bytes" else f"{value:.4f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1 else f"{value:.2f}"


def table(rows: Sequence[Row], labels: Sequence[str]) -> str:
    """The results as text: times, then speeds relative to the host and of ours relative to the peer."""
    columns = ["native", *labels]
    comparisons = [(label, "native") for label in labels]
    if "qemu" in labels and "tessera" in labels:
        comparisons.append(("tessera", "qemu"))
    titles = ["", "", *columns, *(f"{label}/{base}" for label, base in comparisons)]
    lines = [titles]
    for group in dict.fromkeys(row.group for row in rows):
        mine = [row for row in rows if row.group == group]
        for row in mine:
            values = [_value(row, label) for label in columns]
            ratios = [_ratio(row.speed(label, base)) for label, base in comparisons]
            lines.append([group, row.name, *values, *ratios])
        if len(mine) > 1 and all(row.unit == "s" for row in mine):
            means = [_ratio(geomean(row.speed(label, base) for row in mine)) for label, base in comparisons]
            worst = [_ratio(min((s for row in mine if (s := row.speed(*pair))), default=None)) for pair in comparisons]
            blank = [""] * len(columns)
            lines.append([group, "= geometric mean", *blank, *means])
            lines.append([group, "= least", *blank, *worst])
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def save(path: Path, rows: Sequence[Row], about: dict[str, str]) -> None:
    """Write all runs, renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "about": about,
        "rows": [
            {
                "group": row.group,
                "name": row.name,
                "unit": row.unit,
                "runs": row.runs,
                "wrong": sorted(row.wrong),
                "failed": sorted(row.failed),
            }
            for row in rows
        ],
    }
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(path)
