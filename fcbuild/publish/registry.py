"""One repository of a registry: manifests by tag or digest, blobs by digest, and referrers.

Source: the OCI distribution specification, 1.1. Blobs go up in one piece (POST, then PUT), because
some registries take no chunks, and come down into a file that grows: what an attempt before this
one has got is not asked for again. Nothing that comes is believed before its digest is compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlencode, urljoin, urlsplit

from fcbuild import progress
from fcbuild.errors import ArtifactError, RegistryError
from fcbuild.publish import oci
from fcbuild.publish.answers import Answer, Interrupted, Patience, codes
from fcbuild.publish.body import CHUNK, Body
from fcbuild.publish.oci import Descriptor, Index, Manifest
from fcbuild.publish.reference import Reference
from fcbuild.publish.transport import PATIENCE, Transport

PARTIAL = ".part"  # of a file in downloads/ that has not come whole

_ACCEPT = ", ".join([oci.MANIFEST, oci.INDEX, oci.DOCKER_MANIFEST, oci.DOCKER_INDEX])
_MAX_PAGES = 20  # of a list of referrers
_ATTEMPTS = 5  # at a list that others may write, too


class Registry:
    """The repository of a reference. push: whether to ask for the right to write."""

    def __init__(
        self,
        reference: Reference,
        *,
        push: bool = False,
        patience: Patience = PATIENCE,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.reference = reference
        self._patience = patience
        self._http = Transport(reference, push=push, patience=patience, environ=environ)

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # Manifests.

    def find(self, version: str) -> tuple[Descriptor, bytes] | None:
        """Return the manifest or index under a tag or digest, or None where there is none.

        Raises RegistryError, and ArtifactError for bytes that are not its digest's.
        """
        answer = self._http.ask(
            "GET", f"/manifests/{version}", good={200, 404}, headers={"Accept": _ACCEPT}
        )
        if answer.status == 404:
            return None
        found = oci.describe(answer.headers.get("Content-Type", ""), answer.body)
        wanted = version if version.startswith("sha256:") else None
        if (wanted or answer.headers.get("Docker-Content-Digest", found.digest)) != found.digest:
            raise ArtifactError(
                f"{self.reference.name}: the registry has other bytes under {version} than its "
                f"digest says: {found.digest}"
            )
        return found, answer.body

    def manifest(self, version: str) -> tuple[Descriptor, bytes]:
        """Return the manifest or index under a tag or digest. Raises RegistryError for one that is
        not there."""
        found = self.find(version)
        if found is None:
            raise RegistryError(
                f"{self.reference.name}: the registry has no {version} there",
                status=404,
                hint="look at the reference; a repository that one may not see looks as if missing",
            )
        return found

    def put(self, content: bytes, media_type: str, version: str) -> bool:
        """Put a manifest or index under a tag or its digest; return whether the registry has noted
        what its subject is. Raises RegistryError, also for a tag that it lets nobody move."""
        path = f"/manifests/{version}"
        answer = self._http.ask(
            "PUT",
            path,
            good={201, 200, 202, 400, 405, 409, 412},
            body=content,
            headers={"Content-Type": media_type},
        )
        if answer.status >= 400:
            raise self._not_taken(answer, version)
        return "OCI-Subject" in answer.headers

    # Blobs.

    def has(self, blob: Descriptor) -> bool:
        """Return whether the repository holds a blob. Raises RegistryError."""
        return self._http.ask("HEAD", f"/blobs/{blob.digest}", good={200, 404}).status == 200

    def push(self, blob: Descriptor, source: bytes | Path) -> bool:
        """Push a blob, unless it is there; return whether it was pushed. Raises RegistryError."""
        if self.has(blob):
            return False
        body = source
        if isinstance(source, Path) and blob.size == 0:
            body = b""
        attempt = 1
        while True:
            try:
                self._push(blob, body if isinstance(body, bytes) else Body(body, blob.size))
                return True
            except Interrupted as error:
                # From the beginning: what has become of a session is not to be known.
                self._http.pause(attempt, error)
                attempt += 1

    def read(self, blob: Descriptor, *, most: int = oci.MAX_BYTES) -> bytes:
        """Return a small blob. Raises RegistryError, ArtifactError."""
        if blob.size > most:
            raise ArtifactError(
                f"{self.reference.name}: {blob.digest} has {blob.size} bytes, more than {most}"
            )
        content = self._http.ask("GET", f"/blobs/{blob.digest}", good={200}).body
        if oci.sha256(content) != blob.digest:
            raise self._altered(blob)
        return content

    def fetch(self, blob: Descriptor, to: Path) -> None:
        """Fetch a blob to a file. What the file holds already counts as the blob's beginning.

        Raises RegistryError, when nothing more comes; what has come stays for the next attempt.
        Raises ArtifactError for other bytes than the blob's, which do not stay.
        """
        if self._fetch(blob, to):
            return
        # Perhaps only the beginning was another's, or damaged since it came.
        if not self._fetch(blob, to):
            raise self._altered(blob)

    # Referrers.

    def referrers(self, subject: str, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
        """Return the manifests that say something of another one.

        subject: its digest. artifact_type: of those to return, None for all. Raises RegistryError,
        ArtifactError.
        """
        listed = self._listed(subject)
        if listed is None:
            listed = self._fallback(subject).manifests
        # Not every registry filters, and those that do may have a type that is not the artifact's.
        return tuple(
            one for one in listed if artifact_type is None or one.artifact_type == artifact_type
        )

    def attach(self, manifest: Manifest) -> Descriptor:
        """Put a manifest that has a subject, whose blobs are there; return its descriptor.

        Where the registry keeps no list of referrers, the one under the fallback tag gets it.
        Raises RegistryError.
        """
        assert manifest.subject is not None
        content, own = manifest.document(), manifest.descriptor()
        if self.put(content, oci.MANIFEST, own.digest):
            return own
        if self._listed(manifest.subject.digest) is None:
            self._note(manifest.subject.digest, own)
        return own

    def _push(self, blob: Descriptor, body: bytes | Body) -> None:
        start = "/blobs/uploads/"
        begun = self._http.ask("POST", start, good={202}, body=b"")
        where = self._http.location(begun, start)
        glue = "&" if urlsplit(where).query else "?"
        self._http.ask(
            "PUT",
            f"{where}{glue}{urlencode({'digest': blob.digest})}",
            good={201, 204},
            body=body,
            headers={"Content-Type": "application/octet-stream"},
            again=False,
        )

    def _fetch(self, blob: Descriptor, to: Path) -> bool:
        """Complete a file; return whether it is the blob. If not, it is removed."""
        deadline = self._patience.deadline(blob.size)
        with to.open("a+b") as file:
            file.seek(0)
            hasher = hashlib.file_digest(file, "sha256")
            meter = progress.Meter(blob.size, done=file.tell())
            attempt = 1
            while file.tell() < blob.size:
                before = file.tell()
                try:
                    for piece in _ahead(self._rest(blob, before, deadline)):
                        if not piece:  # from the beginning
                            file.truncate(0)
                            file.seek(0)
                            hasher = hashlib.sha256()
                            continue
                        file.write(piece)
                        hasher.update(piece)
                        meter.add(len(piece))
                        if file.tell() > blob.size:
                            break
                    if file.tell() < blob.size:
                        where = f"{self.reference.registry} broke off at byte {file.tell()}"
                        raise Interrupted(f"{where} of {blob.size}")
                except Interrupted as error:
                    # Who gets on is not without hope, however often.
                    attempt = 1 if file.tell() > before + CHUNK else attempt
                    self._http.pause(attempt, error)
                    attempt += 1
        if f"sha256:{hasher.hexdigest()}" == blob.digest:
            return True
        to.unlink()
        return False

    def _rest(self, blob: Descriptor, start: int, deadline: float) -> Iterator[bytes]:
        """Yield a blob's bytes from the start on; an empty piece where they are from its
        beginning instead."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        path = f"/blobs/{blob.digest}"
        with self._http.stream(path, good={200, 206, 416}, headers=headers, deadline=deadline) as (
            answer,
            pieces,
        ):
            said = answer.headers.get("Content-Range", "")
            if answer.status == 206 and said.startswith(f"bytes {start}-"):
                yield from pieces
                return
            if start:
                yield b""
            if answer.status == 200:
                yield from pieces

    def _listed(self, subject: str) -> tuple[Descriptor, ...] | None:
        """Return what the registry lists as referrers, or None for one that keeps no lists."""
        found: list[Descriptor] = []
        path = f"/referrers/{subject}"
        for _ in range(_MAX_PAGES):
            answer = self._http.ask("GET", path, good={200, 400, 404, 405, 501})
            kind = answer.headers.get("Content-Type", "")
            # Some answer 200 with a page for people.
            if answer.status != 200 or not kind.startswith(oci.INDEX):
                return None
            what = f"{self.reference.name}: referrers"
            index = oci.read(answer.body, oci.INDEX, what=what)
            if not isinstance(index, Index):
                raise ArtifactError(f"{what}: not an index")
            found += index.manifests
            following = _next(answer)
            if following is None:
                break
            path = urljoin(self._http.url(path), following)
        return tuple(found)

    def _fallback(self, subject: str) -> Index:
        """Return the list under the fallback tag, "Referrers Tag Schema" of the specification."""
        tag = fallback_tag(subject)
        found = self.find(tag)
        if found is None:
            return Index(())
        index = oci.read(found[1], found[0].media_type, what=f"{self.reference.name}:{tag}")
        if not isinstance(index, Index):
            raise ArtifactError(f"{self.reference.name}:{tag}: a list of referrers is an index")
        return index

    def _note(self, subject: str, own: Descriptor) -> None:
        """Add to the list under the fallback tag. Who writes it at the same time may undo that, so
        it is read again."""
        for attempt in range(1, _ATTEMPTS + 1):
            index = self._fallback(subject)
            if any(one.digest == own.digest for one in index.manifests):
                return
            longer = index._replace(manifests=(*index.manifests, own))
            self.put(longer.document(), oci.INDEX, fallback_tag(subject))
            time.sleep(0.05 * (attempt - 1))
        if not any(one.digest == own.digest for one in self._fallback(subject).manifests):
            raise RegistryError(
                f"{self.reference.name}:{fallback_tag(subject)}: others write it all the time",
                hint="try again",
            )

    def _altered(self, blob: Descriptor) -> ArtifactError:
        return ArtifactError(
            f"{self.reference.name}: the registry has other bytes than those of {blob.digest}"
        )

    def _not_taken(self, answer: Answer, version: str) -> RegistryError:
        where = self.reference.tagged(version) if ":" not in version else self.reference.name
        hint = None
        words = ", ".join(sorted(codes(answer.body))) or "no reason given"
        if answer.status in {409, 412} or "TAG_INVALID" in words:
            hint = "a tag that is immutable there cannot be moved: publish under another one"
        with contextlib.suppress(RegistryError):
            if hint is None and ":" not in version and self.find(version):
                hint = "the tag exists; where tags are immutable, publish under another one"
        return RegistryError(
            f"{where}: the registry does not take it ({answer.status}: {words[:200]})",
            status=answer.status,
            hint=hint,
        )


def _ahead(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield pieces, the next of which comes while one is worked at."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = pool.submit(next, pieces, None)
            yield piece


def fallback_tag(digest: str) -> str:
    """Return the tag of the list of a manifest's referrers, where the registry keeps none."""
    return quote(digest.replace(":", "-"), safe="-")


def _next(answer: Answer) -> str | None:
    """Return where a list goes on (RFC 5988), or None at its end."""
    for link in answer.headers.get("Link", "").split(","):
        target, _, parameters = link.partition(";")
        if 'rel="next"' in parameters and (target := target.strip()).startswith("<"):
            return target.strip("<>")
    return None
