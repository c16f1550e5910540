"""What every QEMU of ours has: a console, a link and disks as options, its start and its end."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from fcbuild.errors import VmmError

# QEMU connects before it starts its machine. Longer means that it hangs.
_START_S = 30.0


def console(path: Path) -> Iterator[str]:
    """Yield the options of the first serial line, which goes to the end of a file."""
    yield from ("-chardev", f"file,id=console,append=on,path={quoted(path)}")
    yield from ("-serial", "chardev:console")


def port(link: Path, *, bus: str = "") -> Iterator[str]:
    """Yield the options of the virtio-serial port vport0p1, which QEMU connects to our socket."""
    yield from ("-chardev", f"socket,id=link,path={quoted(link)}")
    yield from ("-device", f"virtio-serial-device,max_ports=2{bus}")
    yield from ("-device", "virtserialport,chardev=link")


def disk(index: int, path: Path, *, writable: bool, bus: str = "") -> Iterator[str]:
    """Yield the options of a virtio-blk device with the serial disk<index>."""
    drive = {
        "driver": "raw",
        "node-name": f"disk{index}",
        "read-only": not writable,
        # A flush of the guest's need not reach this machine's disk: the drive is as good as
        # Firecracker leaves it, and that is in the page cache.
        "cache": {"no-flush": True},
        "file": {"driver": "file", "filename": os.fspath(path)},
    }
    yield from ("-blockdev", json.dumps(drive))
    yield from ("-device", f"virtio-blk-device,drive=disk{index},serial=disk{index}{bus}")


def quoted(path: Path) -> str:
    """Return the path as a value of a QEMU option list, where a comma separates."""
    return os.fspath(path).replace(",", ",,")


def listening(path: Path) -> socket.socket:
    """Return the socket that a QEMU is to connect to. Raises VmmError."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(os.fspath(path))
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise VmmError(f"cannot listen on {path}: {error.strerror or error}") from error
    return listener


def connection(
    qemu: subprocess.Popen[bytes], listener: socket.socket, *, what: str, log: Path
) -> socket.socket:
    """Return QEMU's connection. Raises VmmError when it ends or hangs instead."""
    pidfd = os.pidfd_open(qemu.pid)
    try:
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        waiting.register(pidfd, select.POLLIN)
        found = dict(waiting.poll(_START_S * 1000))
    finally:
        os.close(pidfd)
    if listener.fileno() in found:
        link, _ = listener.accept()
        credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", credentials)[0] == qemu.pid:
            return link
        link.close()
        raise VmmError(f"a stranger connected to {listener.getsockname()}")
    if not found:
        raise VmmError(f"QEMU did not start within {_START_S:g} s")
    raise VmmError(how_it_ended(qemu.wait(), what=what, log=log), hint=f"its messages: {log}")


def ended(qemu: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for QEMU's end and reap it; without Popen's polling."""
    if qemu.poll() is not None:
        return True
    pidfd = os.pidfd_open(qemu.pid)
    try:
        waiting = select.poll()
        waiting.register(pidfd, select.POLLIN)
        found = waiting.poll(max(0.0, timeout_s) * 1000)
    finally:
        os.close(pidfd)
    return bool(found) and qemu.wait() is not None


def how_it_ended(status: int, *, what: str, log: Path) -> str:
    """Say how a QEMU ended that should not have, with the last lines of its log."""
    how = f"signal {-status}" if status < 0 else f"status {status}"
    last = " / ".join(_last_lines(log, 5)) or "nothing on its console"
    return f"{what} ended with {how} by itself: {last}"


def _last_lines(path: Path, count: int) -> Sequence[str]:
    """Return the last lines of a console log as a terminal shows them, or the panic in it."""
    try:
        text = path.read_bytes()[-16_384:].decode(errors="replace")
    except OSError:
        return []
    lines = ("".join(c for c in line if c.isprintable()).strip() for line in text.splitlines())
    found = [line for line in lines if line]
    # A call trace follows it, and says less.
    return [line for line in found if "Kernel panic" in line] or found[-count:]
