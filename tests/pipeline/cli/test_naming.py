"""How a split, a cache and a raw folder are named on the command line: one way for all commands."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main, parser
from pipeline.commands.options import joined

NAME = "penn_action/train"


@pytest.fixture
def raw(embedded: Any, tmp_path: Path) -> Path:
    return embedded.copy("penn_action", tmp_path / "raw/penn_action")


@pytest.fixture
def root(raw: Path, into: Any, tmp_path: Path) -> Path:
    into.convert(tmp_path / "cache", raw)
    return tmp_path / "cache"


def run(*arguments: object) -> int:
    try:
        return main([str(word) for word in arguments])
    except SystemExit as ended:  # argparse's own way out
        return int(ended.code or 0)


@pytest.fixture
def configured(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, in a folder whose luigi.cfg names it."""
    places = "[paths]\nraw = raw\nbody = body\ncache = cache\nruns = runs\n"
    (tmp_path / "luigi.cfg").write_text(f"{places}[data]\ndatasets = penn_action\n")
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(tmp_path / "luigi.cfg"))
    return root


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
@pytest.mark.parametrize(
    ("command", "more"),
    [("convert", ("--cache", "c")), ("extract", ()), ("show", ("--out", "o"))],
    ids=["convert", "extract", "show"],
)
def test_a_split_is_one_word_or_two(command: str, more: tuple[str, ...], words: tuple[str, ...]) -> None:
    args = parser().parse_args([command, *words, *more])
    assert (args.dataset, args.split, args.raw) == ("penn_action", "train", Path("r"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("penn_action",), "the following arguments are required: split"),
        (("penn_action/train", "test"), "penn_action/train has said it already, found 'test' too"),
        (("pen_action/train",), "'pen_action' is no dataset; known: penn_action, "),
    ],
)
def test_a_split_named_by_half_twice_or_wrongly_is_told(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("extract", *words, "--cache", "c") == 2
    assert said in capsys.readouterr().err


def test_two_names_are_one_split_only_where_they_cannot_be_two() -> None:
    assert joined(["penn_action", "train"]) == [NAME]
    for names in ([], ["3dpw"], ["3dpw", "amass"], [NAME, "3dpw/test"], ["3dpw", "train", "test"]):
        assert joined(names) == names


def test_verify_and_retry_take_a_split_in_two_words(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "penn_action", "train", "--cache", root, "--fast") == 0
    assert run("retry", "penn_action", "train", "--failed", "--cache", root) == 0
    assert f"no video of {NAME} failed" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("status",), ("verify", "--fast"), ("gc", "--dry-run"), ("retry", "--failed")])
def test_without_a_cache_that_of_luigi_cfg_is_looked_at_and_named_first(
    words: tuple[str, ...], configured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 0
    by_default = capsys.readouterr()
    assert by_default.err == f"cache      {configured} (luigi.cfg, [paths] cache)\n"
    assert run(*words, "--cache", configured) == 0
    assert capsys.readouterr() == (by_default.out, "")


def test_without_a_cache_and_a_luigi_cfg_both_ways_out_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    assert run("status") == 2
    assert "Run from the project's folder, or name the cache: --cache DIR." in capsys.readouterr().err


@pytest.mark.parametrize("command", ["convert", "import"])
def test_what_brings_rows_from_elsewhere_must_name_the_cache(
    command: str, configured: Path, raw: Path, into: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = into.everything(configured)
    more = ("--raw", raw) if command == "convert" else ("--format", "vibe")
    assert run(command, *([raw] if command == "import" else []), NAME, *more) == 2
    assert "the following arguments are required: --cache" in capsys.readouterr().err
    assert into.everything(configured) == before


@pytest.mark.parametrize("command", ["convert", "plan", "show"])
@pytest.mark.parametrize("place", ["", "penn_action/labels"], ids=["above", "within"])
def test_a_raw_folder_that_is_one_level_off_is_told_with_the_right_one(
    command: str, place: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--out", tmp_path / "page.html") if command == "show" else ("--cache", tmp_path / "new")
    assert run(command, NAME, "--raw", raw.parent / place, *where) == 2
    told = capsys.readouterr().err
    assert f"has nothing of penn_action (label files: labels/*.mat); did you mean --raw {raw}?" in told
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["convert", "plan"])
def test_a_download_that_lies_too_deep_is_answered_with_the_doctor_s_command(
    command: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (raw / "Penn_Action").mkdir()
    for folder in ("labels", "frames"):
        (raw / folder).rename(raw / "Penn_Action" / folder)
    assert run(command, NAME, "--raw", raw, "--cache", tmp_path / "new") == 2
    told = capsys.readouterr()
    assert f"-m pipeline doctor penn_action --raw {raw.parent}` says more." in told.out + told.err


def test_where_nothing_is_near_the_reader_says_what_is_missing(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(raw)
    assert run("convert", NAME, "--raw", tmp_path / "raw", "--cache", tmp_path / "new") == 2
    assert "did you mean" not in capsys.readouterr().err
