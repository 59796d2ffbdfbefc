"""What is committed is what was appended; nothing else changes."""

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal, assert_equal

import cache
from cache import SplitWriter
from cache.format.layout import Column
from tests.cache import toy
from tests.raising import cache_refuses
from tests.trees import contents


def column_of(videos, name):
    return np.concatenate([track.columns[name] for _, tracks in videos for track in tracks])


@pytest.mark.promise("plain Zarr")
def test_plain_zarr_reads_every_column_and_padding_without_a_warning(tmp_path):
    videos = toy.videos()
    toy.write(tmp_path, videos)
    toy.add(tmp_path, "g", 5)  # from row 160 on, in the next shard
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path, mode="r")
        for name in toy.columns:
            array = group[f"toy/train/{name}"]
            assert_array_equal(array[:143], column_of(videos, name).astype(array.dtype))
            padding = np.asarray(array[143:160])
            assert_array_equal(padding, np.full_like(padding, cache.COLUMNS[name].fill))
            assert array.shape[0] == 165


def test_the_tables_give_back_tracks_and_videos(tmp_path):
    entry, tracks = toy.video("vidéo/ü", 4, 3)
    intrinsics = np.array([[1000.5, 0, 320], [0, 1000.25, 240], [0, 0, 1]])
    tracks[0] = replace(
        tracks[0], fps=math.nan, step=2, gender="female", intrinsics=intrinsics, crop_scale=1.1
    )
    tracks = [replace(track, video=entry.name) for track in tracks]
    toy.write(tmp_path, [(entry, tracks), toy.video("empty")])
    split = toy.opened(tmp_path)
    first, second = split.tracks[0], split.tracks[1]
    assert math.isnan(first.fps)
    assert (first.video, first.step, first.crop_scale, first.gender) == (
        "vidéo/ü",
        2,
        1.1,
        "female",
    )
    assert_array_equal(first.intrinsics, intrinsics)
    assert second == cache.TrackRecord(tracks[1].name, "vidéo/ü", 4, 7, 25.0, 1, 1.3)
    assert replace(second, start=5) != second
    assert (second.gender, second.intrinsics) == ("neutral", None)
    assert split.videos[0] == entry
    assert [video.name for video in split.videos] == ["vidéo/ü", "empty"]
    assert split.tracks[-1] == second
    assert [track.start for track in split.tracks[0:2]] == [0, 4]
    with pytest.raises(IndexError):
        split.tracks[2]


def test_a_commit_that_is_made_again_changes_no_file(tmp_path):
    videos = toy.videos()
    toy.write(tmp_path, videos)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    toy.write(tmp_path, [])
    with toy.writer(tmp_path, "next") as writer:
        assert dict(writer.state.videos) == {entry.name: entry for entry, _ in videos}
    assert {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()
    } == times


def test_damaged_or_lost_notes_count_as_none_and_are_replaced_by_the_next_commit(root):
    for notes in (b'{"commits": {', b"[1, 2]", b'{"commits": {"a": 7}}', b"\xff\xfe", None):
        for file in (
            root / toy.SPLIT / home / "provenance.json" for home in ("", "features/resnet50")
        ):
            file.unlink() if notes is None else file.write_bytes(notes)
        split = toy.opened(root)
        assert (split.provenance, split.open_stream("resnet50").provenance) == ({}, {})
        assert cache.verify(root).ok
    (root / toy.SPLIT / "provenance.json").write_bytes(b"{")
    for plan in ("second", "third"):
        drop = ["a"] if plan == "second" else ["b"]
        toy.write(root, [], drop=drop, plan=plan, provenance={"raw": plan})
        assert toy.opened(root).provenance["raw"] == plan
    notes = json.loads((root / toy.SPLIT / "provenance.json").read_text())["commits"]
    assert [note["software"]["numpy"] for note in notes.values()] == [np.__version__] * 2
    toy.write_stream(root)
    cache.gc(root)
    assert cache.verify(root).notes == []


def test_the_last_hundred_commits_are_noted_whatever_their_digests(root):
    file = root / toy.SPLIT / "provenance.json"
    minutes = {str(119 - minute): minute for minute in range(120)}  # the last ones sort first
    notes = {
        digest: {"finished": f"2020-01-01T{minute // 60:02d}:{minute % 60:02d}:00+00:00"}
        for digest, minute in minutes.items()
    }
    file.write_text(json.dumps({"commits": notes}))
    toy.write(root, [], drop=["a"], plan="next")
    noted = json.loads(file.read_text())["commits"]
    current = toy.opened(root).manifest["digest"]
    assert noted.keys() == {current, *(digest for digest, minute in minutes.items() if minute > 20)}


def with_columns(**columns):
    """A video of 3 rows with other columns; None: without it."""
    entry, (track,) = toy.video("a", 3)
    changed = {
        name: array for name, array in {**track.columns, **columns}.items() if array is not None
    }
    return entry, [replace(track, columns=changed)]


@pytest.mark.parametrize("end", [np.iinfo(np.int32).min, np.iinfo(np.int32).max])
def test_integers_fit_up_to_the_ends_of_their_range(end):
    column = Column("n", "a number", dtype="int32")
    assert column.problem(np.array([end], np.int64), 1) == ""
    beyond = end + np.sign(end)
    assert "outside of the range of int32" in column.problem(np.array([beyond], np.int64), 1)


REFUSED = {
    "a wrong shape": (r"bbox is \(3, 5\)", lambda: with_columns(bbox=np.zeros((3, 5)))),
    "fractions": (
        "frame_index is float64",
        lambda: with_columns(frame_index=np.array([0.0, 1.5, 2.0])),
    ),
    "frames that go back": (
        "strictly increasing",
        lambda: with_columns(frame_index=np.array([0, 2, 1])),
    ),
    "no flag": ("kp_3d comes without has_3d", lambda: with_columns(has_3d=None)),
    "a flag of two": (
        "valid holds 2",
        lambda: with_columns(valid=np.array([0, 1, 2], np.uint8)),
    ),
    "no column of the split": ("trans", lambda: with_columns(trans=np.zeros((3, 3)))),
    "two of one name": (
        "a track of that name",
        lambda: (toy.video("a", 3)[0], [*toy.video("a", 3)[1]] * 2),
    ),
    "another video's": (
        "belongs to video 'b'",
        lambda: (toy.video("a", 3)[0], [toy.track("b/0", 3)]),
    ),
    "committed": ("drop it in begin", lambda: toy.video("z", 4)),
    "no text for a table": (
        "no text for a table",
        lambda: (cache.VideoEntry(name="a", source="\ud800"), toy.video("a", 3)[1]),
    ),
}


def test_what_does_not_fit_is_refused_by_name_and_nothing_of_it_is_visible(tmp_path):
    toy.add(tmp_path, "z", 3)
    before = toy.tree(tmp_path)
    with toy.writer(tmp_path, "p") as writer:
        following = writer.begin()
        for match, video in REFUSED.values():
            with cache_refuses(match):
                following.append(*video())
    assert toy.tree(tmp_path) == before


def test_names_of_a_video_whose_drop_is_undone_are_taken_again(tmp_path):
    toy.add(tmp_path, "a", 3)
    entry, _ = toy.video("b", 3)
    with toy.writer(tmp_path, "p") as writer:
        following = writer.begin(["a"])
        following.keep("a")
        with cache_refuses("video 'a' exists already"):
            following.append(*toy.video("a", 3))
        with cache_refuses("a track of that name exists already"):
            following.append(entry, [replace(toy.track("a/0", 3), video="b")])


def test_a_writer_that_does_not_fit_the_split_is_refused(tmp_path):
    toy.add(tmp_path, "a", 3)
    refused = cache_refuses("not among the split's videos")
    with toy.writer(tmp_path, "p") as writer, refused:
        writer.begin(["z"])


@pytest.mark.parametrize(
    "name", ["toy", "toy/train/x", "../x/train", "toy/..", "/etc/x", "toy/.hidden", ""]
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    with cache_refuses("no split's name"):
        SplitWriter(tmp_path, name, columns=["bbox"], plan="p")


RECORDS = [f".writing/staged/*/shard-{number}" for number in range(3)]


@pytest.mark.parametrize("name", ["bbox/c/0/0 lost", "bbox/c/1/0 lost", "bbox/c/1/0", *RECORDS])
def test_what_is_lost_or_damaged_since_is_written_again(tmp_path, name):
    toy.write(tmp_path / "calm", toy.videos())
    toy.unfinished(tmp_path / "killed", toy.videos()[:4], "plan")
    (file,) = (tmp_path / "killed" / toy.SPLIT).glob(name.removesuffix(" lost"))
    file.unlink() if name.endswith("lost") else file.write_bytes(
        toy.flipped(file.read_bytes(), 320)
    )
    toy.write(tmp_path / "killed", toy.videos())
    assert toy.tree(tmp_path / "killed") == toy.tree(tmp_path / "calm")


def test_an_extraction_with_other_weights_does_not_take_over_journalled_shards(tracks):
    with toy.stream_writer(tracks, plan="old") as writer:
        writer.write(*toy.given(writer.shards, 1))
    with toy.stream_writer(tracks, plan="old") as writer:
        assert writer.shards.pending == [0, 2, 3, 4]
    with toy.stream_writer(tracks, plan="new") as writer:
        assert writer.shards.pending == [0, 1, 2, 3, 4]


def test_journalled_videos_with_another_key_are_appended_again_and_rows_that_were_written_over_do_not_come_back(
    tmp_path,
):
    before = {entry.name: (entry, tracks) for entry, tracks in toy.videos()}
    changed = {entry.name: (entry, tracks) for entry, tracks in toy.videos(seed=1)}

    def run(videos, *, commit=False):
        with toy.writer(tmp_path, "reader") as writer:
            following = writer.begin(
                keys={name: entry.fingerprint for name, (entry, _) in videos.items()}
            )
            taken_over = [*following.journalled]
            for name, video in videos.items():
                if name not in taken_over:
                    following.append(*video)
            if commit:
                following.commit({})
            return taken_over

    assert run(before) == []
    (tmp_path / toy.SPLIT / "bbox/c/2/0").unlink()  # rows 64 to 95; d has 37 to 106
    without_d = {name: video for name, video in before.items() if name != "d"} | {
        "g": toy.video("g", 90)
    }
    assert run(without_d) == ["a", "b", "c"]
    assert run(before) == ["a", "b", "c", "e", "f"], "d was written over"
    last = {**before, "b": changed["b"]}
    assert run(last, commit=True) == ["a", "c", "e", "f"]
    split = toy.opened(tmp_path)
    expected = {track.name: track for _, tracks in last.values() for track in tracks}
    assert {track.name for track in split.tracks} == expected.keys()
    for track in split.tracks:
        rows = split.rows("kp_2d", track.start, track.stop)
        assert_equal(rows, expected[track.name].columns["kp_2d"])
    assert cache.verify(tmp_path).ok


def test_a_commit_that_is_made_takes_no_more_videos_and_only_one_is_begun_at_a_time(tmp_path):
    with toy.writer(tmp_path, "plan") as writer:
        following = writer.begin()
        following.append(*toy.video("a", 10))
        with cache_refuses("commit first"):
            writer.begin()
        following.commit({})
        files = contents(tmp_path)
        with cache_refuses("is made"):
            following.append(*toy.video("b", 70))
        with cache_refuses("is made"):
            following.commit({})
        assert files == contents(tmp_path)
        late = writer.begin()
        late.append(*toy.video("b", 70))
        late.commit({})
    assert [*toy.opened(tmp_path).videos.names] == ["a", "b"]


def without_shard(root):
    """Shard 0, which has padding and rows of replaced tracks alone."""
    cache.invalidate(root, toy.SPLIT, None, [0])


def other_columns(root):
    """All rows are appended again, with another column."""
    extra = [cache.ExtraColumn(name="more", about="of another kind", dtype="int8")]
    toy.add(root, "g", 40, drop=toy.names(root), plan="other", extra=extra)


def with_killed_work(root):
    """Shards that a killed writer has left, in place of which this commit writes others."""
    toy.unfinished(root, [toy.video("k", 200)], "killed")
    toy.add(root, "n", 10, plan="next")


@pytest.mark.parametrize("where", ["folder", "store"])
def test_no_commit_removes_or_changes_a_file_that_an_earlier_one_named(where, tmp_path, bucket):
    root = bucket if where == "store" else tmp_path / "cache"
    toy.write(root, toy.videos())
    toy.write_stream(root)
    store = cache.store_at(root)
    derived = ("manifest.json", "provenance.json", "zarr.json")
    commits = [
        lambda: toy.add(root, "b", 9, seed=1, drop=["b"]),
        lambda: toy.add(root, "new", 40, drop=["a"]),
        lambda: without_shard(root),
        lambda: toy.write_stream(root),
        lambda: other_columns(root),
    ]
    if where == "folder":  # in a store, `gc` has to remove the killed writer's shards first
        commits.insert(3, lambda: with_killed_work(root))
    for number, commit in enumerate(commits):
        files = [key for key in store.file_sizes("") if not key.endswith(derived)]
        before = {key: store.read(key) for key in files if ".writing" not in key}
        commit()
        assert {key: store.read(key) for key in before} == before, number
    n_bytes = sum(store.file_sizes("").values())
    collected = cache.gc(root, older_than=0)
    assert collected.bytes == n_bytes - sum(store.file_sizes("").values()) > 0
    assert cache.verify(root).notes == []


def test_a_video_without_tracks_needs_no_sums(tmp_path):
    video, tracks = toy.video("a", 3)
    toy.write(tmp_path, [(video, tracks), (cache.VideoEntry(name="rejected"), [])])
    split = toy.opened(tmp_path)
    assert split.manifest["sums"] == {"rows": 3, "boxes": 3 / 7}
    assert [entry.sums for entry in split.videos] == [video.sums, {}]


@pytest.mark.parametrize("sums", [{"Rows": 1.0}, {"../rows": 1.0}, {"rows": -math.inf}])
def test_a_sum_that_no_table_takes_is_refused_when_it_is_appended(sums, tmp_path):
    with toy.writer(tmp_path, "plan") as writer:
        following = writer.begin()
        with cache_refuses("expected a lower-case word"):
            following.append(cache.VideoEntry(name="a", sums=sums), [])
        following.append(*toy.video("a", 3))
        following.commit({})
