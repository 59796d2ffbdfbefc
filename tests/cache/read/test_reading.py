"""What a batch holds, and what makes reading refuse."""

import copy
import itertools
import pickle
import re
import shutil
import weakref
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cache
from cache import CacheError
from cache.read import labels
from cache.read.copying import copy_rows
from tests.cache import toy
from tests.cache.contents import assert_same, write_day
from tests.cache.toy import flipped, split_of
from tests.raising import all_raise, cache_refuses


class TestBatches:
    @pytest.fixture(scope="class")
    @classmethod
    def split(cls, made_tracks, tmp_path_factory):
        root = shutil.copytree(made_tracks, tmp_path_factory.mktemp("batches") / "cache")
        toy.write_stream(root, bad_rows=[20], shards=[0, 1])
        return toy.opened(root)

    @pytest.mark.parametrize("dtype", ["int8", "float33", np.uint16])
    def test_a_dtype_that_does_not_hold_features_is_refused_by_name(self, split, dtype):
        with pytest.raises(ValueError, match=r"dtype is .*, expected float16, float32 or float64"):
            split.read([(40, 48)], dtype=dtype)
        with pytest.raises(ValueError, match=r"dtype is .*, expected float16, float32 or float64"):
            split.read([(40, 48)], stream=None, dtype=dtype)

    def test_buffers_that_do_not_fit_are_refused(self, split):
        for buffer in (np.zeros((1, 4), "f4"), np.zeros((1, 8), "f8")):
            with pytest.raises(ValueError, match="w_3d"):
                split.read([[40, 48]], fields=["w_3d"], out={"w_3d": buffer})
        with pytest.raises(ValueError, match="kp_2d"):
            split.read([[40, 48]], fields=["w_3d"], out={"kp_2d": np.zeros((1, 8, 49, 3), "f4")})

    def test_rows_that_the_stream_does_not_have_are_refused(self, split):
        with cache_refuses("row 20"):
            split.read([[18, 26]], "resnet50")
        with cache_refuses("shard 2"):
            split.read([[60, 68]], "resnet50")
        assert split.read([[18, 26], [60, 68]], stream=None)["kp_2d"].shape == (2, 8, 49, 3)

    def test_rows_outside_one_track_and_windows_of_the_wrong_form_are_refused(self, split):
        wrong = {(8, 12): "several tracks"} | dict.fromkeys(
            [(143, 147), (-1, 3), (500, 504)], "in no track"
        )
        for window, match in wrong.items():
            with cache_refuses(match):
                split.read([window])
        wrong: Any
        for wrong in ([[0, 4], [4, 9]], [[4, 4]], [0, 4], [[0.0, 4.0]]):
            with pytest.raises(ValueError, match="windows"):
                split.read(wrong)

    def test_an_array_or_a_reader_keeps_no_split_open(self, made_tracks):
        split = toy.opened(made_tracks)
        is_open = weakref.ref(split)
        array = split.column("kp_2d")
        split.read(split.windows(8, 8), stream=None)
        del split
        assert is_open() is None
        assert np.isfinite(array[:4]).all()

    def test_labels_ask_once_whether_there_is_a_default_stream(self, made_tracks, monkeypatch):
        split = toy.opened(made_tracks)
        windows = split.windows(8, 8)
        asked = []
        exists = type(split.store).exists
        monkeypatch.setattr(
            type(split.store), "exists", lambda *args: asked.append(args) or exists(*args)
        )
        for _ in range(3):
            split.read(windows, fields=["kp_2d"])
        assert 0 < len(asked) == len(set(asked))


def test_flags_are_the_same_whether_or_not_their_chunks_are_known_to_be_all_alike(
    tmp_path,
):
    flags = np.array(
        [1] * 8 + [0] * 8 + [0, 1, 1, 1, 1, 1, 1, 1] + [1, 0, 0, 0, 0, 0, 0, 0] + [1] * 18, bool
    )
    # chunks of 8: all 1, all 0, two mixed ones, two of 1
    split = split_of(tmp_path, {"valid": flags})
    starts = np.arange(len(flags) - 4)
    windows = np.stack([starts, starts + 5], axis=1)
    expected = np.stack([flags[start : start + 5] for start in starts]).astype(np.uint8)
    for _ in range(2):  # first from the files; then what is known of the chunks is used
        singly = [slice(start, start + 1) for start in starts]
        for some in (*singly, slice(0, 4), slice(4, 12), slice(0, 12, 8), slice(None)):
            found = split.read(windows[some], stream=None, fields=["valid"])["valid"]
            assert_array_equal(found, expected[some])


@pytest.mark.promise("problems of Penn Action")
def test_what_comes_out_of_a_split_is_the_readers_own_or_cannot_be_written_to(made):
    split, before = toy.opened(made), toy.tree(made)
    for name in ("start", "stop", "step", "fps", "crop_scale", "video"):
        table = getattr(split.tracks, name)
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 7
        with pytest.raises(ValueError, match="WRITEABLE"):
            table.flags.writeable = True
    for name in ("kp_2d", "valid", "features/resnet50"):
        with pytest.raises(ValueError, match="read-only"):
            split.column(name)[:4] = 0
    windows = split.windows(8, 8, "resnet50")
    everything = ["features", *labels.FIELDS, *split.columns]
    first = split.read(windows, fields=everything, dtype="float16")
    kept = {name: array.copy() for name, array in first.items()}
    for array in (*first.values(), split.rows("valid", 0, 10), split.windows(8, 8)):
        array[...] = 3
    for name, array in split.read(windows, fields=everything, dtype="float16").items():
        assert_array_equal(array, kept[name])
    assert toy.tree(made) == before


class TestOpening:
    @pytest.mark.parametrize(
        ("folder", "found"), [("nowhere", "no such folder"), ("", r"no zarr\.json")]
    )
    def test_no_cache_is_a_clear_error(self, tmp_path, folder, found):
        with cache_refuses(found):
            cache.open(tmp_path / folder)

    def test_a_cache_that_lies_in_a_group_of_another_is_one(self, tmp_path):
        toy.add(tmp_path / "cache", "a", 3)
        shutil.copy(tmp_path / "cache/zarr.json", tmp_path)
        assert cache.open(tmp_path / "cache").splits == ("toy/train",)
        with cache_refuses("a part of one"):
            cache.open(tmp_path / "cache/toy")

    def test_an_unknown_split_is_named_with_those_that_there_are(self, tmp_path):
        toy.add(tmp_path, "a", 3)
        opened = cache.open(tmp_path)
        assert opened.splits == ("toy/train",)
        for name in ("toy/test", "../x", "toy"):
            with pytest.raises(KeyError, match="there are: toy/train"):
                opened[name]
            assert name not in opened
            assert opened.get(name) is None


@pytest.mark.promise("never mixed")
@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_open_splits_and_their_pickles_read_on_after_any_commit_until_gc(where, request):
    """As workers of a training that start later, or a copy of the split."""
    root = request.getfixturevalue({"disk": "tmp_path"}.get(where, where))
    write_day(root, 0)
    split, without_stream, late = (toy.opened(root) for _ in range(3))
    windows = split.windows(4, 4, "resnet50")
    before = split.read(windows)
    names = split.tracks.names
    packed = [pickle.dumps(opened) for opened in (split, without_stream)]
    assert not split.has_later_commit()
    write_day(root, 1)
    first = toy.opened(root).provenance["finished"]
    write_day(root, 2)
    for opened in (split, *map(pickle.loads, packed), copy.copy(split)):
        assert opened.has_later_commit()
        assert opened.tracks.names == names
        assert_same(opened.read(windows), before)
    for name in split.columns if where == "disk" else ():  # opened only now
        assert split.column(name)[:40].tobytes() == split.rows(name, 0, 40).tobytes()
    removed = cache.gc(root, older_than=0).removed
    gone = {
        "tables-": lambda: pickle.loads(packed[0]).read(windows),
        "bbox/c/1/0": lambda: late.read(windows, "resnet50", fields=["bbox"]),
        "pose/c/1/0": lambda: late.rows("pose", 32, 40),
        "betas/c/1/0": lambda: late.column("betas")[32:40],
    }
    for name, reading in gone.items():
        assert any(key.startswith(f"toy/train/{name.removesuffix('/0')}") for key in removed)
        told = f"toy/train/{name}.*: commits since {re.escape(first)} do not name .*open it again"
        with pytest.raises(cache.CacheChanged, match=told):
            reading()
    if where == "disk":  # its files are mapped
        assert_array_equal(split.read(windows)["kp_2d"], before["kp_2d"])


def test_a_split_that_opens_a_stream_of_a_later_commit_has_all_its_windows_or_is_told(tmp_path):
    """The stream skips rows of a video that was replaced before it was extracted."""
    toy.write(tmp_path, [toy.video("a", 20), toy.video("b", 12)])
    before, replaced = (toy.opened(tmp_path) for _ in range(2))
    toy.write_stream(tmp_path, bad_rows=[3])
    assert len(before.windows(4, 4, "resnet50")) == 7  # of 8: one has the row without an image
    toy.add(tmp_path, "c", 8)
    toy.write_stream(tmp_path)
    assert len(replaced.windows(4, 4, "resnet50")) == 7

    late = toy.opened(tmp_path)
    cache.invalidate(tmp_path, "toy/train", "resnet50", [0])
    toy.add(tmp_path, "b", 12, seed=1, drop=["b"])
    toy.write_stream(tmp_path)
    with pytest.raises(cache.CacheChanged, match="open it again"):
        late.windows(4, 4, "resnet50")
    assert len(toy.opened(tmp_path).windows(4, 4, "resnet50")) == 10
    assert len(late.windows(4, 4)) == 10


def test_a_relative_root_stays_the_same_folder_and_a_moved_one_is_told(root, monkeypatch, tmp_path):
    monkeypatch.chdir(root.parent)
    opened = cache.open(root.name)
    split = opened["toy/train"]
    monkeypatch.chdir("/")
    assert opened.splits == ("toy/train",)
    assert split.streams == ("resnet50",)
    assert pickle.loads(pickle.dumps(split)).read([[0, 4]])["features"].any()
    assert {opened, cache.open(root)} == {opened}
    split = opened["toy/train"]
    root.rename(tmp_path / "moved")
    all_raise(
        CacheError,
        f"{root}/toy/train: is no longer there: it was moved",
        lambda: split.windows(4, 4, "resnet50"),
        lambda: split.rows("bbox", 0, 4),
        lambda: split.read([[0, 4]], None),
    )
    with cache_refuses(f"{root}: .*no such folder"):
        opened["toy/train"]


@pytest.mark.promise("verified")
@pytest.mark.parametrize(
    "name", ["bbox/c/1/0", "features/resnet50/c/1/0", "features/resnet50_ok/c/1"]
)
def test_a_missing_short_or_flipped_shard_is_never_read_as_data(name, root):
    shard = root / "toy/train" / name
    whole = shard.read_bytes()
    wrong = (
        (None, "no file"),
        (whole[:-8], "bytes"),
        (flipped(whole, 0), "checksum"),
        (b"", "found 0 bytes"),
    )
    for damaged, match in wrong:
        shard.unlink(missing_ok=True)
        if damaged is not None:
            shard.write_bytes(damaged)
        split = toy.opened(root)
        with cache_refuses(match):
            split.read([[32, 36]], "resnet50", fields=["features", "bbox"])
        if damaged is None:  # Zarr takes no fill values for it either
            with cache_refuses(match):
                split.column(name.partition("/c/")[0])[32:36]
    shard.write_bytes(whole)
    toy.opened(root).read([[32, 36]], "resnet50", fields=["features", "bbox"])


def test_widening_is_exact_for_every_float16():
    half = np.arange(2**16, dtype=np.uint16).view(np.float16)
    for some in (half, half[np.isfinite(half)]):  # with infinities and NaN it takes another way
        out = np.empty(some.shape, np.float32)
        copy_rows(some, out)
        assert_array_equal(out, some.astype(np.float32))
        assert (np.signbit(out) == np.signbit(some)).all()


def test_live_rows_are_those_of_the_tracks_and_nan_where_a_stream_has_none(tmp_path):
    videos = {entry.name: (entry, tracks) for entry, tracks in toy.videos()}
    toy.write(tmp_path, videos.values())
    toy.write_stream(tmp_path, bad_rows=[9, 40])
    videos["b"] = toy.video("b", 7, 20, seed=1)
    toy.write(tmp_path, videos.values(), drop=["b"])  # the new rows are those of no stream
    split = toy.opened(tmp_path)
    rows = [row for track in split.tracks for row in range(track.start, track.stop)]
    assert len(rows) == split.manifest["rows"] == 143 < split.column("kp_2d").shape[0]
    written = itertools.chain.from_iterable(tracks for _, tracks in videos.values())
    by_name = {track.name: track.columns for track in written}
    for name in ("kp_2d", "frame_index", "has_3d"):
        expected = np.concatenate([by_name[track.name][name] for track in split.tracks])
        live = split.live(name)
        assert live.dtype == split.column(name).dtype
        assert_array_equal(live, expected)

    features = toy.features(rows, 4)
    is_computed = np.array([row < 143 and row not in (9, 40) for row in rows])
    assert (~is_computed).sum() == 27 + 2
    features[~is_computed] = np.nan
    assert_array_equal(split.live("features/resnet50"), features)
    assert (split.live("features/resnet50_ok") == 1).tolist() == is_computed.tolist()
    with cache_refuses("no column 'nose'"):
        split.live("nose")


def test_a_misspelt_name_is_answered_with_the_likeliest_one(made):
    opened = cache.open(made)
    split = opened["toy/train"]
    misspelt = {
        r"no split 'toy/trian'; did you mean 'toy/train'\?": lambda: opened["toy/trian"],
        r"no column 'resnet50' of rows; did you mean 'features/resnet50'\?": lambda: split.column(
            "resnet50"
        ),
        r"no column 'resnet50_ok' of rows; did you mean 'features/resnet50_ok'": lambda: split.live(
            "resnet50_ok"
        ),
        r"no column 'kp2d' of rows; did you mean 'kp_2d'\?": lambda: split.rows("kp2d", 0, 4),
        r"no field or column 'thetta'; did you mean 'theta'\?": lambda: split.read(
            [[0, 4]], fields=["thetta"]
        ),
        r"no feature stream 'resnet5O'; did you mean 'resnet50'\?": lambda: split.windows(
            stream="resnet5O"
        ),
    }
    for message, call in misspelt.items():
        with cache_refuses(message):
            call()


def test_torch_windows_says_what_it_expects_in_place_of_another_thing(made):
    split = toy.opened(made)
    wrong: Any
    for wrong in ([], [split, "toy/train"], "toy/train", made, cache.open(made)):
        with pytest.raises(TypeError, match=r"expected a split, such as .*, or a list of splits"):
            cache.torch_windows(wrong)


def test_wrong_kinds_of_arguments_are_answered_in_our_words(made):
    opened: Any = cache.open(made)
    split = opened["toy/train"]
    refused = {
        "expected a split's name such as '3dpw/train', found 0": lambda: opened[0],
        r"bbox: expected rows \[start, stop\), found \[5, 2\)": lambda: split.rows("bbox", 5, 2),
        r"expected rows of 0 to 143, found \[-3, 3\)": lambda: split.rows("bbox", -3, 3),
        r"history: expected rows by stream as .*, found 4": lambda: split.read([[0, 4]], history=4),
    }
    for message, call in refused.items():
        with pytest.raises((TypeError, ValueError, CacheError), match=message):
            call()
    column = pickle.loads(pickle.dumps(split.column("bbox")))
    assert_array_equal(column[:9], split.rows("bbox", 0, 9))
