"""PID 1 as a whole, in namespaces of this machine: what the program gets, and what the host hears.

A test build takes unix sockets (`LINK_UNIX_DIR`) in place of vsock, named as Firecracker does.
`reboot` in a PID namespace ends the namespace's PID 1 with SIGHUP, which is how a boot ends here.
Needs root, unshare(1) and a C compiler that links statically.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

GUEST = Path(__file__).resolve().parents[2] / "fcbuild" / "guest"
EVENTS, STDOUT, STDERR, CONTROL, FORWARD = 10240, 10241, 10242, 10250, 10251
BOOT_SECONDS = 30

Records = Sequence[tuple[str, bytes]]

# The namespace's first process: a root of its own (a read-only ext4 where the test made one, else
# a tmpfs, which PID 1 remounts read-only at the end), a /dev that is not this machine's, and then
# PID 1 in its place.
SETUP = """
set -e
mount --make-rprivate /
mkdir -p "$1/image/dev" "$1/image/.link"
if [ -e "$1/root.ext4" ]; then
    mount -o ro,loop "$1/root.ext4" "$1/root"
else
    mount -t tmpfs root "$1/root"
    cp -a "$1/image/." "$1/root/"
fi
mount -t tmpfs dev "$1/root/dev"
mknod -m 666 "$1/root/dev/null" c 1 3
for drive in "$1"/drives/*; do
    [ ! -e "$drive" ] || mknod "$1/root/dev/${drive##*/}" b $(cat "$drive")
done
if [ -e "$1/eth0" ]; then
    ip link add eth0 type veth peer name peer
    ip link set peer up
fi
if [ -e "$1/group" ]; then
    echo $$ > "$(cat "$1/group")/cgroup.procs"
fi
touch "$1/root/dev/console"
mount --bind "$1/console" "$1/root/dev/console"
mount --bind "$1/link" "$1/root/.link"
if [ -e "$1/port" ]; then
    mount --bind "$(cat "$1/port")" "$1/root/.link/port"
    export FCBUILD_LINK=/.link/port
fi
exec chroot "$1/root" /.fcbuild/init
"""
UNSHARE = [
    # As the kernel starts PID 1; under nohup(1), for one, a signal would be ignored.
    "env",
    "--default-signal",
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount",
    "--net",
    "--uts",
    "--ipc",
    "--cgroup",
]


@dataclass(frozen=True)
class Binaries:
    """The test build of PID 1, the program for tests, and the same program linked dynamically."""

    init: Path
    probe: Path
    dynamic_probe: Path


# How a test build reaches the host.
UNIX_SOCKETS = ('-DLINK_UNIX_DIR=\\"/.link\\"', "PORT=")


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Binaries:
    """The test build that takes unix sockets in place of vsock."""
    return build(tmp_path_factory.mktemp("guest"), *UNIX_SOCKETS)


def build(out: Path, cflags: str, port: str) -> Binaries:
    """Compile once, or skip with the reason. port: PORT=yes for the link over a port."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare(1)")
    compiler = shutil.which("musl-gcc") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None or shutil.which("make") is None:
        pytest.skip("no C compiler or no make on this machine")
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not allow namespaces")
    built = Binaries(out / "init", out / "probe", out / "dynamic-probe")
    probe = str(GUEST / "tests" / "probe.c")
    commands = (
        [compiler, "-D_GNU_SOURCE", "-static", "-o", str(built.probe), probe],
        [compiler, "-D_GNU_SOURCE", "-o", str(built.dynamic_probe), probe],
        [
            "make",
            "-s",
            "-C",
            str(GUEST),
            f"OUT={out}",
            f"CC={compiler}",
            port,
            f'EXTRA_CFLAGS={cflags} -DCOMMAND_LINE=\\"/.link/cmdline\\" -DSHARED_KERNEL',
        ],
    )
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if result.returncode != 0 and "-lc" in result.stderr:
            pytest.skip("no static libc on this machine")
        assert result.returncode == 0, result.stderr
    return built


def boot_config(
    argv: Sequence[str | bytes] = ("/probe",),
    env: Sequence[str] = (),
    groups: Sequence[int] = (),
    more: Records = (),
    health: Sequence[str] = (),
    **values: str,
) -> bytes:
    """Write a boot config; `values` replaces the keys that occur once, `_` standing for `-`."""
    single = {
        "workdir": "/",
        "uid": "0",
        "gid": "0",
        "hostname": "probe-vm",
        "stop-signal": "15",
        "stop-grace-ms": "10000",
    }
    if health:
        single |= {
            "health-interval-ms": "50",
            "health-timeout-ms": "10000",
            "health-start-period-ms": "0",
            "health-start-interval-ms": "50",
            "health-retries": "1",
        }
    single |= {key.replace("_", "-"): value for key, value in values.items()}
    records: list[tuple[str, bytes]] = []
    records += [("argv", item if isinstance(item, bytes) else item.encode()) for item in argv]
    records += [("env", item.encode()) for item in env]
    records += [("group", str(item).encode()) for item in groups]
    records += [("health", item.encode()) for item in health]
    records += [(key, value.encode()) for key, value in single.items()]
    records += more
    return document("boot", records)


def document(kind: str, records: Records) -> bytes:
    """Write a document of records: BOOT_CONTRACT.md, section 2."""
    return b"fcbuild-%s 2\n" % kind.encode() + b"".join(
        b"%s %d\n%s\n" % (key.encode(), len(value), value)
        for key, value in (*records, ("end", b""))
    )


@dataclass
class Stream:
    """One port the host listens on: what has arrived, until the guest ends it."""

    listener: socket.socket
    reads: bool = True
    kept: socket.socket | None = None
    data: bytearray = field(default_factory=bytearray)
    ended: threading.Event = field(default_factory=threading.Event)

    def serve(self) -> None:
        """Take one connection and read it to its end, or keep it unread."""
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        if not self.reads:
            self.kept = connection
            return
        with closing(connection):
            while chunk := connection.recv(1 << 20):
                self.data += chunk
        self.ended.set()


class Guest:
    """One boot, and the host's side of its link."""

    def __init__(self, binaries: Binaries, directory: Path) -> None:
        self.directory = directory
        self.image = directory / "image"
        self.streams: dict[int, Stream] = {}
        self.connections: list[socket.socket] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.loops: list[str] = []
        self.on_drive = False
        self.under: tuple[str, ...] = ()  # a command that starts the boot and watches it
        for name in ("image/.fcbuild/root", "image/.fcbuild/rw", "root", "link", "drives"):
            (directory / name).mkdir(parents=True)
        for name in ("console", "link/cmdline"):
            (directory / name).touch()
        shutil.copy(binaries.init, self.image / ".fcbuild" / "init")
        shutil.copy(binaries.probe, self.image / "probe")

    def socket_path(self, port: int) -> str:
        """Where the port is; relative to the working directory, as sun_path is short."""
        return os.path.relpath(self.directory / "link" / f"v.sock_{port}")

    def boot_again(self) -> None:
        """Be ready for another boot, from the same drives."""
        for stream in self.streams.values():
            stream.listener.close()
        for path in (self.directory / "link").glob("v.sock_*"):
            path.unlink()
        self.streams.clear()

    def attach(self, name: str, content: bytes) -> Path:
        """Add a drive, /dev/NAME in the guest. Returns the file that is behind it."""
        file = self.directory / f"{name}.img"
        file.write_bytes(content)
        return self.attach_file(name, file)

    def attach_file(self, name: str, file: Path) -> Path:
        """Add a drive that is there already."""
        loop = tool("losetup", "--find", "--show", str(file))
        self.loops.append(loop)
        number = Path(loop).stat().st_rdev
        (self.directory / "drives" / name).write_text(f"{os.major(number)} {os.minor(number)}")
        return file

    def command_line(self, text: str) -> None:
        """Set the kernel's command line."""
        (self.directory / "link" / "cmdline").write_text(text)

    def read_only_root(self) -> None:
        """Boot from a read-only drive: an ext4 of the image, with all mount points, made once."""
        for name in ("dev", "proc", "sys", "run", "tmp", "etc", ".link"):
            (self.image / name).mkdir(exist_ok=True)
        for name in ("hostname", "hosts", "resolv.conf"):
            if not (self.image / "etc" / name).is_symlink():
                (self.image / "etc" / name).touch()
        (self.image / "tmp").chmod(0o1777)
        self.on_drive = True

    def start(
        self,
        config: bytes,
        listen: Sequence[int] = (EVENTS, STDOUT, STDERR),
        unread: Sequence[int] = (),
    ) -> None:
        """Boot with the given ports open on the host."""
        (self.image / ".fcbuild" / "boot").write_bytes(config)
        root = self.directory / "root.ext4"
        if self.on_drive and not root.exists():
            tool("mke2fs", "-q", "-t", "ext4", "-d", str(self.image), str(root), "32M")
        for port in listen:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.socket_path(port))
            listener.listen()
            self.streams[port] = Stream(listener, reads=port not in unread)
            threading.Thread(target=self.streams[port].serve, daemon=True).start()
        setup = ["sh", "-c", SETUP, "sh", str(self.directory)]
        self.process = subprocess.Popen([*self.under, *UNSHARE, *setup])

    def wait(self) -> None:
        """Wait for the end of the boot, which has to be a reboot."""
        assert self.process is not None
        assert self.process.wait(BOOT_SECONDS) == -signal.SIGHUP, self.console()
        for stream in self.streams.values():
            if stream.reads:
                stream.listener.close()
                assert stream.ended.wait(5)

    def run(self, config: bytes, **options: Sequence[int]) -> None:
        """Boot and wait for the end."""
        self.start(config, **options)
        self.wait()

    def output(self, port: int = STDOUT) -> bytes:
        """What has come out of a port so far."""
        return bytes(self.streams[port].data)

    def console(self) -> bytes:
        """What is on the console."""
        return (self.directory / "console").read_bytes()

    def events(self) -> list[dict[str, object]]:
        """All events so far."""
        return [json.loads(line) for line in self.output(EVENTS).splitlines()]

    def event(self, name: str) -> dict[str, object]:
        """The one event of that name."""
        (found,) = (event for event in self.events() if event["event"] == name)
        return found

    def await_output(self, text: bytes, port: int = STDOUT) -> None:
        """Wait until a text has come out."""
        deadline = time.monotonic() + BOOT_SECONDS
        while text not in self.streams[port].data:
            assert time.monotonic() < deadline, (text, self.output(port), self.console())
            time.sleep(0.005)

    def await_events(self, name: str, count: int = 1) -> list[dict[str, object]]:
        """Wait until there are so many events of that name, and return them."""
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            lines = self.output(EVENTS).rpartition(b"\n")[0].splitlines()
            found = [event for event in map(json.loads, lines) if event["event"] == name]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, (name, lines, self.console())
            time.sleep(0.005)

    def file(self, path: str) -> Path:
        """A file of the running guest, as this machine reaches it."""
        return Path(f"/proc/{self.pid1()}/root") / path

    def children(self) -> list[int]:
        """This machine's numbers of the children of the guest's process 1."""
        pid = self.pid1()
        return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def connect(self, port: int) -> socket.socket:
        """Connect to one of the guest's ports."""
        connection = socket.socket(socket.AF_UNIX)
        self.connections.append(connection)
        connection.settimeout(BOOT_SECONDS)
        connection.connect(self.socket_path(port))
        return connection

    def ask(self, line: bytes, port: int = CONTROL) -> bytes:
        """Send one line, if any, and read the answer to its end."""
        with closing(self.connect(port)) as connection:
            if line:
                connection.sendall(line)
            return read_all(connection)

    def pid1(self) -> int:
        """This machine's number of the guest's PID 1."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def close(self) -> None:
        """End what still runs, and close every socket."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in self.streams.values():
            stream.listener.close()
            if stream.kept is not None:
                stream.kept.close()
        for connection in self.connections:
            connection.close()
        while self.loops:
            tool("losetup", "--detach", self.loops.pop())


def may_raise_limits() -> bool:
    """Whether root has CAP_SYS_RESOURCE here, as it has in a microVM."""
    status = Path("/proc/self/status").read_text()
    (effective,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(effective, 16) >> 24 & 1)


def tool(*argv: str) -> str:
    """Run a tool of this machine, or skip the test where there is none. Returns its output."""
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {argv[0]} on this machine")
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, (argv, result.stderr)
    return result.stdout.strip()


def read_all(connection: socket.socket) -> bytes:
    """Read to the end; a reset is one, too."""
    data = b""
    try:
        while chunk := connection.recv(1 << 16):
            data += chunk
    except ConnectionResetError:
        pass
    return data


@pytest.fixture
def guest(binaries: Binaries, tmp_path: Path) -> Iterator[Guest]:
    """An unbooted guest whose image holds /probe only."""
    made = Guest(binaries, tmp_path)
    yield made
    made.close()


def shown(output: bytes) -> dict[str, list[bytes]]:
    """What `probe show` printed: the values of each key in order."""
    values: dict[str, list[bytes]] = {}
    for line in output.splitlines():
        key, _, value = line.partition(b" ")
        values.setdefault(key.decode(), []).append(bytes.fromhex(value.decode()))
    return values


def test_what_the_program_gets(guest: Guest) -> None:
    """Arguments, environment, identity, directory and signals are as the config says."""
    argv: list[str | bytes] = [
        "probe",
        "show",
        "",
        "two words",
        "line\nbreak\n",
        "'\"$x`",
        b"\xff\xfe",
    ]
    env = ["Z=last first", "PATH=/nowhere:/:/bin", "A=", "M=a=b\nc", "A=again"]
    guest.run(boot_config(argv, env, [44, 7, 2000], workdir="/srv/deep/er", uid="1234", gid="5678"))
    values = shown(guest.output())
    assert values["argv"] == [item if isinstance(item, bytes) else item.encode() for item in argv]
    assert values["env"] == [item.encode() for item in env]
    assert values["cwd"] == [b"/srv/deep/er"]
    assert values["uid"] == values["euid"] == [b"1234"]
    assert values["gid"] == values["egid"] == [b"5678"]
    assert sorted(values["group"]) == [b"2000", b"44", b"7"]
    assert values["fd"] == [b"0", b"1", b"2"]
    assert values["umask"] == [b"%d" % 0o022]
    assert values["session"] == [b"1"]
    assert values["core-unlimited"] == [b"1"]
    if may_raise_limits():
        assert values["nproc-unlimited"] == [b"1"]
    assert values["hostname"] == [b"probe-vm"]
    assert values["oom"] == [b"0\n"]
    status = dict(
        line.split(b":\t", 1) for line in values["status"][0].splitlines() if b":\t" in line
    )
    assert status[b"SigBlk"] == status[b"SigIgn"] == status[b"SigCgt"] == b"0" * 16
    assert status[b"CapEff"] == b"0" * 16
    assert guest.output(STDERR) == b""
    assert guest.event("exit")["code"] == 0


HOSTS = (
    b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    b"fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\n"
    b"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


def test_the_system_around_it(guest: Guest) -> None:
    """Mounts, /tmp and the files of /etc are there; the image's own are covered."""
    (guest.image / "etc").mkdir()
    (guest.image / "etc" / "hosts").write_text("10.0.0.1 mine\n")
    (guest.image / "etc" / "resolv.conf").touch()
    guest.run(boot_config())
    values = shown(guest.output())
    mounts = {line.split()[1]: line.split() for line in values["mounts"][0].decode().splitlines()}
    for target in ("/proc", "/sys"):
        assert {"nosuid", "nodev", "noexec"} <= set(mounts[target][3].split(","))
    assert mounts["/dev/pts"][2] == "devpts" and "ptmxmode=666" in mounts["/dev/pts"][3]
    assert mounts["/dev/shm"][2] == "tmpfs"
    assert mounts["/dev/mqueue"][2] == "mqueue"
    assert mounts["/run"][2] == "tmpfs" and "mode=755" in mounts["/run"][3]
    assert mounts["/sys/fs/cgroup"][2] == "cgroup2"
    assert "nosuid" in mounts["/dev"][3].split(",")
    assert values["tmp-mode"] == [b"%d" % 0o1777]
    assert values["etc-hostname"] == [b"probe-vm\n"]
    assert values["etc-hosts"] == [HOSTS + b"127.0.1.1\tprobe-vm\n"]
    assert values["etc-resolv"][0].startswith(b"#")
    assert guest.console() == b""


def test_events(guest: Guest) -> None:
    """The events of a plain boot come in order, with rising times and the bytes of the output."""
    guest.run(boot_config(["/probe", "reopen"], uid="1000", gid="1000"))
    events = guest.events()
    assert [event["event"] for event in events] == ["init", "mounted", "exec", "exit", "end"]
    times = [int(str(event["t"])) for event in events]
    assert times == sorted(times)
    assert events[0]["contract"] == 2 and events[0]["start"] <= events[0]["t"]  # type: ignore[operator]
    assert guest.output() == b"again\n"
    assert guest.output(STDERR) == b"wrong\n"
    exit_event = {key: value for key, value in guest.event("exit").items() if key != "t"}
    assert exit_event == {
        "event": "exit",
        "code": 0,
        "signal": 0,
        "oom": False,
        "stdout": 6,
        "stderr": 6,
    }


@pytest.mark.parametrize(
    ("argv", "code", "number"),
    [
        (["/probe", "exit", "0"], 0, 0),
        (["/probe", "exit", "201"], 201, 0),
        (["/probe", "kill", "6"], 134, 6),
        (["/probe", "kill", "9"], 137, 9),
        (["/probe", "kill", "15"], 143, 15),
    ],
)
def test_exit_codes(guest: Guest, argv: list[str], code: int, number: int) -> None:
    """The exit event has the program's status as a shell would have it."""
    guest.run(boot_config(argv))
    exit_event = guest.event("exit")
    assert (exit_event["code"], exit_event["signal"]) == (code, number)
    assert exit_event["oom"] is False


@pytest.mark.parametrize(
    ("argv", "workdir", "code", "message"),
    [
        (["/missing"], "/", 127, "/missing: No such file or directory"),
        (["missing"], "/", 127, "missing: not found in PATH"),
        ([""], "/", 127, "an empty name: not found in PATH"),
        (["/etc"], "/", 126, "/etc: Permission denied"),
        (["/etc/data"], "/", 126, "/etc/data: Permission denied"),
        (["/etc/data/x"], "/", 126, "/etc/data/x: Not a directory"),
        (["/etc/text"], "/", 126, "/etc/text: Exec format error"),
        (["/etc/script"], "/", 127, "/etc/script: interpreter /no/such not found in the image"),
        (["/dynamic"], "/", 127, "/dynamic: interpreter /"),
        (["/foreign"], "/", 126, "/foreign: built for s390x, this machine is x86_64"),
        (["/probe"], "/etc/data", 126, "working directory /etc/data: Not a directory"),
    ],
)
def test_what_cannot_be_executed(
    guest: Guest,
    binaries: Binaries,
    argv: list[str],
    workdir: str,
    code: int,
    message: str,
) -> None:
    """A program that does not start is an exit with one line on its standard error, and no exec."""
    (guest.image / "etc").mkdir()
    (guest.image / "etc" / "data").write_text("x")
    for name, text in (("text", "no program\n"), ("script", "#!/no/such -x\n")):
        (guest.image / "etc" / name).write_text(text)
        (guest.image / "etc" / name).chmod(0o755)
    shutil.copy(binaries.dynamic_probe, guest.image / "dynamic")
    foreign = bytearray(binaries.probe.read_bytes())
    foreign[18] = 22  # e_machine, of one whose byte order is another: no emulator takes it
    (guest.image / "foreign").write_bytes(foreign)
    (guest.image / "foreign").chmod(0o755)
    guest.run(boot_config(argv, workdir=workdir))
    assert guest.output(STDERR).decode().startswith(f"fcbuild: {message}")
    assert guest.output(STDERR).count(b"\n") == 1
    assert guest.event("exit")["code"] == code
    assert [event["event"] for event in guest.events()] == ["init", "mounted", "exit", "end"]


@pytest.fixture
def small_memory(guest: Guest) -> Iterator[None]:
    """Give the guest 64 MiB of memory, by a control group of this machine."""
    groups = Path("/sys/fs/cgroup")
    group = groups / "memory" / f"fcbuild-{os.getpid()}"
    limits = {"memory.limit_in_bytes": 64 << 20, "memory.memsw.limit_in_bytes": 64 << 20}
    if (groups / "cgroup.controllers").exists():
        group = groups / group.name
        limits = {"memory.max": 64 << 20, "memory.swap.max": 0}
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group for memory on this machine: {error}")
    for name, value in limits.items():
        if (group / name).exists():
            (group / name).write_text(str(value))
    (guest.directory / "group").write_text(str(group))
    yield
    guest.close()
    group.rmdir()


@pytest.mark.usefixtures("small_memory")
def test_out_of_memory(guest: Guest) -> None:
    """A program that the kernel killed for want of memory is told apart from another SIGKILL."""
    guest.run(boot_config(["/probe", "memory", "200"]))
    exit_event = guest.event("exit")
    assert (exit_event["code"], exit_event["signal"], exit_event["oom"]) == (137, 9, True)


def test_orphans_are_reaped(guest: Guest) -> None:
    """Orphans do not stay as zombies."""
    guest.run(boot_config(["/probe", "orphans"]))
    assert guest.output() == b"zombies 0\n"


def test_an_orphan_that_holds_the_output(guest: Guest) -> None:
    """A process that outlives the program does not keep the machine up."""
    started = time.monotonic()
    guest.run(boot_config(["/probe", "hold"]))
    assert guest.output() == b"held\n"
    assert guest.event("exit")["code"] == 3
    assert time.monotonic() - started < 5


def test_large_output(guest: Guest) -> None:
    """100 MiB arrive whole."""
    guest.run(boot_config(["/probe", "big", "100"]))
    block = bytes(i % 251 for i in range(1 << 20))
    assert guest.output() == block * 100
    assert guest.event("exit")["stdout"] == 100 << 20


def test_stop_by_control(guest: Guest) -> None:
    """`stop` sends the image's stop signal."""
    guest.start(boot_config(["/probe", "trap", "3"], stop_signal="3"))
    guest.await_output(b"ready\n")
    assert guest.ask(b"stop\n") == b"ok\n"
    guest.wait()
    stopping = guest.event("stopping")
    assert (stopping["signal"], stopping["by"]) == (3, "control")
    assert guest.event("exit")["code"] == 42
    assert guest.output() == b"ready\ntrapped\n"


def test_stop_by_ctrl_alt_del(guest: Guest) -> None:
    """SIGINT to PID 1 means stop; a program that ignores it is killed after the grace period."""
    guest.start(boot_config(["/probe", "ignore", "15"], stop_grace_ms="300"))
    guest.await_output(b"ready\n")
    os.kill(guest.pid1(), signal.SIGINT)
    guest.wait()
    assert guest.event("stopping")["by"] == "ctrl-alt-del"
    assert guest.event("exit")["code"] == 137
    grace = guest.event("exit")["t"] - guest.event("stopping")["t"]  # type: ignore[operator]
    assert 300e6 <= grace < 1500e6


def test_control_requests(guest: Guest) -> None:
    """Signals are passed on; hostile lines are answered and change nothing."""
    guest.start(boot_config(["/probe", "trap", "10"]))
    guest.await_output(b"ready\n")
    for line in (b"signal 0\n", b"signal 65\n", b"signal\n", b"\n", b"\xff\0\n", b"stop now\n"):
        assert guest.ask(line) == b"error unknown request\n", line
    assert guest.ask(b"x" * 1000) == b"error the line is too long\n"
    silent = [guest.connect(CONTROL) for _ in range(20)]
    assert guest.ask(b"signal 28\n") == b"ok\n"  # after the first ones have timed out
    assert read_all(silent[0]) == b"error no line in time\n"
    for connection in silent:
        connection.close()
    assert guest.ask(b"signal 10\n") == b"ok\n"
    guest.wait()
    assert guest.event("exit")["code"] == 42
    assert not [event for event in guest.events() if event["event"] == "stopping"]


@pytest.mark.parametrize("family", ["4", "6"])
def test_forward(guest: Guest, family: str) -> None:
    """Bytes flow both ways, many at once, and the client may end its direction first."""
    guest.start(boot_config(["/probe", "serve", "8080", family]))
    guest.await_output(b"ready\n")
    body = b"some lower case bytes " * 150000
    answers: list[bytes] = []

    def fetch() -> None:
        with closing(guest.connect(FORWARD)) as connection:
            connection.sendall(b"tcp 8080\n" + body)
            connection.shutdown(socket.SHUT_WR)
            answers.append(read_all(connection))

    clients = [threading.Thread(target=fetch) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert answers == [b"ok\n" + body.upper()] * 8
    assert guest.ask(b"tcp 8081\n", FORWARD) == b"error ECONNREFUSED\n"
    for line in (b"tcp 0\n", b"udp 80\n", b"\n", b"x" * 64):
        assert guest.ask(line, FORWARD) == b"error EINVAL\n", line
    assert guest.ask(b"tcp", FORWARD) == b"error ETIMEDOUT\n"
    guest.ask(b"signal 9\n")
    guest.wait()


def test_forward_limit(guest: Guest) -> None:
    """The 65th forward at once is refused, and room is free again when one has ended."""
    guest.start(boot_config(["/probe", "serve", "80"]))
    guest.await_output(b"ready\n")
    held = []
    for _ in range(64):
        connection = guest.connect(FORWARD)
        connection.sendall(b"tcp 80\n")
        assert connection.recv(3) == b"ok\n"
        held.append(connection)
    assert guest.ask(b"", FORWARD) == b"error EAGAIN\n"
    held[0].shutdown(socket.SHUT_WR)
    assert read_all(held[0]) == b"hello"
    deadline = time.monotonic() + 5
    while (
        answer := guest.ask(b"tcp 81\n", FORWARD)
    ) == b"error EAGAIN\n" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert answer == b"error ECONNREFUSED\n"
    guest.ask(b"signal 9\n")
    guest.wait()


def test_no_host(guest: Guest) -> None:
    """Where nobody listens the output is on the console."""
    guest.run(boot_config(["/probe", "reopen"]), listen=())
    assert sorted(guest.console().splitlines()) == [b"again", b"wrong"]


def test_a_host_that_goes_away(guest: Guest) -> None:
    """When the host closes its side the rest goes to the console; the program sees nothing."""
    guest.start(boot_config(["/probe", "big", "3"]), unread=[STDOUT])
    deadline = time.monotonic() + BOOT_SECONDS
    while guest.streams[STDOUT].kept is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.2)
    kept = guest.streams[STDOUT].kept
    assert kept is not None
    kept.close()
    guest.wait()
    assert guest.event("exit")["code"] == 0
    assert len(guest.console()) + guest.event("exit")["stdout"] == 3 << 20  # type: ignore[operator]


def test_a_host_that_does_not_read(guest: Guest) -> None:
    """It slows the program down, but PID 1 still answers and still ends the machine."""
    guest.start(boot_config(["/probe", "big", "100"], stop_signal="9"), unread=[STDOUT])
    while not any(event["event"] == "exec" for event in guest.events()):
        time.sleep(0.005)
    time.sleep(0.5)
    started = time.monotonic()
    assert guest.ask(b"stop\n") == b"ok\n"
    guest.wait()
    assert time.monotonic() - started < 4
    assert guest.event("exit")["code"] == 137
    assert b"did not take all of the output" in guest.console()


def test_nothing_waits_for_a_time(guest: Guest) -> None:
    """From start to end PID 1 never sleeps, and no wait of its runs out: each ends by an event."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace = guest.directory / "trace"
    calls = (
        "execve,nanosleep,clock_nanosleep,poll,ppoll,select,pselect6,epoll_wait,epoll_pwait,"
        "rt_sigtimedwait,timerfd_settime"
    )
    guest.under = ("strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={calls}")
    guest.start(boot_config(["/probe", "trap", "15"]))
    guest.await_output(b"ready\n")
    time.sleep(1)  # in which a period would be seen
    assert guest.ask(b"stop\n") == b"ok\n"
    guest.wait()
    calls_by_pid = [line.split(maxsplit=1) for line in trace.read_text().splitlines()]
    (pid1,) = {pid for pid, call in calls_by_pid if call.startswith('execve("/.fcbuild/init"')}
    waits = [call for pid, call in calls_by_pid if pid == pid1 and not call.startswith("execve")]
    assert [call for call in waits if call.startswith("poll(")]
    assert not [call for call in waits if "sleep" in call or "timerfd" in call]
    assert not [call for call in waits if call.endswith(("= 0 (Timeout)", "EAGAIN"))]
    # Some for each event, and none for the second in between.
    assert len(waits) < 60


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (b"", "/.fcbuild/boot: this is not a boot config"),
        (b"fcbuild-boot 1\nend 0\n\n", "/.fcbuild/boot: its version is not 2"),
        (b"fcbuild-boot 2\nargx 1\na\nend 0\n\n", "/.fcbuild/boot: record 1: unknown key argx"),
        (b"x" * 300000, "/.fcbuild/boot: it is larger than 262144 bytes"),
    ],
    ids=["empty", "version", "key", "size"],
)
def test_a_bad_config(guest: Guest, config: bytes, error: str) -> None:
    """PID 1 says what is wrong on the console and as an event, and ends the machine."""
    guest.run(config)
    assert guest.event("fail")["error"] == error
    assert guest.event("fail")["stage"] == "init"
    assert guest.event("fail")["reason"] == "boot-config"
    assert guest.events()[-1]["event"] == "end"


@pytest.mark.parametrize(
    ("drive", "line", "error"),
    [
        (b"", "", "/dev/vdb: this is not an instance document"),
        (b"fcbuild-instance 3\nend 0\n\n", "", "/dev/vdb: its version is not 2"),
        (
            b"fcbuild-instance 2\narg 2000\n",
            "",
            "/dev/vdb: record 1: arg is longer than the document",
        ),
        (b"fcbuild-instance 2\narg 1\na\n", "", "/dev/vdb: record 2: it does not start with a key"),
        (b"fcbuild-instance 2\nuid 1\n0\nend 0\n\n", "", "/dev/vdb: record 1: unknown key uid"),
        (b"x" * (1 << 20), "", "/dev/vdb: this is not an instance document"),
        (b"x" * ((1 << 20) + 512), "", "/dev/vdb: it is larger than 1048576 bytes"),
        (None, "", "/dev/vdb: No such file or directory"),
        (None, "fcbuild.nonsense=1", "kernel command line: fcbuild.nonsense is no key"),
        (
            None,
            "fcbuild.address=10.0.0.300/24",
            "kernel command line: fcbuild.address is not ADDRESS",
        ),
        (None, "x" * 5000, "the kernel command line is larger than 4096 bytes"),
    ],
    ids=[
        *("empty", "version", "length", "cut", "key", "noise", "size", "no-drive"),
        *("line-key", "line-value", "line-size"),
    ],
)
def test_a_bad_instance(guest: Guest, drive: bytes | None, line: str, error: str) -> None:
    """What is wrong with the instance's values is said likewise, with a reason of its own."""
    if drive is not None:
        guest.attach("vdb", drive + bytes(-len(drive) % 512 or (0 if drive else 512)))
    guest.command_line(line or "ro fcbuild.config=/dev/vdb")
    guest.run(boot_config())
    assert str(guest.event("fail")["error"]).startswith(error)
    assert guest.event("fail")["reason"] == "instance-config"
    assert error.encode() in guest.console()
    assert guest.events()[-1]["event"] == "end"


def padded(kind: str, records: Records) -> bytes:
    """Write a document as it is on a drive."""
    text = document(kind, records)
    return text + bytes(-len(text) % 512)


def file_line(path: str, mode: int, owner: str, text: str, links: int = 1) -> str:
    """How `probe do` prints a file. mode: with the type's bits. owner: "UID GID"."""
    return f"{path} {mode:o} {owner} {links} content {text.encode().hex()}"


def words(*argv: str) -> str:
    """The kernel command line that adds these arguments."""
    return " ".join(f"fcbuild.arg={word}" for word in argv)


def test_the_instance_over_the_image(guest: Guest) -> None:
    """The command line goes before the drive, the drive before the image."""
    guest.attach(
        "vdb",
        padded(
            "instance",
            [
                *(("hostname", b"drive"), ("env", b"A=drive"), ("env", b"B=drive\n")),
                *(("arg", b"one"), ("arg", b""), ("dns", b"9.9.9.9")),
            ],
        ),
    )
    guest.command_line(
        'quiet fcbuild.config=/dev/vdb fcbuild.env=A=line fcbuild.arg="two words" '
        "fcbuild.dns=8.8.8.8 fcbuild.dns=::8 fcbuild.search=a.example fcbuild.search=b\n"
    )
    env = ["A=image", "HOSTNAME=probe-vm", "Z=image"]
    guest.run(boot_config(["/probe", "show"], env, more=[("search", b"image.example")]))
    values = shown(guest.output())
    assert values["argv"] == [b"/probe", b"show", b"one", b"", b"two words"]
    assert values["env"] == [b"A=line", b"HOSTNAME=drive", b"Z=image", b"B=drive\n"]
    assert values["hostname"] == [b"drive"]
    assert values["etc-hostname"] == [b"drive\n"]
    assert b"127.0.1.1\tdrive\n" in values["etc-hosts"][0]
    assert values["etc-resolv"] == [b"search a.example b\nnameserver 8.8.8.8\nnameserver ::8\n"]


def test_the_instances_files(guest: Guest) -> None:
    """Each is new, with its owner, mode and content, whatever was there."""
    keys = b"\0key\n" * 50000
    guest.attach(
        "vdb",
        padded(
            "instance",
            [
                *(("file", b"0640 7 8 /root/.ssh/keys"), ("data", b"a key\n")),
                *(("file", b"6711 3 4 /etc/two words"), ("data", b"")),
                *(("file", b"0600 0 0 /etc/link"), ("data", b"no link\n")),
                *(("file", b"0444 0 0 /etc/hard"), ("data", b"alone\n")),
                *(("file", b"0444 0 0 /big"), ("data", keys)),
            ],
        ),
    )
    etc = guest.image / "etc"
    etc.mkdir()
    (etc / "link").symlink_to("/etc/target")
    (etc / "target").write_text("target")
    (etc / "hard").write_text("hard")
    os.link(etc / "hard", etc / "other")
    guest.command_line("fcbuild.config=/dev/vdb")
    files = (
        *("/root", "/root/.ssh", "/root/.ssh/keys", "/etc/two words", "/etc/link"),
        *("/etc/target", "/etc/hard", "/etc/other", "/big"),
    )
    guest.run(boot_config(["/probe", "do", *(word for path in files for word in ("file", path))]))
    lines = guest.output().decode().splitlines()
    assert lines[0].startswith("/root 40755 7 8 ") and lines[1].startswith("/root/.ssh 40755 7 8 ")
    assert lines[2:8] == [
        file_line("/root/.ssh/keys", 0o100640, "7 8", "a key\n"),
        file_line("/etc/two words", 0o106711, "3 4", ""),
        file_line("/etc/link", 0o100600, "0 0", "no link\n"),
        file_line("/etc/target", 0o100644, "0 0", "target"),
        file_line("/etc/hard", 0o100444, "0 0", "alone\n"),
        file_line("/etc/other", 0o100644, "0 0", "hard"),
    ]
    assert lines[8].startswith("/big 100444 0 0 1 ")


def test_a_file_that_cannot_be_written(guest: Guest) -> None:
    """It ends the boot, and the event names it."""
    guest.attach("vdb", padded("instance", [("file", b"0644 0 0 /probe/x"), ("data", b"x")]))
    guest.command_line("fcbuild.config=/dev/vdb")
    guest.run(boot_config())
    fail = guest.event("fail")
    assert (fail["reason"], fail["error"]) == ("file", "/probe/x: Not a directory")


def test_etc(guest: Guest) -> None:
    """The image's files are covered; a link is replaced where the instance or the network asks."""
    etc = guest.image / "etc"
    etc.mkdir()
    (etc / "hostname").write_text("image\n")
    (etc / "hosts").write_text("10.0.0.9 a b\n10.0.0.8 mine")
    (etc / "resolv.conf").symlink_to("../run/resolv.conf")
    guest.command_line(
        'fcbuild.hostname=own fcbuild.host="10.0.0.9 a b" fcbuild.host="::5 c" fcbuild.dns=::1'
    )
    guest.run(boot_config())
    values = shown(guest.output())
    assert values["etc-hostname"] == [b"own\n"]
    assert values["etc-hosts"] == [HOSTS + b"127.0.1.1\town\n10.0.0.9 a b\n::5 c\n"]
    assert values["etc-resolv"] == [b"nameserver ::1\n"]


def test_links_in_etc(guest: Guest) -> None:
    """With nothing asked for, links stay as they are."""
    etc = guest.image / "etc"
    etc.mkdir()
    (etc / "hostname").write_text("image\n")
    (etc / "hosts").symlink_to("/nowhere")
    (etc / "resolv.conf").symlink_to("../run/resolv.conf")
    guest.run(boot_config(["/probe", "do", "file", "/etc/hostname", "append", "/etc/hosts"]))
    assert guest.output().decode().splitlines() == [
        file_line("/etc/hostname", 0o100644, "0 0", "probe-vm\n"),
        "append /etc/hosts: ok",
    ]
    assert guest.console() == b""


NETWORK: Records = (
    *(("address", b"10.9.8.7/24"), ("address", b"fd00:9::7/64"), ("address", b"192.0.2.1/32")),
    *(("gateway", b"10.9.8.1"), ("gateway", b"fe80::1"), ("mtu", b"1400"), ("mmds", b"")),
)


def test_the_network(guest: Guest) -> None:
    """eth0 has its MTU, addresses and routes when the program starts, and `lo` is up."""
    (guest.directory / "eth0").touch()
    guest.start(boot_config(["/probe", "trap", "15"], more=NETWORK))
    guest.await_output(b"ready\n")

    def ip(*argv: str) -> list[dict[str, Any]]:
        inside = ("nsenter", f"--net=/proc/{guest.pid1()}/ns/net")
        found: list[dict[str, Any]] = json.loads(tool(*inside, "ip", "-json", *argv))
        return found

    links = {link["ifname"]: link for link in ip("address")}
    assert "UP" in links["lo"]["flags"] and "UP" in links["eth0"]["flags"]
    assert links["eth0"]["mtu"] == 1400
    addresses = {
        (item["local"], item["prefixlen"]): item
        for item in links["eth0"]["addr_info"]
        if item["scope"] == "global"
    }
    assert set(addresses) == {("10.9.8.7", 24), ("fd00:9::7", 64), ("192.0.2.1", 32)}
    assert addresses["fd00:9::7", 64]["nodad"] is True
    assert "tentative" not in addresses["fd00:9::7", 64]
    routes = {route["dst"]: route for route in (*ip("route"), *ip("-6", "route"))}
    four, six = (
        next(route for route in ip(family, "route") if route["dst"] == "default")
        for family in ("-4", "-6")
    )
    assert (four["gateway"], four["dev"]) == ("10.9.8.1", "eth0")
    assert (six["gateway"], six["dev"]) == ("fe80::1", "eth0")
    assert (routes["169.254.169.254"]["dev"], routes["169.254.169.254"]["scope"]) == (
        "eth0",
        "link",
    )
    guest.ask(b"stop\n")
    guest.wait()
    assert guest.console() == b""


def test_the_instances_network(guest: Guest) -> None:
    """Its addresses take the place of the image's; what it does not name stays."""
    (guest.directory / "eth0").touch()
    guest.command_line("fcbuild.address=10.9.8.99/16")
    guest.start(boot_config(["/probe", "trap", "15"], more=NETWORK))
    guest.await_output(b"ready\n")
    inside = ("nsenter", f"--net=/proc/{guest.pid1()}/ns/net")
    text = tool(*inside, "ip", "-oneline", "address", "show", "eth0", "scope", "global")
    assert text.count("inet") == 1 and "inet 10.9.8.99/16" in text
    assert "default via 10.9.8.1" in tool(*inside, "ip", "route")
    guest.ask(b"stop\n")
    guest.wait()


def test_no_interface(guest: Guest) -> None:
    """An image with addresses boots without an eth0; the console says so."""
    guest.run(boot_config(more=NETWORK))
    assert guest.event("exit")["code"] == 0
    assert guest.console() == b"fcbuild: no eth0: its addresses and routes are left out\n"


@pytest.mark.parametrize(
    ("records", "error"),
    [
        ([("address", b"10.0.0.1/24")] * 2, "eth0: address 10.0.0.1/24: File exists"),
        (
            [("address", b"10.0.0.1/24"), ("gateway", b"10.0.1.1")],
            "eth0: default route via 10.0.1.1: Network is unreachable",
        ),
        ([("address", b"ff02::1/64")], "eth0: address ff02::1/64: Cannot assign requested address"),
    ],
    ids=["twice", "gateway", "multicast"],
)
def test_a_network_that_cannot_be(guest: Guest, records: Records, error: str) -> None:
    """What the kernel refuses is named, and ends the boot."""
    (guest.directory / "eth0").touch()
    guest.run(boot_config(more=records))
    fail = guest.event("fail")
    assert (fail["reason"], fail["stage"], fail["error"]) == ("network", "init", error)


def test_a_read_only_root(guest: Guest) -> None:
    """What has to be writable is, in RAM and with the image's content; the rest is not."""
    for name in ("var/tmp", "var/lib/empty", "var/lib/full/sub", "a,b:c", "srv"):
        (guest.image / name).mkdir(parents=True)
    (guest.image / "var" / "lib" / "full" / "file").write_text("image")
    (guest.image / "a,b:c" / "file").write_text("odd")
    os.chown(guest.image / "var" / "lib" / "full", 5, 6)
    (guest.image / "var" / "lib" / "full").chmod(0o2770)
    os.chown(guest.image / "var" / "lib" / "empty", 7, 8)
    (guest.image / "var" / "lib" / "empty").chmod(0o700)
    (guest.image / "etc").mkdir()
    (guest.image / "etc" / "hosts").write_text("10.0.0.1 image\n")
    (guest.image / "etc" / "hosts").chmod(0o640)
    guest.read_only_root()
    guest.attach(
        "vdb", padded("instance", [("file", b"0600 1 2 /var/lib/full/n/x"), ("data", b"x")])
    )
    guest.command_line('fcbuild.config=/dev/vdb fcbuild.host="::5 own" fcbuild.hostname=own')
    writable = ("/var/lib/empty", "/var/lib/full", "/var/lib/full/sub", "/a,b:c")
    guest.run(
        boot_config(
            [
                *("/probe", "do", "append", "/x", "append", "/etc/x", "append", "/srv/x"),
                *("append", "/etc/hosts", "append", "/tmp/x", "append", "/run/x"),
                *("append", "/var/tmp/x", "append", "/var/lib/x", "append", "/var/lib/empty/x"),
                *("append", "/var/lib/full/file", "append", "/var/lib/full/sub/x"),
                *("append", "/a,b:c/file", "file", "/var/lib/full", "file", "/var/lib/empty"),
                *("file", "/var/lib/full/file", "file", "/var/lib/full/n/x", "file", "/a,b:c/file"),
                *("file", "/etc/hosts", "file", "/etc/hostname", "file", "/tmp", "file", "/run"),
                *("from", "/var/lib/full/sub", "rename", "/var/lib/full/renamed"),
                *("append", "/.fcbuild/rw/x"),
            ],
            more=[("root", b"read-only"), *(("writable", path.encode()) for path in writable)],
        )
    )
    refused = "Read-only file system"
    lines = guest.output().decode().splitlines()
    assert lines[:12] == [
        *(f"append {path}: {refused}" for path in ("/x", "/etc/x", "/srv/x")),
        *(f"append {path}: ok" for path in ("/etc/hosts", "/tmp/x", "/run/x", "/var/tmp/x")),
        f"append /var/lib/x: {refused}",
        *(f"append /var/lib/{path}: ok" for path in ("empty/x", "full/file", "full/sub/x")),
        "append /a,b:c/file: ok",
    ]
    assert lines[12].startswith("/var/lib/full 42770 5 6 ")
    assert lines[13].startswith("/var/lib/empty 40700 7 8 ")
    assert lines[14:18] == [
        file_line("/var/lib/full/file", 0o100644, "0 0", "imagex"),
        file_line("/var/lib/full/n/x", 0o100600, "1 2", "x"),
        file_line("/a,b:c/file", 0o100644, "0 0", "oddx"),
        file_line("/etc/hosts", 0o100644, "0 0", HOSTS.decode() + "127.0.1.1\town\n::5 own\nx"),
    ]
    assert lines[18] == file_line("/etc/hostname", 0o100644, "0 0", "own\n")
    assert lines[19].startswith("/tmp 41777 0 0 ")
    assert lines[20].startswith("/run 40755 0 0 ")
    assert lines[21:] == [
        "from /var/lib/full/sub: ok",
        "rename /var/lib/full/renamed: ok",
        f"append /.fcbuild/rw/x: {refused}",
    ]
    assert guest.console() == b""


def test_a_link_in_etc_of_a_read_only_root(guest: Guest) -> None:
    """What it leads to is written where the link itself cannot be replaced."""
    (guest.image / "etc").mkdir()
    (guest.image / "etc" / "resolv.conf").symlink_to("../run/resolv.conf")
    (guest.image / "etc" / "hostname").symlink_to("../srv/hostname")
    guest.command_line("fcbuild.dns=::1 fcbuild.hostname=own")
    guest.read_only_root()
    guest.run(boot_config(more=[("root", b"read-only")]))
    assert shown(guest.output())["etc-resolv"] == [b"nameserver ::1\n"]
    assert guest.console() == b"fcbuild: /etc/hostname: No such file or directory\n"


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (
            [("root", b"read-only"), ("writable", b"/missing")],
            "/missing: No such file or directory",
        ),
        ([("root", b"read-only"), ("writable", b"/probe")], "/probe: Not a directory"),
    ],
    ids=["missing", "file"],
)
def test_what_cannot_be_made_writable(guest: Guest, more: Records, error: str) -> None:
    """It ends the boot, and the event names it."""
    guest.read_only_root()
    guest.run(boot_config(more=more))
    assert (guest.event("fail")["reason"], guest.event("fail")["error"]) == ("root", error)


OVERLAY_STEPS = (
    *("append", "/x", "append", "/srv/file", "from", "/srv/tree", "rename", "/srv/moved"),
    *("from", "/srv/file", "link", "/srv/file-3", "append", "/srv/file-2", "file", "/srv/file"),
    *("file", "/srv/moved/deep", "file", "/etc/hostname", "append", "/.fcbuild/root/x"),
)


def overlay_image(guest: Guest) -> None:
    """An image with a file of two names and a tree to be renamed."""
    (guest.image / "srv" / "tree").mkdir(parents=True)
    (guest.image / "srv" / "tree" / "deep").write_text("deep")
    (guest.image / "srv" / "file").write_text("image")
    os.link(guest.image / "srv" / "file", guest.image / "srv" / "file-2")
    guest.read_only_root()


def test_an_overlay_root(guest: Guest) -> None:
    """The whole root can be written to, in RAM; the drive below stays as it is."""
    overlay_image(guest)
    guest.run(boot_config(["/probe", "do", *OVERLAY_STEPS], more=[("root", b"overlay")]))
    assert guest.output().decode().splitlines() == [
        *("append /x: ok", "append /srv/file: ok", "from /srv/tree: ok", "rename /srv/moved: ok"),
        *("from /srv/file: ok", "link /srv/file-3: ok", "append /srv/file-2: ok"),
        file_line("/srv/file", 0o100644, "0 0", "imagexx", links=3),
        file_line("/srv/moved/deep", 0o100644, "0 0", "deep"),
        file_line("/etc/hostname", 0o100644, "0 0", "probe-vm\n"),
        "append /.fcbuild/root/x: ok",
    ]
    assert guest.console() == b""


def test_the_mounts_of_an_overlay_root(guest: Guest) -> None:
    """The program sees the usual mounts and neither of the overlay's layers."""
    guest.read_only_root()
    guest.run(boot_config(more=[("root", b"overlay")]))
    mounts = [line.split() for line in shown(guest.output())["mounts"][0].decode().splitlines()]
    targets = {mount[1]: mount[2] for mount in mounts}
    assert {path: targets[path] for path in ("/", "/proc", "/sys", "/run", "/dev/pts")} == {
        "/": "overlay",
        "/proc": "proc",
        "/sys": "sysfs",
        "/run": "tmpfs",
        "/dev/pts": "devpts",
    }
    assert not [target for target in targets if ".fcbuild" in target]


def test_an_overlay_on_a_drive(guest: Guest) -> None:
    """What is written is there at the next boot, and the drive's ext4 is left clean."""
    overlay_image(guest)
    disk = guest.directory / "disk.ext4"
    tool("mke2fs", "-q", "-t", "ext4", str(disk), "32M")
    guest.attach_file("vdc", disk)
    guest.command_line("fcbuild.overlay=/dev/vdc " + words(*OVERLAY_STEPS))
    config = boot_config(["/probe", "do"], more=[("root", b"overlay")])
    guest.run(config)
    assert "rename /srv/moved: ok" in guest.output().decode().splitlines()
    assert guest.console() == b""
    header = tool("dumpe2fs", "-h", str(disk))
    assert "needs_recovery" not in header and "Filesystem state:         clean" in header
    assert "exit status 0" in tool(
        "sh", "-c", 'e2fsck -fn "$1"; echo "exit status $?"', "sh", str(disk)
    )

    guest.boot_again()
    steps = ("file", "/x", "file", "/srv/file-3", "file", "/srv/moved/deep")
    guest.command_line("fcbuild.overlay=/dev/vdc " + words(*steps))
    guest.run(config)
    assert guest.output().decode().splitlines() == [
        file_line("/x", 0o100644, "0 0", "x"),
        file_line("/srv/file-3", 0o100644, "0 0", "imagexx", links=3),
        file_line("/srv/moved/deep", 0o100644, "0 0", "deep"),
    ]


@pytest.mark.parametrize(
    ("root", "error"),
    [
        (b"overlay", "/dev/vdc: Invalid argument"),
        (b"read-only", "/dev/vdc is for an overlay, which this image's root is not"),
    ],
)
def test_a_bad_overlay_drive(guest: Guest, root: bytes, error: str) -> None:
    """A drive without an ext4, or for an image that has no use for it, ends the boot."""
    guest.read_only_root()
    guest.attach("vdc", bytes(1 << 20))
    guest.command_line("fcbuild.overlay=/dev/vdc")
    guest.run(boot_config(more=[("root", root)]))
    assert (guest.event("fail")["reason"], guest.event("fail")["error"]) == ("root", error)


def test_largest_config(guest: Guest) -> None:
    """A config of 4,096 records within 262,144 bytes is passed on whole."""
    argv = ["/probe", "show"] + ["x" * 50] * 4088
    guest.run(boot_config(argv))
    assert shown(guest.output())["argv"] == [item.encode() for item in argv]


def health(events: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """What the health events say."""
    keys = ("status", "failing", "code", "output")
    return [tuple(event[key] for key in keys if key in event) for event in events]


def test_health(guest: Guest) -> None:
    """Each change of the status is an event, and after a stop there is none."""
    (guest.image / "state").write_text("7")
    guest.start(
        boot_config(
            ["/probe", "ignore", "15"],
            health=["/probe", "check", "state", "/state"],
            health_retries="2",
            stop_grace_ms="300",
        )
    )
    output = "state 7\non stderr\n"
    assert health(guest.await_events("health", 2)) == [
        ("starting", 0),
        ("unhealthy", 2, 7, output),
    ]
    guest.file("state").write_text("0")
    healthy = ("healthy", 0, 0, output.replace("7", "0"))
    assert health(guest.await_events("health", 3))[2] == healthy
    guest.file("state").write_text("1")
    guest.await_events("health", 4)
    assert guest.ask(b"stop\n") == b"ok\n"
    guest.file("state").write_text("0")  # which nobody looks at any more
    guest.wait()
    names = [event["event"] for event in guest.events()]
    assert names == ["init", "mounted", "exec", *["health"] * 4, "stopping", "exit", "end"]
    assert health(guest.await_events("health", 4))[3][:3] == ("unhealthy", 2, 1)


def test_health_start_period(guest: Guest) -> None:
    """In the start period checks come at its own interval, and failures do not count."""
    (guest.image / "state").write_text("1")
    guest.start(
        boot_config(
            ["/probe", "trap", "15"],
            health=["/probe", "check", "state", "/state"],
            health_interval_ms="100000",
            health_start_period_ms="100000",
        )
    )
    guest.await_events("exec")
    time.sleep(0.5)
    guest.file("state").write_text("0")
    guest.await_events("health", 2)
    guest.ask(b"stop\n")
    guest.wait()
    found = guest.await_events("health", 2)
    assert [(event["status"], event["failing"]) for event in found] == [
        ("starting", 0),
        ("healthy", 0),
    ]


def test_what_a_check_gets(guest: Guest) -> None:
    """What the program gets, in a session of its own."""
    (guest.image / "tmp").mkdir(mode=0o1777)
    (guest.image / "tmp").chmod(0o1777)
    guest.start(
        boot_config(
            ["/probe", "trap", "15"],
            ["A=b c", "PATH=/nowhere:/"],
            [44],
            health=["probe", "check", "show", "/tmp/shown"],
            workdir="/srv",
            uid="1234",
            gid="5678",
        )
    )
    guest.await_events("health", 2)
    values = shown(guest.file("tmp/shown").read_bytes())
    guest.ask(b"stop\n")
    guest.wait()
    assert values["env"] == [b"A=b c", b"PATH=/nowhere:/"]
    assert values["cwd"] == [b"/srv"]
    assert (values["uid"], values["gid"], values["group"]) == ([b"1234"], [b"5678"], [b"44"])
    assert values["fd"] == [b"0", b"1", b"2"]
    assert values["umask"] == [b"%d" % 0o022]
    assert values["session"] == [b"1"]
    assert values["oom"] == [b"0\n"]
    assert b"SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n" in values["status"][0]


def test_a_check_that_takes_too_long(guest: Guest) -> None:
    """It is killed with all of its session, and that is a failure."""
    guest.start(
        boot_config(
            ["/probe", "trap", "15"],
            health=["/probe", "check", "hang"],
            health_timeout_ms="200",
            health_interval_ms="1000",
        )
    )
    (starting, unhealthy) = guest.await_events("health", 2)
    assert health([unhealthy]) == [("unhealthy", 1, -1, "and now\n")]
    assert 1200e6 <= unhealthy["t"] - starting["t"] < 6000e6  # type: ignore[operator]
    deadline = time.monotonic() + 5
    while len(guest.children()) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    guest.ask(b"stop\n")
    guest.wait()


def test_a_check_that_leaves_a_process(guest: Guest) -> None:
    """PID 1 does not wait for the one that holds the check's output."""
    guest.start(boot_config(["/probe", "trap", "15"], health=["/probe", "check", "leave"]))
    assert health(guest.await_events("health", 2))[1] == ("healthy", 0, 0, "and now\n")
    started = time.monotonic()
    guest.ask(b"stop\n")
    guest.wait()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("end", "kept"),
    [
        ("é" * 600, "é" * 512),
        ("x" + "é" * 512, "é" * 512),
        ("é" * 600 + "x", "é" * 511 + "x"),
        ("\x01" * 1024, "\x01" * 639),
        ("plain", " ".join(map(str, range(20000)))[-1018:] + " plain"),
    ],
    ids=["even", "odd", "cut", "escaped", "plain"],
)
def test_the_end_of_long_output(guest: Guest, end: str, kept: str) -> None:
    """The last 1,024 bytes of a check's output are in the event; fewer when they need escapes."""
    guest.start(boot_config(["/probe", "trap", "15"], health=["/probe", "check", "print", end]))
    assert guest.await_events("health", 2)[1]["output"] == kept
    guest.ask(b"stop\n")
    guest.wait()
    assert max(map(len, guest.output(EVENTS).splitlines())) < 4096


@pytest.mark.parametrize(
    ("check", "code", "message"),
    [
        ("/missing", 127, "/missing: No such file or directory"),
        ("missing", 127, "missing: not found in PATH"),
        ("/.fcbuild", 126, "/.fcbuild: Permission denied"),
    ],
)
def test_a_check_that_cannot_be_executed(guest: Guest, check: str, code: int, message: str) -> None:
    """It has failed, with the reason as its output; the program's output has nothing of it."""
    guest.start(boot_config(["/probe", "trap", "15"], health=[check]))
    found = health(guest.await_events("health", 2))[1]
    assert found == ("unhealthy", 1, code, f"fcbuild: {message}\n")
    guest.ask(b"stop\n")
    guest.wait()
    assert guest.output(STDERR) == b""


def test_health_for_a_host_that_does_not_read(guest: Guest) -> None:
    """Health events are dropped then; those about the end are not."""
    guest.start(
        boot_config(
            ["/probe", "trap", "15"],
            health=["/probe", "check", "flip", "/flip"],
            health_interval_ms="1",
        ),
        unread=[EVENTS],
    )
    guest.await_output(b"ready\n")
    time.sleep(2)
    assert guest.ask(b"stop\n") == b"ok\n"
    kept = guest.streams[EVENTS].kept
    assert kept is not None
    events = [json.loads(line) for line in read_all(kept).splitlines()]
    kept.close()
    guest.wait()
    names = [event["event"] for event in events]
    assert names[:3] == ["init", "mounted", "exec"]
    assert names[-3:] == ["stopping", "exit", "end"]
    assert set(names[3:-3]) == {"health"}
    gaps = [later["t"] - event["t"] for event, later in pairwise(events[3:])]
    assert max(gaps) > 500e6  # the socket was full long before the end


def handover_config(
    how: str,
    env: Sequence[str] = (),
    groups: Sequence[int] = (),
    health: Sequence[str] = (),
    **values: str,
) -> bytes:
    """Write the boot config of an image whose own init is the probe's."""
    argv = ["/probe", "init", how]
    values |= {"handover": "", "stop_signal": "2"}
    return boot_config(argv, env, groups, (), health, **values)


def test_handover(guest: Guest) -> None:
    """The image's init is process 1; a child of it keeps the link until all is ended."""
    guest.start(handover_config("slow"))
    guest.await_output(b"unprivileged 0\n")
    time.sleep(0.1)
    assert "ready" not in [event["event"] for event in guest.events()]
    assert guest.ask(b"signal 10\n") == b"ok\n"
    guest.await_events("ready")
    (child,) = guest.children()
    link = Path("/proc") / str(child)
    assert (link / "cmdline").read_bytes().rstrip(b"\0") == b"fcbuild-link"
    assert (link / "comm").read_text() == "fcbuild-link\n"
    assert os.getsid(child) == child
    assert (link / "cwd").samefile(link / "root")
    assert Path(f"/proc/{guest.pid1()}/comm").read_text() == "probe\n"
    assert guest.ask(b"signal 28\n") == b"ok\n"
    assert guest.ask(b"stop\n") == b"ok\n"
    guest.wait()
    events = guest.events()
    names = [event["event"] for event in events]
    assert names == ["init", "mounted", "exec", "ready", "stopping", "exit", "end"]
    assert guest.event("exec")["pid"] == 1
    exit_event = guest.event("exit")
    assert (exit_event["code"], exit_event["signal"]) == (0, 0)
    assert exit_event["stdout"] == len(guest.output())
    assert guest.output().endswith(b"\nunprivileged 0\nending\n")


def test_what_an_init_gets(guest: Guest) -> None:
    """Root's identity, the image's environment, the fewest mounts and no descriptor of PID 1."""
    env = ["A=b", "NOTIFY_SOCKET=/image"]
    guest.run(handover_config("leave", env, [44], uid="1000", gid="1000", workdir="/srv/x"))
    values = shown(guest.output().partition(b"unprivileged")[0])
    assert values["env"] == [b"A=b", b"NOTIFY_SOCKET=@fcbuild/notify"]
    assert values["uid"] == values["euid"] == values["gid"] == values["egid"] == [b"0"]
    assert "group" not in values
    assert values["cwd"] == [b"/srv/x"]
    assert values["fd"] == [b"0", b"1", b"2"]
    assert values["hostname"] == [b"probe-vm"]
    assert values["oom"] == [b"0\n"]
    assert b"SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n" in values["status"][0]
    mounts = [line.split()[1] for line in values["mounts"][0].decode().splitlines()]
    assert sorted(mounts) == ["/", "/.link", "/dev", "/dev/console", "/proc", "/sys"]
    # It left without having been asked to.
    assert [event["event"] for event in guest.events()][-3:] == ["ready", "exit", "end"]
    assert guest.event("exit")["code"] == 0


def test_an_init_that_does_not_stop(guest: Guest) -> None:
    """After the grace period the machine is restarted without it."""
    guest.start(handover_config("deaf", stop_grace_ms="300"))
    guest.await_events("ready")
    assert guest.ask(b"stop\n") == b"ok\n"
    guest.wait()
    exit_event = guest.event("exit")
    assert (exit_event["code"], exit_event["signal"]) == (137, 9)
    grace = exit_event["t"] - guest.event("stopping")["t"]  # type: ignore[operator]
    assert 300e6 <= grace < 1500e6
    assert guest.events()[-1]["event"] == "end"


def test_an_init_that_cannot_be_executed(guest: Guest) -> None:
    """It is reported like a program, and the machine is restarted."""
    guest.run(boot_config(["/sbin/init"], handover=""))
    assert guest.output(STDERR) == b"fcbuild: /sbin/init: No such file or directory\n"
    assert guest.event("exit")["code"] == 127
    assert [event["event"] for event in guest.events()] == ["init", "mounted", "exit", "end"]


def test_services_beside_an_init(guest: Guest) -> None:
    """Health and the TCP forward are as they are without one, and end with the link."""
    guest.start(handover_config("obedient", health=["/probe", "check", "leave"]))
    assert health(guest.await_events("health", 2))[1] == ("healthy", 0, 0, "and now\n")
    guest.await_events("ready")
    assert guest.ask(b"tcp 81\n", FORWARD) == b"error ECONNREFUSED\n"
    forward = guest.connect(FORWARD)
    while len(guest.children()) < 2:
        time.sleep(0.005)
    guest.ask(b"stop\n")
    guest.wait()  # the init waits for every process
    forward.close()
    assert guest.event("exit")["code"] == 0
