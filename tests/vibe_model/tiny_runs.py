"""Trainings that take a second, and what their folders hold."""

import shutil

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vibe_model import TrainConfig
from vibe_model.settings.mposer_config import MPoserConfig

EPOCHS, ITERATIONS = 2, 4


def vibe_config(root):
    """All of VIBE's training that takes a second."""
    return TrainConfig(
        name="tiny",
        runs=root / "runs",
        cache=root / "cache",
        datasets_2d=("a/train",),
        datasets_3d=("b/train",),
        motion=("m/train",),
        validation=("b/validation",),
        evaluation=("b/test", "a/test"),
        seqlen=4,
        stride=2,
        strides={},
        tracks={},
        batch_size=4,
        iterations=ITERATIONS,
        epochs=EPOCHS,
        lr_generator=1e-2,
        lr_discriminator=1e-2,
        plateau_patience=0,
        feature_size=6,
        hidden_size=5,
        regressor_size=7,
        disc_size=4,
        checkpoint_every=3,
        device="cpu",
        threads=1,
    )


def vibe_splits(memory_split):
    return {
        "a/train": memory_split(1, [9, 6], with_3d=False),
        "b/train": memory_split(2, [8, 5]),
        "m/train": memory_split(3, [12]),
        "b/validation": memory_split(4, [7, 3], joints=14),
        "b/test": memory_split(5, [6], joints=14),
        "a/test": memory_split(6, [5], joints=14, with_3d=False),
    }


def prior_config(root):
    """The same of the motion prior's."""
    return MPoserConfig(
        runs=root / "runs",
        cache=root / "cache",
        motion=("m/train",),
        validation=("v/val", "u/val"),
        seqlen=4,
        stride=1,
        hidden_size=5,
        latent_size=3,
        batch_size=4,
        iterations=ITERATIONS,
        epochs=EPOCHS,
        lr=1e-2,
        checkpoint_every=3,
        device="cpu",
        threads=1,
    )


def prior_splits(memory_split):
    return {
        "m/train": memory_split(1, [12, 7]),
        "v/val": memory_split(2, [9, 3], joints=14),
        "u/val": memory_split(3, [8], with_3d=False),  # no SMPL labels
    }


class Killed(BaseException):
    """What a test throws instead of a signal."""


def tensors(value, prefix=""):
    """All leaves of a checkpoint, by path."""
    if isinstance(value, dict):
        return {k: v for name, entry in value.items() for k, v in tensors(entry, f"{prefix}/{name}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, entry in enumerate(value) for k, v in tensors(entry, f"{prefix}/{i}").items()}
    return {prefix: value}


def assert_same_state(ours, theirs, but=()):
    """Of two checkpoints: every leaf to the bit, those at `but` aside."""
    ours, theirs = (tensors(torch.load(file, weights_only=True)) for file in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for key in theirs.keys() - set(but):
        value = theirs[key]
        assert torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value, key


def scalars(folder):
    """(tag, step) -> values, as TensorBoard shows them; without those of the clock."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    found = {}
    for tag in accumulator.Tags()["scalars"]:
        for event in accumulator.Scalars(tag):
            found.setdefault((tag, event.step), []).append(event.value)
    return {key: values for key, values in found.items() if not key[0].startswith("speed/")}


def killed_at(train, config, nth_news, aside):
    """The folder of a run as kill -9 leaves it when it tells its n-th news. aside: where there is nothing yet."""
    told = 0

    def kill(_):
        nonlocal told
        told += 1
        if told == nth_news:
            (folder,) = config.runs.iterdir()
            shutil.copytree(folder, aside)  # nothing that is still to be written
            raise Killed

    with pytest.raises(Killed):
        train(config, progress=kill)
    (folder,) = config.runs.iterdir()
    shutil.rmtree(folder)
    aside.rename(folder)
    (first,) = folder.glob("events.out.tfevents.*")  # named by the second: here both runs may have the same one
    first.rename(folder / "events.out.tfevents.0000000000.first")
    return folder
