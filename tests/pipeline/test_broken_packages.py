"""Broken packages cost themselves and a line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import table
from pipeline.plug_ins import load
from tests import packages

ROOT = Path(__file__).parents[2]
GROUPS = ("datasets", "detectors", "exports", "models", "streams")
BROKEN = "raise ImportError('there is no torch3d')"


def run(
    folder: Path, *words: object, module: str = "pipeline", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder whose `site` has packages, as an installed environment has them."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(folder / "site"), str(ROOT))),
        "COLUMNS": "400",
    }
    command = [sys.executable, "-m", module, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def warnings(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("!")]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder with luigi.cfg, where a package with an entry in every group cannot be imported."""
    run(tmp_path, "init")
    entries = {f"vibe_pipeline.{group}": {f"odd_{group}": "odd_package:THING"} for group in GROUPS}
    packages.install(tmp_path / "site", "odd", entries, odd_package=BROKEN)
    return tmp_path


def named(what: str) -> str:
    return f"! {what} of package odd cannot be loaded: ImportError: there is no torch3d"


def test_a_broken_package_costs_itself_and_a_line_in_every_command(broken: Path) -> None:
    done = run(broken, "config", "--check")
    assert "correct, training can start" in done.stdout
    assert warnings(done) == [named("model 'odd_models'")]
    done = run(broken, "export", "--help")
    assert "rerun" in done.stdout
    assert warnings(done) == [named("export format 'odd_exports'")]
    assert "evaluate" in run(broken, "--help", module="tasks").stdout


@pytest.mark.parametrize(
    "words",
    [
        ("doctor", "odd_datasets"),
        ("export", "odd/train", "--format", "odd_exports", "--out", "file"),
        ("prepare", "videos", "--raw", ".", "--cache", "../cache", "--detector", "odd_detectors"),
    ],
)
def test_a_broken_thing_that_is_named_is_refused_with_its_error(
    broken: Path, words: tuple[str, ...]
) -> None:
    shown = run(broken, *words, code=2).stderr
    assert "of package odd" in shown
    assert "ImportError: there is no torch3d" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("module", ["pipeline", "tasks"])
def test_a_file_that_hides_a_package_is_named_and_one_like_a_folder_of_the_clone_is_none(
    tmp_path: Path, module: str
) -> None:
    (tmp_path / "docs.py").touch()  # the clone has a folder docs, which is no package
    run(tmp_path, "--help", module=module)
    for name in ("numpy", "cache", "google"):
        (tmp_path / f"{name}.py").touch()
        shown = run(tmp_path, "--help", module=module, code=2).stderr
        assert f"{name}.py in this folder hides the Python package {name}" in shown
        (tmp_path / f"{name}.py").unlink()


def test_an_export_that_takes_one_of_our_names_or_is_of_another_kind_is_refused(
    tmp_path: Path,
) -> None:
    for name, problem in {
        "wham": "export format 'wham' of package dance: this name is in use",
        "text": "of package dance: dance_entry:TEXT is not a ExportFormat whose name is 'text'",
    }.items():
        site = tmp_path / name
        entries = {"vibe_pipeline.exports": {name: "dance_entry:TEXT"}}
        packages.install(site / "site", "dance", entries, dance_entry="TEXT = 'x'")
        words = ("export", "a", "b", "--cache", "cache", "--format", name, "--out", "file")
        assert problem in run(site, *words, code=2).stderr


def test_every_name_of_the_table_leads_to_something() -> None:
    commands = [f"{module}:COMMAND" for module, _ in table.COMMANDS["pipeline"].values()]
    others = [where for entries in table.OWN.values() for where in entries.values()]
    for where in (*commands, *others):
        assert load(where) is not None, where
