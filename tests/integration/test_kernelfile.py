"""Kernel files as compilers make them: those of this checkout that the store holds."""

from __future__ import annotations

import re

import pytest

from fcbuild import kernelfile, kernelneeds, spec
from fcbuild.plan import KVM_HOST, Plan
from fcbuild.series import KERNEL_FILE, KernelSpec
from fcbuild.store import Artifact, Store
from tests.workspace import ROOT, STORE

PLAN = Plan(spec.load(ROOT))


def held(name: str) -> Artifact:
    if artifact := Store(STORE).find(PLAN.kernel(name)):
        return artifact
    pytest.skip(f"kernel {name} is not built")


@pytest.mark.parametrize(
    "name", [name for name, kernel in PLAN.specs.kernels.items() if isinstance(kernel, KernelSpec)]
)
def test_a_kernel_tells_its_version_and_its_configuration(name: str) -> None:
    artifact, kernel = held(name), PLAN.specs.kernels[name]
    found = kernelfile.inspect(artifact.file(KERNEL_FILE[kernel.arch]))
    assert found.arch == kernel.arch
    assert found.version and re.match(r"\d+\.\d+\.\d+", found.version)
    # Byte for byte: no line feed more or less.
    assert found.config_sha256 == artifact.digests["config"]
    if name != KVM_HOST:
        lacking = kernelneeds.check(found, what=name, overlay=True, network=True)
        assert all(not item.need.needed for item in lacking)
