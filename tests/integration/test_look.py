"""Fidelity: what is in a built root filesystem, told by three that know nothing of each other.

One image holds most of a Debian and a planted tree (fidelity/plant.c). A real kernel's ext4 driver
(guestfs) and e2fsprogs (debugfs) read the root filesystem that is built from it. What the image has
is told by the kernel under the engine, through a program that runs in a container
(fidelity/list.c): the tar that the build reads would hide the same mistake twice. All three are
compared field by field.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fcbuild import spec
from fcbuild.build.engine import Docker
from fcbuild.look import guestfs, readers
from fcbuild.look.entry import Entry, Space
from fcbuild.plan import Plan
from tests import workspace
from tests.workspace import Workspace

pytestmark = pytest.mark.engine

SOURCES = Path(__file__).parent / "fidelity"

DOCKERFILE = """
FROM fcbuild/debian-base
RUN rm -r /usr/share
COPY plant /plant
RUN ["/plant", "/planted"]
CMD ["true"]
"""

ALTERED = r"""
FROM fcbuild/fidelity
ENV GREETING="hello"
RUN cd /planted && echo more >> late && chmod 600 owned && chown 5:6 empty && rm soft \
 && ln -sf elsewhere dangling && touch -d @1000000001 old \
 && mkdir /added && touch "/added/$(printf 'not-utf8-\377')" /added/b \
 && sed -i '/^Package: base-files$/,/^$/s/^Version: .*/Version: 99/' /var/lib/dpkg/status
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
    # What is stored needs no image of the engine, but what the engine sees of it is asked here.
    result = checkout.doit("_toolchain", "_image:fidelity", "rootfs:fidelity")
    assert result.status == 0, result.output
    return checkout


@pytest.fixture(scope="module")
def altered(built: Workspace) -> Workspace:
    """The same checkout with `altered`, which stands upon `fidelity`."""
    built.image("altered", "", ALTERED)
    result = built.doit("rootfs:altered")
    assert result.status == 0, result.output
    return built


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
    # No file of a root filesystem is newer than what its image stands on.
    cut = epoch(built)
    settled = [replace(entry, mtime=min(entry.mtime, cut)) for entry in entries]
    return Seen(
        {entry.path: entry for entry in settled}, {path: digest for digest, path in digests}
    )


def epoch(checkout: Workspace) -> int:
    return Plan(spec.load(checkout.root)).epoch("fidelity")


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


def test_the_planted_tree_is_there_with_all_that_was_planted(
    by_debugfs: Seen, built: Workspace
) -> None:
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
    assert planted[f"{PLANTED}/late"].mtime == epoch(built)
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
    assert len(by_engine.digests) > 2500


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


def asked(checkout: Workspace, *args: str) -> str:
    """Return what a command prints on its standard output."""
    done = subprocess.run(
        checkout.argv(*args, "reader=debugfs"),
        cwd=checkout.root,
        env=checkout.env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_a_difference_is_all_that_was_altered_and_nothing_else(altered: Workspace) -> None:
    a = rootfs(altered).parent.name[:16]  # a fingerprint stands for what was built under it
    found = json.loads(asked(altered, "diff", f"a={a}", "b=altered", "--json"))
    added = {item["path"] for item in found["added"]}
    assert added == {"/added", "/added/b", "/added/not-utf8-\udcff"}
    assert [item["path"] for item in found["removed"]] == ["/planted/soft"]
    changed = {item["path"]: item["aspects"] for item in found["changed"]}
    assert changed == {
        "/.fcbuild/boot": ["content"],
        "/planted/late": ["content"],
        "/planted/owned": ["mode"],
        "/planted/empty": ["owner"],
        "/planted/dangling": ["target"],
        "/var/lib/dpkg/status": ["content"],
    }
    assert "/planted/old" in found["touched"]
    (package,) = found["packages"]
    assert (package["name"], package["b"]) == ("base-files", "99")
    boot = {item["key"]: set(item["b"]) - set(item["a"]) for item in found["boot"]}
    assert boot.pop("env") == {"GREETING=hello", "HOSTNAME=altered"}
    assert boot == {"hostname": {"altered"}}


def test_the_same_is_no_difference(built: Workspace) -> None:
    said = asked(built, "diff", f"a={rootfs(built).parent.name}", "b=fidelity")
    assert said.splitlines()[-1] == "no difference"


def test_a_file_comes_out_of_the_image_as_it_is(built: Workspace) -> None:
    assert asked(built, "inspect", "image=fidelity", "path=/planted/names/<12>") == "<12>"


def test_whoever_reads_may_leave_early(built: Workspace) -> None:
    command = shlex.join(
        built.argv("inspect", "image=fidelity", "path=/planted/sparse", "reader=debugfs")
    )
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -c 1; exit ${{PIPESTATUS[0]}}"],
        cwd=built.root,
        env=built.env(),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\0", b"")


def test_no_name_in_an_image_does_anything_to_a_terminal(built: Workspace) -> None:
    ours, terminal = pty.openpty()
    names = ["inspect", "image=fidelity", "path=/planted/names", "reader=debugfs"]
    with subprocess.Popen(
        built.argv(*names), cwd=built.root, env=built.env(), stdout=terminal
    ) as doit:
        os.close(terminal)
        shown = b""
        # A terminal that nobody writes to any more is an error to its reader.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 4096):
                shown += piece
        os.close(ours)
        assert doit.wait(timeout=300) == 0
    lines = shown.decode().split("\r\n")
    assert any(line.endswith(r" \x1b[31mred") for line in lines)
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 25 + 1  # the last is empty


def test_a_path_that_is_not_there_is_answered_in_words(built: Workspace) -> None:
    result = built.doit("inspect", "image=fidelity", "path=/planted/plian", "reader=debugfs")
    assert result.status == 1
    assert "/planted has no 'plian' (did you mean plain?)" in result.output
    assert "Traceback" not in result.output
