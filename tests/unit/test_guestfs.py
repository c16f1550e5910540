"""The conversation with the program that has the guestfs bindings, and what that program does with
what they return; the bindings themselves are a stand-in."""

from __future__ import annotations

import base64
import io
import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fcbuild.build.engine import Docker
from fcbuild.errors import ImageError, ToolMissing
from fcbuild.look import guestfs, guestfs_program, readers
from fcbuild.look.guestfs import Appliance, GuestfsReader
from fcbuild.vmm import kvm
from tests.entries import MadeUp, directory, file

TIMES = {"st_mtime_sec": 7, "st_rdev": 0, "st_nlink": 1, "st_uid": 1, "st_gid": 2}


class Bindings:
    """What guestfs.GuestFS does, for two files, a link and a directory."""

    NAMES: tuple[bytes, ...] = (b"dir", b"dir/a\nb", b"link", b"null")

    def find0(self, top: str, to: str) -> None:
        Path(to).write_bytes(b"".join(name + b"\0" for name in self.NAMES))

    def lstatns(self, path: str) -> dict[str, int]:
        kinds = {"link": stat.S_IFLNK, "dir": stat.S_IFDIR, "": stat.S_IFDIR, "null": stat.S_IFCHR}
        name = path.rpartition("/")[2]
        mode = kinds.get(name, stat.S_IFREG) | 0o644
        return {**TIMES, "st_mode": mode, "st_size": len(name), "st_ino": 5, "st_rdev": 259}

    def lstatnslist(self, top: str, names: list[str]) -> list[dict[str, int]]:
        return [self.lstatns(f"{top}/{name}") for name in names]

    def lgetxattrs(self, path: str) -> list[dict[str, Any]]:
        return [{"attrname": "user.root", "attrval": b"\0"}]

    def lxattrlist(self, top: str, names: list[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for name in names:
            number = 2 if name == "a\nb" else 0
            found.append({"attrname": "", "attrval": b"%d\0" % number})
            found += [{"attrname": f"user.{n}", "attrval": bytes([n])} for n in range(number)]
        return found

    def readlinklist(self, top: str, names: list[str]) -> list[str]:
        return [f"to {name}" for name in names]

    def pread(self, path: str, count: int, offset: int) -> bytes:
        return b"content of a file"[offset : offset + 10]

    def checksums_out(self, kind: str, top: str, to: str) -> None:
        Path(to).write_bytes(b"0123  ./dir/plain\n\\4567  ./dir/a\\nb\n")

    def statvfs(self, path: str) -> dict[str, int]:
        return {"bfree": 3, "bsize": 4096, "files": 10, "ffree": 4}


def test_a_walk_asks_once_for_each_directory() -> None:
    found = {entry["path"]: entry for entry in guestfs_program.walk(Bindings())}
    assert found.keys() == {"/", "/dir", "/link", "/null", "/dir/a\nb"}
    assert found["/"]["xattrs"] == {"user.root": "00"}
    assert found["/dir/a\nb"]["xattrs"] == {"user.0": "00", "user.1": "01"}
    assert found["/link"]["target"] == "to link"
    assert found["/null"]["device"] == [1, 3]
    assert found["/dir"]["device"] is None


def test_a_name_that_the_bindings_cannot_take_is_told() -> None:
    class Odd(Bindings):
        NAMES = (b"\xff\xfe",)

    with pytest.raises(guestfs_program.Unspeakable, match=r"cannot take the name b'\\xff\\xfe'"):
        list(guestfs_program.walk(Odd()))


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (b"0123  ./plain\n", "/plain"),
        (b"0123  ./two  spaces \n", "/two  spaces "),
        (b"\\0123  ./new\\nline\n", "/new\nline"),
        (b"\\0123  ./back\\\\nslash\n", "/back\\nslash"),
        (b"\\0123  ./both\\\\\\n\n", "/both\\\n"),
        (b"\\0123  ./carriage\\r\n", "/carriage\r"),
    ],
)
def test_names_in_lists_of_sums(line: bytes, path: str) -> None:
    assert guestfs_program.summed(line) == {"path": path, "digest": "0123"}


def reader(answers: bytes) -> tuple[GuestfsReader, io.BytesIO]:
    questions = io.BytesIO()
    appliance = Appliance(questions, io.BytesIO(answers))
    return GuestfsReader(Path(__file__), 1, appliance), questions


def lines(*answers: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)


def answered(question: str, path: str = "") -> bytes:
    found = guestfs_program.answers(Bindings(), {"ask": question, "path": path})
    return lines(*found, {"end": True})


def test_the_two_halves_understand_each_other() -> None:
    found, asked = reader(answered("walk"))
    entries = list(found.walk())
    assert [entry.path for entry in entries] == ["/", "/dir", "/dir/a\nb", "/link", "/null"]
    assert (entries[2].xattrs, entries[4].device) == ({"user.0": b"\0", "user.1": b"\1"}, (1, 3))
    assert (entries[2].uid, entries[2].gid, entries[2].mtime) == (1, 2, 7)
    assert json.loads(asked.getvalue()) == {"ask": "walk", "image": 1, "path": ""}

    found, asked = reader(answered("read", "/a\nb"))
    assert b"".join(found.read(file("/a\nb"))) == b"content of a file"
    assert json.loads(asked.getvalue())["path"] == "/a\nb"

    assert reader(answered("digests"))[0].digests() == {"/dir/plain": "0123", "/dir/a\nb": "4567"}
    assert reader(answered("space"))[0].space().free == 3 * 4096


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (b"", "ended, or took too long"),
        (b'{"path": ', "ended, or took too long"),
        (lines({"error": "no such device"}), "no such device"),
        (b'{"piece": "' + b"A" * (3 << 20), "ended, or took too long"),
    ],
)
def test_an_answer_that_breaks_off_is_an_error(answers: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        list(reader(answers)[0].walk())


def test_a_piece_of_a_file_fits_into_a_line() -> None:
    line = lines({"piece": base64.b64encode(bytes(guestfs_program.PIECE)).decode()})
    assert len(line) < guestfs._MAX_LINE


PROGRAM = """
import json, os, sys
assert os.environ["LIBGUESTFS_BACKEND"] == "direct"
print("to the log", os.environ["LIBGUESTFS_BACKEND_SETTINGS"], file=sys.stderr)
print(json.dumps({"end": True} if START else {"error": "no kernel"}), flush=True)
for line in sys.stdin:
    print(json.dumps({"free": 1, "inodes": 2, "free_inodes": 1}))
    print(json.dumps({"end": True}), flush=True)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(guestfs, "PYTHON", sys.executable)
    monkeypatch.setattr(guestfs, "PROGRAM", tmp_path / "program.py")
    (tmp_path / "program.py").write_text(f"START = True\n{PROGRAM}")
    yield tmp_path / "program.py"


@pytest.mark.parametrize(("trouble", "settings"), [(None, ""), ("no KVM", "force_tcg")])
def test_the_appliance_is_emulated_where_kvm_cannot_be_used(
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str | None,
    settings: str,
) -> None:
    monkeypatch.setattr(kvm, "trouble", lambda: trouble)
    with guestfs.readers([program], tmp_path, tmp_path / "log") as (one,):
        assert one.space().inodes == 2
    assert (tmp_path / "log").read_text() == f"to the log {settings}\n"


def test_an_appliance_that_does_not_start_is_told(program: Path, tmp_path: Path) -> None:
    program.write_text(f"START = False\n{PROGRAM}")
    with (
        pytest.raises(ToolMissing, match="guestfs does not start: no kernel") as caught,
        guestfs.readers([program], tmp_path, tmp_path / "log"),
    ):
        pass
    assert "reader=debugfs" in str(caught.value.hint)


def test_where_guestfs_does_not_start_debugfs_reads(
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    program.write_text(f"START = False\n{PROGRAM}")
    monkeypatch.setattr(guestfs, "trouble", lambda: None)
    made = MadeUp([directory("/")], {})
    monkeypatch.setattr(readers, "DebugfsReader", lambda *_, **__: made)

    def names(wanted: str | None) -> list[str]:
        with readers.opened(
            [program, program],
            wanted=wanted,
            engine=Docker(),
            toolchain=lambda: "tag",
            logs=tmp_path,
        ) as trees:
            return [tree.reader.name for tree in trees]

    assert names(None) == ["made-up", "made-up"]
    assert (
        "guestfs does not start: no kernel: reading with debugfs instead" in capfd.readouterr().err
    )
    assert names("debugfs") == ["made-up", "made-up"]
    assert "guestfs" not in capfd.readouterr().err
    with pytest.raises(ToolMissing, match="guestfs does not start"):
        names("guestfs")


def test_without_bindings_guestfs_is_not_to_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guestfs, "PYTHON", "/no/such/python")
    assert guestfs.trouble() == "/no/such/python has no module guestfs"
    with (
        pytest.raises(ToolMissing, match=r"reader=guestfs: .* has no module guestfs"),
        readers.opened([], wanted="guestfs", engine=Docker(), toolchain=str, logs=tmp_path),
    ):
        pass
