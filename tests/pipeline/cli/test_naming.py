"""How a split, a cache and a raw folder are named on the command line: one way for all commands."""

from pathlib import Path

import pytest

NAME = "penn_action/train"


@pytest.fixture
def configured(penn, luigi_cfg):
    """The cache, in a folder whose luigi.cfg names it."""
    penn.converted()
    luigi_cfg()
    return Path(penn.root)


def test_without_a_cache_that_of_luigi_cfg_is_used_and_printed(configured, ran):
    for words in (("status",), ("verify", NAME, "--fast"), ("gc", "--dry-run")):
        by_default = ran(*words)
        assert by_default.err == f"cache      {configured} (luigi.cfg, [paths] cache)\n"
        assert ran(*words, "--cache", configured) == (by_default.out, "")


@pytest.mark.parametrize("command", ["convert", "show"])
@pytest.mark.parametrize("place", ["", "penn_action/labels"], ids=["above", "within"])
def test_a_raw_folder_that_is_one_level_off_is_answered_with_the_right_one(
    command, place, penn, ran, tmp_path
):
    where = ("--out", tmp_path / "page.html") if command == "show" else ("--cache", penn.root)
    error = ran(command, NAME, "--raw", penn.raw.parent / place, *where, code=2).err
    assert f"Did you mean --raw {penn.raw}?" in error
    assert not penn.root.exists()
