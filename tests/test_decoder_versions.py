"""Clips are read alike with the lowest and the highest allowed versions of PyAV and OpenCV."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.environments import PIP, fresh_python, run_apart

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


@pytest.mark.bounds
@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_clips_of_all_kinds_are_read_with_both_ends_of_the_allowed_versions(tmp_path, end):
    choose = {"lowest": lowest, "highest": lambda name: str(required(name))}[end]
    packages = [choose("av"), choose("opencv-python")]
    home = tmp_path / "environment"
    python, of_tests = fresh_python(home), {"PYTHONPATH": str(ROOT)}
    options = ["--quiet", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--retries=1"]
    installed = run_apart([*PIP, "--python", python, "install", *options, *packages], tmp_path)
    if installed.returncode != 0:
        pytest.skip(f"a package index is needed: {installed.stdout.strip().splitlines()[-1]}")

    shown = run_apart([python, "-c", SHOW], tmp_path).stdout.split()
    assert all(Path(file).is_relative_to(home) for file in shown[:2]), shown
    for version, package in zip(shown[2:], packages, strict=True):
        assert version in Requirement(package).specifier
    options = ["-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tests'}"]
    done = run_apart([python, "-m", "pytest", *options, *READING], ROOT, **of_tests)
    assert done.returncode == 0, done.stdout[-5000:]
