"""What is in an image, as CycloneDX 1.6: the kernel, PID 1, the distribution and every package.

Pure and deterministic: the same image gives the same bytes. No time of day, no random number: the
serial number follows from the files' digests, the time is the image's own.
(https://cyclonedx.org/docs/1.6/json/)
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from fcbuild import __version__
from fcbuild.fingerprint import Json
from fcbuild.look.inventory import Inventory
from fcbuild.look.text import visible
from fcbuild.publish import purl
from fcbuild.publish.subject import Kernel, Subject

FORMAT, VERSION = "CycloneDX", "1.6"
MEDIA_TYPE = "application/vnd.cyclonedx+json"

_ROOT = "microvm"
_UPSTREAM = re.compile(r"\d+\.\d+(\.\d+)?")  # the beginning of what uname -r says

Component = dict[str, Json]


def document(
    subject: Subject, kernel: Kernel, inventory: Inventory, *, init: str, epoch: int
) -> Component:
    """Return the bill of materials. init: sha256 of the PID 1 in the image; epoch: the image's
    time, in s since 1970."""
    components = [
        _kernel(subject, kernel),
        _init(init),
        *_distribution(inventory),
        *_packages(inventory),
    ]
    digests = " ".join(f"{name}={digest}" for name, digest in sorted(subject.files.items()))
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"fcbuild {__version__} {subject.image} {digests}")
    unreadable: list[Json] = [
        _property("unreadable", visible(path)) for path in inventory.unreadable
    ]
    root: Component = {
        "type": "container",  # the word also for what isolates by virtualization
        "bom-ref": _ROOT,
        "name": subject.image,
        "version": subject.rootfs.fingerprint,
        "properties": [_property("arch", subject.arch)],
        "components": [
            {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": _hashes(digest)}
            for name, digest in sorted(subject.files.items())
        ],
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": FORMAT,
        "specVersion": VERSION,
        "serialNumber": serial.urn,
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {
                "components": [{"type": "application", "name": "fcbuild", "version": __version__}]
            },
            "component": root,
        },
        "components": components,
        "dependencies": [{"ref": _ROOT, "dependsOn": [str(one["bom-ref"]) for one in components]}],
        # Files that no package manager knows of are not listed.
        "compositions": [{"aggregate": "incomplete", "assemblies": [_ROOT]}],
        **({"properties": unreadable} if unreadable else {}),
    }


def _kernel(subject: Subject, kernel: Kernel) -> Component:
    """The kernel is an application here: scanners take the one operating system of a document for
    the distribution, whose advisories say nothing about a kernel that was built elsewhere."""
    url = purl.make("generic", "linux-kernel", kernel.release or "")
    properties = [_property("kernel", subject.kernel.name)]
    if kernel.config_sha256:
        properties.append(_property("kernel:config-sha256", kernel.config_sha256))
    component: Component = {
        "type": "application",
        "bom-ref": url,
        "name": "linux-kernel",
        **({"version": kernel.release} if kernel.release else {}),
        "purl": url,
        "hashes": _hashes(subject.files[subject.kernel_file]),
    }
    if source := kernel.source:
        # Only of a kernel that was built from known sources is it known that its release is
        # upstream's: a distribution's own says 6.1.0 for many.
        if upstream := _UPSTREAM.match(kernel.release or ""):
            component["cpe"] = f"cpe:2.3:o:linux:linux_kernel:{upstream[0]}:*:*:*:*:*:*:*"
        properties.append(_property("kernel:source", source.title))
        properties.append(_property("kernel:source-sha256", source.sha256))
        properties += [_property("kernel:patch", name) for name in source.patches]
    component["properties"] = properties
    return component


def _init(digest: str) -> Component:
    return {
        "type": "application",
        "bom-ref": "init",
        "name": "fcbuild-init",
        "version": __version__,
        "description": "the microVM's PID 1",
        "hashes": _hashes(digest),
    }


def _distribution(inventory: Inventory) -> Iterator[Component]:
    fields = inventory.distribution
    if "ID" in fields:
        version: Component = {"version": fields["VERSION_ID"]} if "VERSION_ID" in fields else {}
        title: Component = {"description": fields["PRETTY_NAME"]} if "PRETTY_NAME" in fields else {}
        yield {
            "type": "operating-system",
            "bom-ref": "distribution",
            "name": fields["ID"],
            **version,
            **title,
        }


def _packages(inventory: Inventory) -> Iterator[Component]:
    """Yield a component for each package URL, however many files say that it is there."""
    found: dict[str, tuple[str, str, set[str]]] = {}
    for package, paths in inventory.packages.items():
        url = purl.of(package, inventory.distribution)
        name, version, seen = found.setdefault(url, (package.name, package.version, set()))
        found[url] = (name, version, seen.union(paths))
    for url in sorted(found):
        name, version, places = found[url]
        yield {
            "type": "library",
            "bom-ref": url,
            "name": name,
            "version": version,
            "purl": url,
            "evidence": {"occurrences": [{"location": visible(path)} for path in sorted(places)]},
        }


def _property(name: str, value: str) -> Json:
    return {"name": f"fcbuild:{name}", "value": value}


def _hashes(digest: str) -> Json:
    return [{"alg": "SHA-256", "content": digest}]
