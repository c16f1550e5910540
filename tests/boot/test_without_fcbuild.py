"""What travels with an image boots it: the script of curl calls, and the configuration file."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fcbuild.checks import attempt
from fcbuild.fingerprint import digest
from fcbuild.plan import KVM_HOST
from fcbuild.publish import bundle
from fcbuild.spec import HttpCheck
from fcbuild.tasks import Project
from fcbuild.vmm import tap
from fcbuild.vmm.link import FORWARD, dial_vsock, read_line
from tests import firecracker
from tests.workspace import STORE, Workspace

pytestmark = pytest.mark.boot

STARTS_S = 120.0  # for a guest's server to answer, on a busy machine
ENDS_S = 60.0


@pytest.fixture
def project(checkout: Workspace, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(sys, "argv", ["doit"])  # a project reads its variables there
    monkeypatch.setenv("FCBUILD_STORE", str(STORE))
    project = Project(checkout.root, default_image="hello")
    for name in ("debian-web", "hello"):
        project.pipeline.kernel(project.plan.specs.images[name].kernel)
        project.pipeline.rootfs(name)
    if project.emulated:
        project.pipeline.kernel(KVM_HOST)
        project.pipeline.program(project.plan.agent)
    return project


@contextmanager
def running(script: Path, project: Project, short_dir: Path) -> Iterator[subprocess.Popen[str]]:
    kernel = bundle.built(project.plan, project.store, script.stem).stored["vmlinux"]
    named = firecracker.command(project, short_dir / "firecracker", [kernel])
    process = subprocess.Popen(
        ["sh", str(script)],
        cwd="/",
        # A proxy from the environment has no business on a local socket.
        env={
            **os.environ,
            "FIRECRACKER": str(named),
            "TMPDIR": str(short_dir),
            "http_proxy": "http://192.0.2.1:9",
            # This machine may have no such device; an emulated host makes one.
            **({"TAP": tap.EMULATED} if project.emulated else {}),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(ENDS_S)


def forwarded(uds: Path, port: int) -> Callable[[], socket.socket]:
    """What connects to a port of the guest, over vsock."""

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        try:
            dial_vsock(connection, uds, FORWARD)
            connection.sendall(b"tcp %d\n" % port)
            if (answer := read_line(connection)) != b"ok":
                raise ConnectionError(answer)
        except OSError:
            connection.close()
            raise
        return connection

    return connect


def test_the_printed_script_boots_the_same_machine_and_it_answers(
    checkout: Workspace, project: Project, short_dir: Path
) -> None:
    printed = subprocess.run(
        checkout.argv("curl", "image=debian-web"),
        cwd=checkout.root,
        env=checkout.env(),
        capture_output=True,
        text=True,
        check=True,
    )
    script = short_dir / "debian-web.sh"
    script.write_text(printed.stdout)
    before = project.store.need(project.plan.rootfs("debian-web")).digests
    with running(script, project, short_dir) as process:
        assert process.stderr
        run_dir = Path(process.stderr.readline().split(" are in ")[1].strip())
        check = HttpCheck(port=80, status=200, contains="Welcome")
        deadline, passed, said = time.monotonic() + STARTS_S, False, "not tried"
        while not passed and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
            passed, said = attempt(check, forwarded(run_dir / "v.sock", 80))
        assert passed, said + (process.stderr.read() if process.poll() is not None else "")
        ctrl_alt_del(run_dir / "api.sock")
        output, errors = process.communicate(timeout=ENDS_S)
    assert process.returncode == 0, errors
    # What comes out is the guest's console.
    assert "reboot: Restarting system" in output and "/machine-config" not in output
    assert not run_dir.exists()
    # The store's own file is as it was.
    rootfs = project.store.need(project.plan.rootfs("debian-web"))
    assert rootfs.digests == before


def ctrl_alt_del(api: Path) -> None:
    """Say stop, as the script's first lines tell to."""
    subprocess.run(
        [
            *("curl", "-sS", "--fail", "-m", "10", "--unix-socket", api, "-X", "PUT"),
            *("http://localhost/actions", "-d", '{"action_type": "SendCtrlAltDel"}'),
        ],
        check=True,
    )


def test_an_exported_directory_boots_by_itself(
    checkout: Workspace, project: Project, short_dir: Path
) -> None:
    at = short_dir / "ex ported"
    exported = checkout.doit("export", "image=hello", "format=dir", f"to={at}")
    assert exported.status == 0, exported.output
    before = digest(at / "rootfs.ext4")
    named = firecracker.command(project, short_dir / "firecracker", [at / "vmlinux"])
    done = subprocess.run(
        [at / "boot.sh"],
        cwd="/",
        env={**os.environ, "FIRECRACKER": str(named), "TMPDIR": str(short_dir)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STARTS_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Hello from a microVM" in done.stdout
    # The guest wrote to a copy, which is gone.
    assert digest(at / "rootfs.ext4") == before
    assert {path.name for path in short_dir.iterdir()} <= {at.name, "firecracker"}


def test_firecracker_takes_the_configuration_file(project: Project, short_dir: Path) -> None:
    found = bundle.built(project.plan, project.store, "hello")
    # Where files are beside Firecracker is this machine's matter; in an emulated host they are not.
    config = json.loads(bundle.vm_config(project.plan.specs.images["hello"]))
    kernel, rootfs = found.stored["vmlinux"], short_dir / "rootfs.ext4"
    subprocess.run(["cp", "--sparse=always", found.stored[rootfs.name], rootfs], check=True)
    rootfs.chmod(0o600)
    assert config["boot-source"]["kernel_image_path"] == "vmlinux"
    assert config["drives"][0]["path_on_host"] == "rootfs.ext4"
    config["boot-source"]["kernel_image_path"] = str(kernel)
    config["drives"][0]["path_on_host"] = str(rootfs)
    config["vsock"]["uds_path"] = str(short_dir / "v.sock")
    file = short_dir / "vm.json"
    file.write_text(json.dumps(config))
    named = firecracker.command(project, short_dir / "firecracker", [kernel, file])
    done = subprocess.run(
        [named, "--no-api", "--config-file", file],
        cwd=short_dir,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STARTS_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search("Hello from a microVM", done.stdout), done.stdout
