"""CI's files: thin, of commands that there are, and nothing from outside is part of one."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fcbuild.tasks import command_line

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW, GITLAB, ACTION = ".github/workflows/ci.yml", ".gitlab-ci.yml", "action.yml"
FILES = (WORKFLOW, GITLAB, ACTION)
# What GitLab knows at the top of its file, besides jobs.
GITLAB_KEYWORDS = {"stages", "variables", "default", "workflow"}


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def commands(value: Any) -> Iterator[str]:
    """Yield what a file hands to a shell: `run` of a step, `script` of a job."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in {"run", "script"} and not isinstance(inner, dict):
                yield from [inner] if isinstance(inner, str) else inner
            else:
                yield from commands(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from commands(inner)


def tasks() -> set[str]:
    names = (
        node.name
        for node in ast.parse((ROOT / "dodo.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
    )
    return {name.removeprefix("task_") for name in names if name.startswith("task_")} | {"list"}


@pytest.mark.parametrize("name", FILES)
def test_what_is_run_is_there(name: str) -> None:
    found = [*commands(load(name))]
    assert found
    for command in found:
        for script in re.findall(r"(?<![\w/])(?:\./)?(\.ci/[\w-]+|doitw)\b", command):
            assert os.access(ROOT / script, os.X_OK), script
        plain = re.sub(r"\$\{\{.*?\}\}", "x", command).replace("$TASKS", "build")
        for words in re.findall(r"doitw((?: [^|>&;)\n]+)?)", plain):
            for word in words.split():
                if "=" in word:
                    assert word.partition("=")[0] in command_line.VARIABLES, word
                elif not word.startswith("-"):
                    assert word in tasks(), word


@pytest.mark.parametrize("name", FILES)
def test_each_job_is_one_command_and_little_besides(name: str) -> None:
    for command in commands(load(name)):
        assert len(command.strip().splitlines()) <= 2, command


@pytest.mark.parametrize("name", FILES)
def test_nothing_from_outside_becomes_part_of_a_command(name: str) -> None:
    """What others choose (a branch's name, an input) reaches a shell in its environment only."""
    for command in commands(load(name)):
        inserted = re.findall(r"\$\{\{\s*([^}]*?)\s*\}\}", command)
        assert set(inserted) <= {"matrix.image"}, command


def test_the_workflow_may_write_only_where_it_publishes() -> None:
    workflow = load(WORKFLOW)
    assert workflow["permissions"] == {"contents": "read"}
    own = {
        name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job
    }
    assert own.keys() == {"publish"}
    assert own["publish"] == {"contents": "read", "id-token": "write", "attestations": "write"}
    assert "github.ref_type == 'tag'" in workflow["jobs"]["publish"]["if"]
    assert "pull_request_target" not in (ROOT / WORKFLOW).read_text()


def test_every_job_ends_and_says_which_version_of_what_it_uses() -> None:
    for job in load(WORKFLOW)["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert ("run" in step) != bool(
                re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", ""))
            )


def test_jobs_come_after_what_they_need() -> None:
    jobs = load(WORKFLOW)["jobs"]
    names = [*jobs]
    for name, job in jobs.items():
        needs = job.get("needs", [])
        for other in [needs] if isinstance(needs, str) else needs:
            assert names.index(other) < names.index(name)
    gitlab = load(GITLAB)
    stages = {job["stage"] for key, job in gitlab.items() if key not in GITLAB_KEYWORDS}
    assert stages == {*gitlab["stages"]}


def test_both_build_and_publish_the_same_images() -> None:
    github, gitlab = load(WORKFLOW)["jobs"], load(GITLAB)
    lists = [
        *(github[job]["strategy"]["matrix"]["image"] for job in ("boot", "publish")),
        *(gitlab[job]["parallel"]["matrix"][0]["IMAGE"] for job in ("boot", "publish")),
    ]
    assert all(images == lists[0] for images in lists)
    assert all((ROOT / "images" / image / "image.toml").exists() for image in lists[0])


def test_the_action_says_what_its_inputs_are_and_uses_all() -> None:
    action = load(ACTION)
    assert action["runs"]["using"] == "composite"
    text = json.dumps(action["runs"])
    for name, described in action["inputs"].items():
        assert described["description"] and "default" in described
        assert f"inputs.{name} " in text, name
    assert all(step["shell"] == "bash" for step in action["runs"]["steps"])


def test_the_readmes_example_of_the_action_fits_it() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n((?:(?!```).)*?/fcbuild@(?:(?!```).)*?)```", readme, re.S)
    steps = yaml.safe_load(textwrap.dedent(example))
    assert len(example.strip().splitlines()) == 6
    (ours,) = (step for step in steps if "/fcbuild@" in step["uses"])
    assert ours["with"].keys() <= load(ACTION)["inputs"].keys()


@pytest.fixture
def publish(tmp_path: Path) -> Path:
    """A copy of .ci/publish, beside a doitw that notes how it is called and has two images."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/publish", tmp_path / ".ci")
    (tmp_path / "doitw").write_text(
        "#!/bin/sh\n"
        f'echo "$@" >>{tmp_path}/calls\n'
        "case $* in\n"
        '*bad*) exit 1 ;;\nlist) echo "boot  a"; echo "rootfs:b  b"; echo "rootfs:c" ;;\nesac\n'
    )
    (tmp_path / "doitw").chmod(0o755)
    return tmp_path


def published(at: Path, *images: str, **env: str) -> tuple[int, list[str]]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PUBLISH_")}
    done = subprocess.run([at / ".ci/publish", *images], env={**clean, **env}, check=False)
    return done.returncode, (at / "calls").read_text().splitlines()


def test_images_boot_and_then_go_below_one_place(publish: Path) -> None:
    status, calls = published(publish, "b", PUBLISH_TO="localhost:5000/team", PUBLISH_TAG="v1")
    assert (status, calls) == (0, ["boot publish image=b to=localhost:5000/team/b:v1"])


def test_what_is_published_is_signed_when_there_is_a_key(publish: Path) -> None:
    _, calls = published(publish, "b", PUBLISH_TO="localhost:5000/x", PUBLISH_KEY="/a key")
    assert calls == ["boot publish image=b to=localhost:5000/x/b:latest key=/a key"]


def test_without_a_place_they_only_boot_and_without_names_all_do(publish: Path) -> None:
    assert published(publish) == (0, ["list", "boot image=b", "boot image=c"])


def test_an_image_that_does_not_boot_ends_it(publish: Path) -> None:
    status, calls = published(publish, "bad", "c", PUBLISH_TO="localhost:5000/team")
    assert (status, calls) == (1, ["boot publish image=bad to=localhost:5000/team/bad:latest"])


def test_gitlabs_jobs_come_from_the_same_matrix() -> None:
    def made(include: list[dict[str, str]]) -> Any:
        done = subprocess.run(
            [ROOT / ".ci/gitlab-build"],
            input=json.dumps({"include": include}),
            text=True,
            capture_output=True,
            check=True,
        )
        return yaml.safe_load(done.stdout)

    entry = {"kernel": "6.12/micro", "arch": "x86_64", "images": "a", "tasks": "kernel:6.12/micro"}
    job = made([entry])["build 6.12/micro"]
    assert job["script"] == ["./doitw kernel:6.12/micro"]
    assert job["tags"] == load(GITLAB)["default"]["tags"]
    assert [*made([]).values()] == [{"script": ["true"]}]  # GitLab wants one job
