"""Every kernel for Firecracker on x86-64 boots, and is the one that was built.

One of them: pytest tests/boot/test_kernels.py -k 6.12/micro
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fcbuild import kconfig, spec
from fcbuild.plan import KVM_HOST, Plan
from fcbuild.series import X86_64, KernelSpec
from fcbuild.store import Artifact, Store
from tests.boot.test_boot import DEBIAN
from tests.workspace import ROOT, STORE, Workspace

pytestmark = pytest.mark.boot

PLAN = Plan(spec.load(ROOT))
KERNELS = [
    name
    for name, kernel in PLAN.specs.kernels.items()
    if isinstance(kernel, KernelSpec) and kernel.arch == X86_64 and name != KVM_HOST
]

# /proc/config.gz is what the running kernel was configured with.
TELL = DEBIAN + 'CMD ["sh", "-c", "echo config $(zcat /proc/config.gz | sha256sum)"]\n'


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Artifact:
    """A kernel that is built: `doit test` sees to it, and here it would take too long."""
    name = str(request.param)
    if artifact := Store(STORE).find(PLAN.kernel(name)):
        return artifact
    pytest.skip(f"not built: doit kernel:{name}")


def booted(checkout: Workspace, kernel: Artifact, image: str) -> Any:
    """Boot an image with a kernel; return the receipt."""
    result = checkout.doit("boot", f"image={image}")
    assert result.status == 0, result.output
    receipt = checkout.receipt(image)
    assert receipt["kernel"]["name"] == kernel.name
    assert receipt["kernel"]["fingerprint"] == kernel.fingerprint
    return receipt


def test_a_kernel_boots_to_the_programs_end(checkout: Workspace, kernel: Artifact) -> None:
    toml = checkout.root / "images" / "hello" / "image.toml"
    text, quoted = toml.read_text(), json.dumps(kernel.name)
    assert 'kernel = "6.12"\n' in text
    toml.write_text(text.replace('kernel = "6.12"', f"kernel = {quoted}"))
    receipt = booted(checkout, kernel, "hello")
    assert [event["event"] for event in receipt["events"]] == [
        *("init", "mounted", "exec", "exit", "end")
    ]
    assert receipt["exit"] == {"code": 0, "signal": 0, "reason": "exited"}
    assert receipt["checks"][0]["detail"] == "found: Hello from a microVM"


def test_the_running_kernel_is_configured_as_it_was_built(
    checkout: Workspace, kernel: Artifact
) -> None:
    """To the byte: the text that IKCONFIG keeps is .config itself."""
    config = kconfig.options(Path(kernel.file("config")).read_text())
    if config.get("IKCONFIG_PROC") != "y":
        pytest.skip(f"{kernel.name} does not tell its configuration (IKCONFIG_PROC)")
    toml = f"kernel = {json.dumps(kernel.name)}\n[[check]]\nlog = '^config '\n"
    checkout.image("tells", f"{toml}[boot]\nexpect_exit = 0\n", TELL)
    receipt = booted(checkout, kernel, "tells")
    assert receipt["checks"][0]["detail"] == f"found: config {kernel.digests['config']} -"
