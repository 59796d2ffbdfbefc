"""Commands in the wrong folder, state or order: each ends with the cause, and with what to do."""

import re
import shutil

import pytest


def without_settings(folder):
    (folder / "luigi.cfg").unlink()


def as_real_data(folder):
    (folder / "raw/penn_action/STAND_IN.json").unlink()


def without_raw(folder):
    shutil.rmtree(folder / "raw")


def with_empty_raw(folder):
    without_raw(folder)
    (folder / "raw/penn_action").mkdir(parents=True)


def without_cache(folder):
    shutil.rmtree(folder / "cache")


def without_the_videos_of_train(folder):
    for video in ("0001", "0003", "0005"):
        (folder / f"raw/penn_action/labels/{video}.mat").unlink()


CONVERT = "pipeline convert penn_action train --raw raw/penn_action --cache cache"
EXTRACT = "pipeline extract penn_action/train --stream homography"

# messages that several commands print
NO_SETTINGS = r"luigi\.cfg: file not found\. Run from the project's folder"
NO_CACHE = r"cache: expected a feature cache, found no such folder\. Convert a dataset"

# command, what is wrong in the folder, exit code, what it prints
STATES = [
    ("pipeline status", without_settings, 2, NO_SETTINGS + ", or name"),
    ("tasks train", without_settings, 2, NO_SETTINGS),
    (CONVERT, as_real_data, 2, r"was made from .*demo data.*Use another cache: --cache cache-real"),
    (CONVERT, without_raw, 2, r"raw/penn_action: no such folder.*this folder\. Mount its disk"),
    (CONVERT, with_empty_raw, 2, r"raw/penn_action: .*found an empty folder.*Mount its disk"),
    ("pipeline plan", without_raw, 2, r"raw/penn_action: no such folder.*Mount its disk"),
    (
        "pipeline status",
        without_raw,
        1,
        r"its raw folder .*raw/penn_action is missing\. Mount its disk",
    ),
    (EXTRACT, without_raw, 2, r"raw folder was .*raw/penn_action, which does not exist\. Name"),
    (
        "pipeline prepare penn_action --raw raw/penn_action --cache cache --plan",
        without_the_videos_of_train,
        1,
        r"penn_action/train: 3 videos missing from raw/penn_action; the rows are kept: 0001",
    ),
    ("pipeline status", without_cache, 2, NO_CACHE),
    (EXTRACT, without_cache, 2, NO_CACHE),
]
ENVIRONMENT = [  # command, variable, value, what it prints
    ("pipeline status", "LUIGI_CONFIG_PATH", "other.cfg", r"other\.cfg: file not found"),
    ("pipeline plan", "LUIGI_CONFIG_PATH", "raw", r"raw: this is a folder, where a file is needed"),
    ("pipeline plan", "PIPELINE_SET", "workers=2", r"PIPELINE_SET=workers=2: expected SECTION"),
]


@pytest.fixture
def own_lab(lab, types_in_lab, tmp_path, monkeypatch):
    """A copy of the folder, to change."""
    folder = tmp_path / "lab"
    shutil.copytree(lab, folder, symlinks=True)
    provenance = folder / "cache/penn_action/train/provenance.json"
    provenance.write_text(provenance.read_text().replace(str(lab), str(folder)))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(("command", "change", "code", "pattern"), STATES)
def test_a_mistake_in_the_folder_or_the_order(command, change, code, pattern, own_lab, types_in_lab):
    change(own_lab)
    shown = types_in_lab(command)
    assert shown.startswith(f"{code}: "), shown
    assert re.search(pattern, shown), shown
    assert "Traceback" not in shown and "bug in this program" not in shown


@pytest.mark.parametrize(("command", "variable", "value", "pattern"), ENVIRONMENT)
def test_a_mistake_in_the_environment(command, variable, value, pattern, types_in_lab, monkeypatch):
    monkeypatch.setenv(variable, value)
    assert re.match(f"2: error: .*{pattern}", types_in_lab(command))
