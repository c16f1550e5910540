"""The rules of the house that a program can check."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "fcbuild").rglob("*.py"))

# A module imports only from rooms that stand before its own.
ORDER = [
    {"errors"},
    {
        "fingerprint",
        "records",
        "tables",
        "network",
        "dockerfile",
        "progress",
        "interruption",
        "packages",
        "lock",
        "ext4",
    },
    {"digests", "ignore", "kconfig", "kernel_command_line", "kernelfile", "kernelneeds", "series"},
    {"spec"},
    {"recipes"},
    {"context", "fetch", "plan", "instance"},
    {"run", "store"},
    {"reasons"},
    {"build", "vmm"},
    {"checks", "look", "microvm", "second_boot", "preview", "verify", "gc", "fsck"},
    {"publish", "reproduce"},
    {"tasks", "reporter"},
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

# Whoever starts processes, talks HTTP, asks the engine or knows doit can be counted on one hand.
ONLY = {
    "requests": {"vmm/api.py", "publish/transport.py"},
    "requests_unixsocket": {"vmm/api.py"},
    "docker": {"build/containers.py", "build/engine.py"},
    "cryptography": {"publish/key.py"},
    "sigstore": {"publish/keyless.py"},
    "subprocess": {
        *("run.py", "vmm/process.py", "vmm/native.py", "vmm/emulated.py"),
        *("vmm/qemu.py", "vmm/virt.py"),
    },
    "doit": {
        *("tasks/project.py", "tasks/commands.py", "tasks/command_line.py", "tasks/action.py"),
        *("tasks/exports.py", "tasks/releases.py", "tasks/trust.py"),
        "reporter.py",
    },
}
STARTERS = {"run.py", "vmm/process.py"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def inside(path: Path) -> str:
    return path.relative_to(ROOT / "fcbuild").as_posix()


def room(path: Path) -> str:
    return Path(inside(path)).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports, those inside of functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_its_room() -> None:
    assert {room(path) for path in MODULES} - {"__init__"} <= RANK.keys()


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_imports_go_one_way(path: Path) -> None:
    own = room(path)
    for name in imports(path):
        package, *rest = name.split(".")
        if package != "fcbuild" or own == "__init__" or rest == ["__version__"]:
            continue
        other = rest[0]
        if other == own:
            continue
        same = RANK[other] == RANK[own] and other not in {"build", "vmm"}
        assert RANK[other] < RANK[own] or same, f"{inside(path)} imports {name}"


@pytest.mark.parametrize("package", ONLY)
def test_a_package_stays_in_its_modules(package: str) -> None:
    users = {
        inside(path) for path in MODULES if package in {n.split(".")[0] for n in imports(path)}
    }
    assert users <= ONLY[package]


def test_only_two_modules_start_processes() -> None:
    starting = re.compile(r"subprocess\.(run|Popen|call|check_\w+)\(|os\.(fork|exec|spawn|system)")
    users = {inside(path) for path in MODULES if starting.search(path.read_text("utf-8"))}
    assert users == STARTERS


def test_modules_are_nouns_of_the_domain() -> None:
    assert not {path.stem for path in MODULES} & FORBIDDEN_NAMES


def test_every_module_says_what_it_is() -> None:
    assert [inside(p) for p in MODULES if not ast.get_docstring(ast.parse(p.read_text()))] == []


def checked(*argv: str) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "argv",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=" ".join,
)
def test_python_is_clean(argv: tuple[str, ...]) -> None:
    checked(sys.executable, "-m", *argv)


@pytest.mark.parametrize("script", ["doitw", ".ci/kvm", ".ci/publish", ".ci/run"])
def test_shell_is_clean(script: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    checked("shellcheck", script)


PUBLIC = {
    *("build", "boot", "lock", "plan", "gc", "fsck", "reproduce"),
    *("config", "curl", "export", "publish", "verify-artifact"),
    *("kernel", "rootfs", "test", "lint"),
}


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """The tasks that doit lists, each with its line."""
    done = subprocess.run(
        [sys.executable, "-m", "doit", "list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (line.split(None, 1) for line in done.stdout.splitlines())
    return {line[0]: line[1] if len(line) > 1 else "" for line in lines}


def test_list_shows_the_tasks_with_a_line_each(listed: dict[str, str]) -> None:
    assert listed.keys() >= PUBLIC
    for kind, parent in [("kernel", "kernels"), ("rootfs", "images")]:
        # kernel:SERIES/PROFILE@ARCH, rootfs:IMAGE
        found = {name.partition(":")[2] for name in listed if name.startswith(f"{kind}:")}
        names = {re.split("[/@]", name)[0] for name in found}
        assert names
        assert names <= {path.name for path in (ROOT / parent).iterdir()}
    assert not [name for name, text in listed.items() if not text or name.startswith("_")]


def test_the_readme_names_every_public_task(listed: dict[str, str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tasks = {name.partition(":")[0] for name in listed}
    missing = [task for task in sorted(tasks) if not re.search(rf"doitw {task}\b", readme)]
    assert not missing
