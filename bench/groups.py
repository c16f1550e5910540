"""What each group of options of the default kernel costs: the kernel is built without it.

A group is a fragment, or some options of one that stand for a whole subsystem. To leave it out sets
what it switches on to "is not set", so that nothing comes back by its own default; what depends on
it goes with it. The fragment of containers is added instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.counted import Rig
from bench.trees import Trees, content
from fcbuild import kconfig, progress

TREE, FORK = "default", "without"
ADDED = "container"
# Fragments without which nothing boots, or which are no choice.
NEEDED = (
    *("base", "x86", "firecracker-x86", "virtio-mmio", "fs", "net"),
    *("hardening", "hardening-x86"),
)
# Parts of fragments: what a reader may want to know the price of.
PARTS: Mapping[str, Sequence[str]] = {
    "IPv6 (net)": ("IPV6",),
    "overlayfs (fs)": ("OVERLAY_FS",),
    "symbol names (diagnosis)": ("KALLSYMS",),
    "BPF (systemd)": ("BPF_SYSCALL", "CGROUP_BPF", "BPF_JIT", "BPF_JIT_ALWAYS_ON"),
    "huge pages (memory)": ("TRANSPARENT_HUGEPAGE", "HUGETLBFS"),
    "mitigations (hardening-x86)": ("CPU_MITIGATIONS",),
}


class Cost(NamedTuple):
    """bytes: of content; file: of vmlinux; boot: instructions; memory: KiB less MemFree."""

    group: str
    bytes: int
    file: int
    boot: int
    memory: int

    def row(self) -> str:
        return (
            f"| {self.group} | {self.bytes / 1024:.0f} | {self.file / 1024:.0f} "
            f"| {self.boot / 1e6:.2f} | {self.memory} |"
        )


def table(trees: Trees, rig: Rig, words: str) -> Iterator[str]:
    """Yield the table's lines as they come."""
    directory = trees.spec.fragments[0].parent
    fragments = [path.read_text(encoding="utf-8") for path in trees.spec.fragments]
    whole = _measured(trees, rig, words, TREE, "all", fragments)
    yield "| group | content, KiB | vmlinux, KiB | boot, M instructions | memory, KiB |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    yield whole._replace(group=f"all of {TREE}", memory=0).row()
    for name, options in _groups(trees.spec.fragments).items():
        without = _without(fragments, options)
        trees.fork(TREE, FORK)
        yield _difference(name, whole, _measured(trees, rig, words, FORK, name, without)).row()
    more = [*fragments, (directory / f"{ADDED}.config").read_text(encoding="utf-8")]
    trees.fork(TREE, FORK)
    added = _measured(trees, rig, words, FORK, ADDED, more)
    yield _difference(f"{ADDED} (more)", added, whole).row()


def _groups(fragments: Sequence[Path]) -> dict[str, list[str]]:
    """Return the options of each group, the parts of a fragment NAME@SERIES with NAME's."""
    found: dict[str, list[str]] = {}
    for path in fragments:
        name = path.stem.partition("@")[0]
        if name not in NEEDED:
            options = kconfig.options(path.read_text(encoding="utf-8"))
            found.setdefault(name, []).extend(o for o, value in options.items() if value != "n")
    return {**found, **{name: list(options) for name, options in PARTS.items()}}


def _without(fragments: Sequence[str], options: Sequence[str]) -> list[str]:
    kept = [
        "\n".join(
            line
            for line in text.splitlines()
            if (one := kconfig.option(line.strip())) is None or one[0] not in options
        )
        for text in fragments
    ]
    return [*kept, *(f"# CONFIG_{option} is not set" for option in options)]


def _measured(
    trees: Trees, rig: Rig, words: str, tree: str, name: str, fragments: Sequence[str]
) -> Cost:
    built = trees.build(tree, "\n".join(fragments) + "\n", "allnoconfig")
    with progress.step(f"booting without {name}"):
        count = rig.counted(built.vmlinux, "disk", words)
    size = built.vmlinux.stat().st_size
    return Cost(name, content(built.vmlinux), size, count.boot, -count.free)


def _difference(name: str, more: Cost, less: Cost) -> Cost:
    return Cost(
        name,
        more.bytes - less.bytes,
        more.file - less.file,
        more.boot - less.boot,
        more.memory - less.memory,
    )
