"""A new option has nothing computed again until it changes something: `options` of the
records tests/golden/KIND/NAME.json.

What was made before it existed does not record it, and counts as made with the value in `added`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline import datasets
from pipeline.clips import detectors
from pipeline.clips.detectors import Detector
from pipeline.datasets.base import Dataset
from pipeline.features import streams
from pipeline.features.streams.base import NumberStream
from pipeline.features.weights import WeightsSpec
from pipeline.steps.conversion.identity import reader_parts
from vibe_model import models
from vibe_model.part_dynamics.pr_vipe.config import PR_VIPE
from vibe_model.settings import RunConfig
from vibe_model.vibe.config import MPOSER

UNTRAINED = WeightsSpec("untrained", "0")


def record_of(kind):
    """Of a class of options, or of a model's settings, without those that change no result."""
    options = {option.name for option in fields(kind)}
    if issubclass(kind, RunConfig):
        options -= kind.NEUTRAL
        version, added = kind.VERSION, kind.ADDED
    else:
        version, added = kind.version, kind.added
    assert added.keys() <= options, f"{kind}: `added` names options that there are not"
    neutral = json.loads(json.dumps(dict(added), default=str))
    always = sorted(options - neutral.keys())
    return {"version": version, "always_recorded": always, "added": neutral}


def kinds():
    """Our datasets, streams, detectors and models, by the names of their records."""
    found = {f"datasets/{name}": type(datasets.get(name)) for name in datasets.names()}
    found |= {f"streams/{name}": streams.find(name) for name in streams.names()}
    found |= {f"detectors/{name}": detectors.find(name) for name in detectors.names()}
    trainings = (*models.every(), MPOSER, PR_VIPE)
    found |= {f"models/{training.section}": training.config for training in trainings}
    for name, kind in found.items():
        if kind.__module__.startswith(("pipeline.", "vibe_model.")):
            yield name, kind


@pytest.mark.parametrize(("name", "kind"), [*kinds()], ids=lambda value: str(value))
def test_an_option_that_older_data_do_not_record_is_listed_with_one_value_within_a_version(
    name, kind, record
):
    recorded = record(name, "options")
    now = record_of(kind)
    earlier = recorded.value or now
    if earlier["version"] == now["version"]:
        new = {*now["always_recorded"]} - {*earlier["always_recorded"]}
        assert not new, (
            f"{name}: list {new} in `added`, or `ADDED` of a model's settings, with the value that "
            "changes nothing; or raise its version"
        )
        for option in now["added"].keys() & earlier["added"].keys():
            was = earlier["added"][option]
            value = now["added"][option]
            assert was == value, (
                f"{name}: raise the version: older data without {option} would count as {value}"
            )
    recorded.check(now)


class Clips(Dataset):
    """A dataset with the methods that its identity calls."""

    name = "clips"
    splits = ("train",)
    version = 1

    def videos(self, raw, split): ...
    def read(self, raw, split, video, account, body): ...

    def identity(self):
        return reader_parts(self, "train", Path("nowhere"), None)


class Colours(NumberStream):
    kind = "colours"
    dim = 3

    def load(self, machine, recorded): ...


class Faces(Detector):
    name = "faces"

    def load(self, device): ...


def later(kind, default):
    """A later version of a class, with one option more."""

    @dataclass(frozen=True, kw_only=True)
    class Later(kind):
        smooth: float = default
        added: ClassVar[Mapping[str, Any]] = {"smooth": 0.0}

    return Later


@pytest.mark.parametrize("default", [0.0, 0.5])
@pytest.mark.parametrize("kind", [Clips, Colours, Faces])
def test_an_added_option_is_in_an_identity_where_it_changes_something(kind, default):
    def identity_with(smooth):
        option = {"smooth": smooth}
        return before | ({"parameters": option} if kind is Clips else option)

    version = later(kind, default)
    before = kind().identity()
    assert version(smooth=0.0).identity() == before
    assert version(smooth=1.0).identity() == identity_with(1.0)
    assert version().identity() == (identity_with(default) if default else before)
    if kind is Colours:  # what was made before is read with the value that changes nothing
        assert version.from_identity(before) == version(smooth=0.0)


@dataclass(frozen=True, kw_only=True)
class ColoursOfANetwork(Colours):
    weights: WeightsSpec = UNTRAINED
    added: ClassVar[Mapping[str, Any]] = {"weights": UNTRAINED}


def test_added_weights_are_read_from_an_identity_without_them():
    assert ColoursOfANetwork.from_identity(Colours().identity()) == ColoursOfANetwork()
