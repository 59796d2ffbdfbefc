"""Splits and streams of numbers that a test knows, each in one commit."""

import numpy as np

import cache
from cache.format.extra import ExtraColumn

DEMO = {"stand_in": True}


def track_of(name, columns, **about):
    """A track of the video that its name begins with."""
    usual = {"video": name.rpartition("/")[0], "step": 1, "fps": 25.0, "crop_scale": 1.3}
    return cache.TrackRows(name=name, columns=columns, **{**usual, **about})


def write_split(
    root,
    name,
    videos,
    recorded=DEMO,
    drop=(),
    **options,
):
    """A commit of these videos without those before that are named; recorded: further entries of
    the manifest.
    """
    videos = list(videos)
    columns = list(
        dict.fromkeys(
            column for _, tracks in videos for track in tracks for column in track.columns
        )
    )
    with cache.SplitWriter(root, name, **{"columns": columns, "plan": "test", **options}) as writer:
        following = writer.begin(drop=drop)
        for entry, tracks in videos:
            following.append(entry, tracks)
        following.commit(recorded)
    return cache.open(root)[name]


def write_stream(
    root,
    split,
    stream,
    values,
    computed=np.ones_like,
    recorded=DEMO,
    *,
    dim=2048,
    dtype="float16",
    plan="test",
):
    """A commit of all shards: values (n, dim) and whether they are computed (n,), both functions of
    rows (n,).
    """
    form = cache.StreamForm(dim, dtype)
    with cache.StreamWriter(root, split, stream, form, plan=plan) as writer:
        for shard in writer.shards.pending:
            rows = np.asarray(writer.shards.rows(shard))
            keys = np.stack([rows, rows], axis=1).astype(np.uint64)
            writer.write(shard, values(rows), computed(rows), keys)
        writer.commit(recorded)


def make(root, name="made/train", n_rows=60, **track):
    """Two videos of strange names: one of two tracks with a gap and columns of the dataset's own,
    one rejected.
    """
    extra = [
        ExtraColumn(name="foot_contact", about="which foot touches", shape=(2,), dtype="uint8"),
        ExtraColumn(name="action", about="number of what is done", dtype="int16"),
        ExtraColumn(name="height", about="of the person", unit="m", dtype="float64", per="track"),
    ]
    frames = np.r_[np.arange(n_rows // 2), np.arange(n_rows // 2) + n_rows]
    columns = {
        "frame_index": frames,
        "bbox": np.full((n_rows, 4), 100, np.float32),
        "kp_2d": np.random.default_rng(0).random((n_rows, 49, 3), np.float32),
    }
    pose, betas = np.ones((n_rows, 72), np.float32), np.ones((n_rows, 10))
    smpl = {"pose": pose, "betas": betas, "has_smpl": np.ones(n_rows, bool)}
    own = {
        "foot_contact": np.tile(np.array([0, 1], np.uint8), (n_rows, 1)),
        "height": np.array(1.75),
    }
    action = {"action": np.arange(n_rows, dtype=np.int16)}
    first = track_of("a.b/ü 1/0", columns | smpl, extra=own, crop_scale=1.2, **track)
    second = track_of("a.b/ü 1/ß.x", columns, extra=action, crop_scale=1.2, **track)
    kept = {
        "found": 2 * n_rows + 3,
        "kept": 2 * n_rows,
        "tracks_kept": 2,
        "dropped": {"no_visible_joint": 3},
    }
    bad = {"found": 0, "kept": 0, "set_aside": "bad_label_file", "message": "it, too, is bad"}
    accounts = {"a.b/ü 1": (kept, [first, second]), 'comma, "quote"': (bad, [])}
    videos = [
        (cache.VideoEntry(name=video, account=of), tracks)
        for video, (of, tracks) in accounts.items()
    ]
    return write_split(root, name, videos, {"stand_in": False}, extra=extra)
