"""Read kernels/ into frozen dataclasses: each series, with each profile, for each architecture.

    kernels/profiles.toml       what goes into a kernel: the fragments of each profile
    kernels/6.12/kernel.toml    where a series' source comes from, and what it is built for
    kernels/fragments/*.config  Kconfig fragments

A kernel is named SERIES/PROFILE@ARCH. `default` and x86_64 are left out: 6.12, 6.12/micro,
6.12@aarch64. A kernel.toml with fragments of its own makes one kernel, of no profile.

NAME@SERIES.config and NAME@ARCH.config are what fragment NAME has besides in one series, or for one
architecture; there may be nothing but those.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fcbuild import tables
from fcbuild.errors import did_you_mean
from fcbuild.tables import Table

ARCHITECTURES = ("x86_64", "aarch64")
X86_64 = ARCHITECTURES[0]
# How Debian calls them; the container engine too.
DEBIAN_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
# Of the built kernel: an ELF file on x86-64; on 64-bit ARM the Image that boot loaders take.
KERNEL_FILE = {"x86_64": "vmlinux", "aarch64": "Image"}

PROFILES = "profiles.toml"
DEFAULT = "default"  # the profile of a kernel that names none
GIVEN = "images/{image}"  # the name of the kernel that an image brings
SHA256 = r"[0-9a-f]{64}"

_PROFILE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_OLDEST_GCC, _NEWEST_GCC = 5, 99


class KernelSource(NamedTuple):
    """Where a kernel's source may come from: a distribution's package or a URL; one of the two.

    sha256: of the downloaded file (the .deb, or the tarball). suite: the distribution's release
    that has the package, None for the toolchain's own.
    """

    version: str
    sha256: str
    debian: str | None = None
    suite: str | None = None
    url: str | None = None

    def __str__(self) -> str:
        return f"package {self.debian} {self.version}" if self.debian else str(self.url)


class KernelSpec(NamedTuple):
    """One kernel to build. series: its directory of kernels/. fragments, patches: the Kconfig
    files and the patches to apply, in order. gcc: the oldest and the newest major version of the
    compiler that the series is known to build with."""

    name: str
    series: str
    directory: Path
    description: str
    arch: str
    fragments: tuple[Path, ...]
    sources: tuple[KernelSource, ...]
    patches: tuple[Path, ...] = ()
    gcc: tuple[int, int] = (_OLDEST_GCC, _NEWEST_GCC)

    @property
    def pinned(self) -> set[str]:
        """The sha256 of what is downloaded for it."""
        return {source.sha256 for source in self.sources}


class GivenKernel(NamedTuple):
    """A kernel that an image brings: a file, or a URL and its sha256; one of the two."""

    name: str
    image: str
    description: str
    arch: str
    path: Path | None = None
    url: str | None = None
    sha256: str | None = None

    @property
    def pinned(self) -> set[str]:
        """The sha256 of what is downloaded for it."""
        return {self.sha256} if self.sha256 else set()


Kernel = KernelSpec | GivenKernel


class _Profiles(NamedTuple):
    """architectures: the fragments of each. profiles: description and fragments of each."""

    architectures: Mapping[str, tuple[str, ...]]
    profiles: Mapping[str, tuple[str, tuple[str, ...]]]


def load(directory: Path, series: Iterable[tuple[str, Table]], problems: list[str]) -> list[Kernel]:
    """Read kernels/: profiles.toml, and the kernel.toml of each series. Adds to the problems."""
    fragments = _Fragments(directory / "fragments")
    profiles = _profiles(directory / PROFILES, fragments, problems)
    return [
        kernel
        for name, table in series
        for kernel in _kernels(name, directory / name, table, profiles, fragments)
    ]


def called(series: str, profile: str = DEFAULT, arch: str = X86_64) -> str:
    """Return the name of a kernel."""
    name = series if profile == DEFAULT else f"{series}/{profile}"
    return for_arch(name, arch)


def for_arch(name: str, arch: str) -> str:
    """Return the name of the kernel that NAME means to an image of an architecture."""
    return name if arch == X86_64 else f"{name}@{arch}"


def given(table: Table, *, image: str, directory: Path, arch: str) -> GivenKernel:
    """Read the kernel table of an image.toml: a path, from the image's directory, or a url and its
    sha256."""
    path, url = table.string("path"), table.string("url", pattern=r"https://[!-~]+")
    sha256 = table.string("sha256", pattern=SHA256)
    if bool(path) == bool(url):
        table.problems.append(
            f"{table.where}: kernel: expected the name of a kernel, path = FILE, "
            "or url = URL with sha256 = DIGEST"
        )
    elif url and not sha256:
        table.require("sha256")
    table.finish()
    return GivenKernel(
        name=for_arch(GIVEN.format(image=image), arch),
        image=image,
        description=f"the kernel that images/{image} brings",
        arch=arch,
        path=directory / path if path else None,
        url=url or None,
        sha256=sha256 or None,
    )


class _Fragments:
    """The files of kernels/fragments/, by name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            files = sorted(os.listdir(directory))  # noqa: PTH208 (names are all that is asked for)
        except OSError:
            files = []
        self._files = [f.removesuffix(".config") for f in files if f.endswith(".config")]
        self._known = sorted({name.partition("@")[0] for name in self._files})

    def read(self, table: Table, key: str) -> tuple[str, ...]:
        """Read a list of names of fragments."""
        names = tuple(table.strings(key))
        for name in names:
            if name not in self._known:
                near = did_you_mean(name, self._known) or f"; known: {', '.join(self._known)}"
                table.problems.append(
                    f"{table.where}: {table.prefix}{key}: no kernels/fragments/{name}.config{near}"
                )
        return names

    def paths(self, names: Iterable[str], series: str, arch: str) -> tuple[Path, ...]:
        """Return the files of fragments, in one series and for one architecture."""
        return tuple(
            self._directory / f"{file}.config"
            for name in names
            for file in (name, f"{name}@{series}", f"{name}@{arch}")
            if file in self._files
        )


def _profiles(path: Path, fragments: _Fragments, problems: list[str]) -> _Profiles:
    if not path.exists():
        return _Profiles({}, {})
    table = tables.read(path, f"{path.parent.name}/{path.name}", problems)
    architectures = table.table("arch")
    of_arch = {arch: fragments.read(architectures, arch) for arch in ARCHITECTURES}
    architectures.finish()
    found = {}
    every = table.table("profile")
    for name in every.values:
        if not _PROFILE.fullmatch(name):
            every.problem(name, "a name of lower case letters, digits and '-'", name)
        profile = every.table(name)
        profile.require("fragments")
        found[name] = (profile.string("description"), fragments.read(profile, "fragments"))
        profile.finish()
    table.finish()
    return _Profiles(of_arch, found)


def _kernels(
    series: str, directory: Path, table: Table, profiles: _Profiles, fragments: _Fragments
) -> Iterator[KernelSpec]:
    table.require("source")
    base = KernelSpec(
        name=series,
        series=series,
        directory=directory,
        description=table.string("description"),
        arch=X86_64,
        fragments=(),
        sources=tuple(map(_source, table.tables("source"))),
        patches=tuple(_patches(table, directory)),
        gcc=_compilers(table),
    )
    architectures = _architectures(table)
    own = fragments.read(table, "fragments")
    table.finish()
    if "fragments" in table.values or not profiles.profiles:
        table.require("fragments")
        for arch in architectures:
            yield base._replace(
                name=for_arch(series, arch),
                arch=arch,
                fragments=fragments.paths(own, series, arch),
            )
        return
    for arch in architectures:
        for profile, (description, chosen) in profiles.profiles.items():
            yield base._replace(
                name=called(series, profile, arch),
                description=f"{base.description}: {description}",
                arch=arch,
                fragments=fragments.paths((*profiles.architectures[arch], *chosen), series, arch),
            )


def _architectures(table: Table) -> tuple[str, ...]:
    found = table.one_or_more("arch") or (X86_64,)
    for arch in found:
        if arch not in ARCHITECTURES:
            near = did_you_mean(arch, ARCHITECTURES)
            table.problem("arch", " or ".join(ARCHITECTURES) + near, arch)
    return tuple(arch for arch in found if arch in ARCHITECTURES)


def _patches(table: Table, directory: Path) -> Iterator[Path]:
    for name in table.strings("patches"):
        path = directory / name
        if not path.is_file() or ".." in Path(name).parts:
            table.problem("patches", f"files of kernels/{directory.name}", name)
        yield path


def _compilers(table: Table) -> tuple[int, int]:
    def read(value: Any) -> tuple[int, int] | None:
        ok = isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value)
        return (value[0], value[1]) if ok and value[0] <= value[1] else None

    expected = "the oldest and the newest major version of gcc, like [8, 14]"
    return table.get("gcc", expected, (_OLDEST_GCC, _NEWEST_GCC), read)


def _source(table: Table) -> KernelSource:
    for key in ("version", "sha256"):
        table.require(key)
    source = KernelSource(
        # Both become arguments of programs: nothing that looks like an option.
        version=table.string("version", pattern=r"[0-9][A-Za-z0-9.+:~-]*"),
        sha256=table.string("sha256", "0" * 64, SHA256),
        debian=table.string("debian", pattern=r"linux-source-[0-9.]+") or None,
        suite=table.string("suite", pattern=r"[a-z][a-z0-9-]*") or None,
        url=table.string("url", pattern=r"https://[!-~]+") or None,
    )
    if (source.debian is None) == (source.url is None):
        table.problems.append(
            f"{table.where}: {table.prefix[:-1]}: expected either debian = PACKAGE or url = URL"
        )
    if source.suite and source.debian is None:
        table.problem("suite", "it to go with debian = PACKAGE", source.suite)
    table.finish()
    return source
