"""Whether two builds of one artifact are the same bytes, and if not, what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcbuild.build.base import TAR
from fcbuild.look import difference
from fcbuild.look.archive import TarReader
from fcbuild.look.difference import Difference
from fcbuild.look.text import visible
from fcbuild.look.tree import Tree
from fcbuild.recipes import ROOTFS_FILE
from fcbuild.reproduce import superblock
from fcbuild.reproduce.cause import AROUND, Spot, cause
from fcbuild.store import Artifact

SHOWN = 20  # files, unless all are asked for
_PIECE = 1 << 20
_START = 16  # bytes that tell what kind of file it is

# Opens root filesystems to look into.
Opened = Callable[[Sequence[Artifact]], AbstractContextManager[Sequence[Tree]]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A file that differs, in a root filesystem or of an artifact's own. spot: where, None for one
    that only one of the builds has; cause: what probably made it, "" for no idea."""

    path: str
    spot: Spot | None = None
    cause: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Two builds of one artifact.

    files: how their root filesystems differ. superblock: fields with both values. findings: of the
    files that differ, and of the artifact's own files that are no file systems.
    """

    what: str
    first: Artifact
    second: Artifact
    files: Difference = field(default_factory=Difference)
    superblock: Sequence[tuple[str, str, str]] = ()
    findings: Sequence[Finding] = ()

    @property
    def identical(self) -> bool:
        return self.first.digests == self.second.digests


def judge(what: str, first: Artifact, second: Artifact, opened: Opened) -> Verdict:
    """Compare two builds of one artifact. Raises ImageError for what cannot be looked into."""
    if first.digests == second.digests:
        return Verdict(what=what, first=first, second=second)
    names = sorted(first.digests.keys() | second.digests.keys())
    moved = [name for name in names if first.digests.get(name) != second.digests.get(name)]
    files, findings, fields = Difference(), list[Finding](), list[tuple[str, str, str]]()
    for name in moved:
        if name not in first.digests or name not in second.digests:
            findings.append(Finding(path=name, cause="only one of the builds has it"))
            continue
        pair = first.file(name), second.file(name)
        if name == ROOTFS_FILE:
            fields += superblock.differing(*map(_superblock, pair))
            with opened([first, second]) as trees:
                files, inner = _look(*trees)
        elif name == TAR:
            files, inner = _look(*(Tree(TarReader(path)) for path in pair))
        else:
            inner = []
        findings += inner
        # Where the files in it tell nothing, the artifact's own bytes have to.
        if not files:
            spot = first_difference(*map(_pieces, pair))
            findings.append(Finding(path=name, spot=spot, cause=cause(name, spot)))
    return Verdict(
        what=what,
        first=first,
        second=second,
        files=files,
        superblock=fields,
        findings=findings,
    )


def _look(a: Tree, b: Tree) -> tuple[Difference, list[Finding]]:
    found = difference.compare(difference.contents(a), difference.contents(b))
    findings = []
    for change in found.changed:
        if "content" in change.aspects:
            path = change.new.path
            old, new = (tree.reader.read(tree.entries[path]) for tree in (a, b))
            spot = first_difference(old, new)
            findings.append(Finding(path=path, spot=spot, cause=cause(path, spot)))
    for entry in (*found.added, *found.removed):
        if said := cause(entry.path, None):
            findings.append(Finding(path=entry.path, cause=said))
    return found, findings


def first_difference(a: Iterator[bytes], b: Iterator[bytes]) -> Spot | None:
    """Return where two contents begin to differ, or None. They may come in pieces of any size."""
    offset, start, before = 0, b"", b""
    left_a = left_b = b""
    while True:
        left_a = left_a or next(a, b"")
        left_b = left_b or next(b, b"")
        size = min(len(left_a), len(left_b)) or max(len(left_a), len(left_b))
        if not size:
            return None
        one, other = left_a[:size], left_b[:size]
        if len(start) < _START:
            start += one[: _START - len(start)]
        if one != other:
            # zip ends with the shorter: that one may end here.
            pairs = enumerate(zip(one, other, strict=False))
            at = next((n for n, (x, y) in pairs if x != y), min(len(one), len(other)))
            before = (before + one[:at])[-AROUND:]
            return Spot(
                offset=offset + at,
                a=before + left_a[at : at + AROUND],
                b=before + left_b[at : at + AROUND],
                start=start,
            )
        before = (before + one)[-AROUND:]
        offset += size
        left_a, left_b = left_a[size:], left_b[size:]


def lines(verdict: Verdict, *, everything: bool) -> Iterator[str]:
    """Yield a verdict for people: one line when all is well."""
    for name, digest in verdict.first.digests.items():
        again = verdict.second.digests.get(name)
        same = digest == again
        word = "identical" if same else "differs"
        yield (
            f"{word:<9}  {verdict.what:<22} {name:<11} "
            + f"sha256:{digest}"
            + ("" if same else f" -> sha256:{again}")
        )
    if verdict.identical:
        return
    found = verdict.files
    if found:
        for line in difference.lines(found, everything=everything):
            yield f"  {line}"
        if not everything:  # these are named too
            yield from (f"    ~ {visible(entry.path)}" for entry in found.touched[:SHOWN])
    for finding in verdict.findings if everything else verdict.findings[:SHOWN]:
        yield f"  {_told(finding)}"
    for name, old, new in verdict.superblock:
        yield f"  superblock: {name} {old} -> {new}"


def _told(finding: Finding) -> str:
    words = visible(finding.path)
    if spot := finding.spot:
        words += f": from byte {spot.offset} on: {_quoted(spot.a)} -> {_quoted(spot.b)}"
    return words + (f": {finding.cause}" if finding.cause else "")


def _quoted(data: bytes) -> str:
    return '"' + visible(data.decode("utf-8", "surrogateescape")) + '"'


def document(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict for machines. Bytes are in hexadecimal."""
    return {
        "artifact": verdict.what,
        "fingerprint": verdict.first.fingerprint,
        "identical": verdict.identical,
        "digests": {
            name: {
                "first": f"sha256:{digest}",
                "second": f"sha256:{verdict.second.digests.get(name)}",
            }
            for name, digest in verdict.first.digests.items()
        },
        "files": difference.document(verdict.files),
        "superblock": [
            {"field": name, "first": old, "second": new} for name, old, new in verdict.superblock
        ],
        "findings": [_described(finding) for finding in verdict.findings],
    }


def _described(finding: Finding) -> Mapping[str, Any]:
    described: dict[str, Any] = {"path": finding.path, "cause": finding.cause or None}
    if spot := finding.spot:
        described |= {"offset": spot.offset, "first": spot.a.hex(), "second": spot.b.hex()}
    return described


def _superblock(image: Path) -> bytes:
    with image.open("rb") as file:
        file.seek(superblock.START)
        return file.read(superblock.SIZE)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(_PIECE), b"")
