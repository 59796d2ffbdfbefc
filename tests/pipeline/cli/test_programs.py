"""The programs by the names that people type: what they print, and what another package in the
working folder or in PYTHONPATH changes.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from pipeline.__main__ import parser
from pipeline.cli import text
from pipeline.cli.console import err, out
from pipeline.cli.text import as_called, command
from tests.docs.markdown import ROOT

PACKAGES = ("cache", "pipeline", "tasks", "vibe_model")


@pytest.fixture(params=["vibe-pipeline", "vibe-tasks", "luigi"])
def called(request, monkeypatch):
    """This process was started by an installed command."""
    monkeypatch.setattr(sys, "argv", [f"/home/ada/vibe/bin/{request.param}", "status"])


@pytest.fixture
def no_clone(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "CLONE", tmp_path)


def test_whoever_calls_an_installed_command_reads_its_name(called, capsys, types):
    beside = Path(sys.executable).parent
    assert command("status", "--cache", "a b") == f"{beside}/vibe-pipeline status --cache 'a b'"
    assert command("report", module="tasks") == f"{beside}/vibe-tasks report"
    shown = parser().format_help()
    assert "python -m" not in as_called(shown)
    types("status --cache CACHE", code=2)
    types("predict", "Run vibe-tasks predict", "(vibe-pipeline --help)", code=2)
    out.print("Run `python -m pipeline detect` again.")
    err.show_problem("Run python -m tasks report")
    shown = capsys.readouterr()
    assert "Run `vibe-pipeline detect` again." in shown.out
    assert "Run vibe-tasks report" in shown.err


def test_whoever_calls_python_reads_python(types):
    assert command("status").endswith("python -m pipeline status")
    types("predict", "Run python -m tasks predict", "(python -m pipeline --help)", code=2)


def test_pages_of_a_data_set_name_commands_and_pages_as_the_terminal_does(
    called, no_clone, penn, types, tmp_path
):
    types(f"convert penn_action/train --raw {penn.raw} --cache CACHE")
    types("show penn_action/train --cache CACHE --out TMP/page.html")
    shown = (tmp_path / "page.html").read_text()
    assert "python -m pipeline" not in shown
    assert "docs/" not in shown


def test_without_a_clone_a_page_is_named_without_its_file(no_clone):
    assert as_called("Keys: docs/settings.md.") == 'Keys: the page "settings".'
    heading = "docs/datasets/h36m.md#layout"
    assert as_called(f"See {heading} for it.") == 'See the page "datasets/h36m#layout" for it.'


def test_in_a_clone_a_page_is_named_by_its_path():
    assert as_called("Keys: docs/settings.md.") == "Keys: docs/settings.md."


PROGRAMS = {
    "vibe-pipeline": "from vibe_model.start import pipeline; sys.exit(pipeline())",
    "vibe-tasks": "from vibe_model.start import tasks; sys.exit(tasks())",
    # as `luigi --module tasks`
    "luigi --module tasks": "import tasks; tasks.Data",
}


def run(folder, words, **environment):
    """A program in a folder, with this checkout behind other folders in PYTHONPATH."""
    path = f"{environment.pop('first', '')}:{ROOT}".strip(":")
    more = {"PYTHONPATH": path, "COLUMNS": "400"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | more,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_another_package_of_our_names_in_pythonpath_is_named_in_a_line(tmp_path, program):
    # an installed command has its own folder first, not the working folder
    words = ["-P", "-c", f"import sys; sys.argv = [{program!r}, '--help']; {PROGRAMS[program]}"]
    for other in ("cache/__init__.py", "pipeline/__init__.py", "tasks.py"):
        name = other.partition("/")[0].removesuffix(".py")
        file = tmp_path / f"of {name}" / other
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("Data = 'mine'\n")
        done = run(tmp_path, words, first=str(tmp_path / f"of {name}"))
        if "luigi" in program and name == "tasks":  # Luigi runs that one: none of ours starts
            assert (done.returncode, done.stderr) == (0, "")
            continue
        said = f"error: Python imports {name} from {file}, not from {ROOT / name}. "
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(said)
        shutil.copytree(tmp_path / f"of {name}", tmp_path, dirs_exist_ok=True)
    alone = run(tmp_path, words)
    assert (alone.returncode, alone.stderr) == (0, "")


@pytest.mark.parametrize("module", ["pipeline", "tasks"])
@pytest.mark.parametrize("other", ["cache/__init__.py", "cache.py"])
def test_python_m_names_another_package_in_the_working_folder(tmp_path, module, other):
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).touch()
    done = run(tmp_path, ["-m", module, "--help"])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: Python imports cache from {tmp_path / other}, not ")


@pytest.mark.parametrize("module", ["pipeline", "tasks"])
def test_folders_of_data_with_our_names_are_no_packages(tmp_path, module):
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.npz").touch()
    done = run(tmp_path, ["-m", module, "--help"])
    assert (done.returncode, done.stderr) == (0, "")


def test_no_crop_is_cut_by_opencv_4(penn, types, monkeypatch):
    penn.converted()
    monkeypatch.setattr(cv2, "__version__", "4.13.0")
    said = "error: OpenCV 4.13.0 cuts other crops than OpenCV 5", "pip install 'opencv-python>=5'"
    types("doctor penn_action --raw RAW", *said, code=2)
    types("extract penn_action/train --cache CACHE --weights untrained:0", *said, code=2)
    assert not (penn.root / "penn_action/train/streams").exists()
    monkeypatch.setattr(cv2, "__version__", "10.0.0-dev")
    types("doctor penn_action --raw RAW")


def test_doctor_names_torch_and_torchvision_that_do_not_fit(penn, types, monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = "does not fit torch", "operator torchvision::nms does not exist"
    assert "bug" not in types("doctor penn_action --raw RAW", *said, code=2)
