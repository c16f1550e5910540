"""The plan: what moves which fingerprints, and how the images hang together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcbuild import plan as plans
from fcbuild import recipes, spec
from fcbuild.context import EPOCH
from fcbuild.errors import SpecError
from fcbuild.plan import Plan

Golden = Callable[[str, Any], None]


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our own sources and toolchain, small, so that a test can change them."""
    package = tmp_path / "package"
    for name, text in {
        "guest/init.c": "int main;\n",
        "guest/init.h": "#pragma once\n",
        "guest/Makefile": "all:\n",
        "guest/BOOT_CONTRACT.md": "words\n",
        "kvmhost/agent.c": "int agent;\n",
        "kvmhost/mux.c": "int mux;\n",
        "kvmhost/mux.h": "#pragma once\n",
        "kvmhost/config.h": "#pragma once\n",
        "kvmhost/Makefile": "all:\n",
        "toolchain.toml": "[bootstrap]\nsuite = 'trixie'\npackages = ['gcc']\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.setattr(plans, "PACKAGE", package)
    monkeypatch.setattr(plans, "TOOLCHAIN_SPEC", package / "toolchain.toml")
    monkeypatch.setattr(plans, "TOOLCHAIN_LOCK", package / "lock.toml")
    return package


def prints(checkout: Path) -> dict[str, str]:
    """Work the plan out anew; return the fingerprint of every artifact."""
    plan = Plan(spec.load(checkout))
    recipes = [*plan.all(), *map(plan.container, plan.specs.images)]
    return {str(recipe): recipe.fingerprint for recipe in recipes}


def moved(checkout: Path, change: Callable[[], object]) -> set[str]:
    before = prints(checkout)
    change()
    after = prints(checkout)
    assert before.keys() == after.keys()
    return {name for name in after if after[name] != before[name]}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


ALL = {
    "base:toolchain",
    "base:base",
    "init:guest",
    "agent:kvmhost",
    "kernel:6.12",
    "kernel:tiny",
    "container:web",
    "container:tool",
    "rootfs:web",
    "rootfs:tool",
}


def test_the_plan_names_everything(checkout: Path) -> None:
    assert prints(checkout).keys() == ALL


def test_parents_come_before_children(checkout: Path) -> None:
    seen: set[str] = set()
    for recipe in Plan(spec.load(checkout)).all():
        parents = {str(parent) for parent in recipe.parents if parent.kind != "container"}
        assert parents <= seen
        seen.add(str(recipe))


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("images/web/index.html", "Hi", "Ho", {"container:web", "rootfs:web"}),
        ("images/web/Dockerfile", "serve", "run", {"container:web", "rootfs:web"}),
        ("images/web/image.toml", '"1"', '"2"', {"container:web", "rootfs:web"}),
        ("images/web/image.toml", "64MiB", "65MiB", set()),
        ("images/web/image.toml", "port = 80", "port = 81", set()),
        ("images/web/image.toml", "a web server", "another", set()),
        ("images/web/image.toml", 'kernel = "6.12"', 'kernel = "tiny"', set()),
        ("images/web/image.toml", "[machine]", "[boot]\ndeadline = '1s'\n[machine]", set()),
        (
            "images/web/image.toml",
            "[machine]",
            "[boot]\nkernel_arguments = ['a']\n[machine]",
            set(),
        ),
        (
            "images/web/image.toml",
            "[machine]",
            "[boot]\nstop_grace = '1s'\n[machine]",
            {"rootfs:web"},
        ),
        ("images/tool/image.toml", "64MiB", "65MiB", {"rootfs:tool"}),
        (
            "images/base/image.toml",
            '"bash"',
            '"dash"',
            {"base:base", "container:web", "rootfs:web"},
        ),
        ("images/base/image.toml", '"curl", "bash"', '"bash", "curl"', set()),
        ("kernels/fragments/net.config", "NET=y", "NET=n", {"kernel:6.12"}),
        ("kernels/fragments/base.config", "BASE=y", "BASE=n", {"kernel:6.12", "kernel:tiny"}),
        ("kernels/tiny/kernel.toml", "2222", "3333", {"kernel:tiny"}),
        ("kernels/tiny/kernel.toml", "example.org", "mirror.org", set()),
        ("kernels/6.12/kernel.toml", '"base", "net"', '"net", "base"', {"kernel:6.12"}),
    ],
)
def test_a_change_moves_what_is_made_from_it_and_nothing_else(
    checkout: Path, file: str, old: str, new: str, expected: set[str]
) -> None:
    assert moved(checkout, lambda: edit(checkout / file, old, new)) == expected


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("guest/init.c", "main", "start", {"init:guest", "rootfs:web", "rootfs:tool"}),
        ("guest/init.h", "once", "twice", {"init:guest", "rootfs:web", "rootfs:tool"}),
        ("guest/Makefile", "all", "none", {"init:guest", "rootfs:web", "rootfs:tool"}),
        ("guest/BOOT_CONTRACT.md", "words", "others", set()),
        ("kvmhost/agent.c", "agent", "other", {"agent:kvmhost"}),
        (
            "toolchain.toml",
            "gcc",
            "tcc",
            ALL - {"base:base", "container:web", "container:tool"},
        ),
    ],
)
def test_a_change_of_our_own_sources_moves_no_image(
    checkout: Path, package: Path, file: str, old: str, new: str, expected: set[str]
) -> None:
    assert moved(checkout, lambda: edit(package / file, old, new)) == expected


@pytest.mark.parametrize("kind", sorted(recipes.SCHEMA))
def test_a_new_schema_moves_its_kind_and_what_is_made_from_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    changed = moved(checkout, lambda: monkeypatch.setitem(recipes.SCHEMA, kind, 99))  # type: ignore[misc]
    assert {name for name in ALL if name.startswith(kind)} <= changed
    assert not {name for name in changed if kind == "rootfs" and not name.startswith("rootfs")}


def test_the_place_of_the_checkout_moves_nothing(checkout: Path) -> None:
    before = prints(checkout)
    elsewhere = checkout.with_name("elsewhere")
    shutil.copytree(checkout, elsewhere, symlinks=True)
    assert prints(elsewhere) == before


def image(checkout: Path, name: str, dockerfile: str) -> None:
    (checkout / "images" / name).mkdir(exist_ok=True)
    (checkout / "images" / name / "image.toml").write_text("")
    (checkout / "images" / name / "Dockerfile").write_text(dockerfile)


def test_from_and_copy_from_are_edges(checkout: Path) -> None:
    image(checkout, "top", "FROM fcbuild/web AS x\nCOPY --from=fcbuild/tool / /\nFROM x\n")
    plan = Plan(spec.load(checkout))
    assert plan.upon("top") == ["web", "tool"]
    assert [str(up) for up in plan.container("top").parents] == ["container:web", "container:tool"]
    assert "container:top" in moved(
        checkout, lambda: edit(checkout / "images/tool/tool", "true", "false")
    )


def test_the_tag_of_an_image_is_its_fingerprint(checkout: Path) -> None:
    recipe = Plan(spec.load(checkout)).container("web")
    assert recipe.tag == f"fcbuild/web:{recipe.fingerprint[:12]}"


DIGEST = "sha256:" + "ab" * 32
LOCK = """
[image."alpine:3.23"]
digest = "DIGEST"
time = 2026-01-31T12:00:00Z
[base.base]
suite = "trixie"
asked = ["bash", "curl"]
time = 2026-01-01T00:00:00Z
[base.base.packages]
bash = "5.2-1"
curl = "8.1-1"
""".replace("DIGEST", DIGEST)
NEW_YEAR, JANUARY = 1767225600, 1769860800  # the two times
PINNED = f"FROM alpine:3.23@{DIGEST}"


@pytest.fixture
def locked(checkout: Path) -> Path:
    """The checkout with a lock of its base, and of a tag that an image is FROM."""
    (checkout / "images/lock.toml").write_text(LOCK)
    image(checkout, "tagged", "ARG V=3.23\nFROM alpine:$V\nCOPY --from=fcbuild/web / /\n")
    return checkout


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("8.1-1", "8.1-2", {"base:base", "container:web", "rootfs:web"}),
        ("2026-01-01", "2026-01-02", {"base:base", "container:web", "rootfs:web"}),
        ('asked = ["bash", "curl"]', "asked = []", {"base:base", "container:web", "rootfs:web"}),
        ("abab", "abcd", set()),
        ("2026-01-31", "2026-01-30", set()),
        ("[image", "# a comment\n[image", set()),
    ],
)
def test_the_lock_is_an_input_of_what_it_locks(
    locked: Path, old: str, new: str, expected: set[str]
) -> None:
    changed = moved(locked, lambda: edit(locked / "images/lock.toml", old, new))
    tagged = {"container:tagged", "rootfs:tagged"}
    assert changed - tagged == expected
    # A lock's time is the newest that a file of the image may have.
    assert (tagged <= changed) == (bool(expected) or old in {"abab", "2026-01-31"})


def test_the_lock_of_the_toolchain_moves_what_it_makes(checkout: Path, package: Path) -> None:
    text = (
        "[base.toolchain]\nsuite = 'trixie'\nasked = ['gcc']\ntime = 2026-01-31T12:00:00Z\n"
        "packages = { gcc = '14' }\n"
    )
    changed = moved(checkout, lambda: (package / "lock.toml").write_text(text))
    assert changed == ALL - {"base:base", "container:web", "container:tool"}
    (package / "lock.toml").write_text("[base.toolchain]\n")
    with pytest.raises(SpecError, match=r"fcbuild/build/lock.toml: base.toolchain.suite is miss"):
        prints(checkout)


def test_a_tag_is_handed_to_the_engine_with_its_digest(locked: Path) -> None:
    plan = Plan(spec.load(locked))
    web = plan.container("web").tag
    assert plan.dockerfile("tagged") == f"ARG V=3.23\n{PINNED}\nCOPY --from={web} / /\n"
    edit(locked / "images/lock.toml", "alpine:3.23", "alpine:3.22")
    assert "\nFROM alpine:$V\n" in Plan(spec.load(locked)).dockerfile("tagged")


def test_what_is_not_locked_is_named_with_its_place(locked: Path) -> None:
    assert Plan(spec.load(locked)).unlocked("tagged") == []
    edit(locked / "images/lock.toml", "alpine:3.23", "alpine:3.22")
    edit(locked / "images/base/image.toml", '"bash"', '"dash"')
    plan = Plan(spec.load(locked))
    base = "images/base/image.toml: its packages are not locked"
    assert plan.unlocked("tagged") == [
        "images/tagged/Dockerfile:2: alpine:3.23 is not locked",
        base,
    ]
    assert plan.unlocked("web") == plan.unlocked("base") == [base]
    assert plan.unlocked("tool") == []
    image(locked, "tagged", f"{PINNED}\n")
    assert Plan(spec.load(locked)).unlocked("tagged") == []


def test_an_image_is_as_old_as_the_newest_lock_below_it(locked: Path) -> None:
    plan = Plan(spec.load(locked))
    assert plan.epoch("base") == plan.epoch("web") == NEW_YEAR
    assert plan.epoch("tagged") == JANUARY
    assert plan.epoch("tool") == EPOCH
    (locked / "images/lock.toml").unlink()
    assert Plan(spec.load(locked)).epoch("tagged") == EPOCH


def test_what_is_wrong_in_the_lock_is_named_with_the_way_out(locked: Path) -> None:
    edit(locked / "images/lock.toml", "sha256:ab", "sha256:xy")
    with pytest.raises(SpecError) as caught:
        spec.load(locked)
    assert "images/lock.toml: image.alpine:3.23.digest: expected" in str(caught.value)
    assert "images/lock.toml: written by `doit lock`: remove it and run" in str(caught.value)


def test_images_from_each_other_are_refused_with_the_cycle(checkout: Path) -> None:
    image(checkout, "one", "FROM fcbuild/two\n")
    image(checkout, "two", "FROM fcbuild/three\n")
    image(checkout, "three", "FROM fcbuild/one\n")
    with pytest.raises(SpecError, match="one -> two -> three -> one"):
        Plan(spec.load(checkout)).container("one")


def test_an_image_from_itself_is_refused(checkout: Path) -> None:
    image(checkout, "one", "FROM fcbuild/one\n")
    with pytest.raises(SpecError, match="one -> one"):
        Plan(spec.load(checkout)).container("one")


def test_an_unknown_image_is_refused_with_a_suggestion(checkout: Path) -> None:
    image(checkout, "one", "FROM fcbuild/bse\n")
    with pytest.raises(SpecError) as caught:
        Plan(spec.load(checkout)).upon("one")
    assert "images/one/Dockerfile: fcbuild/bse: no images/bse (did you mean base?)" in str(
        caught.value
    )


def for_arm(checkout: Path, *names: str) -> None:
    for name in names:
        toml = checkout / "images" / name / "image.toml"
        toml.write_text(f'arch = "aarch64"\n{toml.read_text()}')
    edit(
        checkout / "kernels/6.12/kernel.toml",
        "fragments",
        'arch = ["x86_64", "aarch64"]\nfragments',
    )


def test_an_image_for_another_architecture_has_all_parts_for_it(checkout: Path) -> None:
    before = prints(checkout)
    for_arm(checkout, "base", "web")
    plan = Plan(spec.load(checkout))
    rootfs = plan.rootfs("web")
    container, init = rootfs.parent("container"), rootfs.parent("init")
    assert container.inputs["platform"] == "linux/arm64"
    assert container.parent("base").inputs["arch"] == "arm64"
    assert str(init) == "init:guest@aarch64"
    assert {"init.c", "Makefile", "../kvmhost/mux.c"} < set(init.inputs["sources"])  # type: ignore[arg-type]
    kernel = plan.kernel(plan.specs.images["web"].kernel)
    assert (str(kernel), kernel.product[0]) == ("kernel:6.12@aarch64", "Image")
    # Nothing else has moved.
    after = prints(checkout)
    others = before.keys() - {"base:base", "container:web", "rootfs:web"}
    assert {name for name in others if after[name] != before[name]} == set()
    assert after.keys() - before.keys() == {"init:guest@aarch64", "kernel:6.12@aarch64"}


def test_the_links_sources_move_the_pid_1_that_has_it(checkout: Path, package: Path) -> None:
    for_arm(checkout, "base", "web")
    changed = moved(checkout, lambda: (package / "kvmhost/mux.c").write_text("int other;\n"))
    assert changed == {"init:guest@aarch64", "rootfs:web", "agent:kvmhost"}


def test_an_image_upon_one_of_another_architecture_is_refused(checkout: Path) -> None:
    for_arm(checkout, "web")
    with pytest.raises(SpecError) as caught:
        Plan(spec.load(checkout)).rootfs("web")
    assert "fcbuild/base: it is for x86_64, this image for aarch64" in str(caught.value)
    assert 'arch = "x86_64"' in str(caught.value.hint)


def test_a_base_is_locked_for_its_architecture(locked: Path) -> None:
    assert not Plan(spec.load(locked)).unlocked("base")
    for_arm(locked, "base")
    (line,) = Plan(spec.load(locked)).unlocked("base")
    assert "not locked" in line


def test_a_dockerfile_that_is_not_utf_8_is_a_spec_error(checkout: Path) -> None:
    (checkout / "images/tool/Dockerfile").write_bytes(b"FROM scratch\n\xff")
    with pytest.raises(SpecError, match="images/tool/Dockerfile: cannot be read"):
        Plan(spec.load(checkout)).container("tool")


def test_a_dockerfile_keeps_its_line_ends_and_loses_its_byte_order_mark(checkout: Path) -> None:
    (checkout / "images/tool/Dockerfile").write_bytes(b"\xef\xbb\xbfFROM fcbuild/base\r\n")
    plan = Plan(spec.load(checkout))
    assert plans.read_dockerfile(plan.specs.images["tool"]) == "FROM fcbuild/base\r\n"
    assert plan.upon("tool") == ["base"]


def test_golden_recipes(checkout: Path, golden: Golden) -> None:
    plan = Plan(spec.load(checkout))
    recipes = [*plan.all(), plan.container("web"), plan.container("tool")]
    golden(
        "recipes",
        {str(recipe): [recipe.fingerprint, recipe.document] for recipe in recipes},
    )
