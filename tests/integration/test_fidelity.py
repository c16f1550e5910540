"""A root filesystem holds what the engine's image holds: the engine says what that is, and debugfs,
an independent reader of ext4, says what has arrived."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fcbuild import spec
from fcbuild.build import rootfs
from fcbuild.build.engine import Docker
from fcbuild.build.files import Files
from fcbuild.build.pipeline import Pipeline
from fcbuild.errors import BuildError
from fcbuild.ext4.layout import Identity
from fcbuild.fingerprint import digest
from fcbuild.plan import Plan
from fcbuild.recipes import ROOTFS_FILE
from fcbuild.store import Stage, Store
from fcbuild.tables import MIB
from tests import workspace
from tests.workspace import ROOT, STORE, Workspace

pytestmark = pytest.mark.engine

PLANTED = ROOT / "tests" / "planted"
DOCKERFILE = """
FROM fcbuild/debian-base
COPY plant.pl list.pl /
RUN perl /plant.pl
ENV B=1 A="x y" HOME= E=é=
VOLUME /data/kept
USER www-data
CMD ["perl", "/list.pl"]
"""
IDENTITY = Identity(number=uuid.UUID(int=1), hashing=uuid.UUID(int=2))
TOML = '[rootfs]\nfree = "8MiB"\noverlay = "32MiB"\n'


@dataclass(frozen=True)
class File:
    """A file as either side tells it; sizes and link counts of directories are its own business."""

    mode: int
    uid: int
    gid: int
    links: int
    size: int
    mtime: int
    device: tuple[int, int]
    data: bytes
    xattrs: Mapping[bytes, bytes]


@dataclass(frozen=True)
class Image:
    """A built image: its name in the engine, its root filesystem, and where they were made."""

    tag: str
    rootfs: Path
    checkout: Workspace


@pytest.fixture(scope="module")
def toolchain() -> str:
    return Pipeline(Plan(spec.load(ROOT)), Store(STORE), Docker()).toolchain()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    checkout = workspace.make(tmp_path_factory.mktemp("planted"))
    files = {path.name: path.read_text() for path in PLANTED.iterdir()}
    checkout.image("planted", TOML, DOCKERFILE, **files)
    result = checkout.doit("rootfs:planted")
    assert result.status == 0, result.output
    assert "warning" not in result.output
    tag = Plan(spec.load(checkout.root)).container("planted").tag
    return Image(tag, (checkout.root / "artifacts/images/planted.ext4").resolve(), checkout)


class Debugfs:
    """debugfs of the toolchain image: requests go in under names, and may hold any bytes."""

    def __init__(self, toolchain: str, directory: Path) -> None:
        self._toolchain = toolchain
        self._directory = directory

    def ask(self, image: Path, requests: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return what each request prints. What one writes to /w/NAME, `value` returns."""
        for name, request in requests.items():
            (self._directory / f"{name}.request").write_bytes(request)
        loop = (
            'cd /w; for r in *.request; do debugfs -R "$(cat $r)" /image 2> /dev/null'
            " > ${r%.request}.answer; done"
        )
        mounts = ("-v", f"{image}:/image:ro", "-v", f"{self._directory}:/w")
        subprocess.run(
            [
                *("docker", "run", "--rm", "--network=none", "--user=0", *mounts),
                *(self._toolchain, "sh", "-euc", loop),
            ],
            check=True,
            capture_output=True,
        )
        return {name: (self._directory / f"{name}.answer").read_bytes() for name in requests}

    def value(self, name: str) -> bytes:
        return (self._directory / name).read_bytes()


@pytest.fixture
def debugfs(toolchain: str, tmp_path: Path) -> Debugfs:
    return Debugfs(toolchain, tmp_path)


def quoted(name: bytes) -> bytes:
    return b'"' + name.replace(b'"', b'""') + b'"'


def engines(tag: str) -> dict[bytes, File]:
    """What the engine's container has in /planted."""
    # As root: some files are for nobody else.
    listed = subprocess.run(
        ["docker", "run", "--rm", "--network=none", "--user=0", tag],
        check=True,
        capture_output=True,
    )
    found = {}
    for line in listed.stdout.decode().splitlines():
        path, mode, uid, gid, links, size, mtime, device, data, xattrs = line.split("\t")
        pairs = (item.split("=") for item in filter(None, xattrs.split(",")))
        found[bytes.fromhex(path)] = File(
            int(mode, 8),
            int(uid),
            int(gid),
            int(links),
            int(size),
            int(mtime),
            (os.major(int(device)), os.minor(int(device))),
            bytes.fromhex(data),
            {bytes.fromhex(name): bytes.fromhex(value) for name, value in pairs},
        )
    return found


KINDS = {
    "regular": 0o100000,
    "directory": 0o040000,
    "symlink": 0o120000,
    "character special": 0o020000,
    "block special": 0o060000,
    "FIFO": 0o010000,
}


def read(stat: bytes, data: bytes, xattrs: Mapping[bytes, bytes]) -> File:
    """Read what debugfs's `stat` prints."""
    text = stat.decode("utf-8", "replace")

    def field(pattern: str) -> str:
        match = re.search(pattern, text)
        assert match, (pattern, text)
        return match[1]

    kind = field(r"Type: ([\w ]+?) +Mode:")
    (mtime,) = struct.unpack(">i", bytes.fromhex(field(r" mtime: 0x(\w{8})")))
    device = re.search(r"Device major/minor number: (\d+):(\d+)", text)
    target = re.search(r'Fast link dest: "(.*)"', text)
    directory = kind == "directory"
    return File(
        KINDS[kind] | int(field(r"Mode: +(\d+)"), 8),
        int(field(r"User: +(-?\d+)")) % (1 << 32),
        int(field(r"Group: +(-?\d+)")) % (1 << 32),
        0 if directory else int(field(r"Links: (\d+)")),
        0 if directory else int(field(r"Size: (\d+)")),
        mtime,
        (int(device[1]), int(device[2])) if device else (0, 0),
        target[1].encode() if target else data,
        xattrs,
    )


def meaningful(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """ACLs without the ids that mean nothing: some say -1 there, some say 0."""
    kept = dict(xattrs)
    for name, value in xattrs.items():
        if b"posix_acl" in name:
            entries = struct.iter_unpack("<HHI", value[4:])
            kept[name] = value[:4] + b"".join(
                struct.pack("<HHI", tag, mode, who if tag in (2, 8) else 0)
                for tag, mode, who in entries
            )
    return kept


def test_everything_in_the_image_arrives(image: Image, debugfs: Debugfs) -> None:
    expected = engines(image.tag)
    assert len(expected) > 50
    epoch = Plan(spec.load(image.checkout.root)).epoch("planted")
    assert max(file.mtime for file in expected.values()) > epoch
    requests = {"top": b"ls -p /planted"}
    for number, (path, file) in enumerate(expected.items()):
        requests[f"{number}.stat"] = b"stat " + quoted(path)
        requests[f"{number}.data"] = b"cat " + quoted(path) if file.data else b""
        for index, name in enumerate(file.xattrs):
            to = b"/w/%d.%d.value " % (number, index)
            requests[f"{number}.{index}"] = b"ea_get -f " + to + quoted(path) + b" " + quoted(name)
    answers = debugfs.ask(image.rootfs, requests)
    for number, (path, file) in enumerate(expected.items()):
        stat = answers[f"{number}.stat"]
        xattrs = {
            name: debugfs.value(f"{number}.{index}.value") for index, name in enumerate(file.xattrs)
        }
        found = read(stat, answers[f"{number}.data"], xattrs)
        # The engine writes the nearest second where a file has a fraction of one.
        assert found.mtime in {min(file.mtime, epoch), min(file.mtime + 1, epoch)}, path
        wanted = replace(file, mtime=found.mtime, xattrs=meaningful(file.xattrs))
        assert replace(found, xattrs=meaningful(found.xattrs)) == wanted, path
        # And nothing else: a line each behind the heading.
        listed = stat.partition(b"Extended attributes:\n")[2].split(b"Inode checksum")[0]
        assert len(listed.splitlines()) == len(xattrs), path
    for planted, seconds in (("old", 0), ("older", -86400), ("dated", 1000000000)):
        assert expected[f"/planted/{planted}".encode()].mtime == seconds
    below = [path for path in expected if path.count(b"/") == 2]
    assert answers["top"].count(b"/\n/") + 1 == len(below) + len([b".", b".."])
    sparse = list(expected).index(b"/planted/sparse")
    blocks = re.search(rb"Blockcount: (\d+)", answers[f"{sparse}.stat"])
    assert blocks and int(blocks[1]) * 512 < MIB


def test_what_the_boot_contract_asks_for_is_there(image: Image, debugfs: Debugfs) -> None:
    paths = [
        *("/.fcbuild/init", "/.fcbuild/boot", "/.fcbuild/root", "/.fcbuild/rw", "/data/kept"),
        "/proc",
    ]
    answers = debugfs.ask(
        image.rootfs,
        {str(number): f"stat {path}".encode() for number, path in enumerate(paths)}
        | {"boot": b"cat /.fcbuild/boot", "header": b"stats -h"},
    )
    found = [read(answers[str(number)], b"", {}) for number in range(len(paths))]
    assert {(file.uid, file.gid) for file in found} == {(0, 0)}
    modes = [0o100755, 0o100600, 0o40700, 0o40700, 0o40755, 0o40755]
    assert [file.mode for file in found] == modes
    header = answers["header"].decode()
    free = re.search(r"Free blocks: +(\d+)", header)
    assert free and int(free[1]) * 4096 >= 8 * MIB
    assert re.search(r"Block size: +4096", header)

    boot = answers["boot"]
    assert boot.startswith(b"fcbuild-boot 2\n")
    env = re.findall(rb"(?m)^env \d+\n(.*)$", boot)
    assert env == environment(image.tag, "planted").split(b"\0")[:-1]


def environment(tag: str, hostname: str) -> bytes:
    """What the engine's container has for an environment, as the kernel keeps it."""
    command = ("cat", "/proc/self/environ")
    return subprocess.run(
        ["docker", "run", "--rm", "--network=none", f"--hostname={hostname}", tag, *command],
        check=True,
        capture_output=True,
    ).stdout


def test_facts_and_the_overlays_drive_are_in_the_object(image: Image) -> None:
    manifest = json.loads((image.rootfs.parent / "manifest.json").read_bytes())
    facts = manifest["facts"]
    assert facts["argv"] == ["perl", "/list.pl"]
    assert facts["health"] is False
    assert facts["users"]["www-data"] == [33, 33, "/var/www"]
    assert manifest["files"]["overlay.ext4"]["size"] == 32 * MIB
    assert manifest["files"]["rootfs.ext4"]["size"] == facts["size"]


def test_two_packings_of_one_image_are_the_same_bytes(image: Image, tmp_path: Path) -> None:
    # In a store of its own, some seconds later.
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "base").symlink_to(STORE.resolve() / "objects" / "base")
    before = {
        name: digest(image.rootfs.with_name(name)) for name in ("rootfs.ext4", "overlay.ext4")
    }
    result = image.checkout.doit("rootfs:planted", env={"FCBUILD_STORE": str(tmp_path)})
    assert result.status == 0, result.output
    made = (image.checkout.root / "artifacts/images/planted.ext4").resolve()
    assert made.is_relative_to(tmp_path.resolve())
    assert {name: digest(made.with_name(name)) for name in before} == before


Pack = Callable[[Callable[[tarfile.TarFile], None]], Path]


@pytest.fixture
def pack(toolchain: str, tmp_path: Path) -> Iterator[Pack]:
    """Pack what a function writes to the engine's tar; return the ext4 image."""
    stage_directory, scratch = tmp_path / "stage", tmp_path / "scratch"
    stage_directory.mkdir()
    scratch.mkdir()

    with (tmp_path / "log").open("wb") as log:

        def pack(fill: Callable[[tarfile.TarFile], None]) -> Path:
            reading, writing = os.pipe()

            def write() -> None:
                with (
                    os.fdopen(writing, "wb") as sink,
                    tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar,
                ):
                    fill(tar)

            made = stage_directory / ROOTFS_FILE
            with Files(made, IDENTITY) as files, ThreadPoolExecutor(1) as pool:
                filling = pool.submit(write)
                with os.fdopen(reading, "rb") as source:
                    files.copy(source)
                filling.result()
                files.finish(None, 0)
            # e2fsck of the toolchain says whether it is sound.
            stage = Stage(stage_directory, scratch, log, tmp_path / "log")
            with rootfs.checking(Docker(), toolchain, stage) as look:
                look()
            return made

        yield pack


class Zeros(io.RawIOBase):
    """As many zeros as anyone wants, and what stands at their end."""

    def __init__(self, size: int, end: bytes) -> None:
        self._left = size
        self._end = end

    def read(self, size: int = -1) -> bytes:
        zeros = min(size, self._left)
        self._left -= zeros
        end, self._end = self._end[: size - zeros], self._end[size - zeros :]
        return bytes(zeros) + end


def test_a_file_over_2_gib_and_100_000_small_ones(pack: Pack, debugfs: Debugfs) -> None:
    over = (2 << 30) + 5 * 65536

    def fill(tar: tarfile.TarFile) -> None:
        big = tarfile.TarInfo("big")
        big.size = over + 4
        tar.addfile(big, Zeros(over, b"tail"))
        for number in range(100_000):
            if number % 1000 == 0:
                directory = tarfile.TarInfo(f"many{number // 1000}")
                directory.type = tarfile.DIRTYPE
                tar.addfile(directory)
            small = tarfile.TarInfo(f"many{number // 1000}/{number}")
            small.size = 5
            tar.addfile(small, io.BytesIO(b"%05d" % number))

    image = pack(fill)
    answers = debugfs.ask(
        image,
        {
            "big": b"stat /big",
            "last": b"bmap /big %d" % (over // 4096),
            "some": b"cat /many42/42123",
            "names": b"ls -p /many99",
        },
    )
    assert b"Size: %d\n" % (over + 4) in answers["big"]
    assert b"Blockcount: 8\n" in answers["big"]
    with image.open("rb") as file:
        file.seek(int(answers["last"]) * 4096)
        assert file.read(5) == b"tail\0"
    assert answers["some"] == b"42123"
    assert len(answers["names"].splitlines()) == 1000 + len([".", "..", ""])
    assert image.stat().st_blocks * 512 < 2 << 30


def test_attributes_of_any_kind_of_file_arrive(pack: Pack, debugfs: Debugfs) -> None:
    # No step of a container build may set these; images from elsewhere have them.
    kinds = {
        "link": tarfile.SYMTYPE,
        "directory": tarfile.DIRTYPE,
        "device": tarfile.CHRTYPE,
        "fifo": tarfile.FIFOTYPE,
        "file": tarfile.REGTYPE,
    }

    def fill(tar: tarfile.TarFile) -> None:
        for name, kind in kinds.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "file" if kind == tarfile.SYMTYPE else ""
            entry.pax_headers = {
                "SCHILY.xattr.trusted.who": name,
                "SCHILY.xattr.security.selinux": f"label of {name}\0",
            }
            tar.addfile(entry)

    requests = {
        f"{name}.{space}": f"ea_get -f /w/{name}.{space}.value /{name} {space}".encode()
        for name in kinds
        for space in ("trusted.who", "security.selinux")
    }
    debugfs.ask(pack(fill), requests)
    for name in kinds:
        assert debugfs.value(f"{name}.trusted.who.value") == name.encode()
        assert debugfs.value(f"{name}.security.selinux.value") == f"label of {name}\0".encode()


def test_an_attribute_that_finds_no_room_fails_the_build_with_its_file(pack: Pack) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        for name, size in (("fits", 3000), ("does not\nfit", 5000)):
            entry = tarfile.TarInfo(name)
            entry.pax_headers = {"SCHILY.xattr.user.big": "x" * size}
            tar.addfile(entry)

    with pytest.raises(BuildError) as caught:
        pack(fill)
    assert "user.big of /does not\\nfit" in caught.value.message
    assert "/fits" not in caught.value.message


def test_a_disk_of_many_groups_is_sound(pack: Pack, debugfs: Debugfs) -> None:
    """Files over the copies of the superblock, of more extents than an inode holds, and a directory
    of 70,000 others."""
    piece = b"x" * 65536

    def fill(tar: tarfile.TarFile) -> None:
        for number in range(3):
            large = tarfile.TarInfo(f"large{number}")
            large.size = 150 * MIB + 1
            tar.addfile(large, io.BytesIO(b"%d" % number * large.size))
        holes = tarfile.TarInfo("holes")
        holes.size = 3000 * len(piece)
        tar.addfile(holes, io.BytesIO((piece + bytes(len(piece))) * 1500))
        for number in range(70_000):
            directory = tarfile.TarInfo(f"wide/{number}")
            directory.type = tarfile.DIRTYPE
            tar.addfile(directory)

    answers = debugfs.ask(
        pack(fill),
        {"holes": b"stat /holes", "last": b"ls -p /wide", "wide": b"stat /wide", "stats": b"stats"},
    )
    assert b"Blockcount: %d\n" % (1500 * 128 + 8 * 6) in answers["holes"]  # 6 of them are its map
    assert answers["last"].count(b"\n") == 70_000 + len([".", "..", ""])
    assert b"Links: 1 " in answers["wide"]  # too many to be counted
    assert len(re.findall(rb"Group +\d+:", answers["stats"])) > 4
