from pathlib import Path

import pytest

from pipeline import datasets
from pipeline.errors import ConfigError
from pipeline.extraction import Resources
from pipeline.places import read_places
from pipeline.streams.base import Machine
from pipeline.streams.crops import Crops
from tasks import settings

ROOT = Path(__file__).parents[2]

GOOD = """
[paths]
raw = raw
body = /somewhere/smpl
cache = cache
runs = runs
[data]
datasets = penn_action amass
[convert]
workers = 3
[amass]
resampling = decimate
[train]
preset = embedded
[core]
autoload_range = false
"""


def load(tmp_path: Path, text: str) -> settings.Settings:
    file = tmp_path / "luigi.cfg"
    file.write_text(text)
    return settings.load(file)


def test_the_shipped_luigi_cfg_is_valid() -> None:
    assert settings.load(ROOT / "luigi.cfg").data.datasets == tuple(datasets.DATASETS)


def test_relative_paths_lie_below_the_folder_of_the_file_and_absolute_ones_where_they_say(tmp_path: Path) -> None:
    paths = load(tmp_path, GOOD).paths
    assert paths.cache == tmp_path / "cache"
    assert paths.body == Path("/somewhere/smpl")


@pytest.mark.parametrize("more", ["", "[embedded]\nenabled = yes\n", "[embedded]\nseed = 3\n"])
def test_commands_without_luigi_read_the_same_places(more: str, tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + more)
    places = read_places(loaded.file)
    assert (places.raw, places.body, places.cache) == (loaded.paths.raw, loaded.paths.body, loaded.paths.cache)
    assert (places.datasets, places.embedded) == (loaded.data.datasets, loaded.embedded.enabled)


@pytest.mark.parametrize("before", ["[paths]", "raw = raw", "[data]", "datasets = penn_action amass"])
def test_commands_without_luigi_tell_what_is_missing_too(before: str, tmp_path: Path) -> None:
    (tmp_path / "luigi.cfg").write_text(GOOD.replace(before, ""))
    with pytest.raises(ConfigError, match=r"luigi\.cfg"):
        read_places(tmp_path / "luigi.cfg")


def test_values_arrive_in_their_types(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.convert.workers == 3
    assert loaded.convert.strict is False
    assert loaded.dataset("amass").parameters() == {"resampling": "decimate"}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("cache = cache", "cahce = cache", r"\[paths\]: unknown key 'cahce'; known: raw, body, cache, runs"),
        ("runs = runs", "", r"\[paths\]: 'runs' is missing"),
        ("workers = 3", "workers = three", r"\[convert\] workers = three: expected a whole number"),
        ("workers = 3", "strict = perhaps", r"\[convert\] strict = perhaps: expected true or false"),
        ("[convert]", "[conversion]", r"unknown section \[conversion\]"),
        ("penn_action amass", "penn_action amas", r"unknown \['amas'\]; known: .*penn_action"),
        ("resampling = decimate", "resample = x", r"\[amass\]: unknown key 'resample'; known: resampling"),
        ("[data]", "[data", r"luigi\.cfg"),
        ("workers = 3", "workers = -1", r"\[convert\] workers = -1: expected a whole number, 0 or more"),
        ("penn_action amass", "", r"\[data\] datasets: expected one or more of .*, found none"),
        ("penn_action amass", "amass amass", r"\[data\] datasets: .*, found one twice \(amass amass\)"),
        ("cache = cache", "cache =", r"\[paths\] cache = : expected a path"),
        ("= decimate", "= sideways", r"luigi\.cfg \[amass\] amass: resampling is 'sideways'; it can be slerp or"),
        (
            "[core]",
            "[embedded]\nsize = huge\n[core]",
            r"\[embedded\] size = huge: expected one of tiny, default, large",
        ),
        ("[core]", "[embedded]\nseed = -1\n[core]", r"\[embedded\] seed = -1: expected a whole number, 0 or more"),
        ("[core]", "[features]\nprecision = quick\n[core]", r"precision = quick: expected one of exact, fast"),
        ("[core]", "[features]\nbatch_size = -1\n[core]", r"batch_size = -1: expected a whole number, 0 or more"),
        ("[core]", "[features]\ntimeout = 0\n[core]", r"timeout = 0: expected a whole number, 1 or more"),
        (
            "[core]",
            "[features]\nkind = resnet5\n[core]",
            r"kind: no stream is called 'resnet5'; known: resnet50",
        ),
        ("[core]", "[features]\ncrops = resnet50\n[core]", r"stream 'resnet50' cannot be computed from itself"),
        (
            "[core]",
            "[crops]\nquality = 90\n[core]",
            r"\[crops\] has options of a stream, but .* kind is resnet50, and crops is none",
        ),
        (
            "[core]",
            "[features]\ncrops = crops\n[crops]\nquality = 101\n[core]",
            r"luigi\.cfg \[crops\] quality 101: expected",
        ),
        ("[core]", "[features]\ncrops = ../x\n[core]", r"luigi\.cfg \[features\] crops: '\.\./x' is no stream's name"),
        ("[core]", "[features]\nstream = a_ok\n[core]", r"luigi\.cfg \[features\] stream: 'a_ok' is no stream's name"),
        ("[core]", "[features]\nkind = crops\n[crops]\nquality = 101\n[core]", r"quality 101: expected 1 to 100"),
        ("[core]", "[features]\nkind = crops\n[crops]\nquality = good\n[core]", r"quality = good: expected a whole"),
        ("[core]", "[resnet50]\nweights = untrained:1\n[core]", r"\[resnet50\] weights: stands in \[features\]"),
        ("[core]", "[dask]\nschedular = x\n[core]", r"\[dask\]: unknown key 'schedular'; known: scheduler"),
        ("[core]", "[features]\nweights = spin\n[core]", r"luigi\.cfg \[features\] weights 'spin': expected one of"),
        ("[core]", "[features]\nweights = untrained:x\n[core]", r"expected a whole number as seed, as in untrained:0"),
        ("[core]", "[convert]\n[core]", r"luigi\.cfg: .*section 'convert' already exists"),
    ],
)
def test_a_mistake_is_named_with_its_section_and_what_was_expected(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, GOOD.replace(before, after))


def test_streams_of_other_kinds_have_a_section_of_their_own(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + "[features]\nstream = small\nkind = crops\n[crops]\nquality = 80\n")
    assert (loaded.stream.name, loaded.stream.stream, loaded.stream.crops) == ("small", Crops(quality=80), "")


def test_a_stream_that_is_called_like_another_section_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.streams.names", lambda: ("resnet50", "crops", "amass"))
    with pytest.raises(ConfigError, match="a stream of another package is called 'amass'"):
        load(tmp_path, GOOD)


def test_what_of_the_machine_may_be_taken_is_handed_on(tmp_path: Path) -> None:
    given = "[features]\ncrops = small\ndevice = cuda:1\nbatch_size = 64\ncompile = true\nworkers = 5\ntimeout = 9\n"
    loaded = load(tmp_path, GOOD + given + "[dask]\nscheduler = tcp://node:8786\n")
    assert loaded.stream.crops == "small"
    assert loaded.stream.resources == Resources(Machine("cuda:1", 64, compile=True), workers=5, timeout=9)
    assert loaded.dask.scheduler == "tcp://node:8786"
    assert load(tmp_path, GOOD).dask.scheduler is None


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LUIGI_CONFIG_PATH"):
        settings.load(tmp_path / "luigi.cfg")


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "luigi.cfg").write_bytes(b"[paths]\nraw = \xff\n")
    with pytest.raises(ConfigError, match=r"luigi\.cfg: .*codec can't decode"):
        settings.load(tmp_path / "luigi.cfg")


@pytest.mark.parametrize(("given", "expected"), [("file:w/r50.pt", "file:{}/w/r50.pt"), ("spin:/s.pt", "spin:/s.pt")])
def test_a_checkpoints_path_is_taken_from_the_folder_of_the_file(tmp_path: Path, given: str, expected: str) -> None:
    loaded = load(tmp_path, GOOD + f"[features]\nweights = {given}\n")
    assert str(loaded.stream.stream.weights) == expected.format(tmp_path)


def test_names_of_torchvisions_weights_are_no_paths(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + "[features]\nweights = torchvision:IMAGENET1K_V2\n")
    assert str(loaded.stream.stream.weights) == "torchvision:IMAGENET1K_V2"
