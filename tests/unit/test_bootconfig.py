"""The boot config: from an image's configuration to the document of the boot contract."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fcbuild.build.bootconfig import (
    MAX_BYTES,
    MAX_RECORDS,
    BootConfig,
    Identity,
    compose,
    identify,
    users,
)
from fcbuild.build.engine import ImageConfig
from fcbuild.errors import BuildError
from fcbuild.network import NetworkSpec
from fcbuild.spec import ImageSpec

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment
broken:x:one:1::/:/bin/sh
short:x:1
odd:x:\u00b2:1::/:/bin/sh
www:x:33:34:www:/var/www:/usr/sbin/nologin
nohome:x:50:51:::
33:x:77:78::/named-33:/bin/sh
huge:x:4294967295:1::/:/bin/sh
"""
GROUP = """\
root:x:0:
web:x:34:
logs:x:40:www,other
tape:x:41:other,www
twice:x:40:www
wwwish:x:42:www2
bad:x:x:www
"""
IMAGE = ImageConfig(
    entrypoint=("/entry",), cmd=("run",), env=("A=1",), workdir="/srv", user="", stop_signal=""
)


SPEC = ImageSpec(
    name="web",
    directory=Path("images/web"),
    description="",
    arch="x86_64",
    kernel="6.12",
    bootstrap=None,
    build_args={},
    build_target=None,
    hostname="host",
    init=None,
    size=None,
    free=0,
    readonly=False,
    overlay=False,
    overlay_size=None,
    writable=(),
    vcpus=1,
    memory=0,
    network=NetworkSpec(),
    kernel_arguments=(),
    deadline=None,
    stop_grace=1500,
    ready=False,
    expect_exit=None,
    checks=(),
)
DEFAULTS = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=host")


def made(image: ImageConfig = IMAGE, spec: ImageSpec = SPEC, **fields: Any) -> BootConfig:
    def where(*instructions: str) -> str:
        return f"Dockerfile:{'/'.join(instructions)}"

    writable = ("/a", "/b") if spec.readonly else ()
    return compose(
        image,
        spec._replace(**fields),
        passwd=PASSWD,
        group=GROUP,
        writable=writable,
        where=where,
    )


def parse(document: bytes) -> list[tuple[str, bytes]]:
    """Read a document as section 2 of the boot contract has it, strictly."""
    assert len(document) <= 262_144
    header, at = b"fcbuild-boot 2\n", len(b"fcbuild-boot 2\n")
    assert document.startswith(header)
    records: list[tuple[str, bytes]] = []
    while True:
        head = re.compile(rb"([a-z-]{1,31}) (0|[1-9][0-9]*)\n").match(document, at)
        assert head, document[at : at + 40]
        start, length = head.end(), int(head[2])
        value = document[start : start + length]
        assert len(value) == length
        assert b"\0" not in value
        assert document[start + length : start + length + 1] == b"\n"
        at = start + length + 1
        if head[1] == b"end":
            assert value == b""
            assert at == len(document)
            assert len(records) < 4096
            return records
        records.append((head[1].decode(), value))


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0,), "/root"),
        ("root", 0, 0, (0,), "/root"),
        ("www", 33, 34, (34, 40, 41), "/var/www"),
        ("www:", 33, 34, (34, 40, 41), "/var/www"),
        ("www:root", 33, 0, (0,), "/var/www"),
        ("www:7", 33, 7, (7,), "/var/www"),
        ("nohome", 50, 51, (51,), "/"),
        ("50", 50, 51, (51,), "/"),
        ("1234", 1234, 0, (0,), "/"),
        ("1234:5", 1234, 5, (5,), "/"),
        ("1234:web", 1234, 34, (34,), "/"),
        ("33", 77, 78, (78,), "/named-33"),  # a name first, as the engine has it
        ("0", 0, 0, (0,), "/root"),
        ("4294967294:4294967294", 4294967294, 4294967294, (4294967294,), "/"),
    ],
)
def test_user_becomes_numbers(
    user: str, uid: int, gid: int, groups: tuple[int, ...], home: str
) -> None:
    assert identify(user, PASSWD, GROUP, "x") == Identity(
        uid=uid, gid=gid, groups=groups, home=home
    )


@pytest.mark.parametrize(("user", "uid", "gid"), [("", 0, 0), ("7", 7, 0), ("7:8", 7, 8)])
def test_numbers_need_no_user_database(user: str, uid: int, gid: int) -> None:
    assert identify(user, "", "", "x") == Identity(uid=uid, gid=gid, groups=(gid,), home="/")


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("nobody", "no user 'nobody'"),
        ("broken", "no user 'broken'"),
        ("odd", "no user 'odd'"),
        ("www:nogroup", "no group 'nogroup'"),
        ("www:bad", "no group 'bad'"),
        ("-1", "no user '-1'"),
        ("\u00b2", "no user '\u00b2'"),
        ("4294967295", "4294967295"),
        ("1:4294967295", "4294967295"),
        ("huge", "4294967295"),
    ],
)
def test_a_user_that_cannot_be_is_refused_with_its_place(user: str, said: str) -> None:
    with pytest.raises(BuildError) as caught:
        identify(user, PASSWD, GROUP, "images/web/Dockerfile")
    assert str(caught.value).startswith(f"images/web/Dockerfile: USER {user}: ")
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "argv"),
    [
        (("/e",), ("c",), ("/e", "c")),
        (("/e",), (), ("/e",)),
        ((), ("c", ""), ("c", "")),
    ],
)
def test_argv_is_entrypoint_and_cmd(
    entrypoint: tuple[str, ...], cmd: tuple[str, ...], argv: tuple[str, ...]
) -> None:
    assert made(replace(IMAGE, entrypoint=entrypoint, cmd=cmd)).argv == argv


def test_an_image_without_a_program_is_refused() -> None:
    with pytest.raises(BuildError, match="neither ENTRYPOINT nor CMD") as caught:
        made(replace(IMAGE, entrypoint=(), cmd=()))
    assert "CMD" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("", 15),
        ("SIGQUIT", 3),
        ("quit", 3),
        ("sigquit", 3),
        ("3", 3),
        ("64", 64),
        ("SIGKILL", 9),
        ("SIGWINCH", 28),
        ("SIGPOLL", 29),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
        ("SIGRTMAX", 64),
        ("RTMIN+30", 64),
    ],
)
def test_stop_signal_forms(name: str, number: int) -> None:
    assert made(replace(IMAGE, stop_signal=name)).stop_signal == number


@pytest.mark.parametrize("name", ["0", "65", "-1", "SIGNONE", "RTMIN+31", "RTMAX-31", "\u00b3"])
def test_a_stop_signal_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(BuildError, match="no such signal"):
        made(replace(IMAGE, stop_signal=name))


PATH, HOST = DEFAULTS


@pytest.mark.parametrize(
    ("image", "env"),
    [
        ((), (PATH, HOST, "HOME=/var/www")),
        (("A=1",), (PATH, HOST, "A=1", "HOME=/var/www")),
        (("B=", "PATH=/x", "A==\n"), ("PATH=/x", HOST, "B=", "A==\n", "HOME=/var/www")),
        (("HOME=/x", "A=1"), (PATH, HOST, "HOME=/x", "A=1")),
        (("HOME=", "A=1"), (PATH, HOST, "HOME=/var/www", "A=1")),
        (("HOMER=x", "HOSTNAME=y"), (PATH, "HOSTNAME=y", "HOMER=x", "HOME=/var/www")),
        (("A=1", "B=1", "A=2"), (PATH, HOST, "A=2", "B=1", "HOME=/var/www")),
        (("PATH=",), ("PATH=", HOST, "HOME=/var/www")),
        (("PATH", "HOSTNAME", "A", "B=1"), ("B=1", "HOME=/var/www")),
    ],
)
def test_the_environment_is_as_the_engine_makes_it(
    image: tuple[str, ...], env: tuple[str, ...]
) -> None:
    assert made(replace(IMAGE, user="www", env=image)).env == env


def test_a_variable_without_a_name_is_refused() -> None:
    with pytest.raises(BuildError, match="Dockerfile:ENV: ENV '=x' has no name"):
        made(replace(IMAGE, env=("=x",)))


@pytest.mark.parametrize(
    ("env", "path"),
    [((), PATH[5:]), (("PATH=/x:",), "/x:"), (("PATH=",), PATH[5:]), (("PATH",), PATH[5:])],
)
def test_programs_are_searched_for_where_the_guest_does(env: tuple[str, ...], path: str) -> None:
    assert made(replace(IMAGE, env=env)).path == path


def test_an_init_of_the_images_own_takes_the_place_of_its_program() -> None:
    image = replace(
        IMAGE,
        entrypoint=(),
        cmd=(),
        user="nosuch",
        stop_signal="SIGQUIT",
        healthcheck={"Test": ["CMD", "x"]},
    )
    config = made(image, init="/sbin/init")
    assert (config.argv, config.handover, config.stop_signal) == (("/sbin/init",), True, 2)
    assert config.identity == Identity(uid=0, gid=0, groups=(0,), home="/root")
    assert config.health is None
    assert parse(config.render())[-2:] == [("stop-grace-ms", b"1500"), ("handover", b"")]


def test_root_health_and_network_are_written_in_the_contracts_order() -> None:
    network = NetworkSpec(addresses=("10.0.0.2/24",), hosts=("10.0.0.3 db",), mmds=True)
    config = made(
        replace(IMAGE, healthcheck={"Test": ["CMD", "/c", "d"]}),
        SPEC._replace(readonly=True, network=network),
    )
    records = parse(config.render())
    assert records[records.index(("stop-grace-ms", b"1500")) + 1 :] == [
        ("root", b"read-only"),
        ("writable", b"/a"),
        ("writable", b"/b"),
        ("health", b"/c"),
        ("health", b"d"),
        ("health-interval-ms", b"30000"),
        ("health-timeout-ms", b"30000"),
        ("health-start-period-ms", b"0"),
        ("health-start-interval-ms", b"5000"),
        ("health-retries", b"3"),
        ("address", b"10.0.0.2/24"),
        ("host", b"10.0.0.3 db"),
        ("mmds", b""),
    ]
    assert ("root", b"overlay") in parse(made(overlay=True).render())


def test_a_mistake_is_named_with_its_place_in_the_dockerfile() -> None:
    for image, place in (
        (replace(IMAGE, user="nosuch"), "Dockerfile:USER: "),
        (replace(IMAGE, stop_signal="x"), "Dockerfile:STOPSIGNAL: "),
        (replace(IMAGE, healthcheck={"Test": ["x"]}), "Dockerfile:HEALTHCHECK: "),
    ):
        with pytest.raises(BuildError) as caught:
            made(image)
        assert caught.value.message.startswith(place)


def test_users_are_counted_and_odd_lines_left_out() -> None:
    assert users(PASSWD, 1000) == {
        "root": (0, 0, "/root"),
        "www": (33, 34, "/var/www"),
        "nohome": (50, 51, ""),
        "33": (77, 78, "/named-33"),
    }
    assert users(PASSWD + "root:x:1:1::/other:\n", 2).keys() == {"root", "www"}
    assert users(PASSWD + "root:x:1:1::/other:\n", 9)["root"] == (0, 0, "/root")
    assert users("x:x:" + "9" * 5000 + ":1:::\n", 9) == {}


@pytest.mark.parametrize(("workdir", "expected"), [("/a", "/a"), ("a", "/a")])
def test_the_working_directory_is_absolute(workdir: str, expected: str) -> None:
    assert made(replace(IMAGE, workdir=workdir)).workdir == expected


def test_the_document_reads_back_as_the_contract_says() -> None:
    image = replace(
        IMAGE,
        cmd=("", "two\nlines", "é", "bytes \udcff", "end 0\n\n"),
        env=("A=1", "A=2", "B="),
        user="www",
        stop_signal="QUIT",
    )
    assert parse(made(image).render()) == [
        ("argv", b"/entry"),
        ("argv", b""),
        ("argv", b"two\nlines"),
        ("argv", "é".encode()),
        ("argv", b"bytes \xff"),
        ("argv", b"end 0\n\n"),
        *(("env", item.encode()) for item in DEFAULTS),
        ("env", b"A=2"),
        ("env", b"B="),
        ("env", b"HOME=/var/www"),
        ("workdir", b"/srv"),
        ("uid", b"33"),
        ("gid", b"34"),
        ("group", b"34"),
        ("group", b"40"),
        ("group", b"41"),
        ("hostname", b"host"),
        ("stop-signal", b"3"),
        ("stop-grace-ms", b"1500"),
    ]


def test_as_many_records_as_the_contract_allows() -> None:
    fixed = len(parse(made(replace(IMAGE, cmd=())).render()))
    most = MAX_RECORDS - 1 - fixed
    assert len(parse(made(replace(IMAGE, cmd=("",) * most)).render())) == MAX_RECORDS - 1
    with pytest.raises(BuildError, match="4096 records"):
        made(replace(IMAGE, cmd=("",) * (most + 1))).render()


def test_as_many_bytes_as_the_contract_allows() -> None:
    fixed = len(made(replace(IMAGE, cmd=("x" * 100_000,))).render()) - 100_000
    full = made(replace(IMAGE, cmd=("x" * (MAX_BYTES - fixed),)))
    assert len(full.render()) == MAX_BYTES
    assert parse(full.render())
    with pytest.raises(BuildError, match=str(MAX_BYTES + 1)) as caught:
        made(replace(IMAGE, cmd=("x" * (MAX_BYTES - fixed + 1),))).render()
    assert "shorten" in str(caught.value.hint)
