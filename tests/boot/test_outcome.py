"""How a boot can go, in a real guest: healthy or not, out of memory, greeted, shared roots."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import workspace
from tests.boot.test_boot import DEBIAN, failed
from tests.workspace import Workspace

pytestmark = pytest.mark.boot

# Ready after two seconds, and until it is stopped.
SERVES = 'CMD ["sh", "-c", "sleep 2; touch /run/ready; sleep 600 & wait"]\n'


def test_a_healthy_image_is_waited_for(checkout: Workspace) -> None:
    health = "HEALTHCHECK --interval=1s --retries=30 CMD test -e /run/ready && echo up\n"
    checkout.image("well", "", DEBIAN + health + SERVES)
    result = checkout.doit("boot", "image=well")
    assert result.status == 0, result.output
    assert "health    healthy after " in result.output
    receipt = checkout.receipt("well")
    assert receipt["health"] == {"status": "healthy", "failing": 0, "code": 0, "output": "up\n"}
    assert receipt["timings_ms"]["exec_to_healthy"] >= 1500
    statuses = [event["status"] for event in receipt["events"] if event["event"] == "health"]
    assert statuses == ["starting", "healthy"]
    assert receipt["exit"]["reason"] == "stopped"


def test_an_unhealthy_image_fails_with_the_output_of_its_check(checkout: Workspace) -> None:
    health = "HEALTHCHECK --interval=1s --retries=2 CMD echo no database; exit 1\n"
    checkout.image("ill", "", DEBIAN + health + SERVES)
    output = failed(checkout, "ill")
    assert "ill is unhealthy, 2 failed in a row; the last check ended with status 1" in output
    assert "  | no database" in output


def test_a_program_that_the_kernel_ends_for_want_of_memory_is_told(checkout: Workspace) -> None:
    checkout.image(
        "greedy",
        '[machine]\nmemory = "64MiB"\n[boot]\nexpect_exit = 0\n',
        DEBIAN + 'CMD ["tail", "/dev/zero"]\n',
    )
    output = failed(checkout, "greedy")
    assert "expected the program to end with status 0, got status 137 (out of memory)" in output
    assert checkout.receipt("greedy")["exit"] == {
        "code": 137,
        "signal": 9,
        "reason": "out of memory",
    }


def test_a_server_that_greets_passes_its_tcp_check(checkout: Workspace) -> None:
    script = (
        "use Socket; socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(2222, INADDR_ANY));"
        " listen(S, 5); while (accept(C, S)) { syswrite C, qq(HELLO 1.0\\n); close C }"
    )
    toml = "[[check]]\ntcp = { port = 2222, starts_with = 'HELLO' }\n"
    checkout.image("greets", toml, DEBIAN + f"CMD exec perl -e '{script}'\n")
    result = checkout.doit("boot", "image=greets")
    assert result.status == 0, result.output
    assert "check     passed: tcp :2222 -> 'HELLO': got 'HELLO'" in result.output


def test_systemd_is_ready_and_shuts_down_in_order(checkout: Workspace) -> None:
    result = checkout.doit("boot", "image=debian-systemd")
    assert result.status == 0, result.output
    assert re.search(r"^ready +[0-9.]+ s after exec$", result.output, re.MULTILINE)
    receipt = checkout.receipt("debian-systemd")
    assert [event["event"] for event in receipt["events"]] == [
        *("init", "mounted", "exec", "ready", "stopping", "exit", "end")
    ]
    assert receipt["events"][2]["pid"] == 1
    assert receipt["exit"] == {"code": 0, "signal": 0, "reason": "stopped"}


# An init in a few lines: it says that it is ready and, told to stop, does what an init does.
INIT = """\
#!/usr/bin/perl
use Socket;
$SIG{TERM} = 'IGNORE';
$SIG{INT} = sub { kill 'TERM', -1; sleep 1; syscall(169, 0xfee1dead, 672274793, 0x1234567, 0) };
$SIG{INT} = 'IGNORE' if -e '/deaf';
print 'pid=', $$, "\\n";
$| = 1;
sleep 2;
socket(S, AF_UNIX, SOCK_DGRAM, 0);
$ENV{NOTIFY_SOCKET} =~ s/^@/\\0/;
send(S, 'READY=1', 0, pack('S a*', AF_UNIX, $ENV{NOTIFY_SOCKET})) or die $!;
sleep 1 while 1;
"""
OWN_INIT = "init = '/sbin/own-init'\n[boot]\nready = 'notify'\nstop_grace = '3s'\n"
COPIED = DEBIAN + "COPY --chmod=755 own-init /sbin/\n"


def test_an_init_of_the_images_own_is_waited_for_and_shuts_down(checkout: Workspace) -> None:
    checkout.image("own", OWN_INIT, COPIED, **{"own-init": INIT})
    result = checkout.doit("boot", "image=own")
    assert result.status == 0, result.output
    assert re.search(r"^ready     \d+\.\d s after exec$", result.output, re.MULTILINE)
    receipt = checkout.receipt("own")
    assert receipt["timings_ms"]["exec_to_ready"] >= 1500
    assert receipt["exit"] == {"code": 0, "signal": 0, "reason": "stopped"}
    assert [event["event"] for event in receipt["events"]] == [
        *("init", "mounted", "exec", "ready", "stopping", "exit", "end")
    ]


def test_an_init_that_does_not_shut_down_is_a_failure(checkout: Workspace) -> None:
    checkout.image("deaf", OWN_INIT, COPIED + "RUN touch /deaf\n", **{"own-init": INIT})
    output = failed(checkout, "deaf")
    assert "deaf: /sbin/own-init did not shut down within 3 s" in output
    assert checkout.receipt("deaf")["exit"]["code"] == 137


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


ROOTS = {
    "readonly = true\nwritable = ['/srv']": "root=no srv=yes run=yes seen=content",
    "overlay = true": "root=yes srv=yes run=yes seen=content",
    "overlay = '64MiB'": "root=yes srv=yes run=yes seen=content",
}
TRIES = """\
#!/bin/sh
try() { if (echo x >"$1/new") 2>/dev/null; then echo yes; else echo no; fi; }
echo "root=$(try /usr) srv=$(try /srv) run=$(try /run) seen=$(cat /srv/file)"
"""


@pytest.mark.parametrize("rootfs", ROOTS)
def test_a_shared_root_is_booted_from_the_store_and_not_written_to(
    checkout: Workspace, rootfs: str
) -> None:
    checkout.image(
        "shared",
        f"[rootfs]\n{rootfs}\n[boot]\nexpect_exit = 0\n[[check]]\nlog = '{ROOTS[rootfs]}'\n",
        DEBIAN + 'COPY tries /tries\nCOPY file /srv/\nCMD ["sh", "/tries"]\n',
        tries=TRIES,
        file="content\n",
    )
    assert checkout.doit("build", "image=shared").status == 0
    disk = (checkout.root / "artifacts" / "images" / "shared.ext4").resolve()
    before = digest(disk)
    # What one VM writes, the next one must not see.
    for _ in range(2):
        result = checkout.doit("boot", "image=shared")
        assert result.status == 0, result.output
    assert digest(disk) == before


def test_vms_share_one_root_at_the_same_time(tmp_path: Path) -> None:
    checkouts = [workspace.make(tmp_path / name) for name in ("one", "two")]
    for checkout in checkouts:
        checkout.image(
            "shared",
            "[rootfs]\noverlay = true\n[boot]\ndeadline = '60s'\n[[check]]\nlog = 'wrote'\n",
            DEBIAN + 'CMD ["sh", "-c", "echo x >/usr/new && echo wrote; sleep 600 & wait"]\n',
        )
    assert checkouts[0].doit("build", "image=shared").status == 0
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda each: each.doit("boot", "image=shared"), checkouts))
    assert [result.status for result in results] == [0, 0], results
    one, two = (checkout.receipt("shared")["rootfs"] for checkout in checkouts)
    assert one == two
