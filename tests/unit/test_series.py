"""kernels/: series, profiles and architectures, and how a mistake in them is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcbuild import spec
from fcbuild.build import pins
from fcbuild.errors import SpecError
from fcbuild.plan import Plan
from fcbuild.series import GivenKernel, KernelSource, KernelSpec

SHA = "2" * 64
SOURCE = f"""
[[source]]
url = "https://example.org/linux.tar.xz"
version = "6.1.2"
sha256 = "{SHA}"
"""
PROFILES = """
[arch]
x86_64 = ["base"]
aarch64 = ["arm"]
[profile.micro]
description = "smallest"
fragments = []
[profile.default]
fragments = ["net"]
"""


@pytest.fixture
def profiled(checkout: Path) -> Path:
    """A checkout with profiles, and a series that has them."""
    (checkout / "kernels/profiles.toml").write_text(PROFILES)
    (checkout / "kernels/fragments/arm.config").write_text("CONFIG_ARM=y\n")
    (checkout / "kernels/6.1").mkdir()
    write(checkout, 'description = "d"\narch = ["x86_64", "aarch64"]\n' + SOURCE)
    return checkout


def write(checkout: Path, text: str) -> None:
    (checkout / "kernels/6.1/kernel.toml").write_text(text)


def kernels(checkout: Path) -> dict[str, list[str]]:
    return {
        kernel.name: [path.stem for path in kernel.fragments]
        for kernel in spec.load(checkout).kernels.values()
        if isinstance(kernel, KernelSpec)
    }


def problems(checkout: Path) -> str:
    with pytest.raises(SpecError) as caught:
        spec.load(checkout)
    return caught.value.message


def test_a_series_has_a_kernel_for_each_profile_and_architecture(profiled: Path) -> None:
    assert kernels(profiled) == {
        "6.1": ["base", "net"],
        "6.1/micro": ["base"],
        "6.1@aarch64": ["arm", "net"],
        "6.1/micro@aarch64": ["arm"],
        "6.12": ["base", "net"],
        "tiny": ["base"],
    }
    assert spec.load(profiled).series_names == ["6.1", "6.12", "tiny"]


def test_an_image_chooses_a_profile_and_its_architecture_chooses_the_kernel(profiled: Path) -> None:
    web = profiled / "images/web/image.toml"
    web.write_text("kernel = '6.1/micro'")
    assert spec.load(profiled).images["web"].kernel == "6.1/micro"
    web.write_text("kernel = '6.1/micro'\narch = 'aarch64'")
    loaded = spec.load(profiled)
    recipe = Plan(loaded).kernel(loaded.images["web"].kernel)
    assert recipe.product == ("Image", "kernels/6.1/micro@aarch64/Image")
    web.write_text("kernel = '6.1/micor'")
    assert "kernel: no kernel '6.1/micor' (did you mean 6.1/micro?)" in problems(profiled)
    web.write_text("arch = 'arm64'")
    assert "arch: expected a string like x86_64|aarch64, got 'arm64'" in problems(profiled)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"net"', '"nett"', "profiles.toml: profile.default.fragments: no kernels/fragments/nett"),
        ('"arm"', '"x"', "profiles.toml: arch.aarch64: no kernels/fragments/x.config; known: arm"),
        ("fragments = []", "", "kernels/profiles.toml: profile.micro.fragments is missing"),
        ("x86_64", "riscv", "kernels/profiles.toml: arch.riscv: unknown key"),
        ("micro", "'a/b'", "profile.a/b: expected a name of lower case letters"),
        ("description", "descripton", "profile.micro.descripton: unknown key (did you mean"),
    ],
)
def test_a_mistake_in_profiles_toml_is_named(
    profiled: Path, old: str, new: str, words: str
) -> None:
    (profiled / "kernels/profiles.toml").write_text(PROFILES.replace(old, new))
    assert words in problems(profiled)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arch = ['mips']", "arch: expected x86_64 or aarch64, got 'mips'"),
        ("patches = ['no.patch']", "patches: expected files of kernels/6.1, got 'no.patch'"),
        ("patches = ['../6.12/kernel.toml']", "patches: expected files of kernels/6.1"),
        ("gcc = [14, 8]", "gcc: expected the oldest and the newest major version"),
        ("gcc = '14'", "gcc: expected the oldest and the newest major version"),
        (SOURCE + "suite = 'bookworm'", "source[1].suite: expected it to go with debian"),
    ],
)
def test_a_mistake_in_a_series_is_named(profiled: Path, text: str, words: str) -> None:
    write(profiled, text + (SOURCE if "source" not in text else ""))
    assert words in problems(profiled)


def test_a_patch_is_an_input_of_its_series_alone(profiled: Path) -> None:
    def prints() -> dict[str, str]:
        plan = Plan(spec.load(profiled))
        return {name: plan.kernel(name).fingerprint for name in plan.specs.kernels}

    patch = profiled / "kernels/6.1/a.patch"
    patch.write_text("--- a\n")
    write(profiled, "patches = ['a.patch']\n" + SOURCE)
    before = prints()
    patch.write_text("--- b\n")
    after = prints()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"6.1", "6.1/micro"}


def test_an_image_may_bring_its_kernel(checkout: Path, tmp_path: Path) -> None:
    web = checkout / "images/web/image.toml"
    (tmp_path / "vmlinux").write_bytes(b"kernel")
    web.write_text(f"kernel = {{ path = '{tmp_path}/vmlinux' }}")
    loaded = spec.load(checkout)
    kernel = loaded.kernels["images/web"]
    assert isinstance(kernel, GivenKernel) and kernel.path == tmp_path / "vmlinux"
    assert loaded.images["web"].kernel == kernel.name
    first = Plan(loaded).kernel(kernel.name).fingerprint
    (tmp_path / "vmlinux").write_bytes(b"another")
    assert Plan(loaded).kernel(kernel.name).fingerprint != first
    (tmp_path / "vmlinux").unlink()
    with pytest.raises(SpecError, match="vmlinux cannot be read: No such file"):
        Plan(loaded).kernel(kernel.name)
    web.write_text(f"kernel = {{ url = 'https://example.org/vmlinux', sha256 = '{SHA}' }}")
    recipe = Plan(spec.load(checkout)).kernel("images/web")
    assert recipe.inputs == {"arch": "x86_64", "sha256": SHA}


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        ("{}", "kernel: expected the name of a kernel, path = FILE, or url = URL"),
        ("{ path = 'a', url = 'https://x' }", "expected the name of a kernel, path = FILE"),
        ("{ url = 'https://x' }", "kernel.sha256 is missing"),
        ("{ url = 'http://x' }", "kernel.url: expected a string like https"),
        ("{ file = 'a' }", "kernel.file: unknown key"),
        ("1", "kernel: expected a string, got 1"),
    ],
)
def test_a_mistake_in_a_given_kernel_is_named(checkout: Path, kernel: str, words: str) -> None:
    (checkout / "images/web/image.toml").write_text(f"kernel = {kernel}")
    assert words in problems(checkout)


OLD = KernelSource("6.1.2-1", "1" * 64, debian="linux-source-6.1", suite="bookworm")
NEW = OLD._replace(version="6.1.3-1", sha256="3" * 64)
TEXT = f"""\
description = "6.1.2-1 is {OLD.sha256}"  # kept as it is

[[source]]  # first
debian = "linux-source-6.1"
version = "6.1.2-1"  # the newest
sha256 = "{OLD.sha256}"

[[source]]
url = "https://example.org/linux-6.1.2-1"
version = "6.1.2-1"
sha256 = "{SHA}"
"""


def test_moving_a_pin_changes_two_values_and_nothing_else() -> None:
    changed = pins.moved(TEXT, OLD, NEW)
    differing = [
        (was, now)
        for was, now in zip(TEXT.splitlines(), changed.splitlines(), strict=True)
        if was != now
    ]
    assert differing == [
        ('version = "6.1.2-1"  # the newest', 'version = "6.1.3-1"  # the newest'),
        (f'sha256 = "{OLD.sha256}"', f'sha256 = "{NEW.sha256}"'),
    ]


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("[[source]]", "[[sources]]"),
        TEXT.replace(f'sha256 = "{OLD.sha256}"', f"sha256 = '{OLD.sha256}'"),
        TEXT.replace("linux-source-6.1", "linux-source-6.2"),
    ],
)
def test_a_pin_that_is_written_otherwise_is_left_alone(text: str) -> None:
    with pytest.raises(SpecError, match="line"):
        pins.moved(text, OLD, NEW)


def test_a_series_without_a_package_cannot_be_asked_for(checkout: Path) -> None:
    kernel = spec.load(checkout).series(["tiny"])[0]
    with pytest.raises(SpecError, match="no source is a package"):
        pins.package(kernel)
