"""Guest kernels: a pinned source, allnoconfig, commented fragments, an uncompressed vmlinux.

Kconfig drops an option silently when its dependencies are not met, so every line of every fragment
is compared with the final .config, and a dropped line fails the build before anything compiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import cast

from fcbuild import fetch, fingerprint, kconfig, progress
from fcbuild.build.engine import Engine
from fcbuild.context import EPOCH
from fcbuild.errors import BuildError, InputChanged
from fcbuild.fetch import Source
from fcbuild.plan import Recipe
from fcbuild.reasons import FRAGMENTS
from fcbuild.spec import KernelSource, KernelSpec
from fcbuild.store import Stage

VMLINUX = "vmlinux"
FETCH_TIMEOUT_S = 900.0
BUILD_TIMEOUT_S = 3 * 3600.0

_ELF = b"\x7fELF\x02\x01\x01"  # 64 bit, little endian, version 1: elf(5)
_X86_64 = b"\x3e\x00"  # e_machine, at offset 18

# Nothing of the machine that builds gets into the kernel: linux/Documentation/kbuild/
# reproducible-builds.rst.
_REPRODUCIBLE = {
    "KBUILD_BUILD_TIMESTAMP": f"@{EPOCH}",
    "KBUILD_BUILD_USER": "fcbuild",
    "KBUILD_BUILD_HOST": "fcbuild",
    "KBUILD_BUILD_VERSION": "1",
    "SOURCE_DATE_EPOCH": str(EPOCH),
}


def build(
    recipe: Recipe,
    spec: KernelSpec,
    engine: Engine,
    toolchain: str,
    downloads: Path,
    stage: Stage,
    jobs: int,
) -> None:
    """Make vmlinux, config and System.map, with so many compilers at a time.

    Raises SourceError, BuildError, CommandFailed.
    """
    archive, source = _source(spec, engine, toolchain, downloads, stage)
    tree = stage.scratch / "src"
    tree.mkdir()

    def inside(script: str, what: str, timeout_s: float) -> None:
        engine.run(
            toolchain,
            ["bash", "-euo", "pipefail", "-c", script],
            what=what,
            mounts={archive: "/archive:ro", tree: "/src:rw", stage.directory: "/out:rw"},
            log=stage.log,
            log_path=stage.log_path,
            timeout_s=timeout_s,
            env={**_REPRODUCIBLE, "ARCH": spec.arch},
        )

    with progress.step(f"{recipe}: unpacking {source.title} and configuring"):
        texts = {path.name: _fragment(path, recipe) for path in spec.fragments}
        (tree / "fragments").write_text("\n".join(texts.values()), encoding="utf-8")
        stage.file(FRAGMENTS).write_bytes(fingerprint.canonical(texts))
        inside(_CONFIGURE, "configuring the kernel", FETCH_TIMEOUT_S)
    config = stage.file("config").read_text(encoding="utf-8")
    if lines := dropped(spec.fragments, config):
        raise BuildError(
            "\n".join(
                [f"kernel {spec.name}: {len(lines)} lines did not get into the config:"]
                + [f"  {line}" for line in lines]
            ),
            hint="an option that it depends on is off, or this series does not have it",
        )
    with progress.step(f"{recipe}: compiling (a few minutes on a few cores)"):
        inside(_COMPILE.format(jobs=jobs), "compiling the kernel", BUILD_TIMEOUT_S)
    check_vmlinux(stage.file(VMLINUX))
    stage.facts["source"] = source.title


def dropped(fragments: Sequence[Path], config: str) -> list[str]:
    """Return every fragment line that the final config does not hold, with file and line number.

    A later line for the same option overrides an earlier one, as it does for Kconfig.
    """
    final = dict(filter(None, map(kconfig.option, config.splitlines())))
    wanted: dict[str, tuple[str, str]] = {}
    lines = []
    for path in fragments:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            where = f"{path.name}:{number}: {line.strip()}"
            if option := kconfig.option(line.strip()):
                wanted[option[0]] = (option[1], where)
            elif line.strip() and not line.lstrip().startswith("#"):
                lines.append(f"{where} (neither an option nor a comment)")
    for name, (value, where) in wanted.items():
        got = final.get(name, "n")
        if got != value:
            lines.append(f"{where} (the config has {name}={got})")
    return lines


def _fragment(path: Path, recipe: Recipe) -> str:
    """Return a fragment as the fingerprint covers it. Raises InputChanged."""
    text = path.read_bytes()
    described = cast(Mapping[str, str], recipe.inputs["fragments"])
    if not described[path.name].endswith(sha256(text).hexdigest()):
        raise InputChanged(str(path))
    return text.decode("utf-8")


def check_vmlinux(path: Path) -> None:
    """Raise BuildError unless the file is an x86-64 ELF: the name of a file proves nothing."""
    with path.open("rb") as file:
        head = file.read(20)
    if not head.startswith(_ELF) or head[18:20] != _X86_64:
        raise BuildError(f"{path.name} is not an x86-64 ELF file: it starts with {head[:4]!r}")


def _source(
    spec: KernelSpec, engine: Engine, toolchain: str, downloads: Path, stage: Stage
) -> tuple[Path, Source]:
    def from_package(source: KernelSource, to: Path) -> None:
        # apt in the toolchain image: it trusts the archive's signed index and nothing else.
        engine.run(
            toolchain,
            ["sh", "-euc", _DOWNLOAD, "sh", f"{source.debian}={source.version}"],
            what=f"downloading {source}",
            mounts={to.parent: "/out:rw"},
            log=stage.log,
            log_path=stage.log_path,
            timeout_s=FETCH_TIMEOUT_S,
            network=True,
        )

    def way(source: KernelSource) -> Source:
        def get(to: Path) -> None:
            if source.url:
                fetch.download(source.url, to)
            else:
                from_package(source, to)

        return Source(title=str(source), sha256=source.sha256, fetch=get)

    sources = [way(source) for source in spec.sources]
    return fetch.obtain(f"the source of kernel {spec.name}", sources, downloads)


# In a container of the toolchain image; $1 is PACKAGE=VERSION.
_DOWNLOAD = """
cd /tmp
apt-get -qq update
apt-get -qq download "$1"
cat ./*.deb > /out/file
"""

# A source package holds the tarball; both kinds of source end as a tree in /src/linux. With
# pipes, a failure of any part has to count: dash has no pipefail, so bash runs it.
_CONFIGURE = """
mkdir /src/linux
cd /src/linux
if head -c 8 /archive | grep -q '^!<arch>'; then
    dpkg-deb --fsys-tarfile /archive | tar -xO --wildcards './usr/src/linux-source-*.tar.xz' \
        | xz -d | tar -x --strip-components=1
else
    xz -d < /archive | tar -x --strip-components=1
fi
make allnoconfig
cat ../fragments >> .config
make olddefconfig
cp .config /out/config
"""

_COMPILE = """
cd /src/linux
make -j{jobs} vmlinux
cp System.map /out/System.map
strip --strip-all -o /out/vmlinux vmlinux
chmod 644 /out/*
"""
