"""Files of packages: fetched by pip itself, from a folder in place of a registry."""

import subprocess
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from pipeline.errors import MissingAssets
from pipeline.files import packages
from pipeline.files.packages import PackageFile, cache_folder, fetch_files, provide_wheel

FILE = PackageFile("thing", "1.0", "thing/data/weights.bin", sha256(b"weights").hexdigest())
WHEEL = "thing-1.0-py3-none-any.whl"
WHEEL_FILE = b"Wheel-Version: 1.0\nTag: py3-none-any\n"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder in which pip finds packages."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def make_wheel(folder, content=b"weights"):
    with zipfile.ZipFile(folder / WHEEL, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(FILE.path, content)
        about = (
            "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\nRequires-Dist: nowhere-to-be-found\n"
        )
        wheel.writestr("thing-1.0.dist-info/METADATA", about)
        wheel.writestr("thing-1.0.dist-info/WHEEL", WHEEL_FILE)
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    return folder / WHEEL


def test_files_of_a_package_are_downloaded_at_once_and_kept_without_its_wheel(
    registry, monkeypatch
):
    wheel = make_wheel(registry)
    about = FILE._replace(path="thing-1.0.dist-info/WHEEL", sha256=sha256(WHEEL_FILE).hexdigest())
    commands = []
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda command, **how: commands.append(command) or run(command, **how)
    )
    places = fetch_files(FILE, about)
    assert [place.read_bytes() for place in places] == [b"weights", WHEEL_FILE]
    wheel.unlink()
    assert fetch_files(FILE, about) == places and len(commands) == 1
    assert {file for file in cache_folder().rglob("*") if file.is_file()} == {*places}


@pytest.mark.parametrize("whole", [True, False])
def test_without_a_network_a_file_that_the_user_puts_there_is_taken_and_the_message_says_which(
    registry, whole
):
    with pytest.raises(MissingAssets, match="pip cannot download it") as error:
        fetch_files(FILE)
    place = cache_folder() / "thing-1.0/weights.bin"
    assert str(place) in str(error.value)
    if whole:
        make_wheel(cache_folder())
    else:
        place.parent.mkdir()
        place.write_bytes(b"weights")
    assert fetch_files(FILE) == [place]


def test_other_bytes_under_the_right_name_are_refused(registry):
    wheel = make_wheel(registry, b"others")
    with pytest.raises(
        MissingAssets,
        match=rf"^{WHEEL}, downloaded now: expected {FILE.path} with sha256 {FILE.sha256}, found",
    ):
        fetch_files(FILE)
    with (
        pytest.raises(MissingAssets, match=rf"^{WHEEL}, .*expected sha256 0+, found"),
        provide_wheel("thing", "1.0", sha256="0" * 64),
    ):
        pass
    place = cache_folder() / "thing-1.0/weights.bin"
    assert not place.exists()
    place.parent.mkdir()
    place.write_bytes(wheel.read_bytes())
    with pytest.raises(MissingAssets, match=rf"{place}: expected sha256 .* Delete the file"):
        fetch_files(FILE)


def test_a_damaged_wheel_that_the_user_put_there_is_named(registry):
    whole = make_wheel(registry).read_bytes()
    start, end = whole.split(FILE.path.encode(), 1)
    (folder := cache_folder()).mkdir(parents=True)
    for content in (b"", whole[:-9], start + FILE.path.encode() + b"\xff" + end[1:]):
        (folder / WHEEL).write_bytes(content)
        with pytest.raises(
            MissingAssets, match=rf"{folder / WHEEL}: expected an archive with .* Delete the file"
        ):
            fetch_files(FILE)
    assert not FILE.cached_path.exists()


def test_a_file_that_is_too_large_or_a_folder_is_not_called_one_with_another_digest(
    registry, monkeypatch
):
    monkeypatch.setattr(packages, "LARGEST", len(b"weights") - 1)
    make_wheel(registry)
    with pytest.raises(MissingAssets, match=rf"with {FILE.path}, found it with more than 6 bytes"):
        fetch_files(FILE)
    cache_folder().mkdir(parents=True, exist_ok=True)
    wheel = cache_folder() / "scope-thing-1.0.tgz"
    with tarfile.open(wheel, "w:gz") as archive:
        archive.add(registry, "package", recursive=False)
    with pytest.raises(MissingAssets, match=rf"^{wheel}: .* with package, found a folder\."):
        fetch_files(PackageFile("@scope/thing", "1.0", "package", FILE.sha256))


def test_all_that_fetch_a_file_at_once_get_it(registry):
    content = bytes(1 << 24)
    file = FILE._replace(sha256=sha256(content).hexdigest())
    cache_folder().mkdir(parents=True)
    make_wheel(cache_folder(), content)
    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(fetch_files, [file] * 4)] == [[file.cached_path]] * 4
    assert [*file.cached_path.parent.iterdir()] == [file.cached_path]


def test_a_package_of_npm_is_downloaded_by_npm_or_put_there(registry, monkeypatch):
    """npm is a script that copies the registry's archive into the folder that it gets."""
    monkeypatch.setenv("PATH", str(registry / "bin"))  # without a real npm, which asks the network
    file = PackageFile("@scope/thing", "1.0", "package/weights.bin", FILE.sha256)
    with pytest.raises(MissingAssets, match=r"npm cannot .*npm pack @scope/thing@1\.0$"):
        fetch_files(file)
    (registry / "weights.bin").write_bytes(b"weights")
    with tarfile.open(registry / "scope-thing-1.0.tgz", "w:gz") as archive:
        archive.add(registry / "weights.bin", "package/weights.bin")
    (registry / "bin").mkdir()
    (registry / "bin/npm").write_text(
        f'#!/bin/sh\n[ "$1 $2" = "pack @scope/thing@1.0" ] && /bin/cp {registry}/*.tgz "$4"\n'
    )
    (registry / "bin/npm").chmod(0o755)
    assert fetch_files(file) == [file.cached_path] and file.cached_path.read_bytes() == b"weights"
    assert file.cached_path == cache_folder() / "scope-thing-1.0/weights.bin"
    file.cached_path.unlink()
    (registry / "bin/npm").unlink()
    (registry / "scope-thing-1.0.tgz").rename(cache_folder() / "scope-thing-1.0.tgz")
    assert fetch_files(file)[0].read_bytes() == b"weights"
