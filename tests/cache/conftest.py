"""Small splits with known numbers: the same seed gives the same rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import UNDEFINED, SplitWriter, StreamShards, StreamWriter, TrackRows, VideoEntry

COLUMNS = ("frame_index", "bbox", "kp_2d", "kp_3d", "pose", "betas", "has_3d", "has_smpl", "valid")
ROWS_PER_SHARD, ROWS_PER_CHUNK = 32, 8


def make_track(name: str, n_rows: int, *, seed: int = 0, step: int = 1, frame_index: Any = None) -> TrackRows:
    rng = np.random.default_rng([seed, n_rows, *name.encode()])
    frames = np.arange(n_rows) * step if frame_index is None else np.asarray(frame_index)
    n_rows = len(frames)
    kp_2d = rng.uniform(0, 640, (n_rows, 49, 3)).astype(np.float32)
    kp_2d[..., 2] = 1
    kp_3d = rng.normal(size=(n_rows, 49, 4)).astype(np.float32)
    kp_3d[..., 3] = 1
    columns = {
        "frame_index": frames,
        "bbox": rng.uniform(50, 100, (n_rows, 4)).astype(np.float32),
        "kp_2d": kp_2d,
        "kp_3d": kp_3d,
        "pose": rng.normal(size=(n_rows, 72)).astype(np.float32),
        "betas": rng.normal(size=(n_rows, 10)).astype(np.float32),
        "has_3d": np.ones(n_rows, bool),
        "has_smpl": np.ones(n_rows, bool),
        "valid": np.ones(n_rows, bool),
    }
    video = name.split("/")[0]
    return TrackRows(name=name, video=video, step=step, fps=25.0, crop_scale=1.3, columns=columns)


def make_video(name: str, lengths: Sequence[int], *, seed: int = 0) -> tuple[VideoEntry, list[TrackRows]]:
    tracks = [make_track(f"{name}/{person}", length, seed=seed) for person, length in enumerate(lengths)]
    account = {"found": sum(lengths) + 1, "kept": sum(lengths), "dropped": {"too_small": 1}}
    pixels: Any = {"source": f"frames/{name}", "width": 640, "height": 480}
    return VideoEntry(name=name, fingerprint=f"{seed:064x}", account=account, **pixels), tracks


Videos = Sequence[tuple[VideoEntry, Sequence[TrackRows]]]


def split_writer(root: Any, plan: str, **options: Any) -> SplitWriter:
    sizes = {"rows_per_shard": ROWS_PER_SHARD, "rows_per_chunk": ROWS_PER_CHUNK}
    return SplitWriter(root, "toy/train", plan=plan, **{"columns": COLUMNS, **sizes, **options})


def leave_unfinished(root: Path, videos: Videos, plan: str = "next") -> Path:
    """A conversion that ends when it has appended these videos; its journal."""
    with split_writer(root, plan) as writer:
        writer.begin()
        for video in videos:
            writer.append(*video)
    return root / "toy/train/.writing/journal.jsonl"


def write_split(root: Path, videos: Videos, *, drop: Sequence[str] = (), plan: str = "plan") -> None:
    with split_writer(root, plan) as writer:
        writer.begin(drop)
        for entry, tracks in videos:
            committed = entry.name in writer.committed_videos and entry.name not in drop
            if not committed and entry.name not in writer.journalled:
                writer.append(entry, tracks)
        writer.commit({"dataset": "toy", "plan": plan})


def keys_of(rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n, 2) uint64, a different key for every row."""
    return np.stack([np.full(len(rows), seed), rows], axis=1).astype(np.uint64)


def features_of(rows: np.ndarray, dim: int) -> np.ndarray:
    """(n, dim) float32 that float16 holds exactly: the row number and small fractions."""
    return (np.asarray(rows)[:, None] + np.arange(dim)[None] / 8).astype(np.float32)


def write_stream(
    root: Path,
    *,
    stream: str = "resnet50",
    dim: int = 4,
    dtype: str = "float16",
    bad_rows: Sequence[int] = (),
    shards: Any = None,
    undefined_rows: Sequence[int] = (),
    **entries: Any,
) -> None:
    """Rows of which nothing can be known, `undefined_rows`, hold zeros."""
    with StreamWriter(root, "toy/train", stream, dim=dim, dtype=dtype, plan="weights") as writer:
        for shard in writer.pending if shards is None else shards:
            rows = np.asarray(writer.rows(shard))
            ok = np.where(np.isin(rows, undefined_rows), UNDEFINED, ~np.isin(rows, bad_rows))
            writer.write(shard, np.where(ok[:, None] == UNDEFINED, 0, features_of(rows, dim)), ok, keys_of(rows))
        writer.commit({"weights": "known", **entries})


def given_for(shards: StreamShards, shard: int) -> tuple[int, Any, np.ndarray, np.ndarray]:
    """What a writer takes for a shard in which every row has its features or bytes."""
    rows = np.asarray(shards.rows(shard))
    data = blobs_of(rows) if shards.form == "bytes" else features_of(rows, 4)
    return shard, data, np.ones(len(rows), np.uint8), keys_of(rows)


def blobs_of(rows: Sequence[int]) -> list[bytes]:
    """As many bytes as belong to each row: none to some, more than a chunk to others, the same for the same row."""
    sizes = {0: 0, 1: 140_000}
    return [np.random.default_rng(int(row)).bytes(sizes.get(row % 16, 10 + row % 7)) for row in rows]


def write_blobs(root: Path, *, bad_rows: Sequence[int] = (), shards: Any = None, plan: str = "quality 95") -> None:
    """The stream `crops` of bytes; rows that it has already are carried over by their keys."""
    with StreamWriter(root, "toy/train", "crops", dim=0, dtype="bytes", plan=plan) as writer:
        for shard in writer.pending if shards is None else shards:
            rows = np.asarray(writer.rows(shard))
            writer.write(shard, blobs_of(rows), ~np.isin(rows, bad_rows), keys_of(rows))
        writer.commit({"quality": 95})


class Toy:
    """The builders, for tests that cannot import from here."""

    columns = COLUMNS
    rows_per_shard, rows_per_chunk = ROWS_PER_SHARD, ROWS_PER_CHUNK
    writer: Callable[..., SplitWriter] = staticmethod(split_writer)
    unfinished: Callable[..., Path] = staticmethod(leave_unfinished)
    given: Callable[..., tuple[Any, ...]] = staticmethod(given_for)
    track: Callable[..., TrackRows] = staticmethod(make_track)
    video: Callable[..., tuple[VideoEntry, list[TrackRows]]] = staticmethod(make_video)
    write: Callable[..., None] = staticmethod(write_split)
    write_stream: Callable[..., None] = staticmethod(write_stream)
    keys: Callable[..., np.ndarray] = staticmethod(keys_of)
    features: Callable[..., np.ndarray] = staticmethod(features_of)
    blobs: Callable[..., list[bytes]] = staticmethod(blobs_of)
    write_blobs: Callable[..., None] = staticmethod(write_blobs)

    @staticmethod
    def videos(seed: int = 0) -> list[tuple[VideoEntry, list[TrackRows]]]:
        """Six videos, 143 rows: shards of 32 are crossed, one track takes more than two of them, one video has none."""
        lengths = {"a": [10], "b": [7, 20], "c": [], "d": [70], "e": [3, 5], "f": [28]}
        return [make_video(name, rows, seed=seed) for name, rows in lengths.items()]

    @staticmethod
    def tree(root: Path) -> dict[str, bytes]:
        """Every file that the promise of equal bytes holds for."""
        files = (path for path in sorted(root.rglob("*")) if path.is_file())
        kept = (path for path in files if path.name != "provenance.json" and ".writing" not in path.parts)
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in kept}


@pytest.fixture(scope="session")
def toy() -> type[Toy]:
    return Toy


@pytest.fixture(scope="module")
def memory() -> Iterator[None]:
    """Every URL leads to a store of obstore's in this process, which does in seconds what takes a server minutes."""
    store, stores = pytest.importorskip("obstore.store"), dict[str, Any]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "from_url", lambda url, **_: stores.setdefault(url, store.MemoryStore()))
        yield


def _copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "cache"))


@pytest.fixture(scope="session")
def made_tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos in 143 rows. Only to be read or copied, as all that is made once."""
    root = tmp_path_factory.mktemp("tracks") / "cache"
    Toy.write(root, Toy.videos())
    return root


@pytest.fixture(scope="session")
def made(made_tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with features."""
    root = _copied(made_tracks, tmp_path_factory.mktemp("features"))
    Toy.write_stream(root)
    return root


@pytest.fixture(scope="session")
def cropped(made_tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the bytes of all rows but two, instead."""
    root = _copied(made_tracks, tmp_path_factory.mktemp("cropped"))
    Toy.write_blobs(root, bad_rows=[3, 40])
    return root


@pytest.fixture
def tracks(made_tracks: Path, tmp_path: Path) -> Path:
    """A copy of the tracks alone, to change."""
    return _copied(made_tracks, tmp_path)


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of tracks and features, to change."""
    return _copied(made, tmp_path)


@pytest.fixture
def own(cropped: Path, tmp_path: Path) -> Path:
    """A copy of tracks and bytes, to change."""
    return _copied(cropped, tmp_path)
