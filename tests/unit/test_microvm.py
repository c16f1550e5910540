"""What an image, an instance and a host make: drives, network, metadata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcbuild import instance as instances
from fcbuild import microvm, spec
from fcbuild.errors import SpecError, ToolMissing
from fcbuild.instance import Instance
from fcbuild.microvm import assemble, choose_tap, metadata
from fcbuild.spec import ImageSpec
from fcbuild.store import Artifact
from fcbuild.vmm import tap
from fcbuild.vmm.emulated import EmulatedHost
from fcbuild.vmm.native import NativeHost
from fcbuild.vmm.virt import Virt

NATIVE = NativeHost()
VIRT = Virt(Path("qemu"), "7.2")
EMULATED = EmulatedHost(Path("qemu"), Path("vmlinux"), Path("agent"))

PLAIN = ""
NETWORK = "[network]\naddress = '10.0.0.2/24'\n"
MMDS = "[mmds]\na = 1\n"
TAP = "[network]\ntap = 'tap7'\n"


@pytest.fixture
def image(checkout: Path) -> Callable[[str], ImageSpec]:
    def image(toml: str) -> ImageSpec:
        (checkout / "images/tool/image.toml").write_text(toml)
        return spec.load(checkout).images["tool"]

    return image


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str | None], Instance | None]:
    def own(toml: str | None) -> Instance | None:
        if toml is None:
            return None
        (tmp_path / "own.toml").write_text(toml)
        return instances.load(tmp_path / "own.toml")

    return own


@pytest.fixture
def interfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's network interfaces: tap7 is a TAP device, eth0 and tun0 are none."""
    for name, flags in {"tap7": "0x1002", "tun0": "0x1001", "odd": "x", "eth0": None}.items():
        (tmp_path / "net" / name).mkdir(parents=True)
        if flags:
            (tmp_path / "net" / name / "tun_flags").write_text(f"{flags}\n")
    check = tap.check
    monkeypatch.setattr(tap, "check", lambda name: check(name, tmp_path / "net"))
    return tmp_path / "net"


@pytest.mark.parametrize(
    ("toml", "instance", "emulated", "native"),
    [
        (PLAIN, None, None, None),
        (PLAIN, PLAIN, None, None),
        (NETWORK, None, "fcbuild0", None),
        (PLAIN, NETWORK, "fcbuild0", None),
        (PLAIN, TAP, "tap7", "tap7"),
        (NETWORK, TAP, "tap7", "tap7"),
        (PLAIN, TAP + MMDS, "tap7", "tap7"),
        (PLAIN, MMDS, "fcbuild0", SpecError),
        (PLAIN, "[network]\nmmds = true\n", "fcbuild0", None),
    ],
)
def test_the_tap_of_a_microvm(
    image: Any,
    own: Any,
    interfaces: Path,
    toml: str,
    instance: str | None,
    emulated: str | None,
    native: Any,
) -> None:
    assert choose_tap(image(toml), own(instance), EMULATED) == emulated
    if native is SpecError:
        with pytest.raises(SpecError, match="mmds: the metadata service needs") as caught:
            choose_tap(image(toml), own(instance), NATIVE)
        assert "tap = " in str(caught.value.hint)
    else:
        assert choose_tap(image(toml), own(instance), NATIVE) == native


def test_a_network_without_a_tap_is_told_in_one_line(
    image: Any, own: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    choose_tap(image(NETWORK), None, NATIVE)
    said = capsys.readouterr().err
    assert said == "tool has a network, but no instance names a tap: it boots without\n"
    choose_tap(image(PLAIN), None, NATIVE)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["eth0", "tun0", "odd", "none"])
def test_a_device_that_is_no_tap_is_named(interfaces: Path, name: str) -> None:
    with pytest.raises(ToolMissing, match=f"{name} is no TAP device") as caught:
        tap.check(name)
    assert f"ip tuntap add dev {name} mode tap user $USER" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("toml", "instance", "expected"),
    [
        (PLAIN, None, None),
        (PLAIN, PLAIN, None),
        (PLAIN, MMDS, {"a": 1}),
        (PLAIN, "[mmds]\n", {}),
        ("[network]\nmmds = true\n", None, {}),
        (PLAIN, "[network]\nmmds = true\n", {}),
    ],
)
def test_a_guest_that_is_routed_to_the_metadata_service_finds_one(
    image: Any, own: Any, toml: str, instance: str | None, expected: Any
) -> None:
    assert metadata(image(toml), own(instance)) == expected


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    for name in ("vmlinux", "rootfs.ext4", "overlay.ext4"):
        (tmp_path / name).write_bytes(name.encode())
    return Artifact("x", "tool", "f" * 64, tmp_path, {}, {"users": {"web": [33, 34, "/var"]}})


def test_everything_comes_together(
    image: Any, own: Any, artifact: Artifact, short_dir: Path
) -> None:
    toml = "[rootfs]\noverlay = '16MiB'\n[machine]\nvcpus = 2\nmemory = '64MiB'\n"
    toml += "[boot]\nkernel_arguments = ['quota=1']\n"
    instance = own(
        "kernel_arguments = ['fcbuild.mtu=1400']\n[network]\ntap = 'tap7'\n"
        "mac = '02:00:00:00:00:01'\n[mmds]\na = 1\n[authorized_keys]\nweb = ['ssh-rsa A']\n"
    )
    vm = assemble(
        image(toml),
        kernel=artifact,
        rootfs=artifact,
        place=EMULATED,
        run_dir=short_dir,
        instance=instance,
    )
    assert (vm.vcpus, vm.memory_mib, vm.tap, vm.mac) == (2, 64, "tap7", "02:00:00:00:00:01")
    assert vm.arguments == ("quota=1", "fcbuild.mtu=1400")
    assert vm.metadata == {"a": 1}
    assert vm.shared and vm.rootfs == artifact.file("rootfs.ext4")
    assert vm.overlay == short_dir / "overlay.ext4"
    assert vm.overlay.read_bytes() == b"overlay.ext4"
    assert vm.config is not None and vm.config.stat().st_mode & 0o777 == 0o600
    assert b"file 36\n0600 33 34 /var/.ssh/authorized_keys" in vm.config.read_bytes()
    microvm.remove_drives(vm, short_dir)
    assert not list(short_dir.iterdir())
    assert artifact.file("rootfs.ext4").exists()


def test_a_root_that_is_written_to_is_a_private_copy(
    image: Any, artifact: Artifact, short_dir: Path
) -> None:
    vm = assemble(image(""), kernel=artifact, rootfs=artifact, place=NATIVE, run_dir=short_dir)
    assert vm.rootfs == short_dir / "rootfs.ext4" and not vm.shared
    assert vm.overlay is None and vm.config is None


def test_a_copy_is_sparse_and_leaves_the_source_alone(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    with source.open("wb") as file:
        file.truncate(8 << 20)
        file.write(b"head")
    source.chmod(0o444)
    assert microvm.copy_disk(source, copy) == copy
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stat().st_blocks * 512 < 1 << 20
    copy.write_bytes(b"changed")
    assert source.stat().st_size == 8 << 20


def test_qemu_has_no_metadata_service_and_makes_no_tap(image: Any, own: Any) -> None:
    with pytest.raises(SpecError, match="mmds: the metadata service is Firecracker's"):
        choose_tap(image(PLAIN), own(MMDS), VIRT)
    assert choose_tap(image(NETWORK), None, VIRT) is None


def test_a_kernel_for_64_bit_arm_is_an_image(
    image: Any, artifact: Artifact, tmp_path: Path, short_dir: Path
) -> None:
    (tmp_path / "Image").touch()
    spec = image(PLAIN)._replace(arch="aarch64")
    vm = assemble(spec, kernel=artifact, rootfs=artifact, place=VIRT, run_dir=short_dir)
    assert vm.kernel == tmp_path / "Image"
