"""64-bit ARM: the same contract and checks, in QEMU's virt machine as this machine is another.

Programs of the image are built with QEMU's emulation of them, which has to be registered here.
"""

from __future__ import annotations

import re

import pytest

from fcbuild.build import foreign
from fcbuild.errors import ToolMissing
from fcbuild.vmm import virt
from tests.boot.test_boot import failed, kept_run_dir, run_dirs
from tests.workspace import Workspace

pytestmark = pytest.mark.boot

ARM = 'arch = "aarch64"\nkernel = "6.12/micro"\n'
FROM = "FROM fcbuild/arm-base\n"


@pytest.fixture(autouse=True)
def emulator() -> None:
    if why := foreign.trouble("aarch64"):
        pytest.skip(why)
    try:
        virt.find()
    except ToolMissing as error:
        pytest.skip(error.message)


def test_arm_web_answers_and_says_where(checkout: Workspace) -> None:
    result = checkout.doit("boot", "image=arm-web")
    assert result.status == 0, result.output
    assert "in qemu-system-aarch64 -M virt" in result.output
    receipt = checkout.receipt("arm-web")
    assert receipt["arch"] == "aarch64"
    vmm = receipt["vmm"]
    assert (vmm["name"], vmm["kvm"]) == ("qemu-system-aarch64 -M virt", "none")
    assert re.match(r"\d+\.\d+", vmm["version"])
    (check,) = receipt["checks"]
    assert check["ok"] and check["http"]["status"] == 200
    assert [event["event"] for event in receipt["events"]] == [
        *("init", "mounted", "exec", "stopping", "exit", "end")
    ]
    assert receipt["exit"]["reason"] == "stopped"
    spans = receipt["timings_ms"]
    assert 0 < spans["start_to_init"] <= spans["start_to_exec"] <= spans["start_to_first_check"]
    assert not run_dirs(checkout)


SERVES = """\
#!/bin/sh
echo "own=$OWN uname=$(uname -m) host=$(hostname) root=$(awk '$2 == "/" {print $3}' /proc/mounts)"
echo "args=$* file=$(cat /etc/own)"
trap 'echo stopping; exit 0' TERM
touch /run/ready
while :; do sleep 0.1; done
"""


def test_an_instance_a_health_check_and_an_overlay(checkout: Workspace) -> None:
    checkout.image(
        "arm-own",
        ARM + '[rootfs]\noverlay = "16MiB"\n[machine]\nvcpus = 2\n'
        '[[check]]\nlog = "own=mine uname=aarch64 host=arm-2 root=overlay"\n'
        '[[check]]\nlog = "args=a b file=given"\n',
        FROM
        + "COPY serve /serve\nRUN chmod +x /serve\n"
        + "HEALTHCHECK --interval=200ms --retries=50 CMD test -e /run/ready\n"
        + 'ENTRYPOINT ["/serve"]\nCMD ["a"]\n',
        serve=SERVES,
    )
    (checkout.root / "own.toml").write_text(
        'hostname = "arm-2"\narguments = ["b"]\n[env]\nOWN = "mine"\n'
        '[[file]]\npath = "/etc/own"\ncontent = "given"\n'
    )
    result = checkout.doit("boot", "image=arm-own", "instance=own.toml")
    assert result.status == 0, result.output
    receipt = checkout.receipt("arm-own")
    assert receipt["health"]["status"] == "healthy"
    assert receipt["exit"] == {"code": 0, "signal": 0, "reason": "stopped"}


def test_a_job_that_fails_is_told_and_its_output_is_whole(checkout: Workspace) -> None:
    checkout.image(
        "arm-job",
        ARM + "[boot]\nexpect_exit = 0\n",
        FROM + 'CMD ["sh", "-c", "seq 100000; exit 4"]\n',
    )
    output = failed(checkout, "arm-job")
    assert "expected the program to end with status 0, got status 4" in output
    log = kept_run_dir(output) / "output.log"
    assert log.read_text() == "".join(f"{number}\n" for number in range(1, 100001))


def test_a_metadata_service_is_refused_before_the_boot(checkout: Workspace) -> None:
    (checkout.root / "own.toml").write_text("[mmds]\na = 1\n")
    result = checkout.doit("boot", "image=arm-web", "instance=own.toml")
    assert result.status == 1
    assert "mmds: the metadata service is Firecracker's, and QEMU has none" in result.output
    assert "Traceback" not in result.output
