"""A writer in an object store that is killed at any request, and run again, ends with the same objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import cache
from tests.cache.storage.buckets import LEFT, SPLIT, Killed, two_commits

obstore = pytest.importorskip("obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'")
pytest.importorskip("moto.server", reason="a real S3 server is needed: pip install -e '.[dev]'")

from cache.storage import object_store  # noqa: E402  not without obstore


class Deaths:
    """Ends the run at its n-th request that changes something, before or after the server has carried it out."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left, self.after = -1, False
        self.seen = 0
        for name in ("put", "copy", "delete"):  # a run that dies while it reads is as if it had died at the one before
            patch.setattr(obstore, name, self._counted(getattr(obstore, name)))

    def _counted(self, request: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.seen += 1
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Killed
            answer = request(*args, **options)
            if self.left == 0:
                raise Killed
            return answer

        return counted

    def after_requests(self, number: int, *, carried_out: bool) -> None:
        self.left, self.after = number, carried_out

    def never(self) -> None:
        self.left = -1


def killed_and_run_again(root: str, toy: Any, deaths: Deaths, number: int, *, carried_out: bool) -> None:
    deaths.after_requests(number, carried_out=carried_out)
    with pytest.raises(Killed):
        two_commits(root, toy)
    deaths.never()
    if SPLIT in cache.FeatureCache(root):  # whatever was committed is whole
        assert cache.verify(root).problems == (), number
        cache.open(root)[SPLIT].read([[0, 8]], stream=None, fields=["bbox"])
    two_commits(root, toy)
    assert cache.verify(root).ok, number


@pytest.mark.parametrize("carried_out", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("every", [15, pytest.param(1, marks=pytest.mark.slow)])
def test_a_writer_killed_at_any_request_and_run_again_ends_with_the_same_objects(
    carried_out: bool, every: int, memory: None, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request of the run, which would take minutes of a server; and quickly, some of them."""
    monkeypatch.setattr(object_store, "_IN_FLIGHT", 1)  # one request after the other: dead means dead

    def held(root: str) -> dict[str, bytes]:
        store = cache.store_at(root)
        return {key: store.read(key) for key in store.files("") if not any(part in LEFT for part in key.split("/"))}

    deaths = Deaths(monkeypatch)
    two_commits("s3://memory/calm", toy)
    n_requests, wanted = deaths.seen, held("s3://memory/calm")
    assert n_requests > 60
    for number in range(1, n_requests + 1, every):
        root = f"s3://memory/{number}"
        killed_and_run_again(root, toy, deaths, number, carried_out=carried_out)
        assert held(root) == wanted, number
