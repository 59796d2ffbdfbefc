"""What an object store refuses, or does not answer, gives an error with what to do."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

import cache
from cache import CacheError
from tests.cache.storage.buckets import objects

obstore = pytest.importorskip("obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'")
pytest.importorskip("moto.server", reason="a real S3 server is needed: pip install -e '.[dev]'")

from cache.storage import object_store  # noqa: E402  not without obstore


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 0.2)


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 700
    return text


def test_wrong_credentials_are_an_error(url: str, toy: Any, soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.write(url, [toy.video("a", [4])])
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
    for act in (lambda: cache.open(url), lambda: toy.write(url, [toy.video("b", [4])]), lambda: cache.verify(url)):
        with pytest.raises(CacheError, match="AWS_ACCESS_KEY_ID") as refused:
            act()
        assert url in one_line(refused.value)
    with pytest.raises(CacheError, match=r"InvalidAccessKeyId: .* does not exist in our records"):
        cache.store_at(url).read("zarr.json")


def test_a_missing_bucket_is_an_error(server: Any, toy: Any, soon: None) -> None:
    for act in (cache.open, lambda root: toy.write(root, toy.videos()), cache.verify):
        with pytest.raises(CacheError, match="NoSuchBucket: The specified bucket does not exist") as refused:
            act("s3://no-such-bucket/cache")
        assert one_line(refused.value).startswith("s3://no-such-bucket/cache")
    with pytest.raises(CacheError, match="NoSuchBucket"):
        cache.store_at("s3://no-such-bucket/cache").put_small({"a": b""}, "")
    with pytest.raises(CacheError, match="NoSuchBucket"):
        cache.store_at("s3://no-such-bucket/cache").put("a", b"", temporary="b")


def test_a_bucket_without_a_cache_is_an_error(url: str) -> None:
    with pytest.raises(CacheError, match=rf"{url}: expected a feature cache, found no zarr\.json"):
        cache.open(url)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_a_missing_server_is_an_error(
    endpoint: str, url: str, toy: Any, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for act in (lambda: cache.open(url), lambda: toy.write(url, toy.videos())):
        with pytest.raises(CacheError, match="AWS_ENDPOINT_URL") as refused:
            act()
        assert endpoint in one_line(refused.value)


def test_a_server_that_stops_is_an_error_and_the_work_goes_on_later(
    url: str, server: Any, toy: Any, soon: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, count = obstore.put, itertools.count()

    def failing(store: Any, key: str, data: bytes, **options: Any) -> Any:
        if next(count) == 40:
            raise obstore.exceptions.GenericError("Generic S3 error: connection reset")
        return real(store, key, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", failing)
        with pytest.raises(CacheError, match=r"connection reset.* What is finished is kept"):
            toy.write(url, toy.videos())
    assert cache.FeatureCache(url).splits == ()
    toy.write(url, toy.videos())
    toy.write(tmp_path / "calm", toy.videos())
    assert objects(server, url) == toy.tree(tmp_path / "calm")


@pytest.mark.parametrize("root", ["ftp://host/cache", "http://host/cache", "S4://bucket"])
def test_another_scheme_is_refused(root: str, toy: Any) -> None:
    for act in (cache.open, lambda root: toy.write(root, toy.videos())):
        with pytest.raises(CacheError, match="expected a folder, or a URL that starts with one of s3, ") as refused:
            act(root)
        assert root in one_line(refused.value)


def test_without_obstore_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(CacheError, match=r"s3://bucket/x: a cache in an object store needs obstore: pip install"):
        cache.open("s3://bucket/x")
