"""What the tests share: a small checkout to plan, short directories for sockets, golden files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what comes to tests/golden/"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Compare a JSON value with tests/golden/NAME.json, or write it with --update-golden."""

    def compare(name: str, value: Any) -> None:
        path = GOLDEN / f"{name}.json"
        if request.config.getoption("--update-golden"):
            path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
        expected = json.loads(path.read_text())
        assert value == expected, f"{path.name} is another; --update-golden when that is meant"

    return compare


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory for unix sockets, whose paths have at most 107 bytes; tmp_path is longer."""
    with tempfile.TemporaryDirectory(prefix="fct-") as directory:
        yield Path(directory)


FILES = {
    "kernels/6.12/kernel.toml": """
        description = "a kernel"
        fragments = ["base", "net"]
        [[source]]
        debian = "linux-source-6.12"
        version = "6.12.1-1"
        sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
        [[source]]
        url = "https://example.org/linux.tar.xz"
        version = "6.12.2"
        sha256 = "2222222222222222222222222222222222222222222222222222222222222222"
        """,
    "kernels/tiny/kernel.toml": """
        fragments = ["base"]
        [[source]]
        url = "https://example.org/linux.tar.xz"
        version = "6.12.2"
        sha256 = "2222222222222222222222222222222222222222222222222222222222222222"
        """,
    "kernels/fragments/base.config": "CONFIG_BASE=y\n",
    "kernels/fragments/net.config": "CONFIG_NET=y\n# CONFIG_WLAN is not set\n",
    "images/base/image.toml": """
        description = "a base"
        [bootstrap]
        suite = "trixie"
        packages = ["curl", "bash"]
        """,
    "images/web/image.toml": """
        description = "a web server"
        kernel = "6.12"
        [build]
        args = { VERSION = "1" }
        [machine]
        memory = "64MiB"
        [[check]]
        http = { port = 80, contains = "Hi" }
        """,
    "images/web/Dockerfile": 'FROM fcbuild/base\nCOPY . /srv\nCMD ["serve"]\n',
    "images/web/index.html": "Hi\n",
    "images/tool/image.toml": '[rootfs]\nsize = "64MiB"\n',
    "images/tool/Dockerfile": 'FROM scratch\nCOPY tool /tool\nCMD ["/tool"]\n',
    "images/tool/tool": "#!/bin/true\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of two kernels and three images: a base, one upon it, one upon nothing."""
    root = tmp_path / "checkout"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
