"""All that is installed in an image, from databases and metadata that are a stranger's."""

from __future__ import annotations

import json

import pytest

from fcbuild import packages
from fcbuild.errors import ImageError
from fcbuild.look import inventory
from fcbuild.packages import Package
from tests.entries import file, symlink, tree

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.41-1)
Version: 2.41-12
Description: a
 Package: not one

Package: libc6
Status: hold ok installed
Architecture: i386
Source: glibc
Version: 2.41-12

Package: gone
Status: deinstall ok config-files
Version: 1
"""
APK = "P:musl-dev\nV:1.2.5-r9\nA:x86_64\no:musl\n\nP:busybox\nV:1.37.0-r12\nA:x86_64\no:busybox\n"


def test_packages_come_with_architecture_and_source() -> None:
    found = inventory.take(tree(var__lib__dpkg__status=STATUS, lib__apk__db__installed=APK))
    assert found.packages == {
        Package("deb", "libc6", "2.41-12", "amd64", "glibc", "2.41-1"): ("/var/lib/dpkg/status",),
        Package("deb", "libc6", "2.41-12", "i386", "glibc"): ("/var/lib/dpkg/status",),
        Package("apk", "musl-dev", "1.2.5-r9", "x86_64", "musl"): ("/lib/apk/db/installed",),
        Package("apk", "busybox", "1.37.0-r12", "x86_64"): ("/lib/apk/db/installed",),
    }
    assert list(found.packages) == sorted(found.packages)
    assert not found.unreadable


def test_an_image_without_dpkg_has_a_file_for_each_package() -> None:
    part = "Package: tzdata\nVersion: 2026f-0\nArchitecture: all\n"
    root = tree(
        **{"var__lib__dpkg__status.d__tzdata": part, "var__lib__dpkg__status.d__t.md5sums": "x"}
    )
    path = "/var/lib/dpkg/status.d/tzdata"
    assert inventory.take(root).packages == {Package("deb", "tzdata", "2026f-0", "all"): (path,)}


SITE = "usr__lib__python3__dist-packages__"


def test_packages_of_python_wherever_their_metadata_is() -> None:
    root = tree(
        **{
            f"{SITE}a-1.dist-info__METADATA": "Metadata-Version: 2.1\r\nName: A.b_c\r\nVersion: 1"
            "\r\n\r\nVersion: of the description\r\n",
            f"{SITE}d-2.egg-info__PKG-INFO": "Name: d\nVersion: 2\nDescription: x\n Name: e\n",
            f"{SITE}f-3.egg-info": "Name: f\nVersion: 3\n",
            "opt__venv__lib__f.egg-info": "Name: f\nVersion: 3\n",
            f"{SITE}a-1.dist-info__RECORD": "Name: no\nVersion: 1\n",
            "srv__METADATA": "Name: no\nVersion: 1\n",
        }
    )
    found = inventory.take(root).packages
    assert {one[1:3]: paths for one, paths in found.items()} == {
        ("A.b_c", "1"): ("/usr/lib/python3/dist-packages/a-1.dist-info/METADATA",),
        ("d", "2"): ("/usr/lib/python3/dist-packages/d-2.egg-info/PKG-INFO",),
        ("f", "3"): (
            "/opt/venv/lib/f.egg-info",
            "/usr/lib/python3/dist-packages/f-3.egg-info",
        ),
    }


def described(name: object, version: object) -> str:
    return json.dumps({"name": name, "version": version, "dependencies": {"x": "1"}})


def test_packages_of_npm_are_those_that_are_installed() -> None:
    root = tree(
        **{
            "app__package.json": described("app", "0"),
            "app__node_modules__a__package.json": described("a", "1.0.0"),
            "app__node_modules__a__node_modules__@s__b__package.json": described("@s/b", "2.0.0"),
            "app__node_modules__a__test__package.json": described("fixture", "1"),
            "app__node_modules__@s__package.json": described("scope", "1"),
        }
    )
    assert [one[:3] for one in inventory.take(root).packages] == [
        ("npm", "@s/b", "2.0.0"),
        ("npm", "a", "1.0.0"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "nonsense",
        "[]",
        '"a"',
        '{"name": "a"}',
        described(1, "1"),
        described("a", ["1"]),
        described("", "1"),
        described("a\n", "1"),
        described("a b", "1"),
        described("a\x1b[2J", "1"),
        described("a", "1" * 300),
        described("\ud800", "1"),
        '{"name": "a", "version": "' + "1" * (5 << 20) + '"}',
        '{"version": ' + "1" * 10_000 + ', "name": "a"}',
    ],
    ids=lambda text: text[:20],
)
def test_metadata_that_makes_no_sense_is_named_as_such(text: str) -> None:
    name = "n__node_modules__a__package.json"
    root = tree(file("/n/node_modules/a/package.json", size=len(text)), **{name: text})
    found = inventory.take(root)
    assert not found.packages
    assert found.unreadable == ("/n/node_modules/a/package.json",)


@pytest.mark.parametrize(
    "text", ["", "Name: a\n", "\n\nName: a\nVersion: 1\n", "Name: \nVersion: 1"]
)
def test_metadata_of_python_without_a_name_or_version_is_named_as_such(text: str) -> None:
    found = inventory.take(tree(**{"x.dist-info__METADATA": text}))
    assert (dict(found.packages), found.unreadable) == ({}, ("/x.dist-info/METADATA",))


def test_a_database_that_lies_does_not_hide_the_others() -> None:
    status = "Package: a\x00b\nStatus: install ok installed\nVersion: 1\n\n" + STATUS
    found = inventory.take(tree(var__lib__dpkg__status=status))
    assert len(found.packages) == 2
    assert found.unreadable == ("/var/lib/dpkg/status",)


def test_a_link_to_metadata_is_no_package_of_its_own() -> None:
    root = tree(symlink("/n/node_modules/a/package.json", "/etc/passwd"), etc__passwd="{}")
    assert inventory.take(root) == ({}, {}, ())


def test_more_packages_than_anybody_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "MAX_PACKAGES", 3)
    text = "".join(f"P:a{n}\nV:1\n\n" for n in range(4))
    with pytest.raises(ImageError, match="more than 3 packages"):
        inventory.take(tree(lib__apk__db__installed=text))


def test_the_distribution_is_what_os_release_says() -> None:
    text = (
        '# a\nID=debian\nVERSION_ID="13"\nPRETTY_NAME=\'Debian 13\'\nX Y=1\nBAD="\x1b"\nID=other\n'
    )
    root = tree(
        symlink("/etc/os-release", "../usr/lib/os-release"), **{"usr__lib__os-release": text}
    )
    assert inventory.take(root).distribution == {
        "ID": "debian",
        "VERSION_ID": "13",
        "PRETTY_NAME": "Debian 13",
    }


def test_dpkg_names_a_package_of_several_architectures_by_each() -> None:
    assert dict(packages.dpkg(STATUS)) == {"libc6:amd64": "2.41-12", "libc6:i386": "2.41-12"}
