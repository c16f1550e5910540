"""The source package that an archive has now for a series: the work of `doit lock kernel=SERIES`.

The pin is in kernel.toml, among what people write there, so two values of that text are replaced
and nothing else. A source that is a URL is not moved: whoever writes it checks its signature.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from fcbuild import progress
from fcbuild.build import kernel
from fcbuild.build.kernel import Workshop
from fcbuild.errors import BuildError, SpecError
from fcbuild.fingerprint import digest
from fcbuild.series import KernelSource, KernelSpec
from fcbuild.store import Store

_BLOCK = re.compile(r"^\[\[\s*source\s*\]\]", re.MULTILINE)


def newest(spec: KernelSpec, store: Store, workshop: Workshop, scratch: Path) -> KernelSource:
    """Return the pin that the series' package should have now; what was downloaded for it is kept.

    Raises SpecError for a series without a package, CommandFailed, BuildError.
    """
    old = package(spec)
    log_path = store.root / "logs" / f"lock-{spec.series}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with (
        progress.step(f"kernels/{spec.series}: asking the archive for {old.debian}"),
        log_path.open("wb") as log,
    ):
        kernel.download(str(old.debian), old.suite, scratch, workshop, log=log, log_path=log_path)
    version = (scratch / "version").read_text().strip()
    if not re.fullmatch(r"[0-9][A-Za-z0-9.+:~-]*", version):
        raise BuildError(f"{old.debian}: the archive has a version {version!r}")
    file = scratch / "file"
    found = old._replace(version=version, sha256=digest(file))
    if found != old:
        workshop.downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.chmod(0o600)
        file.replace(workshop.downloads / found.sha256)
    return found


def package(spec: KernelSpec) -> KernelSource:
    """Return the source of a series that is a package. Raises SpecError."""
    for source in spec.sources:
        if source.debian:
            return source
    raise SpecError(
        [f"kernels/{spec.series}/kernel.toml: no source is a package, so nothing can be asked"],
        hint="change url, version and sha256 by hand, from a checksum whose signature holds",
    )


def moved(text: str, old: KernelSource, new: KernelSource) -> str:
    """Return a kernel.toml with one pin moved and all else as it was. Raises SpecError."""
    starts = [match.start() for match in _BLOCK.finditer(text)]
    for start, end in pairwise([*starts, len(text)]):
        block = text[start:end]
        if f'"{old.debian}"' in block and old.sha256 in block:
            block = _replace(block, "version", old.version, new.version)
            block = _replace(block, "sha256", old.sha256, new.sha256)
            return text[:start] + block + text[end:]
    raise SpecError(
        [f"no [[source]] block has {old.debian} with its version and sha256 on lines of their own"]
    )


def write(path: Path, change: Callable[[str], str]) -> None:
    """Change a file of text, whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    temporary.replace(path)


def _replace(block: str, key: str, old: str, new: str) -> str:
    changed, count = re.subn(
        rf'^([ \t]*{key}[ \t]*=[ \t]*)"{re.escape(old)}"', rf'\g<1>"{new}"', block, flags=re.M
    )
    if count != 1:
        raise SpecError([f'{key} = "{old}" is not on a line of its own in its [[source]]'])
    return changed
