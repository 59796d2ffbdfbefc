"""Broken packages cost themselves and a line. Installed metadata of an older state of ours cost
nothing.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import table
from pipeline.plug_ins import load
from tests import packages

ROOT = Path(__file__).parents[2]
GROUPS = (
    "commands",
    "datasets",
    "detectors",
    "exports",
    "models",
    "protocols",
    "sections",
    "streams",
    "tasks",
)
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


def named(group: str, what: str) -> str:
    reason = "ImportError: there is no torch3d. Update or uninstall the package."
    return f"! {group}: {what!r} of package odd is left out: {reason}"


def test_a_broken_package_costs_itself_and_a_line_in_every_command(broken: Path) -> None:
    done = run(broken, "config", "--check")
    assert "correct, training can start" in done.stdout
    model = "! model 'odd_models' of package odd cannot be loaded: ImportError: there is no torch3d"
    assert warnings(done) == [
        named("commands", "odd_commands"),
        named("sections", "odd_sections"),
        model,
    ]
    done = run(broken, "export", "--help")
    assert "rerun" in done.stdout
    assert named("exports", "odd_exports") in warnings(done)
    assert "evaluate" in run(broken, "--help", module="tasks").stdout
    done = run(broken, "--module", "tasks", "Data", "--help", module="luigi")
    assert named("tasks", "odd_tasks") in warnings(done)


@pytest.mark.parametrize(
    "words",
    [
        ("odd_commands",),
        ("doctor", "odd_datasets"),
        ("export", "odd/train", "--format", "odd_exports", "--out", "file"),
        ("prepare", "videos", "--raw", ".", "--cache", "cache", "--detector", "odd_detectors"),
    ],
)
def test_a_broken_thing_that_is_named_is_refused_with_its_error(
    broken: Path, words: tuple[str, ...]
) -> None:
    shown = run(broken, *words, code=2).stderr
    assert "of package odd" in shown
    assert "ImportError: there is no torch3d" in shown
    assert "Traceback" not in shown


def test_a_command_whose_module_is_broken_is_refused_with_its_error(tmp_path: Path) -> None:
    entries = {"vibe_pipeline.commands": {"dance": "dance_entry:DANCE"}}
    entry = (
        "from pipeline.plug_ins import CommandEntry\nDANCE = CommandEntry('dance_command', "
        "'Dance.')"
    )
    packages.install(tmp_path / "site", "dance", entries, dance_entry=entry, dance_command=BROKEN)
    assert "Dance." in run(tmp_path, "--help").stdout
    shown = run(tmp_path, "dance", code=2).stderr
    assert "dance_command cannot be loaded: ImportError: there is no torch3d" in shown
    assert "bug in this program" not in shown


def test_what_takes_one_of_our_names_or_is_of_another_kind_is_left_out(tmp_path: Path) -> None:
    entry = (
        "from pipeline.plug_ins import CommandEntry\nDANCE = CommandEntry('dance_command', "
        "'Dance.')\nTEXT = 'x'"
    )
    commands = {
        "status": "dance_entry:DANCE",
        "show": "dance_entry:DANCE",
        "text": "dance_entry:TEXT",
    }
    tasks = {"vibe_pipeline.tasks": {"Convert": "dance_entry:CommandEntry"}}
    packages.install(
        tmp_path / "site", "dance", {"vibe_pipeline.commands": commands} | tasks, dance_entry=entry
    )
    done = run(tmp_path, "--help")
    assert "Dance." not in done.stdout
    reasons = {"show": "this name is in use", "status": "this name is in use"}
    reasons |= {"text": "dance_entry:TEXT is not a CommandEntry"}
    expected = [
        f"! commands: {name!r} of package dance is left out: {why}."
        for name, why in reasons.items()
    ]
    assert [line.partition(" Update")[0] for line in warnings(done)] == expected
    shown = run(tmp_path, "evaluate", "--help", module="tasks")
    assert any(
        "tasks: 'Convert' of package dance is left out: this name is in use" in line
        for line in warnings(shown)
    )


def test_installed_metadata_of_an_earlier_state_neither_hide_nor_break_what_the_clone_has(
    tmp_path: Path,
) -> None:
    entries = {
        "vibe_pipeline.commands": {
            "export": "vibe_extensions.gone:EXPORT",
            "old": "vibe_extensions.gone:OLD",
        }
    }
    entries |= {"vibe_pipeline.datasets": {"bedlam": "vibe_extensions.bedlam:Bedlam"}}
    entries |= {"vibe_pipeline.tasks": {"OldTask": "vibe_extensions.gone:OldTask"}}
    packages.install(tmp_path / "site", "vibe-pipeline", entries)  # found before the real ones
    done = run(tmp_path, "--help")
    ours = table.COMMANDS["pipeline"]
    assert {name for name in ours if f"    {name} " not in done.stdout} == set()
    assert "    old " not in done.stdout
    shown = run(tmp_path, "export", "--help")
    assert all(name in shown.stdout for name in table.OWN["vibe_pipeline.exports"])
    assert "bedlam2" in run(tmp_path, "doctor", "bedlam2", "--raw", tmp_path, code=1).stdout
    luigi = run(tmp_path, "--module", "tasks", "TrainHMMR", "--help", module="luigi")
    assert [done.stderr, shown.stderr, luigi.stderr] == ["", "", ""]


def test_every_name_of_the_table_leads_to_something() -> None:
    commands = [f"{module}:COMMAND" for module, _ in table.COMMANDS["pipeline"].values()]
    others = [where for entries in table.OWN.values() for where in entries.values()]
    for where in (*commands, *others):
        assert load(where) is not None, where
