"""The gates of a kernel build: no config line gets lost, and the result is a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcbuild.build.kernel import check_vmlinux, dropped
from fcbuild.errors import BuildError

FINAL = """\
#
# Automatically generated file
#
CONFIG_NET=y
CONFIG_HZ=100
CONFIG_NAME="a b"
# CONFIG_WLAN is not set
"""


def fragments(tmp_path: Path, *texts: str) -> list[Path]:
    paths = [tmp_path / f"{number}.config" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


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
        "CONFIG_NET=n\nCONFIG_NET=y\n",
    ],
)
def test_lines_that_are_in_the_config_are_not_dropped(tmp_path: Path, text: str) -> None:
    assert dropped(fragments(tmp_path, text), FINAL) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("CONFIG_VSOCK=y\n", "0.config:1: CONFIG_VSOCK=y (the config has VSOCK=n)"),
        ("\n# x\nCONFIG_HZ=250\n", "0.config:3: CONFIG_HZ=250 (the config has HZ=100)"),
        ("CONFIG_NET=m\n", "0.config:1: CONFIG_NET=m (the config has NET=y)"),
        ("# CONFIG_NET is not set\n", "0.config:1: # CONFIG_NET is not set (the config has NET=y)"),
        ("CONFIG_WLAN=y\n", "0.config:1: CONFIG_WLAN=y (the config has WLAN=n)"),
        ("CONFIG_NET=y # why\n", "0.config:1: CONFIG_NET=y # why (the config has NET=y)"),
        ("CONFIG_NET=y\nCONFIG_NET=n\n", "0.config:2: CONFIG_NET=n (the config has NET=y)"),
    ],
)
def test_a_dropped_line_is_named_with_its_place(tmp_path: Path, text: str, line: str) -> None:
    assert dropped(fragments(tmp_path, text), FINAL) == [line]


@pytest.mark.parametrize("text", ["CONFIG_NET = y", "NET=y", "CONFIG_NET", "CONFIG_NET="])
def test_a_line_that_is_no_option_is_not_taken_for_a_comment(tmp_path: Path, text: str) -> None:
    (line,) = dropped(fragments(tmp_path, f"\n{text}\n"), FINAL)
    assert line.startswith(f"0.config:2: {text} (")


def test_a_later_fragment_overrides(tmp_path: Path) -> None:
    assert dropped(fragments(tmp_path, "CONFIG_HZ=250\n", "CONFIG_HZ=100\n"), FINAL) == []
    assert dropped(fragments(tmp_path, "CONFIG_HZ=100\n", "CONFIG_HZ=250\n"), FINAL) == [
        "1.config:1: CONFIG_HZ=250 (the config has HZ=100)"
    ]


ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + b"\x3e\x00" + bytes(100)


def test_an_x86_64_elf_file_is_a_kernel(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(ELF)
    check_vmlinux(tmp_path / "vmlinux")


@pytest.mark.parametrize(
    "data",
    [b"", ELF[:19], b"MZ" + ELF[2:], ELF.replace(b"\x3e", b"\xb7"), b"\x7fELF\x01" + ELF[5:]],
    ids=["empty", "cut", "bzImage", "arm64", "32 bit"],
)
def test_anything_else_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "vmlinux").write_bytes(data)
    with pytest.raises(BuildError, match="vmlinux is not an x86-64 ELF"):
        check_vmlinux(tmp_path / "vmlinux")
