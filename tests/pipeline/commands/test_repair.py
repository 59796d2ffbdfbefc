"""`verify --repair`: damaged shards are filled again from the raw data, just their rows, and nothing intact is lost."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

import cache
from pipeline.features.plan import is_current

NAME = "penn_action/train"
STREAM = f"{NAME}/features/resnet50"


@pytest.fixture
def root(penn: Any, network: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards of 8 rows: one a video."""
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_SHARD", 8)
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_CHUNK", 8)
    penn.converted("exact")
    return Path(penn.root)


@pytest.fixture
def repair(ran: Any, root: Path) -> Any:
    return functools.partial(ran, "verify", "--repair", "--cache", root)


def spoil(file: Path) -> None:
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 3] ^= 4
    file.write_bytes(changed)


def files(root: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(root.rglob("*")) if path.is_file() and ".verifying" not in path.name)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def numbers(penn: Any) -> dict[str, dict[str, bytes]]:
    """All rows, by column and track."""
    names = [*penn.split.columns, "features/resnet50"]
    return {name: {track: rows.tobytes() for track, rows in penn.rows(name).items()} for name in names}


def test_a_damaged_shard_of_a_stream_costs_just_its_rows(
    root: Path, penn: Any, network: Any, reads: Any, repair: Any
) -> None:
    before, manifest = numbers(penn), (root / STREAM / "manifest.json").read_bytes()
    spoil(root / STREAM / "c/1/0")
    reads.clear()
    shown = repair().out.splitlines()
    assert shown[0].startswith(f"✗ {root / STREAM / 'c/1/0'}: ")
    assert f"{NAME}, resnet50: 8 rows computed again, 0 carried over" in shown
    assert shown[-1].startswith("✓ intact: ")
    assert (len(network.batches), reads.names) == (1, [])
    assert numbers(penn) == before
    assert (root / STREAM / "manifest.json").read_bytes() == manifest
    assert is_current(penn.split, "resnet50")


def test_a_damaged_shard_of_a_column_costs_reading_its_videos_and_no_feature(
    root: Path, penn: Any, network: Any, reads: Any, repair: Any
) -> None:
    before = numbers(penn)
    spoil(root / NAME / "kp_2d/c/1/0/0")
    reads.clear()
    shown = repair().out.splitlines()
    assert f"{NAME}: 1 video read again" in shown
    assert f"{NAME}, resnet50: 0 rows computed again, 8 carried over" in shown
    assert shown[-1].startswith("✓ intact: ")
    assert (set(reads.names), network.batches) == ({"0003"}, [])
    assert numbers(penn) == before
    assert "1" not in penn.split.manifest["shards"]["kp_2d"]
    assert penn.split.manifest["accounting"]["videos"]["kept"] == 3
    assert penn.plan().up_to_date


@pytest.mark.parametrize("gone", [True, False])
def test_where_a_video_cannot_be_read_again_nothing_is_changed(gone: bool, root: Path, penn: Any, repair: Any) -> None:
    if gone:
        penn.remove("0003")
    else:
        penn.label("0003").write_bytes(penn.label("0003").read_bytes()[:50])
    spoil(root / NAME / "kp_2d/c/1/0/0")
    before = files(root)
    error = " ".join(repair(code=1).err.split())
    assert "0003" in error
    assert f"Nothing was {'changed' if gone else 'committed'}" in error
    if gone:
        assert f"convert penn_action train --raw {penn.raw} --cache {root}" in error
    assert files(root) == before


def test_weights_that_only_the_user_has_are_asked_for_with_the_command(
    root: Path, repair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = root / STREAM / "c/1/0"
    spoil(shard)
    real = cache.Split.stream_manifest

    def from_a_file(self: Any, stream: str) -> Any:
        of = dict(real(self, stream))
        weights = {"kind": "spin", "file_sha256": "f00d" * 16}
        return {**of, "identity": {**of["identity"], "weights": weights}}

    monkeypatch.setattr(cache.Split, "stream_manifest", from_a_file)
    error = " ".join(repair(code=1).err.split())
    assert "8 rows of resnet50 are lost" in error
    assert "sha256 f00df00df00d" in error
    assert f"extract penn_action train --cache {root} --stream resnet50 --weights spin:FILE --precision exact" in error
    assert not shard.exists()


def test_a_repair_that_was_killed_before_its_extraction_continues(root: Path, penn: Any, repair: Any) -> None:
    before = numbers(penn)
    spoil(root / STREAM / "c/1/0")
    cache.repair(root, cache.verify(root))  # and here it is killed
    assert f"{NAME}, resnet50: 8 rows computed again, 0 carried over" in repair().out
    assert numbers(penn) == before


def test_with_nothing_to_repair_no_file_is_changed(root: Path, penn: Any, network: Any, repair: Any) -> None:
    before = penn.everything()
    assert repair().out.splitlines()[-1] == "nothing to repair"
    assert (penn.everything(), network.batches) == (before, [])
