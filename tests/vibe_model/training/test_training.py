"""Training of VIBE and of the motion prior: what a run leaves, that it resumes exactly, what it
refuses.
"""

import itertools
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from cache import CacheError
from cache.storage.writer_lock import WriterLock
from pipeline.errors import CheckpointError, ConfigError, DataError, StandInMixed, TrainingDiverged
from tests.results import read_file
from tests.trees import everything
from tests.vibe_model.builders import TinyBody, small_vibe
from tests.vibe_model.training.tiny_runs import (
    EPOCHS,
    ITERATIONS,
    KINDS,
    Killed,
    Observer,
    assert_same_run,
    finite,
    in_memory,
    killed_at,
    scalars,
    tensors,
)
from vibe_model import models, runs
from vibe_model.hmmr import losses as hmmr_losses
from vibe_model.trained import Trained
from vibe_model.training import video as training
from vibe_model.training.streams import check_streams
from vibe_model.vibe.mposer import MPoser

SUPERVISED = {"kp_2d", "kp_3d", "pose", "shape"}
TERMS = {
    "vibe": SUPERVISED | {"adversarial", "discriminator_real", "discriminator_fake"},
    "hmmr": {*hmmr_losses.WEIGHTS, "discriminator"},
    "part_dynamics": SUPERVISED | {"neighbours", "uncertainty"},
    "prior": {"reconstruction", "kl"},
}
NETWORKS = {
    "vibe": ("gen", "disc_motion"),
    "hmmr": ("gen", "disc_pose"),
    "part_dynamics": ("gen",),
    "prior": ("mposer",),
}


# what HMMR does not share with VIBE: tests/vibe_model/hmmr
@pytest.fixture(params=["vibe", "prior"])
def kind(request):
    return request.param


only_vibe = pytest.mark.parametrize("kind", ["vibe"])
# What the loop of both does, beside any trainer.
quickly_vibe = pytest.mark.parametrize(
    "kind", ["vibe", pytest.param("prior", marks=pytest.mark.slow)]
)
quickly_prior = pytest.mark.parametrize(
    "kind", [pytest.param("vibe", marks=pytest.mark.slow), "prior"]
)


def last_state(folder):
    return read_file(folder / "last.pt")


# -----------------------------------------------------------------------------------------------
# what a run leaves


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_leaves_config_states_curves_and_metrics_and_reports(
    kind, config, splits, undisturbed, reports
):
    folder = undisturbed
    places = {"runs": config.runs, "cache": config.cache}
    places |= {"embedding": config.embedding} if kind == "part_dynamics" else {}
    metrics, about = read_file(folder / "metrics.json"), read_file(folder / "config.json")
    assert replace(type(config).from_dict(about["config"]), **places) == config
    assert folder.name == f"{config.name}-{runs.fingerprint(config, splits)}"
    names = {file.name for file in folder.iterdir()}
    assert {"config.json", "last.pt", "best.pt", "metrics.json"} < names
    assert not [name for name in names if name.endswith(".part")]
    assert (metrics["stand_in"], metrics["skipped_steps"]) == (True, 0)
    estimates = {} if kind == "prior" else {"b/train": "estimates of WHAM"}
    assert metrics.get("estimates", {}) == estimates, "of the 2D joints alone of a/train"
    last, best = last_state(folder), read_file(folder / "best.pt")
    assert {
        f"{name}{part}" for name in NETWORKS[kind] for part in ("_state_dict", "_optimizer")
    } < set(last)
    history = last["training"]["history"]
    scores = [entry["score"] for entry in history]
    assert len(scores) == EPOCHS
    score = "score" if kind == "prior" else "pa_mpjpe"
    assert metrics["best"] == {"epoch": best["epoch"], score: best["performance"]}
    assert (best["epoch"], best["performance"]) == (int(np.argmin(scores)), min(scores))
    shown_steps, shown_epochs = reports[kind]
    steps = [(epoch, i) for epoch in range(EPOCHS) for i in range(1, ITERATIONS + 1)]
    assert [(progress.epoch, progress.iteration) for progress, _ in shown_steps] == steps
    assert [len(validation) for _, _, validation in shown_epochs] == [1] * EPOCHS
    assert [loss for _, loss, _ in shown_epochs] == [sum(e["losses"].values()) for e in history]
    assert history[0]["losses"].keys() == TERMS[kind]
    # No body data: neither names nor the sizes of the tiny body's vertices.
    for state in (last, best):
        leaves = tensors(state)
        assert not [key for key in leaves if "body/" in key or "smpl." in key]
        sizes = {
            size
            for value in leaves.values()
            if isinstance(value, torch.Tensor)
            for size in value.shape
        }
        assert 30 not in sizes or kind in ("hmmr", "part_dynamics"), (
            "which have layers of this size"
        )


@pytest.mark.parametrize("kind", ["vibe", "hmmr", "part_dynamics"])
def test_a_runs_checkpoint_is_loaded_as_what_it_is(kind, config, undisturbed, monkeypatch):
    metrics = read_file(undisturbed / "metrics.json")
    assert set(metrics["b/test"]) >= {"pa_mpjpe", "pve", "baseline", "published"}
    assert metrics["a/test"]["frames"] == 0  # no labels: no reason to lose the run
    assert read_file(undisturbed / "config.json")["windows"]["datasets_2d"] == {"a/train": 3 + 2}
    monkeypatch.setattr("vibe_model.trained.load_body", lambda folder: TinyBody())
    trained = Trained.load(undisturbed / "best.pt", None, "cpu")
    assert (trained.config.MODEL, type(trained.generator)) == (
        kind,
        type(models.build_generator(config, TinyBody())),
    )
    best = read_file(undisturbed / "best.pt")
    assert best.get("extra_streams", {}).keys() == config.extra_streams.keys()
    assert all(
        torch.equal(value, best["gen_state_dict"][n])
        for n, value in trained.generator.state_dict().items()
    )
    if kind == "part_dynamics":
        with pytest.raises(DataError, match="expected homography of 9 numbers"):
            trained.check_features("a stream", 45, argument="homography")


@pytest.mark.parametrize("kind", ["prior"])
def test_a_run_of_the_prior_leaves_its_angles_and_a_prior(splits, undisturbed):
    metrics = read_file(undisturbed / "metrics.json")
    assert metrics["v/val"]["windows"] == 2  # of nine frames; three are too few
    assert metrics["best"]["score"] == metrics["v/val"]["reconstruction_deg"]
    assert "u/val" not in metrics, "it has no labels to be compared with"
    assert read_file(undisturbed / "config.json")["inputs"].keys() == splits.keys()
    prior = MPoser.load(undisturbed / "best.pt")
    assert (prior.latent_size, prior.stand_in) == (3, True)
    # Runs of generators are named after it, wherever it is.
    assert str(undisturbed.parent).encode() not in (undisturbed / "best.pt").read_bytes()
    tags = {tag for tag, _ in scalars(undisturbed)}
    assert {"validation/v/val/reconstruction_deg", "learning_rate/mposer_optimizer"} < tags


@quickly_vibe
def test_learning_rates_fall_when_validation_stalls(kind, config, run, splits, monkeypatch):
    monkeypatch.setattr(
        KINDS[kind].loop, "validate", lambda _: ({"a/val": {"pa_mpjpe": 50.0}}, 50.0)
    )
    monkeypatch.setattr(KINDS[kind].loop, "results", lambda _: {})
    folder = run(replace(config, epochs=3, iterations=1, plateau_patience=0))
    rates = [
        list(entry["learning_rates"].values())
        for entry in last_state(folder)["training"]["history"]
    ]
    assert_allclose(rates, np.array([[1e-2], [1e-3], [1e-4]]) * np.ones(len(rates[0])))
    # no better is not better
    assert read_file(folder / "best.pt")["epoch"] == 0


# --------------------------------------------------------------------------------------------------
# kills, resume


# Between two checkpoints, at the end of all; before any checkpoint, at an epoch's end.
QUICK = {("vibe", 4), ("vibe", 10), ("prior", 1), ("prior", 5), ("hmmr", 7), ("part_dynamics", 7)}
KILLS = QUICK | set(itertools.product(("vibe", "prior"), range(1, EPOCHS * (ITERATIONS + 1) + 1)))


@pytest.mark.promise("problems of All datasets")
@pytest.mark.promise("equal bytes")
@pytest.mark.parametrize(
    ("kind", "kill_at"),
    [pytest.param(*kill, marks=[pytest.mark.slow] * (kill not in QUICK)) for kill in sorted(KILLS)],
)
def test_killed_after_any_step_it_ends_with_the_same_bits_and_curves(
    kind, config, run, splits, undisturbed, tmp_path, kill_at
):
    folder = killed_at(run, config, kill_at, tmp_path / "left")
    assert run(config) == folder
    assert_same_run(folder, undisturbed)
    expected = scalars(undisturbed)
    assert {step for _, step in expected} == set(range(1, EPOCHS * ITERATIONS + 1))
    assert all(len(values) == 1 for values in expected.values())
    assert scalars(folder) == expected


@only_vibe
@pytest.mark.parametrize(
    "n_th", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 4, 5, 6, 7, 8))]
)
def test_killed_while_it_writes_a_file_it_ends_with_the_same_bits(
    config, splits, undisturbed, monkeypatch, n_th
):
    count, exchange = 0, Path.replace

    def kill(self, target):
        nonlocal count
        count += 1
        if count == n_th:
            raise Killed
        return exchange(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        with pytest.raises(Killed):
            training.run(config)
    assert not list(config.runs.glob("*/metrics.json"))
    assert_same_run(training.run(config), undisturbed)


@only_vibe
def test_a_better_epoch_may_score_worse_when_it_is_trained_again(
    kind, config, run, splits, monkeypatch
):
    scores, exchange, config = (
        iter([50.0, 50.0, 40.0, 60.0]),
        Path.replace,
        replace(config, epochs=2, iterations=1),
    )
    monkeypatch.setattr(
        KINDS[kind].loop, "validate", lambda _: ({"a/val": {"pa_mpjpe": 50.0}}, next(scores))
    )
    monkeypatch.setattr(KINDS[kind].loop, "results", lambda _: {})

    def kill(self, target):
        if Path(target).name == "last.pt" and (self.parent / "best.pt").exists():
            raise Killed
        return exchange(self, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", kill)
        run(config)
    assert read_file(run(config) / "best.pt")["epoch"] == 0


@only_vibe
def test_a_finished_run_stays_and_the_callers_state_changes_no_number(
    config, splits, undisturbed, monkeypatch
):
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    folder = training.run(config)
    assert (folder / "metrics.json").read_bytes() == (undisturbed / "metrics.json").read_bytes()
    assert_close(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    before = everything(folder)
    monkeypatch.setattr(training.VideoRun, "carry_out", lambda _: pytest.fail("it is finished"))
    assert training.run(config) == folder == runs.run_folder(config, splits)
    assert everything(folder) == before


@quickly_prior
def test_two_processes_do_not_train_in_one_folder(config, run, splits):
    # as another process would hold it
    lock = WriterLock(runs.run_folder(config, splits) / ".writing" / "lock")
    with pytest.raises(CacheError, match=f"process {os.getpid()}"):
        run(config)
    lock.release()


def _cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _change(**changes):
    return lambda file: torch.save(read_file(file) | changes, file)


@pytest.mark.parametrize(
    ("kind", "name", "damage", "reason"),
    [
        ("vibe", "last.pt", _change(device="cuda"), "expected device cpu, found 'cuda'"),
        ("vibe", "last.pt", _change(numpy="1.0"), r"expected numpy \d+\.\d+, found '1\.0'"),
        ("prior", "last.pt", _cut, r"last\.pt: .*damaged\. Remove it"),
        (
            "prior",
            "last.pt",
            _change(fingerprint="other"),
            r"last\.pt: expected fingerprint .*other",
        ),
        ("prior", "last.pt", _change(training={"of": 1}), "expected the state of a run"),
        ("prior", "best.pt", _change(epoch=77), r"best\.pt: expected epoch \d .*found epoch 77"),
        ("prior", "best.pt", Path.unlink, r"best\.pt: .*missing.* Remove"),
    ],
)
def test_a_damaged_or_foreign_state_is_refused(
    kind, config, run, splits, undisturbed, name, damage, reason
):
    folder = shutil.copytree(undisturbed, runs.run_folder(config, splits))
    (folder / "metrics.json").unlink()
    damage(folder / name)
    (folder / "config.json").write_text("{}")
    assert not runs.is_finished(folder)
    with pytest.raises(CheckpointError, match=reason):
        run(config)
    assert name == "best.pt" or (folder / "config.json").read_text() == "{}", (
        "of a run that was not resumed"
    )


# --------------------------------------------------------------------------------------------------
# non-finite losses


def spoil(kind, splits, rows):
    """Labels that make some losses nan: not in every batch, since only some windows have these
    rows.
    """
    split, column = ("b/train", "kp_2d") if kind == "vibe" else ("m/train", "theta")
    splits[split].rows[column][rows] = np.nan


@quickly_vibe
def test_a_step_without_a_finite_loss_is_skipped_and_counted(kind, config, run, splits):
    spoil(kind, splits, slice(0, 1))
    skipped = []
    folder = run(config, progress=Observer(lambda _, loss: skipped.append(loss is None)))
    assert read_file(folder / "metrics.json")["skipped_steps"] == sum(skipped)
    assert 0 < sum(skipped) < EPOCHS * ITERATIONS
    assert finite(last_state(folder))


@quickly_vibe
def test_losses_that_stay_non_finite_stop_training_with_the_last_good_state(
    kind, config, run, splits
):
    def from_then_on(progress, _):
        if (progress.epoch, progress.iteration) == (1, 2):
            spoil(kind, splits, slice(None))

    with pytest.raises(TrainingDiverged, match="3 steps in a row"):
        run(
            replace(config, epochs=3, max_non_finite=3, checkpoint_every=1000),
            progress=Observer(from_then_on),
        )
    state = last_state(next(config.runs.iterdir()))
    # Two good steps of the second epoch, then one batch read ahead that was still good or not.
    assert state["training"]["step"] - state["training"]["skipped"] in (6, 7)
    assert finite(state)


# --------------------------------------------------------------------------------------------------
# what is refused


def test_demo_data_are_not_mixed_with_real_data(kind, config, run, splits, tmp_path, monkeypatch):
    real = list(splits)[1]
    splits[real].manifest["stand_in"] = False
    with pytest.raises(StandInMixed, match=rf"m/train.* real data \(split {real}\)"):
        run(config)
    assert not config.runs.exists()
    if kind == "vibe":  # nor does a checkpoint of demo data start training on real data
        for split in splits.values():
            split.manifest["stand_in"] = False
        monkeypatch.setattr(training, "load_body", lambda folder: TinyBody(stand_in=False))
        torch.save(
            {"gen_state_dict": small_vibe().state_dict(), "stand_in": True}, tmp_path / "own.pt"
        )
        with pytest.raises(StandInMixed, match=r"own\.pt.* real data \(the body\)"):
            training.run(replace(config, pretrained=tmp_path / "own.pt"))


@only_vibe
def test_features_of_different_networks_are_not_mixed(config, splits):
    def made_by(split, identity):
        manifest = {**splits[split].open_stream("x").manifest, "identity": identity}
        form = splits[split].open_stream("x").form
        opened = SimpleNamespace(manifest=manifest, form=form, crop=splits[split].crop)
        splits[split].open_stream = lambda stream: opened

    spin, other = (
        {"weights": {"kind": "spin", "file_sha256": d}, "precision": "fast"} for d in ("aa", "bb")
    )
    made_by("b/train", spin)
    made_by("b/test", spin)
    check_streams(config, splits)  # the others do not record what made them
    made_by("b/validation", other)
    with pytest.raises(
        DataError, match=r"b/train/\w+ and b/validation/\w+: weights .*aa.* and .*bb"
    ) as refused:
        training.run(config)
    assert "precision" not in str(refused.value)


@only_vibe
def test_what_cannot_be_trained_on_is_refused_by_name(config, splits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for changes, error, reason in (
        ({"feature_size": 7}, DataError, "features of 7 numbers"),
        ({"device": "gpu"}, ConfigError, "device"),
        ({"device": "cuda"}, ConfigError, "device"),
        ({"seqlen": 40}, CacheError, "40 frames"),
    ):
        with pytest.raises(error, match=reason):
            training.run(replace(config, **changes))
    for column, labels in (("w_3d", "3D"), ("kp_2d", "2D")):
        name = "b/validation" if labels == "3D" else "a/train"
        splits[name].rows[column][:] = 0
        with pytest.raises(
            DataError, match=f"validation: {name}: expected frames with {labels} labels to choose"
        ):
            training.run(replace(config, validation=(name,)))
        assert not list(config.runs.glob("*/last.pt")), "before the first epoch"


@pytest.mark.parametrize("kind", ["vibe", "part_dynamics"])
def test_labels_in_2d_alone_train_and_choose_the_best_epoch(kind, tmp_path, monkeypatch):
    in_memory(monkeypatch, kind)
    in_2d = {"datasets_3d": (), "validation": ("a/test",), "evaluation": ("a/test",)}
    config = replace(KINDS[kind].config(tmp_path), **in_2d)
    folder = training.run(config)
    history, best = (
        last_state(folder)["training"]["history"],
        read_file(folder / "metrics.json")["best"],
    )
    scores = [epoch["validation"]["a/test"]["error_2d"] for epoch in history]
    assert best == {"epoch": scores.index(min(scores)), "error_2d": min(scores)}
    assert len(set(scores)) == EPOCHS
    assert all("pa_mpjpe" not in epoch["validation"]["a/test"] for epoch in history)


@only_vibe
def test_tracks_of_a_training_split_choose_the_best_epoch_and_those_without_3d_labels_are_measured(
    config, splits
):
    held_out = replace(config, validation=("b/train:v1/*", "a/train:v0/*"))
    folder = training.run(held_out)
    history = last_state(folder)["training"]["history"]
    for epoch in history:
        labelled, others = (epoch["validation"][name] for name in held_out.validation)
        assert (labelled["frames_total"], others["frames_total"]) == (5, 9)
        assert "pck_2d" in others and "pa_mpjpe" not in others
        assert epoch["score"] == labelled["pa_mpjpe"]
    with pytest.raises(DataError, match=r"validation, evaluation: b/train:S5\*: no track matches"):
        training.run(replace(config, validation=("b/train:S5*", "b/train:v1/*")))
    with pytest.raises(DataError, match=r"b/train:S5\*: no track matches"):
        training.run(replace(config, evaluation=("b/train:S5*", "a/test")))
    with pytest.raises(ConfigError, match="evaluation: expected each split once"):
        replace(config, evaluation=("b/train:v1/*", "b/train"))
