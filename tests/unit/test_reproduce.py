"""Comparing two builds of one artifact, telling what differs, and the place of the second build."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fcbuild import spec
from fcbuild.build.files import Files
from fcbuild.errors import BuildError, ImageError
from fcbuild.ext4.layout import Identity
from fcbuild.fingerprint import digest
from fcbuild.look import difference
from fcbuild.look.archive import TarReader
from fcbuild.look.tree import Tree
from fcbuild.plan import Plan
from fcbuild.reproduce import second, stranger, superblock, verdict
from fcbuild.reproduce.cause import AROUND, Spot, cause
from fcbuild.reproduce.verdict import Verdict, first_difference, judge
from fcbuild.store import Artifact, Store
from tests.entries import directory, file, tree

ROOT = Path(__file__).resolve().parents[2]


def artifact(where: Path, kind: str = "kernel", **files: bytes) -> Artifact:
    """An artifact of these files; `__` in their names stands for a dot."""
    where.mkdir()
    for name, data in files.items():
        (where / name.replace("__", ".")).write_bytes(data)
    digests = {path.name: digest(path) for path in sorted(where.iterdir())}
    return Artifact(kind, "some", "f" * 64, where, digests, {})


@contextlib.contextmanager
def unopened(artifacts: Sequence[Artifact]) -> Iterator[Sequence[Tree]]:
    raise AssertionError("there is nothing to look into")
    yield []


def told(found: Verdict, *, everything: bool = False) -> list[str]:
    return list(verdict.lines(found, everything=everything))


def test_the_same_bytes_are_one_line(tmp_path: Path) -> None:
    first, again = (artifact(tmp_path / name, vmlinux=b"ELF", config=b"y") for name in "ab")
    found = judge("kernel:6.12", first, again, unopened)
    assert found.identical
    lines = told(found)
    assert [line.split()[:3] for line in lines] == [
        ["identical", "kernel:6.12", "config"],
        ["identical", "kernel:6.12", "vmlinux"],
    ]
    assert lines[1].endswith(f"sha256:{first.digests['vmlinux']}")
    assert verdict.document(found)["identical"] is True


def test_a_file_of_an_artifact_that_differs_is_told_with_its_place(tmp_path: Path) -> None:
    text = b"built in some place on 2026-11-24"
    first = artifact(tmp_path / "a", vmlinux=text + b"\x00", config=b"y")
    again = artifact(tmp_path / "b", vmlinux=text.replace(b"11-24", b"12-31"), config=b"y")
    found = judge("kernel:6.12", first, again, unopened)
    assert not found.identical
    same, differs, where = told(found)
    assert same.startswith("identical") and differs.startswith("differs    kernel:6.12")
    assert f"sha256:{first.digests['vmlinux']} -> sha256:{again.digests['vmlinux']}" in differs
    assert where == (
        '  vmlinux: from byte 29 on: "in some place on 2026-11-24\\x00" -> '
        '"in some place on 2026-12-31": a time: use SOURCE_DATE_EPOCH (an ARG) in its place'
    ).replace('"in', f'"{text[29 - AROUND : 6].decode()}in')
    (finding,) = verdict.document(found)["findings"]
    assert (finding["path"], finding["offset"]) == ("vmlinux", 29)
    assert bytes.fromhex(finding["first"]) == text[29 - AROUND :] + b"\x00"
    json.dumps(verdict.document(found))


def test_a_file_that_one_build_lacks_is_told(tmp_path: Path) -> None:
    first = artifact(tmp_path / "a", init=b"x")
    again = artifact(tmp_path / "b", init=b"x", more=b"x")
    found = judge("init:guest", first, again, unopened)
    assert not found.identical
    assert told(found)[-1] == "  more: only one of the builds has it"


CUTS = [(1,), (2, 3), (5,), (7, 1), (64,)]


def pieces(data: bytes, sizes: tuple[int, ...]) -> Iterator[bytes]:
    at, turn = 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        yield data[at : at + size]
        at, turn = at + size, turn + 1


@pytest.mark.parametrize("ours", CUTS)
@pytest.mark.parametrize("theirs", CUTS)
def test_the_first_difference_is_found_whatever_the_pieces(
    ours: tuple[int, ...], theirs: tuple[int, ...]
) -> None:
    text = bytes(range(100))
    for at in (0, 1, 6, 7, 50, 99):
        other = text[:at] + b"\xff" + text[at + 1 :]
        spot = first_difference(pieces(text, ours), pieces(other, theirs))
        assert spot is not None
        assert spot.offset == at
        before = text[max(0, at - AROUND) : at]
        assert spot.a.startswith(before + text[at : at + 1])
        assert spot.b.startswith(before + b"\xff")
    assert first_difference(pieces(text, ours), pieces(text, theirs)) is None
    for shorter in (0, 1, 64, 99):
        for pair in ((text, text[:shorter]), (text[:shorter], text)):
            spot = first_difference(pieces(pair[0], ours), pieces(pair[1], theirs))
            assert spot is not None and spot.offset == shorter


NOW, LATER = b"Tue Nov 24 17:03:21 UTC 2026", b"Tue Nov 24 17:09:50 UTC 2026"


def spot(a: bytes, b: bytes, start: bytes = b"") -> Spot:
    offset = next(n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return Spot(offset=offset, a=a, b=b, start=start or a[:16])


@pytest.mark.parametrize(
    ("path", "where", "said"),
    [
        ("/built", spot(NOW, LATER), "a time: use SOURCE_DATE_EPOCH"),
        ("/built", spot(b"1795539802\n", b"1795539873\n"), "a time"),
        ("/x", spot(b'{"at": 1795539802123}', b'{"at": 1795539873123}'), "a time"),
        ("/x", spot(b"\x8f\x01\x99", b"\x01\x01\x99"), ""),
        ("/x", spot(b"version 1", b"version 2"), ""),
        ("/x.gz", spot(b"\x1f\x8b\x08\x00aaaa", b"\x1f\x8b\x08\x00bbbb"), "gzip -n"),
        ("/x.gz", spot(b"\x1f\x8b\x08\x00aaaaxx", b"\x1f\x8b\x08\x00aaaaxy"), ""),
        ("/x.jar", spot(b"PK\x03\x04aa", b"PK\x03\x04ab"), "zip"),
        ("/bin/x", spot(b"\x7fELFa", b"\x7fELFb"), "a program: a build id"),
        ("/a/b.pyc", spot(b"a", b"b"), "PYTHONHASHSEED"),
        ("/etc/machine-id", spot(b"a", b"b"), "a machine's id"),
        ("/var/lib/dbus/machine-id", None, "a machine's id"),
        ("/etc/ssh/ssh_host_ed25519_key", None, "a host's key"),
        ("/etc/ssh/ssh_host_rsa_key.pub", None, "a host's key"),
        ("/etc/ssh/sshd_config", None, ""),
        ("/etc/ssl/private/ssl-cert-snakeoil.key", None, "a key"),
        ("/etc/shadow", spot(b"$y$a", b"$y$b"), "a salt"),
        ("/var/lib/systemd/random-seed", None, "a secret"),
        ("/var/log/app/x", spot(NOW, LATER), "a log"),
        ("/srv/app.log", None, "a log"),
        ("/root/.cache/pip/x", None, "a cache"),
        ("/var/lib/dpkg/status", spot(b"1", b"2"), "moved between the two builds"),
    ],
)
def test_what_probably_made_a_difference(path: str, where: Spot | None, said: str) -> None:
    found = cause(path, where)
    assert said in found if said else found == ""


Made = Callable[[str, int, bytes], Artifact]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Make a root filesystem of one file."""

    def made(name: str, mtime: int, data: bytes) -> Artifact:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            info = tarfile.TarInfo("./file")
            info.size, info.mtime = len(data), mtime
            tar.addfile(info, io.BytesIO(data))
        where = tmp_path / name
        where.mkdir()
        identity = Identity(number=uuid.UUID(int=1), hashing=uuid.UUID(int=2))
        with Files(where / "rootfs.ext4", identity) as files:
            files.copy(io.BytesIO(out.getvalue()))
            files.finish(None, 0)
        digests = {"rootfs.ext4": digest(where / "rootfs.ext4")}
        return Artifact("rootfs", "web", "f" * 64, where, digests, {})

    return made


def test_of_root_filesystems_the_files_and_the_superblocks_fields_are_told(made: Made) -> None:
    old, new = 1_800_000_000, 1_800_000_007
    first, again = made("a", old, b"one"), made("b", new, b"two")

    @contextlib.contextmanager
    def opened(artifacts: Sequence[Artifact]) -> Iterator[Sequence[Tree]]:
        assert list(artifacts) == [first, again]
        yield [
            tree(file("/file", mtime=old, size=3), file("/touched", mtime=old), file="one"),
            tree(file("/file", mtime=new, size=3), file("/touched", mtime=new), file="two"),
        ]

    found = judge("rootfs:web", first, again, opened)
    lines = told(found)
    assert "    ~ /file: content" in lines and "    ~ /touched" in lines
    assert '  /file: from byte 0 on: "one" -> "two"' in lines
    for field in ("s_wtime", "s_mkfs_time", "s_lastcheck"):
        assert f"  superblock: {field} {old} -> {new}" in lines
    assert len([line for line in lines if "superblock" in line]) == 4, "and s_checksum"
    assert ["s_wtime", str(old), str(new)] in [
        list(field.values()) for field in verdict.document(found)["superblock"]
    ]


def test_the_same_files_laid_out_otherwise_are_told_by_their_place(made: Made) -> None:
    first, again = made("a", 5, b"one"), made("b", 5, b"two")

    @contextlib.contextmanager
    def opened(artifacts: Sequence[Artifact]) -> Iterator[Sequence[Tree]]:
        yield [tree(directory("/d")), tree(directory("/d"))]

    found = judge("rootfs:web", first, again, opened)
    at = int(told(found)[1].split("from byte ")[1].split()[0])
    both = [(one.directory / "rootfs.ext4").read_bytes() for one in (first, again)]
    assert both[0][:at] == both[1][:at] and both[0][at] != both[1][at]


def test_every_byte_of_a_superblock_belongs_to_a_field() -> None:
    zero = bytes(superblock.SIZE)
    for at in range(superblock.SIZE):
        other = zero[:at] + b"\x01" + zero[at + 1 :]
        ((name, old, new),) = superblock.differing(zero, other)
        assert name and old != new
    assert not list(superblock.differing(zero, zero))
    ((name, _, new),) = superblock.differing(zero, zero[:0x68] + b"\xab" + zero[0x69:])
    assert (name, new) == ("s_uuid", "ab" + "00" * 15)


def test_a_tar_is_read_as_a_root_filesystem(tmp_path: Path) -> None:
    path = tmp_path / "rootfs.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, fields in (
            ("./", tarfile.DIRTYPE, {"mode": 0o755}),
            ("./etc/", tarfile.DIRTYPE, {"mode": 0o750, "uid": 1, "gid": 2}),
            ("./etc/passwd", tarfile.REGTYPE, {"size": 4, "mtime": 7, "mode": 0o4711}),
            ("./etc/again", tarfile.LNKTYPE, {"linkname": "./etc/passwd"}),
            ("./link", tarfile.SYMTYPE, {"linkname": "etc/passwd"}),
            ("./null", tarfile.CHRTYPE, {"devmajor": 1, "devminor": 3}),
            ("./odd \udcff", tarfile.FIFOTYPE, {"pax_headers": {"SCHILY.xattr.user.x": "v"}}),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(b"root") if info.size else None)
    found = Tree(TarReader(path))
    assert list(found.entries) == [
        *("/", "/etc", "/etc/again", "/etc/passwd", "/link", "/null", "/odd \udcff")
    ]
    passwd, again = found.entries["/etc/passwd"], found.entries["/etc/again"]
    assert (passwd.kind, passwd.permissions, passwd.mtime) == ("file", 0o4711, 7)
    assert (again.inode, again.mode) == (passwd.inode, passwd.mode)
    assert found.content("/link") == b"root"
    assert found.entries["/null"].device == (1, 3)
    assert found.entries["/odd \udcff"].xattrs == {"user.x": b"v"}
    assert set(found.reader.digests()) == {"/etc/passwd", "/etc/again"}
    assert not difference.compare(*[difference.contents(found)] * 2)
    path.write_bytes(b"no tar" * 200)
    with pytest.raises(ImageError):
        TarReader(path)


@pytest.fixture
def place(checkout: Path, tmp_path: Path) -> second.Second:
    plan = Plan(spec.load(checkout), mark="-reproduce-x")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return second.Second(checkout, plan, Store(tmp_path / "store"), scratch, strict=False)


def test_a_second_plan_has_the_same_fingerprints_and_images_of_its_own(
    checkout: Path, place: second.Second
) -> None:
    plan = Plan(spec.load(checkout))
    assert [one.fingerprint for one in plan.all()] == [one.fingerprint for one in place.plan.all()]
    for name in ("base", "web"):
        ours, theirs = plan.container(name).tag, place.plan.container(name).tag
        assert theirs == f"{ours}-reproduce-x"
    assert f"FROM {place.plan.container('base').tag}\n" in place.plan.dockerfile("web")
    assert place.plan.toolchain.tag == f"{plan.toolchain.tag}-reproduce-x"


def test_the_second_checkout_has_what_the_engine_would_get(checkout: Path, tmp_path: Path) -> None:
    web = checkout / "images/web"
    (web / ".dockerignore").write_text("ignored\nDockerfile\n")
    os.mkfifo(web / "ignored")
    (web / "link").symlink_to("nowhere")
    (web / "empty").mkdir()
    (web / "run").write_text("x")
    (web / "run").chmod(0o750)
    plan, store = Plan(spec.load(checkout)), Store(tmp_path / "store")
    with second.elsewhere(checkout, plan, store, ["web"], at=tmp_path, strict=False) as there:
        assert there.root.is_relative_to(tmp_path) and there.root != checkout
        assert sorted(path.name for path in (there.root / "images").iterdir()) == ["base", "web"]
        assert not (there.root / "images/web/ignored").exists()
        rootfs = there.plan.rootfs("web")
        assert rootfs.fingerprint == plan.rootfs("web").fingerprint
        assert there.plan.kernel("6.12").fingerprint == plan.kernel("6.12").fingerprint
        assert there.store.find(rootfs) is None
    assert not there.root.exists()


def test_the_second_build_runs_elsewhere(place: second.Second) -> None:
    program = """
import json, os, sys, tempfile, time
sys.argv[1:] = []
import fcbuild
json.dump({"package": os.path.dirname(fcbuild.__file__), "zone": time.timezone,
           "tmp": tempfile.gettempdir(), "home": os.path.expanduser("~")}, sys.stdout)
"""
    variables = second.environment(ROOT, place.scratch)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        capture_output=True,
        check=True,
        cwd=place.root,
    )
    found = json.loads(done.stdout)
    assert found["package"] == str(ROOT / "fcbuild")
    assert found["zone"] != time.timezone
    assert found["tmp"] == str(place.scratch) and found["home"].startswith(found["tmp"])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_the_second_builds_user_is_a_stranger(checkout: Path, tmp_path: Path) -> None:
    """It owns its place, can read what is root's and write none of it, and has ids to give away."""
    secret = tmp_path / "private"
    secret.write_text("read")
    secret.chmod(0o600)
    program = f"""
id -u; id -un; hostname; cat {secret}; echo; test -w {secret} || echo not written
grep -c "^$(id -un):" /etc/subuid /etc/subgid
touch "$PLACE/mine" && stat -c %U "$PLACE/mine" "$PLACE"
"""
    plan, store = Plan(spec.load(checkout)), Store(tmp_path / "store")
    with second.elsewhere(checkout, plan, store, ["web"], at=tmp_path, strict=False) as there:
        if there.user is None:
            pytest.skip("this machine lets nobody become somebody else, or lacks newuidmap")
        found = subprocess.run(
            [*there.user.argv, "sh", "-euc", program],
            env={**os.environ, "PLACE": str(there.root)},
            capture_output=True,
            text=True,
            check=True,
        )
    number, name, host, *rest = found.stdout.splitlines()
    assert int(number) == there.user.number and name == stranger.NAME
    assert host != os.uname().nodename
    assert rest == ["read", "not written", "/etc/subuid:1", "/etc/subgid:1", name, name]
    with pytest.raises(KeyError):
        pwd.getpwnam(name)


def test_everybody_gets_to_the_second_builds_scratch(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    monkeypatch.setattr("tempfile.tempdir", str(private))
    plan, store = Plan(spec.load(checkout)), Store(tmp_path / "store")
    with second.elsewhere(checkout, plan, store, ["web"], at=tmp_path, strict=False) as there:
        for way in (there.scratch, *there.scratch.parents):
            assert way.stat().st_mode & 0o001, way


def test_a_second_build_that_fails_says_why(
    place: second.Second, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{place.scratch}/none.sock")
    shutil.copytree(ROOT / "fcbuild", place.root / "fcbuild")
    with pytest.raises(BuildError, match="the second build failed with status 1: see above"):
        place.build(images=["web"])
    assert "error: no container engine answers" in capsys.readouterr().err
