"""Read images/*/image.toml into records that do not change, and kernels/ with them.

The loader is strict: an unknown key, a wrong type or a bad value is a problem that names file, key
and what was expected, and all problems of all files are reported together in one SpecError.
Sizes are written with a unit ("128MiB") and kept in bytes; times ("60s") in milliseconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fcbuild import kernel_command_line, lock, network, series, tables
from fcbuild.errors import SpecError, did_you_mean
from fcbuild.lock import Lock
from fcbuild.network import NetworkSpec
from fcbuild.series import Kernel, KernelSpec
from fcbuild.tables import MIB, Table

# A name becomes a doit task, a directory, a host name and, the strictest of them, part of an image
# reference: path-component in the grammar of the OCI distribution specification.
NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
PATH = re.compile(r"(/(?!\.{1,2}(/|\Z))[^/\0]+)+")  # absolute, with nothing to be resolved


# machine-config in Firecracker's API description (v1.12.1): vcpu_count is 1-32.
MAX_VCPUS = 32

DEFAULT_KERNEL = "6.12"

# Room for a file system's own structures and something besides.
MIN_OVERLAY = 16 * MIB


class HttpCheck(NamedTuple):
    """GET http://guest:port/path and compare the status, and the body if `contains` is given."""

    port: int
    path: str = "/"
    status: int = 200
    contains: str = ""

    def __str__(self) -> str:
        wanted = f" and a body with {self.contains!r}" if self.contains else ""
        return f"http :{self.port}{self.path} -> {self.status}{wanted}"


class LogCheck(NamedTuple):
    """A regular expression to find in a line of what the program prints."""

    pattern: str

    def __str__(self) -> str:
        return f"log /{self.pattern}/"


class TcpCheck(NamedTuple):
    """Connect to guest:port and read until the first bytes are `starts_with`, if it is given."""

    port: int
    starts_with: str = ""

    def __str__(self) -> str:
        return f"tcp :{self.port}" + (f" -> {self.starts_with!r}" if self.starts_with else "")


Check = HttpCheck | LogCheck | TcpCheck


class Bootstrap(NamedTuple):
    """A base image made from a distribution's signed packages.

    suite: the distribution's release, as its archive names it.
    packages: packages to have besides the minimal base; NAME:ARCH for one of another architecture.
    arch: the base's architecture.
    """

    suite: str
    packages: tuple[str, ...] = ()
    arch: str = series.X86_64


class ImageSpec(NamedTuple):
    """One directory of images/. It has a Dockerfile, or is bootstrapped from packages.

    kernel: the name of one of Specs.kernels. init: the image's own init, which takes over from
    PID 1; None to run ENTRYPOINT and CMD.
    size: bytes of the root filesystem, None for content + free. free: bytes left for the guest.
    readonly, overlay: how the root is mounted, at most one of them. overlay_size: bytes of the
    drive that takes what the guest writes, None for RAM. writable: directories to be writable on a
    read-only root. memory: bytes. kernel_arguments: words for the kernel's command line.
    deadline: ms from InstanceStart within which everything asked for has to hold, None where
    nothing is said. stop_grace: ms between the stop signal and SIGKILL. ready: whether the image's
    init says when it is ready. expect_exit: the status that the program must end with by itself,
    None where nothing is said.
    """

    name: str
    directory: Path
    description: str
    arch: str
    kernel: str
    bootstrap: Bootstrap | None
    build_args: Mapping[str, str]
    build_target: str | None
    hostname: str
    init: str | None
    size: int | None
    free: int
    readonly: bool
    overlay: bool
    overlay_size: int | None
    writable: tuple[str, ...]
    vcpus: int
    memory: int
    network: NetworkSpec
    kernel_arguments: tuple[str, ...]
    deadline: int | None
    stop_grace: int
    ready: bool
    expect_exit: int | None
    checks: tuple[Check, ...]

    @property
    def platform(self) -> str:
        """What the image is for, as the container engine calls it."""
        return f"linux/{series.DEBIAN_ARCH[self.arch]}"


class Specs(NamedTuple):
    """Everything that images/ and kernels/ say."""

    images: Mapping[str, ImageSpec]
    kernels: Mapping[str, Kernel]
    lock: Lock

    @property
    def series_names(self) -> list[str]:
        """The directories of kernels/, sorted."""
        return sorted({k.series for k in self.kernels.values() if isinstance(k, KernelSpec)})

    def series(self, names: Collection[str]) -> list[KernelSpec]:
        """Return a kernel of each of these series."""
        found = {k.series: k for k in self.kernels.values() if isinstance(k, KernelSpec)}
        return [found[name] for name in names]


def load(root: Path) -> Specs:
    """Read all specs below root. Raises SpecError with every problem found."""
    problems: list[str] = []
    directory = kernels_of(root)
    found = _tables(directory, "kernel.toml", problems)
    kernels = {kernel.name: kernel for kernel in series.load(directory, found, problems)}
    images = {
        name: image(name, table, root / "images" / name, kernels, problems)
        for name, table in _tables(root / "images", "image.toml", problems)
    }
    for one in images.values():
        if (one.bootstrap is None) == (not (one.directory / "Dockerfile").is_file()):
            problems.append(
                f"images/{one.name}: needs a Dockerfile or a [bootstrap] table in image.toml, "
                f"{'and has neither' if one.bootstrap is None else 'not both'}"
            )
        if one.bootstrap is None and one.kernel not in kernels:
            near = did_you_mean(one.kernel, kernels) or f"; known: {', '.join(kernels)}"
            problems.append(f"images/{one.name}/image.toml: kernel: no kernel {one.kernel!r}{near}")
    locked = lock.read(root / "images" / lock.FILE, f"images/{lock.FILE}", problems)
    if problems:
        raise SpecError(problems)
    return Specs(images, kernels, locked)


def kernels_of(root: Path) -> Path:
    """Return where a project's kernels are: its own, or those that come with fcbuild."""
    own = root / "kernels"
    return own if own.is_dir() else Path(__file__).parent.with_name("kernels")


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
    for name in _names(parent):
        path = parent / name / filename
        if not path.exists():
            continue
        where = f"{parent.name}/{name}/{filename}"
        if not NAME.fullmatch(name):
            problems.append(
                f"{where}: the directory's name must be lower case letters and digits, "
                "joined by '.', '_' or '-', 63 at most"
            )
        yield name, tables.read(path, where, problems)


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 (names are all that is asked for)
    except OSError:
        return []


def image(
    name: str, table: Table, directory: Path, kernels: dict[str, Kernel], problems: list[str]
) -> ImageSpec:
    """Read the table of an image; what is wrong in it becomes problems. kernels: gets the kernel
    that the image brings, if it does."""
    rootfs, machine, build = table.table("rootfs"), table.table("machine"), table.table("build")
    boot = table.table("boot")
    arch = table.string("arch", series.X86_64, "|".join(series.ARCHITECTURES))
    base = _bootstrap(table, arch)
    size = rootfs.get(
        "size",
        '"auto" or a size like "512MiB"',
        -1,
        lambda v: -1 if v == "auto" else tables.size(v),
    )
    memory = machine.size("memory", 128 * MIB)
    if memory % MIB or not memory:
        machine.problem("memory", "a whole number of MiB, 1 at least", machine.values["memory"])
    init = table.string("init", pattern=PATH) or None
    readonly, overlay, overlay_size = _root(rootfs)
    ready = boot.string("ready", pattern="notify")
    if ready and init is None:
        boot.problem("ready", "an image with an init of its own (init = PATH)", ready)
    deadline, expect_exit = boot.time("deadline", -1), boot.integer("expect_exit", -1, 0, 255)
    if isinstance(table.values.get("kernel"), dict):
        given = series.given(table.table("kernel"), image=name, directory=directory, arch=arch)
        kernels[given.name] = given
        kernel = given.name
    else:
        kernel = series.for_arch(table.string("kernel", DEFAULT_KERNEL), arch)
    default_hostname = re.sub(r"[^A-Za-z0-9-]", "-", name)
    spec = ImageSpec(
        name=name,
        directory=directory,
        description=table.string("description"),
        arch=arch,
        kernel=kernel,
        bootstrap=base,
        build_args=build.string_map("args"),
        build_target=build.string("target") or None,
        hostname=table.string("hostname", default_hostname, HOSTNAME),
        init=init,
        size=None if size < 0 else size,
        free=rootfs.size("free", 32 * MIB),
        readonly=readonly,
        overlay=overlay,
        overlay_size=overlay_size,
        writable=_writable(rootfs),
        vcpus=machine.integer("vcpus", 1, 1, MAX_VCPUS),
        memory=memory,
        network=network.read(table.table("network")),
        kernel_arguments=kernel_command_line.read(boot, instance=False),
        deadline=None if deadline < 0 else deadline,
        stop_grace=boot.time("stop_grace", 10_000),
        ready=bool(ready),
        expect_exit=None if expect_exit < 0 else expect_exit,
        checks=tuple(filter(None, map(_check, table.tables("check")))),
    )
    for part in (rootfs, machine, build, boot, table):
        part.finish()
    return spec


def _root(table: Table) -> tuple[bool, bool, int | None]:
    """Return whether the root is read-only, whether it is an overlay, and its drive's size."""

    def read(value: Any) -> bool | int | None:
        return value if isinstance(value, bool) else tables.size(value)

    readonly = table.boolean("readonly")
    default: bool | int = False
    overlay = table.get("overlay", 'true or a size like "256MiB"', default, read)
    if readonly and overlay is not False:
        table.problem("overlay", "either readonly or overlay", overlay)
    if isinstance(overlay, bool):
        return readonly, overlay, None
    if overlay % MIB or overlay < MIN_OVERLAY:
        table.problem(
            "overlay",
            f"a whole number of MiB, {MIN_OVERLAY // MIB} at least",
            table.values["overlay"],
        )
    return readonly, True, overlay


def _writable(table: Table) -> tuple[str, ...]:
    paths = table.strings("writable")
    for path in paths:
        if not PATH.fullmatch(path):
            table.problem("writable", "absolute paths of directories", path)
    if paths and table.values.get("readonly") is not True:
        table.problem("writable", "it to go with readonly = true", list(paths))
    return paths


def _bootstrap(table: Table, arch: str = series.X86_64) -> Bootstrap | None:
    if "bootstrap" not in table.values:
        return None
    part = table.table("bootstrap")
    part.require("suite")
    # Both become arguments of a program that runs as root: nothing that looks like an option.
    suite = part.string("suite", pattern=r"[a-z][a-z0-9-]*")
    packages = part.strings("packages")
    for package in packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?", package):
            part.problem("packages", "names of packages", package)
    part.finish()
    return Bootstrap(suite=suite, packages=packages, arch=arch)


def _check(table: Table) -> Check | None:
    kinds = sorted(set(table.values) & {"http", "log", "tcp"})
    if len(kinds) != 1 or len(table.values) != 1:
        found = ", ".join(table.values) or "nothing"
        table.problems.append(
            f"{table.where}: {table.prefix[:-1]}: expected either http = {{...}}, "
            f'tcp = {{...}} or log = "regex", got {found}'
        )
        return None
    if kinds == ["log"]:
        pattern = table.string("log")
        try:
            re.compile(pattern)
        except re.error as error:
            table.problem("log", f"a regular expression ({error})", pattern)
        return LogCheck(pattern=pattern)
    if kinds == ["tcp"]:
        tcp = table.table("tcp")
        tcp.require("port")
        found_tcp = TcpCheck(
            port=tcp.integer("port", 22, 1, 65535), starts_with=tcp.string("starts_with")
        )
        tcp.finish()
        return found_tcp
    http = table.table("http")
    http.require("port")
    check = HttpCheck(
        port=http.integer("port", 80, 1, 65535),
        path=http.string("path", "/", r"/[!-~]*"),
        status=http.integer("status", 200, 100, 599),
        contains=http.string("contains"),
    )
    http.finish()
    return check
