"""What is made alike between two builds of one Dockerfile, and what is left alone."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import py_compile
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fcbuild.build import normal
from fcbuild.build.files import Files
from fcbuild.errors import BuildError
from fcbuild.ext4.layout import Identity
from tests.ext4 import Disk

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = Identity(number=uuid.UUID(int=1), hashing=uuid.UUID(int=2))
DAY = 86400
EPOCH = 20_000 * DAY + 500
LATER = 400 * DAY

Image = dict[str, tuple[int, bytes]]  # name -> time, bytes
Packed = Callable[..., Disk]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rootfs.ext4"


@pytest.fixture
def packed(path: Path) -> Iterator[Packed]:
    """Write a file system of these files, as the engine hands them out; hard: more names."""
    opened = []

    def packed(image: Image, epoch: int | None = EPOCH, **hard: str) -> Disk:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, (time, data) in image.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size, info.mtime = len(data), time
                tar.addfile(info, io.BytesIO(data))
            for name, target in hard.items():
                info = tarfile.TarInfo(name)
                info.type, info.linkname = tarfile.LNKTYPE, f"./{target}"
                tar.addfile(info)
        with Files(path, IDENTITY, epoch) as files:
            files.copy(io.BytesIO(out.getvalue()))
            files.finish(None, 0)
        opened.append(path.open("rb"))
        return Disk(opened[-1])

    yield packed
    for file in opened:
        file.close()


def shadow(*accounts: str) -> bytes:
    return "".join(f"{account}\n" for account in accounts).encode()


def built(now: int) -> Image:
    """An image as its RUN steps would have made it at a time."""
    source = b"print('hello')\n"
    return {
        "etc/passwd": (now, b"root:x:0:0::/root:/bin/sh\n"),
        "etc/shadow": (now, shadow("root:*:19000:0:99999:7:::", f"app:!:{now // DAY}::::::")),
        "usr/lib/app/__pycache__/main.cpython-313.pyc": (now + 1, pyc(now, source)),
        "usr/lib/app/main.py": (now, source),
        "usr/share/old": (1_000_000_000, b"old"),
        "var/cache/apt/pkgcache.bin": (now, b"cache %d" % now),
        "var/cache/ldconfig/aux-cache": (now, b"%d" % now),
        "var/log/apt/history.log": (now, b"Start-Date: %d\n" % now),
        "var/log/dpkg.log": (now, b"%d install\n" % now),
    }


def pyc(time: int, source: bytes, *, magic: int = 3495, flags: int = 0) -> bytes:
    words = (flags, time & 0xFFFFFFFF, len(source))
    header = magic.to_bytes(2, "little") + b"\r\n"
    return header + b"".join(word.to_bytes(4, "little") for word in words) + b"code"


def recorded(disk: Disk, path: str) -> int:
    return int.from_bytes(disk.read(path)[8:12], "little")


def test_builds_at_other_times_are_the_same_bytes(path: Path, packed: Packed) -> None:
    digests = set()
    for now in (EPOCH + 5, EPOCH + 3 * DAY, EPOCH + LATER, EPOCH + 10 * LATER):
        packed(built(now))
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_without_an_epoch_all_is_as_it_came(packed: Packed) -> None:
    image = built(EPOCH + LATER)
    disk = packed(image, None)
    for name, (time, data) in image.items():
        assert (disk.find(f"/{name}").mtime, disk.read(f"/{name}")) == (time, data)


def test_times_are_cut_and_never_raised(packed: Packed) -> None:
    times = {"old": 0, "day": EPOCH - 1, "epoch": EPOCH, "new": EPOCH + 1, "far": 2**33}
    disk = packed({name: (time, b"") for name, time in times.items()})
    found = {name: disk.find(f"/{name}").mtime for name in times}
    assert found == {"old": 0, "day": EPOCH - 1, "epoch": EPOCH, "new": EPOCH, "far": EPOCH}


def test_diaries_are_emptied_and_caches_dropped_wherever_they_are_known(packed: Packed) -> None:
    emptied = ["var/log/dnf.librepo.log", "var/log/apk.log", "var/log/apt/eipp.log.xz"]
    kept = ["var/log/app.log", "var/log/apt", "srv/var/log/dpkg.log", "var/log/apt.d/x", "dpkg.log"]
    dropped = ["var/cache/apt/srcpkgcache.bin", "var/cache/ldconfig/aux-cache"]
    for names, left in ((emptied, b""), (kept, b"x")):
        disk = packed({name: (0, b"x") for name in names})
        assert {disk.read(f"/{name}") for name in names} == {left}
    assert not packed({name: (0, b"x") for name in dropped}).numbers.keys() & {
        f"/{name}" for name in dropped
    }


def test_a_second_name_of_what_is_not_kept_is_told(packed: Packed) -> None:
    with pytest.raises(
        BuildError, match=r"/kept is a hard link to /var/log/dpkg\.log, which is not"
    ):
        packed({"var/log/dpkg.log": (0, b"x")}, kept="var/log/dpkg.log")
    disk = packed({"srv/cache": (0, b"x")}, **{"var/cache/apt/pkgcache.bin": "srv/cache"})
    assert disk.read("/var/cache/apt/pkgcache.bin") == b"x", "that is somebody's own file"


@pytest.mark.parametrize(
    ("account", "day"),
    [
        ("app:!:20300:0:99999:7:::", 20_000),
        ("app:$y$x:20300::::::", 20_000),
        ("app:!:20300:0:10000:7:::", 20_000),
        ("app:!:20000:0:99999:7:::", 20_000),
        ("app:!:19999:0:99999:7:::", 19_999),
        ("app:!:0:0:99999:7:::", 0),  # to be changed at the next login
        ("app:!:20300:0:90:7:::", 20_300),  # it expires
        ("app:!:20300:5:99999:7:::", 20_300),  # it may not be changed yet
        ("app:!:20300:0:odd:7:::", 20_300),
    ],
)
def test_a_passwords_day_is_cut_where_it_decides_nothing(account: str, day: int) -> None:
    fields = account.split(":")
    fields[2] = str(day)
    assert normal.cut_days(shadow(account), 20_000) == shadow(":".join(fields))


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"app", b"a:b:20300", b"a:*::0:99999:7:::\n", b"\xff:"]
)
def test_what_is_no_account_is_left_alone(text: bytes) -> None:
    assert normal.cut_days(text, 1) == text


def test_a_user_database_of_an_absurd_size_is_left_alone(packed: Packed) -> None:
    data = shadow("app:!:20300:0:99999:7:::") * 50_000
    assert packed({"etc/shadow": (0, data)}).read("/etc/shadow") == data
    assert len(packed({"etc/shadow-": (0, data[:1000])}).read("/etc/shadow-")) == 1000


def test_python_takes_its_bytecode_as_before(tmp_path: Path, packed: Packed) -> None:
    source = tmp_path / "main.py"
    source.write_text("answer = 42\n")
    compiled = Path(
        str(
            py_compile.compile(
                str(source), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP
            )
        )
    )
    time = int(source.stat().st_mtime)
    cached = f"app/__pycache__/{compiled.name}"
    image = {cached: (time + 1, compiled.read_bytes()), "app/main.py": (time, source.read_bytes())}
    disk = packed(image, time - LATER)
    data = disk.read(f"/{cached}")
    # What importlib holds against the source's time and size when it looks for bytecode.
    flags = importlib._bootstrap_external._classify_pyc(data, "main", {})  # type: ignore[attr-defined]
    assert flags == 0
    mtime, size = disk.find("/app/main.py").mtime, disk.find("/app/main.py").size
    importlib._bootstrap_external._validate_timestamp_pyc(data, mtime, size, "main", {})  # type: ignore[attr-defined]
    assert data[16:] == compiled.read_bytes()[16:]


SOURCE = b"x = 1\n"
NEW = EPOCH + LATER


@pytest.mark.parametrize(
    ("source", "compiled", "expected"),
    [
        # The time of the source, and what the .pyc records: seconds after the epoch.
        (NEW, (NEW + 5, NEW), EPOCH),
        (NEW + 1, (NEW + 5, NEW), EPOCH),  # the engine rounds up
        (EPOCH - 7, (NEW, EPOCH - 7), EPOCH - 7),
        (EPOCH, (NEW, EPOCH), EPOCH),
        # Python would not have taken these, and must not begin to.
        (NEW + 9, (NEW + 5, NEW), 0),
        (NEW - 1, (NEW + 5, NEW), 0),
        (NEW + 1, (NEW, NEW), 0),  # the source is newer than what was compiled of it
        (NEW, (NEW + 5, EPOCH), 0),
        (EPOCH - 7, (NEW + 5, NEW), 0),
        (EPOCH - 7, (NEW, EPOCH - 9), EPOCH - 9),
    ],
)
def test_bytecode_is_as_valid_as_before(
    packed: Packed, source: int, compiled: tuple[int, int], expected: int
) -> None:
    written, time = compiled
    for cached in ("a/__pycache__/m.cpython-313.opt-1.pyc", "a/m.pyc"):
        image = {cached: (written, pyc(time, SOURCE)), "a/m.py": (source, SOURCE)}
        assert recorded(packed(image), f"/{cached}") == expected
        after = dict(reversed(image.items()))  # the engine's order is not ours to know
        assert recorded(packed(after), f"/{cached}") == expected


def test_bytecode_of_a_source_of_another_size_does_not_become_valid(packed: Packed) -> None:
    image = {"m.pyc": (NEW, pyc(NEW, SOURCE)), "m.py": (NEW, SOURCE + b"\n")}
    assert recorded(packed(image), "/m.pyc") == 0


def test_bytecode_without_a_source_has_no_time_of_the_day(packed: Packed) -> None:
    image = {"m.pyc": (NEW, pyc(NEW, SOURCE)), "old.pyc": (NEW, pyc(5, SOURCE))}
    disk = packed(image)
    assert (recorded(disk, "/m.pyc"), recorded(disk, "/old.pyc")) == (0, 5)


@pytest.mark.parametrize(
    "data",
    [
        pyc(NEW, SOURCE, flags=1),
        pyc(NEW, SOURCE, flags=3),
        pyc(NEW, SOURCE, magic=62211),  # Python 2
        pyc(NEW, SOURCE, magic=3379),  # Python 3.6: no flags
        b"\x00" * 40,
        b"short",
        b"",
    ],
)
def test_what_records_no_time_is_left_alone(packed: Packed, data: bytes) -> None:
    image = {"m.py": (NEW, SOURCE), "m.pyc": (NEW, data)}
    assert packed(image).read("/m.pyc") == data


def test_the_documentation_has_every_rule() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for rule in normal.RULES:
        row = f"| {', '.join(f'`{file}`' for file in rule.files)} | "
        assert row in text, row
        assert rule.why in text[text.index(row) :].partition("\n")[0], rule.why
