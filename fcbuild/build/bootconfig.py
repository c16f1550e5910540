"""The boot config: what the image says about its program, made ready for PID 1.

Everything that can be decided at build time is: users and groups become numbers here, from the
image's own files, so PID 1 needs neither. The format is section 2 of guest/BOOT_CONTRACT.md.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fcbuild.build.engine import ImageConfig
from fcbuild.errors import BuildError
from fcbuild.plan import BOOT_CONTRACT

# Limits of the boot contract.
MAX_BYTES = 262_144
MAX_RECORDS = 4096

MAX_ID = 4294967294

DEFAULT_STOP_SIGNAL = int(signal.SIGTERM)

_NUMBER = re.compile(r"[0-9]+")  # str.isdigit takes more


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who the program runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, kw_only=True)
class BootConfig:
    """One field for each key of the boot contract. stop_grace in ms."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    identity: Identity
    hostname: str
    stop_signal: int
    stop_grace: int

    def render(self) -> bytes:
        """Return the document. Raises BuildError when it is over the contract's limits."""
        records = list(self._records())
        document = b"fcbuild-boot %d\n" % BOOT_CONTRACT
        for key, value in records:
            data = value.encode("utf-8", "surrogateescape")
            document += b"%s %d\n%s\n" % (key.encode(), len(data), data)
        document += b"end 0\n\n"
        if len(document) > MAX_BYTES or len(records) >= MAX_RECORDS:
            raise BuildError(
                f"the boot config has {len(document)} bytes in {len(records)} records; "
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


def compose(
    image: ImageConfig, *, passwd: str, group: str, hostname: str, stop_grace: int, where: str
) -> BootConfig:
    """Make the boot config of an image; passwd and group are the texts of its files, "" if none.

    Raises BuildError for what cannot run: no program, an unknown user, a bad STOPSIGNAL.
    """
    argv = (*image.entrypoint, *image.cmd)
    if not argv:
        raise BuildError(
            f"{where}: the image has neither ENTRYPOINT nor CMD: there is nothing to run",
            hint='add CMD ["program", "argument"] to its Dockerfile',
        )
    identity = identify(image.user, passwd, group, where)
    return BootConfig(
        argv=argv,
        env=_environment(image.env, identity),
        workdir=image.workdir if image.workdir.startswith("/") else f"/{image.workdir}",
        identity=identity,
        hostname=hostname,
        stop_signal=_signal(image.stop_signal, where),
        stop_grace=stop_grace,
    )


def identify(user: str, passwd: str, group: str, where: str) -> Identity:
    """Resolve USER (name or uid, optionally with :group) as the engine does. Raises BuildError.

    An unknown number is itself, with group 0; supplementary groups come from the group file and
    only where no group is named.
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
    extra: tuple[int, ...] = ()
    if wanted_group:
        named = next((int(e[2]) for e in groups if e[0] == wanted_group), None)
        if named is None and not _NUMBER.fullmatch(wanted_group):
            raise BuildError(
                f"{where}: USER {user}: no group {wanted_group!r} in the image's /etc/group",
                hint="create it in the Dockerfile before USER, or give its number",
            )
        gid = int(wanted_group) if named is None else named
    elif entry:
        member = (int(e[2]) for e in groups if entry[0] in e[3].split(","))
        extra = tuple(dict.fromkeys(member))
    if (largest := max(uid, gid, *extra)) > MAX_ID:
        raise BuildError(f"{where}: USER {user}: {largest} is no user or group id")
    home = entry[5] if entry and entry[5] else "/"
    return Identity(uid=uid, gid=gid, groups=extra, home=home)


def _entries(text: str, fields: int) -> Iterator[list[str]]:
    """Yield the lines of passwd(5) or group(5) that are whole; what is not is skipped."""
    for line in text.splitlines():
        parts = line.split(":")
        numbers = parts[2:4] if fields == 7 else parts[2:3]
        if len(parts) == fields and parts[0] and all(map(_NUMBER.fullmatch, numbers)):
            yield parts


def _environment(env: tuple[str, ...], identity: Identity) -> tuple[str, ...]:
    names = {item.partition("=")[0] for item in env}
    return env if "HOME" in names else (*env, f"HOME={identity.home}")


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
