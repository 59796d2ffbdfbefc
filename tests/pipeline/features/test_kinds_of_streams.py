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
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Machine
from pipeline.files.pixels import sources
from pipeline.people.boxes import crop_person
from pipeline.steps.extraction.plan import plan_extraction
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
    """Rows one by one, flags and pairs are compared in test_rows_one_by_one.py."""
    toy = extracted
    split, boxes, frames = cache.open(toy.root)[SPLIT], toy.rows("bbox"), toy.rows("frame_index")
    for stream, policy, take, part in (
        # 48 of 64 columns, about the centre
        ("colour.j1", JITTERED, lambda crop: crop[32, 8 + 24], slice(3)),
        ("person.j1", MIRRORED, lambda crop: np.float32(crop.mean(axis=(0, 1))), slice(3, 6)),
    ):
        found, ok = toy.rows(f"features/{stream}"), toy.rows(f"features/{stream}_ok")
        for name, box in boxes.items():
            keys = policy.seeds([name]).repeat(len(box))
            cuts, mirrored = policy.boxes(box, np.full(len(box), 1.2), keys, frames[name])
            for i in np.flatnonzero(ok[name] == cache.COMPUTED).tolist():
                shown = np.ascontiguousarray(picture(frames[name][i]))
                is_mirrored = bool(mirrored[i])
                crop = crop_person(shown, cuts[i], 1.2, policy.size, mirrored=is_mirrored)
                assert_array_equal(found[name][i, part], take(crop))
    for name, whole in toy.rows("features/whole").items():
        corners = [picture(frame)[0, 0] for frame in frames[name]]
        sides = np.full((len(whole), 2), SIDE)
        assert_array_equal(whole, np.column_stack([sides, corners, boxes[name]]))
    # What stands still moves by -2 and -1 px a frame, of (60, 72) px that the crop shows of the
    # picture.
    moved = toy.rows("features/homography")["a/0"][1:, [2, 5, 8]]
    assert_allclose(np.median(moved, axis=0), [-2 / 30, -1 / 36, 0], atol=4e-3)
    stream = streams.get("pr_vipe").load(Machine(), None)
    poses = toy.rows("features/pr_vipe")
    for name, kp_2d in toy.rows("kp_2d").items():
        assert_array_equal(poses[name], stream({"kp_2d": kp_2d})[0])
    assert len(split.windows(4, 4, streams=("colour", "homography", "pr_vipe"))) == 2 + 2 + 1 + 1


def test_a_pair_has_its_later_row_s_keypoints_as_readers_of_its_crops_do(extracted):
    """Of a mirrored, jittered copy: left is right."""
    split = cache.open(extracted.root)[SPLIT]
    found, ok = extracted.rows("features/person.j1"), extracted.rows("features/person.j1_ok")
    for track in split.tracks:
        rows = np.flatnonzero(ok[track.name] != cache.UNDEFINED)
        windows = track.start + np.stack([rows, rows + 1], axis=1)
        kp_2d = split.read(windows, stream="person.j1", fields=["kp_2d"])["kp_2d"][:, 0]
        assert_allclose(found[track.name][rows, 6:], 100 * kp_2d[:, 27, :2], rtol=1e-3)


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
