"""PID 1's parsers with hostile bytes, under the sanitizers; its C under gcc's analyzer.

A short run of each fuzz target, with clang's libFuzzer where that is installed, else by random
changes with gcc. The long one: `python -m tests.fuzz_seeds OUT` and
`make -C fcbuild/guest OUT=OUT fuzz RUNS=5000000`.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fuzz_seeds

GUEST = Path(__file__).resolve().parents[2] / "fcbuild" / "guest"
RUNS = 50_000
SANITIZERS = "-g -fsanitize=address,undefined -fno-sanitize-recover=all"

Make = Callable[..., None]


def works(compiler: str, *flags: str) -> bool:
    """Whether the compiler is there and links a program with these flags."""
    if shutil.which(compiler) is None:
        return False
    program = "int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }"
    if "-fsanitize=fuzzer" not in flags:
        program += "int main(void) { return 0; }"
    return (
        subprocess.run(
            [compiler, *flags, "-x", "c", "-", "-o", "/dev/null"],
            input=program,
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        ).returncode
        == 0
    )


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Run make for a target of the guest's Makefile; what it prints is the error."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    out = tmp_path_factory.mktemp("fuzz")
    fuzz_seeds.write(out)

    def run(target: str, *variables: str) -> None:
        done = subprocess.run(
            ["make", "-C", str(GUEST), f"OUT={out}", *variables, target],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:]

    return run


@pytest.fixture(scope="module")
def fuzzer() -> tuple[str, str]:
    """The Makefile's kind of fuzz target that can be built here, and the compiler."""
    if works("clang", "-fsanitize=fuzzer", "-fsanitize=address,undefined"):
        return "fuzz", "FUZZ_CC=clang"
    if works("gcc", "-fsanitize=address,undefined"):
        return "standalone", "CC=gcc"
    pytest.skip("neither clang with libFuzzer nor gcc with its sanitizers is installed")


@pytest.mark.parametrize("target", sorted(fuzz_seeds.SEEDS))
def test_hostile_bytes(make: Make, fuzzer: tuple[str, str], target: str) -> None:
    """No input makes a parser read or write out of bounds, or hand on what it must not."""
    kind, compiler = fuzzer
    make(f"{kind}-{target}", compiler, f"RUNS={RUNS}")


def test_every_parser_has_seeds() -> None:
    """The targets of the Makefile and those of the seeds are the same."""
    sources = (GUEST / "tests").glob("fuzz_*.c")
    assert {path.stem.removeprefix("fuzz_") for path in sources} - {"standalone"} == set(
        fuzz_seeds.SEEDS
    )


def test_unit_tests_under_sanitizers(make: Make) -> None:
    """The C unit tests touch nothing that is not theirs."""
    if not works("gcc", "-fsanitize=address,undefined"):
        pytest.skip("gcc with its sanitizers is not installed")
    make("host-tests", "CC=gcc", f"EXTRA_CFLAGS={SANITIZERS}")


def test_analyzer(make: Make) -> None:
    """gcc's analyzer finds nothing."""
    if not works("gcc", "-fanalyzer"):
        pytest.skip("gcc with its analyzer is not installed")
    make("analyze", "CC=gcc")
