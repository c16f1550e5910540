"""Instance documents, and the config drive that comes of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcbuild import instance as instances
from fcbuild.errors import SpecError
from fcbuild.instance import MAX_BYTES, MAX_METADATA, Instance, User, render
from fcbuild.network import NetworkSpec

USERS = {"root": User(0, 0, "/root"), "www-data": User(33, 34, "/var/www")}

KEY = "ssh-ed25519 AAAAC3Nz somebody@somewhere"

WHOLE = f"""
hostname = "web-2"
arguments = ["--verbose", "", "a b\\n", "ü"]
kernel_arguments = ["fcbuild.mtu=1400", 'fcbuild.arg="a b"']

[env]
DB_PASSWORD = "p=w \\n x"
EMPTY = ""

[network]
address = ["10.0.0.2/24", "fd00::2/64"]
gateway = "10.0.0.1"
dns = ["10.0.0.53"]
search = ["example.org"]
hosts = {{ db = "10.0.0.3" }}
mtu = 1400
tap = "tap0"
mac = "02:00:00:00:00:02"

[mmds]
when = 2026-01-02T03:04:05Z
day = 2026-01-02
at = 03:04:05
list = [1, 2.5, true, {{ a = "b" }}]

[authorized_keys]
root = ["{KEY}", "ssh-rsa BBBB"]

[[file]]
path = "/etc/app/token"
content = "secret\\n"
mode = "0600"
owner = "www-data"

[[file]]
path = "/srv/blob"
source = "below/blob"
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Instance]:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "blob").write_bytes(b"a\0b\nend 0\n\n\xff")

    def load(toml: str) -> Instance:
        (tmp_path / "own.toml").write_text(toml)
        return instances.load(tmp_path / "own.toml")

    return load


Load = Callable[[str], Instance]


def records(drive: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Read a document the way the contract describes it; return its header and its records."""
    header, _, rest = drive.partition(b"\n")
    found: list[tuple[str, bytes]] = []
    while True:
        line, _, rest = rest.partition(b"\n")
        match = re.fullmatch(rb"([a-z-]{1,31}) (0|[1-9][0-9]*)", line)
        assert match, line
        key, length = match[1].decode(), int(match[2])
        value, rest = rest[:length], rest[length:]
        assert rest[:1] == b"\n"
        rest = rest[1:]
        if key == "end":
            assert value == b"" and not rest.strip(b"\0")
            return header, found
        found.append((key, value))


def test_a_whole_document_becomes_the_drive_of_the_contract(load: Load) -> None:
    instance = load(WHOLE)
    drive = render(instance, USERS)
    assert len(drive) % 512 == 0
    assert records(drive) == (
        b"fcbuild-instance 2",
        [
            ("hostname", b"web-2"),
            ("env", b"DB_PASSWORD=p=w \n x"),
            ("env", b"EMPTY="),
            ("arg", b"--verbose"),
            ("arg", b""),
            ("arg", b"a b\n"),
            ("arg", "ü".encode()),
            ("address", b"10.0.0.2/24"),
            ("address", b"fd00::2/64"),
            ("gateway", b"10.0.0.1"),
            ("dns", b"10.0.0.53"),
            ("search", b"example.org"),
            ("host", b"10.0.0.3 db"),
            ("mtu", b"1400"),
            ("mmds", b""),
            ("file", b"0600 0 0 /root/.ssh/authorized_keys"),
            ("data", f"{KEY}\nssh-rsa BBBB\n".encode()),
            ("file", b"0600 33 34 /etc/app/token"),
            ("data", b"secret\n"),
            ("file", b"0644 0 0 /srv/blob"),
            ("data", b"a\0b\nend 0\n\n\xff"),
        ],
    )
    assert (instance.tap, instance.mac) == ("tap0", "02:00:00:00:00:02")
    assert instance.kernel_arguments == ("fcbuild.mtu=1400", 'fcbuild.arg="a b"')
    assert instance.metadata == {
        "when": "2026-01-02T03:04:05+00:00",
        "day": "2026-01-02",
        "at": "03:04:05",
        "list": [1, 2.5, True, {"a": "b"}],
    }


def test_an_empty_document_says_nothing(load: Load) -> None:
    instance = load("")
    assert instance.network == NetworkSpec()
    assert instance.names() == []
    assert records(render(instance, {})) == (b"fcbuild-instance 2", [])
    assert len(render(instance, {})) == 512


def test_rendering_is_pure(load: Load) -> None:
    instance = load(WHOLE)
    assert render(instance, USERS) == render(instance, USERS)


def test_the_mmds_flag_is_there_once(load: Load) -> None:
    for toml in ("[mmds]\n", "[network]\nmmds = true\n", "[network]\nmmds = true\n[mmds]\na = 1\n"):
        assert records(render(load(toml), {}))[1] == [("mmds", b"")]


def test_the_names_of_what_is_set_hold_no_value(load: Load) -> None:
    names = load(WHOLE).names()
    assert names == [
        *("hostname", "arguments", "kernel_arguments", "env DB_PASSWORD", "env EMPTY"),
        *("network address", "network gateway", "network dns", "network search", "network host"),
        *("network mtu", "network tap", "network mac", "mmds", "authorized_keys root"),
        *("file /etc/app/token", "file /srv/blob"),
    ]


def test_a_value_is_in_no_repr(load: Load) -> None:
    toml = (
        "arguments = ['hunter2']\n[env]\nA = 'hunter2'\n[mmds]\na = 'hunter2'\n"
        "[[file]]\npath = '/a'\ncontent = 'hunter2'\n"
    )
    assert "hunter2" not in repr(load(toml))


@pytest.mark.parametrize(
    "toml",
    [
        "env = 'hunter2'",
        "[env]\nA = ['hunter2']",
        '[env]\nA = "hunter2\\u0000"',
        "[env]\n'hunter=2' = 'hunter2'",
        "arguments = 'hunter2'",
        "arguments = ['hunter2', 1]",
        'arguments = ["hunter2\\u0000"]',
        "mmds = 'hunter2'",
        "mmds = ['hunter2']",
        "file = 'hunter2'",
        "file = ['hunter2']",
        "[[file]]\npath = '/a'\ncontent = ['hunter2']",
        "[[file]]\npath = '/a'\ncontent = \"hunter2\\u0000\"",
        "password = 'hunter2'",
        "[[file]]\ncontent = 'hunter2'",
        "[mmds]\na = 'hunter2'\nb = nan",
        f"[mmds]\na = '{'hunter2' * MAX_METADATA}'",
        "password = hunter2",
        '[env]\npassword = "hunter2',
    ],
)
def test_a_value_is_in_no_error(load: Load, toml: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(toml)
    assert "hunter2" not in str(caught.value)
    assert "own.toml: " in str(caught.value)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("hostnam = 'x'", "own.toml: hostnam: unknown key (did you mean hostname?)"),
        ("hostname = 'a b'", "own.toml: hostname: expected a string like"),
        ("kernel_arguments = ['ü']", "kernel_arguments: 'ü': expected a word of printable ASCII"),
        ("kernel_arguments = ['root=/dev/vdb']", "kernel_arguments: 'root=/dev/vdb': the VMM says"),
        ("[env]\nA = 1", "env.A: expected a string, got another int"),
        ("[env]\n'' = 'x'", "env: expected names without = or NUL: ''"),
        ("[env]\n'A=B' = 'x'", "env: expected names without = or NUL: 'A=B'"),
        ("[network]\naddress = '10.0.0.2'", "network.address: expected an address like"),
        ("[network]\ntap = 'a/b'", "network.tap: expected a string like"),
        ("[network]\ntap = 'abcdefghijklmnop'", "network.tap: expected a string like"),
        ("[network]\nmac = '01:00:00:00:00:00'", "network.mac: expected a string like"),
        ("[network]\nmack = 'x'", "network.mack: unknown key (did you mean mac?)"),
        ("[mmds]\na = inf", "mmds: cannot be written as JSON"),
        ("[mmds]\na" + ".a" * 5000 + " = 1", "mmds: cannot be written as JSON"),
        (f"[mmds]\na = '{'x' * MAX_METADATA}'", f"bytes of JSON, {MAX_METADATA} at most"),
        ("a = " + "[" * 100_000, "not valid TOML: nested too deeply"),
        ("x" * (4 << 20) + "x", "larger than 4 MiB"),
        ("[authorized_keys]\nroot = 'ssh-rsa A'", "authorized_keys.root: expected a list"),
        ('[authorized_keys]\nroot = ["a\\nb"]', "authorized_keys.root: expected lines like"),
        ("[authorized_keys]\nroot = ['']", "authorized_keys.root: expected lines like"),
        ("[[file]]\ncontent = 'x'", "file[1].path is missing"),
        ("[[file]]\npath = '/a'", "file[1]: expected either content or source"),
        ("[[file]]\npath = '/a'\ncontent = ''\nsource = 'x'", "either content or source"),
        ("[[file]]\npath = 'a'\ncontent = ''", "file[1].path: expected a string like"),
        ("[[file]]\npath = '/a/../b'\ncontent = ''", "file[1].path: expected a string like"),
        ("[[file]]\npath = '/a//b'\ncontent = ''", "file[1].path: expected a string like"),
        ("[[file]]\npath = '/'\ncontent = ''", "file[1].path: expected a string like"),
        (f"[[file]]\npath = '/{'x' * 4095}'\ncontent = ''", "file[1].path: expected 4095 bytes"),
        ("[[file]]\npath = '/a'\ncontent = ''\nmode = '644'", "file[1].mode: expected"),
        ("[[file]]\npath = '/a'\ncontent = ''\nmode = 420", "file[1].mode: expected"),
        ("[[file]]\npath = '/a'\ncontent = ''\nowner = '0'", "file[1].owner: expected"),
        ("[[file]]\npath = '/a'\ncontent = ''\nowner = '0:4294967295'", "numbers up to 4294967294"),
        ("[[file]]\npath = '/a'\ncontent = ''\n" * 2, "file: /a is there twice"),
        ("[[file]]\npath = '/a'\ncontent = ''\n" * 257, "file: 257 of them, 256 at most"),
        ("[[file]]\npath = '/a'\nsource = 'none'", "file[1].source: none: No such file"),
        ("[[file]]\npath = '/a'\nsource = '../x'", "a path below the document's directory"),
        ("[[file]]\npath = '/a'\nsource = '/etc/passwd'", "a path below the document's directory"),
        ("[[file]]\npath = '/a'\nsource = 'out'", "a path below the document's directory"),
        ("[[file]]\npath = '/a'\nsource = 'loop'", "file[1].source: "),
        ("[[file]]\npath = '/a'\nsource = 'fifo'", "file[1].source: expected a regular file"),
        ("[[file]]\npath = '/a'\nsource = 'below'", "file[1].source: below: Is a directory"),
        ("[[file]]\npath = '/a'\nsource = 'large'", f"expected {MAX_BYTES} bytes at most"),
    ],
    ids=lambda value: value[:60],
)
def test_a_mistake_is_named_with_its_place(
    load: Load, tmp_path: Path, toml: str, said: str
) -> None:
    (tmp_path / "out").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(SpecError) as caught:
        load(toml)
    assert said in str(caught.value)


def test_all_problems_come_at_once(load: Load) -> None:
    with pytest.raises(SpecError) as caught:
        load("hostname = 1\nx = 1\n[network]\nmtu = 1\ntap = ''\n[[file]]\n")
    assert len(caught.value.problems) == 6


def test_a_document_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.toml: cannot be read: No such file"):
        instances.load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (
            "[authorized_keys]\nrot = ['ssh-rsa A']",
            "no user 'rot' in the image (did you mean root?); known: root, www-data",
        ),
        (
            "[[file]]\npath = '/a'\ncontent = ''\nowner = 'nobody'",
            "file /a: owner: no user 'nobody' in the image; known: root, www-data",
        ),
    ],
)
def test_a_user_that_the_image_does_not_have_is_named(load: Load, toml: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        render(load(toml), USERS)
    assert said in str(caught.value)


@pytest.mark.parametrize("home", ["", "root", "/a/../b", "/a\0b", "//a"])
def test_a_home_that_is_no_directory_is_named(load: Load, home: str) -> None:
    """The image's passwd file may hold anything."""
    instance = load("[authorized_keys]\nweb = ['ssh-rsa A']")
    with pytest.raises(SpecError) as caught:
        render(instance, {"web": User(1, 1, home)})
    assert f"authorized_keys: web's home is no directory: {home!r}" in str(caught.value)


@pytest.mark.parametrize(("home", "path"), [("/", b"/.ssh/"), ("/home/x/", b"/home/x/.ssh/")])
def test_authorized_keys_are_in_the_home_of_the_user(load: Load, home: str, path: bytes) -> None:
    drive = render(load("[authorized_keys]\nweb = ['ssh-rsa A']"), {"web": User(1, 2, home)})
    assert records(drive)[1][0] == ("file", b"0600 1 2 " + path + b"authorized_keys")


def test_an_image_without_users_says_so(load: Load) -> None:
    with pytest.raises(SpecError, match="known: none"):
        render(load("[authorized_keys]\nroot = ['ssh-rsa A']"), {})


def file_of(size: int) -> str:
    return f"[[file]]\npath = '/a'\ncontent = '{'x' * size}'\n"


def test_a_drive_holds_what_the_contract_allows_and_no_more(load: Load) -> None:
    empty = len(b"fcbuild-instance 2\nfile 11\n0644 0 0 /a\ndata 1000000\n\nend 0\n\n")
    drive = render(load(file_of(MAX_BYTES - empty)), {})
    assert len(drive) == MAX_BYTES
    with pytest.raises(SpecError, match=f"has {MAX_BYTES + 1} bytes: {MAX_BYTES} at most"):
        render(load(file_of(MAX_BYTES - empty + 1)), {})


def test_more_files_than_the_contract_allows_are_refused(load: Load) -> None:
    keys = "[authorized_keys]\nroot = ['ssh-rsa A']\n"
    files = [f"[[file]]\npath = '/{number}'\ncontent = ''\n" for number in range(256)]
    assert render(load("".join(files)), USERS)
    with pytest.raises(SpecError, match="257 files: 256 at most"):
        render(load(keys + "".join(files)), USERS)


def test_more_values_than_the_contract_allows_are_refused(load: Load) -> None:
    assert render(load(f"arguments = {['x'] * 4095}"), {})
    with pytest.raises(SpecError, match="4096 values: 4095 at most"):
        render(load(f"arguments = {['x'] * 4096}"), {})


def test_users_come_from_the_facts_of_a_root_filesystem() -> None:
    facts: dict[str, Any] = {"users": {"root": [0, 0, "/root"], "www-data": [33, 34, "/var/www"]}}
    assert instances.users(facts) == USERS
    assert instances.users({}) == {}
