"""A user whom this machine does not know, and another host name, for a process and its children.

Only root can become somebody else. The name, the number and the subordinate numbers (what a user
namespace is made of) stand in an /etc that only a mount namespace sees, so nothing of the machine
changes. The user owns what it is given and may talk to the engine. What is root's it may read, but
not write: the program and its interpreter may lie in root's home.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fcbuild.run import output

NAME = "somebody"
_HOSTNAME = "reproduce-elsewhere"
_NUMBERS = range(59_999, 1000, -1)  # of which a distribution gives the lowest first
# Between those of systemd's containers and those of 31 bits. (https://systemd.io/UIDS-GIDS/)
_SUBORDINATE = f"{0x70000000}:65536"
_ENGINE = "unix:///var/run/docker.sock"  # unless DOCKER_HOST says otherwise

_BECOME = """
hostname "$1"
for file in passwd group subuid subgid; do mount --bind "$2/$file" "/etc/$file"; done
shift 2
exec "$@"
"""


@dataclass(frozen=True)
class Stranger:
    """number: of the user, and of its group. argv: the beginning of a command that runs as it."""

    number: int
    argv: Sequence[str]

    def give(self, directory: Path) -> None:
        """Make a directory, and all in it, this user's."""
        for path in (directory, *directory.rglob("*")):
            os.chown(path, self.number, self.number, follow_symlinks=False)


def stranger(scratch: Path) -> Stranger | None:
    """Return one, or None where we cannot be anybody else: we are not root, or in a container that
    may not mount, or newuidmap is missing. scratch: a new directory, for the user's /etc."""
    if os.getuid() or not shutil.which("newuidmap"):
        return None
    scratch.mkdir()
    scratch.chmod(0o755)
    number = next(number for number in _NUMBERS if not _known(number))
    for file, line in (
        ("passwd", f"{NAME}:x:{number}:{number}::/:/bin/sh"),
        ("group", f"{NAME}:x:{number}:"),
    ):
        known = Path("/etc", file).read_bytes().rstrip(b"\n")
        (scratch / file).write_bytes(known + f"\n{line}\n".encode())
    for file in ("subuid", "subgid"):
        (scratch / file).write_text(f"{NAME}:{_SUBORDINATE}\n", encoding="utf-8")
    for path in scratch.iterdir():
        path.chmod(0o644)
    found = Stranger(
        number,
        [
            *("unshare", "--mount", "--uts", "--"),
            *("sh", "-euc", _BECOME, "sh", _HOSTNAME, str(scratch)),
            *("setpriv", f"--reuid={number}", f"--regid={number}", *_groups()),
            *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
            # Who changes hands forgets it.
            *("--pdeathsig", "TERM", "--"),
        ],
    )
    return found if output([*found.argv, "true"], what="trying another user") is not None else None


def _known(number: int) -> bool:
    try:
        return bool(pwd.getpwuid(number))
    except KeyError:
        return False


def _groups() -> list[str]:
    """Return the option that lets the user talk to the engine, as its owner's group may."""
    kind, _, path = os.environ.get("DOCKER_HOST", _ENGINE).partition("://")
    with suppress(OSError):
        if kind == "unix":
            return [f"--groups={Path(path).stat().st_gid}"]
    return ["--clear-groups"]
