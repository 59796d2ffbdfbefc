"""An S3 server that refuses, hangs or does not answer: what is sent again, and what is told."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import cache
from cache import CacheError

pytest.importorskip(
    "obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'"
)

from cache.storage import object_store
from tests.cache import toy
from tests.raising import cache_refuses


class Server(BaseHTTPRequestHandler):
    """Objects in memory. `puts` are the answers to the next puts: a code, or "hang"."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        answer = self.server.puts.pop(0) if self.server.puts else 200
        self.server.n_puts += 1
        if answer == "hang":
            self.server.ended.wait()
            return
        if answer == 200:
            if "if-none-match" in self.headers and self.path in self.server.objects:
                answer = 412
            else:
                self.server.objects[self.path] = data
        self._answer(answer)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        data = self.server.objects.get(self.path)
        self._answer(404 if data is None else 200, data or b"")

    def _answer(self, code, body=b""):
        self.send_response(code)
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Mon, 30 Nov 2026 12:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.objects, server.puts, server.n_puts = {}, [], 0
    server.ended = threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))  # s, of its last look
    thread.start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def store(server, monkeypatch):
    store = cache.store_at("s3://bucket/x")
    monkeypatch.setattr(store, "list_names", lambda _: [])  # the bucket is there
    return store


def put(store, data=b"ours"):
    store.put("shard", data, temporary="")


def commit(store, data=b"ours"):
    store.replace("shard", data, expected=None)


@pytest.mark.parametrize("create", [put, commit])
def test_a_conflict_without_an_object_is_tried_again(create, server, store):
    server.puts = [409, 409]
    create(store)
    assert server.n_puts == 3
    assert store.read("shard") == b"ours"


@pytest.mark.parametrize("create", [put, commit])
def test_conflicts_that_do_not_end_advise_no_removal(create, server, store):
    server.puts = [409] * 100
    with cache_refuses("Run the command again") as refused:
        create(store)
    assert "gc" not in str(refused.value)
    assert server.objects == {}


@pytest.mark.parametrize(
    ("create", "match"), [(put, "other content"), (commit, "has saved its work")]
)
def test_a_conflict_with_another_writers_object_is_told(create, match, server, store):
    create(store, b"theirs")
    server.puts = [409]
    with cache_refuses(match):
        create(store)
    assert store.read("shard") == b"theirs"
    create(store, b"theirs")  # equal content: a put whose answer was lost


def test_a_request_that_hangs_is_sent_again_within_the_time_of_repeats(server, monkeypatch):
    limit = 30.0  # s: obstore's default for a request
    assert limit < object_store.RETRY_SECONDS
    monkeypatch.setenv("AWS_TIMEOUT", "500ms")
    server.puts = ["hang"]
    cache.store_at("s3://bucket/x").put_small({"zarr.json": b"{}"}, "")
    assert server.n_puts == 2


def test_gc_of_a_place_whose_store_does_not_answer_is_a_problem(tmp_path, monkeypatch):
    toy.write(tmp_path, toy.videos())
    error = CacheError("s3://bucket/x: expected an answer from the object store, found a time-out")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("cache.write.gc.find_unreferenced", fail)
    collected = cache.gc(tmp_path)
    assert (collected.problems, collected.skipped) == ([str(error)], [])
