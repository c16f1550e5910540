"""fcbuild.json: what is written is read again, and what a stranger writes is not believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcbuild import spec
from fcbuild.errors import ArtifactError
from fcbuild.publish import document
from fcbuild.publish.document import Document
from fcbuild.spec import ImageSpec
from fcbuild.store import Artifact

USERS = {"root": [0, 0, "/root"]}
FACTS = {
    **{"size": 4096, "content": 1024, "argv": ["serve"], "health": True, "health_ms": 90_000},
    "users": USERS,
}
FULL = """
description = "a \\"web\\" server, für alle"
hostname = "Web-1"
init = "/sbin/init"
[rootfs]
overlay = "64MiB"
[network]
address = ["192.0.2.2/24", "2001:db8::2/64"]
gateway = "192.0.2.1"
dns = ["192.0.2.1"]
search = "example.org"
hosts = { db = "192.0.2.3", cache = "192.0.2.3" }
mtu = 1400
mmds = true
[machine]
vcpus = 4
memory = "2GiB"
[boot]
deadline = "1000s"
ready = "notify"
stop_grace = "999999min"
expect_exit = 0
kernel_arguments = ["hugepages=8", 'x="a b$c`d\\\\"']
[[check]]
http = { port = 80, path = "/x", status = 204, contains = "Hi" }
[[check]]
tcp = { port = 22, starts_with = "SSH" }
[[check]]
log = "ready in [0-9]+ ms"
"""

Load = Callable[[str], ImageSpec]


@pytest.fixture
def load(checkout: Path) -> Load:
    def load(toml: str) -> ImageSpec:
        (checkout / "images/tool/image.toml").write_text(toml)
        return spec.load(checkout).images["tool"]

    return load


def artifact(kind: str, name: str, facts: Any = None, *files: str) -> Artifact:
    digests = {file: f"{number:x}" * 64 for number, file in enumerate(files, start=10)}
    sizes = {file: 4096 for file in files}
    return Artifact(kind, name, "f" * 64, Path("/store") / kind, digests, facts or {}, {}, sizes)


def described(image: ImageSpec) -> Document:
    kernel = artifact("kernel", "6.12", {"source": "a mirror"}, "config", "vmlinux", "Image")
    rootfs = artifact("rootfs", image.name, FACTS, "overlay.ext4", "rootfs.ext4")
    return document.of(image, kernel, rootfs, "quiet init=/.fcbuild/init")


@pytest.mark.parametrize(
    "toml",
    [
        "",
        FULL,
        '[rootfs]\nreadonly = true\nwritable = ["/a"]\n[build]\nargs = { A = "1" }\n',
        '[rootfs]\noverlay = true\n[boot]\ndeadline = "1ms"\nstop_grace = "0s"\n',
    ],
)
def test_what_is_written_is_read_again(load: Load, toml: str) -> None:
    image = load(toml)
    written = described(image)
    again = document.read(document.render(written))
    # What only a build needs is not in it.
    assert again.spec == image._replace(
        directory=Path(), build_args={}, writable=(), size=None, free=again.spec.free
    )
    assert again._replace(spec=image) == written
    assert document.render(again) == document.render(written)


def test_an_image_for_another_architecture_names_its_own_kernel_file(load: Load) -> None:
    image = load("")._replace(arch="aarch64", kernel="6.12@aarch64")
    again = document.read(document.render(described(image)))
    assert list(again.kernel.files) == ["Image"]
    assert (again.spec.arch, again.spec.kernel) == ("aarch64", "6.12")


def test_nothing_of_the_builder_is_in_it(load: Load, checkout: Path) -> None:
    text = document.render(described(load(FULL)))
    assert b"a mirror" not in text and b"/store" not in text
    assert str(checkout).encode() not in text


@pytest.fixture
def values(load: Load) -> Any:
    """A document as JSON, to be made a bad one."""
    return json.loads(document.render(described(load(FULL))))


def problems(values: Any) -> str:
    with pytest.raises(ArtifactError) as caught:
        document.read(json.dumps(values).encode())
    return str(caught.value)


def put(values: Any, path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for key in parents:
        values = values[key]
    values[last] = value


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("image", "../../etc", "fcbuild.json: image: expected a string like"),
        ("arch", "riscv64", "fcbuild.json: arch: expected a string like x86_64|aarch64"),
        ("boot_args", "a\nb", "fcbuild.json: boot_args: expected a string"),
        ("more", 1, "fcbuild.json: more: unknown key"),
        ("kernel", [], "fcbuild.json: kernel: expected a table, got []"),
        ("kernel/name", "a\x1b[2J", "fcbuild.json: kernel.name: expected a string like"),
        ("kernel/fingerprint", "../x", "fcbuild.json: kernel.fingerprint: expected"),
        ("kernel/files", {}, "fcbuild.json: kernel.files.vmlinux is missing"),
        ("kernel/files/../x", {}, "kernel.files...: unknown key"),
        ("kernel/files/vmlinux/digest", "md5:0", "kernel.files.vmlinux.digest: expected"),
        ("kernel/files/vmlinux/size", 1 << 50, "kernel.files.vmlinux.size: expected a whole"),
        ("kernel/files/vmlinux/size", True, "kernel.files.vmlinux.size: expected a whole"),
        ("rootfs/files/overlay.ext4", 1, "rootfs.files.overlay.ext4: expected a table"),
        ("rootfs/facts/health", "yes", "rootfs.facts.health: expected true or false"),
        ("rootfs/facts/health_ms", -1, "rootfs.facts.health_ms: expected a whole number"),
        ("rootfs/facts/users", {"a": [0, -1, "/"]}, "rootfs.facts.users: expected {name"),
        ("rootfs/facts/users", {"a": [0, "0", "/"]}, "rootfs.facts.users: expected {name"),
        ("rootfs/facts/users", [], "rootfs.facts.users: expected {name"),
        ("rootfs/facts/odd", 1, "rootfs.facts.odd: unknown key"),
        ("spec/kernel", {"path": "/etc/passwd"}, "spec.kernel: unknown key"),
        ("spec/bootstrap", {"suite": "x"}, "spec.bootstrap: unknown key"),
        ("spec/build", {}, "spec.build: unknown key"),
        ("spec/machine/memory", "0MiB", "spec.machine.memory: expected a whole number of MiB"),
        ("spec/machine/vcpus", 1000, "spec.machine.vcpus: expected a whole number from 1"),
        ("spec/boot/kernel_arguments", ["init=/x"], "spec.boot.kernel_arguments: 'init=/x'"),
        ("spec/boot/deadline", 5, "spec.boot.deadline: expected a time"),
        ("spec/network/address", ["x"], "spec.network.address: expected an address"),
        ("spec/check", [{"shell": "rm"}], "spec.check[1]: expected either http"),
        ("spec/hostname", "a b", "spec.hostname: expected a string like"),
    ],
)
def test_what_is_not_as_it_must_be_is_named(values: Any, path: str, value: Any, said: str) -> None:
    if "/../" in path:
        values["kernel"]["files"][".."] = value
    else:
        put(values, path, value)
    told = problems(values)
    assert said in told
    assert "hint: publish the image again" in told


def test_all_problems_are_told_at_once(values: Any) -> None:
    del values["rootfs"]["fingerprint"], values["spec"]["machine"]
    values["kernel"]["fingerprint"] = 1
    told = problems(values)
    assert "rootfs.fingerprint is missing" in told and "kernel.fingerprint: expected" in told


@pytest.mark.parametrize("key", document._KEYS)
def test_what_is_missing_is_named(values: Any, key: str) -> None:
    del values[key]
    assert f"fcbuild.json: {key} is missing" in problems(values)


def test_a_newer_schema_is_said_to_be_one(values: Any) -> None:
    values.update(schema=2, what="nobody knows")
    told = problems(values)
    assert "fcbuild.json is of schema 2, this fcbuild knows 1\n  hint: use a newer fcbuild" in told


def test_another_boot_contract_is_said_to_be_one(values: Any) -> None:
    values["boot_contract"] = 3
    assert "version 3 of the boot contract, this fcbuild version 2" in problems(values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"1", "is not a JSON object"),
        (b"{}", "fcbuild.json: schema is missing"),
        (b" " * (document.MAX_BYTES + 1), "1048576 at most"),
    ],
    ids=range(7),
)
def test_what_is_no_document_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        document.read(text)
