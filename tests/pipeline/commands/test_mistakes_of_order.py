"""Commands in the wrong folder, state or order: each ends with the cause, and with what to do."""

import re
import shutil

import pytest


def nothing(_):
    """The folder as it is."""


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


def with_new_cache_no(folder):
    without_cache(folder)
    file = folder / "luigi.cfg"
    file.write_text(file.read_text().replace("runs = runs", "runs = runs\nnew_cache = no"))


def unmounted(folder):
    (folder / "cache/penn_action").rename(folder / "disk")
    (folder / "cache/penn_action").mkdir()


def without_the_videos_of_train(folder):
    for video in ("0001", "0003", "0005"):
        (folder / f"raw/penn_action/labels/{video}.mat").unlink()


def with_real_weights(folder):
    file = folder / "luigi.cfg"
    file.write_text(
        file.read_text().replace("homography", "resnet50\n[resnet50]\nweights = spin:spin.pt")
    )


CONVERT = "pipeline convert penn_action train --raw raw/penn_action --cache cache"
TO_CACHE = CONVERT.removesuffix(" cache")
EXTRACT = "pipeline extract penn_action/train --stream homography"

# messages that several commands print
NO_SETTINGS = r"luigi\.cfg: file not found\. Run from the project's folder"
NO_CACHE = r"cache: expected a feature cache, found no such folder\. Convert a dataset"
UNMOUNTED = r"cache/penn_action: .*found nothing of it\. Mount its disk"

# command, what is wrong in the folder, exit code, what it prints
STATES = [
    ("pipeline status", without_settings, 2, NO_SETTINGS + ", or name"),
    ("pipeline plan", without_settings, 2, NO_SETTINGS),
    ("pipeline config --check", without_settings, 2, NO_SETTINGS),
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
    ("pipeline status", with_empty_raw, 1, r"found an empty folder.*Mount its disk"),
    (EXTRACT, without_raw, 2, r"raw folder was .*raw/penn_action, which does not exist\. Name"),
    (CONVERT, with_new_cache_no, 2, r"new_cache = no: cache has no cache\. Is its disk mounted\?"),
    (CONVERT, unmounted, 2, UNMOUNTED),
    (EXTRACT, unmounted, 2, UNMOUNTED),
    ("pipeline status", unmounted, 1, UNMOUNTED),
    ("pipeline verify --fast", unmounted, 1, UNMOUNTED),
    ("pipeline plan", unmounted, 2, UNMOUNTED),
    ("pipeline plan", with_real_weights, 2, r"spin\.pt"),
    (
        "pipeline prepare penn_action --raw raw/penn_action --cache cache --plan",
        without_the_videos_of_train,
        1,
        r"penn_action/train: 3 videos missing from raw/penn_action; the rows are kept: 0001",
    ),
    ("pipeline status", without_cache, 2, NO_CACHE),
    (EXTRACT, without_cache, 2, NO_CACHE),
]
# command, what it prints with nothing wrong in the folder
ORDERS = [
    (f"{TO_CACHE} raw/penn_action/cache", r"expected two separate folders"),
    (f"{TO_CACHE} /dev/null/cache", r"a folder is needed"),
    (f"{CONVERT} two words", r"two words\. Expected no further name; put a name that has spaces"),
    (f"{TO_CACHE} raw", r"expected two separate folders"),
    (f"{CONVERT}x/y --raw luigi.cfg/x", r"luigi\.cfg"),
    (f"{TO_CACHE} luigi.cfg", r"a folder is needed"),
    ("pipeline init", r"luigi\.cfg exists\. Name another folder"),
    ("pipeline init luigi.cfg", r"luigi\.cfg: this is a file, where a folder is needed"),
    ("pipeline init --raw raw", r"add --real"),
    ("pipeline gc --cache raw", r"raw: expected a feature cache"),
    ("pipeline verify --cache cache/penn_action/train", r"Open the whole: .*cache"),
    ("pipeline copy --to raw/penn_action", r"raw/penn_action: holds other files"),
    ("tasks evaluate --checkpoint nowhere.pt", r"nowhere\.pt: .*(not found|no such file)"),
    ("tasks evaluate --checkpoint luigi.cfg", r"luigi\.cfg: .*checkpoint"),
    ("tasks evaluate --checkpoint raw", r"raw: expected a checkpoint, found a folder"),
    ("tasks train --model vib", r"did you mean 'vibe'\?"),
    ("tasks train --variant nope", r"--variant: expected one of .*found 'nope'"),
    ("tasks train --set vibe.epochs=no", r"\[vibe\] epochs = no: expected a whole number"),
    ("pipeline train", "no such command. Run python -m tasks train"),
    ("tasks convert", "no such command. Run python -m pipeline convert"),
    ("tasks trian", r"invalid choice: 'trian'; did you mean 'train'\?"),
    ("tasks report --cache nowhere", r"nowhere: "),
    ("tasks report --cache cache --out nowhere/page.html", r"nowhere"),
]
STATES += [(command, nothing, 2, pattern) for command, pattern in ORDERS]
ENVIRONMENT = [  # command, variable, value, what it prints
    ("pipeline status", "LUIGI_CONFIG_PATH", "other.cfg", r"other\.cfg: file not found"),
    ("pipeline plan", "LUIGI_CONFIG_PATH", "raw", r"raw: this is a folder, where a file is needed"),
    ("pipeline plan", "PIPELINE_SET", "workers=2", r"PIPELINE_SET=workers=2: expected SECTION"),
]


@pytest.fixture
def own_lab(lab, types, tmp_path, monkeypatch):
    """A copy of the folder, to change."""
    folder = tmp_path / "lab"
    shutil.copytree(lab, folder, symlinks=True)
    provenance = folder / "cache/penn_action/train/provenance.json"
    provenance.write_text(provenance.read_text().replace(str(lab), str(folder)))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(("command", "change", "code", "pattern"), STATES)
def test_a_mistake_in_the_folder_or_the_order(
    command,
    change,
    code,
    pattern,
    own_lab,
    types,
):
    change(own_lab)
    shown = types(command)
    assert shown.startswith(f"{code}: "), shown
    assert re.search(pattern, shown), shown
    assert "Traceback" not in shown and "bug in this program" not in shown


@pytest.mark.parametrize(("command", "variable", "value", "pattern"), ENVIRONMENT)
def test_a_mistake_in_the_environment(
    command,
    variable,
    value,
    pattern,
    types,
    monkeypatch,
):
    monkeypatch.setenv(variable, value)
    assert re.match(f"2: error: .*{pattern}", types(command))
