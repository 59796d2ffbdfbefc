"""Batches by step: their parts, any number of workers and ranks, several streams."""

import multiprocessing
import pickle
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

import cache
from cache import CacheChanged, CacheError
from pipeline.errors import ConfigError, DataError
from tests.vibe_model.builders import MemorySplit
from tests.vibe_model.training.conftest import assert_same, drop_a_video, write
from vibe_model import runs
from vibe_model.hmmr.config import HMMRConfig
from vibe_model.prediction.windows import ModelStreams, select_tracks
from vibe_model.reading import Reading
from vibe_model.training.data import TrainingBatch, TrainingBatches
from vibe_model.training.streams import check_streams
from vibe_model.vibe.config import TrainConfig

CPU = torch.device("cpu")


@pytest.fixture
def splits():
    return {
        "a/train": MemorySplit(1, [9, 4]),
        "b/train": MemorySplit(2, [5]),
        "c/train": MemorySplit(3, [12], with_3d=False),
        "m/train": MemorySplit(4, [20]),
    }


def test_a_batch_is_the_2d_part_then_the_3d_part_and_motion(mixed, splits):
    batches = TrainingBatches(mixed, splits)
    # c: 3 windows of 12 frames; a: rows 0, 2, 4 of the first track (9 frames), 9 of the second; b:
    # row 0.
    assert batches.mixture.counts["datasets_2d"] == {"c/train": 3, "a/train": 4}
    assert batches.mixture.counts["datasets_3d"] == {"a/train": 4, "b/train": 1}
    labels, motion, _ = batches[0]
    assert mixed.windows_2d == 3
    assert {name: value.shape[0] for name, value in labels.items()} == dict.fromkeys(labels, 5)
    for name in ("w_3d", "w_smpl", "kp_3d", "theta"):  # also of a split that has 3D labels
        assert not labels[name][:3].any()
        assert labels[name][3:].any()
    assert motion.shape == (5, 4, 85)
    assert all(value.dtype == np.float32 for value in labels.values())
    assert TrainingBatches(replace(mixed, prior="none"), splits)[0].real_theta is None
    only_2d = TrainingBatches(replace(mixed, datasets_3d=()), splits)[0].labels
    assert (only_2d["features"].shape, only_2d["theta"].any()) == ((5, 4, 6), False)


def test_how_windows_are_cut_and_drawn_is_as_set(mixed, on_disk):
    config = replace(mixed, window_weights={"b/train": 4}, tail="cover")
    batches = TrainingBatches(config, on_disk)
    assert batches.mixture.counts["datasets_3d"]["b/train"] == 2 + 5  # tracks of 5 and 17 frames
    assert batches.mixture.parts["datasets_3d"].weights == {"b/train": 4}


def test_splits_that_cannot_be_trained_on_are_refused_by_name(mixed, splits):
    splits["b/train"] = MemorySplit(0, [8], joints=14)  # for evaluation
    with pytest.raises(
        DataError, match=r"datasets_3d: b/train: kp_3d: expected 49 joints.*found 14"
    ):
        TrainingBatches(replace(mixed, datasets_3d=("b/train",)), splits)
    splits["a/train"].manifest["keypoints"] = "none"  # as its reader declares
    with pytest.raises(DataError, match=r"datasets_2d: a/train: expected 2D joints .* found none"):
        TrainingBatches(mixed, splits)
    del splits["a/train"].manifest["keypoints"]
    # a mean over no window is none
    with pytest.raises(ConfigError, match=r"batch_size: .* 6 processes"):
        TrainingBatches(mixed, splits, rank=0, world_size=6)


def drawn(batches, step):
    """(split, first row) of the videos' windows of a step."""
    parts = batches.mixture.draw(step)
    picks = [*parts["datasets_2d"], *parts["datasets_3d"]]
    return [(pick.split, start) for pick in picks for start in pick.starts]


class WithPairs(TrainConfig):
    @property
    def extra_streams(self):
        return {"motion_of": Reading("pairs", 3, history=3)}


def test_what_a_model_reads_beside_its_features_is_in_the_batches_by_its_name(mixed, on_disk):
    mixed = WithPairs(**vars(mixed))
    assert mixed.streams == dict.fromkeys(("c/train", "a/train", "b/train"), ("resnet50", "pairs"))
    batches = TrainingBatches(mixed, on_disk)
    plain = TrainingBatches(TrainConfig(**vars(mixed)), on_disk)
    for step in (0, 3):
        labels, expected = batches[step].labels, plain[step].labels
        flags = labels.pop("motion_of_ok")
        assert (flags.shape, flags.all()) == ((5, 4), True)
        inputs = [
            ModelStreams("resnet50", mixed.extra_streams).read(on_disk[name], [[start, start + 4]])
            for name, start in drawn(batches, step)
        ]
        for name in ("features", "motion_of"):
            assert_array_equal(labels[name], np.concatenate([given[name] for given in inputs]))
        del labels["motion_of"]
        assert_same(TrainingBatch(labels, None), TrainingBatch(expected, None))
    held = TrainingBatches(mixed, on_disk, hold="ram")  # the others come with each batch
    assert held.table.table.dtype == torch.float16
    assert_same(next(held.stream(1, device=CPU)), batches[1])


def test_columns_that_a_model_names_are_in_its_batches_and_a_split_without_them_is_refused(
    mixed, on_disk
):
    class WithColumns(WithPairs):
        fields = ("frame_index", "crop_scale", "kp_2d")

    batches = TrainingBatches(WithColumns(**vars(mixed)), on_disk)
    labels = next(batches.stream(0, device=CPU)).labels
    starts = drawn(batches, 0)
    frames = [on_disk[name].rows("frame_index", start, start + 4) for name, start in starts]
    assert_array_equal(labels["frame_index"], np.stack(frames))
    scales = [
        on_disk[name].tracks.crop_scale[on_disk[name].track_of(np.array([start]))]
        for name, start in starts
    ]
    assert_array_equal(labels["crop_scale"], np.repeat(scales, 4, axis=1))
    plain = TrainingBatches(WithPairs(**vars(mixed)), on_disk)[0].labels
    assert_array_equal(labels["kp_2d"], plain["kp_2d"])
    WithColumns.fields = ("frame_index", "intrinsics")
    with pytest.raises(
        DataError, match=r"c/train: expected intrinsics for every track.*datasets_2d"
    ):
        TrainingBatches(WithColumns(**vars(mixed)), on_disk)


def test_jittered_copies_of_a_part_take_the_streams_place_and_are_part_of_the_run(on_disk):
    data = {
        "datasets_2d": ("a/train",),
        "datasets_3d": ("b/train", "c/train"),
        "motion": ("m/train",),
    }
    data |= {"validation": ("b/train",), "evaluation": (), "body": None, "tracks": {}}
    plain = HMMRConfig(**data, seqlen=4, stride=2, feature_size=6, width=32)
    mixed = replace(plain, copies_3d=1)
    assert mixed.streams == {
        "a/train": ("resnet50",),
        "b/train": ("resnet50.j1", "resnet50"),  # validation is on plain crops
        "c/train": ("resnet50.j1",),
    }
    of_copies = {"b/train/resnet50.j1", "c/train/resnet50.j1"}
    assert mixed.inputs(on_disk)["streams"].keys() == {"a/train", "b/train"} | of_copies
    assert runs.fingerprint(mixed, on_disk) != runs.fingerprint(plain, on_disk)
    check_streams(mixed, on_disk)
    for step in range(3):
        features = TrainingBatches(mixed, on_disk)[step].labels["features"]
        of_copy = (np.diff(features, axis=2) == 1).all(axis=(1, 2))
        assert of_copy.tolist() == 4 * [False] + 4 * [True]
        assert features.dtype == np.float32  # float16 and float32: the wider one
    assert replace(plain, copies_2d=2).streams_of("datasets_2d") == ("resnet50.j1", "resnet50.j2")

    class OfEither(HMMRConfig):
        def streams_of(self, part):
            return ("resnet50", "resnet50.j1")

    with pytest.raises(ConfigError, match=r"hold = ram: expected .* features without copies"):
        TrainingBatches(OfEither(**vars(plain)), on_disk, hold="ram")
    assert TrainingBatches(OfEither(**vars(plain)), on_disk, hold="auto").table is None


def test_windows_of_a_rate_are_trained_on(mixed, on_disk):
    config = replace(mixed, seconds=0.32, rate=12.5)  # of 25 frames a second
    batches = TrainingBatches(config, on_disk, hold="auto")
    assert batches.table is None
    for step in range(4):
        picks, labels = batches.mixture.draw(step), batches[step]
        of_video = [*picks["datasets_2d"], *picks["datasets_3d"]]
        for pick in [*of_video, *picks["motion"]]:
            np.testing.assert_array_equal(np.diff(pick.windows), 2)
        expected = [
            on_disk[pick.split].read(pick.windows, fields=["features"], dtype="float16")["features"]
            for pick in of_video
        ]
        assert_array_equal(labels.labels["features"], np.concatenate(expected))
        assert labels.real_theta.shape == (5, 4, 85)
    with pytest.raises(ConfigError, match=r"hold = ram: .* found windows of a rate"):
        TrainingBatches(config, on_disk, hold="ram")
    for wrong in ({"seconds": 0.32}, {"rate": 12.5}, {"seconds": 0.64, "rate": 12.5}):
        with pytest.raises(ConfigError, match=r"seconds, rate: expected both.* seqlen = 4"):
            replace(mixed, **wrong)


def test_tracks_that_are_left_out_or_validated_on_give_no_window(on_disk):
    data = {
        "datasets_2d": ("a/train",),
        "datasets_3d": ("b/train",),
        "motion": ("m/train",),
        "evaluation": (),
    }
    config = HMMRConfig(
        **data, validation=("b/train",), seqlen=4, stride=1, feature_size=6, width=32
    )

    def starts(**changes):
        mixture = TrainingBatches(replace(config, **changes), on_disk).mixture
        found = defaultdict(set)
        for step in range(30):  # every window comes
            for picks in mixture.draw(step).values():
                for pick in picks:
                    found[pick.split].update(pick.starts.tolist())
        return found

    every, split = starts(), on_disk["a/train"]
    first, second, third = split.tracks
    assert len(every["a/train"]) == 6 + 1 + 20
    kept = starts(leave_out=(f"a/train:{second.name}", f"a/train:{third.name[:-1]}*"))
    assert kept["a/train"] == {row for row in every["a/train"] if row < first.stop}
    held_out = starts(validation=(f"a/train:{first.name}", "b/train"))
    assert held_out["a/train"] == {row for row in every["a/train"] if row >= second.start}
    assert held_out["b/train"] == every["b/train"], (
        "a split that is validated on as a whole is trained on, too"
    )
    assert replace(config, validation=("x/train:1/10",)).splits[-2:] == ("x/train", "m/train")
    for wrong in ({"leave_out": ("m/train:a*",)}, {"leave_out": ("x/train:a*",)}):
        with pytest.raises(ConfigError, match="leave_out"):
            replace(config, **wrong)


@pytest.mark.parametrize("one_in", [2, 10])
def test_a_share_of_a_split_is_of_whole_videos_and_about_as_large(one_in):
    tracks = [
        SimpleNamespace(name=f"v{i}/{j}", video=f"v{i}") for i in range(1000) for j in range(2)
    ]
    drawn = select_tracks(SimpleNamespace(tracks=tracks), f"1/{one_in}")
    videos = {track.video for track in drawn}
    assert len(drawn) == 2 * len(videos) == pytest.approx(2000 / one_in, rel=0.25)
    assert {
        track.video for track in select_tracks(SimpleNamespace(tracks=tracks[:600]), f"1/{one_in}")
    } <= videos
    others = select_tracks(SimpleNamespace(tracks=tracks), f"!1/{one_in}")
    assert sorted(track.name for track in [*drawn, *others]) == sorted(t.name for t in tracks)
    assert select_tracks(SimpleNamespace(tracks=tracks[:4]), "!v1/*") == tracks[:2]


def test_batches_from_a_step_on_are_those_of_the_steps(mixed, splits):
    batches = TrainingBatches(mixed, splits)
    ready = list(batches.stream(4, device=CPU))
    assert len(ready) == len(batches) - 4 == 11  # to the end of the last epoch
    for step, batch in enumerate(ready, start=4):
        assert_same(batch, TrainingBatches(mixed, splits)[step])
    assert_same(batches[14], batches[14])
    for step in (15, -1):
        with pytest.raises(IndexError, match=f"step {step} of 15"):
            batches[step]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("the disk is gone"), OSError),
        (RuntimeError("a size does not fit"), RuntimeError),
        (EOFError("Caught EOFError in DataLoader worker process 0."), EOFError),
        # what DataLoader raises if a process is killed while it sends a batch
        (ConnectionResetError(104, "Connection reset by peer"), CacheError),
        (EOFError("cut off"), CacheError),
    ],
)
def test_an_error_while_reading_ahead_is_raised(error, expected, mixed, splits):
    batches = TrainingBatches(mixed, splits)
    splits["c/train"].read = lambda *a, **k: (_ for _ in ()).throw(error)
    with pytest.raises(expected, match=str(error).replace("[", r"\[")):
        next(batches.stream(0, device=CPU))


def test_a_worker_reads_what_is_read_without_and_when_it_is_killed_training_ends_with_a_message(
    mixed, on_disk
):
    batches = TrainingBatches(mixed, on_disk)
    in_memory = TrainingBatches(mixed, on_disk, hold="ram", read_workers=1)
    state = torch.get_rng_state()
    ready = in_memory.stream(2, device=CPU)
    for step in (2, 3):
        assert_same(next(ready), batches[step])
    # dropout draws from it: a resumed run must find it as it was
    assert torch.equal(torch.get_rng_state(), state)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(CacheError, match=r"exited unexpectedly.*read_workers = 0"):
        list(ready)


def test_a_worker_that_starts_after_a_commit_reads_on_and_raises_with_its_first_batch_after_gc(
    mixed, tmp_path
):
    for seed, name in enumerate(("a/train", "b/train", "c/train", "m/train")):
        write(tmp_path, name, [9], seed)
    opened = cache.open(tmp_path)
    batches = TrainingBatches(mixed, {name: opened[name] for name in opened.splits})
    packed = pickle.dumps(batches)
    drop_a_video(tmp_path, "b/train")
    assert_same(pickle.loads(packed)[0], batches[0])
    cache.gc(tmp_path)
    in_worker = pickle.loads(packed)
    with pytest.raises(CacheChanged, match="b/train"):  # once it draws a window of this split
        [in_worker[step] for step in range(len(batches))]
