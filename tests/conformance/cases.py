"""The cases: what must hold about which run of which image.

A case names facts, by patterns in which * stands for anything. They have to be the same under the
engine and in the microVM; `engine` and `microvm` say besides what some of them are, so that a case
cannot hold because nothing was looked at. A case that `differs` is about what the table of
BOOT_CONTRACT.md excuses: the facts have to differ, and in no other way than it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.oracle import CTRL_ALT_DEL


@dataclass(frozen=True)
class Run:
    """An image, run to its end.

    ask: what the program is told once it is ready: "stop", also by CTRL_ALT_DEL, the number of a
    signal, or "" nothing.
    verdicts: of the health check, to wait for before that.
    init: the engine runs it under an init of its own, as a microVM always does.
    """

    image: str
    ask: str = ""
    verdicts: int = 0
    init: bool = False

    def __str__(self) -> str:
        return f"{self.image}{self.ask and f'+{self.ask}'}{'+init' if self.init else ''}"


@dataclass(frozen=True)
class Case:
    """One assertion."""

    title: str
    run: Run
    facts: tuple[str, ...]
    engine: Mapping[str, Any] = field(default_factory=dict)
    microvm: Mapping[str, Any] = field(default_factory=dict)
    differs: bool = False

    def __str__(self) -> str:
        return f"{self.run}: {self.title}"


CASES: list[Case] = []


def case(
    run: Run,
    title: str,
    *facts: str,
    engine: Mapping[str, Any] | None = None,
    microvm: Mapping[str, Any] | None = None,
    differs: bool = False,
) -> None:
    """Add a case. Facts that `engine` and `microvm` give a value need not be named again."""
    named = tuple(dict.fromkeys((*facts, *(engine or {}), *(microvm or {}))))
    CASES.append(Case(title, run, named, engine or {}, microvm or {}, differs))


WORDS = Run("scratch-words")
UNKNOWN_UID = Run("scratch-uid")
NUMBERS = Run("scratch-ids")
ENVIRONMENT = Run("musl-user")
MUSL_SHELL = Run("musl-shell")
BARE_SHELL = Run("bare-shell")
STREAMS = Run("bare-streams")
USER = Run("debian-user")
GROUP = Run("debian-group")
SCRIPT = Run("debian-script")
FILES = Run("debian-files")

# Process: what is executed.
case(
    WORDS,
    "ENTRYPOINT and CMD in exec form: every word arrives as it is",
    engine={
        "argv": [
            *("/probe", "two words", "a \"quoted\" 'word'", "two\nlines", "", "tab\tand \\ slash"),
            *("zwölf Boxkämpfer 十二", "--dash", "-", "*?[a-z]", "$HOME ${PATH}", "a=b", ""),
        ],
        "argc": 13,
    },
)
case(UNKNOWN_UID, "CMD alone in exec form", engine={"argv": ["/probe", "of CMD"]})
case(NUMBERS, "ENTRYPOINT alone in exec form", engine={"argv": ["/probe"]})
case(BARE_SHELL, "CMD in shell form", engine={"argv": ["probe", "/"]})
case(
    MUSL_SHELL,
    "CMD in shell form, with more than one command",
    engine={"argv": ["probe", "and", "its", "words"]},
)
case(
    USER,
    "SHELL: another shell, with options",
    engine={"argv": ["probe", "in the environment", "$Z", "*.none", "a  b"]},
)
case(
    SCRIPT,
    "a link to a script as ENTRYPOINT, its interpreter's options, CMD in shell form behind it",
    engine={
        "argv": [
            *("probe", "/usr/local/bin/entry", "of ENTRYPOINT"),
            *("/bin/sh", "-c", 'of "CMD" $HOME'),
        ]
    },
)
case(WORDS, "a program by its path", engine={"exe": "/probe"})
case(ENVIRONMENT, "a program found in the image's own PATH", engine={"exe": "/usr/bin/probe"})
case(SCRIPT, "a program found in the PATH that every image has", engine={"exe": "/usr/bin/probe"})
case(
    Run("musl-here"),
    "an empty element of PATH is the working directory",
    microvm={"status": 5},
    differs=True,
)

# Process: its environment.
case(
    WORDS,
    "the environment of an image without ENV",
    "env.*",
    engine={
        "env.order": ["PATH", "HOSTNAME", "PROBE", "HOME"],
        "env.PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    },
)
case(
    ENVIRONMENT,
    "ENV: the order is the image's",
    engine={
        "env.order": [
            *("PATH", "HOSTNAME", "Z", "A", "PROBE", "EMPTY", "EQUALS", "LINES"),
            *("QUOTES", "SPACES", "UNICODE", "DOLLAR", "lower", "HOME"),
        ]
    },
)
case(ENVIRONMENT, "ENV: an empty value", engine={"env.EMPTY": ""})
case(ENVIRONMENT, "ENV: a value with =", engine={"env.EQUALS": "a=b=c"})
case(ENVIRONMENT, "ENV: a value of two lines", engine={"env.LINES": "one\ntwo\n"})
case(ENVIRONMENT, "ENV: a value with quotes", engine={"env.QUOTES": 'say "it\'s"'})
case(
    ENVIRONMENT,
    "ENV: values with spaces, other letters, a dollar",
    engine={"env.SPACES": "  between  ", "env.UNICODE": "größer ☃", "env.DOLLAR": "$HOME"},
)
case(ENVIRONMENT, "ENV: a name given twice keeps its place", engine={"env.A": "changed"})
case(ENVIRONMENT, "ENV: the image's PATH", engine={"env.PATH": "/nowhere:/opt/bin:/usr/bin"})
case(ENVIRONMENT, "HOME is the user's in the image's passwd", engine={"env.HOME": "/srv/app"})
case(SCRIPT, "HOME of root", engine={"env.HOME": "/root"})
case(UNKNOWN_UID, "HOME of a uid that no passwd knows", engine={"env.HOME": "/"})
case(BARE_SHELL, "HOME where there is no passwd", engine={"env.HOME": "/"})
case(GROUP, "HOME of ENV goes before passwd's", engine={"env.HOME": "/elsewhere"})
case(NUMBERS, "HOSTNAME is the host's name", "host.name", engine={"env.HOSTNAME": "scratch-ids"})
case(
    USER,
    "HOSTNAME of ENV does not name the host",
    engine={"env.HOSTNAME": "chosen", "host.name": "debian-user"},
)

# Process: where it is.
case(WORDS, "no WORKDIR", engine={"cwd": "/"})
case(UNKNOWN_UID, "a relative WORKDIR, twice", engine={"cwd": "/relative/deeper"})
case(NUMBERS, "a WORKDIR that is not ASCII", engine={"cwd": "/Übung 1/мир"})
case(
    BARE_SHELL,
    "a missing WORKDIR is created, root's",
    engine={"cwd": "/srv/gone", "files.the working directory": "d 0755 0:0"},
)
case(GROUP, "a missing WORKDIR where others have files", engine={"cwd": "/srv/gone"})
case(
    USER,
    "a WORKDIR that the user has no right to",
    engine={
        "cwd": "/private",
        "files.the working directory": "Permission denied",
        "works.writing into the working directory": "Permission denied",
    },
)

# Process: what it inherits.
case(WORDS, "the umask", engine={"umask": "0022"})
case(SCRIPT, "a umask that the image's script sets", engine={"umask": "0077"})
case(
    WORDS,
    "three descriptors: /dev/null and two pipes",
    "descriptors.*",
    engine={"descriptors.0.what": "device 1:3", "descriptors.1.mode": "write"},
)
case(USER, "three descriptors of a user's program", "descriptors.*")
case(
    WORDS,
    "no signal is blocked, ignored or caught",
    engine={f"signals.{name}": "0000000000000000" for name in ("blocked", "ignored", "caught")},
)
case(MUSL_SHELL, "signals behind a shell", "signals.*")
case(
    WORDS,
    "it leads a session and a group of its own",
    engine={"process.leads its session": True, "process.leads its group": True},
)
case(
    NUMBERS,
    "its priority, for the scheduler and for want of memory",
    engine={"process.nice": 0, "process.oom score adjustment": 0},
)
case(
    WORDS,
    "limits of the kernel: none, or what it gives everybody",
    *(
        f"limits.{name}.*"
        for name in (
            *("as", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice"),
            *("rss", "rtprio", "rttime", "stack"),
        )
    ),
    engine={"limits.as.soft": "unlimited", "limits.stack.soft": 8388608},
)
case(
    WORDS,
    "limits that are set",
    "limits.nofile.*",
    "limits.nproc.*",
    "limits.core.*",
    microvm={
        "limits.nofile.soft": 1024,
        "limits.nofile.hard": 524288,
        "limits.nproc.soft": "unlimited",
        "limits.core.soft": "unlimited",
    },
    differs=True,
)
case(WORDS, "signals that can be queued", "limits.sigpending.*", differs=True)
case(
    WORDS,
    "process 1 is another",
    "process.is process 1",
    "process.parent",
    engine={"process.parent": 0},
    microvm={"process.parent": 1},
    differs=True,
)
case(
    Run("scratch-words", init=True),
    "process 1 is another where the engine has an init too",
    engine={"process.is process 1": False, "process.parent": 1},
)

# Identity.
case(
    USER,
    "USER by name",
    engine={
        "user.uid": "33, effective 33, saved 33",
        "user.gid": "33, effective 33, saved 33",
    },
)
case(
    USER,
    "supplementary groups from the image's group file",
    engine={"user.groups": [33, 4000, 4001]},
)
case(
    ENVIRONMENT,
    "USER by name, groups before and behind its own",
    engine={"user.groups": [26, 29, 2000]},
)
case(
    MUSL_SHELL,
    "USER by a number that passwd knows",
    engine={"user.gid": "2000, effective 2000, saved 2000", "user.groups": [26, 29, 2000]},
)
case(
    UNKNOWN_UID,
    "USER by a number that nobody knows",
    engine={
        "user.uid": "4242, effective 4242, saved 4242",
        "user.gid": "0, effective 0, saved 0",
        "user.groups": [0],
    },
)
case(
    NUMBERS,
    "USER uid:gid",
    engine={"user.gid": "4343, effective 4343, saved 4343", "user.groups": [4343]},
)
case(
    GROUP,
    "USER name:group",
    engine={
        "user.uid": "1, effective 1, saved 1",
        "user.gid": "33, effective 33, saved 33",
        "user.groups": [33],
    },
)
case(BARE_SHELL, "USER by number without /etc/passwd", "user.*")
case(WORDS, "root without a group file", "user.*", engine={"user.groups": [0]})
case(SCRIPT, "root's supplementary groups", engine={"user.groups": [0, 4000]})
case(
    NUMBERS,
    "a user has no capabilities",
    engine={f"caps.{name}": "0000000000000000" for name in ("permitted", "effective", "ambient")},
)
case(
    WORDS,
    "root hands no capabilities on",
    engine={"caps.inheritable": "0000000000000000", "caps.ambient": "0000000000000000"},
)
case(WORDS, "root has all of its machine's capabilities", "caps.*", differs=True)
case(
    USER,
    "nothing in the way of setuid programs",
    engine={"no new privileges": "0", "securebits": 0, "secure exec": 0, "dumpable": 1},
)
case(WORDS, "no system call is filtered", microvm={"seccomp": "0"}, differs=True)

# The end.
case(ENVIRONMENT, "status 0", engine={"status": 0})
case(USER, "status 1", engine={"status": 1})
case(UNKNOWN_UID, "status 3", engine={"status": 3})
case(SCRIPT, "the status of a program that a script executes", engine={"status": 4})
case(NUMBERS, "status 255", engine={"status": 255})
case(MUSL_SHELL, "status 126 of the image's shell", engine={"status": 126})
case(GROUP, "status 127 of the image's shell", engine={"status": 127})
case(Run("scratch-fault"), "a bad memory access", engine={"status": 139})
case(Run("volume-missing"), "no such program", engine={"status": 127})
case(Run("volume-unfound"), "no such program in PATH", engine={"status": 127})
case(Run("volume-data"), "a file that may not be executed", engine={"status": 126})
case(
    Run("volume-missing"),
    "what could not be executed is said",
    "errors",
    microvm={"errors": "fcbuild: /volume/no/such/program: No such file or directory\n"},
    differs=True,
)
case(
    Run("volume-format"),
    "an executable file that is no program",
    microvm={"status": 126},
    differs=True,
)
case(Run("volume-loader"), "a loader that is missing", microvm={"status": 127}, differs=True)
case(
    Run("bare-raise"),
    "a signal that the program sends itself",
    microvm={"status": 143},
    differs=True,
)
case(
    Run("bare-raise", init=True),
    "the same where the engine has an init too",
    engine={"status": 143},
)
case(
    STREAMS,
    "bytes of all values, each on its stream",
    "output",
    "errors",
)
case(STREAMS, "children that hold the output do not hold up the end", engine={"status": 9})
case(SCRIPT, "three million bytes of output arrive", "output")
case(WORDS, "an orphan's parent is process 1", engine={"orphan.parent": 1})
case(
    WORDS,
    "an orphan is reaped",
    "orphan.*",
    microvm={"orphan.stays a zombie": False},
    differs=True,
)
case(
    Run("scratch-words", init=True),
    "an orphan is reaped where the engine has an init too",
    "orphan.*",
    engine={"orphan.stays a zombie": False, "orphan.is for the program to reap": False},
)

# Signals.
STOPS = (
    ("stop-default", "no STOPSIGNAL: 15", 15, 7),
    ("stop-named", "STOPSIGNAL by name", 3, 0),
    ("stop-number", "STOPSIGNAL by number", 10, 1),
    ("stop-realtime", "STOPSIGNAL SIGRTMIN+3", 37, 2),
)
for image, title, number, status in STOPS:
    case(
        Run(image, "stop"),
        title,
        engine={"output": f"ready\nreceived {number}\n", "status": status},
    )
case(
    Run("stop-ignored", "stop"),
    "SIGKILL follows a stop signal that does nothing",
    engine={"output": "ready\n", "status": 137},
)
case(
    Run("stop-unhandled", "stop"),
    "a stop signal at its default disposition",
    microvm={"status": 143},
    differs=True,
)
case(
    Run("stop-unhandled", "stop", init=True),
    "the same where the engine has an init too",
    engine={"status": 143},
)
case(
    Run("stop-named", CTRL_ALT_DEL),
    "a stop by Ctrl-Alt-Del",
    engine={"output": "ready\nreceived 3\n", "status": 0},
)
case(Run("stop-default", "1"), "SIGHUP", engine={"output": "ready\nreceived 1\n"})
case(Run("stop-ignored", "9"), "SIGKILL", engine={"output": "ready\n", "status": 137})

# Health.
SHELL_CHECK = Run("health-shell", "stop", verdicts=1)
TURNS = Run("health-turns", "stop", verdicts=3)
case(
    SHELL_CHECK,
    "HEALTHCHECK in shell form",
    engine={"health.verdicts": ["healthy"], "health.code": 0},
)
case(
    SHELL_CHECK,
    "a check has the image's user, directory and environment; its SHELL is another",
    engine={"health.output": "in the environment, 1000, /srv/app, /, c\n0022\n"},
    microvm={"health.output": "in the environment, 1000, /srv/app, /, uc\n0022\n"},
    differs=True,
)
case(
    TURNS,
    "the verdict turns with the check, after so many failures",
    engine={"health.verdicts": ["healthy", "unhealthy", "healthy"]},
)
case(TURNS, "HEALTHCHECK in exec form", engine={"health.output": "with an argument: 3\n"})
case(
    Run("health-start", "stop", verdicts=1),
    "failures in the start period do not count",
    engine={"health.verdicts": ["healthy"], "health.output": "3\n"},
)
case(
    Run("health-slow", "stop", verdicts=1),
    "a check that takes too long",
    engine={"health.verdicts": ["unhealthy"], "health.code": -1},
)
case(
    Run("health-missing", "stop", verdicts=1),
    "a check that does not exist",
    engine={"health.verdicts": ["unhealthy"]},
)

# Files of the image.
case(
    FILES,
    "owners and modes, setuid, setgid and sticky among them",
    "tree.*.mode",
    "tree.*.owner",
    engine={
        "tree./files/setuid.mode": "4755",
        "tree./files/setgid.mode": "2750",
        "tree./files/sticky.mode": "1777",
        "tree./files/shared.mode": "2770",
        "tree./files/none.mode": "0000",
        "tree./files/plain.owner": "1234:4321",
        "tree./files/owned.owner": "2000000000:2000000000",
    },
)
case(FILES, "contents", "tree.*.content", "tree.*.size", engine={"tree./files/plain.size": 8})
case(
    FILES,
    "hard links",
    "tree.*.same as",
    engine={"tree./files/plain.names": 3, "tree./files/sticky/hard.same as": "/files/hard"},
)
case(
    FILES,
    "symbolic links, to nothing and to themselves among them",
    "tree.*.target",
    engine={
        "tree./files/soft.target": "plain",
        "tree./files/soft.owner": "5:6",
        "tree./files/dangling.target": "/no/such/thing",
        "tree./files/loop.target": ".",
    },
)
case(
    FILES,
    "device nodes and a fifo",
    "tree.*.type",
    engine={
        "tree./files/character.device": "10:200",
        "tree./files/block.device": "7:9",
        "tree./files/block.type": "block device",
        "tree./files/pipe.type": "fifo",
    },
)
case(FILES, "file capabilities", "tree./files/attributes/capable.attributes.security.capability")
case(
    FILES,
    "other extended attributes",
    engine={"tree./files/attributes/noted.attributes.user.note": "größer".encode().hex()},
)
case(
    FILES,
    "access control lists",
    "tree./files/attributes/listed.attributes.system.posix_acl_access",
    "tree./files/attributes/inherits.attributes.system.posix_acl_default",
)
case(FILES, "a sparse file", engine={"tree./files/sparse.sparse": True})
case(
    FILES,
    "odd names",
    "tree./files/names/*",
    engine={
        f"tree./files/names/{name}.type": "file"
        for name in ("größe ☃", "line\nbreak", "*", "not-\ufffd-utf8")
    },
)
case(FILES, "an empty directory", engine={"tree./files/empty.type": "directory"})
case(
    FILES,
    "times to the second",
    "tree./files/*k*.modified",
    engine={
        "tree./files/plain.modified": 1600000000,
        "tree./files/soft.modified": 1600000000,
        "tree./files/names.modified": 1600000000,
        "tree./files/times/first.modified": 1,
        "tree./files/times/before.modified": -315619200,
    },
)
case(
    FILES,
    "times that are no whole second, or newer than the image",
    "tree./files/times/between.modified",
    "tree./files/times/after.modified",
    differs=True,
)
case(
    FILES,
    "a VOLUME has the image's content and owner",
    "tree./volume/*",
    engine={
        "tree./volume.owner": "33:44",
        "tree./volume.mode": "0751",
        "tree./volume/content.size": 5,
        "tree./volume/content.owner": "33:44",
        "tree./files/volume/content.size": 4,
    },
)
case(FILES, "a VOLUME can be written to", engine={"works.writing into /volume": "ok"})
case(FILES, "a VOLUME is a file system of its own", "mounts./volume.*", differs=True)

# File systems of the kernel.
case(
    WORDS,
    "/proc",
    "mounts./proc.*",
    engine={"mounts./proc.type": "proc", "mounts./proc.nosuid": "yes"},
)
case(
    WORDS,
    "/sys, writable",
    "mounts./sys.*",
    engine={"mounts./sys.type": "sysfs"},
    microvm={"mounts./sys.rw": "yes"},
    differs=True,
)
case(
    WORDS,
    "the kernel's settings can be changed",
    microvm={"works.changing the kernel's settings": "ok"},
    differs=True,
)
case(WORDS, "/dev/pts", "mounts./dev/pts.*", engine={"mounts./dev/pts.ptmxmode": "666"})
case(WORDS, "/dev/mqueue", "mounts./dev/mqueue.*", engine={"mounts./dev/mqueue.type": "mqueue"})
case(
    WORDS,
    "/dev/shm",
    *(f"mounts./dev/shm.{name}" for name in ("type", "rw", "nosuid", "nodev", "noexec")),
    engine={"mounts./dev/shm.type": "tmpfs", "files./dev/shm": "d 1777 0:0"},
)
case(WORDS, "the size of /dev/shm", "mounts./dev/shm.size", differs=True)
case(WORDS, "/dev is the kernel's", "mounts./dev.*", differs=True)
case(
    WORDS,
    "the device nodes that every program expects",
    engine={
        f"devices./dev/{name}": f"c {number} 0666 0:0"
        for name, number in (
            *(("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8")),
            *(("urandom", "1:9"), ("tty", "5:0"), ("pts/ptmx", "5:2")),
        )
    },
)
case(
    WORDS,
    "/dev/fd and the standard streams",
    engine={
        "devices./dev/fd": "-> /proc/self/fd",
        "devices./dev/stdin": "-> /proc/self/fd/0",
        "devices./dev/stdout": "-> /proc/self/fd/1",
        "devices./dev/stderr": "-> /proc/self/fd/2",
    },
)
case(WORDS, "more devices, the machine's own", "devices.*", differs=True)
case(
    UNKNOWN_UID,
    "reading and writing the devices",
    engine={
        "works.reading /dev/null": "0 bytes",
        "works.writing /dev/null": "ok",
        "works.reading /dev/zero": "16 bytes",
        "works.writing /dev/full": "No space left on device",
        "works.reading /dev/urandom": "16 bytes",
        "works.reading /dev/random": "16 bytes",
    },
)
case(WORDS, "no terminal", engine={"works.opening /dev/tty": "No such device or address"})
case(NUMBERS, "standard input is at its end", engine={"works.reading standard input": "0 bytes"})
case(
    USER,
    "a user opens /dev/stdout and its like anew",
    engine={f"works.opening /dev/{name}": "ok" for name in ("stdin", "stdout", "stderr", "fd/1")},
)
case(
    NUMBERS,
    "a user's pseudo-terminal, shared memory, message queue",
    engine={
        f"works.{name}": "ok" for name in ("a pseudo-terminal", "shared memory", "a message queue")
    },
)
case(USER, "a user writes into /tmp", engine={"works.writing into /tmp": "ok"})
case(USER, "and neither into / nor /run", "works.writing into /", "works.writing into /run")
case(
    WORDS,
    "/run and /tmp are there, whatever the image has",
    microvm={"files./run": "d 0755 0:0", "files./tmp": "d 1777 0:0"},
    differs=True,
)
case(
    WORDS,
    "/sys/fs/cgroup is cgroup2 and has controllers",
    "mounts./sys/fs/cgroup.*",
    "cgroup.controllers",
    microvm={"mounts./sys/fs/cgroup.type": "cgroup2"},
    differs=True,
)
case(WORDS, "the root is a disk", microvm={"mounts./.type": "ext4"}, differs=True)
case(WORDS, "the root is writable", engine={"mounts./.rw": "yes", "works.writing into /": "ok"})

# The host and its network.
case(
    WORDS,
    "the host's name, where it is read from",
    engine={
        "host.name": "scratch-words",
        "host./etc/hostname": "scratch-words\n",
        "host./proc/sys/kernel/hostname": "scratch-words\n",
    },
)
case(
    BARE_SHELL,
    "/etc is there for programs that resolve names, without one in the image",
    engine={
        "files./etc": "d 0755 0:0",
        "files./etc/hosts": "f 0644 0:0",
        "files./etc/hostname": "f 0644 0:0",
        "files./etc/resolv.conf": "f 0644 0:0",
    },
)
case(
    WORDS,
    "/etc/hosts knows localhost",
    engine={
        "host.hosts.127.0.0.1": "localhost",
        "host.hosts.::1": "localhost ip6-localhost ip6-loopback",
    },
)
case(
    SCRIPT,
    "/etc/hosts of the image is covered",
    "host.hosts.*",
    engine={"host.hosts.127.0.0.1": "localhost"},
    differs=True,
)
case(WORDS, "127.0.0.1", engine={"network.lo is up": True, "network.127.0.0.1": "ok"})
case(WORDS, "::1", microvm={"network.::1": "ok"}, differs=True)
case(NUMBERS, "a user listens on port 80", engine={"network.listening on port 80": "ok"})
case(NUMBERS, "a user sends a ping", engine={"network.a ping socket": "ok"})

# Entropy and time.
case(WORDS, "getrandom does not wait", engine={"works.getrandom without waiting": "ok"})
case(WORDS, "the clock is right", engine={"clock is right": True})

RUNS = list(dict.fromkeys(case.run for case in CASES))
