"""Public functions and constructors refuse a choice that their type, a Literal, does not have."""

import importlib
import inspect
import pkgutil
import typing
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch

import cache
import pipeline
import vibe_model
from cache.windows import timed_windows, windows_of
from pipeline.clips.detectors.blaze_pose import BlazePose
from pipeline.clips.detectors.rtmpose import RTMPose
from pipeline.datasets.shared.checks import LabelRules
from pipeline.datasets.videos import OwnVideos
from pipeline.errors import ConfigError
from pipeline.features import streams
from pipeline.files.formats.pickles import load_pickle
from pipeline.people.body import Body
from vibe_model import MotionDiscriminator, cameras, metrics
from vibe_model.evaluation.protocols import PROTOCOLS
from vibe_model.hmmr import losses
from vibe_model.hmmr.generator import HMMR
from vibe_model.part_dynamics.generator import PartDynamics

POINTS, RUNS = torch.zeros(1, 14, 2), np.zeros((0, 2), np.int64)
METRIC = metrics.Metric(title="a", unit="mm", meaning="an error", of=metrics.mpjpe)
PROTOCOL = next(iter(PROTOCOLS.values()))
NOTHING: typing.Any = None  # the choice is refused before anything else is looked at
CALLS = {
    "cache.format.extra ExtraColumn": lambda **wrong: cache.ExtraColumn("a", "b", **wrong),
    "cache.read.split Split.windows": lambda **wrong: windows_of(RUNS, seqlen=1, stride=1, **wrong),
    "cache.windows timed_windows": lambda **wrong: timed_windows(
        RUNS, np.zeros(0), seqlen=1, stride=1, **wrong
    ),
    "cache.windows windows_of": lambda **wrong: windows_of(RUNS, seqlen=1, stride=1, **wrong),
    "pipeline.people.body Body.joints": lambda **wrong: Body.joints(
        NOTHING, betas=NOTHING, rotmat=NOTHING, **wrong
    ),
    "pipeline.clips.detectors.blaze_pose BlazePose": BlazePose,
    "pipeline.clips.detectors.rtmpose RTMPose": RTMPose,
    "pipeline.datasets.shared.checks LabelRules": LabelRules,
    "pipeline.datasets.videos OwnVideos": OwnVideos,
    "pipeline.files.formats.pickles load_pickle": lambda **wrong: load_pickle("a.pkl", **wrong),
    "vibe_model.cameras apply_optimal_camera": lambda **wrong: cameras.apply_optimal_camera(
        POINTS, torch.zeros(1, 14, 3), **wrong
    ),
    "vibe_model.cameras optimal_camera": lambda **wrong: cameras.optimal_camera(
        POINTS, POINTS, POINTS[..., 0], **wrong
    ),
    "vibe_model.evaluation.protocols Protocol": lambda **wrong: replace(PROTOCOL, **wrong),
    "vibe_model.hmmr.generator HMMR": lambda **wrong: HMMR(NOTHING, **wrong),
    "vibe_model.hmmr.losses supervised": lambda **wrong: losses.supervised(
        NOTHING, NOTHING, **wrong
    ),
    "vibe_model.metrics Metric": lambda **wrong: replace(METRIC, **wrong),
    "vibe_model.part_dynamics.generator PartDynamics": lambda **wrong: PartDynamics(
        NOTHING, **wrong
    ),
    "vibe_model.vibe.networks MotionDiscriminator": MotionDiscriminator,
}
# streams refuse a choice before they miss an option
STREAMS = {
    f"{kind.__module__} {kind.__name__}": kind for kind in map(streams.find, streams.names())
}
# parts of what is called above, and records that the code makes itself
INNER = """
cache.format.layout Column
pipeline.datasets.shared.clips.people Rules
pipeline.features.networks network_on_device
pipeline.features.networks resnet50_on_device
pipeline.features.networks.arithmetic torch_flags
pipeline.features.networks.cpu CpuNetwork
pipeline.features.networks.cuda CudaNetwork
pipeline.features.streams.network LibraryStream
pipeline.grades word_key
pipeline.people.smpl_files body_files
pipeline.settings.schema ConvertSettings
pipeline.settings.schema Embedded
pipeline.settings.schema Paths
pipeline.people.smplx_body load_body
pipeline.grades.words Grade.is_below
vibe_model.checkpoints LoadReport
vibe_model.hmmr.generator MovieStrip
vibe_model.part_dynamics.generator RegionDecoder
""".strip().splitlines()


def has_choices(hint):
    """Whether a type is a Literal, or has one."""
    return typing.get_origin(hint) is typing.Literal or any(map(has_choices, typing.get_args(hint)))


def callables(module):
    """Public functions, constructors and methods of a module, by name."""
    for name, member in vars(module).items():
        if name.startswith("_") or getattr(member, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(member):
            yield name, member
        elif inspect.isclass(member) and not hasattr(member, "__pydantic_fields__"):
            for key, method in vars(member).items():
                if inspect.isfunction(method) and key == "__init__":
                    yield name, method
                elif inspect.isfunction(method) and not key.startswith("_"):
                    yield f"{name}.{key}", method


def choices():
    """Each parameter of a public callable that is a Literal: its callable and its name."""
    for package in (cache, pipeline, vibe_model):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            for name, function in callables(module):
                for parameter, hint in function.__annotations__.items():
                    with suppress(NameError):  # imported for types alone: no Literal
                        if isinstance(hint, str):
                            hint = eval(hint, vars(module))
                        if parameter != "return" and has_choices(hint):
                            yield f"{found.name} {name}", parameter


def test_every_choice_that_is_none_is_refused_with_the_choices_that_there_are():
    of_callables = [*choices()]
    assert {name for name, _ in of_callables} - STREAMS.keys() == {*CALLS, *INNER}
    for name, parameter in of_callables:
        if name not in INNER:
            with pytest.raises((ValueError, ConfigError), match="expected"):
                {**STREAMS, **CALLS}[name](**{parameter: "no such choice"})
