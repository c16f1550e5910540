"""Read images/*/image.toml and kernels/*/kernel.toml into frozen dataclasses.

The loader is strict: an unknown key, a wrong type or a bad value is a problem that names file, key
and what was expected, and all problems of all files are reported together in one SpecError.
Sizes are written with a unit ("128MiB") and kept in bytes; times ("60s") in milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fcbuild import tables
from fcbuild.errors import SpecError, did_you_mean
from fcbuild.tables import MIB, Table

# A name becomes a doit task, a directory, a host name and, the strictest of them, part of an image
# reference: path-component in the grammar of the OCI distribution specification.
NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
SHA256 = re.compile(r"[0-9a-f]{64}")


# machine-config in Firecracker's API description (v1.12.1): vcpu_count is 1-32.
MAX_VCPUS = 32


@dataclass(frozen=True, kw_only=True)
class HttpCheck:
    """GET http://guest:port/path and compare the status, and the body if `contains` is given."""

    port: int
    path: str = "/"
    status: int = 200
    contains: str = ""

    def __str__(self) -> str:
        wanted = f" and a body with {self.contains!r}" if self.contains else ""
        return f"http :{self.port}{self.path} -> {self.status}{wanted}"


@dataclass(frozen=True, kw_only=True)
class LogCheck:
    """A regular expression to find in a line of what the program prints."""

    pattern: str

    def __str__(self) -> str:
        return f"log /{self.pattern}/"


Check = HttpCheck | LogCheck


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """A base image made from a distribution's signed packages.

    suite: the distribution's release, as its archive names it.
    packages: packages to have besides the minimal base.
    """

    suite: str
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """One directory of images/. It has a Dockerfile, or is bootstrapped from packages.

    size: bytes of the root filesystem, None for content + free. free: bytes left for the guest.
    memory: bytes. deadline: ms from InstanceStart within which every check has to pass.
    stop_grace: ms between the stop signal and SIGKILL. expect_exit: the status that the program
    must end with by itself; None for a service, which is stopped once its checks have passed.
    """

    name: str
    directory: Path
    description: str
    kernel: str
    bootstrap: Bootstrap | None
    build_args: Mapping[str, str]
    build_target: str | None
    hostname: str
    size: int | None
    free: int
    vcpus: int
    memory: int
    deadline: int
    stop_grace: int
    expect_exit: int | None
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class KernelSource:
    """Where a kernel's source may come from: a distribution's package or a URL; one of the two.

    sha256: of the downloaded file (the .deb, or the tarball).
    """

    version: str
    sha256: str
    debian: str | None = None
    url: str | None = None

    def __str__(self) -> str:
        return f"package {self.debian} {self.version}" if self.debian else str(self.url)


@dataclass(frozen=True, kw_only=True)
class KernelSpec:
    """One directory of kernels/. `fragments` are the Kconfig files to apply, in order."""

    name: str
    directory: Path
    description: str
    arch: str
    fragments: tuple[Path, ...]
    sources: tuple[KernelSource, ...]


@dataclass(frozen=True)
class Specs:
    """Everything that images/ and kernels/ say."""

    images: Mapping[str, ImageSpec]
    kernels: Mapping[str, KernelSpec]


def load(root: Path) -> Specs:
    """Read all specs below root. Raises SpecError with every problem found."""
    problems: list[str] = []
    kernels = {
        name: _kernel(name, table, root, problems)
        for name, table in _tables(root / "kernels", "kernel.toml", problems)
    }
    images = {
        name: _image(name, table, root, problems)
        for name, table in _tables(root / "images", "image.toml", problems)
    }
    for image in images.values():
        if image.bootstrap is None and image.kernel not in kernels:
            near = did_you_mean(image.kernel, kernels) or f"; known: {', '.join(kernels)}"
            problems.append(
                f"images/{image.name}/image.toml: kernel: no kernel {image.kernel!r}{near}"
            )
    if problems:
        raise SpecError(problems)
    return Specs(images, kernels)


def select(wanted: str | None, known: Iterable[str], *, what: str) -> list[str]:
    """Resolve a comma list of names and globs; None means all. Raises SpecError with a hint."""
    import fnmatch

    names = sorted(known)
    if wanted is None:
        return names
    chosen: dict[str, None] = {}
    for pattern in wanted.split(","):
        matches = fnmatch.filter(names, pattern.strip())
        if not matches:
            near = did_you_mean(pattern, names)
            raise SpecError([f"no {what} {pattern!r}{near}; known: {', '.join(names) or 'none'}"])
        chosen.update(dict.fromkeys(matches))
    return list(chosen)


def bootstrap(path: Path) -> Bootstrap:
    """Read a file that holds nothing but a [bootstrap] table. Raises SpecError."""
    problems: list[str] = []
    table = tables.read(path, path.name, problems)
    found = _bootstrap(table)
    table.finish()
    if problems or found is None:
        raise SpecError(problems or [f"{path}: no [bootstrap] table"])
    return found


def _tables(parent: Path, filename: str, problems: list[str]) -> Iterable[tuple[str, Table]]:
    for path in sorted(parent.glob(f"*/{filename}")):
        name = path.parent.name
        where = f"{parent.name}/{name}/{filename}"
        if not NAME.fullmatch(name):
            problems.append(
                f"{where}: the directory's name must be lower case letters and digits, "
                "joined by '.', '_' or '-', 63 at most"
            )
        yield name, tables.read(path, where, problems)


def _image(name: str, table: Table, root: Path, problems: list[str]) -> ImageSpec:
    directory = root / "images" / name
    rootfs, machine, build = table.table("rootfs"), table.table("machine"), table.table("build")
    boot = table.table("boot")
    base = _bootstrap(table)
    size = rootfs.get(
        "size",
        '"auto" or a size like "512MiB"',
        -1,
        lambda v: -1 if v == "auto" else tables.size(v),
    )
    memory = machine.size("memory", 128 * MIB)
    if memory % MIB or not memory:
        machine.problem("memory", "a whole number of MiB, 1 at least", machine.values["memory"])
    default_hostname = re.sub(r"[^A-Za-z0-9-]", "-", name)
    spec = ImageSpec(
        name=name,
        directory=directory,
        description=table.string("description"),
        kernel=table.string("kernel", "6.12"),
        bootstrap=base,
        build_args=build.string_map("args"),
        build_target=build.string("target") or None,
        hostname=table.string("hostname", default_hostname, HOSTNAME),
        size=None if size < 0 else size,
        free=rootfs.size("free", 32 * MIB),
        vcpus=machine.integer("vcpus", 1, 1, MAX_VCPUS),
        memory=memory,
        deadline=boot.time("deadline", 30_000),
        stop_grace=boot.time("stop_grace", 10_000),
        expect_exit=boot.integer("expect_exit", -1, 0, 255),
        checks=tuple(filter(None, map(_check, table.tables("check")))),
    )
    if spec.expect_exit == -1:
        # Without a word about it, a program that nothing is asked of is one that ends by itself.
        spec = replace(spec, expect_exit=None if spec.checks else 0)
    for part in (rootfs, machine, build, boot, table):
        part.finish()
    if (base is None) == (not (directory / "Dockerfile").is_file()):
        problems.append(
            f"images/{name}: needs a Dockerfile or a [bootstrap] table in image.toml, "
            f"{'and has neither' if base is None else 'not both'}"
        )
    return spec


def _bootstrap(table: Table) -> Bootstrap | None:
    if "bootstrap" not in table.values:
        return None
    part = table.table("bootstrap")
    part.require("suite")
    # Both become arguments of a program that runs as root: nothing that looks like an option.
    suite = part.string("suite", pattern=re.compile(r"[a-z][a-z0-9-]*"))
    packages = part.strings("packages")
    for package in packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package):
            part.problem("packages", "names of packages", package)
    part.finish()
    return Bootstrap(suite=suite, packages=packages)


def _check(table: Table) -> Check | None:
    kinds = sorted(set(table.values) & {"http", "log"})
    if len(kinds) != 1 or len(table.values) != 1:
        found = ", ".join(table.values) or "nothing"
        table.problems.append(
            f"{table.where}: {table.prefix[:-1]}: expected either http = {{...}} or "
            f'log = "regex", got {found}'
        )
        return None
    if kinds == ["log"]:
        pattern = table.string("log")
        try:
            re.compile(pattern)
        except re.error as error:
            table.problem("log", f"a regular expression ({error})", pattern)
        return LogCheck(pattern=pattern)
    http = table.table("http")
    http.require("port")
    check = HttpCheck(
        port=http.integer("port", 80, 1, 65535),
        path=http.string("path", "/", re.compile(r"/[!-~]*")),
        status=http.integer("status", 200, 100, 599),
        contains=http.string("contains"),
    )
    http.finish()
    return check


def _kernel(name: str, table: Table, root: Path, problems: list[str]) -> KernelSpec:
    table.require("fragments")
    table.require("source")
    fragments = []
    known = sorted(path.stem for path in (root / "kernels" / "fragments").glob("*.config"))
    for fragment in table.strings("fragments"):
        if fragment not in known:
            near = did_you_mean(fragment, known) or f"; known: {', '.join(known)}"
            problems.append(
                f"{table.where}: fragments: no kernels/fragments/{fragment}.config{near}"
            )
        fragments.append(root / "kernels" / "fragments" / f"{fragment}.config")
    spec = KernelSpec(
        name=name,
        directory=root / "kernels" / name,
        description=table.string("description"),
        arch=table.string("arch", "x86_64", re.compile("x86_64")),
        fragments=tuple(fragments),
        sources=tuple(map(_source, table.tables("source"))),
    )
    table.finish()
    return spec


def _source(table: Table) -> KernelSource:
    for key in ("version", "sha256"):
        table.require(key)
    source = KernelSource(
        version=table.string("version", pattern=re.compile(r"[0-9][A-Za-z0-9.+:~-]*")),
        sha256=table.string("sha256", "0" * 64, SHA256),
        debian=table.string("debian", pattern=re.compile(r"linux-source-[0-9.]+")) or None,
        url=table.string("url", pattern=re.compile(r"https://[!-~]+")) or None,
    )
    if (source.debian is None) == (source.url is None):
        table.problems.append(
            f"{table.where}: {table.prefix[:-1]}: expected either debian = PACKAGE or url = URL"
        )
    table.finish()
    return source
