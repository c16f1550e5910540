"""The boot config: what the image says about its program, made ready for PID 1.

Everything that can be decided at build time is: users and groups become numbers here, from the
image's own files, so PID 1 needs neither. The format is section 2 of guest/BOOT_CONTRACT.md.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from fcbuild import records
from fcbuild.build import health
from fcbuild.build.engine import ImageConfig
from fcbuild.build.health import Health
from fcbuild.errors import BuildError
from fcbuild.network import NetworkSpec
from fcbuild.recipes import BOOT_CONTRACT
from fcbuild.spec import ImageSpec

# Limits of the boot contract.
MAX_BYTES = 262_144
MAX_RECORDS = 4096

MAX_ID = 4294967294

DEFAULT_STOP_SIGNAL = int(signal.SIGTERM)
# What an init takes for Ctrl-Alt-Del, and answers with a reboot.
INIT_STOP_SIGNAL = int(signal.SIGINT)

# The engine's, where the image has none.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Names the place in the Dockerfile of the last of these instructions.
Where = Callable[..., str]

_NUMBER = re.compile(r"[0-9]{1,10}")  # str.isdigit takes more


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who the program runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, kw_only=True)
class BootConfig:
    """One field for each key of the boot contract.

    stop_grace in ms. handover: argv is the image's own init. root: "read-only", "overlay", or None
    for one that is written to. writable: directories to be writable on a read-only root.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    identity: Identity
    hostname: str
    stop_signal: int
    stop_grace: int
    handover: bool
    root: str | None
    writable: tuple[str, ...]
    health: Health | None
    network: NetworkSpec

    @property
    def path(self) -> str:
        """Where a program without a slash in its name is searched for."""
        return dict(item.split("=", 1) for item in self.env).get("PATH") or DEFAULT_PATH

    def render(self) -> bytes:
        """Return the document. Raises BuildError when it is over the contract's limits."""
        texts = list(self._records())
        document = records.document(
            f"fcbuild-boot {BOOT_CONTRACT}",
            ((key, text.encode("utf-8", "surrogateescape")) for key, text in texts),
        )
        if len(document) > MAX_BYTES or len(texts) >= MAX_RECORDS:
            raise BuildError(
                f"the boot config has {len(document)} bytes in {len(texts)} records; "
                f"the boot contract allows {MAX_BYTES} in {MAX_RECORDS - 1}",
                hint="shorten ENV, ENTRYPOINT or CMD",
            )
        return document

    def _records(self) -> Iterator[tuple[str, str]]:
        yield from (("argv", value) for value in self.argv)
        yield from (("env", value) for value in self.env)
        yield "workdir", self.workdir
        yield "uid", str(self.identity.uid)
        yield "gid", str(self.identity.gid)
        yield from (("group", str(group)) for group in self.identity.groups)
        yield "hostname", self.hostname
        yield "stop-signal", str(self.stop_signal)
        yield "stop-grace-ms", str(self.stop_grace)
        if self.handover:
            yield "handover", ""
        if self.root:
            yield "root", self.root
        yield from (("writable", value) for value in self.writable)
        if self.health:
            yield from self.health.records()
        yield from self.network.records()


def compose(
    image: ImageConfig,
    spec: ImageSpec,
    *,
    passwd: str,
    group: str,
    writable: tuple[str, ...],
    where: Where,
) -> BootConfig:
    """Make the boot config of an image; passwd and group are the texts of its files, "" if none.

    writable: absolute paths, for a read-only root. Raises BuildError for what cannot run: no
    program, an unknown user, a bad STOPSIGNAL or HEALTHCHECK.
    """
    argv = (spec.init,) if spec.init else (*image.entrypoint, *image.cmd)
    if not argv:
        raise BuildError(
            f"{where()}: the image has neither ENTRYPOINT nor CMD: there is nothing to run",
            hint='add CMD ["program", "argument"] to its Dockerfile',
        )
    identity = identify("" if spec.init else image.user, passwd, group, where("USER"))
    stop_signal = _signal(image.stop_signal, where("STOPSIGNAL"))
    check = health.read(image.healthcheck, image.labels, image.shell, where("HEALTHCHECK"))
    return BootConfig(
        argv=argv,
        env=_environment(image.env, spec.hostname, identity.home, where("ENV")),
        workdir=image.workdir if image.workdir.startswith("/") else f"/{image.workdir}",
        identity=identity,
        hostname=spec.hostname,
        stop_signal=INIT_STOP_SIGNAL if spec.init else stop_signal,
        stop_grace=spec.stop_grace,
        handover=spec.init is not None,
        root="read-only" if spec.readonly else "overlay" if spec.overlay else None,
        writable=writable,
        # With an init of its own, the image's services are that init's to look after.
        health=None if spec.init else check,
        network=spec.network,
    )


def users(passwd: str, limit: int) -> dict[str, tuple[int, int, str]]:
    """Return uid, gid and home of the first users of a passwd file, by name."""
    found: dict[str, tuple[int, int, str]] = {}
    for name, _, uid, gid, _, home, _ in _entries(passwd, 7):
        if len(found) < limit and max(int(uid), int(gid)) <= MAX_ID:
            found.setdefault(name, (int(uid), int(gid), home))
    return found


def identify(user: str, passwd: str, group: str, where: str) -> Identity:
    """Resolve USER (name or uid, optionally with :group) as the engine does. Raises BuildError.

    An unknown number is itself, with group 0. The group is among the supplementary ones, too; the
    others come from the group file and only where no group is named.
    """
    users = list(_entries(passwd, 7))
    groups = list(_entries(group, 4))
    wanted, _, wanted_group = user.partition(":")
    wanted = wanted or "0"
    entry = next((e for e in users if e[0] == wanted), None) or next(
        (e for e in users if _NUMBER.fullmatch(wanted) and int(e[2]) == int(wanted)), None
    )
    if entry is None and not _NUMBER.fullmatch(wanted):
        raise BuildError(
            f"{where}: USER {user}: no user {wanted!r} in the image's /etc/passwd",
            hint="create it in the Dockerfile before USER, or give its number",
        )
    uid = int(entry[2]) if entry else int(wanted)
    gid = int(entry[3]) if entry else 0
    others: list[int] = []
    if wanted_group:
        named = next((int(e[2]) for e in groups if e[0] == wanted_group), None)
        if named is None and not _NUMBER.fullmatch(wanted_group):
            raise BuildError(
                f"{where}: USER {user}: no group {wanted_group!r} in the image's /etc/group",
                hint="create it in the Dockerfile before USER, or give its number",
            )
        gid = int(wanted_group) if named is None else named
    elif entry:
        others = [int(e[2]) for e in groups if entry[0] in e[3].split(",")]
    supplementary = tuple(dict.fromkeys([gid, *others]))
    if (largest := max(uid, *supplementary)) > MAX_ID:
        raise BuildError(f"{where}: USER {user}: {largest} is no user or group id")
    home = entry[5] if entry and entry[5] else "/"
    return Identity(uid=uid, gid=gid, groups=supplementary, home=home)


def _entries(text: str, fields: int) -> Iterator[list[str]]:
    """Yield the lines of passwd(5) or group(5) that are whole; what is not is skipped."""
    for line in text.splitlines():
        parts = line.split(":")
        numbers = parts[2:4] if fields == 7 else parts[2:3]
        if len(parts) == fields and parts[0] and all(map(_NUMBER.fullmatch, numbers)):
            yield parts


def _environment(image: tuple[str, ...], hostname: str, home: str, where: str) -> tuple[str, ...]:
    """Return the environment as the engine makes it.

    PATH and HOSTNAME stand first, then the image's own in its order, each replacing one of the
    same name in its place; a name without a value takes the engine's away. HOME is the user's
    unless the image has one that is not empty.
    """
    engines = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    env = dict(engines)
    for item in image:
        name, assigned, value = item.partition("=")
        if not name:
            raise BuildError(f"{where}: ENV {item!r} has no name")
        if assigned:
            env[name] = value
        elif name in engines:
            env.pop(name, None)
    env["HOME"] = env.get("HOME") or home
    return tuple(f"{name}={value}" for name, value in env.items())


def _signal(name: str, where: str) -> int:
    """Return the number of a STOPSIGNAL: SIGQUIT, QUIT, 3, RTMIN+3."""
    if not name:
        return DEFAULT_STOP_SIGNAL
    if _NUMBER.fullmatch(name) and 1 <= int(name) <= 64:
        return int(name)
    short = name.upper().removeprefix("SIG")
    # The kernel's numbers, which the C library in the guest may hide two of: signal(7).
    if match := re.fullmatch(r"RT(MIN\+|MAX-)(\d{1,2})", short):
        number = 34 + int(match[2]) if match[1] == "MIN+" else 64 - int(match[2])
        if 34 <= number <= 64:
            return number
    known: Mapping[str, int] = {
        **{n.removeprefix("SIG"): int(s) for n, s in signal.Signals.__members__.items()},
        "RTMIN": 34,
        "RTMAX": 64,
    }
    if short not in known:
        raise BuildError(f"{where}: STOPSIGNAL {name}: no such signal")
    return known[short]
