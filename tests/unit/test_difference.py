"""Comparing two root filesystems, and telling it in few lines."""

from __future__ import annotations

import io
import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fcbuild.look import difference
from fcbuild.look.difference import Contents, Difference, compare
from fcbuild.look.entry import Entry
from fcbuild.store import Artifact
from tests.entries import directory, entry, file, symlink, tree


def contents(*entries: Entry, **fields: Any) -> Contents:
    return Contents(entries={entry.path: entry for entry in entries}, **fields)


def one(old: Entry, new: Entry, a: str = "1", b: str = "1") -> Difference:
    return compare(contents(old, digests={old.path: a}), contents(new, digests={new.path: b}))


PLAIN = file("/f", size=3, inode=7, mtime=5)


def test_the_same_is_no_difference() -> None:
    assert not one(PLAIN, PLAIN)
    # Where a file lies is no difference; neither is the size of a directory.
    assert not one(PLAIN, replace(PLAIN, inode=8))
    assert not one(directory("/d"), directory("/d", size=8192, links=5))


@pytest.mark.parametrize(
    ("change", "aspect", "said"),
    [
        ({"size": 4}, "content", "content, 3 -> 4 bytes"),
        ({"mode": stat.S_IFREG | 0o4755}, "mode", "mode 0644 -> 4755"),
        ({"uid": 33}, "owner", "owner 0:0 -> 33:0"),
        ({"gid": 33}, "owner", "owner 0:0 -> 0:33"),
        ({"xattrs": {"user.\n": b"x"}}, "xattrs", r"xattrs user.\x0a"),
        ({"links": 2}, "links", "links 1 -> 2"),
    ],
)
def test_each_field_is_an_aspect(change: dict[str, Any], aspect: str, said: str) -> None:
    (found,) = one(PLAIN, replace(PLAIN, **change)).changed
    assert found.aspects == (aspect,)
    assert difference._change(found) == said


def test_bytes_are_told_apart_where_sizes_and_times_are_the_same() -> None:
    (found,) = one(PLAIN, PLAIN, "1", "2").changed
    assert found.aspects == ("content",)


def test_another_target_device_or_type() -> None:
    (found,) = one(symlink("/l", "a"), symlink("/l", "b")).changed
    assert difference._change(found) == "target a -> b"
    null = entry("/n", mode=stat.S_IFCHR | 0o666, device=(1, 3))
    (found,) = one(null, replace(null, device=(1, 5))).changed
    assert found.aspects == ("device",)
    (found,) = one(PLAIN, symlink("/f", "b")).changed
    assert found.aspects == ("type", "mode")
    assert difference._change(found) == "type file -> link, mode 0644 -> 0777"


def test_times_alone_are_kept_apart() -> None:
    found = one(PLAIN, replace(PLAIN, mtime=6))
    assert (found.changed, [e.path for e in found.touched]) == ((), ["/f"])
    both = one(PLAIN, replace(PLAIN, mtime=6, uid=1))
    assert (len(both.changed), both.touched) == (1, ())


def test_what_came_and_went_in_the_order_of_a_walk() -> None:
    a, b = contents(file("/a"), file("/x")), contents(file("/b!"), file("/b/c"), directory("/b"))
    found = compare(a, b)
    assert [e.path for e in found.removed] == ["/a", "/x"]
    assert [e.path for e in found.added] == ["/b", "/b/c", "/b!"]


def test_packages_and_boot_config() -> None:
    found = compare(
        contents(
            packages={("dpkg", "curl"): "1", ("dpkg", "old"): "1", ("dpkg", "same"): "1"},
            boot={"argv": ("/go", "a b"), "env": ("A=1", "B=1"), "uid": ("0",), "mmds": ("",)},
        ),
        contents(
            packages={("dpkg", "curl"): "2", ("dpkg", "new"): "1", ("dpkg", "same"): "1"},
            boot={"argv": ("/go",), "env": ("A=1", "B=\x1b"), "uid": ("0",), "workdir": ("/",)},
        ),
    )
    assert list(difference.lines(found, everything=False)) == [
        "boot config: 5",
        "  ~ argv: /go 'a b' -> /go",
        "  - env: B=1",
        r"  + env: B=\x1b",
        "  - mmds",
        "  + workdir: /",
        "packages: 3",
        "  ~ curl 1 -> 2 (dpkg)",
        "  + new 1 (dpkg)",
        "  - old 1 (dpkg)",
    ]


def test_values_in_another_order_are_a_difference() -> None:
    found = compare(contents(boot={"env": ("A=1", "B=1")}), contents(boot={"env": ("B=1", "A=1")}))
    assert "  ~ env: in another order" in difference.lines(found, everything=False)


def many(number: int) -> Contents:
    return contents(*(file(f"/{n:04d}") for n in range(number)))


def test_long_groups_are_cut_unless_all_is_asked_for() -> None:
    found = compare(contents(), many(500))
    lines = list(difference.lines(found, everything=False))
    assert lines[0] == "added: 500"
    assert len(lines) == 1 + difference.SHOWN + 1
    assert lines[-1] == "  ... and 480 more (--all shows them)"
    assert len(list(difference.lines(found, everything=True))) == 501


def test_a_whole_directory_is_one_line() -> None:
    new = contents(
        directory("/d"), file("/d/a"), directory("/d/b"), file("/d/b/c"), file("/d!"),
        directory("/e\n"),
    )  # fmt: skip
    found = compare(contents(), new)
    assert list(difference.lines(found, everything=False)) == [
        "added: 6",
        "  + /d/ with 3 entries",
        "  + /d!",
        r"  + /e\x0a/",
    ]
    assert len(list(difference.lines(found, everything=True))) == 7


def artifact(name: str) -> Artifact:
    return Artifact("rootfs", name, "0123456789abcdef", Path("/"), {}, {})


def shown(found: Difference, *, everything: bool = False, as_json: bool = False) -> str:
    out = io.StringIO()
    difference.show(
        artifact("one"), artifact("two"), found, everything=everything, as_json=as_json, out=out
    )
    return out.getvalue()


def test_no_difference_is_said_to_be_none() -> None:
    assert shown(Difference()).splitlines()[-1] == "no difference"


def test_times_are_counted_and_listed_when_all_is_asked_for() -> None:
    found = one(PLAIN, replace(PLAIN, mtime=6))
    assert shown(found).splitlines()[-1] == "another modification time only: 1"
    assert shown(found, everything=True).splitlines()[-1] == "  ~ /f"


def test_a_difference_for_machines() -> None:
    a, b = contents(PLAIN, file("/gone")), contents(replace(PLAIN, uid=1), file("/new"))
    found = json.loads(shown(compare(a, b), as_json=True))
    assert (found["a"]["image"], found["b"]["image"]) == ("one", "two")
    assert [item["path"] for item in found["added"]] == ["/new"]
    assert [item["path"] for item in found["removed"]] == ["/gone"]
    (change,) = found["changed"]
    assert (change["path"], change["aspects"]) == ("/f", ["owner"])
    assert (change["a"]["uid"], change["b"]["uid"]) == (0, 1)


def test_the_contents_of_a_tree() -> None:
    boot = "fcbuild-boot 2\nuid 1\n0\nend 0\n\n"
    status = "Package: a\nStatus: install ok installed\nVersion: 1\n"
    a = difference.contents(tree(**{".fcbuild__boot": boot}, var__lib__dpkg__status=status))
    b = difference.contents(tree(var__lib__dpkg__status=status.replace("1", "2")))
    found = compare(a, b)
    assert found.boot == {"uid": (("0",), ())}
    assert found.packages == {("dpkg", "a"): ("1", "2")}
    assert [change.new.path for change in found.changed] == ["/var/lib/dpkg/status"]
    assert [entry.path for entry in found.removed] == ["/.fcbuild", "/.fcbuild/boot"]
