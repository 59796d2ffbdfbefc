"""Killed at any point and started again, a run ends with the same bytes; whoever reads meanwhile sees old or new."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from cache import SplitWriter, StreamWriter, manifest

KILLS = 12  # per test, spread over all steps of a run


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@contextmanager
def killed_at(sync: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Die at the n-th fsync from here on: every step of every write has one."""
    real, count = os.fsync, [0]

    def fsync(fd: int) -> None:
        count[0] += 1
        if count[0] == sync:
            raise Killed
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield count


def survive_every_kill(
    run: Callable[[Path], None],
    prepare: Callable[[Path], None],
    tmp_path: Path,
    toy: Any,
    monkeypatch: pytest.MonkeyPatch,
    state: Callable[[Path], Any],
) -> None:
    calm = tmp_path / "calm"
    prepare(calm)
    old = state(calm)
    with killed_at(0, monkeypatch) as count:
        run(calm)
    expected, new = toy.tree(calm), state(calm)
    assert old != new
    seen = []
    for sync in np.unique(np.linspace(1, count[0], KILLS).astype(int)).tolist():
        root = tmp_path / f"killed-{sync}"
        prepare(root)
        with killed_at(sync, monkeypatch), pytest.raises(Killed):
            run(root)
        seen.append(state(root))
        assert seen[-1] in (old, new), f"a mixture after {sync} syncs"
        report = cache.verify(root) if (root / "zarr.json").exists() else None
        assert report is None or report.ok, report
        run(root)
        assert toy.tree(root) == expected, f"other bytes after a kill at sync {sync}"
    assert old in seen
    assert new in seen


def tracks_and_numbers(root: Path) -> Any:
    """What a reader sees: the tracks and all of their keypoints."""
    if not (root / "zarr.json").exists() or "toy/train" not in cache.open(root):
        return None
    split = cache.open(root)["toy/train"]
    return [(track, split.rows("bbox", track.start, track.stop).tobytes()) for track in split.tracks]


def test_a_killed_first_conversion(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    survive_every_kill(
        lambda root: toy.write(root, toy.videos()),
        lambda root: None,
        tmp_path,
        toy,
        monkeypatch,
        tracks_and_numbers,
    )


def test_a_killed_second_commit_that_replaces_and_drops(
    tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(root: Path) -> None:
        with SplitWriter(root, "toy/train", columns=toy.columns, plan="second") as writer:
            committed = set(writer.committed_videos) >= {"g"}
            writer.begin([] if committed else ["b", "d"])
            if not committed:
                for name, lengths in {"b": [40], "g": [1, 30]}.items():
                    if name not in writer.journalled:
                        writer.append(*toy.video(name, lengths, seed=5))
            writer.commit({"dataset": "toy", "plan": "second"})

    survive_every_kill(
        run,
        lambda root: toy.write(root, toy.videos()),
        tmp_path,
        toy,
        monkeypatch,
        tracks_and_numbers,
    )


def test_a_killed_extraction(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def state(root: Path) -> Any:
        split = cache.open(root)["toy/train"]
        if "resnet50" not in split.streams:
            return None
        windows = split.windows(2, 2, "resnet50")
        return split.read(windows, "resnet50", fields=["features"])["features"].tobytes()

    survive_every_kill(
        lambda root: toy.write_stream(root),
        lambda root: toy.write(root, toy.videos()),
        tmp_path,
        toy,
        monkeypatch,
        state,
    )


def test_videos_in_finished_shards_are_not_asked_for_again(tmp_path: Path, toy: Any) -> None:
    videos = toy.videos()  # a 0-10, b 10-37, c none, d 37-107, e 107-115, f 115-143; shards of 32 rows
    with (
        pytest.raises(Killed),
        SplitWriter(
            tmp_path, "toy/train", columns=toy.columns, plan="p", rows_per_shard=32, rows_per_chunk=8
        ) as writer,
    ):
        writer.begin()
        for video in videos[:4]:
            writer.append(*video)
        raise Killed
    with SplitWriter(
        tmp_path, "toy/train", columns=toy.columns, plan="p", rows_per_shard=32, rows_per_chunk=8
    ) as writer:
        assert writer.committed_videos == {}
        writer.begin()
        assert writer.journalled == ("a", "b", "c")  # d straddles the last journalled shard, 64-96


def test_another_plan_starts_anew(tmp_path: Path, toy: Any) -> None:
    with (
        pytest.raises(Killed),
        SplitWriter(
            tmp_path / "x", "toy/train", columns=toy.columns, plan="old", rows_per_shard=32, rows_per_chunk=8
        ) as writer,
    ):
        writer.begin()
        for video in toy.videos(seed=1):
            writer.append(*video)
        raise Killed
    short = [toy.video("a", [10])]
    toy.write(tmp_path / "x", short, plan="new")
    toy.write(tmp_path / "calm", short, plan="new")
    assert toy.tree(tmp_path / "x") == toy.tree(tmp_path / "calm")
    assert cache.verify(tmp_path / "x").notes == ()


def test_a_torn_or_forged_journal_line_counts_as_never_written(tmp_path: Path, toy: Any) -> None:
    def start(root: Path) -> Path:
        with (
            pytest.raises(Killed),
            SplitWriter(
                root, "toy/train", columns=toy.columns, plan="plan", rows_per_shard=32, rows_per_chunk=8
            ) as writer,
        ):
            writer.begin()
            for video in toy.videos():
                writer.append(*video)
            raise Killed
        return root / "toy/train/.writing/journal.jsonl"

    toy.write(tmp_path / "calm", toy.videos())
    whole = start(tmp_path / "whole").read_bytes()
    for cut in (0, 5, len(whole) // 3, len(whole) - 1):
        root = tmp_path / f"cut-{cut}"
        start(root).write_bytes(whole[:cut])
        toy.write(root, toy.videos())
        assert toy.tree(root) == toy.tree(tmp_path / "calm")
    journal = start(tmp_path / "forged")
    journal.write_bytes(whole.replace(b'"fps": 25.0', b'"fps": 26.0'))
    toy.write(tmp_path / "forged", toy.videos())
    assert toy.tree(tmp_path / "forged") == toy.tree(tmp_path / "calm")


def test_a_journalled_shard_that_is_lost_or_damaged_is_made_again(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path / "calm", toy.videos())
    for damage in ("lost", "damaged"):
        root = tmp_path / damage
        with (
            pytest.raises(Killed),
            SplitWriter(
                root, "toy/train", columns=toy.columns, plan="plan", rows_per_shard=32, rows_per_chunk=8
            ) as writer,
        ):
            writer.begin()
            for video in toy.videos()[:4]:
                writer.append(*video)
            raise Killed
        shard = root / "toy/train/bbox/c/1/0"
        if damage == "lost":
            shard.unlink()
        else:
            data = bytearray(shard.read_bytes())
            data[3] ^= 1
            shard.write_bytes(data)
        toy.write(root, toy.videos())
        assert toy.tree(root) == toy.tree(tmp_path / "calm")


def test_a_reader_sees_nothing_of_what_is_not_committed(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [40])])
    opened = cache.open(tmp_path)["toy/train"]
    with SplitWriter(tmp_path, "toy/train", columns=toy.columns, plan="next") as writer:
        writer.begin(["a"])
        writer.append(*toy.video("b", [100]))
        for split in (opened, cache.open(tmp_path)["toy/train"]):
            assert [track.name for track in split.tracks] == ["a/0"]
            assert len(split.windows(16, 16)) == 2
        writer.commit({})
    assert [track.name for track in opened.tracks] == ["a/0"]
    np.testing.assert_array_equal(opened.rows("bbox", 0, 40), toy.track("a/0", 40).columns["bbox"])
    assert [track.name for track in cache.open(tmp_path)["toy/train"].tracks] == ["b/0"]


def test_between_the_manifest_and_the_small_files_a_reader_sees_the_new_state(
    tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.write(tmp_path, [toy.video("a", [10])])
    real = manifest.roll_forward

    def die(place: manifest.Place, committed: Any) -> None:
        if committed is not None and place.store.below(place.staging(committed["digest"])):
            raise Killed
        real(place, committed)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(manifest, "roll_forward", die)
        toy.write(tmp_path, [toy.video("b", [5])])
    split = cache.open(tmp_path)["toy/train"]
    assert [track.name for track in split.tracks] == ["a/0", "b/0"]
    assert split.column("bbox").shape == (37, 4)
    report = cache.verify(tmp_path)
    assert report.ok
    assert any(".commit" in note for note in report.notes)
    toy.write(tmp_path, [])
    assert cache.verify(tmp_path).notes == ()


_SCRIPT = """
import importlib.util, os, signal, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("toys", sys.argv[1])
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)
left = [int(sys.argv[3])]
def fsync(fd):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
toys.Toy.write(Path(sys.argv[2]), toys.Toy.videos())
"""


def test_a_process_killed_by_the_kernel_leaves_no_lock_and_no_doubt(tmp_path: Path, toy: Any) -> None:
    root, toys = tmp_path / "x", Path(__file__).with_name("conftest.py")
    command = [sys.executable, "-c", _SCRIPT, str(toys), str(root), "120"]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert (root / "toy/train/.writing/journal.jsonl").exists()
    assert cache.open(root).splits == ()
    assert cache.verify(root).ok
    toy.write(root, toy.videos())
    toy.write(tmp_path / "calm", toy.videos())
    assert toy.tree(root) == toy.tree(tmp_path / "calm")


def test_an_extraction_with_other_weights_does_not_take_over_journalled_shards(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    with pytest.raises(Killed), StreamWriter(tmp_path, "toy/train", "resnet50", dim=4, plan="old") as writer:
        rows = np.asarray(writer.rows(1))
        writer.write(1, toy.features(rows, 4), np.ones(len(rows)), toy.keys(rows))
        raise Killed
    with StreamWriter(tmp_path, "toy/train", "resnet50", dim=4, plan="old") as writer:
        assert writer.pending == [0, 2, 3, 4]
    with StreamWriter(tmp_path, "toy/train", "resnet50", dim=4, plan="new") as writer:
        assert writer.pending == [0, 1, 2, 3, 4]
