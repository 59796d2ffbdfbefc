"""Errors of the system, as messages that say where, what is wrong and what to do."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.cli.system_errors import error_text
from pipeline.cli.text import from_here
from pipeline.errors import MissingAssets, RawDataError


def failed(number, file=None):
    return OSError(number, os.strerror(number), *([] if file is None else [str(file)]))


def test_the_place_is_the_file_or_folder_that_the_user_named_or_that_is_in_the_way(
    tmp_path,
):
    (tmp_path / "penn_action/train").mkdir(parents=True)
    file = tmp_path / "README.md"
    file.write_text("")
    hidden = tmp_path / ".data/labels/0001.mat"
    for number, where, places, shown in (
        (errno.EEXIST, file, [file], f"{file}: this is a file"),
        (errno.ENOTDIR, file / "penn_action/zarr.json", [file], f"{file}: this is a file"),
        (errno.ENOSPC, None, [tmp_path], f"{tmp_path}: no space left"),
        (errno.ENOSPC, None, [Path("cache"), Path("runs")], "cache or runs: no space left"),
        (errno.ENOSPC, None, [], "the disk: no space left"),
        (errno.EACCES, tmp_path / "new/train", [tmp_path], f"{tmp_path}: permission denied"),
        (errno.ENOENT, hidden, [], f"{hidden}: no such file"),
        (errno.EACCES, Path("/nowhere/file"), [Path()], "/: permission denied"),
        (errno.EACCES, Path("/nowhere/file"), [Path("/")], "/: permission denied"),
        (errno.EACCES, Path("nowhere/file"), [], f"{Path.cwd()}: permission denied"),
        (errno.ELOOP, tmp_path, [], f"{tmp_path}: {os.strerror(errno.ELOOP)}. "),
    ):
        assert error_text(failed(number, where), places).startswith(shown), (number, where)


def test_a_disk_without_inodes_is_told_from_a_full_one(tmp_path, monkeypatch):
    full = failed(errno.ENOSPC, tmp_path / "cache/penn_action/train/bbox")
    assert "no space left" in error_text(full)
    for n_files, n_free, room, is_out_of_inodes in (
        (1000, 0, 1 << 30, True),
        (0, 0, 1 << 30, False),  # the disk has no such limit
        (1000, 500, 1 << 30, False),  # another writer has made room meanwhile
        (1000, 9, 0, False),
    ):
        state = SimpleNamespace(f_files=n_files, f_favail=n_free, f_bavail=room, f_frsize=1)
        monkeypatch.setattr("os.statvfs", lambda path, state=state: state)
        assert ("no inodes left on its disk (df -i)" in error_text(full)) == is_out_of_inodes


@pytest.mark.parametrize(
    "error", [MissingAssets("SMPL_NEUTRAL.pkl is not there"), OSError("without a number")]
)
def test_other_errors_keep_their_message(error):
    assert error_text(error) == str(error)


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (
            "[Errno 2] No such file or directory: 'raw/a b.json'",
            "[Errno 2] No such file or directory",
        ),
        (f"[Errno 21] Is a directory: {Path('raw/a b.json')!r}", "[Errno 21] Is a directory"),
        (
            "raw/a b.json cannot be opened: no stream in it",
            "that it cannot be opened: no stream in it",
        ),
        ("raw/a b.json.old is there: 'raw/a'", "raw/a b.json.old is there: 'raw/a'"),
    ],
)
def test_an_error_of_a_raw_file_names_it_once(found, shown):
    error = RawDataError(
        Path("raw/a b.json"), "file", expected="JSON", found=found, do="Get it again."
    )
    assert str(error) == f"raw/a b.json: expected JSON, found {shown}. Get it again."


def test_a_path_is_shown_from_the_working_folder_and_a_url_as_it_is():
    assert from_here(Path.cwd() / "cache") == "cache"
    assert from_here(Path("/raw")) == "/raw"
    assert from_here("s3://bucket/cache") == "s3://bucket/cache"
