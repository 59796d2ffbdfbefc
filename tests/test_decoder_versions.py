"""Clips are read alike with the lowest and the highest allowed versions of PyAV and OpenCV."""

import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
READING = (
    "tests/pipeline/files/test_videos_of_all_kinds.py",
    "tests/pipeline/files/test_pixels_of_opencv.py",
    "tests/pipeline/features/test_clips_in_the_cache.py",
)
SHOW = "import av, cv2; print(av.__file__, cv2.__file__, av.__version__, cv2.__version__)"


def required(name):
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (found,) = [one for one in map(Requirement, stated) if one.name == name]
    return found


def lowest(name):
    """The lower bound of a package, for pip. Versions of OpenCV end with numbers of the build."""
    (bound,) = [one.version for one in required(name).specifier if one.operator == ">="]
    return f"{name}=={bound}.*" if name == "opencv-python" else f"{name}=={bound}"


def ran(words, folder):
    """A finished process in a folder, which knows nothing of the tests that run here."""
    own = ("PYTEST", "COVERAGE")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "timeout": 1800,
    }
    return subprocess.run([*map(str, words)], cwd=folder, env=environment, check=False, **pipes)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_clips_of_all_kinds_are_read_with_both_ends_of_the_allowed_versions(tmp_path, end):
    choose = {"lowest": lowest, "highest": lambda name: str(required(name))}[end]
    packages = [choose("av"), choose("opencv-python")]
    home = tmp_path / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    options = ["--quiet", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--retries=1"]
    installed = ran([*pip, "install", *options, *packages], tmp_path)
    if installed.returncode != 0:
        pytest.skip(f"a package index is needed: {installed.stdout.strip().splitlines()[-1]}")

    shown = ran([python, "-c", SHOW], tmp_path).stdout.split()
    assert all(Path(file).is_relative_to(home) for file in shown[:2]), shown
    for version, package in zip(shown[2:], packages, strict=True):
        assert version in Requirement(package).specifier
    options = ["-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tests'}"]
    done = ran([python, "-m", "pytest", *options, *READING], ROOT)
    assert done.returncode == 0, done.stdout[-5000:]
