"""The rules of .dockerignore, one name at a time, as BuildKit judges them."""

from __future__ import annotations

import pytest

from fcbuild.ignore import Rules


def ignored(text: str, name: str) -> bool:
    """Judge a name as a walk from the root comes to it."""
    rules, above, verdict = Rules(text), (), False
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        verdict, above = rules.judge("/".join(parts[:depth]), above)  # type: ignore[assignment]
    return verdict


# Mostly the cases of moby's own tests of its matcher.
@pytest.mark.parametrize(
    ("rule", "name", "expected"),
    [
        ("**", "file", True),
        ("**/", "dir/file", True),
        ("**/**", "dir/file", True),
        ("dir/**", "dir/dir2/file", True),
        ("dir/**", "dir", False),
        ("**/dir", "dir", True),
        ("**/dir", "dir/file", True),
        ("**/dir", "a/b/dir/c/file", True),
        ("**/dir2/*", "dir/dir2/file", True),
        ("**file", "file", True),
        ("**file", "dir/dir/a-file", True),
        ("**/file", "dir/a-file", False),
        ("**/file*txt", "dir/dir/file.txt", True),
        ("**/**/*.txt", "file.txt", True),
        ("**/**/*.txt2", "dir/dir/file.txt", False),
        ("a**/*.txt", "a/dir/dir/file.txt", True),
        ("a/*.txt", "a/dir/file.txt", False),
        ("a/*.txt**", "a/file.txt", True),
        ("a[b-d]e", "ace", True),
        ("a[b-d]e", "aae", False),
        ("a[^b-d]e", "aze", True),
        (".*", ".foo", True),
        (".*", "foo", False),
        ("abc.def", "abcZdef", False),
        ("abc?def", "abcZdef", True),
        ("a?b", "a☺b", True),
        ("a?b", "a/b", False),
        ("**/.foo", "bar.foo", False),
        ("a(b)c/def", "a(b)c/def", True),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "aab", False),
        ("[\\]a]", "]", True),
        ("[x\\-]", "-", True),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
        ("*c", "abc", True),
        ("*", "dir", True),
        ("/a", "a", True),
        ("//a/", "a/b", True),
        ("./a/../b", "b", True),
        ("  spaced name  ", "spaced name", True),
        ("# a comment", "# a comment", False),
        (" # none", "# none", True),
        ("\ufeffa", "a", True),
        ("a\r\n", "a", True),
        (".", "a", False),
        ("/", "a", False),
    ],
)
def test_a_rule_matches_a_name(rule: str, name: str, expected: bool) -> None:
    assert ignored(rule, name) is expected


@pytest.mark.parametrize(
    ("rules", "name", "expected"),
    [
        (["!a.go", "*.go"], "a.go", True),
        (["*.go", "!a.go"], "a.go", False),
        (["docs/", "!docs/README"], "docs/README", False),
        (["docs/", "! docs/README"], "docs/README", False),
        (["**", "!util/web"], "util/web/foo", False),
        (["**", "!util/web", "util/web/foo"], "util/web/foo", True),
        (["*", "!/a"], "a", False),
        (["d", "!d/f", "d"], "d/f", True),
        (["a/b", "!a"], "a/b", False),
        (["*/*", "!sub"], "sub/a", False),
        (["*", "!**/a"], "b/c/a", False),
    ],
)
def test_the_last_rule_that_matches_counts(rules: list[str], name: str, expected: bool) -> None:
    assert ignored("\n".join(rules), name) is expected


@pytest.mark.parametrize("rule", ["!", "[", "[^", "[^bc", "a[", "[]a]", "[-]", "[x-]", "\\"])
def test_what_go_takes_for_no_pattern_is_named_with_its_line(rule: str) -> None:
    with pytest.raises(ValueError, match="line 2: no pattern"):
        Rules(f"ok\n{rule}\n")
