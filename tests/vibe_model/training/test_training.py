import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.smpl import assets
from tests.vibe_model.tiny_runs import (
    EPOCHS,
    ITERATIONS,
    Killed,
    assert_same_state,
    killed_at,
    scalars,
    tensors,
    vibe_config,
    vibe_splits,
)
from vibe_model import VIBE, TrainConfig, load_published, runs
from vibe_model.errors import CheckpointError, ConfigError, DataError, StandInMixed, TrainingDiverged
from vibe_model.training import vibe as training
from vibe_model.training.vibe import VIBERun, VIBETrainer


@pytest.fixture
def config(tmp_path):
    return vibe_config(tmp_path)


@pytest.fixture
def splits(memory_split):
    return vibe_splits(memory_split)


@pytest.fixture
def world(monkeypatch, splits, body):
    monkeypatch.setattr(runs, "open_splits", lambda config: splits)
    monkeypatch.setattr(training, "load_body", lambda folder: body)
    return splits


def assert_same_run(folder, expected):
    assert (folder / "metrics.json").read_bytes() == (expected / "metrics.json").read_bytes()
    for name in ("last.pt", "best.pt"):
        assert_same_state(folder / name, expected / name, but=("/config/runs", "/config/cache"))


@pytest.fixture
def finished(config, world):
    return training.run(config)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, memory_split, tiny_body):
    """The folder of a run that nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "open_splits", lambda config: vibe_splits(memory_split))
        patch.setattr(training, "load_body", lambda folder: tiny_body())
        return training.run(vibe_config(tmp_path_factory.mktemp("undisturbed")))


def test_a_run_leaves_what_it_promises(config, finished):
    assert finished.parent == config.runs
    assert finished.name == f"tiny-{runs.fingerprint(config, runs.open_splits(config))}"
    names = {file.name for file in finished.iterdir()}
    assert {"config.json", "last.pt", "best.pt", "metrics.json"} < names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not [name for name in names if name.endswith(".part")]
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["stand_in"] is True
    assert set(metrics["b/test"]) >= {
        "mpjpe",
        "pa_mpjpe",
        "pve",
        "accel",
        "accel_error",
        "pck",
        "auc",
        "baseline",
        "published",
    }
    assert metrics["a/test"]["frames"] == 0  # no labels: told, and no reason to lose the run
    about = json.loads((finished / "config.json").read_text())
    assert TrainConfig.from_dict(about["config"]) == config
    assert about["windows"]["datasets_2d"] == {"a/train": 3 + 2}


def test_training_moves_both_networks_and_lowers_the_loss(config, world, body):
    theta = world["b/train"].rows["theta"]
    theta[:] = theta[0]  # one pose everywhere: what can be learned in a second
    only_pose = {"kp_2d_weight": 0.0, "kp_3d_weight": 0.0, "adversarial_weight": 0.0}
    folder = training.run(replace(config, epochs=3, iterations=25, plateau_patience=9, **only_pose))
    history = torch.load(folder / "last.pt", weights_only=True)["course"]["history"]
    pose = [entry["losses"]["pose"] for entry in history]
    assert pose[-1] < 0.8 * pose[0]
    state = torch.load(folder / "last.pt", weights_only=True)
    fresh = VIBETrainer(config, body).state_dict()
    for network in ("gen_state_dict", "disc_motion_state_dict"):
        changed = [name for name, value in state[network].items() if not torch.equal(value, fresh[network][name])]
        assert set(changed) == set(state[network]) - {f"regressor.init_{name}" for name in ("pose", "shape", "cam")}


def test_the_best_epoch_is_kept_and_evaluated(config, finished, body):
    last = torch.load(finished / "last.pt", weights_only=True)
    best = torch.load(finished / "best.pt", weights_only=True)
    scores = [entry["score"] for entry in last["course"]["history"]]
    assert len(scores) == EPOCHS
    assert (best["epoch"], best["performance"]) == (int(np.argmin(scores)), min(scores))
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["best"] == {"epoch": best["epoch"], "pa_mpjpe": best["performance"]}
    model = VIBE(body, hidden_size=5, feature_size=6, regressor_size=7)
    assert load_published(model, finished / "best.pt").kind == "vibe"


def test_both_learning_rates_fall_when_validation_stalls(config, world, monkeypatch):
    monkeypatch.setattr(VIBERun, "validate", lambda _: ({"b/validation": {"pa_mpjpe": 50.0, "frames": 1}}, 50.0))
    folder = training.run(replace(config, epochs=3))
    history = torch.load(folder / "last.pt", weights_only=True)["course"]["history"]
    rates = [[entry["learning_rates"][f"{name}_optimizer"] for name in ("gen", "disc_motion")] for entry in history]
    np.testing.assert_allclose(rates, [[1e-2, 1e-2], [1e-3, 1e-3], [1e-4, 1e-4]])
    assert torch.load(folder / "best.pt", weights_only=True)["epoch"] == 0  # no better is not better


def test_checkpoints_hold_no_body_data(finished):
    for name in ("last.pt", "best.pt"):
        state = tensors(torch.load(finished / name, weights_only=True))
        sizes = [value.shape for value in state.values() if isinstance(value, torch.Tensor)]
        assert not [shape for shape in sizes if 30 in shape]  # the tiny body's vertices
        assert not [key for key in state if "body/" in key or "smpl" in key]


@pytest.mark.parametrize("kill_at", range(1, EPOCHS * (ITERATIONS + 1) + 1))
def test_killed_after_any_step_it_ends_with_the_same_bits(config, world, undisturbed, kill_at):
    told = 0

    def kill(_):
        nonlocal told
        told += 1
        if told == kill_at:
            raise Killed

    with pytest.raises(Killed):
        training.run(config, progress=kill)
    folder = training.run(config)
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize("kill_at", [1, 3, 4, 5, 6, 8, 10])
def test_killed_it_loses_no_scalar_and_tells_none_twice(config, world, undisturbed, tmp_path, kill_at):
    folder = killed_at(training.run, config, kill_at, tmp_path / "left")
    assert training.run(config) == folder
    expected = scalars(undisturbed)
    assert {step for _, step in expected} == set(range(1, EPOCHS * ITERATIONS + 1))
    assert all(len(values) == 1 for values in expected.values())
    assert scalars(folder) == expected


@pytest.mark.parametrize("n_th", range(1, 9))
def test_killed_while_it_writes_a_file_it_ends_with_the_same_bits(config, world, undisturbed, monkeypatch, n_th):
    count, exchange = 0, Path.replace

    def kill(self, target):
        nonlocal count
        count += 1
        if count == n_th:
            raise Killed
        return exchange(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        try:
            training.run(config)
        except Killed:
            assert not list(config.runs.glob("*/metrics.json"))
    folder = training.run(config)
    assert_same_run(folder, undisturbed)


def test_a_finished_run_is_not_touched_again(config, world, finished, monkeypatch):
    before = {file: file.stat().st_mtime_ns for file in finished.iterdir()}
    monkeypatch.setattr(training, "load_body", lambda folder: pytest.fail("there is nothing to do"))
    assert runs.is_complete(config, world)
    assert training.run(config) == finished
    assert {file: file.stat().st_mtime_ns for file in finished.iterdir()} == before


def test_pictures_are_drawn_each_epoch_and_change_nothing(config, world, undisturbed):
    epochs = []

    def draw(generator, epoch):
        epochs.append(epoch)
        torch.rand(100)  # whatever it draws from the random state
        return {"bodies": np.zeros((4, 5, 3), np.uint8)}

    folder = training.run(config, pictures=draw)
    assert epochs == list(range(EPOCHS))
    assert (folder / "metrics.json").read_bytes() == (undisturbed / "metrics.json").read_bytes()


def test_progress_tells_every_step_and_every_epoch(config, world):
    news = []
    training.run(config, progress=news.append)
    steps = [(n.epoch, n.iteration) for n in news if not n.validation]
    assert steps == [(e, i) for e in range(EPOCHS) for i in range(1, ITERATIONS + 1)]
    assert [n.validation["b/validation"]["frames"] for n in news if n.validation] == [10] * EPOCHS
    assert set(news[0].terms) == {
        "kp_2d", "kp_3d", "pose", "shape", "adversarial", "discriminator_real", "discriminator_fake",
    }  # fmt: skip


def bad_rows(splits, *values):
    """Labels that make some losses infinite: not in every batch, since only some windows have them."""
    for row, value in enumerate(values):
        splits["b/train"].rows["kp_2d"][row] = value


def test_a_step_without_a_finite_loss_is_skipped_and_counted(config, world):
    bad_rows(world, np.nan)
    skipped = []
    folder = training.run(config, progress=lambda n: skipped.append(n.terms is None and not n.validation))
    n_skipped = json.loads((folder / "metrics.json").read_text())["skipped_steps"]
    assert n_skipped == sum(skipped)
    assert 0 < n_skipped < EPOCHS * ITERATIONS
    state = tensors(torch.load(folder / "last.pt", weights_only=True))
    assert all(torch.isfinite(value).all() for value in state.values() if isinstance(value, torch.Tensor))


def test_a_skipped_step_updates_nothing(config, world, body):
    trainer = VIBETrainer(config, body)
    batch = training.Batches(config, world).at(0)
    trainer.train_step(batch)
    before = {k: v.clone() for k, v in tensors(trainer.state_dict()).items() if isinstance(v, torch.Tensor)}
    batch.labels["kp_2d"][0] = np.inf
    assert not trainer.train_step(batch).good
    after = tensors(trainer.state_dict())
    assert all(torch.equal(after[key], value) for key, value in before.items() if key != "/rng")
    assert (trainer.state.step, trainer.state.skipped) == (2, 1)


def test_losses_that_stay_non_finite_stop_training_with_the_last_good_state(config, world):
    good = replace(config, epochs=3, max_non_finite=3, checkpoint_every=1000)

    def spoil(news):
        if (news.epoch, news.iteration) == (1, 2):
            bad_rows(world, *[np.nan] * 13)

    with pytest.raises(TrainingDiverged, match="3 steps in a row"):
        training.run(good, progress=spoil)
    (last,) = config.runs.glob("*/last.pt")
    state = torch.load(last, weights_only=True)
    # Two good steps of the second epoch, then one batch read ahead that was still good or not.
    assert state["course"]["step"] - state["course"]["skipped"] in (6, 7)
    assert all(torch.isfinite(v).all() for v in tensors(state).values() if isinstance(v, torch.Tensor))


def test_features_of_different_networks_are_not_mixed(config, world, monkeypatch):
    def made_by(split, identity):
        manifest = {**world[split].stream_manifest("x"), "identity": identity}
        monkeypatch.setattr(world[split], "stream_manifest", lambda stream: manifest)

    spin, other = ({"weights": {"kind": "spin", "file_sha256": d}, "precision": "fast"} for d in ("aa", "bb"))
    made_by("b/train", spin)
    made_by("b/test", spin)
    training.run(config)  # the others do not say what made them
    made_by("b/validation", other)
    with pytest.raises(DataError, match=r"different ones in b/train and b/validation: weights .*aa.* and .*bb") as told:
        training.run(config)
    assert "precision" not in str(told.value)


def test_without_real_motion_there_is_no_discriminator(config, world):
    folder = training.run(replace(config, prior="none"))
    state = torch.load(folder / "last.pt", weights_only=True)
    assert "disc_motion_state_dict" not in state
    assert state["course"]["history"][0]["losses"]["adversarial"] == 0


def test_training_starts_from_a_checkpoint(config, world, body, tmp_path):
    torch.manual_seed(9)
    model = VIBE(body, hidden_size=5, feature_size=6, regressor_size=7)
    torch.save({"gen_state_dict": model.state_dict()}, tmp_path / "start.pt")
    started = replace(config, pretrained=tmp_path / "start.pt", lr_generator=1e-12)
    folder = training.run(started)
    best = torch.load(folder / "best.pt", weights_only=True)["gen_state_dict"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(best[name], value, atol=1e-6, rtol=0)
    assert json.loads((folder / "config.json").read_text())["pretrained"]["used"] == len(best)


def test_a_best_epoch_of_another_run_is_not_evaluated_as_this_one_s(config, world, finished):
    (finished / "metrics.json").unlink()
    best = torch.load(finished / "best.pt", weights_only=True)
    torch.save(best | {"epoch": 77}, finished / "best.pt")
    with pytest.raises(CheckpointError, match=r"best\.pt: expected epoch \d of this run, found epoch 77"):
        training.run(config)


def test_without_its_best_epoch_a_run_is_not_finished_and_says_what_to_do(config, world, finished):
    (finished / "best.pt").unlink()
    assert not runs.is_finished(finished)
    with pytest.raises(CheckpointError, match=r"best\.pt: .*missing.* Remove"):
        training.run(config)


def test_a_damaged_state_says_that_it_may_be_removed(config, world, finished):
    (finished / "metrics.json").unlink()
    (finished / "last.pt").write_bytes((finished / "last.pt").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"last\.pt: .*damaged\. Remove it"):
        training.run(config)
    (finished / "last.pt").unlink()
    assert training.run(config) == finished


def test_a_checkpoint_of_stand_ins_starts_no_training_on_real_data(config, world, body, tmp_path, monkeypatch):
    torch.save(
        {"gen_state_dict": VIBETrainer(config, body).generator.state_dict(), "stand_in": True}, tmp_path / "own.pt"
    )
    for split in world.values():
        split.manifest["stand_in"] = False
    monkeypatch.setattr(type(body), "stand_in", False, raising=False)
    body.stand_in = False
    with pytest.raises(StandInMixed, match=r"own\.pt.* real data \(the body\)"):
        training.run(replace(config, pretrained=tmp_path / "own.pt"))


def test_a_damaged_or_foreign_state_is_refused_and_kept(config, world, finished):
    (finished / "metrics.json").unlink()
    whole = (finished / "last.pt").read_bytes()
    (finished / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        training.run(config)
    state = torch.load(finished / "best.pt", weights_only=True)
    torch.save({**state, "fingerprint": "other"}, finished / "last.pt")
    with pytest.raises(CheckpointError, match="other"):
        training.run(config)


def test_the_fingerprint_covers_what_changes_numbers_and_nothing_else(config, world, tmp_path):
    name = runs.fingerprint(config, world)
    same = {"name": "x", "runs": tmp_path, "cache": tmp_path, "checkpoint_every": 7, "hold": "ram", "read_workers": 1}
    same["processes"] = 2
    for setting, value in same.items():
        assert runs.fingerprint(replace(config, **{setting: value}), world) == name
    other = {
        "seed": 1,
        "lr_generator": 1.0,
        "stream": "other",
        "stride": 3,
        "epochs": 9,
        "evaluation": (),
        "threads": 2,
        "tail": "cover",
        "window_weights": {"m/train": 2.0},
    }
    assert (
        len({runs.fingerprint(replace(config, **{s: v}), world) for s, v in other.items()} | {name}) == len(other) + 1
    )
    world["m/train"].manifest["digest"] = "another commit"
    assert runs.fingerprint(config, world) != name


def test_the_body_that_a_run_is_named_after_is_the_one_that_is_read(tmp_path):
    named = [names[0] for names in runs.BODY_FILES]
    for file in named:
        (tmp_path / file).touch()
    assert assets.missing(tmp_path) == []
    for file in named:
        (tmp_path / file).unlink()
        assert len(assets.missing(tmp_path)) == 1
        (tmp_path / file).touch()


def test_the_fingerprint_covers_the_content_of_body_and_checkpoint(config, world, tmp_path):
    names = set()
    for content in (b"one", b"other"):
        for setting in ("body", "pretrained"):
            where = tmp_path / content.decode() / setting
            where.parent.mkdir(exist_ok=True)
            if setting == "body":
                where.mkdir()
            (where / "SMPL_NEUTRAL.npz" if setting == "body" else where).write_bytes(content)
            names.add(runs.fingerprint(replace(config, **{setting: where}), world))
    assert len(names) == 4
    body = tmp_path / "one/body"  # what is beside the files that the body is read from changes no number
    for beside in ("README.txt", "SMPL_MALE.pkl", "J_regressor_other.npy"):
        (body / beside).write_bytes(b"not read")
    assert runs.fingerprint(replace(config, body=body), world) in names
    for read in ("J_regressor_extra.npy", "J_regressor_h36m.npy", "smpl_mean_params.npz", "SMPL_NEUTRAL.pkl"):
        (body / read).write_bytes(b"read")
        names.add(runs.fingerprint(replace(config, body=body), world))
    assert len(names) == 8
    (body / "SMPL_NEUTRAL.npz").write_bytes(b"not read: the .pkl is")
    assert runs.fingerprint(replace(config, body=body), world) in names
    copy = tmp_path / "copy"
    copy.write_bytes(b"one")
    assert runs.fingerprint(replace(config, pretrained=copy), world) in names


def test_stand_ins_are_not_mixed_with_real_data(config, world):
    world["m/train"].manifest["stand_in"] = False
    with pytest.raises(StandInMixed, match="m/train"):
        training.run(config)
    assert not config.runs.exists()


def test_features_of_another_size_are_refused_before_training(config, world):
    with pytest.raises(DataError, match="feature_size"):
        training.run(replace(config, feature_size=7))


def test_a_validation_split_without_labels_is_refused(config, world):
    world["b/validation"].rows["w_3d"][:] = 0
    with pytest.raises(DataError, match="b/validation"):
        training.run(config)


@pytest.mark.parametrize("device", ["gpu", "cuda"])
def test_a_device_that_is_not_there_is_refused(config, world, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device"):
        training.run(replace(config, device=device))


def test_nothing_is_complete_without_a_cache(config):
    assert not runs.is_complete(config)
    assert set(runs.missing(config)) == set(config.splits)


def test_a_new_run_knows_what_differs_from_the_newest_of_its_name(config, world, finished):
    assert runs.beside(config) == ""  # it is there itself
    assert runs.beside(replace(config, name="first")) == ""
    other = replace(config, epochs=9, bidirectional=not config.bidirectional, runs=config.runs, processes=3)
    was = str(config.bidirectional).lower()
    said = f"bidirectional was {was}, is {str(not config.bidirectional).lower()}; epochs was {config.epochs}, is 9"
    assert runs.beside(other) == f"{finished.name}: {said}"
    world["m/train"].manifest["digest"] = "another commit"
    assert runs.beside(config) == f"{finished.name}: other splits: m/train"
