"""A place in a bucket: objects by key, read whole or in part, written whole, on a condition or not at all.

Every call asks a few times when the store is busy or away, and ends in one line within about a minute.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import GCSStore, LocalStore, S3Store

from boatyard import storage
from boatyard.errors import StorageError

CLIENT = {"connect_timeout": "5s", "read_timeout": "20s", "timeout": "120s", "user_agent": "boatyard"}
RETRY: Any = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=3), "base": 2},
}
KEYS = {"InvalidAccessKeyId", "XAdminUserNotFound", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"}
MISSING = {"NoSuchKey", "NotFound", "NoSuchVersion", None}  # codes of a 404 that is about the object itself
BUCKET_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{1,254}")
ENDPOINT = re.compile(r"https?://[-A-Za-z0-9._\[\]:]+/?\S*")
PROBE = ".conditional-writes"  # an empty object; it stays


@dataclass(frozen=True)
class Object:
    """An object's key below its place, its size in bytes, and the store's tag of this content."""

    key: str
    bytes: int
    tag: str | None


@dataclass(frozen=True)
class Found:
    """What an object held when it was read, and what the store called this content: a condition for `write`."""

    data: bytes
    tag: str | None
    version: str | None = None  # Google's generation; its conditions are on that, not on the tag


NEVER = Found(b"", '"00000000000000000000000000000000"', "1")  # no object is ever like this


@dataclass(frozen=True)
class Bucket:
    """The objects below a URI. Keys start there; every error is a StorageError that says the URI."""

    uri: str
    store: Any = field(repr=False, compare=False)
    prefix: str = ""

    def at(self, key: str) -> Bucket:
        """Return the place further down."""
        return Bucket(f"{self.uri}/{key}", self.store, self._key(key))

    def above(self) -> tuple[Bucket, str]:
        """Return the place one further up, and this one's name there; no name at a bucket's top."""
        uri, _, name = self.uri.rpartition("/")
        return (Bucket(uri, self.store, self.prefix.rpartition("/")[0]), name) if self.prefix else (self, "")

    def list(self) -> dict[str, Object]:
        """Return all objects at and below this place, by key; none when there are none."""
        with _translated(self.uri):
            pages = obstore.list(self.store, self.prefix or None, chunk_size=1000)
            found = [entry for page in pages for entry in page]
        start = len(self.prefix) + 1 if self.prefix else 0
        return {e["path"][start:]: Object(e["path"][start:], int(e["size"]), e.get("e_tag")) for e in found}

    def children(self) -> tuple[set[str], set[str]]:
        """Return the names right below this place: of folders, and of objects."""
        start = len(self.prefix) + 1 if self.prefix else 0
        with _translated(self.uri):
            found = obstore.list_with_delimiter(self.store, self.prefix or None)
        folders = {str(path)[start:].strip("/") for path in found["common_prefixes"]}
        return folders, {entry["path"][start:] for entry in found["objects"]}

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        for key in keys:
            with _translated(f"{self.uri}/{key}"), contextlib.suppress(FileNotFoundError):
                obstore.delete(self.store, self._key(key))

    def find(self, key: str) -> Found | None:
        """Return what an object holds, None when there is no such object."""
        with _translated(f"{self.uri}/{key}"):
            try:
                found = obstore.get(self.store, self._key(key))
            except FileNotFoundError as error:
                if _code(error) not in MISSING:
                    raise
                return None
            return Found(bytes(found.bytes()), found.meta["e_tag"], found.meta["version"])

    def read(self, key: str) -> bytes:
        """Return what an object holds; raises StorageError when there is none."""
        found = self.find(key)
        if found is None:
            raise StorageError(
                f"{self.uri}", expected=f"{key}", found="no such object", fix="look at the URI, or push it again"
            )
        return found.data

    def part(self, key: str, start: int, length: int) -> bytes:
        """Return some bytes of an object."""
        with _translated(f"{self.uri}/{key}"):
            data = bytes(obstore.get_range(self.store, self._key(key), start=start, length=length))
        if len(data) != length:
            raise StorageError(
                f"{self.uri}/{key}", expected=f"{length} bytes at {start}", found=f"{len(data)}", fix="it was cut"
            )
        return data

    def look(self, key: str) -> Object | None:
        """Return an object without what it holds, None when there is no such object."""
        with _translated(f"{self.uri}/{key}"):
            try:
                found = obstore.head(self.store, self._key(key))
            except FileNotFoundError as error:
                if _code(error) not in MISSING:
                    raise
                return None
            return Object(key, int(found["size"]), found.get("e_tag"))

    def download(self, key: str, path: Path) -> None:
        """Write an object's bytes to a file, whole or not at all."""
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _translated(f"{self.uri}/{key}"), beside.open("wb") as file:
                for chunk in obstore.get(self.store, self._key(key)).stream(min_chunk_size=1 << 20):
                    file.write(chunk)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    def put(self, key: str, file: Path) -> None:
        """Write an object of a file's bytes, whole or not at all, whatever was there."""
        with _translated(f"{self.uri}/{key}"):
            obstore.put(self.store, self._key(key), file, max_concurrency=4)

    def write(self, key: str, data: bytes, was: Found | None) -> bool:
        """Write an object if it is still as it was found, or (None) not there; False when it is not."""
        mode: Any = "create" if was is None else {"e_tag": was.tag}
        if was is not None and was.version is not None:
            mode["version"] = was.version
        with _translated(f"{self.uri}/{key}"):
            try:
                obstore.put(self.store, self._key(key), data, mode=mode, use_multipart=False)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                return False
        return True

    def check_conditions(self) -> None:
        """Raise StorageError unless the store holds to conditions on a write: the promise that one of many wins."""
        first = self.write(PROBE, b"", None)
        if (first and self.write(PROBE, b"", None)) or self.write(PROBE, b"", NEVER):
            raise StorageError(
                f"{self.uri}",
                expected="a store that holds to If-None-Match and If-Match on a write",
                found="one that writes all the same",
                fix="two who push at once would overwrite each other: use another store",
            )

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key


def open(uri: str) -> Bucket:
    """Return the place that a URI names; raises StorageError when it names none."""
    if not storage.in_bucket(uri):
        path = storage.parse(uri, Path.cwd())
        if not path.is_dir():
            raise StorageError(f"{uri}", expected="a folder", found=f"{'a file' if path.exists() else 'none'}")
        return Bucket(storage.uri(path), LocalStore(str(path)))
    scheme, _, rest = uri.partition("://")
    name, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not BUCKET_NAME.fullmatch(name) or "//" in prefix or any(part in (".", "..") for part in prefix.split("/")):
        raise StorageError(expected=f"{scheme}://BUCKET/FOLDER", found=f"{uri!r}")
    with _translated(uri):
        store = _s3(name) if scheme.lower() == "s3" else GCSStore(name, client_options=_client(), retry_config=RETRY)
    return Bucket(f"{scheme.lower()}://{name}/{prefix}".rstrip("/"), store, prefix)


def _s3(bucket: str) -> Any:
    from boatyard.settings import Settings

    settings = Settings()
    more: dict[str, Any] = {"virtual_hosted_style_request": True} if settings.virtual_hosts else {}
    if settings.anonymous:
        more["skip_signature"] = True
    elif settings.endpoint and not settings.credentials:
        raise StorageError(
            f"s3://{bucket}",
            expected=f"credentials for {settings.endpoint}",
            found="neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor a role",
            fix="set them, in a pod by a Secret",
        )
    return S3Store(bucket, client_options=_client(), retry_config=RETRY, **more)


def _client() -> Any:
    from boatyard.settings import Settings

    settings = Settings()
    if settings.endpoint and not ENDPOINT.fullmatch(settings.endpoint):
        raise StorageError(
            "AWS_ENDPOINT_URL", expected="http://HOST:PORT or https://HOST", found=f"{settings.endpoint!r}"
        )
    options: dict[str, Any] = {**CLIENT, "allow_http": settings.endpoint.startswith("http://")}
    if settings.certificates:
        try:
            options["root_certificate"] = settings.certificates.read_bytes()
        except OSError as error:
            raise StorageError(f"AWS_CA_BUNDLE: {settings.certificates} cannot be read: {error.strerror}") from error
    return options


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Say the library's errors in our words, once: what was wanted, what the store said, what to do."""
    try:
        yield
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise StorageError(f"{uri}: {_sentence(uri, error)}") from error


def _sentence(uri: str, error: Exception) -> str:
    from boatyard.settings import Settings

    text, code = str(error), _code(error)
    at = Settings().endpoint or "the store"
    if code == "NoSuchBucket":
        bucket = uri.partition("://")[2].partition("/")[0]
        return f"expected bucket {bucket}, found none of that name at {at}; make it, or correct the name"
    if code in KEYS:
        return f"{at} refused the key ({code}); look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
    if "169.254.169.254" in text:
        return "expected credentials, found none; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in a pod by a Secret"
    status = re.search(r"non-2xx status code: (\d+)|response error \"[^\"]*\", after|status: (\d{3})", text)
    number = (status[1] or status[2]) if status else None
    if number in ("401", "403"):
        return f"{at} does not allow it ({code or number}); give the key rights on the bucket"
    if number in ("301", "307", "400") and code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return f"the bucket is in another region ({code}); set AWS_REGION"
    if number == "501" or code == "NotImplemented":
        return f"{at} cannot do this (NotImplemented); a registry needs conditional writes: use another store"
    if isinstance(error, FileNotFoundError):
        return "expected this object, found none; look at the URI, or push it again"
    if number:
        return f"{at} answered {number}{f' {code}' if code else ''}, after several attempts; try again later"
    return _cause(text, at)


def _cause(text: str, at: str) -> str:
    """Say why no answer came: the innermost reason of the debug text, or its first line."""
    reasons = re.findall(r'(?:error|message): "([^"]{1,200})"', text)
    if "TimedOut" in text or "timed out" in text:
        reasons.append("no answer in time")
    if "kind: Connect" in text or "dns error" in text or reasons:
        why = reasons[-1] if reasons else "no connection"
        return f"expected an answer of {at}, found none ({why}); is AWS_ENDPOINT_URL right, and the store up?"
    return " ".join(text.split("\n\nDebug source")[0].split())[:300]


def _code(error: Exception) -> str | None:
    found = re.search(r"<Code>(\w+)</Code>", str(error))
    return found[1] if found else None
