"""Whether KVM can run guests, on machines that are made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem, set_uid

from fcbuild.vmm import kvm

INTEL = "processor\t: 0\nflags\t\t: fpu vme vmx lm\n"


def uname(machine: str) -> os.uname_result:
    return os.uname_result(("Linux", "host", "6.12", "#1", machine))


@pytest.fixture(autouse=True)
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: uname("x86_64"))


def machine(fs: FakeFilesystem, cpuinfo: str) -> None:
    fs.create_file("/dev/kvm")
    fs.create_file("/proc/cpuinfo", contents=cpuinfo)


def trouble() -> str | None:
    return kvm.trouble(Path("/dev/kvm"), Path("/proc/cpuinfo"))


@pytest.mark.parametrize("flag", ["vmx", "svm"])
def test_a_processor_that_virtualizes_is_no_trouble(fs: FakeFilesystem, flag: str) -> None:
    machine(fs, INTEL.replace("vmx", flag))
    assert trouble() is None


@pytest.mark.parametrize(
    ("cpuinfo", "said"),
    [
        (INTEL.replace("vmx", "vmx_x"), "neither vmx nor svm"),
        (INTEL.replace(" vmx", ""), "neither vmx nor svm"),
        ("vmx flags\t\t: vmx\nflags: fpu\n", "neither vmx nor svm"),
        ("", "lists no processor flags"),
    ],
)
def test_a_device_without_the_processors_help_is_not_enough(
    fs: FakeFilesystem, cpuinfo: str, said: str
) -> None:
    machine(fs, cpuinfo)
    assert said in str(trouble())


def test_no_device(fs: FakeFilesystem) -> None:
    assert trouble() == "no /dev/kvm"


def test_a_device_that_is_not_ours(fs: FakeFilesystem) -> None:
    machine(fs, INTEL)
    Path("/dev/kvm").chmod(0)
    set_uid(1000)
    assert "not yours to open (group kvm)" in str(trouble())


def test_other_processors_have_no_such_flags(
    fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: uname("aarch64"))
    machine(fs, "")
    assert trouble() is None
