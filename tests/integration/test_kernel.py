"""Kernel builds that must not come to a kernel, with the real source: each says what and where."""

from __future__ import annotations

import re
from pathlib import Path

from tests.workspace import Workspace

FRAGMENT = Path("kernels/fragments/net.config")
SERIES = Path("kernels/6.12/kernel.toml")

WRONG = """\
--- a/init/Kconfig
+++ b/init/Kconfig
@@ -1,3 +1,3 @@
 no such line
-nor this
+but that
 nor that
"""


def add(checkout: Workspace, path: Path, text: str) -> int:
    """Add lines to a file; return the number of the first."""
    file = checkout.root / path
    was = file.read_text()
    file.write_text(was + text)
    return len(was.splitlines()) + 1


def refused(checkout: Workspace, kernel: str = "kernel:6.12") -> str:
    """Build, and return what the failing build says."""
    result = checkout.doit(kernel)
    assert result.status == 1, result.output
    assert "Traceback" not in result.output
    return result.output


def test_a_dropped_option_is_named_with_what_it_depends_on(checkout: Workspace) -> None:
    number = add(
        checkout, FRAGMENT, "CONFIG_KVM_AMD=y\nCONFIG_SCTP_DBG_OBJCNT=y\nCONFIG_NO_SUCH=y\n"
    )
    output = refused(checkout)
    assert (
        f"net.config:{number}: CONFIG_KVM_AMD=y (the config has KVM_AMD=n): it depends on" in output
    )
    assert f"net.config:{number + 1}: CONFIG_SCTP_DBG_OBJCNT=y" in output
    assert "it depends on IP_SCTP (IP_SCTP=n)" in output
    assert f"net.config:{number + 2}: CONFIG_NO_SUCH=y" in output
    assert "this series has no such option" in output
    assert "3 lines did not get into the config" in output


def test_fragments_that_contradict_each_other_do_not_get_to_the_source(
    checkout: Workspace,
) -> None:
    number = add(checkout, FRAGMENT, "# CONFIG_EXT4_FS is not set\nCONFIG_X = y\n")
    output = refused(checkout)
    assert f"net.config:{number}: # CONFIG_EXT4_FS is not set contradicts fs.config:" in output
    assert f"net.config:{number + 1}: CONFIG_X = y (neither an option nor a comment)" in output
    assert "configuring" not in output


def test_a_patch_that_does_not_apply_is_named(checkout: Workspace) -> None:
    (checkout.root / "kernels/6.12/wrong.patch").write_text(WRONG)
    file = checkout.root / SERIES
    wrong, count = re.subn(
        r"(?s)^patches = \[.*?\]", 'patches = ["wrong.patch"]', file.read_text(), flags=re.M
    )
    assert count == 1
    file.write_text(wrong)
    output = refused(checkout)
    assert "kernels/6.12/wrong.patch does not apply to package linux-source-6.12" in output
    assert "FAILED at 1" in output  # patch's own word


def test_a_compiler_that_the_series_does_not_know_is_named(checkout: Workspace) -> None:
    add(checkout, FRAGMENT, "# so that it is built anew\n")
    file = checkout.root / SERIES
    lines = [x for x in file.read_text().splitlines() if not x.startswith("gcc = ")]
    file.write_text("\n".join(["gcc = [8, 9]", *lines]))
    output = refused(checkout)
    assert "the toolchain's gcc is 14, but series 6.12 builds with gcc 8 to 9" in output


def test_a_file_that_is_no_kernel_is_not_taken_for_one(checkout: Workspace) -> None:
    checkout.image("own", 'kernel = { path = "vmlinux" }', "FROM scratch\nCOPY vmlinux /\n")
    (checkout.root / "images/own/vmlinux").write_bytes(b"MZ" + bytes(600))
    output = refused(checkout, "kernel:images/own")
    assert "vmlinux is no kernel: it starts with b'MZ" in output
    (checkout.root / "images/own/vmlinux").unlink()
    assert "images/own/vmlinux cannot be read: No such file" in refused(checkout, "plan")
