"""Finding one's way in a root filesystem as a guest would, and what is made of its databases."""

from __future__ import annotations

import pytest

from fcbuild.errors import ImageError
from fcbuild.look import bootrecords, packages
from fcbuild.records import document
from tests.entries import directory, file, symlink, tree

ROOT = tree(
    directory("/etc/nginx"),
    file("/etc/nginx/nginx.conf"),
    symlink("/bin", "usr/bin"),
    file("/usr/bin/sh"),
    symlink("/usr/bin/absolute", "/etc/nginx"),
    symlink("/etc/up", "../usr/../bin/sh"),
    symlink("/etc/out", "../../../../etc/nginx"),
    symlink("/etc/dangling", "/nowhere/at/all"),
    symlink("/loop", "loop"),
    symlink("/one", "two"),
    symlink("/two", "one/x"),
    file("/new\nline/a"),
)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", "/"),
        ("", "/"),
        ("/etc/nginx", "/etc/nginx"),
        ("etc//nginx/./", "/etc/nginx"),
        ("/bin/sh", "/usr/bin/sh"),
        ("/bin", "/usr/bin"),
        ("/bin/absolute/nginx.conf", "/etc/nginx/nginx.conf"),
        ("/etc/up", "/usr/bin/sh"),
        ("/etc/out", "/etc/nginx"),
        ("/../../etc", "/etc"),
        ("/new\nline", "/new\nline"),
    ],
)
def test_links_are_followed_inside_the_root(path: str, found: str) -> None:
    assert ROOT.find(path).path == found


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/etc/ngnix/x", r"/etc has no 'ngnix' \(did you mean nginx\?\)"),
        ("/ect", r"/ has no 'ect' \(did you mean etc\?\)"),
        ("/etc/dangling", "/ has no 'nowhere'"),
        ("/usr/bin/sh/x", "/usr/bin/sh is not a directory"),
        ("/loop", "more than 40 links on the way, at /loop"),
        ("/one", "more than 40 links on the way"),
    ],
)
def test_a_path_that_leads_nowhere_says_how_far_it_led(path: str, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        ROOT.find(path)


def test_children_are_those_of_one_directory() -> None:
    assert [entry.path for entry in ROOT.children("/etc/nginx")] == ["/etc/nginx/nginx.conf"]
    assert "/" not in [entry.path for entry in ROOT.children("/")]


def test_content_of_what_is_no_file_is_none() -> None:
    found = tree(directory("/etc/passwd"), symlink("/etc/group", "group"))
    assert found.content("/etc/passwd") is None
    assert (found.users, found.groups) == ({}, {})


def test_a_database_of_an_absurd_size_is_not_read() -> None:
    with pytest.raises(ImageError, match="/etc/passwd has 4398046511104 bytes"):
        tree(file("/etc/passwd", size=1 << 42)).content("/etc/passwd")


def test_names_come_from_the_images_own_files() -> None:
    text = "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\nbad\n:x:5:\nb:x:many:1::\nc:x:9:1::\n"
    found = tree(etc__passwd=text, etc__group="root:x:0:\nstaff:x:50:a,b\nlate:x:51")
    assert found.users == {0: "root", 9: "c"}
    assert found.groups == {0: "root", 50: "staff"}


STATUS = """Package: base-files
Status: install ok installed
Architecture: amd64
Version: 13.8
Description: files
 Version: of a continued line
 .

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12

Package: libc6
Status: hold ok installed
Architecture: i386
Version: 2.41-12

Package: gone
Status: deinstall ok config-files
Version: 1
"""

INSTALLED = """C:Q1abc=
P:musl
V:1.2.5-r9
T:the C library: V:0
F:lib

P:busybox
V:1.37.0-r12
"""


def test_packages_of_dpkg_and_apk() -> None:
    found = packages.installed(
        tree(var__lib__dpkg__status=STATUS, lib__apk__db__installed=INSTALLED)
    )
    assert found == {
        ("dpkg", "base-files"): "13.8",
        ("dpkg", "libc6:amd64"): "2.41-12",
        ("dpkg", "libc6:i386"): "2.41-12",
        ("apk", "musl"): "1.2.5-r9",
        ("apk", "busybox"): "1.37.0-r12",
    }
    assert packages.installed(tree()) == {}


BOOT = [
    ("argv", b"/go"),
    ("argv", b"a b"),
    ("env", b"A=1"),
    ("env", b"B=\xff\n"),
    ("workdir", b"/"),
    ("uid", b"0"),
    ("stop-signal", b"15"),
    ("stop-grace-ms", b"1500"),
    ("mmds", b""),
]


@pytest.mark.parametrize("version", [1, 2])
def test_a_boot_config_is_read_back(version: int) -> None:
    found = bootrecords.parse(document(f"fcbuild-boot {version}", BOOT))
    assert found.version == version
    assert found.values["argv"] == ("/go", "a b")
    assert found.values["env"] == ("A=1", "B=\udcff\n")
    assert list(bootrecords.readable(found)) == [
        ("argv", "/go 'a b'"),
        ("env", "A=1"),
        ("env", "B=\udcff\n"),
        ("workdir", "/"),
        ("uid", "0"),
        ("stop-signal", "15 (SIGTERM)"),
        ("stop-grace", "1.5 s"),
        ("mmds", "yes"),
    ]


@pytest.mark.parametrize("number", [b"64", b"35", b"x"])
def test_a_signal_without_a_name_is_shown_too(number: bytes) -> None:
    found = bootrecords.parse(document("fcbuild-boot 2", [("stop-signal", number)]))
    (line,) = bootrecords.readable(found)
    assert line[1].startswith(number.decode())


@pytest.mark.parametrize(
    "text", [b"", b"fcbuild-boot 3\nend 0\n\n", b"fcbuild-instance 2\nend 0\n\n", b"x\nend 0\n\n"]
)
def test_another_document_is_refused(text: bytes) -> None:
    with pytest.raises(ImageError, match=r"/\.fcbuild/boot"):
        bootrecords.parse(text)
