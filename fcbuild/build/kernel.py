"""Guest kernels: a pinned source, allnoconfig, commented fragments, one uncompressed kernel file.

Kconfig drops an option silently when its dependencies are not met, so every line of every fragment
is compared with the final .config, and a dropped line fails the build before anything compiles.

    archive --unpack, patch--> source tree --configure--> config --compile--> vmlinux or Image
    (downloads/)               (kept, see source_tree)    (checked)  |       (debug info split off)
                                                       object tree (kept, see object_tree)
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO, NamedTuple, cast

from fcbuild import fetch, fingerprint, kconfig, kernelfile, progress
from fcbuild.build import compiler_cache, depends, elf
from fcbuild.build.engine import Engine
from fcbuild.build.object_tree import ASKED, ObjectTree, objects
from fcbuild.build.source_tree import tree
from fcbuild.context import EPOCH
from fcbuild.errors import BuildError, CommandFailed, InputChanged
from fcbuild.fetch import Source
from fcbuild.kernelfile import KernelFile
from fcbuild.reasons import FRAGMENTS
from fcbuild.recipes import Recipe
from fcbuild.series import KERNEL_FILE, KernelSource, KernelSpec
from fcbuild.store import Stage

CONFIG = "config"
ABOUT = "kernel.json"  # what the kernel was made from, for machines

FETCH_TIMEOUT_S = 900.0
BUILD_TIMEOUT_S = 3 * 3600.0
_STEP = re.compile(r"  [A-Z][A-Z0-9_ ]* +\S")  # kbuild's word for one file made: "  CC      a.o"

# Nothing of the machine that builds gets into the kernel: linux/Documentation/kbuild/
# reproducible-builds.rst.
REPRODUCIBLE = {
    "KBUILD_BUILD_TIMESTAMP": f"@{EPOCH}",
    "KBUILD_BUILD_USER": "fcbuild",
    "KBUILD_BUILD_HOST": "fcbuild",
    "KBUILD_BUILD_VERSION": "1",
    "SOURCE_DATE_EPOCH": str(EPOCH),
}


class _Target(NamedTuple):
    """How kbuild names an architecture. source: its directory of arch/; goal: what is to be made;
    made: where that is; tools: the prefix of the compiler's programs."""

    arch: str
    source: str
    goal: str
    made: str
    tools: str = ""


_TARGETS = {
    "x86_64": _Target("x86_64", "x86", "vmlinux", "vmlinux"),
    "aarch64": _Target("arm64", "arm64", "Image", "arch/arm64/boot/Image", "aarch64-linux-gnu-"),
}


class Workshop(NamedTuple):
    """What a kernel is built with. toolchain: its image's tag; downloads: fetched files by sha256;
    cache: for source trees and what compilers made; jobs: how many compilers at a time."""

    engine: Engine
    toolchain: str
    downloads: Path
    cache: Path
    jobs: int


def build(recipe: Recipe, spec: KernelSpec, workshop: Workshop, stage: Stage) -> None:
    """Make the kernel file, config, System.map, kernel.json and, where the config asks for debug
    info, that in a file of its own.

    Raises SpecError, SourceError, BuildError, CommandFailed, InputChanged.
    """
    fragments = {path.name: _fragment(path, recipe) for path in spec.fragments}
    wanted = kconfig.settings(fragments)
    stage.file(FRAGMENTS).write_bytes(fingerprint.canonical(fragments))
    archive, source = fetch.obtain(
        f"the source of kernel {spec.series}",
        [_source(source, workshop, stage) for source in spec.sources],
        workshop.downloads,
    )

    def unpack(to: Path) -> None:
        with progress.step(f"{recipe}: unpacking {source.title}"):
            _unpack(archive, source, spec, recipe, to, workshop, stage)

    of_source = [source.sha256, *cast(list[str], recipe.inputs["patches"])]
    of_objects = [*of_source, workshop.toolchain, spec.arch]
    asked = "\n".join(fragments.values())
    fresh = stage.scratch / "build"
    fresh.mkdir()
    with (
        tree(workshop.cache, of_source, unpack, what=str(recipe)) as src,
        objects(workshop.cache, of_objects, str(recipe), asked, fresh) as made,
    ):
        kbuild = _Kbuild(src, made, spec, workshop, stage)
        with progress.step(f"{recipe}: configuring"):
            config = kbuild.configure()
        _check_config(spec, wanted, config, src)
        _check_compiler(spec, config)
        with progress.step(f"{recipe}: compiling (a few minutes on a few cores)"):
            kbuild.compile()
        kbuild.take()
        release = kbuild.release()
    found = check(stage.file(KERNEL_FILE[spec.arch]), spec.arch)
    if found.config is not None and found.config != config:
        raise BuildError(f"kernel {spec.name} does not carry the config it was built with")
    about = _about(spec, source, release, config, stage)
    stage.file(ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    stage.facts["source"] = source.title


def check(path: Path, arch: str) -> KernelFile:
    """Return what a kernel file is. Raises BuildError for one that is of no use on `arch`."""
    found = kernelfile.inspect(path)
    if found.arch != arch:
        raise BuildError(f"{path.name} is a kernel for {found.arch}, not for {arch}")
    return found


class _Kbuild:
    """The kernel's make, in a container, out of the tree: the source is only read."""

    def __init__(
        self, src: Path, made: ObjectTree, spec: KernelSpec, workshop: Workshop, stage: Stage
    ) -> None:
        self._arch = spec.arch
        self._target = _TARGETS[spec.arch]
        self._workshop = workshop
        self._stage = stage
        self._made = made
        self._mounts = {
            src: "/src:ro",
            made.path: "/build:rw",
            stage.directory: "/out:rw",
            **compiler_cache.mount(workshop.cache),
        }

    def configure(self) -> dict[str, str]:
        """Return the final config."""
        self._run(_CONFIGURE, "configuring the kernel", FETCH_TIMEOUT_S)
        return kconfig.options(self._stage.file(CONFIG).read_text(encoding="utf-8"))

    def compile(self) -> None:
        count = 0

        def tell(line: str) -> str:
            nonlocal count
            count += _STEP.match(line) is not None
            return f"{count} files made, {line.strip()}"

        self._run(_COMPILE, "compiling the kernel", BUILD_TIMEOUT_S, tell)

    def take(self) -> None:
        """Take what was made to its place in the store."""
        made = self._made.path / self._target.made
        product = self._stage.file(KERNEL_FILE[self._arch])
        if made.name == KERNEL_FILE["x86_64"]:
            elf.pack(made, product)
        else:
            shutil.copyfile(made, product)

    def release(self) -> str:
        """Return what uname -r will say."""
        return (self._made.path / "include/config/kernel.release").read_text().strip()

    def _run(
        self, script: str, what: str, timeout_s: float, tell: Callable[[str], str] = str
    ) -> None:
        target = self._target
        with self._made.changing():
            self._workshop.engine.run(
                self._workshop.toolchain,
                ["bash", "-euo", "pipefail", "-c", script],
                what=what,
                mounts=self._mounts,
                log=self._stage.log,
                log_path=self._stage.log_path,
                timeout_s=timeout_s,
                env={
                    **REPRODUCIBLE,
                    **compiler_cache.environment(self._made.use),
                    "ARCH": target.arch,
                    "CROSS_COMPILE": target.tools,
                    "ASKED": ASKED,
                    "GOAL": target.goal,
                    "JOBS": str(self._workshop.jobs),
                },
                tell=tell,
            )


def _fragment(path: Path, recipe: Recipe) -> str:
    """Return a fragment as the fingerprint covers it. Raises InputChanged."""
    text = path.read_bytes()
    described = cast(Mapping[str, str], recipe.inputs["fragments"])
    if not described[path.name].endswith(sha256(text).hexdigest()):
        raise InputChanged(str(path))
    return text.decode("utf-8")


def _check_config(
    spec: KernelSpec,
    wanted: Mapping[str, kconfig.Setting],
    config: Mapping[str, str],
    src: Path,
) -> None:
    """Raise BuildError with every line that did not get into the config, and why."""
    names = kconfig.dropped(wanted, config)
    if not names:
        return
    known = depends.read(src, _TARGETS[spec.arch].source)
    lines = [
        f"  {wanted[name]} (the config has {name}={config.get(name, 'n')}): "
        f"{known.explain(name, wanted[name].value, config)}"
        for name in names
    ]
    count = "1 line" if len(lines) == 1 else f"{len(lines)} lines"
    raise BuildError(
        "\n".join([f"kernel {spec.name}: {count} did not get into the config:", *lines]),
        hint="set what it depends on in a fragment of this kernel too, or leave it out",
    )


def _check_compiler(spec: KernelSpec, config: Mapping[str, str]) -> None:
    """Raise BuildError for a compiler that the series is not known to build with. One that is older
    than the source allows is refused by Kconfig itself."""
    version = int(config.get("GCC_VERSION", "0"))  # 140200 is 14.2.0: linux/scripts/cc-version.sh
    oldest, newest = spec.gcc
    major = version // 10000
    if version and not oldest <= major <= newest:
        raise BuildError(
            f"kernel {spec.name}: the toolchain's gcc is {major}, "
            f"but series {spec.series} builds with gcc {oldest} to {newest}",
            hint=f"gcc in kernels/{spec.series}/kernel.toml says so; change it where that is old",
        )


def _unpack(
    archive: Path,
    source: Source,
    spec: KernelSpec,
    recipe: Recipe,
    to: Path,
    workshop: Workshop,
    stage: Stage,
) -> None:
    """Unpack a source and apply the patches to it. Raises CommandFailed, InputChanged."""

    def inside(script: str, what: str, mounts: Mapping[Path, str]) -> None:
        workshop.engine.run(
            workshop.toolchain,
            ["bash", "-euo", "pipefail", "-c", script],
            what=what,
            mounts={**mounts, to: "/src:rw"},
            log=stage.log,
            log_path=stage.log_path,
            timeout_s=FETCH_TIMEOUT_S,
        )

    inside(UNPACK, f"unpacking {source.title}", {archive: "/archive:ro"})
    described = cast(list[str], recipe.inputs["patches"])
    for path, one in zip(spec.patches, described, strict=True):
        content = path.read_bytes()
        if not one.endswith(sha256(content).hexdigest()):
            raise InputChanged(str(path))
        copy = stage.scratch / "patch"
        copy.write_bytes(content)
        try:
            inside(PATCH, f"applying {path.name}", {copy: "/patch:ro"})
        except CommandFailed as error:
            error.message = (
                f"kernels/{spec.series}/{path.name} does not apply to {source.title}: "
                f"{error.message}"
            )
            raise


def _source(source: KernelSource, workshop: Workshop, stage: Stage) -> Source:
    def get(to: Path) -> None:
        if source.url:
            fetch.download(source.url, to)
            return
        asked = f"{source.debian}={source.version}"
        log, log_path = stage.log, stage.log_path
        download(asked, source.suite, to.parent, workshop, log=log, log_path=log_path)

    return Source(title=str(source), sha256=source.sha256, fetch=get)


def download(
    package: str, suite: str | None, to: Path, workshop: Workshop, *, log: IO[bytes], log_path: Path
) -> None:
    """Write a source package, PACKAGE=VERSION or PACKAGE for the newest, to `to`/file and its
    version to `to`/version. suite: the release that has it, None for the toolchain's.

    apt in the toolchain image trusts the archive's signed index and nothing else.
    Raises CommandFailed.
    """
    workshop.engine.run(
        workshop.toolchain,
        ["sh", "-euc", _DOWNLOAD, "sh", package, suite or ""],
        what=f"downloading {package}",
        mounts={to: "/out:rw"},
        log=log,
        log_path=log_path,
        timeout_s=FETCH_TIMEOUT_S,
        network=True,
    )


def _about(
    spec: KernelSpec, source: Source, release: str, config: Mapping[str, str], stage: Stage
) -> dict[str, object]:
    text = stage.file(CONFIG).read_bytes()
    return {
        "kernel": spec.name,
        "arch": spec.arch,
        "release": release,
        "source": {"title": source.title, "sha256": source.sha256},
        "patches": [path.name for path in spec.patches],
        "fragments": [path.name for path in spec.fragments],
        "compiler": config.get("CC_VERSION_TEXT", "").strip('"'),
        "assembler": _version(config.get("AS_VERSION", "")),
        "linker": _version(config.get("LD_VERSION", "")),
        "config_sha256": sha256(text).hexdigest(),
        "options": {name: value for name, value in config.items() if value != "n"},
    }


def _version(number: str) -> str:
    """Return binutils' version from how Kconfig writes it: 24400 is 2.44."""
    match = re.fullmatch(r"(\d)(\d\d)\d\d", number)
    return f"binutils {match[1]}.{int(match[2])}" if match else number


# In a container of the toolchain image. $1 is PACKAGE=VERSION, or PACKAGE for the newest; $2 the
# release that has it, where it is another than the toolchain's: the same archives have that too.
_DOWNLOAD = """
cd /tmp
if [ -n "$2" ]; then
    sed -E "s/^(deb [^ ]+) [a-z]+(-[a-z]+)? /\\\\1 $2\\\\2 /" /etc/apt/sources.list > list
    cp list /etc/apt/sources.list
fi
apt-get -qq update
apt-get -qq download "$1"
cat ./*.deb > /out/file
dpkg-deb --field ./*.deb Version > /out/version
"""

# A source package holds the tarball; both kinds of source end as a tree in /src. With pipes, a
# failure of any part has to count: dash has no pipefail, so bash runs it.
UNPACK = """
cd /src
if head -c 8 /archive | grep -q '^!<arch>'; then
    dpkg-deb --fsys-tarfile /archive | tar -xO --wildcards './usr/src/linux-source-*.tar.xz' \
        | xz -d | tar -x --strip-components=1
else
    xz -d < /archive | tar -x --strip-components=1
fi
"""

PATCH = "patch -d /src -p1 --forward --batch --fuzz=0 --no-backup-if-mismatch < /patch"

_CONFIGURE = """
cd /build
make -C /src O=/build allnoconfig
cat "$ASKED" >> .config
make -C /src O=/build olddefconfig
cp .config /out/config
"""

_COMPILE = """
cd /build
make -C /src O=/build -j"$JOBS" CC="ccache ${CROSS_COMPILE}gcc" HOSTCC="ccache gcc" "$GOAL"
cp System.map /out/System.map
if grep -q '^CONFIG_DEBUG_INFO=y' .config; then
    "${CROSS_COMPILE}objcopy" --only-keep-debug vmlinux /out/vmlinux.debug
fi
chmod 644 /out/*
"""
