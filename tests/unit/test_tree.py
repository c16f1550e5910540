"""Where paths lead to in an image."""

from __future__ import annotations

import pytest

from fcbuild.build.tree import Node, Tree, printable
from fcbuild.errors import BuildError


def tree(**targets: str) -> Tree:
    """A tree of a few directories and files, and links: name -> target."""
    found = Tree(lambda node, offset, size: b"0123456789"[: node.size][offset : offset + size])
    for name in ("usr", "usr/bin", "etc", "proc"):
        found.nodes[name] = Node("directory", 0o755)
    found.nodes["usr/bin/tool"] = Node("file", 0o755, size=5)
    for name, target in targets.items():
        found.nodes[name.replace("__", "/")] = Node("link", 0o777, target)
    return found


LINKS = {
    "bin": "usr/bin",
    "absolute": "/usr/bin",
    "twice": "bin/./tool",
    "etc__up": "../../../usr/../bin/tool",
    "round": "about",
    "about": "round",
    "self": "self/x",
    "gone": "/no/such",
    "shadow": "/../etc//",
}


@pytest.mark.parametrize(
    ("path", "base", "name"),
    [
        ("/", "/", ""),
        ("/usr/bin/tool", "/", "usr/bin/tool"),
        ("//usr/./bin//tool/", "/", "usr/bin/tool"),
        ("/bin/tool", "/", "usr/bin/tool"),
        ("/absolute/tool", "/", "usr/bin/tool"),
        ("/twice", "/", "usr/bin/tool"),
        ("/etc/up", "/", "usr/bin/tool"),
        ("tool", "/bin", "usr/bin/tool"),
        ("../tool", "/bin/x", "usr/bin/tool"),
        ("../../../..", "/usr/bin", ""),
        ("/shadow/up", "/", "usr/bin/tool"),
        ("/gone/x", "/", "no/such/x"),
        ("/usr/no/../bin", "/", "usr/bin"),
        ("/round", "/", None),
        ("/self", "/", None),
    ],
)
def test_links_and_dots_are_followed_within_the_image(
    path: str, base: str, name: str | None
) -> None:
    assert tree(**LINKS).resolve(path, base) == name


def test_many_links_in_a_row_have_an_end() -> None:
    chain = {f"l{number}": f"l{number + 1}" for number in range(60)}
    assert tree(**chain).resolve("/l20") == "l60"
    assert tree(**chain).resolve("/l19") is None


def test_what_is_found_is_what_a_path_leads_to() -> None:
    found = tree(**LINKS)
    assert found.find("/twice") is found.nodes["usr/bin/tool"]
    assert found.find("/gone") is None
    assert found.find("/round") is None


@pytest.mark.parametrize(
    ("path", "limit", "text"),
    [
        ("/usr/bin/tool", 5, "01234"),
        ("/twice", 5, "01234"),
        ("/usr/bin/tool", 4, ""),
        ("/usr/bin", 5, ""),
        ("/gone", 5, ""),
    ],
)
def test_the_text_of_a_file(path: str, limit: int, text: str) -> None:
    assert tree(**LINKS).text(path, limit) == text


@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("/usr/bin", []),
        ("/", []),
        ("/usr/lib/x", ["usr/lib", "usr/lib/x"]),
        ("/bin/x", ["usr/bin/x"]),
        ("/gone/x", ["no", "no/such", "no/such/x"]),
        ("/usr/../new", ["new"]),
    ],
)
def test_missing_directories_are_named_where_they_belong(path: str, made: list[str]) -> None:
    assert list(tree(**LINKS).missing(path)) == made


@pytest.mark.parametrize("path", ["/usr/bin/tool", "/usr/bin/tool/x", "/twice/x"])
def test_a_file_in_the_way_of_a_directory_is_named(path: str) -> None:
    with pytest.raises(BuildError, match=r"the image has a file /usr/bin/tool"):
        list(tree(**LINKS).missing(path))


def test_a_directory_behind_endless_links_is_refused() -> None:
    with pytest.raises(BuildError, match="/round/x cannot be a directory"):
        list(tree(**LINKS).missing("/round/x"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [("/a b/é", "/a b/é"), ("/a\x1b[2J", "/a\\x1b[2J"), ("/\udcff\n'", "/\\udcff\\n'")],
)
def test_names_are_shown_without_what_a_terminal_would_obey(name: str, shown: str) -> None:
    assert printable(name) == shown
