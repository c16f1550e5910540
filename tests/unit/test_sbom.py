"""The bill of materials: valid CycloneDX, the same bytes each time, URLs that others read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from fcbuild.errors import BuildError, EvidenceError
from fcbuild.fingerprint import canonical
from fcbuild.look import inventory
from fcbuild.look.inventory import Inventory
from fcbuild.packages import Package
from fcbuild.publish import purl, sbom, subject
from fcbuild.publish.subject import Kernel, Source, Subject
from fcbuild.store import Artifact
from tests.entries import tree
from tests.unit.test_inventory import APK, STATUS, described

EPOCH = 1_795_495_776
INIT = "c" * 64
BUILT = Kernel(
    "6.12.117", "d" * 64, Source("package linux-source-6.12 6.12.117-1", "e" * 64, ("a.patch",))
)
GIVEN = Kernel("6.1.0-42-cloud-amd64", None, None)
UNKNOWN = Kernel(None, None, None)


def image(**fields: Any) -> Subject:
    kernel = Artifact("kernel", "6.12", "1" * 64, Path("/k"), {"vmlinux": "a" * 64}, {})
    rootfs = Artifact("rootfs", "web", "2" * 64, Path("/r"), {"rootfs.ext4": "b" * 64}, {})
    return Subject("web", "x86_64", kernel, rootfs)._replace(**fields)


ROOT = {
    "etc__os-release": 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13"\n',
    "var__lib__dpkg__status": STATUS,
    "lib__apk__db__installed": APK,
    "v__Foo_Bar-1.dist-info__METADATA": "Name: Foo_Bar\nVersion: 1\n",
    "w__foo-bar-1.dist-info__METADATA": "Name: foo-bar\nVersion: 1\n",
    "a__node_modules__@s__b__package.json": described("@s/b", "2.0.0"),
    "a__node_modules__x\udcff__package.json": "{}",
}


def inventoried() -> Inventory:
    return inventory.take(tree(**ROOT))


def bom(kernel: Kernel = BUILT, found: Inventory | None = None, **fields: Any) -> Any:
    found = inventoried() if found is None else found
    document = sbom.document(image(**fields), kernel, found, init=INIT, epoch=EPOCH)
    return json.loads(canonical(document))


@pytest.mark.parametrize("kernel", [BUILT, GIVEN, UNKNOWN])
@pytest.mark.parametrize("found", [inventoried(), Inventory({}, {}, ())], ids=["full", "empty"])
def test_it_is_what_the_schema_asks_for(kernel: Kernel, found: Inventory) -> None:
    text = json.dumps(bom(kernel, found))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_schema_would_notice() -> None:
    broken = {**bom(), "serialNumber": "urn:uuid:1"}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


def test_the_same_image_gives_the_same_bytes() -> None:
    again = inventory.take(tree(**dict(reversed(ROOT.items()))))
    assert canonical(bom(found=again)) == canonical(bom())


def test_another_image_has_another_serial_number() -> None:
    other = image().rootfs._replace(digests={"rootfs.ext4": "9" * 64})
    serials = {
        bom()["serialNumber"],
        bom(rootfs=other)["serialNumber"],
        bom(image="x")["serialNumber"],
    }
    assert len(serials) == 3


def test_the_time_is_the_images() -> None:
    assert bom()["metadata"]["timestamp"] == "2026-11-24T04:49:36Z"


def test_references_are_unique_and_all_lead_somewhere() -> None:
    document = bom()
    references = [one["bom-ref"] for one in document["components"]]
    assert len(references) == len(set(references))
    assert document["dependencies"] == [{"ref": "microvm", "dependsOn": references}]


def component(document: Any, name: str) -> Any:
    (found,) = (one for one in document["components"] if one["name"] == name)
    return found


def test_the_kernel_is_there_with_the_digest_of_its_configuration() -> None:
    kernel = component(bom(), "linux-kernel")
    assert kernel["purl"] == "pkg:generic/linux-kernel@6.12.117"
    assert kernel["cpe"] == "cpe:2.3:o:linux:linux_kernel:6.12.117:*:*:*:*:*:*:*"
    assert kernel["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    properties = {one["name"]: one["value"] for one in kernel["properties"]}
    assert properties == {
        "fcbuild:kernel": "6.12",
        "fcbuild:kernel:config-sha256": "d" * 64,
        "fcbuild:kernel:source": "package linux-source-6.12 6.12.117-1",
        "fcbuild:kernel:source-sha256": "e" * 64,
        "fcbuild:kernel:patch": "a.patch",
    }


def test_of_a_distributions_kernel_no_upstream_release_is_claimed() -> None:
    kernel = component(bom(GIVEN), "linux-kernel")
    assert "cpe" not in kernel
    assert kernel["version"] == "6.1.0-42-cloud-amd64"


def test_one_package_in_many_places_is_one_component() -> None:
    found = component(bom(), "Foo_Bar")
    assert found["evidence"]["occurrences"] == [
        {"location": "/v/Foo_Bar-1.dist-info/METADATA"},
        {"location": "/w/foo-bar-1.dist-info/METADATA"},
    ]


def test_what_could_not_be_read_is_said() -> None:
    assert bom()["properties"] == [
        {"name": "fcbuild:unreadable", "value": r"/a/node_modules/x\xff/package.json"}
    ]
    assert "properties" not in bom(found=Inventory({}, {}, ()))


DEBIAN = {"ID": "debian", "VERSION_ID": "13"}


@pytest.mark.parametrize(
    ("package", "distribution", "url"),
    [
        (
            Package("deb", "libstdc++6", "1:14.2.0-19+b1~x", "amd64", "gcc-14", "14.2.0-19"),
            DEBIAN,
            "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19%2Bb1~x"
            "?arch=amd64&distro=debian-13&upstream=gcc-14%4014.2.0-19",
        ),
        (
            Package("apk", "musl", "1.2.5-r9", "x86_64"),
            {"ID": "alpine", "VERSION_ID": "3.23.0"},
            "pkg:apk/alpine/musl@1.2.5-r9?arch=x86_64&distro=alpine-3.23.0",
        ),
        (Package("apk", "musl", "1"), {}, "pkg:apk/alpine/musl@1?distro=alpine"),
        (Package("deb", "a", "1"), {"ID": "../x"}, "pkg:deb/debian/a@1?distro=debian"),
        (Package("pypi", "Foo_Bar", "1!2+l"), DEBIAN, "pkg:pypi/foo-bar@1%212%2Bl"),
        (Package("npm", "@s/b", "2.0.0"), DEBIAN, "pkg:npm/%40s/b@2.0.0"),
        (Package("npm", "a?b#c%", "1/2@&=ü"), {}, "pkg:npm/a%3Fb%23c%25@1%2F2%40%26%3D%C3%BC"),
    ],
)
def test_package_urls_say_to_others_what_we_meant(
    package: Package, distribution: dict[str, str], url: str
) -> None:
    assert purl.of(package, distribution) == url
    read = PackageURL.from_string(url)
    name = (
        f"{read.namespace}/{read.name}"
        if package.ecosystem == "npm" and read.namespace
        else read.name
    )
    assert (read.type, read.version) == (package.ecosystem, package.version)
    assert name == (package.name if package.ecosystem != "pypi" else "foo-bar")


def test_what_a_kernels_build_wrote_down_is_what_is_known(tmp_path: Path) -> None:
    about = {
        "release": "6.12.117",
        "config_sha256": "d" * 64,
        "source": {"title": "package x", "sha256": "e" * 64},
        "patches": [],
    }
    (tmp_path / "kernel.json").write_text(json.dumps(about))
    kernel = image().kernel._replace(
        directory=tmp_path, digests={"vmlinux": "a" * 64, "kernel.json": "f" * 64}
    )
    found = subject.kernel(image(kernel=kernel))
    assert found == Kernel("6.12.117", "d" * 64, Source("package x", "e" * 64, ()))
    (tmp_path / "kernel.json").write_text("{}")
    with pytest.raises(EvidenceError, match=r"kernel\.json cannot be used"):
        subject.kernel(image(kernel=kernel))


def test_of_a_kernel_that_was_given_its_own_bytes_are_asked(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(b"no kernel" * 20)
    with pytest.raises(BuildError, match="vmlinux is no kernel"):
        subject.kernel(image(kernel=image().kernel._replace(directory=tmp_path)))
