"""A `firecracker` command for scripts that start one themselves, where this machine's KVM cannot
run guests: the real one, in the emulated KVM host.

That host is given its files when it starts: what `files` names, and the drives in the directory of
the API socket; and it makes the TAP device that TAP names.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from pathlib import Path

from fcbuild.tasks import Project, commands
from fcbuild.vmm import firecracker
from fcbuild.vmm.emulated import EmulatedHost
from fcbuild.vmm.host import VmmLaunch
from fcbuild.vmm.native import NativeHost
from tests.workspace import ROOT

_LONGEST_S = 300.0


def command(project: Project, at: Path, files: list[Path]) -> Path:
    """Return a firecracker to start. at: where to write one. files: what its guests are made of,
    besides what is in the directory of the API socket."""
    binary = firecracker.find(project.pipeline.downloads).path
    host = commands.kvm_host(project)
    if isinstance(host, NativeHost):
        return binary
    assert isinstance(host, EmulatedHost)
    words = {
        "qemu": host.qemu,
        "kernel": host.kernel,
        "agent": host.agent,
        "firecracker": binary,
        "files": " ".join(shlex.quote(str(file)) for file in files),
    }
    at.write_text(
        f"#!{sys.executable}\n"
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.firecracker import main\n"
        f"main({json.dumps({key: str(value) for key, value in words.items()})}, sys.argv[1:])\n"
    )
    at.chmod(0o755)
    return at


def main(words: dict[str, str], args: list[str]) -> None:
    """Be Firecracker: run with its arguments, show its console, end with its status."""
    host = EmulatedHost(Path(words["qemu"]), Path(words["kernel"]), Path(words["agent"]))
    socket = Path(args[args.index("--api-sock") + 1]) if "--api-sock" in args else None
    run_dir = socket.parent if socket else Path.cwd()
    files = [Path(file) for file in shlex.split(words["files"])]
    drives = [*(file for file in files if file.suffix == ".ext4"), *run_dir.glob("*.ext4")]
    process = host.spawn(
        VmmLaunch(
            run_dir=run_dir,
            firecracker=Path(words["firecracker"]),
            args=args,
            connect=(socket, run_dir / "v.sock") if socket else (),
            listen=(),
            logs=(),
            disks=[(drive, True) for drive in dict.fromkeys(drives)],
            files=[file for file in files if file.suffix != ".ext4"],
            memory_mib=256,
            vcpus=1,
            tap=os.environ.get("TAP"),
        )
    )
    with contextlib.ExitStack() as ends:
        ends.callback(process.end)
        status = process.wait(_LONGEST_S)
        sys.stdout.buffer.write((run_dir / "console.log").read_bytes())
        sys.stdout.flush()
    sys.exit(status)
