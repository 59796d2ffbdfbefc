import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import cache
from cache import CacheChanged, CacheError
from vibe_model import runs
from vibe_model.errors import ConfigError, DataError
from vibe_model.settings.config import TrainConfig
from vibe_model.training import feature_table as memory
from vibe_model.training import vibe as training
from vibe_model.training.data import Batches, on_device, stream
from vibe_model.training.feature_table import TableProgress
from vibe_model.training.steps import step_losses
from vibe_model.training.vibe import VIBETrainer

CPU = torch.device("cpu")


@pytest.fixture
def splits(memory_split):
    return {
        "a/train": memory_split(1, [9, 4]),
        "b/train": memory_split(2, [5]),
        "c/train": memory_split(3, [12], with_3d=False),
        "m/train": memory_split(4, [20]),
    }


@pytest.fixture
def config():
    return TrainConfig(
        datasets_2d=("c/train", "a/train"),
        datasets_3d=("a/train", "b/train"),
        motion=("m/train",),
        validation=("b/train",),
        evaluation=(),
        seqlen=4,
        stride=4,
        strides={"a/train": 2},
        batch_size=5,
        feature_size=6,
        iterations=5,
        epochs=3,
    )


def write_split(root, name, lengths, *, seed, dtype="float16"):
    """A split on disk, with features."""
    random = np.random.default_rng(seed)
    names = ["frame_index", "bbox", "kp_2d", "kp_3d", "pose", "betas", "has_3d", "has_smpl"]
    with cache.SplitWriter(root, name, columns=names, plan="test", rows_per_shard=16, rows_per_chunk=8) as writer:
        writer.begin()
        for number, n in enumerate(lengths):
            columns = {
                "frame_index": np.arange(n),
                "bbox": np.tile(np.float32([100, 100, 80, 80]), (n, 1)),
                "kp_2d": np.float32(random.uniform(60, 140, (n, 49, 3)) * [1, 1, 0.005]),
                "kp_3d": np.concatenate([random.normal(size=(n, 49, 3)), np.ones((n, 49, 1))], 2).astype(np.float32),
                "pose": np.float32(random.normal(size=(n, 72)) * 0.2),
                "betas": np.float32(random.normal(size=(n, 10)) * 0.2),
                "has_3d": np.ones(n, bool),
                "has_smpl": np.ones(n, bool),
            }
            about = {"name": f"v{number}/0", "video": f"v{number}", "step": 1, "fps": 25.0, "crop_scale": 1.3}
            writer.append(cache.VideoEntry(name=f"v{number}"), [cache.TrackRows(**about, columns=columns)])
        writer.commit({"stand_in": True})
    with cache.StreamWriter(root, name, "resnet50", dim=6, plan="test", dtype=dtype) as features:
        for shard in features.pending:
            n = len(features.rows(shard))
            features.write(shard, random.normal(size=(n, 6)), np.ones(n, bool), np.zeros((n, 2), np.uint64))
        features.commit({"stand_in": True})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    write_split(root, "a/train", [9, 4, 23], seed=1)
    write_split(root, "b/train", [5, 17], seed=2)
    write_split(root, "c/train", [12], seed=3)
    write_split(root, "m/train", [20], seed=4)
    return root


@pytest.fixture
def on_disk(root):
    opened = cache.open(root)
    return {name: opened[name] for name in opened.splits}


def assert_same(ours, theirs):
    assert ours.labels.keys() == theirs.labels.keys()
    for name, value in theirs.labels.items():
        assert np.asarray(ours.labels[name]).dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(np.asarray(ours.labels[name]), np.asarray(value))
    np.testing.assert_array_equal(np.asarray(ours.real_theta), np.asarray(theirs.real_theta))


# ------------------------------------------------------------------------------------------------------ batches


def test_a_batch_is_the_2d_part_then_the_3d_part_and_motion(config, splits):
    batches = Batches(config, splits)
    # c: 3 windows of 12 frames; a: rows 0, 2, 4 of the first track (9 frames), 9 of the second; b: row 0.
    assert batches.counts["datasets_2d"] == {"c/train": 3, "a/train": 4}
    assert batches.counts["datasets_3d"] == {"a/train": 4, "b/train": 1}
    labels, motion = batches.at(0)
    assert config.windows_2d == 3
    assert {name: value.shape[0] for name, value in labels.items()} == dict.fromkeys(labels, 5)
    for name in ("w_3d", "w_smpl", "kp_3d", "theta"):  # also of a split that has 3D labels
        assert not labels[name][:3].any()
        assert labels[name][3:].any()
    assert motion.shape == (5, 4, 85)
    assert all(value.dtype == np.float32 for value in labels.values())


def test_a_batchs_rows_are_those_of_the_splits(config, splits):
    for step in range(7):
        labels, motion = Batches(config, splits).at(step)
        for part, here in (("datasets_2d", slice(0, 3)), ("datasets_3d", slice(3, 5))):
            rows = np.concatenate([splits[name].rows["features"] for name in getattr(config, part)])
            for window in labels["features"][here]:
                (start,) = np.flatnonzero((rows == window[0]).all(axis=1))
                np.testing.assert_array_equal(rows[start : start + 4], window)
        theta = splits["m/train"].rows["theta"]
        assert all((theta == frame).all(axis=1).any() for frame in motion.reshape(-1, 85))


def test_windows_of_a_heavier_split_come_more_often(config, splits):
    heavy = Batches(replace(config, window_weights={"b/train": 4}), splits)
    # A round of the 3D part: b's one window, and one of a's four. Two windows a step.
    seen = Counter()
    for step in range(4):
        for pick in heavy.mixture.draw(step)["datasets_3d"]:
            seen[pick.split] += len(pick.starts)
    assert seen == {"a/train": 4, "b/train": 4}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window_weights": {"a/train": 0.0}}, "window_weights: expected more than 0 for a/train"),
        ({"window_weights": {"x/train": 2.0}}, "window_weights: expected splits that are trained on, found x/train"),
        ({"tail": "keep"}, "tail: expected one of drop, cover, found 'keep'"),
        ({"hold": "gpu"}, "hold: expected one of none, ram, device, auto, found 'gpu'"),
        ({"read_workers": -1}, "read_workers: expected 0 or more"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(config, wrong, message):
    with pytest.raises(ConfigError, match=message):
        replace(config, **wrong)


def test_the_last_frames_of_tracks_are_trained_on_when_asked_for(config, on_disk):
    drop, cover = (Batches(replace(config, tail=tail), on_disk).counts["motion"] for tail in ("drop", "cover"))
    assert (drop, cover) == ({"m/train": 5}, {"m/train": 5})  # 20 frames: nothing is left over
    drop, cover = (Batches(replace(config, tail=tail), on_disk).counts["datasets_3d"] for tail in ("drop", "cover"))
    assert (drop["b/train"], cover["b/train"]) == (1 + 4, 2 + 5)  # tracks of 5 and 17 frames


def test_no_motion_no_real_batch(config, splits):
    assert Batches(replace(config, prior="none"), splits).at(0).real_theta is None


def test_one_kind_of_dataset_fills_the_whole_batch(config, splits):
    labels = Batches(replace(config, datasets_2d=()), splits).at(0).labels
    assert (labels["theta"][..., 0] == 1).all()
    labels = Batches(replace(config, datasets_3d=()), splits).at(0).labels
    assert labels["features"].shape == (5, 4, 6)
    assert not labels["theta"].any()


def test_a_part_without_windows_is_refused_by_name(config, splits, memory_split):
    splits["m/train"] = memory_split(0, [3, 3])
    with pytest.raises(CacheError, match=r"motion.*m/train"):
        Batches(config, splits)


def test_an_evaluation_split_cannot_be_trained_on(config, splits, memory_split):
    splits["b/train"] = memory_split(0, [8], joints=14)
    with pytest.raises(CacheError, match=r"datasets_3d: kp_3d: .*\(49, 3\) in a/train and \(14, 3\) in b/train"):
        Batches(config, splits)
    with pytest.raises(DataError, match=r"datasets_3d: b/train: kp_3d: expected 49 joints.*found 14"):
        Batches(replace(config, datasets_3d=("b/train",)), splits)


def test_ranks_have_their_share_of_every_batch_2d_part_first(config, on_disk):
    whole = Batches(config, on_disk)
    ranks = [Batches(config, on_disk, rank=rank, world_size=2) for rank in range(2)]
    for step in range(4):
        expected = whole.at(step)
        shares = [batches.at(step) for batches in ranks]
        assert sorted(len(share.labels["features"]) for share in shares) == [2, 3]
        for name in ("features", "kp_2d", "theta"):
            rows = [row.tobytes() for share in shares for row in share.labels[name]]
            assert Counter(rows) == Counter(row.tobytes() for row in expected.labels[name])
        for batches, share in zip(ranks, shares, strict=True):
            n_2d = batches.mixture.sizes["datasets_2d"]
            assert not share.labels["w_3d"][:n_2d].any()
            assert share.labels["w_3d"][n_2d:].all()


# ---------------------------------------------------------------------------------------------- workers, resume


def test_batches_from_a_step_on_are_those_of_the_steps(config, splits):
    batches = Batches(config, splits)
    ready = list(stream(batches, 4, device=CPU))
    assert len(ready) == len(batches) - 4 == 11  # to the end of the last epoch
    for step, batch in enumerate(ready, start=4):
        assert_same(batch, Batches(config, splits).at(step))


def test_an_error_while_reading_ahead_arrives(config, splits):
    batches = Batches(config, splits)
    splits["c/train"].read = lambda *a, **k: (_ for _ in ()).throw(OSError("the disk is gone"))
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream(batches, 0, device=CPU))


def test_a_dataset_has_the_steps_of_the_run_and_no_more(config, splits):
    batches = Batches(config, splits)
    assert_same(batches[14], batches.at(14))
    for step in (15, -1):
        with pytest.raises(IndexError, match=f"step {step} of 15"):
            batches[step]


@pytest.mark.parametrize(("workers", "context"), [(0, None), (1, "fork"), (2, "fork"), (1, "spawn")])
def test_any_number_of_workers_gives_the_same_batches(config, on_disk, workers, context):
    batches = Batches(config, on_disk)
    options = {"batch_size": None, "num_workers": workers, "multiprocessing_context": context}
    loaded = list(DataLoader(batches, sampler=range(3, len(batches)), **options))
    assert len(loaded) == 12
    for step, batch in enumerate(loaded, start=3):
        assert batch.labels["features"].dtype == torch.float16
        assert_same(batch, batches.at(step))


class Epoch:
    """A sampler that is told which epoch it is."""

    number = 0

    def __iter__(self):
        return iter(range(5 * self.number, 5 * self.number + 5))


def test_workers_that_stay_go_on_with_the_next_epoch(config, on_disk):
    batches = Batches(config, on_disk)
    epoch = Epoch()
    options = {"multiprocessing_context": "fork", "persistent_workers": True}
    loader = DataLoader(batches, batch_size=None, sampler=epoch, num_workers=2, **options)
    for epoch.number in range(3):
        ready = list(loader)
        assert len(ready) == 5
        for step, batch in enumerate(ready, start=5 * epoch.number):
            assert_same(batch, batches.at(step))


def test_training_reads_with_workers_what_it_reads_without(config, on_disk):
    batches = Batches(config, on_disk)
    held = (held_batches := Batches(config, on_disk)).load_features("ram", CPU)
    state = torch.get_rng_state()
    for step, batch in enumerate(stream(held_batches, 12, device=CPU, table=held, workers=1), start=12):
        assert_same(batch, batches.at(step))
    assert step == 14
    assert torch.equal(torch.get_rng_state(), state)  # dropout draws from it: a resumed run must find it as it was


def test_a_worker_that_starts_after_a_commit_says_so_with_its_first_batch(config, tmp_path):
    for seed, name in enumerate(("a/train", "b/train", "c/train", "m/train")):
        write_split(tmp_path, name, [9], seed=seed)
    opened = cache.open(tmp_path)
    packed = pickle.dumps(Batches(config, {name: opened[name] for name in opened.splits}))
    with cache.SplitWriter(tmp_path, "b/train", columns=opened["b/train"].columns, plan="new") as writer:
        writer.begin(drop=["v0"])
        writer.commit({"stand_in": True})
    in_worker = pickle.loads(packed)
    assert len(in_worker) == 15
    with pytest.raises(CacheChanged, match="b/train"):
        in_worker[0]


# ---------------------------------------------------------------------------------------------- float16, holding


def test_features_widened_on_the_device_train_to_the_same_bits(config, on_disk, body):
    stored = on_device(Batches(config, on_disk).at(2), CPU)
    widened = stored._replace(labels={**stored.labels, "features": stored.labels["features"].float()})
    assert stored.labels["features"].dtype == torch.float16
    found = []
    for batch in (stored, widened):
        trainer = VIBETrainer(replace(config, hidden_size=5, regressor_size=7, disc_size=4), body)
        step_losses(trainer.generator, trainer.discriminator, batch.labels, batch.real_theta, config.weights)
        trainer.train_step(batch)
        found.append(trainer.state_dict()["gen_state_dict"])
    assert all(torch.equal(found[0][name], value) for name, value in found[1].items())


@pytest.mark.parametrize("datasets_3d", [("d/train",), ("a/train", "d/train")])
def test_features_of_two_precisions_meet_in_the_wider_one(config, on_disk, tmp_path, datasets_3d):
    write_split(tmp_path, "d/train", [8], seed=5, dtype="float32")
    precise = cache.open(tmp_path)["d/train"]
    both = Batches(replace(config, datasets_3d=datasets_3d), {**on_disk, "d/train": precise})
    seen = set()
    for step in range(10):  # two windows of the 3D part each: more than a round
        features = both.at(step).labels["features"]
        assert features.dtype == np.float32
        seen |= {window.tobytes() for window in features[3:]}
    stored = precise.read(precise.windows(4, 4, "resnet50"), fields=("features",))["features"]
    assert len(stored) == 2
    assert {window.tobytes() for window in stored} <= seen


@pytest.mark.parametrize("hold", ["ram", "device", "auto"])
def test_held_features_give_the_same_batches(config, on_disk, hold):
    news = []
    batches = Batches(config, on_disk)
    held = batches.load_features(hold, CPU, news.append)
    assert held.table.dtype == torch.float16
    for step in range(15):
        batch = batches.at(step)
        assert "features" not in batch.labels  # nothing is read of them any more
        assert_same(on_device(batch, CPU, held), Batches(config, on_disk).at(step))
    done = [entry.done for entry in news]
    assert done == sorted(done)
    assert news[-1] == TableProgress(f"held in RAM: {held.table.nbytes / 1e9:.3g} GB", len(held.table), len(held.table))


def test_only_rows_of_windows_are_held_each_once(config, on_disk):
    held = Batches(config, on_disk).load_features("ram", CPU)
    # a (both parts, every 4 frames of 2): 8 of 9, 4 of 4, 22 of 23; b (stride 4): 4 of 5, 16 of 17; c: 12 of 12.
    assert len(held.table) == 8 + 4 + 22 + 4 + 16 + 12


def test_a_run_with_held_features_ends_with_the_same_numbers(config, splits, body, monkeypatch, tmp_path, memory_split):
    splits |= {"v/validation": memory_split(5, [7], joints=14)}
    monkeypatch.setattr(runs, "open_splits", lambda config: splits)
    monkeypatch.setattr(training, "load_body", lambda folder: body)
    config = replace(config, validation=("v/validation",), hidden_size=5, regressor_size=7, disc_size=4, epochs=1)
    config = replace(config, device="cpu", threads=1)
    results = []
    for hold in ("none", "ram"):
        folder = training.run(replace(config, hold=hold, runs=tmp_path / hold))
        results.append(torch.load(folder / "last.pt", weights_only=True)["gen_state_dict"])
        assert (
            f'"features": "{"held in RAM" if hold == "ram" else "read with each batch"}'
            in (folder / "config.json").read_text()
        )
    assert all(torch.equal(results[0][name], value) for name, value in results[1].items())


NEEDED = 66 * 6 * 2  # bytes, of the rows above


@pytest.mark.parametrize("hold", ["ram", "device"])
def test_features_that_do_not_fit_are_refused_with_the_figures(config, on_disk, hold, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: NEEDED)  # all of what is free is more than may be taken
    expected = rf"hold = {hold}: .* need 7.92e-07 GB \(66 rows of 6 float16\), RAM has 6.33e-07 GB for them \(80% of"
    with pytest.raises(ConfigError, match=expected):
        Batches(config, on_disk).load_features(hold, CPU)


def test_features_that_just_fit_are_held(config, on_disk, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: NEEDED / 0.8)
    assert Batches(config, on_disk).load_features("ram", CPU) is not None


@pytest.mark.parametrize(
    ("free", "told"),
    [
        ({"meta": 10**9, "cpu": 0}, "held in meta: 7.92e-07 GB"),
        ({"meta": 100, "cpu": 10**9}, "held in RAM: 7.92e-07 GB (meta has 8e-08 GB for them)"),
        (
            {"meta": 100, "cpu": 0},
            "read with each batch: they need 7.92e-07 GB (meta has 8e-08 GB for them, RAM has 0 GB for them)",
        ),
    ],
)
def test_auto_takes_the_first_place_that_they_fit_into_and_says_which(config, on_disk, free, told, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: free[device.type])
    news = []
    batches = Batches(config, on_disk)
    held = batches.load_features("auto", torch.device("meta"), news.append)  # a device that keeps nothing
    assert batches.where == news[-1].where == told
    assert (None if held is None else held.table.device.type) == {"m": "meta", "R": "cpu"}.get(told[8])
    assert ("features" in batches.at(0).labels) == (held is None)


def test_nothing_is_held_unless_it_is_asked_for(config, on_disk):
    assert Batches(config, on_disk).load_features("none", CPU, lambda _: pytest.fail("nothing to tell")) is None


def test_free_memory_is_some_and_not_more_than_there_is(tmp_path):
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < memory.free_memory(CPU) <= total


def test_the_tightest_group_that_a_process_is_in_limits_its_memory(tmp_path):
    for group, limit, used, files in (
        ("job", "1000", 700, 100),
        ("job/step", "max", 700, 0),
        ("job/step/task", "900", 950, 20),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / "memory.max").write_text(f"{limit}\n")
        (tmp_path / group / "memory.current").write_text(f"{used}\n")
        (tmp_path / group / "memory.stat").write_text(f"anon 5\nactive_file {files // 2}\ninactive_file {files // 2}\n")
    own = tmp_path / "cgroup"
    own.write_text("1:name=systemd:/elsewhere\n0::/job/step/task\n")
    assert memory.free_in_cgroups(own, tmp_path) == [0, 400]
    own.write_text("0::/\n")
    assert memory.free_in_cgroups(own, tmp_path) == []
    assert memory.free_in_cgroups(tmp_path / "none", tmp_path) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_held_features_give_the_same_batches(config, on_disk):
    gpu = torch.device("cuda")
    for hold in ("none", "ram", "device"):
        batches = Batches(config, on_disk)
        held = batches.load_features(hold, gpu)
        for step, batch in enumerate(stream(batches, 0, device=gpu, table=held)):
            assert batch.labels["features"].device.type == "cuda"
            on_cpu = batch._replace(
                labels={name: value.cpu() for name, value in batch.labels.items()}, real_theta=batch.real_theta.cpu()
            )
            assert_same(on_cpu, Batches(config, on_disk).at(step))
