"""What an image is for somebody who has no fcbuild: its files, and the script among them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcbuild import spec
from fcbuild.errors import VmmError
from fcbuild.publish import bundle
from fcbuild.publish.bundle import Bundle
from fcbuild.recipes import OVERLAY_FILE, ROOTFS_FILE
from fcbuild.spec import ImageSpec
from tests.unit.test_document import FACTS, FULL, artifact

Load = Callable[[str], ImageSpec]

# Words of the command line that a shell would take for its own.
ODD = 'x="a$run\'b`c\\\\d *?~"'


@pytest.fixture
def load(checkout: Path) -> Load:
    def load(toml: str) -> ImageSpec:
        (checkout / "images/tool/image.toml").write_text(toml)
        return spec.load(checkout).images["tool"]

    return load


def made(image: ImageSpec) -> Bundle:
    kernel = artifact("kernel", "6.12", None, "config", "vmlinux", "Image")
    return bundle.of(image, kernel, artifact("rootfs", "tool", FACTS, OVERLAY_FILE, ROOTFS_FILE))


def content(found: Bundle, title: str) -> bytes:
    (file,) = (file for file in found.files if file.title == title)
    assert isinstance(file.source, bytes)
    return file.source


def test_its_files_and_what_is_known_of_them(load: Load) -> None:
    found = made(load(""))
    assert [(file.title, file.media_type, file.mode) for file in found.files] == [
        ("vmlinux", "application/vnd.fcbuild.kernel.v1", 0o644),
        ("rootfs.ext4", "application/vnd.fcbuild.disk.ext4.v1", 0o644),
        ("vm.json", "application/vnd.fcbuild.vm.v1+json", 0o644),
        ("boot.sh", "application/vnd.fcbuild.script.v1", 0o755),
        ("fcbuild.json", "application/vnd.fcbuild.microvm.config.v1+json", 0o644),
    ]
    kernel, rootfs, *texts = found.files
    assert kernel.source == Path("/store/kernel/vmlinux") and kernel.digest == "b" * 64
    assert rootfs.source == Path("/store/rootfs/rootfs.ext4") and rootfs.size == 4096
    for file in texts:
        assert isinstance(file.source, bytes)
        assert file.digest == hashlib.sha256(file.source).hexdigest()
        assert file.size == len(file.source)
    assert found.document == content(found, "fcbuild.json")


def test_the_same_image_gives_the_same_bytes_and_another_others(load: Load) -> None:
    assert made(load(FULL)) == made(load(FULL))
    assert made(load(FULL)) != made(load(FULL.replace("1400", "1401")))


def test_a_drive_of_its_own_travels_too(load: Load) -> None:
    found = made(load('[rootfs]\noverlay = "64MiB"\n'))
    assert [file.title for file in found.files][:3] == ["vmlinux", "rootfs.ext4", "overlay.ext4"]
    drives = json.loads(content(found, "vm.json"))["drives"]
    assert [(drive["path_on_host"], drive["is_read_only"]) for drive in drives] == [
        ("rootfs.ext4", True),
        ("overlay.ext4", False),
    ]


def test_the_configuration_names_files_beside_it(load: Load) -> None:
    toml = '[machine]\nvcpus = 3\nmemory = "64MiB"\n[boot]\nkernel_arguments = ["hugepages=8"]\n'
    config = json.loads(content(made(load(toml)), "vm.json"))
    assert config.keys() == {"boot-source", "machine-config", "drives", "vsock", "entropy"}
    assert config["machine-config"] == {"vcpu_count": 3, "mem_size_mib": 64}
    assert config["boot-source"]["kernel_image_path"] == "vmlinux"
    assert config["boot-source"]["boot_args"].startswith("reboot=k panic=-1 quiet ")
    assert config["boot-source"]["boot_args"].endswith(" init=/.fcbuild/init hugepages=8")
    assert config["vsock"]["uds_path"] == "v.sock"


def test_on_64_bit_arm_the_kernel_has_another_name_and_command_line(load: Load) -> None:
    image = load("")._replace(arch="aarch64")
    found = made(image)
    assert (found.arch, found.files[0].title) == ("aarch64", "Image")
    source = json.loads(content(found, "vm.json"))["boot-source"]
    assert source["kernel_image_path"] == "Image"
    assert "i8042" not in source["boot_args"] and "console=ttyS0" in source["boot_args"]
    # Ctrl-Alt-Del is a PC's.
    assert b"SendCtrlAltDel" not in content(found, "boot.sh")


def test_a_command_line_that_does_not_fit_is_refused(load: Load) -> None:
    with pytest.raises(VmmError, match="2047 are allowed"):
        made(load(f'[boot]\nkernel_arguments = ["x={"y" * 2000}"]\n'))


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A directory of an image's files, and beside it stand-ins for curl and Firecracker, which
    write what they are told to calls."""
    tools, at = tmp_path / "tools", tmp_path / "an image's $files"
    tools.mkdir()
    at.mkdir()
    record = f"""for word; do printf '%s\\0' "$word"; done >> {tmp_path}/calls; printf '\\1' """
    record += f">> {tmp_path}/calls\n"
    (tools / "curl").write_text(f"#!/bin/sh\n{record}")
    # As long as the calls take.
    ends = f"until grep -q InstanceStart {tmp_path}/calls 2>/dev/null; do sleep 0.01; done\n"
    (tools / "firecracker").write_text(f"#!/bin/sh\n{ends}echo console\nexit 7\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    for name in ("vmlinux", "rootfs.ext4", "overlay.ext4"):
        (at / name).write_text(name)
        (at / name).chmod(0o444)
    return at


def run(
    stage: Path, script: str | bytes, **env: str
) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Run a boot.sh in the stage; return how it ended, and the calls as (path, body)."""
    path = stage / "boot.sh"
    path.write_bytes(script.encode() if isinstance(script, str) else script)
    path.chmod(0o755)
    done = subprocess.run(
        [str(path)],
        cwd=stage.parent,
        env={**os.environ, "PATH": f"{stage.parent}/tools:{os.environ['PATH']}", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    log = stage.parent / "calls"
    calls = (
        [call.split("\0")[:-1] for call in log.read_text().split("\1")[:-1]] if log.exists() else []
    )
    told = [call for call in calls if "-d" in call]
    return done, [(call[call.index("PUT") + 1], json.loads(call[-1])) for call in told]


def test_the_script_calls_what_the_launcher_would(load: Load, stage: Path) -> None:
    quoted = json.dumps(ODD)
    image = load(f"[boot]\nkernel_arguments = [{quoted}]\n")
    done, calls = run(stage, content(made(image), "boot.sh"))
    assert (done.returncode, done.stdout) == (7, "console\n"), done.stderr
    run_dir = done.stderr.split(" are in ")[1].strip()
    assert [path.removeprefix("http://localhost") for path, _ in calls] == [
        *("/machine-config", "/boot-source", "/drives/rootfs", "/vsock", "/entropy", "/actions")
    ]
    bodies = dict(calls)
    source = bodies["http://localhost/boot-source"]
    assert source["kernel_image_path"] == f"{stage}/vmlinux"
    assert source["boot_args"].endswith(f" {ODD}")
    # The guest writes to a copy.
    assert bodies["http://localhost/drives/rootfs"]["path_on_host"] == f"{run_dir}/rootfs.ext4"
    assert bodies["http://localhost/vsock"]["uds_path"] == f"{run_dir}/v.sock"
    assert not Path(run_dir).exists()
    config = json.loads(content(made(image), "vm.json"))
    assert source["boot_args"] == config["boot-source"]["boot_args"]


def test_a_root_that_is_only_read_is_not_copied(load: Load, stage: Path) -> None:
    image = load('[rootfs]\noverlay = "64MiB"\n')
    done, calls = run(stage, content(made(image), "boot.sh"))
    run_dir = done.stderr.split(" are in ")[1].strip()
    paths = {path.rpartition("/")[2]: body.get("path_on_host") for path, body in calls}
    assert paths["rootfs"] == f"{stage}/rootfs.ext4"
    assert paths["overlay"] == f"{run_dir}/overlay.ext4"


@pytest.mark.parametrize(("network", "more"), [("", []), ("mmds = true", ["config", "mmds"])])
def test_a_tap_device_becomes_the_guests_interface(
    load: Load, stage: Path, network: str, more: list[str]
) -> None:
    script = content(made(load(f"[network]\n{network}\n")), "boot.sh")
    _, calls = run(stage, script, TAP="tap7")
    bodies = {path.rpartition("/")[2]: body for path, body in calls}
    assert bodies["eth0"] == {"iface_id": "eth0", "host_dev_name": "tap7"}
    assert [name for name in bodies if name in ("config", "mmds")] == more
    assert list(bodies)[-1] == "actions"


def test_the_script_serves_files_that_stay_where_they_are(load: Load, stage: Path) -> None:
    files = {"kernel": stage / "vmlinux", "rootfs": stage / "rootfs.ext4"}
    script = bundle.boot_script(load(""), files)
    assert "$here" not in script
    _, calls = run(stage.parent / "tools", script)
    assert dict(calls)["http://localhost/boot-source"]["kernel_image_path"] == f"{stage}/vmlinux"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda stage: (stage / "rootfs.ext4").unlink(), "rootfs.ext4 is not there"),
        (lambda stage: (stage.parent / "tools/firecracker").unlink(), "firecracker: not found"),
        (
            lambda stage: (stage.parent / "tools/curl").write_text("#!/bin/sh\nexit 7\n"),
            "boot.sh: Firecracker did not start",
        ),
        (
            lambda stage: (stage.parent / "tools/curl").write_text(
                '#!/bin/sh\ncase "$*" in *version*) ;; *) echo fault; exit 22 ;; esac\n'
            ),
            "",
        ),
    ],
    ids=["a file", "Firecracker", "its end", "a refusal"],
)
def test_what_is_missing_ends_the_script_and_leaves_nothing(
    load: Load, stage: Path, damage: Callable[[Path], None], said: str
) -> None:
    script = content(made(load("")), "boot.sh")
    damage(stage)
    if (stage.parent / "tools/firecracker").exists():
        fails = "exit 1" if "did not start" in said else "exec sleep 60"
        (stage.parent / "tools/firecracker").write_text(f"#!/bin/sh\n{fails}\n")
    scratch = stage.parent / "scratch"
    scratch.mkdir()
    done, _ = run(stage, script, TMPDIR=str(scratch), PATH=f"{stage.parent}/tools:/usr/bin:/bin")
    assert done.returncode not in (0, 7) and said in done.stderr, done
    assert not [*scratch.iterdir()]


def test_a_directory_that_json_could_not_name_is_refused(load: Load, stage: Path) -> None:
    odd = stage.rename(stage.with_name('an "image"'))
    done, calls = run(odd, content(made(load("")), "boot.sh"))
    assert done.returncode == 1 and "a quote or a backslash" in done.stderr
    assert not calls


@pytest.mark.parametrize("toml", ["", FULL])
def test_the_script_is_clean(load: Load, stage: Path, toml: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    path = stage / "boot.sh"
    path.write_bytes(content(made(load(toml)), "boot.sh"))
    # What the kernel's words have in them is not the shell's.
    done = subprocess.run(
        ["shellcheck", "--exclude=SC2016", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
