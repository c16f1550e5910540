"""fcbuild.json: what an image is, for whoever has neither its sources nor the builder's store.

    schema, image, arch, boot_contract
    boot_args        the kernel's command line for Firecracker
    kernel, rootfs   name, fingerprint, files (digest and size of the plain bytes), facts
    spec             what image.toml says of a boot, in its own words

Nothing in it depends on when, where or by whom it was written. It is read as a stranger's: every
key is known and every value has its type, and `spec` is held to the rules of image.toml.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fcbuild import series
from fcbuild import spec as specs
from fcbuild.errors import ArtifactError
from fcbuild.fingerprint import Json
from fcbuild.network import NetworkSpec
from fcbuild.recipes import BOOT_CONTRACT, OVERLAY_FILE, ROOTFS_FILE
from fcbuild.series import KERNEL_FILE
from fcbuild.spec import Check, HttpCheck, ImageSpec, TcpCheck
from fcbuild.store import Artifact
from fcbuild.tables import GIB, MIB, Table

NAME = "fcbuild.json"
SCHEMA = 1  # raised for a document that an older fcbuild would misread
MAX_BYTES = 1 * MIB

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_OBJECT = re.compile(r"[a-z0-9][a-z0-9._/@-]{0,254}")  # the name of an image or a kernel
_MAX_FILE = 512 * GIB
_MAX_MS = 1 << 40
_MAX_ID = 4294967294
_KEYS = ("schema", "image", "arch", "boot_contract", "boot_args", "kernel", "rootfs", "spec")
# The keys of image.toml that a boot depends on; the others are about the build.
_SPEC = ("description", "hostname", "init", "rootfs", "network", "machine", "boot", "check")


class Content(NamedTuple):
    """The bytes of one file: their sha256, in hexadecimal, and how many there are."""

    digest: str
    size: int


class Part(NamedTuple):
    """What an image takes from one object of the store. files: by name."""

    name: str
    fingerprint: str
    files: Mapping[str, Content]
    facts: Mapping[str, Json]


class Document(NamedTuple):
    """One image, for one architecture. spec: as far as a boot depends on it; it has no directory.

    boot_args: the kernel's command line for Firecracker.
    """

    spec: ImageSpec
    kernel: Part
    rootfs: Part
    boot_args: str


def rootfs_files(spec: ImageSpec) -> tuple[str, ...]:
    """Return the files of a root filesystem that a boot needs: the root, and what is written to."""
    return (ROOTFS_FILE, OVERLAY_FILE) if spec.overlay_size is not None else (ROOTFS_FILE,)


def of(spec: ImageSpec, kernel: Artifact, rootfs: Artifact, boot_args: str) -> Document:
    """Return the document of an image that is built."""
    return Document(
        spec,
        # A kernel's facts name the source that was reached, which is not always the same.
        _part(kernel, (KERNEL_FILE[spec.arch],), {}),
        _part(rootfs, rootfs_files(spec), rootfs.facts),
        boot_args,
    )


def render(document: Document) -> bytes:
    """Return the text of a document."""
    spec = document.spec
    found = {
        "schema": SCHEMA,
        "image": spec.name,
        "arch": spec.arch,
        "boot_contract": BOOT_CONTRACT,
        "boot_args": document.boot_args,
        "kernel": _rendered(document.kernel),
        "rootfs": _rendered(document.rootfs),
        "spec": dict(_words(spec)),
    }
    return (json.dumps(found, indent=1) + "\n").encode("ascii")


def read(text: bytes) -> Document:
    """Return the document that a stranger wrote. Raises ArtifactError, with every problem found."""
    table = _parsed(text)
    for key in _KEYS:
        table.require(key)
    if (schema := table.integer("schema", 0, 1, 1 << 30)) > SCHEMA:
        raise ArtifactError(
            f"{NAME} is of schema {schema}, this fcbuild knows {SCHEMA}",
            hint="use a newer fcbuild",
        )
    contract = table.integer("boot_contract", 0, 1, 1 << 30)
    if contract != BOOT_CONTRACT and not table.problems:
        raise ArtifactError(
            f"the image speaks version {contract} of the boot contract, this fcbuild version"
            f" {BOOT_CONTRACT}",
            hint="use the fcbuild that it was published with, or publish it again",
        )
    spec = _spec(table)
    document = Document(
        spec,
        _read_part(table.table("kernel"), (KERNEL_FILE[spec.arch],)),
        _read_part(table.table("rootfs"), rootfs_files(spec)),
        table.string("boot_args", pattern="[ -~]{1,2047}"),
    )
    table.finish()
    if table.problems:
        raise ArtifactError("\n".join(table.problems), hint="publish the image again")
    return document._replace(spec=spec._replace(kernel=document.kernel.name))


def _parsed(text: bytes) -> Table:
    if len(text) > MAX_BYTES:
        raise ArtifactError(f"{NAME} has {len(text)} bytes: {MAX_BYTES} at most")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{NAME} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{NAME} is not a JSON object")
    return Table(values, NAME, [])


def _part(artifact: Artifact, names: tuple[str, ...], facts: Mapping[str, Json]) -> Part:
    files = {name: Content(artifact.digests[name], artifact.sizes[name]) for name in names}
    return Part(artifact.name, artifact.fingerprint, files, facts)


def _rendered(part: Part) -> dict[str, Json]:
    return {
        "name": part.name,
        "fingerprint": part.fingerprint,
        "files": {
            name: {"digest": f"sha256:{content.digest}", "size": content.size}
            for name, content in part.files.items()
        },
        **({"facts": part.facts} if part.facts else {}),
    }


def _read_part(table: Table, names: tuple[str, ...]) -> Part:
    for key in ("name", "fingerprint", "files"):
        table.require(key)
    files = table.table("files")
    contents = {}
    for name in names:
        files.require(name)
        file = files.table(name)
        digest = file.string("digest", pattern=_DIGEST).removeprefix("sha256:")
        contents[name] = Content(digest, file.integer("size", 0, 1, _MAX_FILE))
        for key in ("digest", "size"):
            file.require(key)
        file.finish()
    part = Part(
        table.string("name", pattern=_OBJECT),
        table.string("fingerprint", pattern=_FINGERPRINT),
        contents,
        _facts(table.table("facts")),
    )
    for one in (files, table):
        one.finish()
    return part


def _facts(table: Table) -> dict[str, Json]:
    """Read what the builder knows of a root filesystem; a kernel has no facts."""
    nobody: dict[str, Json] = {}
    facts: dict[str, Json] = {
        "size": table.integer("size", 0, 0, _MAX_FILE),
        "content": table.integer("content", 0, 0, _MAX_FILE),
        "argv": list(table.strings("argv")),
        "health": table.boolean("health"),
        "health_ms": table.integer("health_ms", 0, 0, _MAX_MS),
        "users": table.get("users", "{name: [uid, gid, home]}", nobody, _users),
    }
    table.finish()
    return facts if table.values else {}


def _users(value: Any) -> dict[str, Json] | None:
    def user(entry: Any) -> bool:
        match entry:
            case [int(uid), int(gid), str(home)]:
                return 0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID and "\0" not in home
        return False

    return value if isinstance(value, dict) and all(map(user, value.values())) else None


def _spec(table: Table) -> ImageSpec:
    arch = table.string("arch", series.X86_64, "|".join(series.ARCHITECTURES))
    name = table.string("image", "image", specs.NAME)
    said = table.table("spec")
    for key in sorted(said.values.keys() - set(_SPEC)):
        table.problems.append(f"{NAME}: spec.{key}: unknown key; known: {', '.join(_SPEC)}")
    values = {key: value for key, value in said.values.items() if key in _SPEC}
    known = Table({**values, "arch": arch}, NAME, table.problems, "spec.")
    return specs.image(name, known, Path(), {}, table.problems)


def _words(spec: ImageSpec) -> Iterator[tuple[str, Json]]:
    """Yield what image.toml would say of an image's boot, defaults too."""
    yield "description", spec.description
    yield "hostname", spec.hostname
    if spec.init is not None:
        yield "init", spec.init
    overlay: Json = spec.overlay if spec.overlay_size is None else _size(spec.overlay_size)
    yield "rootfs", {"readonly": spec.readonly, "overlay": overlay}
    if spec.network != NetworkSpec():
        yield "network", _network(spec.network)
    yield "machine", {"vcpus": spec.vcpus, "memory": _size(spec.memory)}
    yield (
        "boot",
        {
            **({"deadline": _time(spec.deadline)} if spec.deadline is not None else {}),
            **({"ready": "notify"} if spec.ready else {}),
            "stop_grace": _time(spec.stop_grace),
            **({"expect_exit": spec.expect_exit} if spec.expect_exit is not None else {}),
            "kernel_arguments": list(spec.kernel_arguments),
        },
    )
    yield "check", list(map(_check, spec.checks))


def _network(network: NetworkSpec) -> dict[str, Json]:
    hosts = (line.partition(" ") for line in network.hosts)
    return {
        "address": list(network.addresses),
        "gateway": list(network.gateways),
        "dns": list(network.dns),
        "search": list(network.search),
        "hosts": {name: address for address, _, name in hosts},
        **({"mtu": network.mtu} if network.mtu is not None else {}),
        "mmds": network.mmds,
    }


def _check(check: Check) -> dict[str, Json]:
    kind = "http" if isinstance(check, HttpCheck) else "tcp" if isinstance(check, TcpCheck) else ""
    return {kind: check._asdict()} if kind else {"log": check[0]}


def _size(size: int) -> str:
    return f"{size // MIB}MiB"


def _time(ms: int) -> str:
    """Return a time as image.toml may have it, which takes six digits."""
    for unit, name in ((1, "ms"), (1000, "s")):
        if ms % unit == 0 and ms // unit < 1_000_000:
            return f"{ms // unit}{name}"
    return f"{ms // 60_000}min"
