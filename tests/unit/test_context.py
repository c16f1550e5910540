"""The build context: its tar, its fingerprint, and what moves neither."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcbuild import context
from fcbuild.digests import Digests
from fcbuild.errors import InputChanged, SpecError
from fcbuild.fingerprint import Json, canonical, digest, fingerprint


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "site/empty").mkdir(parents=True)
    for name, text in {
        "Dockerfile": "FROM scratch\n",
        "image.toml": "",
        "b": "b",
        "a": "a",
        "site/page": "page",
        "site/image.toml": "not ours",
    }.items():
        (root / name).write_text(text)
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "link").symlink_to("a")
    return root


def names(root: Path) -> list[str]:
    return [name for name, _, _ in context.entries(root)]


def packed(root: Path, dockerfile: str | None = "FROM pinned\n") -> bytes:
    out = io.BytesIO()
    context.write_tar(root, dockerfile, out, context.describe(root))
    return out.getvalue()


def fingerprint_of(root: Path) -> str:
    return fingerprint("container", 1, dict(context.describe(root)))


def test_the_context_is_everything_but_image_toml_in_order(root: Path) -> None:
    assert names(root) == [
        "Dockerfile",
        "a",
        "b",
        "link",
        "run",
        "site",
        "site/empty",
        "site/image.toml",
        "site/page",
    ]


def test_the_tar_says_nothing_of_this_machine(root: Path) -> None:
    (root / "b").chmod(0o600)
    (root / "site").chmod(0o700)
    with tarfile.open(fileobj=io.BytesIO(packed(root))) as tar:
        entries = tar.getmembers()
        assert tar.extractfile("Dockerfile").read() == b"FROM pinned\n"  # type: ignore[union-attr]
        assert tar.extractfile("site/page").read() == b"page"  # type: ignore[union-attr]
    assert [entry.name for entry in entries] == names(root)
    for entry in entries:
        assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", ""), entry.name
        assert entry.mtime == context.EPOCH, entry.name
    modes = {entry.name: entry.mode for entry in entries}
    assert (modes["a"], modes["b"], modes["run"], modes["site"]) == (0o644, 0o644, 0o755, 0o755)
    link = next(entry for entry in entries if entry.name == "link")
    assert link.issym()
    assert link.linkname == "a"


def other_times(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        os.utime(path, (1, 1), follow_symlinks=False)


def other_umask(root: Path) -> None:
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)


def other_order(root: Path) -> None:
    for name in ["a", "b"]:
        text = (root / name).read_text()
        (root / name).unlink()
        (root / name).write_text(text)


def other_spec(root: Path) -> None:
    (root / "image.toml").write_text("[machine]\nvcpus = 2\n")


@pytest.mark.parametrize("change", [other_times, other_umask, other_order, other_spec])
def test_neither_tar_nor_fingerprint_depends_on(root: Path, change: Callable[[Path], None]) -> None:
    before = (packed(root), fingerprint_of(root))
    change(root)
    assert (packed(root), fingerprint_of(root)) == before


def relink(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("b")


def link_to_file(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").write_text("a")


def file_to_directory(root: Path) -> None:
    (root / "b").unlink()
    (root / "b").mkdir()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a").chmod(0o744),
        lambda root: (root / "a").write_text("A"),
        lambda root: (root / "a").rename(root / "c"),
        lambda root: (root / "empty").touch(),
        lambda root: (root / "directory").mkdir(),
        lambda root: (root / "site/empty").rmdir(),
        relink,
        link_to_file,
        file_to_directory,
    ],
    ids=["exec", "content", "rename", "file", "mkdir", "rmdir", "target", "copied", "type"],
)
def test_both_tar_and_fingerprint_move_with(root: Path, change: Callable[[Path], object]) -> None:
    tar, before = packed(root), fingerprint_of(root)
    change(root)
    assert packed(root) != tar
    assert fingerprint_of(root) != before


def test_swapping_the_contents_of_two_files_moves_the_fingerprint(root: Path) -> None:
    before = fingerprint_of(root)
    (root / "a").write_text("b")
    (root / "b").write_text("a")
    assert fingerprint_of(root) != before


def test_dockerignore_is_honoured(root: Path) -> None:
    (root / ".dockerignore").write_text("# a comment\n\nsite\n!site/page\nlink\n*.log\n")
    (root / "x.log").touch()
    assert names(root) == [".dockerignore", "Dockerfile", "a", "b", "run", "site", "site/page"]


def test_the_dockerfiles_own_rules_come_before_dockerignore(root: Path) -> None:
    (root / ".dockerignore").write_text("*\n")
    assert names(root) == []
    (root / "Dockerfile.dockerignore").write_text("*\n!a\n")
    assert names(root) == ["a"]


def test_what_the_engine_would_take_is_taken(root: Path) -> None:
    (root / ".git").mkdir()
    (root / ".git/HEAD").touch()
    (root / "site/__pycache__").mkdir()
    assert {".git", ".git/HEAD", "site/__pycache__"} <= set(names(root))


@pytest.mark.parametrize("rule", ["!", "[", "a[b", "[a-", "a\\"])
def test_a_rule_that_is_none_is_named_with_its_line(root: Path, rule: str) -> None:
    (root / ".dockerignore").write_text(f"# words\n{rule}\n")
    with pytest.raises(SpecError, match=r"\.dockerignore: line 2: no pattern"):
        context.entries(root)


def test_an_ignored_file_does_not_move_the_fingerprint(root: Path) -> None:
    (root / ".dockerignore").write_text("*.log\n")
    before = fingerprint_of(root)
    (root / "x.log").write_text("noise")
    assert fingerprint_of(root) == before


@pytest.mark.parametrize("ignore", ["", "nothing\n"])
def test_a_link_to_a_directory_is_a_link(root: Path, ignore: str) -> None:
    (root / ".dockerignore").write_text(ignore)
    (root / "loop").symlink_to(".")
    assert [name for name in names(root) if name.startswith("loop")] == ["loop"]


def test_a_fifo_is_refused_by_name(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(SpecError, match=r"pipe: neither a file") as caught:
        context.entries(root)
    assert ".dockerignore" in str(caught.value.hint)
    (root / ".dockerignore").write_text("pipe\n")
    assert "pipe" not in names(root)


def test_a_socket_is_refused_by_name(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(short_dir / "sock"))
        with pytest.raises(SpecError, match=r"sock: neither a file"):
            context.entries(short_dir)


def test_a_name_that_is_not_utf_8_keeps_its_bytes(root: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(root) + b"/\xff"))
    odd.write_text("1")
    before = fingerprint_of(root)
    with tarfile.open(fileobj=io.BytesIO(packed(root))) as tar:
        assert b"\xff" in [os.fsencode(name) for name in tar.getnames()]
    odd.write_text("2")
    changed = fingerprint_of(root)
    assert changed != before
    # Another file, whose name only looks like it.
    (root / "\\xff").write_text("1")
    assert len({before, changed, fingerprint_of(root)}) == 3


def replaced(root: Path) -> None:
    (root / "b").write_text("B")


def other_mode(root: Path) -> None:
    (root / "b").chmod(0o755)


def gone(root: Path) -> None:
    (root / "b").unlink()


def one_more(root: Path) -> None:
    (root / "c").touch()


def other_target(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("b")


def emptied(root: Path) -> None:
    (root / "b").write_text("")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (replaced, "b"),
        (other_mode, "b"),
        (gone, "b"),
        (one_more, "c"),
        (other_target, "link"),
        (emptied, "b"),
        (file_to_directory, "b"),
    ],
)
def test_what_is_streamed_is_what_was_hashed_or_no_tar(
    root: Path, change: Callable[[Path], None], named: str
) -> None:
    described = context.describe(root)
    change(root)
    out = io.BytesIO()
    with pytest.raises(InputChanged) as caught:
        context.write_tar(root, "FROM pinned\n", out, described)
    assert caught.value.path == str(root / named)
    assert out.getvalue().endswith(b"broken off")  # whoever reads it sees that it is not whole


def test_a_large_file_that_is_changed_while_it_streams_breaks_the_tar_off(root: Path) -> None:
    (root / "big").write_bytes(bytes(3 << 20))
    described = context.describe(root)

    class Sink(io.BytesIO):
        def write(self, data: Any) -> int:
            with (root / "big").open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"!")
            return super().write(data)

    out = Sink()
    with pytest.raises(InputChanged, match="big: changed"):
        context.write_tar(root, "FROM pinned\n", out, described)
    with pytest.raises(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        for entry in tar:
            if entry.isreg():
                tar.extractfile(entry).read()  # type: ignore[union-attr]


def test_a_file_of_4_gib_streams(root: Path) -> None:
    size = (4 << 30) + 1
    with (root / "sparse").open("wb") as file:
        file.truncate(size)
    # Hashing it twice takes long, so that it is not what it should be shows only at its end.

    class Count(io.RawIOBase):
        length = 0

        def write(self, data: Any) -> int:
            self.length += len(data)
            return len(data)

    digests = Remembering()
    out = Count()
    with pytest.raises(InputChanged, match="sparse"):
        context.write_tar(root, None, out, context.describe(root, digests))  # type: ignore[arg-type]
    assert out.length > size - (2 << 20)


class Remembering(Digests):
    """Takes the word of nobody for a file of 4 GiB, and says something of it."""

    def of(self, path: str, status: os.stat_result) -> str:
        return "0" * 64 if status.st_size >= 1 << 32 else super().of(path, status)


def test_a_context_that_changes_while_it_is_hashed_is_read_once_more(root: Path) -> None:
    class Restless(Digests):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.times = times

        def of(self, path: str, status: os.stat_result) -> str:
            if path.endswith("/b") and self.times:
                self.times -= 1
                other_order(root)
            return super().of(path, status)

    expected = context.describe(root)
    assert context.describe(root, Restless(1)) == expected
    with pytest.raises(InputChanged, match=r"/b: changed while it was being read"):
        context.describe(root, Restless(2))


def test_what_cannot_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, who can read everything.
    def refuse(path: Any, *args: Any, **more: Any) -> Any:
        if str(path).endswith("/b"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, *args, **more)

    real = os.open
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SpecError, match=r"/b: cannot be read: Permission denied") as caught:
        context.describe(root)
    assert ".dockerignore" in str(caught.value.hint)


def test_links_that_lead_in_circles_or_nowhere_are_links(root: Path) -> None:
    (root / "round").symlink_to("round")
    (root / "up").symlink_to("..")
    (root / "nowhere").symlink_to("/no/such/file")
    described = context.describe(root)
    assert all(described[name].startswith("link ") for name in ("round", "up", "nowhere"))


def test_a_context_that_holds_what_is_built_is_refused_unless_it_is_ignored(root: Path) -> None:
    artifacts = root / "deep/artifacts"
    artifacts.mkdir(parents=True)
    (artifacts / "store").touch()
    with pytest.raises(SpecError, match=r"deep/artifacts: a build context cannot hold what"):
        context.describe(root, barred=[artifacts])
    (root / ".dockerignore").write_text("**/artifacts\n")
    assert "deep" in context.describe(root, barred=[artifacts])


def test_directories_that_go_too_deep_are_refused(root: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        with pytest.raises(SpecError, match=r"nested too deeply|File name too long"):
            context.describe(root)
    finally:
        # Python's own ways to remove a tree fail at such a depth.
        subprocess.run(["rm", "-r", str(root)], check=True)


VALUES: list[Json] = [
    None,
    True,
    0,
    -(2**63),
    "",
    'é\u2028"\\\udcff',
    [],
    [1, [2, {}]],
    {"b": 1, "a": {"d": [None], "c": "x"}},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_canonical_json_reads_back_as_the_same_value(value: Json) -> None:
    data = canonical(value)
    assert json.loads(data) == value
    assert canonical(json.loads(data)) == data
    assert data.isascii()
    assert data.count(b"\n") == 1


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"a": 1, "b": {"c": 1, "d": 2}}) == canonical({"b": {"d": 2, "c": 1}, "a": 1})


def test_canonical_json_of_different_values_differs() -> None:
    assert len({canonical(value) for value in [*VALUES, False, "0", "null", [[]], {"": None}]}) == (
        len(VALUES) + 5
    )


def test_a_fingerprint_covers_kind_schema_and_inputs() -> None:
    prints = [fingerprint("a", 1, {}), fingerprint("b", 1, {}), fingerprint("a", 2, {})]
    assert len({*prints, fingerprint("a", 1, [])}) == 4


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
