"""Digests of files: remembered while nothing has changed, read again in every other case."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fcbuild import digests
from fcbuild.digests import Digests
from fcbuild.errors import InputChanged


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    threading.Event().wait(0.15)  # until a change would be seen in its times
    return path


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "digests.json"


def of(path: Path, known: Digests) -> str:
    return known.of(str(path), path.lstat())


def remembered(path: Path, memory: Path) -> str:
    known = Digests(memory)
    found = of(path, known)
    known.save()
    return found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def forge(memory: Path) -> None:
    """Let the document say something else of every file, so that a reader of it shows."""
    _, _, body = memory.read_bytes().partition(b"\n")
    entries = {path: [*entry[:4], "forged"] for path, entry in json.loads(body).items()}
    body = json.dumps(entries).encode()
    head = b"fcbuild-digests 1 " + sha256(body).encode()
    memory.write_bytes(head + b"\n" + body)


def test_a_file_that_has_not_changed_is_not_read_again(file: Path, memory: Path) -> None:
    assert remembered(file, memory) == sha256(b"old")
    forge(memory)
    assert of(file, Digests(memory)) == "forged"


def same_size_and_time(file: Path) -> None:
    times = file.stat()
    file.write_bytes(b"new")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def another_inode(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"new")
    other.replace(file)


@pytest.mark.parametrize("change", [same_size_and_time, another_inode])
def test_a_file_that_has_changed_is_read_again(
    file: Path, memory: Path, change: Callable[[Path], None]
) -> None:
    remembered(file, memory)
    change(file)
    assert of(file, Digests(memory)) == sha256(b"new")


def test_a_file_that_was_changed_just_now_is_not_remembered(tmp_path: Path, memory: Path) -> None:
    fresh = tmp_path / "fresh"
    for round in range(50):
        # Two contents of one size within one tick of the file system's clock.
        fresh.write_bytes(b"%03d" % round)
        assert remembered(fresh, memory) == sha256(b"%03d" % round)


def empty(memory: Path) -> None:
    memory.write_bytes(b"")


def cut(memory: Path) -> None:
    memory.write_bytes(memory.read_bytes()[:-2])


def flipped(memory: Path) -> None:
    data = bytearray(memory.read_bytes())
    data[-4] ^= 1
    memory.write_bytes(data)


def another_version(memory: Path) -> None:
    memory.write_bytes(memory.read_bytes().replace(b"digests 1", b"digests 2", 1))


def a_link(memory: Path) -> None:
    memory.rename(memory.with_name("elsewhere"))
    memory.symlink_to("elsewhere")


def a_directory(memory: Path) -> None:
    memory.unlink()
    memory.mkdir()


@pytest.mark.parametrize("harm", [empty, cut, flipped, another_version, a_link, a_directory])
def test_a_document_that_is_not_ours_is_none(
    file: Path, memory: Path, harm: Callable[[Path], None]
) -> None:
    remembered(file, memory)
    forge(memory)
    harm(memory)
    assert remembered(file, memory) == sha256(b"old")


def test_two_writers_leave_a_whole_document(file: Path, memory: Path) -> None:
    writers = [threading.Thread(target=remembered, args=(file, memory)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    forge(memory)
    assert of(file, Digests(memory)) == "forged"
    assert not list(memory.parent.glob(f".{memory.name}*"))


def test_what_is_gone_is_forgotten_and_what_was_not_asked_for_stays(
    file: Path, memory: Path
) -> None:
    other = file.with_name("other")
    other.write_bytes(b"x")
    threading.Event().wait(0.15)
    remembered(file, memory)
    remembered(other, memory)
    file.unlink()
    other.chmod(0o600)
    threading.Event().wait(0.15)
    remembered(other, memory)
    assert set(json.loads(memory.read_bytes().partition(b"\n")[2])) == {str(other)}


def test_a_file_that_is_replaced_before_it_is_read_is_named(file: Path) -> None:
    status = file.lstat()
    another_inode(file)
    with pytest.raises(InputChanged, match="file: changed while it was being read"):
        Digests().of(str(file), status)
    with pytest.raises(InputChanged):
        os.mkfifo(file.with_name("pipe"))
        digests.read(str(file.with_name("pipe")))


def test_a_document_that_cannot_be_written_is_no_matter(file: Path, tmp_path: Path) -> None:
    assert remembered(file, tmp_path / "none" / "digests.json") == sha256(b"old")
