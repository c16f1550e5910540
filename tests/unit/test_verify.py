"""verify: a boot with its checks, the receipt it writes, and what stays behind."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fcbuild import instance as instances
from fcbuild import microvm, spec, verify
from fcbuild.errors import (
    ApiError,
    BootTimeout,
    CheckFailed,
    FcBuildError,
    GuestExited,
    GuestPanic,
    SpecError,
    ToolMissing,
)
from fcbuild.instance import Instance
from fcbuild.spec import ImageSpec
from fcbuild.store import Artifact
from fcbuild.verify import Receipt
from fcbuild.vmm.config import MicroVm
from fcbuild.vmm.firecracker import Firecracker
from fcbuild.vmm.firecracker_machine import FirecrackerVmm
from fcbuild.vmm.host import Host
from fcbuild.vmm.native import NativeHost
from tests import fakes
from tests.fakes import BOOT, SERVICE, STOPPED, Act, Step, end, event, health

DEADLINE_S = 20.0
OK = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nHi\n"


@pytest.fixture
def image(checkout: Path) -> Callable[..., ImageSpec]:
    def image(toml: str) -> ImageSpec:
        (checkout / "images/tool/image.toml").write_text(toml)
        return spec.load(checkout).images["tool"]

    return image


@pytest.fixture
def boot(
    tmp_path: Path, short_dir: Path, image: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Receipt]:
    """Verify an image with the stand-in; run directories are made in short_dir."""
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(short_dir))

    def boot(
        toml: str,
        guest: Sequence[Step],
        *,
        facts: dict[str, Any] | None = None,
        instance: Instance | None = None,
        host: Host | None = None,
        **act: Any,
    ) -> Receipt:
        def artifact(kind: str, *files: str) -> Artifact:
            for file in files:
                (tmp_path / file).write_bytes(b"bytes")
                (tmp_path / file).chmod(0o444)
            digests = dict.fromkeys(files, "d" * 64)
            return Artifact(kind, "tool", kind * 4, tmp_path, digests, facts or {})

        firecracker = Firecracker(fakes.install(tmp_path, Act(guest=guest, **act)), "1.12.1")
        return verify.verify(
            image(toml),
            kernel=artifact("kernel", "vmlinux"),
            rootfs=artifact("rootfs", "rootfs.ext4", "overlay.ext4"),
            vmm=FirecrackerVmm(host or NativeHost(), firecracker),
            receipt_path=tmp_path / "receipts" / "tool.json",
            instance=instance,
        )

    return boot


Boot = Callable[..., Receipt]


def written(tmp_path: Path) -> Any:
    assert [path.name for path in (tmp_path / "receipts").iterdir()] == ["tool.json"]
    return json.loads((tmp_path / "receipts" / "tool.json").read_text())


def test_a_service_that_holds_its_checks(boot: Boot, tmp_path: Path, short_dir: Path) -> None:
    toml = "[[check]]\nhttp = { port = 80, contains = 'Hi' }\n[[check]]\nlog = 'rea.y'\n"
    guest = [*BOOT, ["print", "one\nready\n"], *STOPPED[:2], *end(stdout=10)]
    boot(toml, guest, http={"80": OK})
    receipt = written(tmp_path)
    assert (receipt["schema"], receipt["image"], receipt["ok"], receipt["error"]) == (
        1,
        "tool",
        True,
        None,
    )
    assert receipt["vmm"] == {"name": "firecracker", "version": "1.12.1", "kvm": "native"}
    assert receipt["kernel"]["digest"] == receipt["rootfs"]["digest"] == "sha256:" + "d" * 64
    assert receipt["exit"] == {"code": 0, "signal": 0, "reason": "stopped"}
    assert [event["event"] for event in receipt["events"]] == [
        *("init", "mounted", "exec", "stopping", "exit", "end")
    ]
    assert [(check["ok"], check["detail"]) for check in receipt["checks"]] == [
        (True, "status 200, 3 bytes"),
        (True, "found: ready"),
    ]
    assert receipt["timings_ms"].keys() == {
        *("spawn", "configure", "start_to_init", "start_to_exec", "start_to_first_check", "total")
    }
    assert all(type(ms) is int for ms in receipt["timings_ms"].values())
    assert not list(short_dir.iterdir())
    assert (tmp_path / "rootfs.ext4").read_bytes() == b"bytes"


def test_a_program_that_ends_as_expected(boot: Boot, tmp_path: Path, short_dir: Path) -> None:
    toml = "[boot]\nexpect_exit = 3\n[[check]]\nlog = '^hello$'\n"
    boot(toml, [*BOOT, ["print", "hello\n"], *end(code=3, stdout=6)])
    receipt = written(tmp_path)
    assert receipt["ok"]
    assert receipt["exit"] == {"code": 3, "signal": 0, "reason": "exited"}
    assert not list(short_dir.iterdir())


def test_a_check_is_repeated_until_it_holds(boot: Boot, tmp_path: Path) -> None:
    toml = "[[check]]\nlog = 'ready'\n"
    guest = [*BOOT, ["print", "no\n"], ["sleep", 0.2], ["print", "ready\n"], *STOPPED]
    boot(toml, guest)
    assert written(tmp_path)["checks"][0]["ok"]


LOG = "[boot]\ndeadline = '{}'\n[[check]]\nlog = 'never'\n"
HTTP = "[boot]\ndeadline = '{}'\n[[check]]\nhttp = {{ port = 80 }}\n"
TCP = "[boot]\ndeadline = '400ms'\n[[check]]\ntcp = { port = 22, starts_with = 'SSH' }\n"
INIT = "init = '/sbin/init'\n[boot]\n"
HEALTH = {"facts": {"health": True}}
LONG, SHORT = "20s", "400ms"


@pytest.mark.parametrize(
    ("toml", "guest", "act", "error", "said"),
    [
        (LOG.format(SHORT), SERVICE, {}, CheckFailed, "in time: log /never/: no such line"),
        (
            LOG.format(LONG),
            [*BOOT, *end(code=0)],
            {},
            CheckFailed,
            "before the program ended with status 0: log /never/",
        ),
        (
            HTTP.format(SHORT),
            SERVICE,
            {"http": {"80": OK.replace("200", "500")}},
            CheckFailed,
            "http :80/ -> 200: expected status 200, got 500",
        ),
        (HTTP.format(SHORT), SERVICE, {}, CheckFailed, "ECONNREFUSED"),
        (
            "[boot]\nexpect_exit = 0\n",
            [*BOOT, *end(code=3)],
            {},
            CheckFailed,
            "expected the program to end with status 0, got status 3",
        ),
        (
            "[machine]\nmemory = '64MiB'\n",
            [*BOOT, *end(code=137, signal=9, oom=True)],
            {},
            CheckFailed,
            "got status 137 (out of memory)",
        ),
        (
            LOG.format(LONG),
            [*BOOT, *end(code=137, signal=9, oom=True)],
            {},
            CheckFailed,
            "before the program ended with status 137 (out of memory): log /never/",
        ),
        (TCP, SERVICE, {}, CheckFailed, "tcp :22 -> 'SSH': got no connection: ECONNREFUSED"),
        (
            "",
            [*BOOT, health("unhealthy", 3, code=1, output="no db\n"), ["hang"]],
            HEALTH,
            CheckFailed,
            "tool is unhealthy, 3 failed in a row; the last check ended with status 1\n  | no db",
        ),
        (
            f"[boot]\ndeadline = '{SHORT}'\n",
            [*BOOT, health("starting"), ["hang"]],
            HEALTH,
            BootTimeout,
            "not healthy in time: starting",
        ),
        (
            INIT + f"ready = 'notify'\ndeadline = '{SHORT}'\n",
            SERVICE,
            {},
            BootTimeout,
            "no 'ready' event came in time",
        ),
        (
            INIT + "stop_grace = '3s'\n",
            [*BOOT, *STOPPED[:2], *end(code=137, signal=9)],
            {},
            CheckFailed,
            "tool: /sbin/init did not shut down within 3 s",
        ),
        ("", [*BOOT[:1], ["leave", 0]], {}, GuestExited, "the VM ended while waiting"),
        (f"[boot]\ndeadline = '{SHORT}'\n", [["hang"]], {}, BootTimeout, "no 'exec' event"),
        ("", [], {"refuse": {"/vsock": "no vsock"}}, ApiError, "no vsock"),
    ],
    ids=[
        "log",
        "log at end",
        "http",
        "refused",
        "exit",
        "job memory",
        "memory",
        "tcp",
        "unhealthy",
        "not healthy",
        "not ready",
        "no shutdown",
        "early",
        "timeout",
        "api",
    ],
)
def test_a_failure_is_told_and_its_evidence_is_kept(
    boot: Boot,
    tmp_path: Path,
    short_dir: Path,
    toml: str,
    guest: Sequence[Step],
    act: dict[str, Any],
    error: type[FcBuildError],
    said: str,
) -> None:
    with pytest.raises(error) as caught:
        boot(toml, guest, **act)
    message = str(caught.value)
    assert said in message
    receipt = written(tmp_path)
    assert not receipt["ok"]
    assert said in receipt["error"]
    (run_dir,) = short_dir.iterdir()
    assert str(run_dir) in message
    assert {"console.log", "output.log"} <= {path.name for path in run_dir.iterdir()}


def test_a_service_that_ends_by_itself_must_end_well(boot: Boot, tmp_path: Path) -> None:
    toml = "[[check]]\nlog = 'ready'\n"
    guest = [*BOOT, ["print", "ready\n"], *end(code=2, stdout=6)]
    with pytest.raises(CheckFailed, match="end with status 0, got status 2"):
        boot(toml, guest)
    assert not written(tmp_path)["ok"]


def test_an_interruption_leaves_no_run_directory_and_the_old_receipt(
    boot: Boot, tmp_path: Path, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot("", [*BOOT, *end(code=0)])
    before = written(tmp_path)

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "_check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        boot("", [*BOOT, ["hang"]])
    assert not list(short_dir.iterdir())
    assert written(tmp_path) == before


def test_a_new_receipt_replaces_the_old(boot: Boot, tmp_path: Path) -> None:
    guest = [*BOOT, *end(code=0)]
    boot("", guest)
    with pytest.raises(CheckFailed):
        boot("[boot]\nexpect_exit = 1\n", guest)
    assert not written(tmp_path)["ok"]


def test_a_healthy_image_is_a_service(boot: Boot, tmp_path: Path) -> None:
    steps = [*BOOT, health("starting"), health("healthy", code=0, output="fine"), *STOPPED]
    boot("", steps, facts={"health": True, "health_ms": 1000})
    receipt = written(tmp_path)
    assert receipt["health"] == {"status": "healthy", "failing": 0, "code": 0, "output": "fine"}
    assert receipt["exit"]["reason"] == "stopped"
    assert receipt["timings_ms"]["exec_to_healthy"] >= 0
    assert "exec_to_ready" not in receipt["timings_ms"]


def test_checks_wait_until_the_image_is_healthy(boot: Boot, tmp_path: Path) -> None:
    """What is printed before is still found."""
    toml = "[[check]]\nlog = 'early'\n"
    steps = [*BOOT, ["print", "early\n"], ["sleep", 0.2], health("healthy", code=0), *STOPPED]
    boot(toml, steps, facts={"health": True})
    times = written(tmp_path)["timings_ms"]
    assert times["start_to_first_check"] >= times["exec_to_healthy"] >= 100


def test_a_job_is_not_asked_for_its_health(boot: Boot, tmp_path: Path) -> None:
    boot("[boot]\nexpect_exit = 0\n", [*BOOT, health("starting"), *end()], facts={"health": True})
    assert written(tmp_path)["health"]["status"] == "starting"


def test_an_init_that_is_ready_is_a_service(boot: Boot, tmp_path: Path) -> None:
    boot(INIT + "ready = 'notify'\n", [*BOOT, ["sleep", 0.1], event("ready"), *STOPPED])
    receipt = written(tmp_path)
    assert receipt["exit"]["reason"] == "stopped"
    assert receipt["timings_ms"]["exec_to_ready"] >= 50


def test_a_server_that_greets_passes(boot: Boot, tmp_path: Path) -> None:
    boot(TCP, SERVICE, greets={"22": "SSH-2.0-x\r\n"})
    (check,) = written(tmp_path)["checks"]
    assert check["tcp"] == {"port": 22, "starts_with": "SSH"}
    assert check["detail"] == "got 'SSH'"


def test_out_of_memory_is_a_reason_of_its_own(boot: Boot, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as caught:
        boot("[machine]\nmemory = '64MiB'\n", [*BOOT, *end(code=137, signal=9, oom=True)])
    assert "64 MiB" in str(caught.value.hint)
    assert written(tmp_path)["exit"] == {"code": 137, "signal": 9, "reason": "out of memory"}


def test_what_a_found_line_holds_is_made_printable(boot: Boot, tmp_path: Path) -> None:
    steps = [*BOOT, ["print", "ready \x1b[2J\x07now\n"], *STOPPED]
    boot("[[check]]\nlog = 'ready'\n", steps)
    assert written(tmp_path)["checks"][0]["detail"] == "found: ready [2Jnow"


@pytest.mark.parametrize(
    ("toml", "health", "expected"),
    [
        ("", False, 0),
        ("", True, None),
        ("[[check]]\nlog = 'x'\n", False, None),
        ("init = '/sbin/init'\n", False, None),
        ("[boot]\nexpect_exit = 3\n", False, 3),
        ("[boot]\nexpect_exit = 3\n[[check]]\nlog = 'x'\n", True, 3),
    ],
)
def test_a_program_that_nothing_is_asked_of_ends_by_itself(
    image: Any, toml: str, health: bool, expected: int | None
) -> None:
    assert verify.expected_exit(image(toml), health=health) == expected


@pytest.mark.parametrize(
    ("toml", "health_ms", "factor", "seconds"),
    [
        ("", 0, 1, 30),
        ("", 0, 5, 150),
        ("", 9500, 1, 39.5),
        ("", 9500, 5, 159.5),
        ("[boot]\ndeadline = '2s'\n", 9500, 1, 2),
        ("[boot]\ndeadline = '2s'\n", 9500, 5, 10),
    ],
)
def test_the_deadline_has_room_for_the_health_check(
    image: Any, toml: str, health_ms: int, factor: int, seconds: float
) -> None:
    assert verify.seconds_for(image(toml), health_ms=health_ms, factor=factor) == seconds


def instance(tmp_path: Path, toml: str) -> Instance:
    (tmp_path / "web.toml").write_text(toml)
    return instances.load(tmp_path / "web.toml")


SECRET = """
    hostname = "web-2"
    [env]
    DB_PASSWORD = "hunter2"
    [[file]]
    path = "/etc/token"
    content = "hunter2"
"""


def test_an_instance_reaches_the_guest_and_only_its_names_the_receipt(
    boot: Boot, tmp_path: Path, short_dir: Path
) -> None:
    seen = tmp_path / "seen"
    steps = [*BOOT, ["keep_drive", "config", str(seen)], *end()]
    boot("", steps, instance=instance(tmp_path, SECRET))
    drive = seen.read_bytes()
    assert drive.startswith(b"fcbuild-instance 2\nhostname 5\nweb-2\n")
    assert b"DB_PASSWORD=hunter2" in drive
    assert json.loads(seen.with_suffix(".mode").read_text()) == [0o600, 0o700]
    assert not list(short_dir.iterdir())
    text = (tmp_path / "receipts" / "tool.json").read_text()
    assert "hunter2" not in text
    assert json.loads(text)["instance"] == ["hostname", "env DB_PASSWORD", "file /etc/token"]


def test_a_kept_run_directory_holds_no_value_of_the_instance(
    boot: Boot, tmp_path: Path, short_dir: Path
) -> None:
    with pytest.raises(CheckFailed) as caught:
        boot("[boot]\nexpect_exit = 1\n", [*BOOT, *end()], instance=instance(tmp_path, SECRET))
    (run_dir,) = short_dir.iterdir()
    left = {path.name for path in run_dir.iterdir()}
    assert not [name for name in left if name.endswith((".drive", ".ext4"))]
    assert {"console.log", "output.log"} <= left
    held = "".join(
        p.read_text() for p in run_dir.iterdir() if p.is_file() and p.name != "calls.jsonl"
    )
    assert "hunter2" not in held + str(caught.value) + repr(caught.value.__dict__)


def test_a_kept_run_directory_holds_the_logs_and_not_the_disk(boot: Boot, short_dir: Path) -> None:
    with pytest.raises(CheckFailed):
        boot("[boot]\nexpect_exit = 1\n", [*BOOT, *end()])
    (run_dir,) = short_dir.iterdir()
    assert (run_dir / "output.log").exists()
    assert not (run_dir / "rootfs.ext4").exists()


def test_an_instance_that_does_not_go_with_the_image_boots_nothing(
    boot: Boot, tmp_path: Path, short_dir: Path
) -> None:
    other = instance(tmp_path, "[authorized_keys]\nrot = ['ssh-ed25519 AAAA']\n")
    with pytest.raises(SpecError, match=r"no user 'rot' in the image \(did you mean root\?\)"):
        boot("", [*BOOT, *end()], instance=other, facts={"users": {"root": [0, 0, "/root"]}})
    assert not list(short_dir.iterdir())
    assert not (tmp_path / "receipts").exists()


@pytest.mark.parametrize("toml", ["[rootfs]\nreadonly = true\n", "[rootfs]\noverlay = true\n"])
def test_a_shared_root_is_booted_from_the_store(
    boot: Boot, tmp_path: Path, short_dir: Path, toml: str
) -> None:
    boot(toml, [*BOOT, ["keep_calls", str(tmp_path / "calls")], *end()])
    drives = drives_of(tmp_path / "calls")
    assert drives == {"rootfs": (str(tmp_path / "rootfs.ext4"), True)}


def test_an_overlay_drive_is_a_private_copy(boot: Boot, tmp_path: Path) -> None:
    toml = "[rootfs]\noverlay = '64MiB'\n"
    boot(toml, [*BOOT, ["keep_calls", str(tmp_path / "calls")], *end()])
    drives = drives_of(tmp_path / "calls")
    assert drives["rootfs"] == (str(tmp_path / "rootfs.ext4"), True)
    path, read_only = drives["overlay"]
    assert not read_only
    assert Path(path).name == "overlay.ext4" and Path(path).parent != tmp_path


def drives_of(calls: Path) -> dict[str, tuple[str, bool]]:
    bodies = [json.loads(line)[1] for line in calls.read_text().splitlines()]
    return {
        body["drive_id"]: (body["path_on_host"], body["is_read_only"])
        for body in bodies
        if "drive_id" in body
    }


PANIC = "[ 1.2] Kernel panic - not syncing: VFS: Unable to mount root fs"
WORDS = ["console_verbose", "[ 0.1] virtio_blk: no such device\n[ 1.1] VFS: Cannot open root\n"]


def test_a_boot_that_fails_without_a_word_is_repeated_for_the_kernels(
    boot: Boot, tmp_path: Path, short_dir: Path
) -> None:
    with pytest.raises(GuestPanic) as caught:
        boot("", [WORDS, ["console", PANIC], ["leave", 0]])
    (run_dir,) = short_dir.iterdir()
    first, second = caught.value.message.split("booted once more with the kernel's messages on: ")
    assert first.startswith("the guest panicked while waiting for 'exec': [ 1.2] Kernel panic")
    assert "Cannot open root" not in first
    assert second.splitlines() == [
        f"the guest panicked while waiting for 'exec': {PANIC} (last stage reached: kernel)",
        "  | [ 0.1] virtio_blk: no such device",
        "  | [ 1.1] VFS: Cannot open root",
        f"  | {PANIC}",
        f"  all of them: {run_dir}/verbose/console.log",
    ]
    receipt = written(tmp_path)
    assert receipt["error"] == caught.value.message
    assert receipt["second_boot"]["console"][1] == "[ 1.1] VFS: Cannot open root"
    assert receipt["events"] == []


def test_a_second_boot_has_drives_as_new_and_leaves_none(
    boot: Boot, tmp_path: Path, short_dir: Path
) -> None:
    seen = tmp_path / "seen"
    with pytest.raises(GuestExited):
        steps = [["keep_drive", "rootfs", str(seen)], ["soil", "rootfs"], ["leave", 0]]
        boot("", steps, instance=instance(tmp_path, SECRET))
    assert seen.read_bytes() == b"bytes"
    (run_dir,) = short_dir.iterdir()
    assert not [path for path in run_dir.rglob("*") if path.suffix in (".ext4", ".drive")]
    assert (run_dir / "verbose").stat().st_mode & 0o777 == 0o700


def test_a_second_boot_that_gets_further_says_so(boot: Boot, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    with pytest.raises(GuestExited, match="this time the program was started"):
        boot("", [["leave_once", mark], *BOOT, ["hang"]])
    assert written(tmp_path)["exit"] is None


def test_a_second_boot_that_cannot_be_made_hides_nothing(
    boot: Boot, tmp_path: Path, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def assemble(*args: Any, run_dir: Path, **kwargs: Any) -> MicroVm:
        (run_dir / "config.drive").write_text("hunter2")
        if run_dir.name == "verbose":
            raise ToolMissing("no room")
        (run_dir / "config.drive").unlink()
        return real(*args, run_dir=run_dir, **kwargs)

    real = microvm.assemble
    monkeypatch.setattr(verify, "assemble", assemble)
    with pytest.raises(GuestExited, match="with the kernel's messages on: that failed: no room"):
        boot("", [["leave", 0]])
    assert not list(short_dir.rglob("*.drive"))
    assert written(tmp_path)["second_boot"]["console"] == []


FAIL = event("fail", stage="init", reason="root", error="mount /proc: EPERM")


@pytest.mark.parametrize(
    ("toml", "guest", "act"),
    [
        ("", [*BOOT[:1], FAIL, event("end"), ["leave", 0]], {}),
        ("", [event("init", contract=1, start=1), ["hang"]], {}),
        ("[boot]\nexpect_exit = 1\n", [*BOOT, *end()], {}),
        ("", [*BOOT[:2], *end(code=127)], {}),
        ("", [*BOOT, ["console", PANIC], ["leave", 0]], {}),
        ("", [], {"refuse": {"/actions": "Invalid ELF magic number"}}),
        ("", [], {"dies_with": "no such option"}),
    ],
    ids=["PID 1 said why", "contract", "check", "program", "panic later", "refused", "no VMM"],
)
def test_a_failure_that_the_kernel_cannot_explain_is_not_repeated(
    boot: Boot, tmp_path: Path, toml: str, guest: Sequence[Step], act: dict[str, Any]
) -> None:
    with pytest.raises(FcBuildError) as caught:
        boot(toml, guest, **act)
    assert "booted once more" not in caught.value.message
    assert written(tmp_path)["second_boot"] is None


def test_a_second_boot_has_a_deadline_of_its_own(boot: Boot, tmp_path: Path) -> None:
    with pytest.raises(BootTimeout, match="no 'exec' event came in time"):
        boot(f"[boot]\ndeadline = '{SHORT}'\n", [["console", "up"], ["hang"]])
    assert written(tmp_path)["second_boot"] == {
        "outcome": "no 'exec' event came in time (last stage reached: kernel)",
        "console": ["up"],
    }
