from pathlib import Path

import pytest

from pipeline.errors import ConfigError
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
    assert settings.load(ROOT / "luigi.cfg").data.datasets == ("penn_action", "kinetics", "3dpw", "amass")


def test_relative_paths_lie_below_the_folder_of_the_file_and_absolute_ones_where_they_say(tmp_path: Path) -> None:
    paths = load(tmp_path, GOOD).paths
    assert paths.cache == tmp_path / "cache"
    assert paths.body == Path("/somewhere/smpl")


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
    ],
)
def test_a_mistake_is_named_with_its_section_and_what_was_expected(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, GOOD.replace(before, after))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LUIGI_CONFIG_PATH"):
        settings.load(tmp_path / "luigi.cfg")
