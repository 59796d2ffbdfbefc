"""docs/adding-a-detector.md: its package, installed, and its lines for a detector that lives elsewhere."""

from __future__ import annotations

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

from pipeline import datasets
from tests.pipeline.datasets.by_hand import read_one, standing, write_video

ROOT = Path(__file__).parents[3]
PACKAGE, PAGE = ROOT / "docs/adding-a-detector", ROOT / "docs/adding-a-detector.md"
ELSEWHERE = "A detector in another environment"


def blocks(kind: str, text: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_every_piece_of_code_on_the_page_is_in_the_package() -> None:
    page, _, _ = PAGE.read_text().partition(ELSEWHERE)
    for suffix, kind in ((".py", "python not run"), (".toml", "toml")):
        shown = " ".join(" ".join(file.read_text().split()) for file in PACKAGE.glob(f"*{suffix}"))
        assert blocks(kind, page)
        for block in blocks(kind, page):
            assert " ".join(block.split()) in shown, block


def test_its_own_tests_pass_where_it_is_installed(tmp_path: Path) -> None:
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    (about := tmp_path / "site/example_detector-1.0.dist-info").mkdir(
        parents=True
    )  # as pip does, without waiting for it
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
    ((group, entries),) = project["entry-points"].items()
    (about / "entry_points.txt").write_text("\n".join([f"[{group}]", *(f"{k} = {v}" for k, v in entries.items())]))
    for file in PACKAGE.glob("onnx_pose.py"):
        shutil.copy(file, tmp_path / "site")
    test = shutil.copy(PACKAGE / "test_onnx_pose.py", tmp_path)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(test)]
    ran = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_what_a_detector_of_another_environment_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "clips/dance.mp4", 45, step=1)
    (tmp_path / "clips/keypoints").mkdir()
    monkeypatch.chdir(tmp_path)

    def find(image: np.ndarray) -> list[tuple[Any, Any]]:
        assert image.shape == (120, 160, 3)
        joints = standing("coco", 80, 60)
        return [(joints[:, :2], joints[:, 2])]

    (code,) = blocks("python not run", PAGE.read_text().partition(ELSEWHERE)[2])
    exec(code, {"find": find})
    (track,), account = read_one(datasets.get("videos"), tmp_path / "clips")
    assert (len(track.frame_index), account["notes"]) == (45, [])
    assert np.isin(np.float32(0.9), track.kp_2d[..., 2])
