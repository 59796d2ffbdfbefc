"""A verification that is interrupted, or killed, goes on where it was."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cache
from tests.cache.verification.flipping import flip

verification = sys.modules["cache.verification.verify"]  # `cache.verify` is the function


@pytest.fixture
def root(tmp_path: Path, toy: Any) -> Path:
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path)
    return tmp_path


class Interrupted(BaseException):
    """As Ctrl-C."""


def stop_after(n_shards: int) -> Any:
    def progress(done: int, total: int, rate: str) -> None:
        if done == n_shards:
            raise Interrupted

    return progress


def looked_at(root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[cache.Report, list[str]]:
    """A verification, and the shards that it has opened."""
    seen: list[str] = []
    real = verification.check

    def check(store: Any, shard: Any, **rest: Any) -> Any:
        seen.append(shard.key)
        return real(store, shard, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(verification, "check", check)
        return cache.verify(root, **options), seen


def test_an_interrupted_verification_goes_on_where_it_was(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, every = looked_at(root, monkeypatch)
    with pytest.raises(Interrupted):
        cache.verify(root, progress=stop_after(25))
    assert cache.interrupted(root) == 25
    flip(root / "toy/train/frame_index/c/1", 9)  # was checked; is another file now
    report, seen = looked_at(root, monkeypatch)
    assert sorted(seen) == sorted([*every[25:], "toy/train/frame_index/c/1"])
    assert (report.carried, report.shards, report.bytes) == (24, whole.shards, whole.bytes)
    assert [damage.key for damage in report.damaged] == ["toy/train/frame_index/c/1"]
    assert not (root / ".verifying").exists()


def test_anew_an_old_note_and_a_damaged_one_count_for_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        with pytest.raises(Interrupted):
            cache.verify(root, progress=stop_after(25))

    interrupt()
    assert looked_at(root, monkeypatch, resume=False)[0].carried == 0
    interrupt()
    later = time.time() + 8 * 24 * 3600
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: later)
        assert cache.interrupted(root) == 0
        assert looked_at(root, monkeypatch)[0].carried == 0
    interrupt()
    flip(root / ".verifying/journal.jsonl", 8 * 200)
    assert looked_at(root, monkeypatch)[0].carried == 0


def test_a_killed_verification_goes_on_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
import os, signal, sys
import cache, cache.verification.checked
cache.verification.checked.EVERY = 0
cache.verify(sys.argv[1], progress=lambda done, total, rate: done == 30 and os.kill(os.getpid(), signal.SIGKILL))
"""
    ended = subprocess.run([sys.executable, "-c", script, str(root)], cwd=Path(cache.__file__).parents[2])
    assert ended.returncode == -signal.SIGKILL
    report, seen = looked_at(root, monkeypatch)
    assert report.ok
    assert report.carried == 30 == 60 - len(seen)


def test_a_note_is_held_for_a_repair_only_where_something_is_damaged(root: Path) -> None:
    assert cache.verify(root, hold=True).ok
    assert cache.interrupted(root) == 0
    flip(root / "toy/train/kp_2d/c/2/0/0", 80)
    cache.verify(root, hold=True)
    assert cache.interrupted(root) == 59


def test_a_cache_that_cannot_be_written_to_is_verified_without_a_note(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(root))

    monkeypatch.setattr("cache.storage.atomic.os.mkdir", refuse)
    with pytest.raises(Interrupted):
        cache.verify(root, progress=stop_after(25))
    assert cache.interrupted(root) == 0
    assert cache.verify(root).ok
    assert cache.verify(root).notes == ()
