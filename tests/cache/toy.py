"""Small splits with known numbers: the same seed gives the same rows."""

import json

import numpy as np

import cache
from cache import UNDEFINED, SplitWriter, StreamForm, StreamWriter, TrackRows, VideoEntry
from cache.format.layout import json_file
from tests.made_splits import track_of, write_split
from tests.trees import tree  # noqa: F401 - tests have it as `toy.tree`

columns = ("frame_index", "bbox", "kp_2d", "kp_3d", "pose", "betas", "has_3d", "has_smpl", "valid")
rows_per_shard, rows_per_chunk = 32, 8
SIZES = {"rows_per_shard": rows_per_shard, "rows_per_chunk": rows_per_chunk}
SPLIT = "toy/train"
Video = tuple[VideoEntry, list[TrackRows]]


def track(name, n_rows, *, seed=0, frame_index=None):
    rng = np.random.default_rng([seed, n_rows, *name.encode()])
    frames = np.arange(n_rows) if frame_index is None else np.asarray(frame_index)
    n_rows = len(frames)
    kp_2d = rng.uniform(0, 640, (n_rows, 49, 3)).astype(np.float32)
    kp_2d[..., 2] = 1
    kp_3d = rng.normal(size=(n_rows, 49, 4)).astype(np.float32)
    kp_3d[..., 3] = 1
    rows = {
        "frame_index": frames,
        "bbox": rng.uniform(50, 100, (n_rows, 4)).astype(np.float32),
        "kp_2d": kp_2d,
        "kp_3d": kp_3d,
        "pose": rng.normal(size=(n_rows, 72)).astype(np.float32),
        "betas": rng.normal(size=(n_rows, 10)).astype(np.float32),
        **{name: np.ones(n_rows, bool) for name in ("has_3d", "has_smpl", "valid")},
    }
    return track_of(name, rows)


def video(name, *lengths, seed=0):
    """A video with a track of so many rows for each length."""
    tracks = [track(f"{name}/{person}", length, seed=seed) for person, length in enumerate(lengths)]
    account = {"found": sum(lengths) + 1, "kept": sum(lengths), "dropped": {"too_small": 1}}
    pixels = {"source": f"frames/{name}", "width": 640, "height": 480}
    sums = {"rows": float(sum(lengths)), "boxes": float(sum(lengths)) / 7}
    entry = VideoEntry(name=name, fingerprint=f"{seed:064x}", account=account, sums=sums, **pixels)
    return entry, tracks


def videos(seed=0):
    """Six videos, 143 rows: shards of 32 are crossed, one track takes more than two of them, one
    video has none.
    """
    lengths = {"a": [10], "b": [7, 20], "c": [], "d": [70], "e": [3, 5], "f": [28]}
    return [video(name, *rows, seed=seed) for name, rows in lengths.items()]


def writer(root, plan, **options):
    return SplitWriter(root, SPLIT, plan=plan, **{"columns": columns, **SIZES, **options})


def unfinished(root, appended, plan="next", **options):
    """A conversion that ends when it has appended these videos; its staged work."""
    with writer(root, plan, **options) as split:
        following = split.begin()
        for one in appended:
            following.append(*one)
    return root / SPLIT / ".writing/staged"


def write(root, target, *, drop=(), invalidate=(), plan="plan", **options):
    with writer(root, plan, **options) as split:
        following = split.begin(drop, invalidate=invalidate)
        for entry, tracks in target:
            committed = entry.name in split.state.videos and entry.name not in drop
            if not committed and entry.name not in following.journalled:
                following.append(entry, tracks)
        following.commit({"dataset": "toy", "plan": plan, "stand_in": True})


def add(root, name, *lengths, seed=0, **options):
    """A commit with one more video."""
    write(root, [video(name, *lengths, seed=seed)], **options)


def opened(root):
    return cache.open(root)[SPLIT]


def keys(rows):
    """(n, 2) uint64, a different key for every row."""
    return np.stack([np.zeros(len(rows)), rows], axis=1).astype(np.uint64)


def features(rows, dim):
    """(n, dim) float32 that float16 holds exactly: the row number and small fractions."""
    return (np.asarray(rows)[:, None] + np.arange(dim)[None] / 8).astype(np.float32)


def stream_writer(root, stream="resnet50", dim=4, dtype="float16", plan="weights"):
    return StreamWriter(root, SPLIT, stream, StreamForm(dim, dtype), plan=plan)


def write_stream(
    root,
    *,
    stream="resnet50",
    dim=4,
    dtype="float16",
    bad_rows=(),
    shards=None,
    undefined_rows=(),
    **entries,
):
    """Rows of which nothing can be known, `undefined_rows`, hold zeros."""
    with stream_writer(root, stream, dim, dtype) as into:
        numbers = into.shards.pending if shards is None else shards
        for shard in numbers:
            rows = np.asarray(into.shards.rows(shard))
            ok = np.where(np.isin(rows, undefined_rows), UNDEFINED, ~np.isin(rows, bad_rows))
            into.write(
                shard, np.where(ok[:, None] == UNDEFINED, 0, features(rows, dim)), ok, keys(rows)
            )
        into.commit({"weights": "known", **entries})


def given(shards, shard):
    """What a writer takes for a shard in which every row has its features."""
    rows = np.asarray(shards.rows(shard))
    (dim,) = next(iter(shards.columns.values())).shape
    return shard, features(rows, dim), np.ones(len(rows), np.uint8), keys(rows)


def split_of(root, rows, extra=(), crop_scale=1.3, own=None, **sizes):
    """A split of one track, by its columns; own: those that are declared in `extra`."""
    rows = {"frame_index": np.arange(len(next(iter(rows.values())))), **rows}
    one = track_of("a/0", rows, crop_scale=crop_scale, extra=own or {})
    videos = [(VideoEntry(name="a"), [one])]
    return write_split(root, SPLIT, videos, extra=extra, **(SIZES | sizes))


def flipped(data, bit):
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def spoil(file):
    """Change one bit of a file; its bytes as they were."""
    before = file.read_bytes()
    file.write_bytes(flipped(before, len(before) // 2 * 8 + 2))
    return before


def names(root, split=SPLIT):
    """The names of the committed videos."""
    return cache.open(root)[split].videos.names


def tables_file(root, split=SPLIT):
    """The file of the current commit's tables."""
    manifest = json.loads((root / split / "manifest.json").read_bytes())
    return root / split / f"tables-{manifest['tables'][:16]}.npz"


def rewrite(manifest, **changes):
    """A manifest with other entries, and a digest that matches them."""
    held = json.loads(manifest.read_text()) | changes
    body = {key: value for key, value in held.items() if key != "digest"}
    manifest.write_bytes(json_file({**body, "digest": cache.fingerprint(body)}))
