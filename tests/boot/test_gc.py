"""gc beside a boot."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from fcbuild.fingerprint import SHORT
from fcbuild.plan import KVM_HOST
from tests import workspace
from tests.workspace import Workspace

pytestmark = pytest.mark.boot

# The guest reads its root filesystem, which is the store's own file, when gc has been.
DOCKERFILE = """FROM fcbuild/debian-base
COPY a /a
CMD ["sh", "-c", "sleep 15; sha256sum /usr/bin/perl; echo late: $(cat /a)"]
"""
TOML = '[rootfs]\nreadonly = true\n[boot]\nexpect_exit = 0\n[[check]]\nlog = "late: one"\n'


def gc(own: Workspace) -> dict[str, Any]:
    """Collect all that no plan and no link needs; return what gc says of it."""
    said = own.doit("gc", "age=0", "--json")
    assert said.status == 0, said.output
    document = json.loads(said.output[said.output.index("{") :])
    return {key: {item["what"] for item in document[key]} for key in ("removed", "in_use")}


def test_gc_beside_a_boot_removes_nothing_that_the_boot_uses(
    checkout: Workspace, tmp_path: Path
) -> None:
    kernels = ("6.12", KVM_HOST)
    assert checkout.doit(*(f"kernel:{name}" for name in kernels)).status == 0
    own = workspace.alone(checkout, tmp_path / "store", *kernels)
    own.image("late", TOML, DOCKERFILE, a="one")
    boot = subprocess.Popen(
        own.argv("boot", "image=late"),
        cwd=own.root,
        env=own.env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = threading.Timer(300, boot.kill)
    watchdog.start()
    try:
        assert boot.stdout
        for line in boot.stdout:
            if line.startswith("booting late"):
                break
        threading.Event().wait(2)  # it is under way
        # Now no plan and no link leads to what it boots.
        (own.root / "images" / "late" / "a").write_text("two")
        fragment = own.root / "kernels" / "fragments" / "base.config"  # of every kernel
        fragment.write_text(fragment.read_text() + "# another\n")
        for links in ("images", "kernels"):
            shutil.rmtree(own.root / "artifacts" / links)
        beside = gc(own)
        assert boot.poll() is None, "gc was to run beside the boot"
        output, _ = boot.communicate(timeout=120)
    finally:
        watchdog.cancel()
        boot.kill()
        boot.wait()
    assert boot.returncode == 0, output
    receipt = own.receipt("late")
    used = {
        f"{name} {receipt[kind]['fingerprint'][:SHORT]}"
        for name, kind in (("rootfs:late", "rootfs"), ("kernel:6.12", "kernel"))
    }
    assert used <= beside["in_use"], beside
    shutil.rmtree(own.root / "artifacts" / "receipts")  # it would keep them too
    after = gc(own)
    assert beside["in_use"] <= after["removed"] and not after["in_use"], after
