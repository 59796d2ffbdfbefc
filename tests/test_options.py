"""A new option whose default changes nothing has nothing computed again:
tests/golden/options.json.

What was made before it existed does not record it, and counts as made with its default.
"""

import json
from dataclasses import MISSING, dataclass, fields
from typing import ClassVar

from pipeline import datasets
from pipeline.clips import detectors
from pipeline.clips.detectors import Detector
from pipeline.datasets.base import Dataset
from pipeline.features import streams
from pipeline.features.streams.base import NumberStream
from pipeline.features.weights import WeightsSpec
from pipeline.steps.conversion.identity import reader_parts
from tests.golden import FOLDER

RECORDS = FOLDER / "options.json"


def defaults_of(kind):
    """Default of each option, as JSON holds it."""
    values = {}
    for option in fields(kind):
        value = option.default if option.default_factory is MISSING else option.default_factory()
        values[option.name] = json.loads(json.dumps(value, default=str))
    return values


def record_of(version, defaults, added):
    later = {name: value for name, value in defaults.items() if name in added}
    return {"version": version, "always_recorded": sorted(defaults.keys() - added), "added": later}


def every_record():
    """Our datasets, streams and detectors."""
    kinds = {f"dataset {name}": type(datasets.get(name)) for name in datasets.names()}
    kinds |= {f"stream {name}": streams.find(name) for name in streams.names()}
    kinds |= {f"detector {name}": detectors.find(name) for name in detectors.names()}
    for name, kind in kinds.items():
        if kind.__module__.startswith(("pipeline.", "vibe_model.")):
            yield name, record_of(kind.version, defaults_of(kind), {*kind.added})


def test_an_option_that_older_data_do_not_record_is_listed_and_keeps_its_default_within_a_version(
    request,
):
    before = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    now = dict(every_record())
    for name, record in now.items():
        earlier = before.get(name, record)
        if earlier["version"] != record["version"]:
            continue
        new = {*record["always_recorded"]} - {*earlier["always_recorded"]}
        assert not new, f"{name}: list the new options {new} in `added`, or raise its version"
        for option in record["added"].keys() & earlier["added"].keys():
            was = earlier["added"][option]
            value = record["added"][option]
            assert was == value, (
                f"{name}: raise the version: older data without {option} would count as {value}"
            )
    if request.config.getoption("--rewrite-golden"):
        lines = [f"{json.dumps(name)}: {json.dumps(record)}" for name, record in now.items()]
        RECORDS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert now == json.loads(RECORDS.read_text()), (
        f"{RECORDS}: pytest --rewrite-golden, then look at the diff"
    )


class Clips(Dataset):
    """A dataset with the methods that its identity calls."""

    name = "clips"
    splits = ("train",)
    version = 1

    def videos(self, raw, split): ...
    def read(self, raw, split, video, account, body): ...


@dataclass(frozen=True)
class ClipsLater(Clips):
    smooth: float = 0.0
    added: ClassVar[tuple[str, ...]] = ("smooth",)


class Colours(NumberStream):
    kind = "colours"
    dim = 3

    def load(self, machine, recorded): ...


@dataclass(frozen=True, kw_only=True)
class ColoursLater(Colours):
    smooth: float = 0.0
    added: ClassVar[tuple[str, ...]] = ("smooth",)


@dataclass(frozen=True, kw_only=True)
class ColoursOfANetwork(Colours):
    weights: WeightsSpec = WeightsSpec("untrained", "0")  # noqa: RUF009 - it is frozen
    added: ClassVar[tuple[str, ...]] = ("weights",)


class Faces(Detector):
    name = "faces"

    def load(self, device): ...


@dataclass(frozen=True)
class FacesLater(Faces):
    smooth: float = 0.0
    added: ClassVar[tuple[str, ...]] = ("smooth",)


def test_an_added_option_with_its_default_changes_no_identity(tmp_path):
    def reader(dataset):
        return reader_parts(dataset, "train", tmp_path, None)

    assert reader(ClipsLater()) == reader(Clips())
    assert reader(ClipsLater(smooth=1.0))["parameters"] == {"smooth": 1.0}
    assert ColoursLater().identity() == Colours().identity()
    assert ColoursLater(smooth=1.0).identity() == Colours().identity() | {"smooth": 1.0}
    assert ColoursLater.from_identity(Colours().identity()) == ColoursLater()
    assert ColoursOfANetwork.from_identity(Colours().identity()) == ColoursOfANetwork()
    assert FacesLater().identity() == Faces().identity()
    assert FacesLater(smooth=1.0).identity() == Faces().identity() | {"smooth": 1.0}
