"""A cache on a real S3 server: its objects, read by another client than ours, and what it
refuses.
"""

import pytest

import cache
from cache.write.parts import Part
from tests.cache import toy
from tests.cache.storage.buckets import SPLIT, STREAM, objects, requests_of, two_commits
from tests.raising import cache_refuses

obstore = pytest.importorskip(
    "obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'"
)
pytest.importorskip("moto.server", reason="a real S3 server is needed: pip install --group dev")

from cache.storage import object_store  # noqa: E402  not without obstore


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 0.2)


def one_line(error):
    text = str(error)
    assert "\n" not in text
    assert len(text) < 700
    return text


def test_wrong_credentials_are_an_error(url, soon, monkeypatch):
    cache.store_at(url).put_small({"zarr.json": b"{}"}, "")
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
    for act in (
        lambda: cache.open(url),
        lambda: toy.add(url, "b", 4),
        lambda: cache.verify(url),
    ):
        with cache_refuses("AWS_ACCESS_KEY_ID") as refused:
            act()
        assert url in one_line(refused.value)
    with cache_refuses(r"InvalidAccessKeyId: .* does not exist in our records"):
        cache.store_at(url).read("zarr.json")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_a_missing_server_is_an_error(endpoint, url, soon, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for act in (lambda: cache.open(url), lambda: toy.write(url, toy.videos())):
        with cache_refuses("AWS_ENDPOINT_URL") as refused:
            act()
        assert endpoint in one_line(refused.value)


def ignore(ignored, patch):
    """Let the server carry out puts as if this condition were not stated."""
    real = obstore.put

    def put(store, key, data, *, mode="overwrite", **options):
        condition = {"create": "If-None-Match", "overwrite": ""}.get(str(mode), "If-Match")
        if condition == ignored:
            mode = "overwrite"
        return real(store, key, data, mode=mode, **options)

    patch.setattr(obstore, "put", put)


@pytest.mark.parametrize("condition", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_a_condition_is_refused_by_every_writer_and_can_be_read(
    condition, url, tmp_path, monkeypatch
):
    for root in (url, tmp_path):
        two_commits(root)
    before = objects(url, every=True)
    ignore(condition, monkeypatch)
    for write in (
        lambda: toy.add(url, "z", 4),
        lambda: toy.stream_writer(url, "late", plan="w").__enter__(),
        lambda: cache.copy_split(tmp_path, SPLIT, f"{url}/copy"),
        lambda: cache.delete_stream(url, SPLIT, STREAM),
        lambda: Part(1, 2).running(url, f"{SPLIT}/.writing").__enter__(),
    ):
        with cache_refuses("If-None-Match, If-Match") as refused:
            write()
        assert url in one_line(refused.value)
    assert objects(url, every=True) == before
    assert cache.verify(url).problems == ()


def test_a_store_is_tried_once_by_each_writer_and_never_by_readers(url, monkeypatch):
    puts = requests_of(monkeypatch, "put")
    toy.write(url, toy.videos())
    tried = [key for key in puts if "/.writing/." in key]
    assert (len(tried), len(set(tried))) == (3, 1)
    assert len(puts) > 20
    puts.clear()
    assert cache.verify(url).ok
    assert cache.gc(url, dry_run=True).problems == []
    toy.opened(url).rows("bbox", 0, 8)
    assert puts == []


def test_the_object_by_which_a_store_is_tried_goes_also_when_that_fails(url, server, monkeypatch):
    real = obstore.put

    def put(*args, **options):
        real(*args, **options)
        raise OSError("the network is gone")

    monkeypatch.setattr(obstore, "put", put)
    with cache_refuses("the network is gone"):
        toy.write(url, toy.videos())
    name = url.removeprefix("s3://").partition("/")[0]
    assert server.list_objects_v2(Bucket=name)["KeyCount"] == 0
