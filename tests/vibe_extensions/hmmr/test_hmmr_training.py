"""HMMR's training: its gradients, its poses, what a run leaves, that it resumes exactly."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.vibe_model.builders import TinyBody, small_vibe
from tests.vibe_model.training.tiny_runs import KINDS, first_batch, scalars
from vibe_extensions.hmmr import HMMR, PoseDiscriminator
from vibe_extensions.hmmr import losses as hmmr_losses
from vibe_extensions.hmmr.config import PRESETS, VARIANTS
from vibe_extensions.hmmr.training import HMMRTrainer, judge, real_poses
from vibe_model import models, runs
from vibe_model.prediction.trained import load_trained
from vibe_model.training.data import TrainingBatch, TrainingBatches

TERMS = {*hmmr_losses.WEIGHTS, "discriminator"}


@pytest.fixture
def kind():
    return "hmmr"


# ------------------------------------------------------------------------------------------------ a run


def test_a_run_leaves_what_every_models_does_and_its_checkpoint_is_loaded_as_what_it_is(undisturbed, monkeypatch):
    metrics, about = (json.loads((undisturbed / name).read_text()) for name in ("metrics.json", "config.json"))
    assert set(metrics["b/test"]) >= {"mpjpe", "pa_mpjpe", "pve", "accel", "pck", "auc", "baseline", "published"}
    assert about["config"]["norm"] == "window"
    last, best = (torch.load(undisturbed / name, weights_only=True) for name in ("last.pt", "best.pt"))
    assert {"gen_state_dict", "disc_pose_state_dict", "gen_optimizer", "disc_pose_optimizer"} < set(last)
    assert best["of_model"] == "hmmr"
    assert last["training"]["history"][0]["losses"].keys() == TERMS
    tags = {tag for tag, _ in scalars(undisturbed)}
    assert {f"train/{name}" for name in TERMS} | {"gradient/generator", "gradient/discriminator"} < tags
    monkeypatch.setattr("vibe_model.prediction.trained.load_body", lambda folder: TinyBody())
    trained = load_trained(undisturbed / "best.pt", None, "cpu")
    assert isinstance(trained.generator, HMMR)
    assert trained.config.MODEL == "hmmr"
    assert all(torch.equal(value, best["gen_state_dict"][n]) for n, value in trained.generator.state_dict().items())


# ------------------------------------------------------------------------------------------------ one step


def test_a_step_has_the_terms_and_gradients_of_the_definition(config, splits):
    trainer, batch = first_batch(replace(config, dropout=0.0), splits)
    generator, discriminator = trainer.generator.eval(), trainer.discriminator
    found = trainer.gradients(batch)
    networks = (generator, discriminator)
    gradients = [{name: p.grad.clone() for name, p in network.named_parameters()} for network in networks]
    for network in networks:
        network.zero_grad()

    discriminator.requires_grad_(False)
    terms = hmmr_losses.terms(generator, batch.labels, discriminator, optimal_camera="trace")
    torch.stack(list(terms.values())).sum().backward()
    discriminator.requires_grad_(True)
    with torch.no_grad():
        fake = hmmr_losses.rotations(generator.sets(batch.labels["features"]))
    own = hmmr_losses.discriminator(discriminator(real_poses(batch)), discriminator(fake))
    own.backward()
    torch.testing.assert_close(found, {name: term.detach() for name, term in {**terms, "discriminator": own}.items()})
    for network, expected in zip(networks, gradients, strict=True):
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(expected[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)

    step = trainer.train_step(batch)  # its curves have these terms, and the norms apart from them
    assert step.terms == pytest.approx({name: float(term) for name, term in found.items()}, rel=1e-5)
    norms = [torch.stack([g.norm() for g in of.values()]).norm().item() for of in gradients]
    assert list(step.norms.values()) == pytest.approx(norms, rel=1e-4)


def test_the_discriminators_gradients_do_not_depend_on_the_generators_weight():
    torch.manual_seed(0)
    discriminator, real, fake = PoseDiscriminator(), torch.randn(4, 23, 3, 3), torch.randn(3, 23, 3, 3)
    found = []
    for weight in (1.0, 5.0):
        discriminator.zero_grad()
        _, pull = judge(discriminator, fake.clone(), real, {"adversarial": weight, "discriminator": 1.0})
        found.append([pull / weight, *(p.grad.clone() for p in discriminator.parameters())])
    torch.testing.assert_close(*found)


def test_real_poses_are_single_frames_as_many_as_bodies(config, splits):
    _, batch = first_batch(config, splits)
    n_windows, n_frames = batch.labels["kp_2d"].shape[:2]
    assert batch.real_theta.shape == (6 * n_windows * n_frames, 1, 85)
    drawn, every = (np.unique(a.reshape(-1, 85), axis=0) for a in (batch.real_theta, splits["m/train"].rows["theta"]))
    np.testing.assert_array_equal(drawn, every)  # all of them
    expected = TrainingBatches(config.poses(), splits).at(0).real_theta
    np.testing.assert_array_equal(batch.real_theta, expected)
    assert real_poses(TrainingBatch({}, batch.real_theta)).shape == (len(expected), 23, 3, 3)


@pytest.mark.parametrize("variant", [name for name, changes in VARIANTS.items() if "datasets_2d" not in changes])
def test_every_variant_trains(config, splits, variant):
    trainer, batch = first_batch(models.variant_of(config, variant), splits)
    step = trainer.train_step(batch)
    assert step.good
    assert (step.terms["hallucinate"] > 0) == (variant in ("no-const", "no-prior"))
    assert (step.terms["const"] > 0) == (variant != "no-const")
    assert ("adversarial" in step.terms) == (variant != "no-prior")


@pytest.mark.parametrize(
    ("variant", "clips"),
    [
        ("ours", {"penn_action"}),
        ("single-view+ours", {"penn_action"}),
        ("vlog", {"penn_action", "videos"}),
        ("single-view+insta-variety", {"penn_action", "insta_variety"}),
        ("videos", {"penn_action", "insta_variety", "videos"}),
    ],
)
def test_variants_by_data_are_the_rows_of_the_papers_tables(variant, clips):
    found = models.variant_of(PRESETS["hmmr-published"](), variant)
    assert {name.partition("/")[0] for name in found.datasets_2d} == clips
    assert found.datasets_3d == ("h36m/train",)
    assert found.temporal != variant.startswith("single-view")


def test_training_starts_from_the_regressor_of_vibes_and_spins_checkpoints(config, splits, tmp_path):
    vibe = small_vibe(n_layers=0)
    torch.save({"gen_state_dict": vibe.state_dict()}, tmp_path / "vibe.pt")
    torch.save({"model": {n.removeprefix("regressor."): v for n, v in vibe.state_dict().items()}}, tmp_path / "spin.pt")
    for name, kind in (("vibe.pt", "vibe"), ("spin.pt", "spin")):
        trainer = HMMRTrainer(replace(config, regressor="spin"), TinyBody())
        report = trainer.start_from(tmp_path / name)
        assert (report.kind, set(report.used)) == (kind, set(vibe.state_dict()))
        assert torch.equal(trainer.generator.regressor.fc1.weight, vibe.regressor.fc1.weight)


# ------------------------------------------------------------------------------------------------ settings


def test_the_published_numbers():
    config = PRESETS["hmmr-published"]()
    assert (config.seqlen, config.batch_size, config.windows_2d, config.deltas) == (20, 8, 4, (-5, 5))
    assert (config.lr_generator, config.lr_discriminator, config.seed) == (1e-5, 1e-4, 1)
    assert {config.weights[name] for name in ("kp", "joints", "smpl")} == {60}
    assert config.poses().batch_size == 960
    assert (config.norm, config.regressor, config.optimal_camera) == ("window", "hmr", "trace")
    assert (config.copies_2d, config.copies_3d) == (1, 5)
    assert models.variant_of(config, "videos").datasets_2d == (*config.datasets_2d, "videos/train")
    ours = PRESETS["hmmr"]()
    assert (ours.norm, ours.regressor, ours.optimal_camera, ours.batch_size) == ("frame", "spin", "least_squares", 32)


def test_the_fingerprint_is_the_models_own(config, splits):
    names = {
        runs.fingerprint(one, splits)
        for one in (config, replace(config, norm="frame"), replace(config, past=1), KINDS["vibe"].config(config.runs))
    }
    assert len(names) == 4
