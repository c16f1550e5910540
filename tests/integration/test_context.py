"""The build context against the engine's own: one directory, built by `docker build` and by us."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest

from fcbuild import context
from fcbuild.build.engine import Docker
from tests.workspace import Workspace

pytestmark = pytest.mark.engine

FILES = [
    *("a.log", "keep.log", "b.txt", "deep/a.log", "deep/keep.log", "deep/er/c.tmp", "deep/er/d"),
    *("cache/x", "cache/y/z", "lead/x", "trail/x", "with space", " x", "#hash", "[brackets]/x"),
    *(
        ".git/HEAD",
        "__pycache__/m.pyc",
        ".DS_Store",
        "docs/a.md",
        "docs/README.md",
        "docs/sub/b.md",
    ),
    *("bom", "star*name", "starname", "sub/Dockerfile", "sub/.dockerignore", "o/only/this", "é/ü"),
]
RULES = "\ufeff" + "\n".join(
    [
        *("bom", "# a comment", "", "  ", "*.log", "!keep.log", "**/*.tmp", "/lead", "trail/"),
        *("with space", "docs/*", "!docs/README.md", "cache/**", "\\[brackets\\]", "star\\*name"),
        *("deep/**/keep.log", "é", "o", "!o/only/this", "./nothing/../b.txt", "no/such/*"),
    ]
)


# Not among them: "*" with "!**/x". BuildKit before 0.10 does not look into what "*" leaves out.
@pytest.mark.parametrize(
    ("name", "rules"),
    [
        (".dockerignore", RULES),
        (".dockerignore", f"{RULES}\nDockerfile\n.dockerignore\n"),
        (".dockerignore", "*\n!docs\n!deep/er\n"),
        (".dockerignore", "**\n!keep.log\n!with space\n"),
        (".dockerignore", "*/*\n!sub\nDockerfile*\n"),
        (".dockerignore", "# nothing\r\n*.log\r\n"),
        (".dockerignore", "**/er\n!deep\n"),
        (".dockerignore", "deep\ndocs/sub\n!deep/er/*\n!docs\n"),
        (".dockerignore", "**/sub\n**/y\n.git\n"),
        ("Dockerfile.dockerignore", f"{RULES}\n*.dockerignore\n"),
    ],
)
def test_we_keep_what_the_engine_keeps(tmp_path: Path, name: str, rules: str) -> None:
    for file in FILES:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("deep")
    if name != ".dockerignore":
        (tmp_path / ".dockerignore").write_text("*\n")  # which does not count then
    (tmp_path / name).write_text(rules, encoding="utf-8", newline="")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    argv = [Docker().cli, "build", "--output", "type=tar,dest=-", "."]
    built = subprocess.run(
        argv,
        cwd=tmp_path,
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        check=True,
        capture_output=True,
    )
    with tarfile.open(fileobj=io.BytesIO(built.stdout)) as tar:
        theirs = {entry.name.rstrip("/") for entry in tar}
    assert {entry for entry, _, _ in context.entries(tmp_path)} == theirs


def test_a_dockerfile_that_is_ignored_builds_and_is_not_copied(checkout: Workspace) -> None:
    checkout.image(
        "hidden",
        "",
        'FROM scratch\nCOPY . /\nCMD ["/program"]\n',
        __dockerignore="Dockerfile\n.dockerignore\n*.log\n",
        program=f"#!/program\n{uuid.uuid4()}\n",
        x__log="",
    )
    (checkout.root / "images/hidden/link").symlink_to("program")
    result = checkout.doit("_image:hidden")
    assert result.status == 0, result.output
    (tag,) = re.findall(r"built +_image:hidden  (\w+)", result.output)
    out = io.BytesIO()
    with (checkout.root / "log").open("wb") as log, (checkout.root / "tar").open("w+b") as file:
        Docker().export(
            f"fcbuild/hidden:{tag}",
            file,
            platform="linux/amd64",
            log=log,
            log_path=checkout.root / "log",
        )
        file.seek(0)
        out.write(file.read())
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        entries = {entry.name: entry for entry in tar}
    assert entries.keys() == {"program", "link"}
    assert {int(entry.mtime) for entry in entries.values()} == {context.EPOCH}


def test_a_file_that_changes_between_plan_and_build_ends_the_build(
    checkout: Workspace, tmp_path: Path
) -> None:
    from fcbuild import spec
    from fcbuild.build.pipeline import Pipeline
    from fcbuild.errors import InputChanged
    from fcbuild.plan import Plan
    from fcbuild.store import Store

    checkout.image("moving", "", "FROM scratch\nCOPY a /\n", a=str(uuid.uuid4()))
    plan = Plan(spec.load(checkout.root))
    engine = Docker()
    pipeline = Pipeline(plan, Store(tmp_path / "store"), engine)
    tag = plan.container("moving").tag
    (checkout.root / "images/moving/a").write_text("another")
    with pytest.raises(InputChanged, match=r"moving/a: changed while it was being read"):
        pipeline.container("moving")
    assert not engine.has(tag)
    assert not list((tmp_path / "store/objects").glob("container/*"))


def test_one_changed_file_rebuilds_one_image_and_going_back_restores_it(
    checkout: Workspace,
) -> None:
    dockerfile = (
        "FROM fcbuild/hello AS hello\nFROM scratch\nCOPY --from=hello / /\nCOPY note /note\n"
        'CMD ["/hello"]\n'
    )
    for name in ("one", "two"):
        checkout.image(name, "", dockerfile, note=str(uuid.uuid4()))
    first = checkout.doit("build", "image=one,two")
    assert first.status == 0, first.output
    note = checkout.root / "images/one/note"
    before = note.read_text()
    note.write_text(str(uuid.uuid4()))
    said = checkout.doit("plan", "image=one,two", "--json")
    rows = {row["name"]: row for row in json.loads(said.output)["artifacts"]}
    assert rows["rootfs:one"]["reasons"] == ["changed: images/one/note"]
    assert rows["rootfs:two"]["state"] == "linked"
    second = checkout.doit("build", "image=one,two")
    assert second.status == 0, second.output
    assert re.findall(r"^built +(\S+)", second.output, re.M) == ["_image:one", "rootfs:one"]
    note.write_text(before)
    dead = {"DOCKER_HOST": f"unix://{checkout.root}/none.sock"}
    third = checkout.doit("build", "image=one,two", env=dead)
    assert third.status == 0, third.output
    assert re.search(r"^restored rootfs:one  \w{12}$", third.output, re.M)
    assert re.search(r"^stored   rootfs:two$", third.output, re.M)
