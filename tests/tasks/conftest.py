"""A whole project, tiny: its own luigi.cfg, embedded data, cache and runs, made once by the `luigi`
command itself.
"""

from __future__ import annotations

import configparser
import io
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from luigi.cmdline import luigi_run
from matplotlib.figure import Figure

from pipeline import plug_ins
from pipeline.cli.console import VERB_WIDTH
from tasks import base, luigi_command, settings
from tasks.__main__ import main
from tests.fake_network import replace_network
from tests.synced import Renames, watch_renames

LUIGI = Path(sys.executable).with_name("luigi")
ROOT = Path(__file__).parents[2]
PROBE = """
import sys
from luigi.cmdline import luigi_run
try:
    luigi_run(sys.argv[1:])
finally:
    print("imported:", *sorted({"torch", "torchvision", "smplx"} & sys.modules.keys()))
"""

CONFIG = """
[paths]
raw = raw
body = body
cache = cache
runs = runs
[data]
datasets = 3dpw amass
[embedded]
enabled = true
size = tiny
[convert]
workers = 1
[features]
device = cpu
batch_size = 8
[vibe]
preset = embedded
name = tiny
baseline = false
datasets_2d =
strides = 3dpw/train:4
seqlen = 6
batch_size = 2
iterations = 3
epochs = 2
hidden_size = 8
regressor_size = 8
disc_size = 8
[hmmr]
report = false
[part_dynamics]
report = false
[core]
autoload_range = false
lock_pid_dir = locks
"""
GOOD = """
[paths]
raw = raw
body = /somewhere/smpl
cache = cache
runs = runs
[data]
datasets = penn_action amass
[convert]
workers = 3
[amass]
resampling = decimate
[vibe]
preset = embedded
[core]
autoload_range = false
"""


def load(tmp_path, text):
    file = tmp_path / "luigi.cfg"
    file.write_text(text)
    return settings.load(file)


@dataclass
class Ran:
    """One command, and everything that the terminal showed of it."""

    code: int
    shown: str

    @property
    def done(self):
        """`verb what` of every task that did something."""
        lines = [line[2:] for line in self.lines if line.startswith("✓")]
        return [
            f"{line[:VERB_WIDTH].strip()} {line[VERB_WIDTH:].strip().split('  ')[0]}"
            for line in lines
        ]

    @property
    def lines(self):
        return self.shown.splitlines()

    @property
    def words(self):
        """With single blanks between them."""
        return " ".join(self.shown.split())

    @property
    def failures(self):
        return [line for line in self.lines if line.startswith(("error:", "busy:"))]

    def only_failure(self, code):
        """The one failure that was printed, without traceback, of a command with this exit code."""
        assert self.code == code, self.shown
        assert "Traceback" not in self.shown
        assert "ERROR" not in self.shown
        assert len(self.failures) == 1, self.shown
        return self.failures[0]


@dataclass
class Project:
    folder: Path

    @property
    def cfg(self):
        return self.folder / "luigi.cfg"

    def configure(self, text):
        """Set what a text of luigi.cfg sets. A key without a value is taken out."""
        cfg = configparser.ConfigParser(interpolation=None, allow_no_value=True)
        cfg.read(self.cfg)
        cfg.read_string(text)
        for section in cfg.values():
            for key in [key for key, value in section.items() if value is None]:
                del section[key]
        with self.cfg.open("w") as stream:
            cfg.write(stream)

    def start(self, *words, command=(str(LUIGI),), packages=""):
        """`luigi --module tasks WORDS`, in the project's folder, with everything that it prints in
        one stream.

        `packages`: a folder in which other packages are installed.
        """
        found = os.pathsep.join(map(str, filter(None, (ROOT, packages))))
        environment = {
            **os.environ,
            "LUIGI_CONFIG_PATH": str(self.cfg),
            "COLUMNS": "100",
            "PYTHONPATH": found,
        }
        return subprocess.Popen(
            [*command, "--module", "tasks", *words],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Jobs in the background of a shell ignore Ctrl-C, and so would their children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def luigi(self, *words, scheduler=("--local-scheduler",), **options):
        process = self.start(*words, *scheduler, **options)
        shown, _ = process.communicate(timeout=300)
        return Ran(process.returncode, shown)

    def files(self):
        """Every file below cache/ and runs/, with what changes when it is written."""
        found = [*self.folder.glob("cache/**/*"), *self.folder.glob("runs/**/*")]
        status = {str(path.relative_to(self.folder)): path.stat() for path in found}
        return {name: (s.st_ino, s.st_size, s.st_mtime_ns) for name, s in status.items()}

    @property
    def runs(self):
        return sorted(path for path in (self.folder / "runs").iterdir() if path.is_dir())

    def copy(self, to):
        """The same elsewhere. The body, 60 MB that no test changes, is shared."""
        shutil.copytree(self.folder, to, ignore=shutil.ignore_patterns("body", "locks"))
        (to / "body").symlink_to(self.folder / "body")
        for notes in to.glob("cache/*/*/provenance.json"):  # of splits: they were converted there
            notes.write_text(
                notes.read_text().replace(str(self.folder.resolve()), str(to.resolve()))
            )
        return Project(to)


@dataclass
class Made:
    project: Project
    reported: Ran
    renames: Renames


@pytest.fixture(scope="session")
def made(tmp_path_factory, demo_data):
    """A finished project and what the terminal showed while it was made: the one whole run.
    Read-only.
    """
    project = Project(tmp_path_factory.mktemp("project"))
    project.configure(CONFIG)
    raw, body = project.folder / "raw", project.folder / "body"
    for name in ("penn_action", "3dpw", "amass"):
        demo_data.dataset(name, raw / name, size="tiny")
    demo_data.body(body)
    spare = project.folder / "spare"  # videos are few, so that the real network has little to do
    spare.mkdir()
    for labels in sorted((raw / "3dpw/sequenceFiles/train").iterdir())[1:]:
        labels.rename(spare / labels.name)
    with pytest.MonkeyPatch.context() as patch:
        replace_network(patch)
        patch.chdir(project.folder)
        enter(project, patch)
        with (
            redirect_stdout(io.StringIO()) as shown,
            redirect_stderr(shown),
            watch_renames(project.folder) as renames,
        ):
            code = run_luigi("Report")
    forget()
    return Made(project, Ran(code, shown.getvalue()), renames)


@pytest.fixture
def project(made, tmp_path):
    """A copy of the finished project, to be changed."""
    assert made.reported.code == 0, made.reported.shown
    return made.project.copy(tmp_path / "project")


@pytest.fixture
def bare(tmp_path):
    """A project without anything but its luigi.cfg."""
    (tmp_path / "bare").mkdir()
    project = Project(tmp_path / "bare")
    project.configure(CONFIG)
    return project


@pytest.fixture
def no_network(monkeypatch):
    """Features cost nothing."""
    replace_network(monkeypatch)


@pytest.fixture
def no_figures(monkeypatch):
    """Plots of a report cost nothing. tests/tasks/report draws them, and the fixture `made`."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: file.write("<svg/>"))


def forget():
    """What this process knows of a project."""
    settings.settings.cache_clear()
    luigi_command._introduce.cache_clear()
    luigi_command.reported.clear()
    base.complete_tasks.clear()
    base.at_success.clear()
    getattr(plug_ins._entry_points, "cache_clear", lambda: None)()


def enter(project, patch):
    """Use a project's luigi.cfg in this process, with nothing cached."""
    patch.setenv("LUIGI_CONFIG_PATH", str(project.cfg))
    forget()


def run_luigi(*words):
    """`luigi --module tasks WORDS` in this process: its exit code."""
    with pytest.raises(SystemExit) as ended:
        luigi_run(["--module", "tasks", *words, "--local-scheduler", "--no-lock"])
    return int(ended.value.code or 0)


@pytest.fixture
def within(monkeypatch):
    """`enter`, until the test's end."""
    yield lambda project: enter(project, monkeypatch)
    forget()


@pytest.fixture
def tasks_command(within, no_figures, capsys):
    """`python -m tasks WORDS` in a project: its exit code and what it printed."""

    def run(project, *words):
        within(project)
        capsys.readouterr()
        code = main([*words])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return run


@pytest.fixture
def build(within, no_network, no_figures, capsys):
    """`luigi --module tasks NAME` in this process, with a network that costs nothing:
    `build(project, "Data")`.
    """

    def run(project, name, **parameters):
        within(project)
        capsys.readouterr()
        code = run_luigi(name, *(f"--{key}={value}" for key, value in parameters.items()))
        shown = capsys.readouterr()
        return Ran(code, shown.out + shown.err)

    return run
