"""Documents of records."""

from fcbuild.records import document


def test_a_document_has_a_header_records_and_an_end() -> None:
    found = document("fcbuild-x 2", [("argv", b"/go"), ("argv", b""), ("env", b"A=1\n2")])
    assert found == b"fcbuild-x 2\nargv 3\n/go\nargv 0\n\nenv 5\nA=1\n2\nend 0\n\n"


def test_lengths_are_of_bytes() -> None:
    assert b"a 2\n\xc3\xbc\n" in document("x 1", [("a", "ü".encode())])
