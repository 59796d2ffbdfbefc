"""Part dynamics in training: a whole run, killed and resumed; its terms beside plain NumPy; its
variants.
"""

import copy
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from pipeline.errors import ConfigError, DataError, RawDataError, StandInMixed
from tests.results import read_file
from tests.vibe_model.builders import TinyBody, small_vibe
from tests.vibe_model.training.tiny_runs import first_batch, ready, tensors
from vibe_model import losses, models, runs
from vibe_model.cameras import optimal_camera
from vibe_model.part_dynamics.losses import neighbours, uncertainty
from vibe_model.part_dynamics.pr_vipe.network import PrVIPE
from vibe_model.part_dynamics.training import PartDynamicsTrainer, _keypoints_13, _motion_deviations
from vibe_model.training.data import TrainingBatch

TERMS = {"kp_2d", "kp_3d", "pose", "shape", "neighbours", "uncertainty"}


@pytest.fixture
def kind():
    return "part_dynamics"


def test_the_unit_of_homographies_is_that_of_training_rows_that_have_one(config, splits):
    rows = [splits[name].rows for name in config.training_splits]
    known = np.concatenate([of["homography"][of["homography_ok"] > 0] for of in rows])
    found = _motion_deviations(replace(config, sigma_rows=2_000), splits)
    assert_allclose(found, known.std(axis=0), rtol=0.1)
    few = _motion_deviations(config, splits)
    assert torch.equal(first_batch(config, splits)[0].generator.sigma, few)
    assert not torch.equal(_motion_deviations(replace(config, seed=1), splits), few)
    for split in splits.values():
        split.rows["homography_ok"][:] = 0
    with pytest.raises(DataError, match="homography: expected rows with a homography"):
        _motion_deviations(config, splits)


def test_a_step_that_is_not_finite_changes_neither_parameters_nor_batch_norms_nor_adams_moments(
    config, splits
):
    trainer, batch = first_batch(config, splits)
    assert trainer.train_step(batch).good
    before = copy.deepcopy(tensors(trainer.state_dict()))
    broken = {**batch.labels, "features": batch.labels["features"] * torch.nan}
    assert not trainer.train_step(TrainingBatch(broken, None)).good
    after = tensors(trainer.state_dict())
    compared = [name for name, value in before.items() if isinstance(value, torch.Tensor)]
    assert all(torch.equal(after[name], before[name]) for name in compared)
    assert (trainer.state.step, trainer.state.skipped) == (2, 1)
    assert trainer.train_step(batch).good
    mean = "/gen_state_dict/decoder.layers.0.norm1.running_mean"
    assert not torch.equal(tensors(trainer.state_dict())[mean], before[mean])


@pytest.mark.parametrize(
    "variant", ["per-frame", "no-u+no-d", "no-dt+no-unc", "one-region", "recombine-add"]
)
def test_every_variant_trains_and_reads_what_it_needs(config, splits, variant):
    config = models.find("part_dynamics").vary(config, variant)
    trainer, batch = first_batch(config, splits)
    reads = {"per-frame": set(), "no-u+no-d": set()}.get(variant, {"pr_vipe", "homography"})
    assert config.extra_streams.keys() == reads == batch.labels.keys() & {"pr_vipe", "homography"}
    step = trainer.train_step(batch)
    assert step.good
    without = {
        "per-frame": {"neighbours", "uncertainty"},
        "no-dt+no-unc": {"neighbours", "uncertainty"},
    }
    assert step.terms.keys() == TERMS - without.get(variant, set())
    unused = {name for name, value in trainer.generator.named_parameters() if value.grad is None}
    assert not unused


def test_it_starts_from_the_regressor_of_vibe_and_from_all_of_its_own(
    config, splits, undisturbed, tmp_path
):
    vibe = small_vibe(seed=5)
    torch.save({"gen_state_dict": vibe.state_dict()}, tmp_path / "vibe.pt")
    run = ready(replace(config, pretrained=tmp_path / "vibe.pt"), splits)
    trainer = run.trainer
    assert run.inputs()["pretrained"] == {"kind": "vibe", "used": 13, "ignored": 10}
    assert torch.equal(trainer.generator.regressor.fc1.weight, vibe.regressor.fc1.weight)
    assert not torch.equal(trainer.generator.encoder.linear.weight, vibe.encoder.linear.weight)
    trainer, _ = first_batch(replace(config, pretrained=undisturbed / "best.pt"), splits)
    best = read_file(undisturbed / "best.pt")["gen_state_dict"]
    assert all(
        torch.equal(value, best[name]) for name, value in trainer.generator.state_dict().items()
    )


@pytest.mark.usefixtures("without_dropout")
def test_the_uncertainty_loss_is_of_the_labels_and_not_of_what_is_stored(config, splits):
    trainer, batch = first_batch(config, splits)
    labels = batch.labels
    assert labels["pr_vipe"].any()
    with torch.no_grad():
        given = {name: labels[name].float() for name in ("features", *config.extra_streams)}
        current = trainer.generator.train().pose(trainer.generator.regress_around(**given)[0])
        normalised, known = PrVIPE.normalise(
            _keypoints_13(labels["kp_2d"][..., :2], labels["kp_2d"])
        )
        embedded = torch.cat(trainer.embedding(normalised.flatten(0, 1)), -1).view(*known.shape, -1)
        seen = _keypoints_13(current["kp_2d"], labels["kp_2d"])
        expected = config.uncertainty_weight * uncertainty(trainer.embedding, seen, embedded, known)
    assert trainer.train_step(batch).terms["uncertainty"] == pytest.approx(
        float(expected), rel=1e-5
    )


def test_an_embedding_of_other_data_or_another_one_is_refused(
    config, splits, tmp_path, monkeypatch
):
    content = read_file(config.embedding)
    torch.save({**content, "stand_in": False}, tmp_path / "real.pt")
    with pytest.raises(StandInMixed, match=r"real\.pt"):
        PartDynamicsTrainer(replace(config, embedding=tmp_path / "real.pt"), TinyBody())
    torch.save({"model": {}}, tmp_path / "spin.pt")
    with pytest.raises(RawDataError, match="TrainPrVIPE"):
        PartDynamicsTrainer(replace(config, embedding=tmp_path / "spin.pt"), TinyBody())
    with pytest.raises(ConfigError, match="embedding"):
        PartDynamicsTrainer(replace(config, embedding=None), TinyBody())
    assert replace(config, embedding=None).missing_checkpoints == ("embedding",)
    with pytest.raises(ConfigError, match="TrainPrVIPE"):
        replace(config, embedding=tmp_path / "none.pt").files()
    shutil.copy(config.embedding, tmp_path / "copy.pt")  # the same file elsewhere is the same run
    assert runs.fingerprint(config, splits) == runs.fingerprint(
        replace(config, embedding=tmp_path / "copy.pt"), splits
    )
    made_with = {
        "identity": {"kind": "pr_vipe", "weights": {"kind": "file", "file_sha256": "another"}}
    }
    opened = SimpleNamespace(manifest=made_with, identity=made_with["identity"])
    monkeypatch.setattr(type(splits["a/train"]), "open_stream", lambda *_: opened)
    with pytest.raises(DataError, match="pr_vipe was computed by another embedding"):
        PartDynamicsTrainer(config, TinyBody()).prepare(splits)


def test_the_neighbours_term_compares_with_the_frames_that_it_is_for(config, splits):
    """By plain NumPy, for one step: 2D by the optimal camera, 3D about the hips, rotations,
    shapes.
    """
    trainer, batch = first_batch(config, splits)
    labels = batch.on_device(torch.device("cpu")).labels
    with torch.no_grad():
        pred = trainer.generator(
            labels["features"], labels["pr_vipe"], labels["homography"], vertices=False
        )
    weights = {"kp_2d": 3.0, "kp_3d": 5.0, "pose": 7.0, "shape": 11.0}
    expected = 0.0
    for step, at, of in ((-2, slice(2, 4), slice(0, 2)), (2, slice(0, 2), slice(2, 4))):
        own = {name: value[:, at] for name, value in pred["deltas"][step].items()}
        goal = {name: labels[name][:, of] for name in ("kp_2d", "kp_3d", "theta", "w_3d", "w_smpl")}
        camera = optimal_camera(own["kp_2d"], goal["kp_2d"][..., :2], goal["kp_2d"][..., 2])
        own["kp_2d"] = camera[..., None, :1] * (own["kp_2d"] + camera[..., None, 1:])
        expected += sum(
            float(term) for term in losses.generator_losses(own, goal, weights).values()
        )
    found = neighbours(pred["deltas"], labels, weights)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    # no window has such a neighbour
    assert float(neighbours({5: pred["deltas"][2]}, labels, weights)) == 0
