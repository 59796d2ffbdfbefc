"""What is no regular file is refused at once: a test that hangs here is the defect."""

import os
import socket
from pathlib import Path

import pytest

from pipeline.files.pixels.frames import Pictures
from pipeline.files.raw.files import (
    caching,
    file_digest,
    folder_digest,
    is_folder,
    open_regular,
    read_regular,
    span_digest,
)
from tests.pipeline.datasets.test_hostile_files import THINGS


def make_socket(path: Path) -> None:
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
def test_what_is_no_file_is_an_error_of_the_system_and_does_not_wait(
    kind: str, tmp_path: Path
) -> None:
    MAKE[kind](tmp_path / "it")
    with pytest.raises(OSError):
        open_regular(tmp_path / "it")
    with pytest.raises(OSError):
        read_regular(tmp_path / "it")
    assert file_digest(tmp_path / "it").startswith("unreadable")
    assert span_digest(tmp_path / "it", 0, 10).startswith("unreadable")


def test_a_file_is_read_through_a_link_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file") == read_regular(tmp_path / "link") == b"content"
    with open_regular(tmp_path / "link") as stream:
        stream.seek(3)
        assert stream.read() == b"tent"


def test_a_link_in_a_circle_is_no_folder_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked").symlink_to("folder")
    MAKE["loop"](tmp_path / "loop")
    with os.scandir(tmp_path) as entries:
        assert {entry.name: is_folder(entry) for entry in entries} == {
            "folder": True,
            "linked": True,
            "loop": False,
        }


def test_a_listing_is_read_once_inside_caching_and_afterwards_again(tmp_path: Path) -> None:
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
