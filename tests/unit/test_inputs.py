"""Every input, changed one at a time in every way there is: what moves, and what must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fcbuild import spec
from fcbuild.errors import SpecError
from fcbuild.ext4 import form
from fcbuild.plan import Plan
from tests.unit.test_plan import ALL, edit, moved, package

__all__ = ["package"]

WEB = {"container:web", "rootfs:web"}
TOOL = {"container:tool", "rootfs:tool"}
BASE = {"base:base", *WEB}
INIT = {"init:guest", "rootfs:web", "rootfs:tool"}
NOTHING: set[str] = set()

Change = Callable[[Path], object]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def executable(path: Path) -> None:
    path.chmod(path.stat().st_mode ^ 0o100)


def renamed(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}-"))


def to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def same_bytes_by_link(path: Path) -> None:
    path.rename(path.with_name("original"))
    path.symlink_to("original")


def empty_file(path: Path) -> None:
    (path.parent / "empty").touch()


def empty_directory(path: Path) -> None:
    (path.parent / "directory").mkdir()


def group_bits(path: Path) -> None:
    path.chmod(path.stat().st_mode ^ 0o077)


def a_comment(path: Path) -> None:
    path.write_text(f"# a comment\n{path.read_text()}# another\n")


CONTEXT = [flip, executable, renamed, to_link, empty_file, empty_directory, same_bytes_by_link]


@pytest.mark.parametrize("change", CONTEXT)
def test_a_file_of_a_context(checkout: Path, change: Change) -> None:
    assert moved(checkout, lambda: change(checkout / "images/web/index.html")) == WEB


@pytest.mark.parametrize("change", [executable, same_bytes_by_link])
def test_a_dockerfile(checkout: Path, change: Change) -> None:
    text = checkout / "images/web/Dockerfile"
    assert moved(checkout, lambda: change(text)) == WEB


def test_a_byte_of_a_dockerfile(checkout: Path) -> None:
    assert (
        moved(checkout, lambda: edit(checkout / "images/web/Dockerfile", "serve", "sErve")) == WEB
    )


@pytest.mark.parametrize("hidden", ["Dockerfile\n", "*\n"])
def test_a_dockerfile_that_is_not_in_its_context(checkout: Path, hidden: str) -> None:
    directory = checkout / "images/web"
    (directory / ".dockerignore").write_text(hidden)
    changed = moved(
        checkout, lambda: (directory / "Dockerfile").write_text("FROM fcbuild/base\nCMD x\n")
    )
    assert changed == WEB


def test_a_dockerfile_behind_a_link_counts_with_its_bytes(checkout: Path) -> None:
    directory = checkout / "images/web"
    (directory / "Dockerfile").rename(checkout / "shared")
    (directory / "Dockerfile").symlink_to(checkout / "shared")
    changed = moved(checkout, lambda: (checkout / "shared").write_text("FROM fcbuild/base\n"))
    assert changed == WEB


def test_what_an_ignored_file_is_moves_nothing(checkout: Path) -> None:
    directory = checkout / "images/web"
    (directory / ".dockerignore").write_text("*.log\nnotes/\n")
    (directory / "notes").mkdir()
    for name in ("x.log", "notes/y"):
        (directory / name).write_text("1")
    assert moved(checkout, lambda: flip(directory / "x.log")) == NOTHING
    assert moved(checkout, lambda: executable(directory / "x.log")) == NOTHING
    assert moved(checkout, lambda: (directory / "x.log").unlink()) == NOTHING
    assert moved(checkout, lambda: empty_file(directory / "notes/y")) == NOTHING
    assert moved(checkout, lambda: (directory / ".dockerignore").write_text("*.log\n")) == WEB


@pytest.mark.parametrize("change", [a_comment, group_bits, executable])
@pytest.mark.parametrize(
    "file",
    [
        *("images/web/image.toml", "images/tool/image.toml", "images/base/image.toml"),
        *("kernels/6.12/kernel.toml", "kernels/tiny/kernel.toml"),
    ],
)
def test_how_a_spec_is_written_moves_nothing(checkout: Path, file: str, change: Change) -> None:
    assert moved(checkout, lambda: change(checkout / file)) == NOTHING


def test_the_order_of_keys_and_tables_moves_nothing(checkout: Path) -> None:
    def reorder() -> None:
        (checkout / "images/web/image.toml").write_text(
            "kernel = '6.12'\ndescription = 'a web server'\n"
            "[[check]]\nhttp = { contains = 'Hi', port = 80 }\n"
            "[machine]\nmemory = '64MiB'\n[build]\nargs = { VERSION = '1' }\n"
        )
        (checkout / "images/base/image.toml").write_text(
            "bootstrap = { packages = ['bash', 'curl'], suite = 'trixie' }\n"
            "description = 'a base'\n"
        )

    assert moved(checkout, reorder) == NOTHING


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[build]\nargs = { A = '1' }", TOOL),
        ("[build]\ntarget = 'final'", TOOL),
        ("hostname = 'other'", {"rootfs:tool"}),
        ("init = '/sbin/init'", {"rootfs:tool"}),
        ("[rootfs]\nfree = '64MiB'", {"rootfs:tool"}),
        ("[rootfs]\nreadonly = true", {"rootfs:tool"}),
        ("[rootfs]\nreadonly = true\nwritable = ['/x']", {"rootfs:tool"}),
        ("[rootfs]\noverlay = true", {"rootfs:tool"}),
        ("[rootfs]\noverlay = '64MiB'", {"rootfs:tool"}),
        ("[network]\nmtu = 1400", {"rootfs:tool"}),
        ("[boot]\nstop_grace = '1s'", {"rootfs:tool"}),
        ("description = 'x'", NOTHING),
        ("kernel = 'tiny'", NOTHING),
        ("[machine]\nvcpus = 2", NOTHING),
        ("[machine]\nmemory = '256MiB'", NOTHING),
        ("[boot]\ndeadline = '1s'", NOTHING),
        ("[boot]\nexpect_exit = 3", NOTHING),
        ("[[check]]\ntcp = { port = 1 }", NOTHING),
    ],
)
def test_a_key_of_image_toml(checkout: Path, line: str, expected: set[str]) -> None:
    toml = checkout / "images/tool/image.toml"
    toml.write_text("")
    assert moved(checkout, lambda: toml.write_text(line)) == expected


@pytest.mark.parametrize("change", [flip, same_bytes_by_link, group_bits, empty_file])
def test_a_fragment(checkout: Path, change: Change) -> None:
    expected = {"kernel:6.12"} if change is flip else NOTHING
    assert moved(checkout, lambda: change(checkout / "kernels/fragments/net.config")) == expected


def test_a_fragment_behind_a_link_counts_with_its_bytes(checkout: Path) -> None:
    same_bytes_by_link(checkout / "kernels/fragments/net.config")
    original = checkout / "kernels/fragments/original"
    assert moved(checkout, lambda: flip(original)) == {"kernel:6.12"}


def test_a_kernel_fragment_moves_no_root_filesystem(checkout: Path) -> None:
    changed = moved(checkout, lambda: flip(checkout / "kernels/fragments/base.config"))
    assert changed == {"kernel:6.12", "kernel:tiny"}


@pytest.mark.parametrize("change", [flip, executable, renamed, empty_file])
@pytest.mark.parametrize(
    ("file", "expected"), [("guest/init.c", INIT), ("kvmhost/agent.c", {"agent:kvmhost"})]
)
def test_a_source_of_ours(
    checkout: Path, package: Path, file: str, expected: set[str], change: Change
) -> None:
    path = package / file
    if change is empty_file:
        expected = NOTHING  # neither a source nor the Makefile
    assert moved(checkout, lambda: change(path)) == expected
    assert not {name for name in expected if name.startswith("container")}


def test_how_file_systems_are_made(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**form.PARAMETERS, "journal": 8 << 20}
    changed = moved(checkout, lambda: monkeypatch.setattr(form, "PARAMETERS", other))
    assert changed == {"rootfs:web", "rootfs:tool"}


def test_nothing_is_left_out() -> None:
    """Each artifact is moved by something above."""
    assert {*WEB, *TOOL, *BASE, *INIT, "agent:kvmhost", "kernel:6.12", "kernel:tiny"} == (
        ALL - {"base:toolchain"}  # test_plan has it
    )


def test_names_that_differ_in_case_only_cannot_be(checkout: Path) -> None:
    # On a file system that folds case they would be one directory; lower case is all there is.
    (checkout / "images/Web").mkdir()
    (checkout / "images/Web/image.toml").write_text("[bootstrap]\nsuite = 'trixie'\n")
    with pytest.raises(SpecError, match=r"images/Web/image.toml: the directory's name must be low"):
        moved(checkout, lambda: None)


def test_an_image_directory_that_is_the_checkout_is_refused(checkout: Path) -> None:
    (checkout / "image.toml").write_text("")
    (checkout / "Dockerfile").write_text("FROM scratch\n")
    (checkout / "images/all").symlink_to(checkout)
    artifacts = checkout / "artifacts"
    artifacts.mkdir()
    plan = Plan(spec.load(checkout), barred=[artifacts])
    with pytest.raises(SpecError, match="images/all/artifacts: a build context cannot hold"):
        plan.container("all")
