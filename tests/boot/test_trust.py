"""From a boot to evidence of it, and from that to a boot elsewhere that asks for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from fcbuild.plan import KVM_HOST
from tests import registry, workspace
from tests.unit.test_dsse import ED25519, SSH_PUBLIC, private_bytes
from tests.workspace import Workspace

pytestmark = pytest.mark.boot

POLICY = f"""
[signer.release]
key = "{SSH_PUBLIC.decode()}"
[[artifact]]
from = "%s/*"
images = ["%s"]
signers = ["release"]
evidence = ["boot", "provenance", "sbom"]
"""


def test_what_booted_here_is_trusted_and_boots_elsewhere(
    checkout: Workspace, tmp_path: Path, short_dir: Path
) -> None:
    checkout.image(
        "job", '[[check]]\nlog = "done"\n', 'FROM fcbuild/debian-base\nCMD echo "done"\n'
    )
    (checkout.root / "key").write_bytes(private_bytes(ED25519, PrivateFormat.OpenSSH))
    booted = checkout.doit("boot", "image=job")
    assert booted.status == 0, booted.output
    own = tmp_path / "registry"
    own.mkdir()
    with registry.serve(own) as running:
        to = running.reference("team/job:1")
        done = checkout.doit("publish", "image=job", f"to={to}", "key=key")
        assert done.status == 0, done.output

        (tmp_path / "elsewhere").mkdir()
        there = replace(workspace.make(tmp_path / "elsewhere"), scratch=short_dir)
        there = workspace.alone(there, tmp_path / "store", KVM_HOST)
        policy = there.root / "policy.toml"
        policy.write_text(POLICY % (running.host, "job"))
        again = there.doit("boot", f"from={to}")
        assert again.status == 0, again.output
        assert ": passes what is asked of it" in again.output
        assert "check     passed: " in again.output

        policy.write_text(POLICY % (running.host, "another"))
        refused = there.doit("boot", f"from={to}")
        assert refused.status == 1
        assert "is not trusted:" in refused.output and "booting" not in refused.output
