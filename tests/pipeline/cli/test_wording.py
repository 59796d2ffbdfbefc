"""Errors of the system, told so that a person can mend them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline.cli.text import in_words
from pipeline.errors import MissingAssets, RawDataError

AGAIN = "then run the same command again."


def failed(number: int, file: Path | None = None) -> OSError:
    return OSError(number, os.strerror(number), *([] if file is None else [str(file)]))


def test_a_file_in_the_place_of_the_cache_is_named_however_deep_the_system_looked(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("")
    expected = f"{file}: this is a file, where a folder is needed. Name another place."
    assert in_words(failed(errno.EEXIST, file), [file]) == expected
    assert in_words(failed(errno.ENOTDIR, file / "penn_action/zarr.json"), [file]) == expected


def test_a_full_disk_is_that_of_the_place_that_was_named(tmp_path: Path) -> None:
    said = f": no space is left on its disk. Make room, {AGAIN}"
    assert in_words(failed(errno.ENOSPC), [tmp_path]) == f"{tmp_path}{said}"
    assert in_words(failed(errno.ENOSPC), [Path("cache"), Path("runs")]) == f"cache or runs{said}"
    assert in_words(failed(errno.ENOSPC)) == f"the disk{said}"


def test_temporary_files_are_called_after_what_they_are_made_for(tmp_path: Path) -> None:
    (tmp_path / "penn_action/train").mkdir(parents=True)
    lock = tmp_path / "penn_action/train/.writing/lock"
    assert in_words(failed(errno.EACCES, lock), [tmp_path]).startswith(f"{tmp_path}/penn_action/train: you may not")
    group = tmp_path / ".zarr.json.tmp"
    assert in_words(failed(errno.EACCES, group), [tmp_path]).startswith(f"{tmp_path}: you may not")
    page = tmp_path / "page.html"
    assert in_words(failed(errno.ENOSPC, tmp_path / ".page.html.part"), [page]).startswith(f"{page}: no space")


def test_of_what_cannot_be_made_the_folder_that_forbids_it_is_named(tmp_path: Path) -> None:
    assert in_words(failed(errno.EACCES, tmp_path / "new/train"), [tmp_path]).startswith(f"{tmp_path}: you may not")


def test_hidden_folders_of_the_users_own_are_no_temporary_ones(tmp_path: Path) -> None:
    file = tmp_path / ".data/labels/0001.mat"
    assert in_words(failed(errno.ENOENT, file)) == f"{file}: there is no such file or folder. Check its name."
    rows = tmp_path / ".data/cache/rows"
    assert in_words(failed(errno.EIO, rows), [tmp_path / ".data/cache"]).startswith(f"{rows}: its disk failed")


@pytest.mark.parametrize("error", [MissingAssets("SMPL_NEUTRAL.pkl is not there"), OSError("short of words")])
def test_what_has_its_own_words_keeps_them(error: OSError) -> None:
    assert in_words(error) == str(error)


def test_an_error_that_nobody_expected_has_the_systems_words(tmp_path: Path) -> None:
    assert in_words(failed(errno.ELOOP, tmp_path)) == f"{tmp_path}: {os.strerror(errno.ELOOP)}. Mend it, {AGAIN}"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("[Errno 2] No such file or directory: 'raw/a b.json'", "[Errno 2] No such file or directory"),
        (f"[Errno 21] Is a directory: {Path('raw/a b.json')!r}", "[Errno 21] Is a directory"),
        ("raw/a b.json cannot be opened: no stream in it", "that it cannot be opened: no stream in it"),
        ("raw/a b.json.old is there: 'raw/a'", "raw/a b.json.old is there: 'raw/a'"),
    ],
)
def test_an_error_of_a_raw_file_names_it_once(found: str, told: str) -> None:
    error = RawDataError(Path("raw/a b.json"), "file", expected="JSON", found=found, do="Get it again.")
    assert str(error) == f"raw/a b.json: 'file': expected JSON, found {told}. Get it again."
