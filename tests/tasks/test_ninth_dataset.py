"""A dataset in a package of its own, as in docs/adding-a-dataset.md: installed, enabled, nothing here changed."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline.raw import stand_in
from pipeline.smpl import assets

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "docs" / "adding-a-dataset"
PAGE = ROOT / "docs" / "adding-a-dataset.md"
N_FRAMES = 12  # of each recording


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def without_indentation(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


class Site:
    """The package, installed into a folder of its own."""

    def __init__(self, folder: Path) -> None:
        source, self.packages = folder / "source", folder / "site"
        shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))  # building writes beside it
        pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
        self.python(*pip, "--no-build-isolation", "--target", str(self.packages), str(source))

    def python(self, *words: str) -> str:
        """What a command printed that uses the package."""
        found = os.pathsep.join([str(self.packages), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": found, "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
        ran = subprocess.run(
            [sys.executable, *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert ran.returncode == 0, ran.stdout
        return ran.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("ninth"))


@pytest.fixture
def with_it(bare: Any) -> Any:
    """A project whose luigi.cfg enables the dataset as the page says."""
    enabled = configparser.ConfigParser()
    block, _ = blocks("ini")
    enabled.read_string(block)
    bare.configure({name: dict(enabled[name]) for name in enabled.sections()})
    return bare


def test_the_page_shows_the_packages_own_code_and_names() -> None:
    files = {".py": "", ".toml": ""}
    for file in (file for file in PACKAGE.iterdir() if file.suffix in files):
        files[file.suffix] += without_indentation(file.read_text())
    shown = [(".py", block) for block in blocks("python not run")] + [(".toml", block) for block in blocks("toml")]
    assert len(shown) > 8
    for suffix, block in shown:
        assert without_indentation(block) in files[suffix], block
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())
    assert list(project["project"]["entry-points"]["vibe_pipeline.datasets"]) == ["lab_recordings"]
    assert all((PACKAGE / f"{module}.py").is_file() for module in project["tool"]["setuptools"]["py-modules"])
    for package in ("cache", "pipeline", "vibe_model", "report", "tasks"):
        for file in (ROOT / package).rglob("*.py"):
            assert "lab_recordings" not in file.read_text(), file


@pytest.mark.slow
def test_its_own_tests_settings_and_mark_of_demo_data_are_right(site: Site, tmp_path: Path) -> None:
    tests = shutil.copy(PACKAGE / "test_lab_recordings.py", tmp_path)
    site.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tests))
    real = (
        "[paths]\nraw = raw\nbody = body\ncache = cache\nruns = runs\n[features]\nweights = torchvision:IMAGENET1K_V2\n"
    )
    file = tmp_path / "luigi.cfg"
    file.write_text(real + blocks("ini")[1])
    (body := tmp_path / "body").mkdir()
    for name in assets.missing(body):
        (body / name.partition(" ")[0]).touch()
    assert "no mistakes" in site.python("-m", "pipeline", "config", "--check", "--config", str(file))
    shown = site.python("-m", "tasks", "config", "train", "--config", str(file))
    assert re.search(r"^train.datasets_2d +lab_recordings/train ", shown, re.MULTILINE), shown
    (mark,) = re.findall(r'^    (\{"stand_in".*\})$', PAGE.read_text(), re.MULTILINE)
    (tmp_path / stand_in.MARKER).write_text(mark)
    assert stand_in.is_stand_in(tmp_path)


@pytest.mark.slow
def test_make_data_takes_it_from_raw_files_to_features(site: Site, with_it: Any) -> None:
    raw = with_it.folder / "raw" / "lab_recordings"
    raw.parent.mkdir()
    site.python("-m", "lab_recordings_example", str(raw))
    ran = with_it.luigi("Data", packages=site.packages)
    assert ran.code == 0, ran.shown
    for stage in ("convert", "extract"):
        for split in ("train", "val"):
            assert re.search(rf"^✓ {stage} +lab_recordings/{split} ", ran.shown, re.MULTILINE), ran.shown
    assert ran.done[-1] == "data 2 datasets"
    assert re.search(r"rejected train/broken\S*: video_unreadable", ran.shown), ran.shown
    first = ran.shown.splitlines()[0]
    assert first == "data       demo data (seed 0, tiny), in raw: penn_action; beside them lab_recordings (demo data)"

    split = cache.open(with_it.folder / "cache")["lab_recordings/train"]
    names = [track.name for track in split.tracks]
    assert names == ["train/alone/0", "train/pair/0", "train/pair/1", "train/turned/0"]
    assert split.manifest["reader"]["parameters"] == {"min_score": 0.4}
    totals = split.manifest["accounting"]
    assert totals["frames"] == {"found": 5 * N_FRAMES, "kept": 4 * N_FRAMES, "dropped": {"video_unreadable": N_FRAMES}}
    windows = split.windows(seqlen=N_FRAMES, stride=N_FRAMES, stream="resnet50")
    assert len(windows) == 4
    features = split.read(windows, stream="resnet50")["features"]
    assert features.shape == (4, N_FRAMES, 2048)
    assert np.isfinite(features).all()
    assert features.std() > 0
    assert len(cache.open(with_it.folder / "cache")["penn_action/train"].tracks)

    again = with_it.luigi("Data", packages=site.packages)
    assert (again.code, again.done) == (0, [])
    page = with_it.folder / "page.html"
    show = ["show", "lab_recordings", "train", "--cache", str(with_it.folder / "cache"), "--out", str(page)]
    site.python("-m", "pipeline", *show)
    assert "train/pair/1" in page.read_text()
    found = site.python("-m", "pipeline", "doctor", "lab_recordings", "--raw", str(raw.parent))
    assert "tables of joints" in found


def test_without_its_raw_files_or_its_package_the_message_names_it(with_it: Any, build: Any, monkeypatch) -> None:
    with_it.configure({"data": {"datasets": "amass lab_recordings"}})
    without = build(with_it, "Data").only_failure(35)
    assert "lab_recordings" in without
    metadata = with_it.folder / "site" / "lab_recordings-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lab_recordings\nVersion: 1\n")
    points = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in of.items()) for group, of in points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    for folder in (metadata.parent, PACKAGE):
        monkeypatch.syspath_prepend(folder)
    ran = build(with_it, "Data")
    assert ran.code == 30
    assert "convert amass/train" in ran.done
    failure = next(line for line in ran.failures if "lab_recordings" in line)
    assert "raw/lab_recordings: there is no such folder, and [embedded] makes no data for lab_recordings" in failure
    assert "Traceback" not in ran.shown
