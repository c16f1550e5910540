"""Root filesystems: the image's files, PID 1 and the boot config, in one ext4 image."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from fcbuild import progress
from fcbuild.build import bootconfig, ext4
from fcbuild.build.engine import Engine
from fcbuild.context import EPOCH
from fcbuild.errors import BuildError
from fcbuild.plan import Recipe
from fcbuild.spec import ImageSpec
from fcbuild.store import Stage
from fcbuild.tables import MIB

EXT4 = "rootfs.ext4"
OURS = ".fcbuild"  # the directory of the boot contract, at the root

# Mount points that PID 1 needs: made here, so that a read-only root has them too.
_MOUNT_POINTS = {"dev": 0o755, "proc": 0o755, "run": 0o755, "sys": 0o755, "tmp": 0o1777}

_MAX_TEXT = 4 * MIB  # an /etc/passwd larger than this is none
_WATCHED = {"etc/passwd", "etc/group"}

# mke2fs reads these from a tar; others it drops without a word.
_KEPT_XATTRS = {"SCHILY.xattr.security.capability", "LIBARCHIVE.xattr.security.capability"}


@dataclass
class _Files:
    """What one pass over the headers of a root filesystem's tar finds."""

    content: ext4.Content = field(default_factory=ext4.Content)
    texts: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    top: set[str] = field(default_factory=set)  # names directly below the root
    end: int = 0  # offset of the end-of-archive marker


def build(
    recipe: Recipe,
    spec: ImageSpec,
    engine: Engine,
    *,
    image: str,
    toolchain: str,
    init: Path,
    stage: Stage,
) -> None:
    """Make rootfs.ext4 from the engine's image. Raises BuildError, CommandFailed."""
    tar = stage.scratch / "rootfs.tar"
    with progress.step(f"{recipe}: packing {image}"):
        with tar.open("wb") as out:
            engine.export(image, out, log=stage.log, log_path=stage.log_path)
        files = _scan(tar)
        config = bootconfig.compose(
            engine.config(image),
            passwd=files.texts.get("etc/passwd", ""),
            group=files.texts.get("etc/group", ""),
            hostname=spec.hostname,
            stop_grace=spec.stop_grace,
            where=f"images/{spec.name}/Dockerfile",
        )
        _append(tar, files, init.read_bytes(), config.render())
        size = spec.size or ext4.size_for(files.content, spec.free)
        ext4.pack(
            EXT4,
            tar,
            size=size,
            content=files.content,
            seed=recipe.fingerprint,
            engine=engine,
            toolchain=toolchain,
            stage=stage,
        )
    for name in files.dropped:
        progress.say(f"warning: {spec.name}: extended attributes of {name} are not carried over")
    stage.facts["size"] = size
    stage.facts["content"] = files.content.data
    stage.facts["argv"] = list(config.argv)


def _scan(tar: Path) -> _Files:
    """Read the headers of the tar; file contents are skipped, so this costs little."""
    found = _Files()
    with tarfile.open(tar, mode="r:") as archive:
        for entry in archive:
            # Else every header of a large image stays in memory.
            archive.members = []  # type: ignore[attr-defined]
            name = entry.name.removeprefix("./").strip("/")
            if name == OURS or name.startswith(f"{OURS}/"):
                raise BuildError(
                    f"the image has a file /{name}: /{OURS} belongs to the boot contract",
                    hint="choose another directory in the Dockerfile",
                )
            found.top.add(name.partition("/")[0])
            # A directory takes a block, a long link target too.
            size = entry.size if entry.isreg() else ext4.BLOCK
            found.content.add(size, int(entry.mtime))
            if name in _WATCHED and entry.isreg() and entry.size <= _MAX_TEXT:
                file = archive.extractfile(entry)
                found.texts[name] = file.read().decode("utf-8", "replace") if file else ""
            xattrs = {key for key in entry.pax_headers if ".xattr." in key}
            if xattrs - _KEPT_XATTRS:
                found.dropped.append(f"/{name}")
        found.end = archive.offset
    return found


def _append(tar: Path, files: _Files, init: bytes, boot: bytes) -> None:
    """Add PID 1 and the boot config behind the image's own files."""
    missing = {name: mode for name, mode in _MOUNT_POINTS.items() if name not in files.top}
    added: list[tuple[str, int, bytes | None]] = [
        *((name, mode, None) for name, mode in missing.items()),
        (OURS, 0o755, None),
        (f"{OURS}/init", 0o755, init),
        (f"{OURS}/boot", 0o600, boot),
    ]
    with tar.open("r+b") as file:
        file.truncate(files.end)
        file.seek(0, io.SEEK_END)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, mode, data in added:
                entry = tarfile.TarInfo(f"./{name}")
                entry.mode, entry.mtime = mode, EPOCH
                entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
                entry.size = len(data or b"")
                archive.addfile(entry, io.BytesIO(data or b""))
                files.content.add(max(entry.size, ext4.BLOCK), EPOCH)
