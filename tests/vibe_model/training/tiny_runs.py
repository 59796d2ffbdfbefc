"""Trainings that take a second, of every model and of the motion prior, and what their folders
hold.
"""

import json
import shutil
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.results import read_file
from tests.vibe_model.builders import SMALL, MemorySplit, TinyBody
from vibe_model import TrainConfig, models, runs
from vibe_model.hmmr import training as hmmr_training
from vibe_model.hmmr.config import HMMRConfig
from vibe_model.part_dynamics.config import PartDynamicsConfig
from vibe_model.part_dynamics.pr_vipe.network import PrVIPE
from vibe_model.settings import VideoConfig
from vibe_model.training import video
from vibe_model.vibe import mposer_training
from vibe_model.vibe.config import MPoserConfig

EPOCHS, ITERATIONS = 2, 4
SHORT = {
    "seqlen": 4,
    "batch_size": 4,
    "iterations": ITERATIONS,
    "epochs": EPOCHS,
    "checkpoint_every": 3,
}
ALIKE = SHORT | {"device": "cpu", "threads": 1, "motion": ("m/train",)}


def vibe_config(root):
    """All of VIBE's training that takes a second."""
    return TrainConfig(
        name="tiny",
        runs=root / "runs",
        cache=root / "cache",
        datasets_2d=("a/train",),
        datasets_3d=("b/train",),
        validation=("b/validation",),
        evaluation=("b/test", "a/test"),
        stride=2,
        strides={},
        tracks={},
        lr_generator=1e-2,
        lr_discriminator=1e-2,
        plateau_patience=0,
        disc_size=4,
        hold="none",  # progress begins with the first step
        **SMALL,
        **ALIKE,
    )


def vibe_splits():
    splits = {
        "a/train": MemorySplit(1, [9, 6], with_3d=False),
        "b/train": MemorySplit(2, [8, 5]),
        "m/train": MemorySplit(3, [12]),
        "b/validation": MemorySplit(4, [7, 3], joints=14),
        "b/test": MemorySplit(5, [6], joints=14),
        "a/test": MemorySplit(6, [5], joints=14, with_3d=False),
    }
    imported = {"format": "bodies", "estimates": {"a.mp4": {"tool": "WHAM"}}}
    for name in ("a/train", "b/train"):
        splits[name].manifest["reader"] = {"imported": imported}
    return splits


def like_vibe(model, root, **options):
    """The same of another model's, by its configuration."""
    vibe = vibe_config(root)
    shared = {
        field.name: getattr(vibe, field.name)
        for field in fields(VideoConfig)
        if field.name != "name"
    }
    return model(**shared | options)


def hmmr_config(root):
    """Two frames of each window have a past, two a future."""
    return like_vibe(HMMRConfig, root, width=32, regressor_size=7, past=2, future=2)


def part_dynamics_config(root):
    """By an embedding of random numbers."""
    embedding = root / "embedding.pt"
    if not embedding.exists():
        root.mkdir(exist_ok=True)
        torch.manual_seed(3)
        torch.save({"pr_vipe_state_dict": PrVIPE(32, 8).state_dict(), "stand_in": True}, embedding)
    options = {"embedding": embedding, "width": 4, "delta": 2, "sigma_rows": 100}
    return like_vibe(PartDynamicsConfig, root, **SMALL | options)


def part_dynamics_splits():
    splits = vibe_splits()
    return {name: split.add_streams(pr_vipe=64, homography=9) for name, split in splits.items()}


def prior_config(root):
    """The same of the motion prior's."""
    sizes = {"hidden_size": 5, "latent_size": 3, "lr": 1e-2, "stride": 1}
    places = {"runs": root / "runs", "cache": root / "cache"}
    return MPoserConfig(validation=("v/val", "u/val"), **sizes, **places, **ALIKE)


def prior_splits():
    return {
        "m/train": MemorySplit(1, [12, 7]),
        "v/val": MemorySplit(2, [9, 3], joints=14),
        "u/val": MemorySplit(3, [8], with_3d=False),  # no SMPL labels
    }


KINDS = {
    "vibe": SimpleNamespace(
        config=vibe_config, splits=vibe_splits, run=video.run, loop=video.VideoRun
    ),
    "hmmr": SimpleNamespace(
        config=hmmr_config, splits=vibe_splits, run=video.run, loop=video.VideoRun
    ),
    "part_dynamics": SimpleNamespace(
        config=part_dynamics_config, splits=part_dynamics_splits, run=video.run, loop=video.VideoRun
    ),
    "prior": SimpleNamespace(
        config=prior_config,
        splits=prior_splits,
        run=mposer_training.run,
        loop=mposer_training._MPoserRun,
    ),
}


def without_files(patch, splits):
    """Trainings read these splits from here on, which are in no cache."""

    def keep_data(config, splits, folder):
        runs.pin_of(config, folder).mkdir(exist_ok=True)
        return True

    patch.setattr(runs, "open_splits", lambda config, pin=None: splits)
    patch.setattr(runs, "later_changes", lambda config, splits: "")
    patch.setattr(runs, "keep_data", keep_data)


def in_memory(patch, kind):
    """The splits of one kind of training, which it reads from here on."""
    splits = KINDS[kind].splits()
    without_files(patch, splits)
    patch.setattr(video, "load_body", lambda folder: TinyBody())
    patch.setattr(hmmr_training, "POSE_SIZE", 8)  # HMMR's: 1024 take more time than all else
    return splits


class Observer:
    """Calls a function after each step, and another one after each epoch."""

    def __init__(self, show_step, show_epoch=lambda *_: None):
        self.show_step = show_step
        self.show_epoch = show_epoch

    def show_features(self, where, done, total):
        pass

    def show_growth(self, text):
        pass


def undisturbed_run(kind, folder, progress=None):
    """The folder of a run that was not interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        in_memory(patch, kind)
        return KINDS[kind].run(KINDS[kind].config(folder), progress=progress)


def ready(config, splits):
    """A run of a model of video features, about to take its first step."""
    trainer = models.find(config.MODEL).load_trainer()(config, TinyBody())
    return video.VideoRun(config, trainer, splits, stand_in=True, observer=None)


def first_batch(config, splits):
    """A model's trainer, and the first batch that it trains on."""
    run = ready(config, splits)
    return run.trainer, next(run.batches(0))


def gradients(terms, *networks):
    """Of the sum of these terms, by parameter, for each network; those of before are gone."""
    for network in networks:
        network.zero_grad()
    torch.stack([*terms]).sum().backward()
    return [{name: p.grad.clone() for name, p in of.named_parameters()} for of in networks]


class Killed(BaseException):
    """Raised by a test instead of a signal."""


def tensors(value, prefix=""):
    """All leaves of a checkpoint, by path."""
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {prefix: value}
    leaves = {}
    for name, entry in value.items():
        leaves |= tensors(entry, f"{prefix}/{name}")
    return leaves


def finite(state):
    return all(
        torch.isfinite(value).all()
        for value in tensors(state).values()
        if isinstance(value, torch.Tensor)
    )


def assert_same_run(folder, expected):
    """Metrics to the byte, every leaf of both checkpoints to the bit, but for where files are."""
    assert (folder / "metrics.json").read_bytes() == (expected / "metrics.json").read_bytes()
    for name in ("last.pt", "best.pt"):
        ours, theirs = (tensors(read_file(one / name)) for one in (folder, expected))
        assert ours.keys() == theirs.keys()
        places = {f"/config/{name}" for name in ("runs", "cache", "at", "embedding", "body")}
        for key in theirs.keys() - places:
            value = theirs[key]
            assert (
                torch.equal(ours[key], value)
                if isinstance(value, torch.Tensor)
                else ours[key] == value
            ), key


def scalars(folder):
    """(tag, step) -> values, as TensorBoard shows them; without those of the clock."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    found = {}
    for tag in accumulator.Tags()["scalars"]:
        for event in accumulator.Scalars(tag):
            found.setdefault((tag, event.step), []).append(event.value)
    return {key: values for key, values in found.items() if not key[0].startswith("speed/")}


def curves(folder):
    """Of steps and epochs, without those of the clock; the last one of each step."""
    lines = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    return {
        (step, tag): value
        for step, _, values in lines
        for tag, value in values.items()
        if not tag.startswith("speed/")
    }


def killed_at(train, config, nth_report, aside):
    """The folder of a run as kill -9 leaves it when it reports for the n-th time. aside: a path for
    the copy.
    """
    reports = 0

    def kill(*_):
        nonlocal reports
        reports += 1
        if reports == nth_report:
            (folder,) = config.runs.iterdir()
            shutil.copytree(folder, aside)  # nothing that is still to be written
            raise Killed

    with pytest.raises(Killed):
        train(config, progress=Observer(kill, kill))
    (folder,) = config.runs.iterdir()
    shutil.rmtree(folder)
    aside.rename(folder)
    # named by the second: here both runs may have the same one
    for number, file in enumerate(sorted(folder.glob("events.out.tfevents.*"))):
        file.rename(folder / f"events.out.tfevents.{number:010}.before")
    return folder
