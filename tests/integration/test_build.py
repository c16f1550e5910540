"""What builds make, and what they say when they cannot, with the real engine."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from fcbuild.fingerprint import digest
from tests import workspace
from tests.workspace import STORE, Workspace

pytestmark = pytest.mark.engine

PLANTED = """
FROM fcbuild/debian-base
RUN mkdir /planted && cd /planted \\
 && echo content > plain && chown 1234:4321 plain && chmod 4751 plain \\
 && ln plain hard && ln -s plain soft && ln -s /nowhere/at/all dangling \\
 && mkdir empty && chmod 1777 empty \\
 && mknod device c 10 200 && mkfifo pipe \\
 && echo x > 'name with ü' && truncate -s 64M sparse
RUN cp /bin/true /planted/capable && apt-get update \\
 && apt-get install -y --no-install-recommends libcap2-bin \\
 && setcap cap_net_bind_service+ep /planted/capable
CMD ["true"]
"""


def inspect(checkout: Workspace, rootfs: Path, *commands: str) -> str:
    """Run debugfs commands on an image, in the toolchain: a reader that needs no mount."""
    tags = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", "fcbuild/toolchain"],
        check=True,
        capture_output=True,
        text=True,
    )
    requests = [word for command in commands for word in ("-R", command)][:2]
    return subprocess.run(
        [
            *("docker", "run", "--rm", "--network=none", "-v", f"{rootfs}:/rootfs:ro"),
            *(tags.stdout.split()[0], "debugfs", *requests, "/rootfs"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_everything_in_the_image_arrives(checkout: Workspace) -> None:
    checkout.image("planted", '[rootfs]\nfree = "8MiB"\n', PLANTED)
    result = checkout.doit("rootfs:planted")
    assert result.status == 0, result.output
    rootfs = (checkout.root / "artifacts" / "images" / "planted.ext4").resolve()

    def stat(path: str) -> str:
        return inspect(checkout, rootfs, f"stat /planted/{path}")

    plain = stat("plain")
    assert re.search(r"Mode: +04751", plain) and re.search(r"User: +1234 +Group: +4321", plain)
    assert re.search(r"Links: 2", plain)
    inode = re.search(r"Inode: (\d+)", plain)
    assert inode and f"Inode: {inode[1]} " in stat("hard")
    assert 'Fast link dest: "plain"' in stat("soft")
    assert 'Fast link dest: "/nowhere/at/all"' in stat("dangling")
    assert re.search(r"Mode: +01777", stat("empty"))
    assert "Type: character special" in stat("device") and "10:200" in stat("device")
    assert "Type: FIFO" in stat("pipe")
    assert r"name with \xc3\xbc" in inspect(checkout, rootfs, "ls /planted")  # debugfs's ü
    assert "security.capability" in stat("capable")
    assert re.search(r"User: +0 +Group: +0", inspect(checkout, rootfs, "stat /.fcbuild/boot"))

    header = inspect(checkout, rootfs, "stats -h")
    free = re.search(r"Free blocks: +(\d+)", header)
    assert free and int(free[1]) * 4096 >= 8 << 20
    assert re.search(r"Block size: +4096", header)


def test_a_second_build_builds_nothing_even_without_doits_database(checkout: Workspace) -> None:
    assert checkout.doit("build", "image=hello").status == 0
    (checkout.root / "artifacts" / ".doit.sqlite").unlink()
    result = checkout.doit("build", "image=hello")
    assert result.status == 0
    assert "built" not in result.output and "stored   rootfs:hello" in result.output


def test_two_stores_make_the_same_bytes_of_one_container_image(
    checkout: Workspace, tmp_path: Path
) -> None:
    # The engine's image is built first; it is packing that must not add anything of its own.
    assert checkout.doit("_image:hello").status == 0
    digests = []
    for name in ("one", "two"):
        store = tmp_path / name
        (store / "objects").mkdir(parents=True)
        (store / "objects" / "base").symlink_to(STORE.resolve() / "objects" / "base")
        result = checkout.doit("rootfs:hello", env={"FCBUILD_STORE": str(store)})
        assert result.status == 0, result.output
        made = (checkout.root / "artifacts" / "images" / "hello.ext4").resolve()
        assert made.is_relative_to(store.resolve())
        digests.append(digest(made))
    assert digests[0] == digests[1]


def test_a_dockerfile_that_fails_shows_the_engines_words_and_the_log(checkout: Workspace) -> None:
    checkout.image("broken", "", "FROM fcbuild/debian-base\nRUN echo so far && false\n")
    result = checkout.doit("build", "image=broken")
    assert result.status == 1
    assert "Traceback" not in result.output
    assert "building images/broken/Dockerfile failed with status 1" in result.output
    assert re.search(r"\| .*so far", result.output)
    log = re.search(r"whole log: (\S+)", result.output)
    assert log and "so far" in Path(log[1]).read_text()


def test_an_image_that_says_nothing_to_run_is_refused(checkout: Workspace) -> None:
    checkout.image("mute", "", "FROM scratch\nCOPY a /\n", a="")
    result = checkout.doit("build", "image=mute")
    assert result.status == 1
    assert "the image has neither ENTRYPOINT nor CMD" in result.output


def test_an_unknown_user_is_refused_at_build_time(checkout: Workspace) -> None:
    checkout.image("nobody", "", 'FROM fcbuild/debian-base\nUSER nosuch\nCMD ["true"]\n')
    result = checkout.doit("build", "image=nobody")
    assert result.status == 1
    assert "USER nosuch: no user 'nosuch' in the image's /etc/passwd" in result.output


def test_an_image_can_stand_on_another(checkout: Workspace) -> None:
    checkout.image("lower", "", 'FROM fcbuild/debian-base\nRUN touch /below\nCMD ["true"]\n')
    checkout.image("upper", "", "FROM fcbuild/lower\nRUN test -e /below\n")
    result = checkout.doit("build", "image=upper")
    assert result.status == 0, result.output


def test_a_base_that_no_registry_has_is_named(checkout: Workspace) -> None:
    checkout.image("far", "", 'FROM localhost:1/no/such:image\nCMD ["true"]\n')
    result = checkout.doit("build", "image=far")
    assert result.status == 1
    assert "base image localhost:1/no/such:image" in result.output
    assert "no registry answers" in result.output
    # Where nobody asked for it, it is left out and said so.
    for name in ("alpine-web", "debian-web"):
        subprocess.run(["rm", "-r", str(checkout.root / "images" / name)], check=True)
    everything = checkout.doit("build")
    assert everything.status == 0, everything.output
    assert re.search(r"^skipped +rootfs:far +no registry answers", everything.output, re.MULTILINE)


def test_a_kernel_source_with_other_bytes_is_refused(checkout: Workspace) -> None:
    toml = checkout.root / "kernels" / "6.12" / "kernel.toml"
    text = toml.read_text()
    pinned = re.findall(r'^sha256 = "(\w+)"', text, re.MULTILINE)
    for number, sha256 in enumerate(pinned):
        text = text.replace(sha256, f"{number:064x}")
    toml.write_text(text)
    result = checkout.doit("kernel:6.12")
    assert result.status == 1
    assert f"hash mismatch: expected sha256 {0:064x}, got {pinned[0]}" in result.output or (
        "downloading package" in result.output  # the archive cannot be reached
    )
    assert not (STORE / "downloads" / f"{0:064x}").exists()


def test_a_dropped_kernel_option_is_named(checkout: Workspace) -> None:
    fragment = checkout.root / "kernels" / "fragments" / "net.config"
    fragment.write_text(fragment.read_text() + "CONFIG_NO_SUCH_OPTION=y\n")
    result = checkout.doit("kernel:6.12")
    assert result.status == 1
    number = len(fragment.read_text().splitlines())
    assert f"net.config:{number}: CONFIG_NO_SUCH_OPTION=y" in result.output
    assert "Traceback" not in result.output


def test_an_interrupted_build_leaves_no_container_and_no_stage(checkout: Workspace) -> None:
    fragment = checkout.root / "kernels" / "fragments" / "net.config"
    fragment.write_text(fragment.read_text() + "# so that it is built anew\n")
    before = containers()
    stages = set((STORE / "stage").iterdir())
    with checkout.interrupt("kernel:6.12", after="kernel:6.12: unpack", number=signal.SIGINT):
        assert containers() - before
    assert containers() <= before
    assert set((STORE / "stage").iterdir()) <= stages


def containers() -> set[str]:
    listed = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", "label=fcbuild"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(listed.stdout.split())


def test_plan_shows_every_artifact_without_an_engine(checkout: Workspace, tmp_path: Path) -> None:
    result = checkout.doit("plan", env={"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert result.status == 0
    for name in ("base:toolchain", "kernel:6.12", "rootfs:hello", "init:guest"):
        assert re.search(
            rf"^{re.escape(name)} +[0-9a-f]{{12}}  (stored|to build)", result.output, re.M
        )


def test_the_registry_is_looked_for_before_it_is_missed() -> None:
    assert workspace.registry_trouble("localhost:1/no/such:image")
