"""The main job: Dockerfiles go in, verified microVMs come out, in real Firecracker."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests import workspace
from tests.workspace import Workspace

pytestmark = pytest.mark.boot

STARTS_S = 60.0  # for a VMM to start, on a busy machine

# One image for the ways a program can go: cheap, because only its last layer differs.
DEBIAN = "FROM fcbuild/debian-base\n"


def run_dirs(checkout: Workspace) -> list[str]:
    assert checkout.scratch
    return [path.name for path in checkout.scratch.glob("fcbuild-*")]


def kept_run_dir(output: str) -> Path:
    match = re.search(r"run directory, with all logs: (\S+)", output)
    assert match, output
    return Path(match[1])


def failed(checkout: Workspace, name: str, *more: str) -> str:
    result = checkout.doit("boot", f"image={name}", *more)
    assert result.status == 1, result.output
    assert "Traceback" not in result.output
    assert checkout.receipt(name)["ok"] is False
    assert checkout.receipt(name)["error"]
    return result.output


def test_debian_web_answers_and_a_second_run_builds_nothing(checkout: Workspace) -> None:
    first = checkout.doit("boot")
    assert first.status == 0, first.output
    assert "check     passed: " in first.output
    assert "receipt   artifacts/receipts/debian-web.json" in first.output
    receipt = checkout.receipt("debian-web")
    assert receipt["ok"] is True
    assert receipt["vmm"]["name"] == "firecracker"
    assert re.fullmatch(r"\d+\.\d+\.\d+", receipt["vmm"]["version"])
    assert receipt["vmm"]["kvm"] in ("native", "emulated")
    (check,) = receipt["checks"]
    assert check["ok"] and check["http"]["status"] == 200
    assert [event["event"] for event in receipt["events"]] == [
        *("init", "mounted", "exec", "stopping", "exit", "end")
    ]
    assert receipt["exit"] == {"code": 0, "signal": 0, "reason": "stopped"}
    spans = receipt["timings_ms"]
    assert 0 < spans["start_to_init"] <= spans["start_to_exec"] <= spans["start_to_first_check"]

    second = checkout.doit("boot", "image=debian-web")
    assert second.status == 0, second.output
    assert not re.search(r"^built ", second.output, re.MULTILINE), second.output
    again = checkout.receipt("debian-web")
    assert again["rootfs"] == receipt["rootfs"] and again["kernel"] == receipt["kernel"]
    assert not run_dirs(checkout)


def test_a_changed_page_rebuilds_only_its_rootfs_and_is_served(checkout: Workspace) -> None:
    assert checkout.doit("build", "image=debian-web").status == 0
    page = checkout.root / "images" / "debian-web" / "index.html"
    page.write_text(page.read_text().replace("microVM", "macroVM"))
    toml = checkout.root / "images" / "debian-web" / "image.toml"
    toml.write_text(toml.read_text().replace('contains = "Welcome"', 'contains = "macroVM"'))
    result = checkout.doit("boot", "image=debian-web")
    assert result.status == 0, result.output
    built = re.findall(r"^built +(\S+)", result.output, re.MULTILINE)
    # Less than both where an earlier run of this test has left them.
    assert set(built) <= {"_image:debian-web", "rootfs:debian-web"}, result.output
    if "_image:debian-web" in built:
        assert "container:debian-web: building" in result.output
    assert checkout.receipt("debian-web")["checks"][0]["ok"]


def test_a_program_from_scratch_runs_to_its_end(checkout: Workspace) -> None:
    result = checkout.doit("boot", "image=hello")
    assert result.status == 0, result.output
    receipt = checkout.receipt("hello")
    assert receipt["exit"] == {"code": 0, "signal": 0, "reason": "exited"}
    assert receipt["checks"][0]["detail"] == "found: Hello from a microVM"


def test_a_program_gets_its_user_directory_environment_and_words(checkout: Workspace) -> None:
    checkout.image(
        "odd.name_1-x",
        "[boot]\nexpect_exit = 7\n"
        '[[check]]\nlog = "id=33:33 groups=33 cwd=/made/by init home=/var/www"\n'
        '[[check]]\nlog = "three=<a b> <> <ü\\"> odd=<x=y z>"\n'
        '[[check]]\nlog = "host=odd-name-1-x pid1=/.fcbuild/init fds=0 1 2"\n'
        '[[check]]\nlog = "to stderr"\n',
        DEBIAN
        + 'COPY probe /probe\nENV ODD="x=y z"\nWORKDIR /made/by init\nRUN rmdir "/made/by init"\n'
        'USER www-data\nENTRYPOINT ["/probe"]\nCMD ["a b", "", "ü\\""]\n',
        probe="#!/bin/sh\n"
        'echo "id=$(id -u):$(id -g) groups=$(id -G) cwd=$PWD home=$HOME"\n'
        'echo "three=<$1> <$2> <$3> odd=<$ODD>"\n'
        'echo "host=$(cat /proc/sys/kernel/hostname) pid1=$(tr "\\0" " " </proc/1/cmdline'
        ' | cut -d" " -f1) fds=$(cd /proc/self/fd; echo 0 1 2)"\n'
        "echo to stderr >&2\nexit 7\n",
    )
    (checkout.root / "images" / "odd.name_1-x" / "probe").chmod(0o755)
    result = checkout.doit("boot", "image=odd.name_1-x")
    assert result.status == 0, result.output
    assert checkout.receipt("odd.name_1-x")["exit"]["code"] == 7


def test_a_program_that_does_not_exist_is_named(checkout: Workspace) -> None:
    # In a volume, where the build cannot see that it is missing.
    checkout.image("missing", "", DEBIAN + 'VOLUME /no\nENTRYPOINT ["/no/such/program"]\n')
    output = failed(checkout, "missing")
    assert "the program ended with status 127" in output
    run_dir = kept_run_dir(output)
    assert "/no/such/program" in (run_dir / "output.log").read_text()


def test_a_service_that_ends_by_itself_is_a_failure(checkout: Workspace) -> None:
    checkout.image(
        "quits",
        "[[check]]\nhttp = { port = 80 }\n",
        DEBIAN + 'CMD ["sh", "-c", "echo going down; exit 3"]\n',
    )
    output = failed(checkout, "quits")
    assert "check failed before the program ended with status 3: http :80/ -> 200" in output
    assert checkout.receipt("quits")["exit"]["code"] == 3


def test_an_unexpected_exit_status_is_a_failure(checkout: Workspace) -> None:
    checkout.image("status", "[boot]\nexpect_exit = 0\n", DEBIAN + 'CMD ["sh", "-c", "exit 4"]\n')
    assert "expected the program to end with status 0, got status 4" in failed(checkout, "status")


def test_a_check_that_does_not_hold_says_what_came(checkout: Workspace) -> None:
    toml = checkout.root / "images" / "debian-web" / "image.toml"
    toml.write_text(
        '[boot]\ndeadline = "3s"\n[[check]]\nhttp = { port = 80, path = "/none" }\n'
        '[[check]]\nlog = "never said"\n'
    )
    output = failed(checkout, "debian-web")
    assert "check failed in time: http :80/none -> 200: expected status 200, got 404" in output
    assert "log /never said/: no such line in the program's output" in output
    assert (kept_run_dir(output) / "console.log").exists()


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, "0"), (signal.SIGTERM, "0"), (signal.SIGINT, "2")]
)
def test_an_interrupted_boot_leaves_nothing(
    checkout: Workspace, number: signal.Signals, workers: str
) -> None:
    toml = checkout.root / "images" / "debian-web" / "image.toml"
    toml.write_text('[[check]]\nlog = "never said"\n')  # boots, and then waits for a minute
    assert checkout.doit("build", "image=debian-web").status == 0
    with checkout.interrupt("run", "-n", workers, "boot", after="booting", number=number):
        run_dir = a_running_vm(checkout)
    assert not processes_of(run_dir)
    assert not run_dirs(checkout)


def a_running_vm(checkout: Workspace) -> str:
    """Wait until there is a VMM, and return its run directory's name."""
    deadline = time.monotonic() + STARTS_S
    while not any(map(processes_of, run_dirs(checkout))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (run_dir,) = run_dirs(checkout)
    return run_dir


def processes_of(run_dir: str) -> list[int]:
    """Return the VMM processes that were started for a run directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if run_dir.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_alpine_web_answers(checkout: Workspace) -> None:
    dockerfile = (checkout.root / "images" / "alpine-web" / "Dockerfile").read_text()
    reference = dockerfile.split()[1]
    if trouble := workspace.registry_trouble(reference):
        pytest.skip(trouble)
    result = checkout.doit("boot", "image=alpine-web")
    assert result.status == 0, result.output


def test_much_output_arrives_whole(checkout: Workspace) -> None:
    checkout.image(
        "talks", "[boot]\nexpect_exit = 0\n", DEBIAN + 'CMD ["sh", "-c", "seq 300000; exit 1"]\n'
    )
    output = kept_run_dir(failed(checkout, "talks")) / "output.log"
    assert output.read_text() == "".join(f"{number}\n" for number in range(1, 300001))
