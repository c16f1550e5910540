"""A real registry, and what may go wrong on the way to it."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from fcbuild.errors import ArtifactError, RegistryError
from fcbuild.publish import oci, registry
from fcbuild.publish.answers import Patience
from fcbuild.publish.oci import Descriptor, Index, Manifest
from fcbuild.publish.reference import Reference, parse
from fcbuild.publish.registry import Registry
from tests import faults
from tests import registry as registries
from tests.faults import Fault, Proxy
from tests.registry import PASSWORD, USER

QUICK = Patience(attempts=3, connect_s=5, silence_s=5, pause_s=0.01, longest_s=2)
BLOBS, UPLOADS = "/v2/.*/blobs/sha256:.*", "/v2/.*/blobs/uploads/.*"


def logins(host: str, user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {host: {"auth": pair}}})}


def blob(content: bytes) -> Descriptor:
    return oci.describe("application/octet-stream", content)


class Shop:
    """A repository behind the proxy, with a file of some size to push and fetch."""

    def __init__(self, host: str, name: str, tmp_path: Path) -> None:
        self.reference = Reference(host, name)
        self.content = os.urandom(1_500_000)
        self.source, self.to = tmp_path / "source", tmp_path / "to"
        self.source.write_bytes(self.content)
        self.blob = blob(self.content)

    def open(self, **more: object) -> Registry:
        return Registry(self.reference, **{"push": True, "patience": QUICK, **more})  # type: ignore[arg-type]

    def push(self) -> bool:
        with self.open() as opened:
            return opened.push(self.blob, self.source)

    def fetch(self) -> bytes:
        with self.open() as opened:
            opened.fetch(self.blob, self.to)
        return self.to.read_bytes()

    def artifact(
        self, opened: Registry, text: str = "x", subject: Descriptor | None = None
    ) -> Manifest:
        config, content = oci.empty()
        opened.push(config, content)
        opened.push(blob(text.encode()), text.encode())
        return Manifest("application/x.test", config, (blob(text.encode()),), {"a": text}, subject)


@pytest.fixture
def shop(proxy: Proxy, repository: str, tmp_path: Path) -> Shop:
    return Shop(proxy.host, repository, tmp_path)


def test_a_blob_comes_back_as_it_was_and_is_pushed_once(shop: Shop) -> None:
    assert shop.push() is True
    assert shop.push() is False
    assert shop.fetch() == shop.content


def test_an_empty_blob_is_one_too(shop: Shop) -> None:
    shop.source.write_bytes(b"")
    shop.blob, shop.content = blob(b""), b""
    assert shop.push()
    assert shop.fetch() == b""


def test_a_manifest_comes_back_by_tag_and_by_digest(shop: Shop) -> None:
    with shop.open() as opened:
        manifest = shop.artifact(opened)
        opened.put(manifest.document(), oci.MANIFEST, "v1")
        by_tag, content = opened.manifest("v1")
        assert content == manifest.document()
        assert opened.manifest(by_tag.digest)[1] == content
        assert oci.read(content, by_tag.media_type, what="it") == manifest
        index = Index((manifest.entry("x86_64"),))
        opened.put(index.document(), oci.INDEX, "v1")
        assert opened.manifest("v1")[1] == index.document()


def test_what_is_not_there_is_said(shop: Shop) -> None:
    shop.push()
    with shop.open() as opened:
        assert opened.find("absent") is None
        assert not opened.has(blob(b"absent"))
        with pytest.raises(RegistryError, match="no absent there") as caught:
            opened.manifest("absent")
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("HEAD", BLOBS), ("POST", UPLOADS), ("PUT", UPLOADS), ("GET", BLOBS)],
)
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(
    proxy: Proxy, shop: Shop, method: str, path: str, status: int
) -> None:
    proxy.faults.append(Fault(method, path, status=status, times=2))
    shop.push()
    assert shop.fetch() == shop.content
    assert not proxy.faults


def test_what_does_not_pass_ends_with_the_registrys_words(proxy: Proxy, shop: Shop) -> None:
    proxy.faults.append(Fault("HEAD", BLOBS, status=500, times=9))
    with pytest.raises(RegistryError, match="answers 500") as caught:
        shop.push()
    assert caught.value.status == 500
    assert proxy.requests("HEAD", BLOBS) == QUICK.attempts


def test_a_retry_after_is_kept_to(
    proxy: Proxy, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("fcbuild.publish.transport.time.sleep", pauses.append)
    # Some answer 403 where they mean "too often".
    proxy.faults += [
        Fault("HEAD", BLOBS, status=429, headers={"Retry-After": "1"}),
        Fault("HEAD", BLOBS, status=403, headers={"Retry-After": "2"}),
    ]
    shop.push()
    assert pauses == [1.0, 2.0]


def test_a_retry_after_of_hours_ends_it(proxy: Proxy, shop: Shop) -> None:
    proxy.faults.append(Fault("HEAD", BLOBS, status=429, headers={"Retry-After": "7200"}))
    with pytest.raises(RegistryError, match="answers 429"):
        shop.push()
    assert proxy.requests("HEAD", BLOBS) == 1


def test_a_download_that_is_cut_goes_on_from_there(proxy: Proxy, shop: Shop) -> None:
    shop.push()
    proxy.faults += [Fault(path=BLOBS, cut=600_000), Fault(path=BLOBS, cut=500_000)]
    assert shop.fetch() == shop.content
    assert [r for r in proxy.ranges if r] == ["bytes=600000-", "bytes=1100000-"]


def test_the_next_run_goes_on_where_the_last_one_ended(proxy: Proxy, shop: Shop) -> None:
    shop.push()
    proxy.faults += [Fault(path=BLOBS, cut=700_000), *(Fault(path=BLOBS, cut=0) for _ in range(3))]
    with pytest.raises(RegistryError, match=r"byte 700000|broke off|does not answer"):
        shop.fetch()
    assert shop.to.stat().st_size == 700_000
    assert shop.fetch() == shop.content


def test_a_registry_without_ranges_sends_all_again(proxy: Proxy, shop: Shop) -> None:
    shop.push()
    proxy.faults += [Fault(path=BLOBS, cut=700_000), Fault(path=BLOBS, unranged=True)]
    assert shop.fetch() == shop.content


@pytest.mark.parametrize("size", [3, 1_500_000, 2_000_000])
def test_a_beginning_that_is_anothers_is_thrown_away(shop: Shop, size: int) -> None:
    shop.push()
    shop.to.write_bytes(b"x" * size)
    assert shop.fetch() == shop.content


def test_altered_bytes_are_refused_and_do_not_stay(proxy: Proxy, shop: Shop) -> None:
    shop.push()
    proxy.faults.append(Fault(path=BLOBS, flip=1_000_000, times=9))
    with pytest.raises(ArtifactError, match="other bytes"):
        shop.fetch()
    assert not shop.to.exists()


def test_an_altered_manifest_is_refused(proxy: Proxy, shop: Shop) -> None:
    with shop.open() as opened:
        manifest = shop.artifact(opened)
        opened.put(manifest.document(), oci.MANIFEST, "v1")
        for version in ("v1", manifest.descriptor().digest):
            proxy.faults.append(Fault(path="/v2/.*/manifests/.*", flip=200))
            with pytest.raises(ArtifactError, match="other bytes"):
                opened.manifest(version)


def test_an_upload_that_is_cut_begins_anew(proxy: Proxy, shop: Shop) -> None:
    proxy.faults.append(Fault("PUT", UPLOADS, drop=500_000))
    shop.push()
    assert shop.fetch() == shop.content
    assert proxy.requests("POST", UPLOADS) == 2


def test_a_slow_registry_is_not_waited_for_for_ever(proxy: Proxy, shop: Shop) -> None:
    shop.push()
    proxy.faults.append(Fault(path=BLOBS, pause_s=0.3, times=9))
    slow = QUICK._replace(silence_s=0.5, rate=1 << 30)
    with pytest.raises(RegistryError, match="too slow"), shop.open(patience=slow) as opened:
        opened.fetch(shop.blob, shop.to)
    assert shop.to.stat().st_size  # for the next run


def test_a_silent_registry_is_not_waited_for_for_ever(proxy: Proxy, shop: Shop) -> None:
    proxy.faults.append(Fault("HEAD", BLOBS, hang_s=2, times=9))
    quick = QUICK._replace(silence_s=0.2, attempts=2)
    with pytest.raises(RegistryError, match="does not answer"), shop.open(patience=quick) as opened:
        opened.has(shop.blob)


def test_nobody_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1 does not answer: Connection refused"):
        Shop("127.0.0.1:1", "a", tmp_path).push()


def test_a_token_is_got_and_used(proxy: Proxy, shop: Shop) -> None:
    proxy.token = "first"
    environ = logins(proxy.host)
    with shop.open(environ=environ) as opened:
        opened.push(shop.blob, shop.source)
        proxy.token = "second"  # the first has run out
        opened.fetch(shop.blob, shop.to)
    assert shop.to.read_bytes() == shop.content
    assert len(proxy.tokens) == 2
    asked, given = proxy.tokens[0]
    assert f"scope=repository%3A{shop.reference.repository}%3Apull%2Cpush" in asked
    assert base64.b64decode(given.removeprefix("Basic ")).decode() == f"{USER}:{PASSWORD}"


def test_an_identity_token_is_not_sent_as_a_password(proxy: Proxy, shop: Shop) -> None:
    proxy.token = "t"
    auths = {proxy.host: {"identitytoken": "refresh-me"}}
    environ = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": auths})}
    with shop.open(environ=environ) as opened:
        assert not opened.has(shop.blob)
    ((asked, given),) = proxy.tokens
    assert "grant_type=refresh_token" in asked and "refresh_token=refresh-me" in asked
    assert given == ""


def test_a_netrc_is_nobodys_login(
    proxy: Proxy, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    shop.push()
    assert {given for _, _, given in proxy.seen} == {""}


def test_a_token_service_that_fails_is_asked_again(proxy: Proxy, shop: Shop) -> None:
    proxy.token = "t"
    proxy.faults.append(Fault(path="/token.*", status=503, times=2))
    with shop.open(environ=logins(proxy.host)) as opened:
        assert not opened.has(shop.blob)
    assert not proxy.faults


def test_the_environments_proxy_is_not_for_this_machine(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert shop.push()


def test_a_login_is_not_sent_to_another_host(
    hub: registries.Registry, proxy: Proxy, shop: Shop
) -> None:
    shop.push()
    with faults.proxy(hub.host) as other:
        proxy.token = "secret"
        path = f"/v2/{shop.reference.repository}/blobs/{shop.blob.digest}"
        there = {"Location": f"http://{other.host}{path}"}
        # The first is answered with where to get a token.
        proxy.faults += [Fault(path="never"), Fault(path=BLOBS, status=307, headers=there, times=2)]
        with shop.open(environ=logins(proxy.host)) as opened:
            opened.fetch(shop.blob, shop.to)
        assert other.seen and {given for _, _, given in other.seen} == {""}
    assert shop.to.read_bytes() == shop.content


@pytest.mark.parametrize(
    "where", ["http://registry.example.com/x", "file:///etc/passwd", "ftp://127.0.0.1/x"]
)
def test_nobody_leads_us_where_others_listen_in(proxy: Proxy, shop: Shop, where: str) -> None:
    proxy.faults.append(Fault(path=BLOBS, status=302, headers={"Location": where}))
    with pytest.raises(RegistryError, match=r"leads to .* which is not https"):
        shop.fetch()


def test_a_circle_ends(proxy: Proxy, shop: Shop) -> None:
    here = {"Location": "/v2/x/blobs/sha256:0"}
    proxy.faults.append(Fault(path="/v2/.*", status=307, headers=here, times=99))
    with pytest.raises(RegistryError, match="in a circle"):
        shop.fetch()


@pytest.mark.parametrize("status", [400, 405, 409, 412])
def test_a_tag_that_the_registry_lets_nobody_move(proxy: Proxy, shop: Shop, status: int) -> None:
    with shop.open() as opened:
        manifest = shop.artifact(opened)
        opened.put(manifest.document(), oci.MANIFEST, "v1")
        proxy.faults.append(Fault("PUT", "/v2/.*/manifests/v1", status=status))
        with pytest.raises(RegistryError, match="does not take it") as caught:
            opened.put(manifest.document(), oci.MANIFEST, "v1")
    assert "publish under another" in str(caught.value)
    assert caught.value.status == status


# With accounts and TLS.


def test_a_registry_with_accounts_lets_in_who_has_one(tmp_path: Path) -> None:
    with registries.serve(tmp_path, accounts=True) as closed:
        shop = Shop(closed.host, "a", tmp_path)
        with pytest.raises(RegistryError, match=r"denied \(401\)") as caught:
            shop.push()
        assert f"docker login {closed.host}" in str(caught.value)
        with shop.open(environ=logins(closed.host)) as opened:
            assert opened.push(shop.blob, shop.source)
            opened.fetch(shop.blob, shop.to)
        wrong = "not-the-word"
        environ = logins(closed.host, password=wrong)
        with pytest.raises(RegistryError) as caught, shop.open(environ=environ) as opened:
            opened.has(shop.blob)
        assert wrong not in str(caught.value)


def test_a_certificate_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with registries.serve(tmp_path, accounts=True, tls=True) as closed:
        shop = Shop(closed.host, "a", tmp_path)
        with pytest.raises(RegistryError, match="no TLS connection that can be trusted"):
            shop.push()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(closed.certificate))
        with shop.open(environ=logins(closed.host)) as opened:
            assert opened.push(shop.blob, shop.source)


def test_plain_http_is_for_this_machine_or_when_asked(tmp_path: Path) -> None:
    reference = parse("registry.invalid/a")
    with (
        pytest.raises(RegistryError),
        Registry(reference, patience=QUICK._replace(attempts=1)) as r,
    ):
        assert r._http.url("/x").startswith("https://")
        r.find("x")
    environ = {"FCBUILD_PLAIN_HTTP": "other.invalid, registry.invalid"}
    with Registry(reference, patience=QUICK, environ=environ) as asked:
        assert asked._http.url("/x").startswith("http://registry.invalid/v2/a/x")


# Referrers.


def lists(proxy: Proxy, how: str) -> None:
    """Make a registry of a kind out of one that keeps no lists."""
    if how == "page":
        html = {"Content-Type": "text/html"}
        proxy.faults.append(Fault(path="/v2/.*/referrers/.*", status=200, headers=html, times=99))
    elif how == "refused":
        proxy.faults.append(Fault(path="/v2/.*/referrers/.*", status=405, times=99))


@pytest.mark.parametrize("how", ["none", "page", "refused"])
def test_referrers_are_found_without_the_registrys_help(proxy: Proxy, shop: Shop, how: str) -> None:
    lists(proxy, how)
    with shop.open() as opened:
        subject = shop.artifact(opened, "subject")
        opened.put(subject.document(), oci.MANIFEST, "v1")
        about = subject.descriptor()
        assert opened.referrers(about.digest) == ()
        first = opened.attach(shop.artifact(opened, "one", about))
        other = shop.artifact(opened, "two", about)._replace(artifact_type="application/y.test")
        second = opened.attach(other)
        assert opened.attach(other) == second  # once is enough
        assert opened.referrers(about.digest) == (first, second)
        assert opened.referrers(about.digest, "application/y.test") == (second,)
        assert second.annotations == {"a": "two"}
        tag = registry.fallback_tag(about.digest)
        assert tag == about.digest.replace(":", "-")
        index = oci.read(opened.manifest(tag)[1], oci.INDEX, what="it")
        assert isinstance(index, Index) and index.manifests == (first, second)


def test_a_registry_that_keeps_lists_is_asked_for_them(proxy: Proxy, shop: Shop) -> None:
    proxy.lists = True
    with shop.open() as opened:
        subject = shop.artifact(opened, "subject")
        opened.put(subject.document(), oci.MANIFEST, "v1")
        about = subject.descriptor()
        assert opened.referrers(about.digest) == ()
        texts = ("one", "two", "three")  # more than a page
        attached = tuple(opened.attach(shop.artifact(opened, text, about)) for text in texts)
        assert opened.referrers(about.digest) == attached
        assert opened.find(registry.fallback_tag(about.digest)) is None


def test_a_list_that_another_overwrote_is_written_again(proxy: Proxy, shop: Shop) -> None:
    with shop.open() as opened:
        subject = shop.artifact(opened, "subject")
        opened.put(subject.document(), oci.MANIFEST, "v1")
        about = subject.descriptor()
        first = opened.attach(shop.artifact(opened, "one", about))
        tag = registry.fallback_tag(about.digest)
        put = opened.put
        raced: list[bool] = []

        def race(content: bytes, media_type: str, version: str) -> bool:
            done = put(content, media_type, version)
            if version == tag and not raced:
                raced.append(put(Index((first,)).document(), oci.INDEX, tag))
            return done

        opened.put = race  # type: ignore[method-assign]
        second = opened.attach(shop.artifact(opened, "two", about))
        assert raced
        assert opened.referrers(about.digest) == (first, second)
