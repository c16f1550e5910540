"""ccache, for what compiles kernels: kept beside the store, for a build that was stopped, or went
back to what it was, or whose object tree is gone.

    <cache>/ccache/   at most 2 GB; all of it can be removed at any time

It knows a result by the files that its compiler read (depend mode). Its other way, by what the
preprocessor makes of them, costs half as much as compiling, and object trees are better at it.
"""

from __future__ import annotations

from pathlib import Path

_INSIDE = "/ccache"


def mount(cache: Path) -> dict[Path, str]:
    """Return how a container has it."""
    place = cache / "ccache"
    place.mkdir(parents=True, exist_ok=True)
    return {place: f"{_INSIDE}:rw"}


def environment(use: str) -> dict[str, str]:
    """Return what tells ccache so. use: what results are good for, as a digest of source, patches
    and toolchain.

    ccache sees neither the assembler nor what that reads by itself (.incbin); both follow from
    these, and from the config, which is in a header that it sees.
    """
    return {
        "CCACHE_DIR": _INSIDE,
        "CCACHE_MAXSIZE": "2G",
        "CCACHE_DEPEND": "1",
        "CCACHE_NAMESPACE": use,
        # The image's files all have one time, so a compiler is known by its bytes.
        "CCACHE_COMPILERCHECK": "content",
    }
