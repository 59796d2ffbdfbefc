"""Commands in the wrong folder, state or order: each ends with the cause, and with what to do."""

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


def with_other_files(folder):
    (folder / "work/notes.txt").parent.mkdir()
    (folder / "work/notes.txt").touch()


def without_cache(folder):
    shutil.rmtree(folder / "cache")


def without_the_videos_of_train(folder):
    for video in ("0001", "0003", "0005"):
        (folder / f"raw/penn_action/labels/{video}.mat").unlink()


STATES = (without_settings, as_real_data, without_raw, with_empty_raw, with_other_files, without_cache, without_the_videos_of_train)  # fmt: skip
# A command, what is wrong in the folder or a variable of the environment, the exit code, and what it
# prints.
MISTAKES = """
status | without_settings | 2 | luigi.cfg: file not found. Run from the project's folder, or name
convert penn_action/train --raw raw/penn_action --cache cache | as_real_data | 2 | was made from + demo data + Use another cache: --cache cache-real
convert penn_action/train --raw raw/penn_action --cache cache | without_raw | 2 | raw/penn_action: + found no such folder + Mount its disk
convert penn_action/train --raw raw/penn_action --cache cache | with_empty_raw | 2 | found an empty folder + Mount its disk
plan | without_raw | 2 | found no such folder + Mount its disk
status | without_raw | 1 | its raw folder + raw/penn_action is missing. Mount its disk
extract penn_action/train --stream homography | without_raw | 2 | raw folder was + raw/penn_action, which does not exist. Name
prepare penn_action --raw raw/penn_action --cache cache --plan | without_the_videos_of_train | 1 | penn_action/train: 3 videos missing from raw/penn_action; the rows are kept: 0001
status | without_cache | 2 | cache: expected a feature cache, found no such folder. Convert a dataset
extract penn_action/train --stream homography | without_cache | 2 | cache: expected a feature cache, found no such folder. Convert a dataset
copy --cache cache --to work | with_other_files | 2 | work: holds other files, such as notes.txt
status | LUIGI_CONFIG_PATH=other.cfg | 2 | error: + other.cfg: file not found
plan | LUIGI_CONFIG_PATH=raw | 2 | error: + raw: this is a folder, where a file is needed
plan | PIPELINE_SET=workers=2 | 2 | error: + --set workers=2: expected SECTION
"""


@pytest.mark.parametrize("mistake", MISTAKES.strip().splitlines())
def test_a_mistake_in_the_folder_the_order_or_the_environment(
    mistake, penn, luigi_cfg, types, tmp_path, monkeypatch
):
    command, wrong, code, texts = mistake.split(" | ")
    penn.converted()
    luigi_cfg(more="[features]\nstreams = homography")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUIGI_CONFIG_PATH")
    variable, _, value = wrong.partition("=")
    if value:
        monkeypatch.setenv(variable, value)
    else:
        {state.__name__: state for state in STATES}[wrong](tmp_path)
    shown = types(command, *texts.split(" + "), code=int(code))
    assert "Traceback" not in shown and "bug in this program" not in shown
