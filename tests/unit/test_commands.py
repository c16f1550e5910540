"""The commands as a user types them, where they need neither an engine nor a VM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import workspace
from tests.workspace import Workspace


@pytest.fixture
def checkout(tmp_path: Path) -> Workspace:
    return workspace.make(tmp_path)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace.make(tmp_path_factory.mktemp("checkout"))


def refused(checkout: Workspace, *args: str) -> str:
    result = checkout.doit(*args)
    assert result.status == 1, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("build", "image=debian-wbe"), "no image 'debian-wbe' (did you mean debian-web?)"),
        (("build", "imgae=hello"), "unknown variable imgae= (did you mean image?)"),
        (("boot", "kvm=emulate"), "kvm=emulate: expected native or emulated"),
        (("build", "image=hello,nosuch"), "no image 'nosuch'; known: alpine-web, arm-base"),
        (("boot", "image=debian-base"), "debian-base is a base for other images"),
        (("boot", "instance=none.toml"), "none.toml: cannot be read: No such file"),
        (("inspect", "reader=debug"), "expected guestfs or debugfs (did you mean debugfs?)"),
        (("inspect", "image=debian-base"), "debian-base is a base for other images"),
        (("inspect", "image=hello,debian-web"), "one image at a time"),
        (("config", "image=debian-base"), "debian-base is a base for other images"),
        (("curl", "image=debian-base"), "debian-base is a base for other images"),
        (("curl", "image=hello,debian-web"), "one image at a time, not hello, debian-web"),
        (("export", "image=hello", "to=x"), "needs format=dir|tar|oci-layout|containerdisk and"),
        (("export", "image=hello", "format=tar"), "needs format=dir|tar|"),
        (("export", "format=tra", "to=x"), "format=tra: no such format (did you mean tar?)"),
        (("diff", "a=hello"), "a=IMAGE b=IMAGE"),
        (("diff", "a=0000", "b=debian-wbe"), "no image '0000', and no root filesystem"),
        (
            ("boot", "image=h*,d*-web", "instance=x"),
            "instance=x is for one VM, not for hello, debian-web",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_answered_in_words(
    untouched: Workspace, args: tuple[str, ...], said: str
) -> None:
    assert said in refused(untouched, *args)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("images/hello/image.toml", "kernel = ", "images/hello/image.toml: not valid TOML"),
        ("images/hello/image.toml", "memroy = 1", "images/hello/image.toml: memroy: unknown key"),
        (
            "images/hello/image.toml",
            "[machine]\nvcpus = '2'",
            "images/hello/image.toml: machine.vcpus: expected a whole number from 1 to 32, got '2'",
        ),
        (
            "images/hello/Dockerfile",
            "FROM fcbuild/debian-bose\n",
            "images/hello/Dockerfile: fcbuild/debian-bose: no images/debian-bose"
            " (did you mean debian-base?)",
        ),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_place(
    checkout: Workspace, file: str, text: str, said: str
) -> None:
    (checkout.root / file).write_text(text)
    assert said in refused(checkout, "list")


def test_a_mistake_in_an_instance_document_is_named_before_anything_runs(
    checkout: Workspace,
) -> None:
    (checkout.root / "own.toml").write_text("hostnam = 'x'\n[env]\nTOKEN = 12345\n")
    output = refused(checkout, "boot", "image=hello", "instance=own.toml")
    assert "own.toml: hostnam: unknown key (did you mean hostname?)" in output
    assert "own.toml: env.TOKEN: expected a string, got another int" in output
    assert "12345" not in output


def test_list_shows_the_tasks_and_no_inner_ones(untouched: Workspace) -> None:
    result = untouched.doit("list")
    names = {line.split()[0] for line in result.output.splitlines()}
    assert {"build", "boot", "plan", "test", "lint"} <= names
    assert {"kernel:6.12", "rootfs:debian-web", "rootfs:alpine-web", "rootfs:hello"} <= names
    assert not [name for name in names if name.startswith("_")]


def test_without_an_engine_a_build_says_what_to_do(checkout: Workspace, tmp_path: Path) -> None:
    result = checkout.doit(
        "build",
        "image=hello",
        env={"DOCKER_HOST": f"unix://{tmp_path}/none.sock", "FCBUILD_STORE": str(tmp_path / "s")},
    )
    assert result.status == 1
    assert "no container engine answers" in result.output
    assert "hint: start Docker" in result.output
    assert "Traceback" not in result.output


def test_an_image_that_is_not_built_is_not_looked_into(checkout: Workspace, tmp_path: Path) -> None:
    for command in (("inspect", "image=hello"), ("diff", "a=hello", "b=debian-web")):
        result = checkout.doit(*command, env={"FCBUILD_STORE": str(tmp_path / "empty")})
        assert result.status == 1
        assert "hello, as it is now, is not built\n  hint: doit build image=hello" in result.output


def test_an_image_that_is_not_built_goes_nowhere(checkout: Workspace, tmp_path: Path) -> None:
    for command in (("curl",), ("export", "format=dir", f"to={tmp_path}/out")):
        result = checkout.doit(
            *command, "image=hello", env={"FCBUILD_STORE": str(tmp_path / "empty")}
        )
        assert result.status == 1
        assert "hello, as it is now, is not built: the store has no kernel:6.12" in result.output
        assert "hint: doit build image=hello makes it" in result.output
    assert not (tmp_path / "out").exists()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory of images and nothing else, of somebody who uses fcbuild from elsewhere."""
    shutil.copytree(workspace.ROOT / "images" / "hello", tmp_path / "mine" / "images" / "one")
    bases = ("debian-base", "lock.toml")
    for name in bases:
        path = workspace.ROOT / "images" / name
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tmp_path / "mine" / "images" / name)
    return tmp_path / "mine"


def test_images_may_be_in_another_directory(checkout: Workspace, project: Path) -> None:
    env = {"FCBUILD_PROJECT": str(project)}
    result = checkout.doit("list", env=env)
    assert {"rootfs:one", "kernel:6.12"} <= {line.split()[0] for line in result.output.splitlines()}
    assert "rootfs:hello" not in result.output
    # There is no default image, and only one that it could be.
    config = checkout.doit("config", env=env)
    assert json.loads(config.output)["machine-config"]["vcpu_count"] == 1, config.output
    assert (project / "artifacts").is_dir() and not (checkout.root / "artifacts").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_without_images_is_no_project(
    checkout: Workspace, tmp_path: Path, there: bool
) -> None:
    if there:
        (tmp_path / "empty").mkdir()
    result = checkout.doit("list", env={"FCBUILD_PROJECT": str(tmp_path / "empty")})
    assert result.status == 1
    assert "empty has no images/\n  hint: FCBUILD_PROJECT names its directory" in result.output


def test_a_configuration_needs_nothing_that_is_built(checkout: Workspace, tmp_path: Path) -> None:
    result = checkout.doit("config", "image=hello", env={"FCBUILD_STORE": str(tmp_path / "empty")})
    assert result.status == 0
    assert json.loads(result.output)["boot-source"]["kernel_image_path"] == "vmlinux"


def test_a_store_that_cannot_be_written_is_named(checkout: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = checkout.doit("rootfs:hello", env={"FCBUILD_STORE": str(tmp_path / "file" / "store")})
    assert result.status == 1
    assert "Traceback" not in result.output
    assert "set FCBUILD_STORE to a directory of yours" in result.output
