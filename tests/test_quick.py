"""`make quick` runs the tests nearest to what differs from HEAD, and says how many it left."""

import shutil
import sys
from pathlib import Path

import pytest

from tests import quick
from tests.environments import git, run

ROOT = Path(__file__).parents[1]
FILES = {
    "pipeline/people/boxes.py": "def half(size):\n    return size / 2\n",
    "pipeline/crops.py": "from pipeline.people import boxes\n\n\ndef cut(size):\n    return boxes.half(size)\n",
    "tests/pipeline/people/test_boxes.py": "def test_named_like_it():\n    pass\n",
    "tests/pipeline/test_crops.py": """from pipeline.crops import cut


def test_of_an_importer():
    assert cut(4) == 2
""",
    "tests/vibe_model/test_far.py": "def test_far():\n    raise AssertionError('far')\n",
    **dict.fromkeys(quick.AT_THE_END, "def test_at_the_end():\n    pass\n"),
}


@pytest.fixture
def project(tmp_path):
    """A small project in git."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copy(ROOT / "tests/quick.py", tmp_path / "tests")
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message", "all")
    return tmp_path


def run_quick(project):
    """Its exit code and what it prints."""
    done = run([sys.executable, "-m", "tests.quick"], project, PYTHONPATH=str(project))
    return done.returncode, done.stdout + done.stderr


def test_a_fault_fails_the_test_of_an_importer_and_tests_far_away_are_left(project):
    edited = project / "pipeline/people/boxes.py"
    edited.write_text(FILES["pipeline/people/boxes.py"].replace("/ 2", "/ 3"))
    code, printed = run_quick(project)
    assert code == 1
    assert "FAILED tests/pipeline/test_crops.py::test_of_an_importer" in printed
    edited.write_text(FILES["pipeline/people/boxes.py"].replace("/ 2", "* 0.5"))
    code, printed = run_quick(project)
    assert code == 0, printed
    assert "5 passed" in printed
    assert "1 of 6 test files left: make test" in printed


def test_a_new_test_runs_itself_and_a_deleted_file_has_its_importers_tested(project):
    assert run_quick(project) == (1, "nothing differs from HEAD\n")
    new = project / "tests/vibe_model/test_new.py"
    new.write_text(FILES["tests/vibe_model/test_far.py"])
    code, printed = run_quick(project)
    assert code == 1
    assert "FAILED tests/vibe_model/test_new.py::test_far" in printed
    (project / "pipeline/people/boxes.py").unlink()
    code, printed = run_quick(project)
    assert code != 0
    assert "ERROR tests/pipeline/test_crops.py" in printed


@pytest.mark.parametrize(
    ("changed", "test"),
    {
        "cache/windows.py": "tests/cache/test_windows.py",
        "docs/settings.md": "tests/docs/test_commands.py",
        "find_python.sh": "tests/test_find_python.py",
        "tests/cache/test_histories.py": "tests/cache/test_histories.py",
    }.items(),
)
def test_near_to_a_file_is(changed, test, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert test in quick.nearest([changed])[:3]
