"""What builds make, and what they say when they cannot, with the real engine."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from fcbuild.ext4 import form
from tests import workspace
from tests.workspace import STORE, Workspace

pytestmark = pytest.mark.engine


def test_a_second_build_builds_nothing_even_without_doits_database(checkout: Workspace) -> None:
    assert checkout.doit("build", "image=hello").status == 0
    (checkout.root / "artifacts" / ".doit.sqlite").unlink()
    result = checkout.doit("build", "image=hello")
    assert result.status == 0
    assert "built" not in result.output and "stored   rootfs:hello" in result.output


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
    assert "images/nobody/Dockerfile:2: USER nosuch: no user 'nosuch'" in result.output


def refused(checkout: Workspace, name: str, dockerfile: str, toml: str = "", **files: str) -> str:
    checkout.image(name, toml, dockerfile, **files)
    result = checkout.doit("build", f"image={name}")
    assert result.status == 1
    assert "Traceback" not in result.output
    return result.output


def test_a_program_that_cannot_start_is_refused_at_build_time(checkout: Workspace) -> None:
    # The loader that Debian's own programs need, and a header for another processor.
    dockerfile = (
        "FROM fcbuild/debian-base AS debian\nFROM scratch\nCOPY --from=debian /bin/ls /ls\n"
    )
    assert (
        "images/lost/Dockerfile:4: /ls: interpreter /lib64/ld-linux-x86-64.so.2 not found in the "
        "image" in refused(checkout, "lost", dockerfile + 'CMD ["/ls"]\n')
    )
    foreign = "RUN cp /bin/ls /ls && printf '\\267' | dd of=/ls bs=1 seek=18 conv=notrunc\n"
    assert "/ls: built for aarch64, the image's platform is x86_64" in refused(
        checkout, "foreign", "FROM fcbuild/debian-base\n" + foreign + 'CMD ["/ls"]\n'
    )
    assert "images/bare/image.toml: init: /sbin/init: not found in the image" in refused(
        checkout, "bare", "FROM fcbuild/debian-base\n", 'init = "/sbin/init"\n'
    )


def test_a_health_check_is_carried_and_one_that_cannot_start_is_told(checkout: Workspace) -> None:
    checkout.image(
        "healthy",
        "",
        'FROM fcbuild/debian-base\nCMD ["true"]\n'
        "HEALTHCHECK --interval=7s --retries=2 CMD nosuch -x\n",
    )
    checkout.image(
        "labelled",
        "[rootfs]\nreadonly = true\n",
        'FROM scratch\nCOPY note /\nVOLUME /data\nCMD ["/data/program"]\n'
        """LABEL fcbuild.healthcheck='{"Test": ["CMD", "nosuch"], "Interval": "1m"}'\n""",
        note=str(uuid.uuid4()),  # a stored root filesystem has been warned of
    )
    result = checkout.doit("build", "image=healthy,labelled")
    assert result.status == 0, result.output
    assert "images/labelled/Dockerfile: nosuch: not found in the image's PATH" in result.output
    records = [b"\nhealth 7\n/bin/sh\nhealth 2\n-c\nhealth 9\nnosuch -x\n", b"ms 4\n7000\n"]
    volume = b"\nroot 9\nread-only\nwritable 5\n/data\n"
    for name, expected in (
        ("healthy", [*records, b"health-retries 1\n2\n"]),
        ("labelled", [b"\nhealth 6\nnosuch\nhealth-interval-ms 5\n60000\n", volume]),
    ):
        rootfs = (checkout.root / "artifacts" / "images" / f"{name}.ext4").resolve()
        # The boot config is small and lies in one piece.
        (document,) = re.findall(rb"fcbuild-boot 2\n.*?\nend 0\n\n", rootfs.read_bytes(), re.DOTALL)
        assert all(part in document for part in expected), document
        facts = json.loads((rootfs.parent / "manifest.json").read_bytes())["facts"]
        assert facts["health"] is True


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


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_interrupted_build_leaves_no_container_and_no_stage(
    checkout: Workspace, tmp_path: Path, workers: str
) -> None:
    fragment = checkout.root / "kernels" / "fragments" / "net.config"
    fragment.write_text(fragment.read_text() + "# so that it is built anew\n")
    checkout.image("slow", "", "FROM fcbuild/debian-base\nRUN sleep 120\n")
    own = workspace.alone(checkout, tmp_path / "store")
    build = ["run", "-n", workers, "kernel:6.12", "rootfs:slow"]
    with own.interrupt(*build, after="kernel:6.12: unpack", number=signal.SIGINT):
        assert workspace.containers(own.store)
        assert list((own.store / "stage").iterdir())
    assert not workspace.containers(own.store)
    assert not list((own.store / "stage").iterdir())


def test_interrupted_packings_of_several_images_leave_nothing(
    checkout: Workspace, tmp_path: Path
) -> None:
    names = ["one", "two", "three"]
    for name in names:
        fill = "RUN mkdir /many && seq 1 20000 | (cd /many && xargs touch)"
        checkout.image(name, "", f"FROM fcbuild/debian-base\n{fill} && echo {uuid.uuid4()}\n")
    own = workspace.alone(checkout, tmp_path / "store")
    build = ["run", "-n", "3", *(f"rootfs:{name}" for name in names)]
    with own.interrupt(*build, after="rootfs:two: packing", number=signal.SIGINT, seconds=0.5):
        assert list((own.store / "stage").iterdir())
    assert not workspace.containers(own.store)
    assert not list((own.store / "stage").iterdir())
    assert not list((own.store / "objects" / "rootfs").glob("*/.*"))


def test_plan_shows_every_artifact_without_an_engine(checkout: Workspace, tmp_path: Path) -> None:
    result = checkout.doit("plan", env={"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert result.status == 0
    for name in ("base:toolchain", "kernel:6.12", "rootfs:hello", "init:guest"):
        assert re.search(
            rf"^{re.escape(name)} +[0-9a-f]{{12}}  (linked|stored|to build)", result.output, re.M
        )


def test_the_registry_is_looked_for_before_it_is_missed() -> None:
    assert workspace.registry_trouble("localhost:1/no/such:image")


def test_a_changed_line_changes_its_own_block_and_no_other(checkout: Workspace) -> None:
    mark = str(uuid.uuid4())
    checkout.image(
        "drifts",
        '[rootfs]\noverlay = "16MiB"\n',
        'FROM fcbuild/debian-base\nCOPY note /srv/note\nCMD ["true"]\n',
        note=f"{mark} a\n",
    )
    made = []
    for line in (f"{mark} a\n", f"{mark} b\n"):
        (checkout.root / "images/drifts/note").write_text(line)
        result = checkout.doit("build", "image=drifts")
        assert result.status == 0, result.output
        made.append((checkout.root / "artifacts/images/drifts.ext4").resolve().parent)
    before, after = made
    assert before != after
    one, two = (path / "rootfs.ext4" for path in made)
    assert one.stat().st_size == two.stat().st_size
    changed = []
    with one.open("rb") as ours, two.open("rb") as theirs:
        for block in range(one.stat().st_size // form.BLOCK):
            data = ours.read(form.BLOCK)
            if data != theirs.read(form.BLOCK):
                changed.append(block)
                assert mark.encode() in data
    assert len(changed) == 1
    assert (before / "overlay.ext4").read_bytes() == (after / "overlay.ext4").read_bytes()
