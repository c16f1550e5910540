"""ARTIFACT.md is what readers of a registry go by: it names what the code writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcbuild.publish import bundle, cache, delta, oci, pack, push

PAGE = (Path(oci.__file__).parent / "ARTIFACT.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "word",
    [
        *(oci.MICROVM, oci.TITLE, oci.PLAIN_DIGEST, oci.PLAIN_SIZE, oci.UNVERIFIED),
        *(bundle.KERNEL + pack.ZSTD, bundle.DISK + pack.ZSTD, bundle.VM, bundle.SCRIPT),
        *(bundle.DOCUMENT, delta.DELTA, delta.PATCH, delta.BASE, push.FINGERPRINT),
        *(cache.OBJECT, cache.CONFIG, cache.FILE + pack.ZSTD, *sorted(cache.KINDS)),
    ],
)
def test_the_page_has_every_name_that_is_written(word: str) -> None:
    assert word in PAGE
