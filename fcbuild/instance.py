"""What is different for each VM of one image: an instance document, and the config drive from it.

    hostname = "web-2"
    arguments = ["--verbose"]              # behind the image's ENTRYPOINT and CMD
    kernel_arguments = ["fcbuild.mtu=1400"]  # readable by every program in the guest: no secrets
    [env]
    DB_PASSWORD = "..."
    [network]                              # the keys of image.toml's, and
    tap = "tap0"                           # the host's end of eth0
    mac = "02:00:00:00:00:02"
    [mmds]                                 # anything: what the metadata service answers
    [authorized_keys]
    root = ["ssh-ed25519 AAAA... somebody"]
    [[file]]
    path = "/etc/app/token"
    source = "token"                       # below this document's directory; or content = "..."
    mode = "0600"
    owner = "www-data"                     # a user of the image, or "UID:GID"

Reading collects all problems, as specs do. The drive is section 2.1 of guest/BOOT_CONTRACT.md. The
values may be secrets: they go to the drive and to the metadata service and nowhere else, so no
value is in a repr, an error or a receipt.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fcbuild import kernel_command_line, network, tables
from fcbuild.errors import SpecError, did_you_mean
from fcbuild.network import NetworkSpec
from fcbuild.recipes import BOOT_CONTRACT
from fcbuild.records import Record, document
from fcbuild.spec import HOSTNAME, PATH
from fcbuild.tables import MIB, Table

# Limits of the boot contract, section 2.1.
MAX_BYTES = 1 * MIB
MAX_FILES = 256
MAX_RECORDS = 4096
MAX_ID = 4294967294
SECTOR = 512

# Firecracker's default for --http-api-max-payload-size and the size of its metadata store.
MAX_METADATA = 51_200

_PATH_MAX = 4095  # PATH_MAX of Linux, without its NUL
_TAP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")  # IFNAMSIZ
_MAC = re.compile(r"[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}")  # not a group's
_NAME = re.compile(r"[^=\0]+")
_MODE = re.compile(r"[0-7]{4}")
_OWNER = re.compile(r"[0-9]{1,10}:[0-9]{1,10}|[A-Za-z_][A-Za-z0-9._-]*\$?")
_KEY = re.compile(r"[ -~\t]+")  # a line of authorized_keys


# Keys whose values no error shows.
_SECRET = frozenset({"env", "arguments", "mmds", "file", "content"})


@dataclass(frozen=True)
class User:
    """A user of the image, as the root filesystem's facts have it."""

    uid: int
    gid: int
    home: str


@dataclass(frozen=True, kw_only=True)
class File:
    """A file to write before the program starts. owner: "UID:GID" or a user's name."""

    path: str
    content: bytes = field(repr=False)
    mode: str = "0644"
    owner: str = "0:0"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One document. env: "NAME=value". tap and mac are of eth0; metadata is JSON."""

    where: str
    hostname: str | None
    arguments: tuple[str, ...] = field(repr=False)
    kernel_arguments: tuple[str, ...]
    env: tuple[str, ...] = field(repr=False)
    network: NetworkSpec
    tap: str | None
    mac: str | None
    metadata: Mapping[str, Any] | None = field(repr=False)
    authorized_keys: Mapping[str, tuple[str, ...]] = field(repr=False)
    files: tuple[File, ...]

    def names(self) -> list[str]:
        """Return what it sets, without the values."""
        return [
            *(["hostname"] if self.hostname else []),
            *(["arguments"] if self.arguments else []),
            *(["kernel_arguments"] if self.kernel_arguments else []),
            *(f"env {item.partition('=')[0]}" for item in self.env),
            *(f"network {key}" for key in dict.fromkeys(key for key, _ in self.network.records())),
            *(["network tap"] if self.tap else []),
            *(["network mac"] if self.mac else []),
            *(["mmds"] if self.metadata is not None else []),
            *(f"authorized_keys {user}" for user in self.authorized_keys),
            *(f"file {file.path}" for file in self.files),
        ]


def load(path: Path) -> Instance:
    """Read a document and the files it names. Raises SpecError with every problem found."""
    problems: list[str] = []
    table = tables.read(path, str(path), problems)
    table.secret = _SECRET
    net = table.table("network")
    instance = Instance(
        where=table.where,
        hostname=table.string("hostname", pattern=HOSTNAME) or None,
        arguments=table.strings("arguments"),
        kernel_arguments=kernel_command_line.read(table, instance=True),
        env=_env(table),
        tap=net.string("tap", pattern=_TAP) or None,
        mac=net.string("mac", pattern=_MAC) or None,
        network=network.read(net),
        metadata=_metadata(table),
        authorized_keys=_keys(table.table("authorized_keys")),
        files=_files(table, path.parent),
    )
    table.finish()
    if problems:
        raise SpecError(problems)
    return instance


def users(facts: Mapping[str, Any]) -> dict[str, User]:
    """Return the users that a root filesystem's facts name, from {name: [uid, gid, home]}."""
    return {name: User(*entry) for name, entry in facts.get("users", {}).items()}


def render(instance: Instance, users: Mapping[str, User]) -> bytes:
    """Return the config drive, whole sectors. Raises SpecError for a user that the image does not
    have, and for more than the drive may hold."""
    problems: list[str] = []
    records = list(_records(instance, users, problems))
    drive = document(f"fcbuild-instance {BOOT_CONTRACT}", records)
    files = sum(key == "file" for key, _ in records)
    if files > MAX_FILES:
        problems.append(f"{instance.where}: {files} files: {MAX_FILES} at most")
    if len(records) >= MAX_RECORDS:
        problems.append(f"{instance.where}: {len(records)} values: {MAX_RECORDS - 1} at most")
    if len(drive) > MAX_BYTES:
        problems.append(
            f"{instance.where}: the config drive has {len(drive)} bytes: {MAX_BYTES} at most; "
            "what is larger belongs in the image"
        )
    if problems:
        raise SpecError(problems)
    return drive + bytes(-len(drive) % SECTOR)


def _records(
    instance: Instance, users: Mapping[str, User], problems: list[str]
) -> Iterator[Record]:
    """Yield the records of the boot contract."""
    if instance.hostname:
        yield "hostname", instance.hostname.encode()
    yield from (("env", item.encode()) for item in instance.env)
    yield from (("arg", item.encode()) for item in instance.arguments)
    yield from ((key, value.encode()) for key, value in instance.network.records())
    if instance.metadata is not None and not instance.network.mmds:
        yield "mmds", b""
    for name, keys in instance.authorized_keys.items():
        if (user := users.get(name)) is None:
            problems.append(_unknown(instance, "authorized_keys", name, users))
            continue
        path = str(PurePosixPath(user.home, ".ssh", "authorized_keys"))
        if not PATH.fullmatch(path):
            problems.append(
                f"{instance.where}: authorized_keys: {name}'s home is no directory: {user.home!r}"
            )
        lines = "".join(f"{key}\n" for key in keys)
        yield from _file_records("0600", f"{user.uid}:{user.gid}", path, lines.encode())
    for file in instance.files:
        owner = file.owner
        if ":" not in owner:
            if (user := users.get(owner)) is None:
                problems.append(_unknown(instance, f"file {file.path}: owner", owner, users))
                continue
            owner = f"{user.uid}:{user.gid}"
        yield from _file_records(file.mode, owner, file.path, file.content)


def _file_records(mode: str, owner: str, path: str, content: bytes) -> Iterator[Record]:
    uid, _, gid = owner.partition(":")
    yield "file", f"{mode} {int(uid)} {int(gid)} {path}".encode()
    yield "data", content


def _unknown(instance: Instance, key: str, name: str, users: Mapping[str, User]) -> str:
    near = did_you_mean(name, users)
    return (
        f"{instance.where}: {key}: no user {name!r} in the image{near}; "
        f"known: {', '.join(users) or 'none'}"
    )


def _env(root: Table) -> tuple[str, ...]:
    table = root.table("env")
    table.secret = frozenset(table.values)
    items = []
    for name in table.values:
        value = table.string(name)
        if not _NAME.fullmatch(name):
            table.problems.append(f"{table.where}: env: expected names without = or NUL: {name!r}")
        items.append(f"{name}={value}")
    return tuple(items)


def _matching(table: Table, key: str, pattern: re.Pattern[str], expected: str) -> tuple[str, ...]:
    values = table.strings(key)
    if not all(map(pattern.fullmatch, values)):
        table.problem(key, expected, list(values))
    return values


def _keys(table: Table) -> dict[str, tuple[str, ...]]:
    """Read lists of lines, by the names of users."""
    return {
        user: _matching(table, user, _KEY, 'lines like "ssh-ed25519 AAAA..."')
        for user in table.values
    }


def _metadata(root: Table) -> dict[str, Any] | None:
    """Read any table as JSON."""
    if "mmds" not in root.values:
        return None
    values = root.table("mmds").values
    try:
        text = json.dumps(values, default=lambda value: value.isoformat(), allow_nan=False)
    except (ValueError, RecursionError) as error:
        root.problems.append(f"{root.where}: mmds: cannot be written as JSON: {error}")
        return None
    if len(text) > MAX_METADATA:
        root.problems.append(
            f"{root.where}: mmds: {len(text)} bytes of JSON, {MAX_METADATA} at most"
        )
    found: dict[str, Any] = json.loads(text)
    return found


def _files(root: Table, directory: Path) -> tuple[File, ...]:
    parts = root.tables("file")
    if len(parts) > MAX_FILES:
        root.problems.append(f"{root.where}: file: {len(parts)} of them, {MAX_FILES} at most")
        return ()
    files = tuple(_file(part, directory) for part in parts)
    paths = [file.path for file in files]
    for twice in sorted({path for path in paths if path and paths.count(path) > 1}):
        root.problems.append(f"{root.where}: file: {twice} is there twice")
    return files


def _file(table: Table, directory: Path) -> File:
    table.require("path")
    if ("content" in table.values) == ("source" in table.values):
        table.problems.append(
            f"{table.where}: {table.prefix[:-1]}: expected either content or source"
        )
    content = table.string("content").encode()
    if "source" in table.values:
        content = _source(table, directory)
    file = File(
        path=table.string("path", pattern=PATH),
        content=content,
        mode=table.string("mode", "0644", _MODE),
        owner=table.string("owner", "0:0", _OWNER),
    )
    if len(file.path.encode()) > _PATH_MAX:
        table.problem("path", f"{_PATH_MAX} bytes at most", f"{file.path[:40]}...")
    uid, colon, gid = file.owner.partition(":")
    if colon and max(int(uid), int(gid)) > MAX_ID:
        table.problem("owner", f"numbers up to {MAX_ID}", file.owner)
    table.finish()
    return file


def _source(table: Table, directory: Path) -> bytes:
    """Read a regular file below the document's directory."""
    name = table.string("source")
    try:
        path = (directory / name).resolve()
        if not path.is_relative_to(directory.resolve()):
            table.problem("source", "a path below the document's directory", name)
            return b""
        # A FIFO or a terminal would keep us waiting.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                table.problem("source", "a regular file", name)
                return b""
            content = file.read(MAX_BYTES + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        reason = error.strerror if isinstance(error, OSError) else error
        table.problems.append(f"{table.where}: {table.prefix}source: {name}: {reason}")
        return b""
    if len(content) > MAX_BYTES:
        table.problem("source", f"{MAX_BYTES} bytes at most", name)
    return content
