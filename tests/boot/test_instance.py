"""One VM's own values, in a real guest: the config drive, the network and the metadata service."""

from __future__ import annotations

import pytest

from tests.boot.test_boot import DEBIAN, failed, kept_run_dir
from tests.workspace import Workspace

pytestmark = pytest.mark.boot

# Says what it was given, a fact a line; bash speaks TCP by itself.
PROBE = """\
#!/bin/bash
printf 'arg=<%s>\\n' "$@"
echo "host=$(cat /proc/sys/kernel/hostname) etc=$(cat /etc/hostname)"
echo "own=$OWN image=$IMAGE added=$ADDED"
for file in /root/.ssh/authorized_keys /etc/app/token /srv/blob; do
    stat -c "%n %a %u:%g %s" "$file" && echo "content=$(cat "$file")"
done
echo "mtu=$(cat /sys/class/net/eth0/mtu) mac=$(cat /sys/class/net/eth0/address)"
grep -o 'fd00000000000000000000000000000[0-9]' /proc/net/if_inet6
awk '$2 == "00000000" { print "gateway=" $3 }' /proc/net/route
grep -c '10.0.0.2$' /proc/net/fib_trie >/dev/null && echo address=10.0.0.2
grep -v '^#' /etc/resolv.conf
grep db /etc/hosts
ask() {
    exec 3<>/dev/tcp/169.254.169.254/80 || return
    printf '%s HTTP/1.1\\r\\nX-metadata-token%s\\r\\nAccept: application/json\\r\\n\\r\\n' "$@" >&3
    timeout 5 cat <&3 | tail -1
}
if [ -n "$ASK" ]; then
    token=$(ask 'PUT /latest/api/token' '-ttl-seconds: 60')
    echo "metadata=$(ask 'GET /' ": $token")"
fi
"""

IMAGE = (
    DEBIAN + "COPY probe /probe\nENV OWN=image IMAGE=image\n"
    'ENTRYPOINT ["/bin/bash", "/probe"]\nCMD ["one"]\n'
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE somebody"

OWN = f"""
hostname = "web-2"
arguments = ["--more", "a b", ""]
kernel_arguments = ["fcbuild.env=ADDED=line"]
[env]
OWN = "hunter2"
ASK = "1"
[network]
address = ["10.0.0.2/24", "fd00::2/64"]
gateway = "10.0.0.1"
dns = "10.0.0.53"
search = "example.org"
hosts = {{ db = "10.0.0.3" }}
mtu = 1400
mac = "02:00:00:00:00:07"
[mmds]
role = "web"
day = 2026-01-02
[authorized_keys]
root = ["{KEY}"]
[[file]]
path = "/etc/app/token"
content = "hunter2"
mode = "0640"
owner = "www-data"
[[file]]
path = "/srv/blob"
source = "blob"
"""

LINES = [
    *("arg=<one>", "arg=<--more>", "arg=<a b>", "arg=<>"),
    *("host=web-2 etc=web-2", "own=hunter2 image=image added=line"),
    f"/root/.ssh/authorized_keys 600 0:0 {len(KEY) + 1}",
    f"content={KEY}",
    *("/etc/app/token 640 33:33 7", "content=hunter2", "/srv/blob 644 0:0 5"),
    *("mtu=1400 mac=02:00:00:00:00:07", "fd000000000000000000000000000002"),
    *("gateway=0100000A", "address=10.0.0.2", "search example.org", "nameserver 10.0.0.53"),
    "10.0.0.3 db",
    'metadata={"day":"2026-01-02","role":"web"}',
]


def test_an_instance_gets_its_own_values_with_no_rebuild(checkout: Workspace) -> None:
    checkout.image("own", "[network]\naddress = '10.9.9.9/24'\n", IMAGE, probe=PROBE)
    plain = checkout.doit("boot", "image=own")
    assert plain.status == 0, plain.output
    assert checkout.receipt("own")["instance"] is None

    (checkout.root / "own.toml").write_text(OWN)
    (checkout.root / "blob").write_bytes(b"a\0b\nc")
    # A job that is expected to end otherwise: what it printed is kept.
    toml = checkout.root / "images" / "own" / "image.toml"
    toml.write_text(toml.read_text() + "[boot]\nexpect_exit = 9\n")
    output = failed(checkout, "own", "instance=own.toml")
    assert "built    rootfs:own" not in output
    run_dir = kept_run_dir(output)
    printed = (run_dir / "output.log").read_text().splitlines()
    assert [line for line in LINES if line not in printed] == []

    receipt = checkout.receipt("own")
    assert "network address" in receipt["instance"] and "env OWN" in receipt["instance"]
    assert "hunter2" not in str(receipt) + output
    left = {path.name: path for path in run_dir.iterdir()}
    assert not [name for name in left if name.endswith((".drive", ".ext4"))]
    logs = [path for name, path in left.items() if name != "output.log"]
    assert not [path for path in logs if b"hunter2" in path.read_bytes()]


def test_an_instance_that_pid_1_cannot_use_is_told_with_its_reason(checkout: Workspace) -> None:
    checkout.image("own", "", IMAGE, probe=PROBE)
    (checkout.root / "own.toml").write_text("[[file]]\npath = '/proc/none/file'\ncontent = 'x'\n")
    output = failed(checkout, "own", "instance=own.toml")
    assert "PID 1 gave up at init (file): " in output
    assert "/proc/none" in output


def test_a_user_that_the_image_does_not_have_is_told_before_the_boot(checkout: Workspace) -> None:
    checkout.image("own", "", IMAGE, probe=PROBE)
    (checkout.root / "own.toml").write_text("[authorized_keys]\nrot = ['ssh-ed25519 A']\n")
    result = checkout.doit("boot", "image=own", "instance=own.toml")
    assert result.status == 1
    assert "no user 'rot' in the image (did you mean root?)" in result.output
    assert not (checkout.root / "artifacts" / "receipts" / "own.json").exists()
