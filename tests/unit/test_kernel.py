"""The gates of a kernel build: no config line gets lost, and the result is a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcbuild import kconfig
from fcbuild.build import depends
from fcbuild.build.kernel import check
from fcbuild.errors import BuildError, SpecError
from fcbuild.kconfig import dropped, settings

FINAL = kconfig.options("""\
#
# Automatically generated file
#
CONFIG_NET=y
CONFIG_HZ=100
CONFIG_NAME="a b"
# CONFIG_WLAN is not set
""")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# why\n\nCONFIG_NET=y\n",
        '  CONFIG_NAME="a b"  \n',
        "CONFIG_HZ=100",
        "# CONFIG_WLAN is not set\n",
        "# CONFIG_UNHEARD_OF is not set\n",
        "CONFIG_UNHEARD_OF=n\n",
        "CONFIG_NET=y\nCONFIG_NET=y\n",
    ],
)
def test_lines_that_are_in_the_config_are_not_dropped(text: str) -> None:
    assert dropped(settings({"a.config": text}), FINAL) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("CONFIG_VSOCK=y\n", "a.config:1: CONFIG_VSOCK=y"),
        ("\n# x\nCONFIG_HZ=250\n", "a.config:3: CONFIG_HZ=250"),
        ("CONFIG_NET=m\n", "a.config:1: CONFIG_NET=m"),
        ("# CONFIG_NET is not set\n", "a.config:1: # CONFIG_NET is not set"),
        ("CONFIG_WLAN=y\n", "a.config:1: CONFIG_WLAN=y"),
        ("CONFIG_NET=y # why\n", "a.config:1: CONFIG_NET=y # why"),
    ],
)
def test_a_dropped_line_is_named_with_its_place(text: str, line: str) -> None:
    found = settings({"a.config": text})
    assert [str(found[name]) for name in dropped(found, FINAL)] == [line]


@pytest.mark.parametrize(
    "text", ["CONFIG_NET = y", "NET=y", "CONFIG_NET", "CONFIG_NET=", "# CONFIG_NET is unset"]
)
def test_a_line_that_is_no_option_is_not_taken_for_a_comment(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        settings({"a.config": f"\n{text}\n"})
    assert f"a.config:2: {text} (neither an option nor a comment)" in caught.value.message


def test_fragments_that_contradict_each_other_are_both_named() -> None:
    texts = {"a.config": "CONFIG_HZ=250\nCONFIG_A=y\n", "b.config": "\nCONFIG_HZ=100\nCONFIG_A=y"}
    with pytest.raises(SpecError) as caught:
        settings(texts)
    assert "b.config:2: CONFIG_HZ=100 contradicts a.config:1: CONFIG_HZ=250" in caught.value.message
    assert "CONFIG_A" not in caught.value.message


KCONFIG = {
    "Kconfig": """
        mainmenu "Linux"
        source "arch/$(SRCARCH)/Kconfig"
        source "net/Kconfig"
        config SELECTED
        \tbool
        config SELECTING
        \tbool "selects"
        \tselect SELECTED if NET
        """,
    "arch/x86/Kconfig": 'config MACHINE\n\tdef_bool y\nconfig HIDDEN\n\tbool "x" if EXPERT\n',
    "net/Kconfig": """
        menuconfig NET
        \tbool "Networking"
        if NET
        config NAT
        \ttristate "NAT"
        \tdepends on INET && (IPV6 || !MACHINE) \\
        \t\t&& HZ > 100
        \thelp
        \t  config NOT_ONE
        \t  depends on NOTHING
        menu "deep"
        \tdepends on DEEP
        config DEEPER
        \tbool "deeper"
        endmenu
        endif
        """,
}


@pytest.mark.parametrize(
    ("name", "wanted", "config", "words"),
    [
        ("NATT", "y", {}, "this series has no such option (did you mean NAT?)"),
        ("NOT_ONE", "y", {}, "this series has no such option"),
        ("NAT", "y", {"INET": "y", "IPV6": "y", "HZ": "250"}, "it depends on NET (NET=n)"),
        (
            "NAT",
            "y",
            {"NET": "y", "MACHINE": "y", "HZ": "100"},
            "it depends on INET (INET=n), (IPV6 || !MACHINE) (IPV6=n, MACHINE=y), HZ > 100 (HZ=1",
        ),
        ("NAT", "n", {"NET": "y", "INET": "y", "HZ": "250"}, "its value is not one"),
        ("DEEPER", "y", {"NET": "y"}, "it depends on DEEP (DEEP=n)"),
        ("SELECTED", "n", {"SELECTING": "y", "NET": "y"}, "selected by SELECTING"),
        ("SELECTED", "y", {}, "nobody can set it: it follows from what selects it: SELECTING"),
        ("HIDDEN", "y", {}, "it depends on EXPERT (EXPERT=n)"),
    ],
)
def test_what_a_dropped_option_depends_on_is_named(
    tmp_path: Path, name: str, wanted: str, config: dict[str, str], words: str
) -> None:
    for file, text in KCONFIG.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        lines = [line.removeprefix("        ") for line in text.splitlines()]
        (tmp_path / file).write_text("\n".join(lines) + "\n")
    found = depends.read(tmp_path, "x86").explain(name, wanted, config)
    assert found.startswith(words)


def test_a_kernel_for_another_architecture_is_refused(tmp_path: Path) -> None:
    image = b"MZ" + bytes(54) + b"ARM\x64" + bytes(100)
    (tmp_path / "Image").write_bytes(image)
    assert check(tmp_path / "Image", "aarch64").arch == "aarch64"
    with pytest.raises(BuildError, match="Image is a kernel for aarch64, not for x86_64"):
        check(tmp_path / "Image", "x86_64")
