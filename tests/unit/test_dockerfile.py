"""Which images a Dockerfile builds upon, the pinning of ours, and where an instruction stands."""

from __future__ import annotations

import pytest

from fcbuild.dockerfile import Reference, line_of, local_name, pin, references


def names(text: str, **build_args: str) -> list[str]:
    return [ref.name for ref in references(text, build_args)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM alpine:3", ["alpine:3"]),
        ("from alpine", ["alpine"]),
        ("  FROM   alpine  ", ["alpine"]),
        ("FROM scratch", []),
        ("FROM --platform=linux/amd64 alpine AS x", ["alpine"]),
        ("FROM --platform=$BUILDPLATFORM alpine", ["alpine"]),
        ("FROM \\\n  # why\n\n  alpine \\\n  AS x\nFROM X", ["alpine"]),
        ("FROM a\r\nFROM b\r\n", ["a", "b"]),
        ("FROM a AS one\nFROM ONE AS two\nFROM two", ["a"]),
        ("FROM a AS a\nFROM a", ["a"]),
        ("FROM a\nCOPY --from=b /x /y", ["a", "b"]),
        ("FROM a\ncopy --chown=1:1 --from=b /x /y", ["a", "b"]),
        ("FROM a AS s\nFROM b\nCOPY --from=s / /\nCOPY --from=0 / /", ["a", "b"]),
        ("FROM a\nCOPY --from=scratch / /", ["a"]),
        ("FROM a\nRUN --mount=type=bind,from=b,target=/b ls", ["a", "b"]),
        ("FROM a\nRUN --mount=from=b,target=/b --mount=type=cache,target=/c ls", ["a", "b"]),
        ("FROM a\nRUN --network=none \\\n  --mount=target=/b,from=b \\\n ls", ["a", "b"]),
        ("# FROM a\nFROM b", ["b"]),
        ("FROM a\nRUN echo \\\n# FROM b\n  FROM c\n", ["a"]),
        ("FROM a\nRUN <<EOF\nFROM b\nEOF\nFROM c", ["a", "c"]),
        ("FROM a\nRUN <<-EOF\n\tFROM b\n\tEOF\nFROM c", ["a", "c"]),
        ("FROM a\nCOPY <<'one' <<\"two\" /x/\nFROM b\none\nFROM b\ntwo\nFROM c", ["a", "c"]),
        ("FROM a\nRUN 3<<EOF cat\nFROM b\nEOF\nFROM c", ["a", "c"]),
        ("FROM a\nRUN <<EOF\r\nFROM b\r\nEOF\r\nFROM c\r\n", ["a", "c"]),
        ("FROM a\nENV X=<<EOF\nFROM b", ["a", "b"]),
        ("# escape=`\nFROM a\nRUN x `\n  FROM b\nRUN \\\nFROM c", ["a", "c"]),
        ("# syntax=docker/dockerfile:1\n# escape=`\nFROM `\n a", ["docker/dockerfile:1", "a"]),
        ("# escape=`\n#Syntax = d/f:1 x\n# syntax=other\nFROM a", ["d/f:1", "a"]),
        ("# a comment\n# syntax=d/f:1\nFROM a", ["a"]),
        ("\n# syntax=d/f:1\nFROM a", ["a"]),
        ("FROM a\n# escape=`\nRUN x \\\n FROM b", ["a"]),
    ],
)
def test_references(text: str, expected: list[str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("RUN tool --from=b", "an argument of the program, not a flag of RUN"),
        ('CMD ["tool", "--from=b"]', "CMD has no such flag"),
        ("RUN echo --mount=from=b", "flags come first"),
        ("COPY x --from=b", "flags come first"),
        ("LABEL x=--from=b", "LABEL has no such flag"),
    ],
)
def test_only_the_flags_of_run_and_copy_name_images(line: str, why: str) -> None:
    assert names(f"FROM a\n{line}\nFROM c") == ["a", "c"], why


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("RUN echo $((1<<N))", "a shift of the shell"),
        ("RUN cat <<< word", "a here string"),
        ("RUN x \\\\", "an escaped backslash continues nothing"),
        ("RUN echo a\u2028b\x0cc", "only a line feed ends a line"),
    ],
)
def test_what_looks_like_a_heredoc_or_a_line_end_hides_nothing(line: str, why: str) -> None:
    assert names(f"FROM a\n{line}\nFROM c") == ["a", "c"], why


def test_a_from_behind_an_odd_line_separator_is_no_instruction() -> None:
    assert names("FROM a\nRUN echo \u2028FROM b\n") == ["a"]


@pytest.mark.parametrize(
    ("args", "reference", "expected"),
    [
        ("ARG V=3", "a:$V", "a:3"),
        ("ARG V=3", "a:${V}", "a:3"),
        ('ARG V="3"', "a:${V}", "a:3"),
        ("ARG V", "a:${V:-5}", "a:5"),
        ("ARG V=3", "a:${V:-5}", "a:3"),
        ("ARG V=3", "a${V:+:x}", "a:x"),
        ("ARG V", "a${V:+:x}", "a"),
        ("ARG U=a\nARG V=$U:2", "$V", "a:2"),
        ("ARG U=a V=2", "$U:$V", "a:2"),
        ("arg V=3", "a:$V", "a:3"),
    ],
)
def test_args_before_the_first_from_are_expanded(args: str, reference: str, expected: str) -> None:
    assert names(f"{args}\nFROM {reference}") == [expected]


def test_a_build_arg_overrides_the_default_of_a_declared_arg_only() -> None:
    assert names("ARG V=3\nFROM a:$V", V="9") == ["a:9"]
    assert names("FROM a:${V:-3}", V="9") == ["a:3"]


def test_an_arg_of_a_stage_is_not_seen_by_from() -> None:
    assert names("FROM a\nARG V=9\nFROM b:${V:-1}") == ["a", "b:1"]


@pytest.mark.parametrize("reference", ["fcbuild/x", "fcbuild/x:latest"])
def test_latest_is_the_image_itself(reference: str) -> None:
    assert local_name(reference) == "x"


def test_pin_replaces_references_and_keeps_every_other_character() -> None:
    text = (
        "# syntax=docker/dockerfile:1\t\r\n"
        "# fcbuild/one in a comment\r\n"
        "ARG BASE=fcbuild/one\r\n"
        "FROM   $BASE \\\r\n # fcbuild/one\r\n  AS Build\r\n"
        "RUN --mount=type=bind,from=fcbuild/two:latest,target=/x echo fcbuild/one\t\r\n"
        "RUN <<EOF\r\nFROM fcbuild/one\r\nEOF\r\n"
        "FROM alpine:3\u2028\r\n"
        "COPY --from=build --chown=1 /x /y\r\n"
        "COPY --from=busybox /x /y\r\n"
        "COPY --from=fcbuild/two /é /y"
    )
    expected = (
        text.replace("FROM   $BASE", "FROM   <fcbuild/one>")
        .replace("from=fcbuild/two:latest", "from=<fcbuild/two:latest>")
        .replace("--from=fcbuild/two ", "--from=<fcbuild/two> ")
        .replace("docker/dockerfile:1", "<docker/dockerfile:1>")
    )

    def pinned(ref: Reference) -> str | None:
        return f"<{ref.name}>" if ref.local or ref.name.startswith("docker/") else None

    assert pin(text, {}, pinned) == expected


def test_pin_without_anything_to_pin_changes_nothing() -> None:
    text = "FROM alpine\nCOPY --from=busybox / /\n"
    assert pin(text, {}, lambda ref: None) == text


@pytest.mark.parametrize(
    ("name", "local", "tagged"),
    [
        ("fcbuild/x", True, False),
        ("alpine", False, True),
        ("alpine:3", False, True),
        ("localhost:5000/fcbuild/x", False, True),
        ("alpine:3@sha256:" + "0" * 64, False, False),
        ("alpine@sha256:" + "0" * 64, False, False),
    ],
)
def test_what_can_move_is_a_tag_of_a_registry(name: str, local: bool, tagged: bool) -> None:
    (ref,) = references(f"# one\n# two\nFROM {name}\n", {})
    assert (ref.local, ref.tagged) == (local, tagged)
    assert ref.line(f"# one\n# two\nFROM {name}\n") == 3


STAGES = """\
# syntax=docker/dockerfile:1
USER before-any-stage
FROM base AS lower
USER one
RUN <<EOF
USER two
EOF
user \\
  three
FROM other AS Side
USER side
FROM LOWER AS upper
CMD ["x"]
FROM side
ENTRYPOINT ["y"]
"""


@pytest.mark.parametrize(
    ("instructions", "target", "line"),
    [
        ({"USER"}, None, 11),
        ({"USER"}, "lower", 8),
        ({"USER"}, "upper", 8),
        ({"USER"}, "UPPER", 8),
        ({"USER"}, "2", 8),
        ({"USER"}, "1", 11),
        ({"USER"}, "nosuch", None),
        ({"USER"}, "9", None),
        ({"CMD"}, None, None),
        ({"CMD"}, "upper", 13),
        ({"ENTRYPOINT", "CMD"}, None, 15),
        ({"USER", "CMD"}, "upper", 13),
        (set(), None, None),
    ],
)
def test_an_instruction_is_found_in_the_stage_that_is_built(
    instructions: set[str], target: str | None, line: int | None
) -> None:
    assert line_of(STAGES, instructions, target) == line


def test_an_instruction_of_a_base_has_no_line() -> None:
    assert line_of("FROM base\n", {"USER"}, None) is None
    assert line_of("", {"USER"}, None) is None
    assert line_of("FROM a AS a\nUSER x\nFROM b AS b\nFROM ${WHICH}\n", {"USER"}, None) is None
