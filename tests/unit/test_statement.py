"""Statements, and the predicates of provenance and boot results that stand in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fcbuild import spec
from fcbuild.errors import EvidenceError
from fcbuild.fingerprint import canonical, digest
from fcbuild.plan import Plan
from fcbuild.publish import bootresult, jsontext, provenance, statement
from fcbuild.publish.subject import Kernel
from tests.unit.test_sbom import BUILT, GIVEN, image

DIGEST = "7" * 64


def test_a_statement_is_read_back() -> None:
    text = statement.document("web", DIGEST, "boot", {"result": "PASSED"})
    found = statement.parse(text)
    assert json.loads(text)["_type"] == "https://in-toto.io/Statement/v1"
    assert (found.kind, found.predicate) == ("boot", {"result": "PASSED"})
    assert (found.names(DIGEST), found.names("8" * 64)) == (["web"], [])


def changed(**fields: Any) -> bytes:
    return json.dumps(
        {**json.loads(statement.document("web", DIGEST, "sbom", {})), **fields}
    ).encode()


SUBJECT = {"name": "web", "digest": {"sha256": DIGEST}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "Expecting value"),
        (b"\xff", "utf-8"),
        (b"[]", "not of type"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"_type": 1, "_type": 2}', "a key twice"),
        (changed(_type="https://in-toto.io/Statement/v0.1"), "not of type"),
        (changed(predicateType=None), "no predicate"),
        (changed(predicate=[]), "no predicate"),
        (changed(subject=[]), "no list of subjects"),
        (changed(subject={"name": "a"}), "no list of subjects"),
        (changed(subject=[SUBJECT] * 1001), "no list of subjects"),
        (changed(subject=["web"]), "a subject has no digest"),
        (changed(subject=[{"name": "web"}]), "a subject has no digest"),
        (changed(subject=[{"name": "web", "digest": {"sha256": "xyz"}}]), "no sha256"),
        (changed(subject=[{"name": 1, "digest": {"sha256": DIGEST}}]), "no sha256"),
        (changed(subject=[{"name": "web", "digest": {"sha256": "A" * 64}}]), "no sha256"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_is_no_statement_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(EvidenceError, match=said):
        statement.parse(text)


def test_a_subject_may_have_other_digests_only() -> None:
    found = statement.parse(changed(subject=[{"digest": {"sha512": "x"}}, SUBJECT]))
    assert found.subjects == (("web", DIGEST),)


def test_numbers_of_a_megabyte_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="digit"):
        jsontext.parse(b"1" * 1_000_000)


# Provenance


@pytest.fixture
def plan(checkout: Path) -> Plan:
    (checkout / "images/lock.toml").write_text(
        """
        [image."docker.example.com:5000/os/alpine:3.23"]
        digest = "sha256:%s"
        time = 2026-01-31T12:00:00Z
        [base.base]
        suite = "trixie"
        asked = ["bash", "curl"]
        time = 2026-01-31T12:00:00Z
        [base.base.packages]
        bash = "5.2.37-2+b10"
        "libc6:i386" = "2.41-12"
        """
        % ("5" * 64)
    )
    (checkout / "images/web/Dockerfile").write_text(
        "FROM fcbuild/base\nARG VERSION\nCOPY --from=docker.example.com:5000/os/alpine:3.23 /a /a\n"
        "COPY --from=busybox /a /a\n"
    )
    (checkout / "images/web/image.toml").write_text(
        'kernel = "6.12"\n[build]\nargs = { TOKEN = "hidden-value" }\n'
    )
    (checkout / "kernels/6.12/fix.patch").write_text("--- a\n")
    return Plan(spec.load(checkout))


def predicate(plan: Plan, name: str = "web", known: Kernel = BUILT, moved: Any = None) -> Any:
    kernel = plan.kernel(plan.specs.images[name].kernel)
    made = provenance.predicate(image(image=name), plan.rootfs(name), kernel, known, moved or {})
    return json.loads(canonical(made))


def dependencies(found: Any) -> list[Any]:
    return list(found["buildDefinition"]["resolvedDependencies"])


def test_provenance_names_what_was_asked_for_and_every_fingerprint(plan: Plan) -> None:
    found = predicate(plan)["buildDefinition"]
    assert found["externalParameters"] == {
        "image": "web",
        "arch": "x86_64",
        "kernel": "6.12",
        "buildArguments": ["TOKEN"],
    }
    assert found["internalParameters"]["fingerprints"] == {
        str(recipe): recipe.fingerprint
        for recipe in (
            *(plan.toolchain, plan.init, plan.kernel("6.12")),
            *(plan.container("base"), plan.container("web"), plan.rootfs("web")),
        )
    }


def test_provenance_holds_no_value_of_a_build_argument(plan: Plan) -> None:
    assert "hidden-value" not in json.dumps(predicate(plan))


def test_provenance_names_what_an_image_was_made_from(plan: Plan, checkout: Path) -> None:
    found = dependencies(predicate(plan))
    uris = [one["uri"] for one in found if "uri" in one]
    named = {one["name"]: one.get("digest") for one in found if "name" in one}
    assert {
        "uri": "pkg:docker/docker.example.com:5000/os/alpine@3.23?platform=linux%2Famd64",
        "digest": {"sha256": "5" * 64},
    } in found
    assert "pkg:docker/busybox@latest?platform=linux%2Famd64" in uris
    assert "pkg:deb/debian/bash@5.2.37-2%2Bb10?arch=amd64&distro=trixie" in uris
    assert "pkg:deb/debian/libc6@2.41-12?arch=i386&distro=trixie" in uris
    assert [uri for uri in uris if uri.startswith("pkg:deb/debian/gcc-")], "the toolchain's"
    for name in ("base.config", "net.config"):
        path = checkout / "kernels/fragments" / name
        assert named[f"kernels/fragments/{name}"] == {"sha256": digest(path)}
    assert named["package linux-source-6.12 6.12.117-1"] == {"sha256": "e" * 64}
    assert named["images/web/Dockerfile"].keys() == {"sha256"}
    assert named["images/web"].keys() == {"fcbuildTree"}
    assert named["fcbuild/guest"].keys() == {"fcbuildTree"}


def test_of_a_kernel_that_does_not_say_its_source_all_that_were_pinned_are_named(
    plan: Plan,
) -> None:
    named = {
        one.get("name"): one.get("digest") for one in dependencies(predicate(plan, known=GIVEN))
    }
    assert named["kernel:6.12 source 6.12.1-1"] == {"sha256": "1" * 64}
    assert named["kernel:6.12 source 6.12.2"] == {"sha256": "2" * 64}


def test_a_base_that_is_not_as_locked_is_not_said_to_be(plan: Plan) -> None:
    base = plan.container("base").fingerprint
    found = dependencies(predicate(plan, moved={base: ["bash 1 -> 2"]}))
    (about,) = (one["annotations"] for one in found if one.get("name") == "base:base")
    assert about["notAsLocked"] == ["bash 1 -> 2"]
    assert not [one for one in found if "libc6@2.41-12?arch=i386" in one.get("uri", "")]


def test_a_base_that_is_not_locked_is_said_to_be_so(checkout: Path) -> None:
    found = dependencies(predicate(Plan(spec.load(checkout))))
    (about,) = (one["annotations"] for one in found if one.get("name") == "base:base")
    assert about["locked"] is False


def test_the_same_checkout_gives_the_same_provenance(plan: Plan, checkout: Path) -> None:
    again = Plan(spec.load(checkout))
    assert canonical(predicate(plan)) == canonical(predicate(again))


# Boot results

RECEIPT: dict[str, Any] = {
    "schema": 1,
    "image": "web",
    "ok": True,
    "error": None,
    "second_boot": None,
    "kernel": {"name": "6.12", "fingerprint": "1" * 64, "digest": "sha256:" + "a" * 64},
    "rootfs": {"name": "web", "fingerprint": "2" * 64, "digest": "sha256:" + "b" * 64},
    "arch": "x86_64",
    "vmm": {"name": "firecracker", "version": "1.12.1", "kvm": "emulated"},
    "instance": ["env.SECRET"],
    "events": [{"event": "exec", "t_ns": 1}],
    "timings_ms": {"total": 3432},
    "health": {"status": "healthy", "failing": 0, "code": 0, "output": "private words"},
    "checks": [{"title": "http :80/ -> 200", "ok": True, "detail": "private words"}],
    "exit": {"code": 0, "signal": 0, "reason": "stopped"},
}


def result(**fields: Any) -> Any:
    return bootresult.predicate(json.dumps({**RECEIPT, **fields}).encode(), image())


def test_a_good_receipt_is_a_passed_test() -> None:
    found = result()
    assert found["result"] == "PASSED"
    assert found["passedTests"] == ["boot", "health", "http :80/ -> 200"]
    assert found["failedTests"] == []
    configured = {one["name"]: one for one in found["configuration"]}
    assert configured["vmlinux"]["digest"] == {"sha256": "a" * 64}
    assert configured["rootfs.ext4"]["digest"] == {"sha256": "b" * 64}
    assert configured["firecracker"]["annotations"] == {"version": "1.12.1", "kvm": "emulated"}
    assert configured["instance"]["annotations"] == {"set": ["env.SECRET"]}
    assert found["timingsMs"] == {"total": 3432}


def test_what_programs_wrote_stays_in_the_receipt() -> None:
    assert "private words" not in json.dumps(result())


def test_a_failed_boot_is_a_failed_test() -> None:
    failed = {**RECEIPT["checks"][0], "ok": False}
    found = result(ok=False, error="it did not", checks=[failed], health=None, instance=None)
    assert (found["result"], found["passedTests"]) == ("FAILED", [])
    assert found["failedTests"] == ["boot", "http :80/ -> 200"]


@pytest.mark.parametrize("file", ["kernel", "rootfs"])
def test_a_receipt_of_other_files_proves_nothing(file: str) -> None:
    with pytest.raises(EvidenceError, match="is about another"):
        result(**{file: {**RECEIPT[file], "digest": "sha256:" + "f" * 64}})


@pytest.mark.parametrize(
    "fields",
    [{"schema": 2}, {"kernel": None}, {"checks": [1]}, {"vmm": {}}, {"timings_ms": {"a": "b"}}],
    ids=str,
)
def test_a_receipt_that_makes_no_sense_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match="the receipt of web cannot be used"):
        result(**fields)
