"""Files that are compressed for the way, and what comes back from it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fcbuild.errors import ArtifactError, InputChanged
from fcbuild.publish import oci, pack, zstd
from fcbuild.publish.bundle import File

MIB = 1 << 20


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def content() -> bytes:
    """Some of everything: text, noise, and zeros at odd places."""
    return b"text " * 50_000 + bytes(3 * MIB + 17) + os.urandom(MIB) + bytes(MIB)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain"
    path.write_bytes(content())
    return path


def expand(source: Path, to: Path, plain: bytes, **other: object) -> None:
    wanted = {"digest": sha256(plain), "size": len(plain), **other}
    pack.expand(source, to, **wanted)  # type: ignore[arg-type]


def test_what_is_packed_comes_back_with_its_holes(plain: Path, tmp_path: Path) -> None:
    whole = plain.read_bytes()
    packed, back = tmp_path / "packed", tmp_path / "back"
    read, digest, size = pack.compress(plain, packed)
    assert read == sha256(whole)
    assert (digest, size) == (sha256(packed.read_bytes()), packed.stat().st_size)
    expand(packed, back, whole)
    assert back.read_bytes() == whole
    assert back.stat().st_blocks * 512 < 2 * MIB


@pytest.mark.parametrize("whole", [b"", b"x", bytes(5 * MIB)], ids=["empty", "one", "zeros"])
def test_files_at_the_edge(tmp_path: Path, whole: bytes) -> None:
    plain, packed, back = (tmp_path / name for name in ("plain", "packed", "back"))
    plain.write_bytes(whole)
    pack.compress(plain, packed)
    expand(packed, back, whole)
    assert back.read_bytes() == whole


def test_the_same_bytes_make_the_same_blob_whatever_the_processors(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for count in (1, 2, 8):
        monkeypatch.setattr("os.cpu_count", lambda count=count: count)
        found.add(pack.compress(plain, tmp_path / "packed"))
    assert len(found) == 1


def test_a_blob_says_what_it_holds(plain: Path, tmp_path: Path) -> None:
    whole = plain.read_bytes()
    file = File("vmlinux", "application/x", plain, 0o644, sha256(whole), len(whole))
    blob = pack.pack(file, tmp_path)
    assert isinstance(blob.source, Path)
    assert blob.descriptor.digest == f"sha256:{sha256(blob.source.read_bytes())}"
    assert blob.descriptor.media_type == "application/x+zstd"
    assert blob.descriptor.title == "vmlinux"
    assert oci.plain(blob.descriptor, what="it") == (f"sha256:{sha256(whole)}", len(whole))
    small = File("vm.json", "application/y", b"{}", 0o644, sha256(b"{}"), 2)
    blob = pack.pack(small, tmp_path)
    assert (blob.source, blob.descriptor.media_type) == (b"{}", "application/y")


def test_a_file_that_is_not_what_it_was_is_not_packed(plain: Path, tmp_path: Path) -> None:
    file = File("vmlinux", "application/x", plain, 0o644, sha256(b"other"), 5)
    with pytest.raises(InputChanged):
        pack.pack(file, tmp_path)


def test_what_comes_is_compared_with_what_has_to_come(plain: Path, tmp_path: Path) -> None:
    whole = plain.read_bytes()
    packed, back = tmp_path / "packed", tmp_path / "back"
    pack.compress(plain, packed)
    for wrong, match in (
        ({"digest": sha256(b"other")}, "other bytes"),
        ({"size": len(whole) + 1}, "other bytes"),
        ({"size": len(whole) - 1}, "holds more"),
        ({"size": 10}, "holds more"),
    ):
        with pytest.raises(ArtifactError, match=match):
            expand(packed, back, whole, **wrong)
        assert not back.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "more", "noise"])
def test_a_damaged_blob_leaves_nothing(plain: Path, tmp_path: Path, damage: str) -> None:
    whole = plain.read_bytes()
    packed, back = tmp_path / "packed", tmp_path / "back"
    pack.compress(plain, packed)
    frame = packed.read_bytes()
    packed.write_bytes(
        {
            "cut": frame[:-100],
            "empty": b"",
            "flip": frame[:1000] + bytes([frame[1000] ^ 0xFF]) + frame[1001:],
            "more": frame + b"x",
            "noise": os.urandom(1000),
        }[damage]
    )
    with pytest.raises(ArtifactError):
        expand(packed, back, whole)
    assert not back.exists()


def frame(content: bytes, options: dict[int, int] | None = None) -> bytes:
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(content) + compressor.flush()


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    packed, back = tmp_path / "packed", tmp_path / "back"
    packed.write_bytes(frame(bytes(500 * MIB)))
    with pytest.raises(ArtifactError, match="holds more"):
        expand(packed, back, b"x" * MIB)


def test_a_frame_that_wants_much_memory_is_refused(tmp_path: Path) -> None:
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {parameter.window_log: 30, parameter.content_size_flag: 0}
    packed, back = tmp_path / "packed", tmp_path / "back"
    packed.write_bytes(frame(b"x" * 10, options))
    with pytest.raises(ArtifactError, match="damaged"):
        expand(packed, back, b"x" * 10)
