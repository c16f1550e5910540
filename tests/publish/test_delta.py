"""A new version of an image is as much as it differs from the one before, to who has that."""

from __future__ import annotations

import pytest

from fcbuild.publish import delta, oci, predecessor
from fcbuild.publish.oci import Manifest
from fcbuild.publish.predecessor import Delta
from fcbuild.publish.push import Published
from fcbuild.publish.reference import parse
from fcbuild.publish.registry import Registry
from fcbuild.recipes import ROOTFS_FILE
from fcbuild.store import Store
from tests.faults import Fault, Proxy
from tests.publish.yard import QUICK, Yard, change


def attach(yard: Yard, done: Published) -> Delta | None:
    assert done.previous
    with Registry(done.reference, push=True, patience=QUICK) as registry:
        return predecessor.attach(
            done.previous, done.manifest, yard.built()[1], registry, yard.store, yard.root
        )


def successor(yard: Yard, to: str) -> tuple[Published, Delta]:
    """Publish a change of what is published, and its delta."""
    change(yard)
    done = yard.publish(to)
    made = attach(yard, done)
    assert made
    return done, made


def blobs(proxy: Proxy, done: Published) -> int:
    """How often the disk itself was fetched."""
    (disk,) = (one.descriptor for one in done.layers if one.descriptor.title == ROOTFS_FILE)
    return proxy.requests("GET", f".*{disk.digest}")


def test_who_has_the_old_version_fetches_the_difference(
    yard: Yard, elsewhere: Yard, proxy: Proxy, to: str
) -> None:
    yard.publish(to)
    elsewhere.pull(to)
    done, made = successor(yard, to)
    assert made.size < 20_000 < made.whole
    _, _, rootfs = elsewhere.pull(to)
    assert rootfs.digests[ROOTFS_FILE] == yard.built()[1].digests[ROOTFS_FILE]
    assert blobs(proxy, done) == 0
    assert [*(elsewhere.store.root / "downloads").iterdir()] == []


def test_who_has_not_fetches_all_of_it(yard: Yard, elsewhere: Yard, proxy: Proxy, to: str) -> None:
    yard.publish(to)
    done, _ = successor(yard, to)
    elsewhere.pull(to)
    assert blobs(proxy, done) == 1


def test_a_delta_says_what_it_is(yard: Yard, to: str) -> None:
    first = yard.publish(to)
    old = yard.built()[1].digests[ROOTFS_FILE]
    done, made = successor(yard, to)
    assert done.previous and done.previous.digest == first.manifest.digest
    with Registry(parse(to)) as registry:
        (listed,) = registry.referrers(done.manifest.digest)
        assert listed.artifact_type == delta.DELTA
        assert listed.annotations == {delta.BASE: f"sha256:{old}"} == {delta.BASE: made.base}
        manifest = oci.read(registry.manifest(listed.digest)[1], oci.MANIFEST, what="it")
    assert isinstance(manifest, Manifest)
    assert manifest.subject and manifest.subject.digest == done.manifest.digest
    (layer,) = manifest.layers
    assert layer.media_type == delta.PATCH
    new = yard.built()[1]
    assert layer.annotations == {
        oci.TITLE: "rootfs.ext4.patch",
        oci.PLAIN_DIGEST: f"sha256:{new.digests[ROOTFS_FILE]}",
        oci.PLAIN_SIZE: str(new.sizes[ROOTFS_FILE]),
    }


def test_it_is_attached_once(yard: Yard, proxy: Proxy, to: str) -> None:
    yard.publish(to)
    done, _ = successor(yard, to)
    sent = proxy.requests("PUT", ".*")
    assert attach(yard, done) is None
    assert proxy.requests("PUT", ".*") == sent


def test_what_is_not_like_the_old_version_has_no_delta(yard: Yard, to: str) -> None:
    yard.publish(to)
    yard.noise = yard.noise[::-1]
    change(yard)
    done = yard.publish(to)
    assert attach(yard, done) is None
    with Registry(parse(to)) as registry:
        assert registry.referrers(done.manifest.digest) == ()


def test_another_machine_may_publish_the_successor(yard: Yard, elsewhere: Yard, to: str) -> None:
    yard.publish(to)
    elsewhere.noise = yard.noise
    _, made = successor(elsewhere, to)  # which fetches the old version for that
    assert made.size < 20_000


def damage(store: Store) -> None:
    """Alter a root filesystem behind the store's back."""
    (found,) = store.objects("rootfs")
    path = found.file(ROOTFS_FILE)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(2_500_000)
        file.write(b"altered")


def test_an_altered_base_is_not_built_upon(
    yard: Yard, elsewhere: Yard, proxy: Proxy, to: str
) -> None:
    yard.publish(to)
    elsewhere.pull(to)
    done, _ = successor(yard, to)
    damage(elsewhere.store)
    _, _, rootfs = elsewhere.pull(to)
    assert rootfs.digests[ROOTFS_FILE] == yard.built()[1].digests[ROOTFS_FILE]
    assert blobs(proxy, done) == 1


@pytest.mark.parametrize("how", ["altered", "missing", "another's", "no list"])
def test_a_delta_that_cannot_be_used_is_said_and_all_is_fetched(
    yard: Yard,
    elsewhere: Yard,
    proxy: Proxy,
    to: str,
    how: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    yard.publish(to)
    elsewhere.pull(to)
    done, _ = successor(yard, to)
    with Registry(parse(to), push=True) as registry:
        (listed,) = registry.referrers(done.manifest.digest)
        patch = delta.manifest(registry, listed).layers[0]
        if how == "altered":
            proxy.faults.append(Fault(path=f".*{patch.digest}", flip=50, times=9))
        elif how == "missing":
            proxy.faults.append(Fault(path=f".*{patch.digest}", status=404, times=9))
        elif how == "no list":
            proxy.faults.append(Fault(path="/v2/.*/referrers/.*", status=500, times=9))
        else:
            other = oci.describe(delta.PATCH, b"no patch at all, but its digest is right")
            registry.push(other, b"no patch at all, but its digest is right")
            tag = f"sha256-{done.manifest.digest.partition(':')[2]}"
            registry.put(oci.Index(()).document(), oci.INDEX, tag)
            config, content = oci.empty()
            registry.push(config, content)
            registry.attach(
                Manifest(delta.DELTA, config, (other,), listed.annotations, done.manifest)
            )
    _, _, rootfs = elsewhere.pull(to)
    assert rootfs.digests[ROOTFS_FILE] == yard.built()[1].digests[ROOTFS_FILE]
    assert blobs(proxy, done) == 1
    said = capfd.readouterr().err
    assert said.count("warning: no delta is used, all of rootfs.ext4 is fetched") == 1
