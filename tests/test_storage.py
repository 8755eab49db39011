"""A URI or a plain path names one place; what is not supported is said."""

from __future__ import annotations

import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import stores
from ports import free_port

from boatyard import storage
from boatyard.errors import StorageError
from boatyard.storage import buckets


def test_a_relative_path_starts_at_the_root(tmp_path: Path) -> None:
    assert storage.parse("registry", tmp_path) == tmp_path / "registry"
    assert storage.parse("/data/registry", tmp_path) == Path("/data/registry")
    assert storage.parse("~/registry", tmp_path) == Path.home() / "registry"


@pytest.mark.parametrize("name", ["plain", "with space", "ümlaut", "per%cent", "a#b?c"])
def test_a_uri_made_of_a_path_is_that_path(tmp_path: Path, name: str) -> None:
    assert storage.parse(storage.uri(tmp_path / name), Path("/elsewhere")) == tmp_path / name
    assert storage.parse(f"file://localhost{tmp_path}", Path("/")) == tmp_path


@pytest.mark.parametrize(
    ("uri", "why"),
    [("s3://bucket/x", "found a bucket"), ("gs://b", "found a bucket"), ("oci://host/x", "not supported here")],
)
def test_what_is_no_folder_of_this_machine_is_said_to_be_none(uri: str, why: str) -> None:
    with pytest.raises(StorageError, match=why):
        storage.parse(uri, Path("/"))


def test_a_claim_is_the_folder_where_it_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOATYARD_CLAIMS", str(tmp_path))
    (tmp_path / "data").mkdir()
    assert storage.parse("pvc://data/a/b", Path("/")) == tmp_path / "data" / "a" / "b"
    assert storage.parse("pvc://data", Path("/")) == tmp_path / "data"
    with pytest.raises(StorageError, match=rf"expected claim other mounted at {tmp_path}/other"):
        storage.parse("pvc://other/a", Path("/"))
    for uri in ("pvc://data/../x", "pvc:///x", "pvc://Data/x"):
        with pytest.raises(StorageError, match="expected pvc://CLAIM/FOLDER"):
            storage.parse(uri, Path("/"))


@pytest.mark.parametrize("end", ["", "/"])
def test_a_uri_may_carry_its_packages_digest(end: str) -> None:
    assert storage.bound(f"s3://bucket/a/sha256-{'0a' * 32}{end}") == "0a" * 32
    assert storage.bound(f"s3://bucket/a/sha256-{'0a' * 32}/b") is None
    assert storage.bound(f"s3://bucket/a/sha256-{'0A' * 32}") is None


@pytest.mark.parametrize("uri", ["", "ftp://x", "file://host/x", "file://relative", "file:///x?y", "a\0b"])
def test_what_names_no_place_is_refused(uri: str) -> None:
    with pytest.raises(StorageError):
        storage.parse(uri, Path("/"))


# Buckets


def test_objects_come_back_as_they_went(bucket: str, tmp_path: Path) -> None:
    place = storage.open(bucket)
    (tmp_path / "file").write_bytes(bytes(range(256)) * 100)
    place.put("a/file", tmp_path / "file")
    assert place.read("a/file") == (tmp_path / "file").read_bytes()
    assert place.part("a/file", 256, 3) == b"\0\1\2"
    assert {key: found.bytes for key, found in place.list().items()} == {"a/file": 25600}
    assert place.at("a").list().keys() == {"file"}
    assert place.at("nothing").list() == {}
    assert place.find("b") is None


def test_an_object_is_written_on_a_condition_or_not_at_all(bucket: str) -> None:
    place = storage.open(bucket)
    assert place.write("a", b"1", None)
    assert not place.write("a", b"2", None)
    first = place.find("a")
    assert first and place.write("a", b"3", first)
    assert not place.write("a", b"4", first)
    assert not place.write("none", b"5", first)
    assert place.read("a") == b"3"
    place.check_conditions()


def test_one_of_many_who_write_at_once_is_first(bucket: str) -> None:
    place = storage.open(bucket)
    with ThreadPoolExecutor(8) as pool:
        for key in "abcdef":
            won = list(pool.map(lambda n, key=key: place.write(key, b"%d" % n, None), range(8)))
            assert won.count(True) == 1
            assert place.read(key) == b"%d" % won.index(True)


@pytest.mark.parametrize("uri", ["s3://", "s3:///x", "s3://b u/x", "s3://bucket/a//b", "s3://bucket/../x", "gs://"])
def test_what_names_no_bucket_is_refused(bucket: str, uri: str) -> None:
    with pytest.raises(StorageError, match=r"expected (s3|gs)://BUCKET/FOLDER"):
        storage.open(uri)


def refused(uri: str) -> str:
    """Return what is said when an object is read, a list asked and an object written: each time one line."""
    place = storage.open(uri)
    said = []
    for act in (lambda: place.read("x"), place.list, lambda: place.write("x", b"", None)):
        with pytest.raises(StorageError) as found:
            act()
        said.append(str(found.value))
        assert "\n" not in said[-1] and len(said[-1]) < 400
    assert len({text.split(": ", 1)[1] for text in said}) == 1, said
    return said[0]


def test_a_bucket_that_is_not_there_is_named(bucket: str, address: str) -> None:
    assert f"expected bucket nobody, found none of that name at {address}" in refused("s3://nobody/x")


def test_a_wrong_key_is_told_from_a_missing_object(bucket: str, address: str) -> None:
    require_keys(address, 0)
    try:
        assert f"{address} refused the key (InvalidAccessKeyId); look at AWS_ACCESS_KEY_ID" in refused(bucket)
    finally:
        require_keys(address, float("inf"))
    with pytest.raises(StorageError, match=r"expected x, found no such object"):
        storage.open(bucket).read("x")


def require_keys(address: str, after: float) -> None:
    """Have the store look at keys after so many calls."""
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{address}/moto-api/reset-auth", str(after).encode(), headers)
    urllib.request.urlopen(request).close()


def test_a_store_that_does_not_answer_is_said_to_be_away(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    stores.use(monkeypatch, away)
    assert f"expected an answer of {away}, found none (Connection refused); is AWS_ENDPOINT_URL right" in refused(
        bucket
    )


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AccessDenied", "does not allow it (AccessDenied)"),
        (403, "SignatureDoesNotMatch", "refused the key (SignatureDoesNotMatch)"),
        (501, "NotImplemented", "cannot do this (NotImplemented)"),
        (503, "SlowDown", "answered 503 SlowDown, after several attempts"),
    ],
)
def test_what_a_store_answers_is_said_in_one_line(
    bucket: str, address: str, monkeypatch: pytest.MonkeyPatch, status: int, code: str, said: str
) -> None:
    class Refusing(stores.Between):
        def answer(self, _: int, headers: dict[str, str], body: bytes) -> None:
            super().answer(status, headers, f"<Error><Code>{code}</Code></Error>".encode())

    monkeypatch.setitem(buckets.RETRY, "max_retries", 1)
    with stores.between(Refusing, address) as refusing:
        stores.use(monkeypatch, refusing)
        assert said in refused(bucket)


def test_an_endpoint_that_is_none_and_no_credentials_are_said_at_once(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    with pytest.raises(StorageError, match="expected credentials for http://127"):
        storage.open(bucket)
    stores.use(monkeypatch, "nonsense")
    with pytest.raises(StorageError, match="expected http://HOST:PORT or https://HOST, found 'nonsense'"):
        storage.open(bucket)
    stores.use(monkeypatch, "https://localhost", AWS_CA_BUNDLE="/nowhere.pem")
    with pytest.raises(StorageError, match=r"AWS_CA_BUNDLE: /nowhere\.pem cannot be read"):
        storage.open(bucket)


# Source data


def test_data_in_a_bucket_is_copied_here_and_only_what_changed_again(bucket: str, tmp_path: Path) -> None:
    place = storage.open(bucket)
    assert place.write("a.csv", b"1", None) and place.write("more/b.csv", b"2", None)
    folder = storage.local(bucket, Path("/"))
    assert [(folder / name).read_text() for name in ("a.csv", "more/b.csv")] == ["1", "2"]
    (folder / "a.csv").write_text("x")  # of the same size: what was fetched is believed by the store's tag
    first = place.find("more/b.csv")
    assert first and place.write("more/b.csv", b"3", first)
    assert place.write("c.csv", b"4", None)
    assert storage.local(bucket, Path("/")) == folder
    assert [(folder / name).read_text() for name in ("a.csv", "c.csv", "more/b.csv")] == ["x", "4", "3"]


def test_data_removed_from_a_bucket_is_removed_here(bucket: str) -> None:
    import obstore

    place = storage.open(bucket)
    for name in "ab":
        assert place.write(f"{name}.csv", b"1", None)
    folder = storage.local(bucket, Path("/"))
    obstore.delete(place.store, f"{place.prefix}/a.csv")
    assert {path.name for path in storage.local(bucket, Path("/")).glob("*.csv")} == {"b.csv"}
    assert storage.local(f"{bucket}/b.csv", Path("/")) == folder / "b.csv"


def test_data_that_is_not_there_is_said_to_be_missing(bucket: str, address: str) -> None:
    with pytest.raises(StorageError, match="expected an object or a folder of objects, found none"):
        storage.local(f"{bucket}/none.csv", Path("/"))
    with pytest.raises(StorageError, match="expected bucket nobody"):
        storage.local("s3://nobody/none.csv", Path("/"))
