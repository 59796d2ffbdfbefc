from collections.abc import Sequence
from dataclasses import make_dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from pipeline import datasets, plug_ins, table
from pipeline.conversion.identity import reader_parts
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError, PipelineError
from pipeline.files.raw import RawVideo


class Dances(Dataset):
    """A dataset of somebody else's package."""

    name: ClassVar[str] = "dances"
    splits: ClassVar[tuple[str, ...]] = ("train",)
    version: ClassVar[int] = 1
    page: ClassVar[str] = "https://example.org"

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        return ("frame_index",)

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        return []

    def read(self, raw, split, video, account, body):
        return []


def install(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, str, str, object]) -> None:
    """Pretend that packages are installed: (package, dataset, module:class, what loading gives)."""

    class Loaded(EntryPoint):
        def load(self) -> object:
            thing = next(e[3] for e in entries if e[2] == self.value)
            if isinstance(thing, Exception):
                raise thing
            return thing

    found = []
    for package, name, value, _ in entries:
        entry = Loaded(name, value, datasets.ENTRY_POINTS)
        vars(entry)["dist"] = SimpleNamespace(name=package)
        found.append(entry)
    monkeypatch.setattr(plug_ins, "entry_points", lambda group: EntryPoints(found))


def test_ours_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("dance-data", "dances", "d:Dances", Dances))
    assert datasets.names() == (*table.OWN[datasets.ENTRY_POINTS], "dances")
    assert datasets.get("dances").name == "dances"


def test_an_unknown_name_and_an_option_that_a_dataset_lacks_are_refused_with_the_known_ones() -> (
    None
):
    with pytest.raises(PipelineError, match="no dataset is called 'penn'; known: penn_action, "):
        datasets.get("penn")
    with pytest.raises(ConfigError, match="amass has no option rate; it has resampling"):
        datasets.get("amass", rate=30)


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (
            ImportError("no module named torch3d"),
            "of package dance-data cannot be loaded: ImportError: no module",
        ),
        *(
            (thing, "dance-data: d:Dances is not a Dataset subclass whose name is 'dances'")
            for thing in (Path, 3)
        ),
        (
            type("Other", (Dances,), {"name": "other"}),
            "is not a Dataset subclass whose name is 'dances'",
        ),
    ],
)
def test_a_plug_in_that_fails_is_named_with_its_package_and_harms_no_other(
    monkeypatch, thing: object, words: str
):
    install(monkeypatch, ("dance-data", "dances", "d:Dances", thing))
    assert "dances" in datasets.names()
    assert datasets.get("amass").name == "amass"
    with pytest.raises(PipelineError, match=words):
        datasets.get("dances")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (
            (("one", "dances", "a:A"), ("two", "dances", "b:B")),
            "'dances' comes from package one and package two",
        ),
        ((("one", "amass", "a:A"),), "'amass' of package one: this name is in use"),
    ],
)
def test_two_claims_to_a_name_are_refused(
    monkeypatch: pytest.MonkeyPatch, entries: Any, words: str
) -> None:
    install(monkeypatch, *((*entry, Dances) for entry in entries))
    with pytest.raises(PipelineError, match=words):
        datasets.names()


def test_no_reader_leaves_an_option_of_all_datasets_out_of_its_identity(monkeypatch, tmp_path):
    assert reader_parts(datasets.get("insta_variety"), "train", tmp_path, None)["parameters"] == {}
    common = vars(make_dataclass("Common", [("tallest", int, 0)]))["__dataclass_fields__"]
    readers = [datasets.get(name) for name in table.OWN[datasets.ENTRY_POINTS]]
    monkeypatch.setattr(Dataset, "__dataclass_fields__", common)
    for reader in readers:
        object.__setattr__(reader, "tallest", 7)
        monkeypatch.setattr(
            type(reader),
            "__dataclass_fields__",
            vars(type(reader))["__dataclass_fields__"] | common,
        )
        assert reader_parts(reader, "train", tmp_path, None)["parameters"]["tallest"] == 7, (
            reader.name
        )
