"""What is no regular file is refused at once: a test that hangs here is the defect."""

import errno
import os
import socket
from pathlib import Path

import pytest

from pipeline.errors import faults
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw.files import (
    caching,
    contents_digest,
    digest_or_problem,
    file_digest,
    find,
    folder_digest,
    is_folder_entry,
    open_regular,
    read_regular,
    span_digest,
)
from tests.hostile import THINGS


def make_socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name may have 100 characters or so
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


MAKE = {kind: make for kind, make in THINGS.items() if kind not in ("absent", "dangling")} | {
    "socket": make_socket
}


@pytest.mark.parametrize("kind", MAKE)
def test_what_is_no_file_is_an_error_of_the_system_and_does_not_wait(kind, tmp_path):
    MAKE[kind](tmp_path / "it")
    with pytest.raises(OSError):
        open_regular(tmp_path / "it")
    with pytest.raises(OSError):
        read_regular(tmp_path / "it")
    with pytest.raises(OSError):
        file_digest(tmp_path / "it")
    assert digest_or_problem(tmp_path / "it").startswith("unreadable")
    assert span_digest(tmp_path / "it", 0, 10).startswith("unreadable")


def test_a_link_in_a_circle_is_no_folder_and_no_error(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked").symlink_to("folder")
    MAKE["loop"](tmp_path / "loop")
    with os.scandir(tmp_path) as entries:
        assert {entry.name: is_folder_entry(entry) for entry in entries} == {
            "folder": True,
            "linked": True,
            "loop": False,
        }


def test_a_listing_is_read_once_inside_caching_and_afterwards_again(tmp_path):
    pictures = Pictures(tmp_path, "{:02d}.jpg")
    (tmp_path / "00.jpg").write_bytes(b"")
    with caching():
        before = folder_digest(tmp_path)
        assert pictures.indices().tolist() == [0]
        (tmp_path / "01.jpg").write_bytes(b"")
        assert folder_digest(tmp_path) == before
        assert pictures.indices().tolist() == [0]
    assert pictures.indices().tolist() == [0, 1]
    assert folder_digest(tmp_path) != before


@pytest.mark.parametrize("digest", [digest_or_problem, lambda file: span_digest(file, 0, 10)])
def test_an_error_of_the_disk_that_a_digest_meets_is_noted(digest, tmp_path):
    (tmp_path / "file").symlink_to("/proc/self/mem")  # opens; its first read is an error
    with faults() as noted:
        assert digest(tmp_path / "file") == "unreadable: OSError"
    assert {error.errno for error in noted} == {errno.EIO}


@pytest.mark.parametrize("digest", [folder_digest, contents_digest])
def test_a_folder_that_cannot_be_opened_now_is_noted(digest, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        patch.setattr(os, "scandir", full)
        with faults() as noted:
            assert digest(tmp_path) == "unreadable: OSError"
    assert [error.errno for error in noted] == [errno.EMFILE]


def test_a_listing_that_fails_now_is_noted(tmp_path, monkeypatch):
    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with faults() as noted, monkeypatch.context() as patch:
        patch.setattr(os, "scandir", failing)
        patch.setattr(os, "stat", failing)
        assert [*find(tmp_path, "*.jpg", {}), *find(tmp_path, "folder/file", {})] == []
    assert [error.errno for error in noted] == [errno.EIO, errno.EIO]
