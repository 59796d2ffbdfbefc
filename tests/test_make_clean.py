"""`make clean` takes demo data away, and nothing that cost anybody a download or days of computing."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder in which all that `make clean` looks at is demo data."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for file in ("data/embedded/raw/penn_action", "data/embedded/body"):
        write(tmp_path / file / "STAND_IN.json", stand_in=True)
    write(tmp_path / "data/cache/penn_action/train/manifest.json", stand_in=True)
    write(tmp_path / "runs/embedded-1/config.json", stand_in=True)
    (tmp_path / "docs/_build").mkdir(parents=True)
    return tmp_path


def write(file: Path, *, stand_in: bool) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"stand_in": stand_in}))


def clean(project: Path) -> str:
    without = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # `make test` runs us
    made = subprocess.run(["make", "clean"], cwd=project, env=without, check=True, capture_output=True, text=True)
    return made.stdout


def test_stand_ins_go(project: Path) -> None:
    assert clean(project) == ""
    gone = ("data/embedded/raw/penn_action", "data/embedded/body", "data/cache", "runs", "docs/_build")
    assert not any((project / folder).exists() for folder in gone)


def test_raw_data_of_ones_own_stay(project: Path) -> None:
    (project / "data/embedded/raw/penn_action/STAND_IN.json").rename(project / "data/embedded/raw/penn_action/label")
    write(project / "data/embedded/raw/of_my_own/STAND_IN.json", stand_in=True)
    clean(project)
    assert (project / "data/embedded/raw/penn_action/label").is_file()
    assert (project / "data/embedded/raw/of_my_own").is_dir()


@pytest.mark.parametrize("file", ["data/cache/3dpw/train/manifest.json", "runs/vibe-1/config.json"])
def test_a_cache_or_runs_with_anything_real_stay_and_are_told(project: Path, file: str) -> None:
    write(project / file, stand_in=False)
    folder = file.split("/3dpw")[0].split("/vibe")[0]
    assert clean(project) == f"{folder} is left: not all of it is demo data\n"
    assert (project / file).is_file()


def test_where_there_is_nothing_it_has_nothing_to_do(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    assert clean(tmp_path) == ""
