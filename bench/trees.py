"""Kernels that the benchmark compiles itself: the pipeline's source and compiler, other configs.

    <work>/src-<digest>/   the source with the series' patches, unpacked once
    <work>/trees/<name>/   what make made, kept as the pipeline keeps its own: after a change of the
                           config it makes only what the options that changed touch

The compilers' cache is that of the pipeline.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fcbuild import kconfig, progress
from fcbuild.build import compiler_cache
from fcbuild.build.kernel import PATCH, REPRODUCIBLE, UNPACK, Workshop
from fcbuild.build.object_tree import ObjectTree
from fcbuild.errors import SourceError
from fcbuild.series import KernelSpec

BUILD_S = 3 * 3600.0
PAGE = 4096


@dataclass(frozen=True)
class Built:
    """vmlinux: stripped, as Firecracker boots it."""

    vmlinux: Path
    config: dict[str, str]


def content(vmlinux: Path) -> int:
    """Return the size of a file without its pages that hold one byte's value only (0, int3)."""
    held = 0
    with vmlinux.open("rb") as file:
        while page := file.read(PAGE):
            held += PAGE * (page.count(page[:1]) != len(page))
    return held


@dataclass(frozen=True)
class Trees:
    """spec: whose source it is. Every method raises CommandFailed with the end of make's output."""

    workshop: Workshop
    spec: KernelSpec
    work: Path

    def build(self, name: str, config: str, start: str | None = None) -> Built:
        """Compile a whole config, or fragments: those are added to what make calls `start`
        (allnoconfig)."""
        tree = ObjectTree(self.work / "trees" / name, self._use())
        tree.path.mkdir(parents=True, exist_ok=True)
        if not tree.whole():
            tree.clear()
        (tree.path / "wanted").write_text(config, encoding="utf-8")
        self._source()
        with progress.step(f"compiling {name}"), tree.changing():
            script = _COMPILE if start else f"rm -f /build/.config\n{_COMPILE}"
            self._run(script, name, tree.path, START=start or "", JOBS=str(self.workshop.jobs))
        text = (tree.path / ".config").read_text(encoding="utf-8")
        return Built(tree.path / "vmlinux.stripped", kconfig.options(text))

    def fork(self, name: str, to: str) -> None:
        """Copy a tree, so that what a config changes need not be changed back."""
        shutil.rmtree(self.work / "trees" / to, ignore_errors=True)
        shutil.copytree(self.work / "trees" / name, self.work / "trees" / to, symlinks=True)

    def cloud_config(self) -> str:
        """Return the config of the distribution's kernel for clouds, of the source's version.
        Raises CommandFailed, SourceError where the source is not of the toolchain's release."""
        source = next((one for one in self.spec.sources if one.debian), None)
        if source is None or source.debian is None or source.suite:
            raise SourceError("the kernel's source is not of the toolchain's own release")
        place = self.work / "cloud"
        place.mkdir(parents=True, exist_ok=True)
        package = source.debian.replace("source", "config")
        self._run(_CLOUD, package, place, network=True, PACKAGE=f"{package}={source.version}")
        return (place / "config").read_text(encoding="utf-8") + _UNSIGNED

    def _source(self) -> None:
        """Unpack the source that the pipeline has downloaded."""
        src = self._src
        if (src / "Makefile").exists():
            return
        src.mkdir(exist_ok=True)
        kept = [self.workshop.downloads / source.sha256 for source in self.spec.sources]
        archive = next((path for path in kept if path.exists()), None)
        if archive is None:
            raise SourceError(
                "the source is not there", hint=f"doit kernel:{self.spec.name} fetches it"
            )
        with progress.step("unpacking the source"):
            self._run(UNPACK, "the source", src, {archive: "/archive:ro"})
            for patch in self.spec.patches:
                self._run(PATCH, f"{patch.name} applied", src, {patch: "/patch:ro"})

    @property
    def _src(self) -> Path:
        return self.work / f"src-{self._use()[:12]}"

    def _use(self) -> str:
        """Return what is compiled from, as a digest."""
        sources = [source.sha256 for source in self.spec.sources]
        patches = [sha256(patch.read_bytes()).hexdigest() for patch in self.spec.patches]
        key = [*sources, *patches, self.workshop.toolchain]
        return sha256("\n".join(key).encode()).hexdigest()

    def _run(
        self,
        script: str,
        what: str,
        build: Path,
        source: Mapping[Path, str] | None = None,
        *,
        network: bool = False,
        **env: str,
    ) -> None:
        self._src.mkdir(exist_ok=True)
        mounts = {build: "/src:rw" if source else "/build:rw", **(source or {})}
        mounts |= compiler_cache.mount(self.workshop.cache)
        if not source and not network:
            mounts[self._src] = "/src:ro"
        log_path = self.work / "log"
        with log_path.open("ab") as log:
            self.workshop.engine.run(
                self.workshop.toolchain,
                ["bash", "-euo", "pipefail", "-c", script],
                what=f"making {what}",
                mounts=mounts,
                log=log,
                log_path=log_path,
                timeout_s=BUILD_S,
                network=network,
                env={**_ENVIRONMENT, **compiler_cache.environment(self._use()), **env},
            )


# As the pipeline builds kernels: nothing of the machine gets in.
_ENVIRONMENT = {
    "ARCH": "x86_64",
    **REPRODUCIBLE,
}

# In a container of the toolchain image.
# make writes .config anew at each step, but compiles only what depends on an option that changed.
_COMPILE = """
cd /build
if [ -n "$START" ]; then make -C /src O=/build "$START"; fi
cat wanted >> .config
make -C /src O=/build olddefconfig
nice make -C /src O=/build -j"$JOBS" CC="ccache gcc" HOSTCC="ccache gcc" vmlinux
strip --strip-all -o vmlinux.stripped vmlinux
"""

# What the distribution signs modules with, and the debug information that it strips later.
_UNSIGNED = """
CONFIG_MODULE_SIG_KEY=""
CONFIG_SYSTEM_TRUSTED_KEYS=""
CONFIG_DEBUG_INFO_NONE=y
"""

_CLOUD = """
cd /tmp
apt-get -qq update
apt-get -qq download "$PACKAGE"
dpkg-deb --fsys-tarfile ./*.deb | tar -xO --wildcards '*/config.amd64_none_cloud-amd64.xz' \
    | xz -d > /build/config
chmod 644 /build/config
"""
