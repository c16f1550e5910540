"""What artifacts are called."""

from __future__ import annotations

import pytest

from fcbuild.errors import SpecError
from fcbuild.publish import reference
from fcbuild.publish.reference import Reference

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost/a", Reference("localhost", "a")),
        ("localhost:5000/a/b-c:1.0", Reference("localhost:5000", "a/b-c", "1.0")),
        ("registry.example.com/a__b:T", Reference("registry.example.com", "a__b", "T")),
        (f"r.example.com/a@sha256:{HEX}", Reference("r.example.com", "a", None, f"sha256:{HEX}")),
        (f"r.example.com/a:t@sha256:{HEX}", Reference("r.example.com", "a", "t", f"sha256:{HEX}")),
        ("[::1]:5000/a", Reference("[::1]:5000", "a")),
    ],
)
def test_a_reference_is_read_and_written_alike(text: str, expected: Reference) -> None:
    assert reference.parse(text) == expected
    assert str(expected) == text


def test_a_digest_counts_more_than_a_tag_and_nothing_means_latest() -> None:
    assert reference.parse("localhost/a").version == "latest"
    assert reference.parse("localhost/a:t").version == "t"
    assert reference.parse(f"localhost/a:t@sha256:{HEX}").version == f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("https://localhost/a", "scheme 'https'"),
        ("user/image", "registry 'user'"),
        ("image", "registry 'image'"),
        ("", "registry ''"),
        ("-x.example.com/a", "registry '-x.example.com'"),
        ("localhost:0/a", "registry 'localhost:0'"),
        ("localhost:99999/a", "registry 'localhost:99999'"),
        ("localhost/A", "repository 'A'"),
        ("localhost/", "repository ''"),
        ("localhost/a//b", "repository 'a//b'"),
        ("localhost/../a", r"repository '\.\./a'"),
        (f"localhost/{'a' * 256}", "repository 'aaa"),
        ("localhost/a:", "tag ''"),
        ("localhost/a:-t", "tag '-t'"),
        ("localhost/a:b/c", "tag 'b/c'"),
        ("localhost/a@sha256:12", "digest 'sha256:12'"),
        (f"localhost/a@sha256:{HEX.upper()}", "digest 'sha256:ABAB"),
        ("localhost/a@", "digest ''"),
    ],
)
def test_the_part_that_is_wrong_is_named(text: str, part: str) -> None:
    with pytest.raises(SpecError, match=f"to=.*: {part}.*: expected"):
        reference.parse(text, what="to")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "127.0.0.1:5000", "127.9.9.9", "[::1]:5"]
)
def test_this_machine_is_known(host: str) -> None:
    assert reference.loopback(host)


@pytest.mark.parametrize("host", ["registry.example.com", "10.0.0.1:5000", "127.0.0.1.example.com"])
def test_others_are_not_this_machine(host: str) -> None:
    assert not reference.loopback(host)
