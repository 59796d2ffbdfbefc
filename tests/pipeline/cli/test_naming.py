"""How a split, a cache and a raw folder are named on the command line: one way for all commands."""

from pathlib import Path

import pytest

from pipeline.__main__ import parser

NAME = "penn_action/train"


@pytest.fixture
def configured(penn, luigi_cfg):
    """The cache, in a folder whose luigi.cfg names it."""
    penn.converted()
    luigi_cfg()
    return Path(penn.root)


@pytest.mark.parametrize(
    "words",
    [
        ("penn_action", "train", "--raw", "r"),
        ("penn_action/train", "--raw", "r"),
        ("--raw", "r", "penn_action/train"),
        ("penn_action", "--raw", "r", "train"),
    ],
    ids=" ".join,
)
def test_a_split_is_one_word_or_two(words):
    for command, *more in (("convert", "--cache", "c"), ("show", "--out", "o")):
        args = parser().parse_args([command, *words, *more])
        assert (args.dataset, args.split, args.raw) == ("penn_action", "train", Path("r"))


def test_without_a_cache_that_of_luigi_cfg_is_used_and_printed(configured, ran):
    for words in (("status",), ("verify", "penn_action", "train", "--fast"), ("gc", "--dry-run")):
        by_default = ran(*words)
        assert by_default.err == f"cache      {configured} (luigi.cfg, [paths] cache)\n"
        assert ran(*words, "--cache", configured) == (by_default.out, "")


def test_without_a_cache_and_a_luigi_cfg_both_ways_out_are_named(tmp_path, ran, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    assert (
        "Run from the project's folder, or name the cache: --cache DIR."
        in ran("status", code=2).err
    )


@pytest.mark.parametrize("command", ["convert", "show"])
@pytest.mark.parametrize("place", ["", "penn_action/labels"], ids=["above", "within"])
def test_a_raw_folder_that_is_one_level_off_is_answered_with_the_right_one(
    command, place, penn, ran, tmp_path
):
    where = ("--out", tmp_path / "page.html") if command == "show" else ("--cache", penn.root)
    error = ran(command, NAME, "--raw", penn.raw.parent / place, *where, code=2).err
    assert f"Did you mean --raw {penn.raw}?" in error
    assert not penn.root.exists()


def test_a_download_that_is_one_folder_too_deep_is_answered_with_the_doctor_s_command(penn, ran):
    (penn.raw / "Penn_Action").mkdir()
    for folder in ("labels", "frames"):
        (penn.raw / folder).rename(penn.raw / "Penn_Action" / folder)
    shown = ran("convert", NAME, *penn.places, code=2)
    assert f"-m pipeline doctor penn_action --raw {penn.raw.parent}" in shown.out + shown.err


def test_where_no_folder_near_by_fits_none_is_suggested(penn, ran):
    penn.raw.rename(penn.raw.with_name("other"))
    assert (
        "did you mean"
        not in ran("convert", NAME, "--raw", penn.raw.parent, "--cache", penn.root, code=2).err
    )
