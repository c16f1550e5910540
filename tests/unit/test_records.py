"""Documents of records."""

import pytest

from fcbuild.records import document, parse


def test_a_document_has_a_header_records_and_an_end() -> None:
    found = document("fcbuild-x 2", [("argv", b"/go"), ("argv", b""), ("env", b"A=1\n2")])
    assert found == b"fcbuild-x 2\nargv 3\n/go\nargv 0\n\nenv 5\nA=1\n2\nend 0\n\n"


def test_lengths_are_of_bytes() -> None:
    assert b"a 2\n\xc3\xbc\n" in document("x 1", [("a", "ü".encode())])


RECORDS = [("argv", b"/go"), ("argv", b""), ("env", b"A=1\n2\nend 0\n\n"), ("data", b"\0\xff")]


def test_what_was_written_can_be_read() -> None:
    assert parse(document("fcbuild-x 2", RECORDS)) == ("fcbuild-x 2", RECORDS)
    assert parse(document("fcbuild-x 2", [])) == ("fcbuild-x 2", [])


def test_nothing_may_be_missing_and_nothing_may_follow() -> None:
    whole = document("fcbuild-x 2", RECORDS)
    for size in range(len(whole)):
        with pytest.raises(ValueError, match="damaged at byte"):
            parse(whole[:size])
    for more in (b"\n", b"end 0\n\n", b"x 1\ny\n"):
        with pytest.raises(ValueError, match="damaged at byte"):
            parse(whole + more)


@pytest.mark.parametrize(
    "record",
    [
        b"a 01\nx\n",
        b"a -1\n\n",
        b"A 1\nx\n",
        b"a 1\nxy",
        b"a 1 \nx\n",
        b"end 1\nx\n",
        b"a\n",
    ],
)
def test_a_record_in_another_form_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="damaged at byte"):
        parse(b"fcbuild-x 2\n" + record + b"end 0\n\n")
