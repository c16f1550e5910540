"""Fidelity: what is in a built root filesystem, told by three that know nothing of each other.

One image holds a whole Debian and a planted tree (fidelity/plant.c). A real kernel's ext4 driver
(guestfs) and e2fsprogs (debugfs) read the root filesystem that is built from it. What the image has
is told by the kernel under the engine, through a program that runs in a container
(fidelity/list.c): the tar that the build reads would hide the same mistake twice. All three are
compared field by field.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fcbuild.build.engine import Docker
from fcbuild.look import guestfs, readers
from fcbuild.look.entry import Entry, Space
from tests import workspace
from tests.workspace import Workspace

pytestmark = pytest.mark.engine

SOURCES = Path(__file__).parent / "fidelity"

DOCKERFILE = """
FROM fcbuild/debian-base
COPY plant /plant
RUN ["/plant", "/planted"]
CMD ["true"]
"""

# A container has its own of these, mounted or made by the engine, and our lister.
OF_THE_CONTAINER = (
    *("/proc", "/sys", "/dev", "/.dockerenv", "/list"),
    *("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/mtab"),
)
# And a root filesystem has these besides what is in the image.
OF_THE_ROOTFS = ("/.fcbuild", "/lost+found")

PLANTED = "/planted"


@dataclass(frozen=True)
class Seen:
    """What one reader saw: entries and sha256 by path."""

    entries: Mapping[str, Entry]
    digests: Mapping[str, str]
    space: Space | None = None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A checkout with the image `fidelity`, and its root filesystem."""
    checkout = workspace.make(tmp_path_factory.mktemp("checkout"))
    checkout.image("fidelity", "", DOCKERFILE)
    compiled("plant", checkout.root / "images" / "fidelity" / "plant")
    result = checkout.doit("rootfs:fidelity")
    assert result.status == 0, result.output
    return checkout


def compiled(name: str, to: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    flags = ["-Wall", "-Wextra", "-Werror", "-O1", "-static"]
    subprocess.run([compiler, *flags, str(SOURCES / f"{name}.c"), "-o", str(to)], check=True)


def rootfs(checkout: Workspace) -> Path:
    return (checkout.root / "artifacts" / "images" / "fidelity.ext4").resolve()


def tagged(name: str) -> str:
    tags = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", f"fcbuild/{name}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return tags.stdout.split()[0]  # the newest


def seen_by(reader: str, checkout: Workspace) -> Seen:
    with readers.opened(
        [rootfs(checkout)],
        wanted=reader,
        engine=Docker(),
        toolchain=lambda: tagged("toolchain"),
        logs=checkout.root / "artifacts",
    ) as (tree,):
        return Seen(tree.entries, tree.reader.digests(), tree.reader.space())


@pytest.fixture(scope="module")
def by_debugfs(built: Workspace) -> Seen:
    return seen_by("debugfs", built)


@pytest.fixture(scope="module")
def by_guestfs(built: Workspace) -> Seen:
    if trouble := guestfs.trouble():
        pytest.skip(trouble)
    return seen_by("guestfs", built)


@pytest.fixture(scope="module")
def by_engine(built: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    lister = tmp_path_factory.mktemp("list") / "list"
    compiled("list", lister)

    def run(*argv: str) -> bytes:
        options = ["--rm", "--network=none", "--volume", f"{lister}:/list:ro"]
        done = subprocess.run(
            ["docker", "run", *options, tagged("fidelity"), *argv], check=True, capture_output=True
        )
        return done.stdout

    entries = [
        engines_entry(json.loads(line))
        for line in run("/list", *OF_THE_CONTAINER).split(b"\n")
        if line
    ]
    pruned = [word for path in OF_THE_CONTAINER for word in ("-path", path, "-prune", "-o")]
    sums = run("find", "/", *pruned, "-type", "f", "-exec", "sha256sum", "-z", "{}", "+")
    digests = (line.decode().split("  ", 1) for line in sums.split(b"\0")[:-1])
    return Seen(
        {entry.path: entry for entry in entries}, {path: digest for digest, path in digests}
    )


def engines_entry(found: dict[str, Any]) -> Entry:
    def text(value: str) -> str:
        return bytes.fromhex(value).decode("utf-8", "surrogateescape")

    xattrs = {text(name): bytes.fromhex(value) for name, value in found.pop("xattrs").items()}
    path, target = text(found.pop("path")), text(found.pop("target", ""))
    device = found.pop("device", None)
    return Entry(
        **found, path=path, target=target, xattrs=xattrs, device=tuple(device) if device else None
    )


def below(tops: tuple[str, ...], path: str) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in tops)


def test_the_planted_tree_is_there_with_all_that_was_planted(by_debugfs: Seen) -> None:
    # What the others are compared with must not be empty-handed.
    planted = {path: e for path, e in by_debugfs.entries.items() if below((PLANTED,), path)}
    assert len(planted) > 2100
    kinds = {entry.kind for entry in planted.values()}
    assert kinds == {"file", "directory", "link", "char", "block", "fifo"}
    found = planted[f"{PLANTED}/setuid"]
    assert (found.permissions, found.uid, found.gid) == (0o4755, 1234, 0)
    assert (planted[f"{PLANTED}/far-owner"].uid, planted[f"{PLANTED}/far-owner"].gid) == (
        70000,
        4000000000,
    )
    assert planted[f"{PLANTED}/far-device"].device == (300, 70000)
    assert planted[f"{PLANTED}/after-2038"].mtime == 2208988800
    assert planted[f"{PLANTED}/odd-target"].target == 'odd\n"target"\nü\\'
    assert {planted[f"{PLANTED}/{name}"].inode for name in ("plain", "hard", "shared/hard")} == {
        planted[f"{PLANTED}/plain"].inode
    }
    assert planted[f"{PLANTED}/names/new\nline"].size == len("new\nline")
    assert "security.capability" in planted[f"{PLANTED}/capable"].xattrs


def test_the_kernels_driver_and_debugfs_read_the_same(by_debugfs: Seen, by_guestfs: Seen) -> None:
    assert by_guestfs.space == by_debugfs.space
    assert by_guestfs.entries == by_debugfs.entries
    assert list(by_guestfs.entries) == list(by_debugfs.entries)
    assert by_guestfs.digests == by_debugfs.digests


@pytest.fixture(params=["guestfs", "debugfs"])
def rootfs_seen(request: pytest.FixtureRequest) -> Seen:
    seen: Seen = request.getfixturevalue(f"by_{request.param}")
    return seen


def test_nothing_is_lost_and_nothing_added(rootfs_seen: Seen, by_engine: Seen) -> None:
    ours = {p for p in rootfs_seen.entries if not below((*OF_THE_CONTAINER, *OF_THE_ROOTFS), p)}
    assert ours == by_engine.entries.keys()
    assert "/.fcbuild/boot" in rootfs_seen.entries


FIELDS = ("mode", "uid", "gid", "mtime", "target", "device")


def project(seen: Seen, field: str, paths: Iterator[str]) -> dict[str, Any]:
    return {path: getattr(seen.entries[path], field) for path in paths}


@pytest.mark.parametrize("field", FIELDS)
def test_every_entry_has_the_engines(field: str, rootfs_seen: Seen, by_engine: Seen) -> None:
    # The root directory's time is the container's: the engine puts .dockerenv into it.
    paths = [p for p in by_engine.entries if not (field == "mtime" and p in ("/", "/etc"))]
    assert project(rootfs_seen, field, iter(paths)) == project(by_engine, field, iter(paths))


def test_every_file_has_the_engines_size_links_and_content(
    rootfs_seen: Seen, by_engine: Seen
) -> None:
    # A directory's size and links are the file system's own affair.
    files = [path for path, entry in by_engine.entries.items() if entry.kind != "directory"]
    for field in ("size", "links"):
        assert project(rootfs_seen, field, iter(files)) == project(by_engine, field, iter(files))
    assert {path: rootfs_seen.digests.get(path) for path in by_engine.digests} == by_engine.digests
    assert len(by_engine.digests) > 5000


def test_the_same_names_are_links_to_one_file(rootfs_seen: Seen, by_engine: Seen) -> None:
    def groups(seen: Seen) -> set[frozenset[str]]:
        found: dict[int, set[str]] = {}
        for path, entry in seen.entries.items():
            if entry.links > 1 and entry.kind != "directory":
                found.setdefault(entry.inode, set()).add(path)
        return {frozenset(paths) for paths in found.values()}

    assert groups(rootfs_seen) == groups(by_engine)
    assert {f"{PLANTED}/{name}" for name in ("plain", "hard", "shared/hard")} in groups(by_engine)


def test_every_entry_has_the_engines_extended_attributes(
    rootfs_seen: Seen, by_engine: Seen
) -> None:
    expected = {path: entry.xattrs for path, entry in by_engine.entries.items() if entry.xattrs}
    assert len(expected) == 5  # security, user, and both kinds of access control lists
    assert {path: dict(rootfs_seen.entries[path].xattrs) for path in expected} == expected
    extra = {p for p, entry in rootfs_seen.entries.items() if entry.xattrs} - expected.keys()
    assert not extra
