"""Debian packages through the distribution's own apt, without root and without touching the system's state.

apt is asked with the system's package lists first. Where those are missing, stale or of another architecture, it is
asked again with lists of our own, updated into the cache directory. Downloaded packages stay in the cache; a manifest
remembers which files answered a request, so a later run needs no archive.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURE = "amd64"

# Packages that a dependency names but no program in an initramfs runs with.
_NOT_NEEDED = frozenset(
    {"dpkg", "debconf", "cdebconf", "gcc-12-base", "gcc-14-base", "media-types", "openssl-provider-legacy"}
)

_DEPENDS_ONLY = ("--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances")


class ArchiveError(Exception):
    """No Debian archive could serve the request; the message is meant for the user."""


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/tessera/guest`` (XDG Base Directory Specification), made when missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base) / "tessera" / "guest"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@dataclass(frozen=True, slots=True)
class Apt:
    """One way to ask apt: with the system's lists, or with ``lists`` of our own."""

    lists: Path | None = None

    def _options(self) -> list[str]:
        if self.lists is None:
            return []
        return [
            "-o",
            f"APT::Architecture={ARCHITECTURE}",
            "-o",
            f"APT::Architectures={ARCHITECTURE}",
            "-o",
            f"Dir::State::Lists={self.lists}",
            "-o",
            f"Dir::Cache={self.lists.parent / 'apt-cache'}",
            "-o",
            "Debug::NoLocking=1",
        ]

    def run(self, tool: str, *arguments: str, cwd: Path | None = None) -> str:
        """Run ``apt-get`` or ``apt-cache`` and return its output; raises ArchiveError with what it complained about."""
        environment = os.environ | {"LC_ALL": "C"}
        command = [tool, *self._options(), *arguments]
        try:
            done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise ArchiveError(f"{tool} is not installed: this is no Debian system") from None
        if done.returncode != 0:
            complaint = [line for line in done.stderr.splitlines() if line.startswith("E:")]
            raise ArchiveError(f"{tool} {arguments[0]}: {complaint[0] if complaint else done.stderr.strip()}")
        return done.stdout

    def update(self) -> None:
        """Fetch package lists. A source that fails is apt's warning, not our end: the request itself will tell."""
        if self.lists is not None:
            (self.lists / "partial").mkdir(parents=True, exist_ok=True)
            (self.lists.parent / "apt-cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        self.run("apt-get", "update")

    def depends(self, names: Sequence[str], recurse: bool = False) -> dict[str, list[str]]:
        """Package name to the names it depends on, as apt prints them (first alternatives only)."""
        extra = ["--recurse"] if recurse else []
        return parse_depends(self.run("apt-cache", "depends", *_DEPENDS_ONLY, *extra, *names))


def parse_depends(text: str) -> dict[str, list[str]]:
    """Parse ``apt-cache depends``: an unindented package, then indented ``Depends: name`` lines.

    ``|Depends`` marks an alternative that is not the last; ``<name>`` is a virtual package: both are left out, as is
    the architecture after a colon.
    """
    graph: dict[str, list[str]] = {}
    current: list[str] = []
    alternatives = False
    for line in text.splitlines():
        if line and not line[0].isspace():
            current = graph.setdefault(line.split(":")[0], [])
            alternatives = False
        elif match := re.match(r"\s+(\|?)(?:Pre)?Depends: (\S+)", line):
            first_of_group = not alternatives
            alternatives = bool(match[1])
            if first_of_group and not match[2].startswith("<"):
                current.append(match[2].split(":")[0])
    return graph


def closure(graph: dict[str, list[str]], names: Iterable[str]) -> list[str]:
    """All packages that ``names`` need to run, themselves included, sorted."""
    wanted: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in wanted and name not in _NOT_NEEDED:
            wanted.add(name)
            pending += graph.get(name, [])
    return sorted(wanted)


_Resolver = Callable[[Apt, str], list[str]]


class Archive:
    """Packages by name, from the cache or from the archive."""

    def __init__(self, cache: Path) -> None:
        self._packages = cache / "packages"
        self._packages.mkdir(parents=True, exist_ok=True)
        self._manifest_path = cache / "manifest.json"
        self._ways = [Apt(), Apt(cache / "lists")]
        self._updated = False

    def kernel(self, metapackage: str) -> Path:
        """The package file of the kernel image that ``metapackage`` depends on at present."""
        return self._request(metapackage, self._resolve_kernel)[0]

    def with_libraries(self, names: Sequence[str]) -> list[Path]:
        """The package files of ``names`` and of everything they need to run."""

        def resolve(apt: Apt, key: str) -> list[str]:
            wanted = key.split()
            return closure(apt.depends(wanted, recurse=True), wanted)

        return self._request(" ".join(names), resolve)

    def single(self, name: str) -> Path:
        """The package file of ``name`` alone."""
        return self._request(f"{name} alone", lambda _apt, _key: [name])[0]

    @staticmethod
    def _resolve_kernel(apt: Apt, metapackage: str) -> list[str]:
        needs = apt.depends([metapackage]).get(metapackage, [])
        images = [name for name in needs if name.startswith("linux-image-")]
        if not images:
            raise ArchiveError(f"{metapackage} names no kernel image")
        return images[:1]

    def _request(self, key: str, resolve: _Resolver) -> list[Path]:
        manifest = self._read_manifest()
        known = [self._packages / name for name in manifest.get(key, [])]
        if known and all(path.is_file() for path in known):
            return known
        problem = ArchiveError("no way to ask")
        for apt in self._ways:
            try:
                if apt.lists is not None and not self._updated:
                    apt.update()
                    self._updated = True
                files = [self._download(apt, name) for name in resolve(apt, key)]
            except ArchiveError as error:
                problem = error
                continue
            self._write_manifest(manifest | {key: [path.name for path in files]})
            return files
        raise problem

    def _download(self, apt: Apt, name: str) -> Path:
        uris = apt.run("apt-get", "download", "--print-uris", name).split()
        if len(uris) < 2:
            raise ArchiveError(f"{name}: apt names no file to download")
        path = self._packages / uris[1]
        if not path.is_file():
            # apt checks the archive's signed hash and renames a finished download into place.
            apt.run("apt-get", "download", "-q", name, cwd=self._packages)
        if not path.is_file():
            raise ArchiveError(f"{name}: {path.name} was not downloaded")
        return path

    def _read_manifest(self) -> dict[str, list[str]]:
        try:
            loaded = json.loads(self._manifest_path.read_text())
        except (OSError, ValueError):
            return {}
        return loaded if isinstance(loaded, dict) else {}

    def _write_manifest(self, manifest: dict[str, list[str]]) -> None:
        temporary = self._manifest_path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True))
        temporary.replace(self._manifest_path)


def unpack(package: Path, directory: Path) -> None:
    """Unpack a package's files into ``directory``."""
    done = subprocess.run(["dpkg-deb", "-x", str(package), str(directory)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ArchiveError(f"{package.name}: {done.stderr.strip()}")


def extract_member(package: Path, pattern: str, out: Path) -> str:
    """Write the first file of ``package`` whose path matches the regular expression to ``out``; return its path."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as members:
                for member in members:
                    source = members.extractfile(member) if re.search(pattern, member.name) else None
                    if source is not None:
                        temporary = out.with_name(f"{out.name}.{os.getpid()}")
                        with temporary.open("wb") as target:
                            shutil.copyfileobj(source, target)
                        temporary.replace(out)
                        return member.name
        except tarfile.TarError as error:
            raise ArchiveError(f"{package.name}: {error}") from None
        finally:
            process.kill()
    raise ArchiveError(f"{package.name}: no file matches {pattern}")
