"""Streams of every kind through whole extractions: equal bytes however computed, and what a change
recomputes.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cache
from cache import CropPolicy, Jitter
from pipeline import crops, homography
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import LabelStream, Machine, PairStream
from pipeline.files.pixels import sources
from tests import made_splits
from tests.pipeline.datasets.by_hand import encode
from tests.pipeline.features.made_toy import SIDE, SPLIT, N, Toy, make_track, picture

JITTERED = CropPolicy(size=64, region=(64, 48), scale=1.1, jitter=Jitter(copy=1, seed=3))
MIRRORED = CropPolicy(size=100, jitter=Jitter(copy=1, seed=3, flip=1))


def every_kind(made_up):
    kinds = {
        "colour": made_up.Colour(),
        "colour.j1": made_up.Colour(crop=JITTERED),
        "single": made_up.Single(),
        "homography": streams.get("homography"),
        "person.j1": made_up.Followed(crop=MIRRORED),
        "pr_vipe": streams.get("pr_vipe"),
        "whole": made_up.Whole(),
    }
    return [StreamSpec(name, stream) for name, stream in kinds.items()]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Without a stream. Only to be copied."""
    made = Toy(tmp_path_factory.mktemp("toy"))
    made.film()
    made.convert()
    return made


@pytest.fixture(scope="module")
def extracted(converted, made_up, tmp_path_factory):
    """With streams of every kind, made together by two processes in batches of 4. Only to be
    read.
    """
    made = converted.copy(tmp_path_factory.mktemp("extracted"))
    done = made.extract(*every_kind(made_up))
    # decoded once for all
    assert {one.meter.frames for name, one in done.items() if name != "pr_vipe"} == {2 * N - 1}
    return made


@pytest.fixture
def toy(extracted, tmp_path):
    """A copy of it, to be changed."""
    return extracted.copy(tmp_path)


def test_each_kind_has_the_numbers_that_its_definition_gives(extracted):
    toy = extracted
    split, boxes, frames = cache.open(toy.root)[SPLIT], toy.rows("bbox"), toy.rows("frame_index")
    pairs, ok = toy.rows("features/homography"), toy.rows("features/homography_ok")
    jittered, poses = toy.rows("features/colour.j1"), toy.rows("features/pr_vipe")
    for name, box in boxes.items():
        keys = JITTERED.seeds([name]).repeat(len(box))
        cuts, mirrored = JITTERED.boxes(box, np.full(len(box), 1.2), keys, frames[name])
        for i, frame in enumerate(frames[name].tolist()):
            shown = np.ascontiguousarray(picture(frame))
            crop = crops.crop_person(shown, cuts[i], 1.2, 64, mirrored=bool(mirrored[i]))
            # 48 of 64 columns, about the centre
            assert_array_equal(jittered[name][i], crop[32, 8 + 24])
            first = i == 0 or frames[name][i - 1] != frame - 1
            assert ok[name][i] == (cache.UNDEFINED if first else cache.COMPUTED)
            if first:
                assert not pairs[name][i].any()
                continue
            both = [
                crops.crop_person(np.ascontiguousarray(picture(f)), box[i], 1.2)
                for f in (frame - 1, frame)
            ]
            moved = homography.between(*both)[0] - np.eye(3)
            assert_array_equal(pairs[name][i], moved.astype(np.float32).flat)
    # What stands still moves by -2 and -1 px a frame, of (60, 72) px that the crop shows of the
    # picture.
    assert_allclose(np.median(pairs["a/0"][1:, [2, 5]], axis=0), [-2 / 30, -1 / 36], atol=4e-3)
    assert {len(set(values)) for values in toy.rows("features/colour.j1_ok").values()} == {1}
    for name, values in toy.rows("features/whole").items():
        for i, frame in enumerate(frames[name].tolist()):
            assert_array_equal(values[i], [SIDE, SIDE, *picture(frame)[0, 0], *boxes[name][i]])
    stream = streams.get("pr_vipe")
    assert isinstance(stream, LabelStream)
    kp_2d = toy.rows("kp_2d")
    for name, values in poses.items():
        assert_array_equal(values, stream.load(Machine(), None)({"kp_2d": kp_2d[name]})[0])
    assert len(split.windows(4, 4, streams=("colour", "homography", "pr_vipe"))) == 2 + 2 + 1 + 1


def test_a_pair_has_its_later_row_s_keypoints_as_readers_of_its_crops_do(extracted, made_up):
    """Of a mirrored, jittered copy: pixels and keypoints agree, and left is right."""
    toy, spec = extracted, every_kind(made_up)[4]
    split, boxes, frames = cache.open(toy.root)[SPLIT], toy.rows("bbox"), toy.rows("frame_index")
    found, ok = toy.rows("features/person.j1"), toy.rows("features/person.j1_ok")
    assert isinstance(spec.stream, PairStream)
    for track in split.tracks:
        box, frame = boxes[track.name], frames[track.name]
        keys = MIRRORED.seeds([track.name]).repeat(len(box))
        cuts, mirrored = MIRRORED.boxes(box, np.full(len(box), 1.2), keys, frame)
        assert mirrored.all()
        windows = np.stack(
            [np.arange(track.start, track.stop), np.arange(track.start, track.stop) + 1], axis=1
        )
        kp_2d = split.read(windows, stream="person.j1", fields=["kp_2d"])["kp_2d"][:, 0]
        for i in np.flatnonzero(ok[track.name] != cache.UNDEFINED).tolist():
            both = [np.ascontiguousarray(picture(f)) for f in frame[i - 1 : i + 1].tolist()]
            previous, current = (
                crops.crop_person(one, cuts[i], 1.2, 100, mirrored=True) for one in both
            )
            expected = spec.stream.pair(previous, current, kp_2d=kp_2d[i])
            assert_array_equal(found[track.name][i], expected)
            assert expected is not None and expected.any()


def test_the_bytes_do_not_depend_on_company_order_batches_or_processes(
    converted, extracted, made_up, into, tmp_path
):
    alone = converted.copy(tmp_path)
    for spec in every_kind(made_up)[::-1]:
        alone.extract(spec, workers=1, batch_size=3)
    assert into.tree(alone.root) == into.tree(extracted.root)


def _box(name, columns):
    if name == "a/1":
        columns["bbox"][4] += 1


def _label(name, columns):
    if name == "a/1":
        columns["kp_2d"][4, 27] += 1


def _no_row(name, columns):
    """Frame 4 is no longer there: of pairs, the row after it has nothing before it."""
    if name == "a/1":
        columns |= {
            key: np.delete(value, 4, axis=0)
            for key, value in columns.items()
            if key not in ("crop_scale", "step")
        }


def _frame(name, columns):
    """A row is of frame 5, not of 6: of pairs, it now has one before it, and the row after it has
    none.
    """
    if name == "b/0":
        columns["frame_index"][5] = 5


def _scale(name, columns):
    if name == "b/0":
        columns["crop_scale"] = 1.3


# change, rows that are computed again of: crops' streams, the jittered copy, pairs, pairs with
# labels, labels
CHANGES = {
    "a box": (_box, 1, 1, 1, 1, 0),
    "a label": (_label, 0, 0, 0, 1, 1),
    "a frame": (_frame, 0, 1, 1, 2, 0),  # `a` has the same pictures, and this box in its frame 5
    "a row less": (_no_row, 0, 0, 1, 1, 0),
    "a track's crop scale": (_scale, *[N - 1] * 4, 0),
    "a pixel of video b": ("b", *[N - 1] * 4, 0),  # pixels are known by video
    "nothing": (lambda name, columns: None, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_recomputes_what_depends_on_it_alone(toy, made_up, what):
    change, *expected = CHANGES[what]
    if isinstance(change, str):
        file = toy.raw / change / "000003.png"
        cv2.imwrite(str(file), cv2.imread(str(file)) ^ 1)
        toy.convert(lambda name, columns: None)
    else:
        toy.convert(change)
    done = toy.extract(*every_kind(made_up))
    of_crops = [done[name].computed for name in ("colour", "single", "whole")]
    found = [
        *of_crops,
        *(done[name].computed for name in ("colour.j1", "homography", "person.j1", "pr_vipe")),
    ]
    assert found == [*[expected[0]] * 3, *expected[1:]]


def test_a_video_that_is_replaced_while_it_is_decoded_gives_no_row(made_up, tmp_path):
    toy = Toy(tmp_path)
    encode(toy.raw / "a.avi", [picture(frame) for frame in range(N)])
    encode(tmp_path / "new.avi", [picture(N - frame) for frame in range(N)])
    source = sources.parse(toy.raw, "video:a.avi")
    entry = cache.VideoEntry(
        name="a", source=source.spec, pixels=source.digest(), width=SIDE, height=SIDE
    )
    provenance = {"raw": str(toy.raw)}
    made_splits.write_split(toy.root, SPLIT, [(entry, [make_track("a/0")])], provenance=provenance)

    replacing = made_up.Replacing(new=str(tmp_path / "new.avi"), video=str(toy.raw / "a.avi"))
    (extraction,) = toy.extract(StreamSpec("whole", replacing)).values()
    assert "has other images than those that were converted" in extraction.problem
    (flags,) = toy.rows("features/whole_ok").values()
    assert not flags.any()


def test_other_options_are_another_stream(extracted, made_up):
    others = {
        "colour": made_up.Colour(crop=CropPolicy(scale=1.1)),
        "colour.j1": made_up.Colour(crop=replace(JITTERED, jitter=Jitter(copy=2, seed=3))),
        "homography": streams.get("homography", crop=CropPolicy(size=100)),
    }
    specs = [StreamSpec(name, stream) for name, stream in others.items()]
    for spec in specs:
        with pytest.raises(PipelineError, match="was extracted differently"):
            plan_extraction(extracted.root, SPLIT, spec)
    assert all(
        plan_extraction(extracted.root, SPLIT, spec).up_to_date for spec in every_kind(made_up)
    )
