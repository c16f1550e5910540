"""What `doit inspect` prints: safe on a terminal whatever is in the image, raw in a pipe."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest

from fcbuild.errors import ImageError
from fcbuild.look import inspection, text
from fcbuild.look.tree import Tree
from fcbuild.records import document
from fcbuild.store import Artifact
from tests.entries import MadeUp, directory, entry, file, symlink, tree

ARTIFACT = Artifact("rootfs", "web", "0123456789abcdef", Path("/"), {"rootfs.ext4": "aa"}, {})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(root: Tree, path: str | None = None, *, as_json: bool = False) -> str:
    out = Terminal()
    inspection.show(ARTIFACT, root, path, as_json=as_json, out=out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("plain", "plain"),
        ("with space ü 日本", "with space ü 日本"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("new\nline", r"new\x0aline"),
        ("back\\x0aslash", r"back\\x0aslash"),
        ("\udcff", r"\xff"),
        ("\ud800", r"\xed\xa0\x80"),
        ("\u202eevil", r"\xe2\x80\xaeevil"),
        ("\x9b1m", r"\xc2\x9b1m"),
    ],
)
def test_no_name_does_anything_to_a_terminal(name: str, seen: str) -> None:
    assert text.visible(name) == seen
    assert seen.isprintable()


def test_content_on_a_terminal_keeps_its_lines_and_nothing_else() -> None:
    content = "a\tb\n\x1b]0;title\x07 c:\\dir ü\r\n"
    root = tree(file("/f", size=1), f=content)
    assert shown(root, "/f") == "a\tb\n\\x1b]0;title\\x07 c:\\dir ü\\x0d\n"


def test_a_character_that_is_cut_by_a_piece_is_whole() -> None:
    pieces = "aü\n".encode()
    root = Tree(MadeUp([directory("/"), file("/f")], {"/f": [pieces[:2], pieces[2:], b"\xc3"]}))
    assert shown(root, "/f") == "aü\n\\xc3"


def test_content_in_a_pipe_is_what_it_is() -> None:
    content = bytes(range(256))
    root = Tree(MadeUp([directory("/"), file("/f")], {"/f": [content]}))
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, "utf-8")
    inspection.show(ARTIFACT, root, "/f", as_json=False, out=out)
    assert raw.getvalue() == content


LISTED = tree(
    file("/d/secret", mode=stat.S_IFREG | 0o4640, uid=0, gid=42, size=1234, mtime=1000000000),
    file("/d/\x1b[2J", uid=9999, xattrs={"security.capability": b"x", "user.\n": b""}),
    file("/d/listed", xattrs={"system.posix_acl_access": b"x"}),
    entry("/d/null", mode=stat.S_IFCHR | 0o666, device=(1, 3)),
    symlink("/d/z", "to\nnowhere"),
    directory("/d/below"),
    file("/d/below/not-shown"),
    etc__passwd="root:x:0:0:::\n",
    etc__group="root:x:0:\nshadow:x:42:\n",
)


def test_a_directory_is_listed_as_ls_does() -> None:
    assert shown(LISTED, "/d").splitlines() == [
        r"-rw-r--r--  1 9999:0 9999:root      0 1970-01-01 00:00:00 \x1b[2J"
        r" [security.capability user.\x0a]",
        "drwxr-xr-x  2 0:0    root:root   4096 1970-01-01 00:00:00 below",
        "-rw-r--r--+ 1 0:0    root:root      0 1970-01-01 00:00:00 listed",
        "crw-rw-rw-  1 0:0    root:root   1, 3 1970-01-01 00:00:00 null",
        "-rwSr-----  1 0:42   root:shadow 1234 2001-09-09 01:46:40 secret",
        r"lrwxrwxrwx  1 0:0    root:root     10 1970-01-01 00:00:00 z -> to\x0anowhere",
    ]


def test_what_is_neither_file_nor_directory_is_listed_alone() -> None:
    assert shown(LISTED, "/d/null").count("\n") == 1


def test_entries_for_machines() -> None:
    found = json.loads(shown(LISTED, "/d", as_json=True))
    assert found["path"] == "/d"
    listed = {item["path"]: item for item in found["entries"]}
    assert listed.keys() == {
        f"/d/{n}" for n in ("\x1b[2J", "below", "listed", "null", "secret", "z")
    }
    secret = listed["/d/secret"]
    assert (secret["mode"], secret["user"], secret["group"]) == ("4640", "root", "shadow")
    assert listed["/d/\x1b[2J"]["xattrs"] == {"security.capability": "78", "user.\n": ""}
    assert listed["/d/\x1b[2J"]["user"] is None
    assert (listed["/d/null"]["device"], listed["/d/z"]["target"]) == ([1, 3], "to\nnowhere")
    assert json.loads(shown(LISTED, "/etc/passwd", as_json=True))["sha256"].startswith("e09d2e")


BOOT = document(
    "fcbuild-boot 2",
    [("argv", b"nginx"), ("argv", b"-g"), ("argv", b"daemon off;"), ("env", b"A=\x1b[1m")],
).decode()


def test_a_summary_has_all_that_a_glance_needs() -> None:
    many = "".join(f"user-number-{n}:x:{n}:0:::\n" for n in range(20))
    root = tree(
        file("/su", mode=stat.S_IFREG | 0o4755),
        file("/ping", xattrs={"security.capability": b""}),
        symlink("/link", "su"),
        **{".fcbuild__boot": BOOT},
        etc__passwd=many,
        var__lib__dpkg__status="Package: a\nStatus: install ok installed\nVersion: 1\n",
    )
    lines = shown(root).splitlines()
    assert lines[0] == "web  0123456789ab  (read with made-up)"
    assert "size          300 MiB: 256 MiB used, 44 MiB free" in lines
    assert "inodes        9000: 7000 used, 2000 free" in lines
    counted = [line for line in lines if line.startswith("entries")]
    assert counted == [
        "entries       5 files, 6 directories, 1 symbolic link, 1 setuid or setgid,"
        " 1 with capabilities"
    ]
    assert any(line.startswith("users         20: user-number-0, user-number-1,") for line in lines)
    assert max(map(len, lines)) <= 100
    assert "packages      1 by dpkg" in lines
    assert "boot config   version 2" in lines
    assert "  argv        nginx -g 'daemon off;'" in lines
    assert r"  env         A=\x1b[1m" in lines


def test_a_summary_of_an_empty_image() -> None:
    said = shown(tree())
    assert "no /etc/passwd" in said and "no database of dpkg or apk" in said
    assert "boot config" not in said


def test_a_summary_for_machines() -> None:
    root = tree(**{".fcbuild__boot": BOOT})
    found = json.loads(shown(root, as_json=True))
    assert found["image"] == "web" and found["free"] == 44 << 20
    assert found["boot"]["version"] == 2
    assert found["boot"]["records"]["argv"] == ["nginx", "-g", "daemon off;"]


def test_a_damaged_boot_config_is_said_to_be_so() -> None:
    with pytest.raises(ImageError, match=r"/\.fcbuild/boot: damaged at byte"):
        shown(tree(**{".fcbuild__boot": BOOT[:-1]}))


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1434, "1.4 KiB"),
        (300 << 20, "300 MiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_amounts(size: int, said: str) -> None:
    assert text.amount(size) == said
