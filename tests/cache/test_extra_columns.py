"""Columns that a dataset's reader brings: written, committed twice, copied, verified, read,
mirrored.
"""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal, assert_equal

import cache
from cache import CropPolicy, ExtraColumn, Jitter
from cache.format import extra
from cache.mixture import Mixture, MixturePart
from tests import made_splits
from tests.cache import toy
from tests.cache.format.documented import open_manifest, read_column, read_table
from tests.raising import cache_refuses

CONTACT = ExtraColumn(
    name="contact", about="feet on the ground", shape=(4,), dtype="uint8", mirror=((0, 2), (1, 3))
)
UP = ExtraColumn(
    name="up", about="up in the camera", unit="m", shape=(3,), per="track", mirror=((0, 1),)
)
CLASS = ExtraColumn(name="action", about="what is done", dtype="int16", per="track", fill=-9)
DECLARED = (CONTACT, UP, CLASS)
FLIPPED = CropPolicy(jitter=Jitter(copy=1, trans_px=0, scale_log2=0, flip=1))
SPLIT = toy.SPLIT
UNHURRIED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def values(column, name, n_rows):
    """What a track of this name has of a column: the same each time."""
    rng = np.random.default_rng([n_rows, *column.name.encode(), *name.encode()])
    shape = (n_rows, *column.shape) if column.per == "row" else column.shape
    high = 2 if column.dtype == "uint8" else 100
    drawn = np.asarray(rng.integers(0, high, shape).astype(column.dtype))
    if column.gaps:
        drawn[::3] = np.nan
    return drawn


def video(name, lengths, columns=DECLARED):
    entry, tracks = toy.video(name, *lengths)
    return entry, [
        replace(
            track,
            extra={c.name: values(c, track.name, len(track.columns["bbox"])) for c in columns},
        )
        for track in tracks
    ]


def write(root, videos, columns=DECLARED, **drop):
    toy.write(root, videos, extra=columns, **drop)


def require(root, columns=DECLARED):
    """The split, whose every track has what `values` gives, by each door."""
    split = toy.opened(root)
    assert {*split.columns} - {*cache.COLUMNS} == {c.name for c in columns if c.per == "row"}
    for number, track in enumerate(split.tracks):
        windows = [[track.start, track.stop]]
        batch = split.read(windows, None, fields=[c.name for c in columns])
        for column in columns:
            expected = values(column, track.name, track.stop - track.start)
            assert batch[column.name].dtype == column.dtype
            if column.per == "row":
                assert_array_equal(split.rows(column.name, track.start, track.stop), expected)
                assert_array_equal(split.column(column.name)[track.start : track.stop], expected)
                assert_array_equal(batch[column.name][0], expected)
            else:
                assert_array_equal(track.extra[column.name], expected)
                assert_array_equal(split.tracks.extra[column.name][number], expected)
                assert (batch[column.name][0] == expected).all()
                assert batch[column.name].shape == (1, track.stop - track.start, *column.shape)
    return split


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "cache", [video("a", [10, 40]), video("b", [7])])
    return tmp_path / "cache"


columns = st.tuples(
    st.lists(st.integers(1, 3), max_size=3).map(tuple),
    st.sampled_from([*extra.DTYPES]),
    st.sampled_from(["row", "track"]),
    st.just(False),
) | st.tuples(
    st.sampled_from([(), (3,), (2, 3)]),
    st.sampled_from(["float32", "float64"]),
    st.just("row"),
    st.just(True),
)


@settings(max_examples=6, deadline=None, suppress_health_check=UNHURRIED)
@given(drawn=st.lists(columns, min_size=1, max_size=4))
def test_what_is_written_is_read_over_commits_and_in_a_copy(drawn, tmp_path_factory):
    declared = tuple(
        ExtraColumn(f"c{number}", about="drawn", shape=shape, dtype=dtype, per=per, gaps=gaps)
        for number, (shape, dtype, per, gaps) in enumerate(drawn)
    )
    root = tmp_path_factory.mktemp("drawn")
    write(root / "a", [video("a", [10, 40], declared), video("b", [7], declared)], declared)
    write(root / "a", [video("b", [9], declared), video("c", [70], declared)], declared, drop=["b"])
    require(root / "a", declared)
    cache.copy_split(root / "a", SPLIT, root / "b")
    copied = require(root / "b", declared)
    expected = {column.name: column.as_json() for column in declared}
    for split in (copied, toy.opened(root / "a")):
        assert {name: column.as_json() for name, column in split.extra.items()} == expected
    assert cache.verify(root / "a").problems == cache.verify(root / "b").problems == ()
    assert not cache.verify(root / "b").notes


def test_a_row_that_is_nan_in_part_is_no_gap(tmp_path):
    column = ExtraColumn("turn", about="made up", shape=(2, 2), gaps=True)
    entry, (track,) = video("a", [6], [column])
    track.extra["turn"][1, 0] = np.nan
    with cache_refuses("turn holds its fill value"):
        write(tmp_path, [(entry, [track])], [column])


def test_a_killed_writer_goes_on(tmp_path):
    videos = [video("a", [70]), video("b", [50])]
    toy.unfinished(tmp_path / "killed", videos, "plan", extra=DECLARED)
    write(tmp_path / "killed", videos)
    require(tmp_path / "killed")
    write(tmp_path / "whole", videos)
    assert toy.tree(tmp_path / "killed") == toy.tree(tmp_path / "whole")


@pytest.mark.promise("plain Zarr")
def test_readers_that_know_no_extra_columns_read_the_rest_as_ever(root, tmp_path):
    write(tmp_path / "plain", [toy.video("a", 10, 40), toy.video("b", 7)], ())
    home = root / SPLIT
    manifest, files = open_manifest(home)  # what cache-format.md says
    plain, plain_files = open_manifest(tmp_path / "plain" / SPLIT)
    assert files.keys() - plain_files.keys() == {"track_up", "track_action"}
    assert plain_files.items() <= files.items()
    assert "extra" not in plain
    assert plain["shards"].items() <= manifest["shards"].items()
    assert manifest["extra"]["contact"] == {
        "about": "feet on the ground", "unit": "", "shape": [4], "dtype": "uint8", "fill": 255,
        "per": "row",
        "mirror": [[0, 2], [1, 3]],
    }  # fmt: skip
    assert read_column(home, "contact", manifest, [4], "uint8")[3] == tuple(
        values(CONTACT, "a/0", 10)[3]
    )
    assert read_table("track_up", files)[1] == tuple(values(UP, "a/1", 40))


def test_what_a_track_has_once_is_read_in_each_row_and_other_splits_columns_are_missed_by_name(
    root,
):
    camera = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1.0]])
    columns = {"frame_index": np.arange(9)}
    of_a, without_images = (
        cache.VideoEntry(name="a", width=640, height=480),
        cache.VideoEntry(name="b"),
    )
    first = made_splits.track_of("a/0", columns, gender="female", intrinsics=camera)
    other = made_splits.track_of("a/1", columns)
    split = made_splits.write_split(root, "toy/val", [(of_a, [first, other])])
    assert split.unknown_columns(["image_size", "intrinsics"]) == ["intrinsics"]
    videos = [(without_images, [made_splits.track_of("b/0", columns)])]
    split = made_splits.write_split(root, "toy/val", videos)
    assert split.unknown_columns(["image_size"]) == ["image_size"]
    with cache_refuses(r"no field or column 'contact'"):
        split.read([[0, 4]], None, fields=["contact"])
    fields = ["gender", "intrinsics", "frame_index", "image_size", "crop_scale"]
    batch = split.read([[2, 6], [9, 13]], None, fields=fields)
    assert (batch["image_size"] == [640, 480]).all() and batch["image_size"].dtype == np.int32
    assert (batch["crop_scale"] == 1.3).all()
    assert split.rows("image_size", 7, 11).tolist() == [[640, 480]] * 4
    with cache_refuses(r"image_size.*in no track"):
        split.rows("image_size", 20, 30)
    assert [cache.GENDERS[number] for number in batch["gender"][:, 0]] == ["female", "neutral"]
    assert (batch["intrinsics"][0] == camera).all()
    assert np.isnan(batch["intrinsics"][1]).all()
    assert batch["frame_index"].tolist() == [[2, 3, 4, 5], [0, 1, 2, 3]]


def test_mixtures_know_them_and_streams_may_not_have_their_names(root):
    split = toy.opened(root)
    part = MixturePart(name="p", splits={SPLIT: split}, count=3, fields=("contact", "up"), stride=2)
    fields = Mixture([part], seqlen=4).fields["p"]
    assert fields == {"contact": ((4,), np.dtype("u1")), "up": ((3,), np.dtype("f4"))}
    toy.write_stream(root, stream="contact", dim=4)
    with pytest.raises(ValueError, match=r"contact.*columns, too"):
        split.read([[0, 4]], streams=["contact"])


def negated(rows):
    return rows * np.array([-1, 1, 1], rows.dtype)


def find_negated(dataset, column):
    return {("toy", "up"): negated}.get((dataset, column))


def test_mirrored_rows_are_read_mirrored_and_a_function_that_is_not_here_is_missed(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(extra, "FINDERS", [])
    declared = (CONTACT, replace(UP, mirror=negated))
    write(tmp_path, [video("a", [10, 40], declared)], declared)
    for stream, policy in (("j", FLIPPED), ("plain", CropPolicy())):
        toy.write_stream(tmp_path, stream=stream, identity={"crop": policy.as_dict()})
    split = toy.opened(tmp_path)
    windows = split.windows(5, 5)
    plain = split.read(windows, "plain", fields=["contact", "up", "bbox"])
    with cache_refuses("'up' is mirrored by a function of the package"):
        split.read(windows, "j", fields=["up"])
    cache.find_mirrors_by(find_negated)
    for opened in (split, pickle.loads(pickle.dumps(split))):
        flipped = opened.read(windows, "j", fields=["contact", "up", "bbox"])
        assert_array_equal(flipped["contact"], plain["contact"][..., [2, 3, 0, 1]])
        assert_array_equal(flipped["up"], plain["up"] * [-1, 1, 1])
        assert_array_equal(flipped["bbox"], plain["bbox"])
        assert_equal(cache.mirror(plain, opened), flipped)
    with pytest.raises(ValueError, match="contact: expected labels, columns or a split"):
        cache.mirror(plain)


def test_other_declarations_begin_the_split_anew_and_keep_its_streams(root):
    toy.write_stream(root)
    wider = (replace(CONTACT, shape=(6,)), replace(UP, about="another word"))
    videos = [video("a", [10, 40], wider), video("b", [7], wider)]
    with cache_refuses("drop all"):
        write(root, videos[:1], wider, drop=["a"])
    before = require(root)
    rows = before.rows("contact", 0, 57)
    write(root, videos, wider, drop=["a", "b"])
    split = require(root, wider)
    assert_array_equal(before.rows("contact", 0, 57), rows)  # of a commit of which no row stays
    cache.gc(root)
    report = cache.verify(root)
    assert (report.problems, report.notes) == ((), [])
    # by whose keys new rows take their features over
    assert split.open_stream("resnet50").shards == [0, 1]
    live = cache.StreamShards(root, SPLIT, "resnet50", cache.StreamForm(4), plan="others")
    assert live.live_shards == [2, 3]
    assert live.carried(toy.keys(np.arange(57)))[0].all()
    write(root, [video("c", [3], wider)], (*wider[:1], replace(wider[1], about="a third")))
    require(root, (*wider[:1], replace(wider[1], about="a third")))


def test_columns_of_the_caches_own_come_with_all_rows_and_never_go(tmp_path):
    def write(columns, drop=()):
        videos = [(cache.VideoEntry(name="a"), [made_splits.track_of("a/0", columns)])]
        return made_splits.write_split(tmp_path, "toy/val", videos, drop=drop)

    frames, valid = {"frame_index": np.arange(3)}, {"valid": np.ones(3, np.bool_)}
    write(frames)
    with cache_refuses("drop all"):
        write(frames | valid)
    split = write(frames | valid, drop=["a"])
    assert split.rows("valid", split.tracks[0].start, split.tracks[0].stop).sum() == 3
    assert cache.verify(tmp_path).ok
    with cache_refuses("keeps its columns"):
        write(frames, drop=["a"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"name": "kp_2d"}, "for something else"),
        ({"name": "fps", "per": "track"}, "for something else"),
        ({"name": "intrinsics"}, "for something else"),
        ({"name": "track_contact"}, "not beginning"),
        ({"name": "contact_ok"}, "not ending"),
        ({"name": "../up"}, "letters"),
        ({"about": " "}, "meaning"),
        ({"shape": 4}, "a tuple"),
        ({"dtype": "float16"}, "dtype"),
        ({"fill": 1}, "fill"),
        ({"fill": 256}, "fill"),
        ({"dtype": "float32", "fill": math.inf}, "fill"),
        ({"per": "video"}, "per"),
        ({"mirror": ((0, 4),)}, "mirror"),
        ({"mirror": ((0, 1), (1, 2))}, "mirror"),
        ({"mirror": "os:system"}, "mirror"),
    ],
    ids=str,
)
def test_a_declaration_that_cannot_be_is_refused(change, match):
    with pytest.raises(ValueError, match=match):
        replace(CONTACT, **({"fill": None} | change))


@pytest.mark.parametrize(
    ("name", "array", "match"),
    [
        ("contact", np.zeros((10, 3), np.uint8), "expected"),
        ("contact", np.zeros((10, 4), np.float32), "float32, expected uint8"),
        ("contact", np.full((10, 4), 255, np.uint8), "expected 0 or 1"),
        ("up", np.zeros((10, 3), np.float32), "expected"),  # rows of a column of tracks
        ("up", np.array([0, np.nan, 0]), "fill value"),
        ("up", [0, 1, 0], "list"),
        ("action", np.array(-9), "fill value"),
        ("action", np.array(40_000), "range"),
        ("cadence", np.zeros(10, np.float32), "not declared"),
    ],
)
def test_a_track_that_does_not_fit_is_refused(name, array, match):
    _, (track,) = video("a", [10])
    cache.check_track(track, "a", toy.columns, DECLARED)
    with cache_refuses(rf"{name}.*{match}"):
        cache.check_track(
            replace(track, extra={**track.extra, name: array}), "a", toy.columns, DECLARED
        )


def test_a_manifest_whose_declaration_is_none_is_refused(root):
    for change in ({"mirror": "os:system"}, {"dtype": "object"}, {"shape": [-4]}, {"strange": 1}):
        with cache_refuses("'contact' is invalid"):
            ExtraColumn.from_manifest({"extra": {"contact": CONTACT.as_json() | change}})
