"""Golden text files of the optimizer: cases of IR in and IR out.

    === what the case shows
    <IR>
    ->
    <IR that optimize() gives>

`pytest --bless` rewrites the second halves. Text above the first case is kept as it is.
"""

from dataclasses import dataclass
from pathlib import Path

MARK, ARROW = "=== ", "->"


@dataclass(frozen=True, slots=True)
class GoldenCase:
    title: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class GoldenFile:
    head: str
    cases: tuple[GoldenCase, ...]


def read(path: Path) -> GoldenFile:
    head, *parts = ("\n" + path.read_text()).split("\n" + MARK)
    cases = []
    for part in parts:
        title, _, body = part.partition("\n")
        before, arrow, after = body.partition(f"\n{ARROW}\n")
        if not arrow:
            before = body.removesuffix(f"\n{ARROW}")
        cases.append(GoldenCase(title, before.strip(), after.strip()))
    return GoldenFile(head.strip(), tuple(cases))


def write(path: Path, file: GoldenFile) -> None:
    parts = ["\n".join((MARK + c.title, c.before.strip(), ARROW, c.after.strip())).rstrip() + "\n" for c in file.cases]
    path.write_text("\n".join(([file.head + "\n"] if file.head else []) + parts))
