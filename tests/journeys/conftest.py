"""A person at a terminal: a folder, commands that are typed there, and what they print."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.processes.server import ONE_THREAD
from tests.environments import PIP
from tests.fixtures import embedded  # noqa: F401
from tests.packages import install_source

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
KIT = HERE / "kit"
collect_ignore = ["commands.py"]  # a program, which imports all that the commands may need
FEATURES_ONE_BY_ONE = ROOT / "tests/oracles/features.py"


class Terminal:
    """Every command runs in a process of its own, in `folder`, with the packages of `site`
    installed.
    """

    def __init__(self, folder, server, demo_data):
        self.folder, self.site, self._server = folder / "work", folder / "site", server
        self.demo_data = demo_data
        self.folder.mkdir()
        self.site.mkdir()
        self._out = folder / "out"
        path = os.pathsep.join([str(self.site), str(ROOT)])
        self.env = {
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "250",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def install(self, package):
        """Install a package as pip leaves it."""
        install_source(self.site, package)

    def install_by_pip(self, package):
        """Install a package by pip, which builds it in its folder."""
        offline = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        subprocess.run([*PIP, *offline, "--target", str(self.site), str(package)], check=True)

    def get_demo_data(self, penn_action, amass, body):
        """Two small datasets and the body, in these folders."""
        self.demo_data.dataset("penn_action", self.folder / penn_action, n_videos=2, n_frames=10)
        self.demo_data.dataset("amass", self.folder / amass, n_videos=1, n_frames=300)
        self.demo_data.body(self.folder / body)

    def types(self, command, *shows, code=0):
        """What a command printed, whose exit code is `code` and which printed these patterns."""
        places = {"folder": str(self.folder), "site": str(self.site), "out": str(self._out)}
        request = {"argv": shlex.split(command), "env": self.env, **places}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        found = int(self._server.stdout.readline())
        printed = self._out.read_text()
        report = f"$ {command}\n{printed}\nexit code {found}"
        assert found == code, report
        assert "Traceback" not in printed, report
        assert "defect of" not in printed, report
        for pattern in shows:
            assert re.search(pattern, printed), f"{report}\nexpected: {pattern}"
        return printed

    def types_json(self, command, *, code=0):
        """The document that a command with --json prints."""
        printed = self.types(command, code=code)
        start = re.search(r"^[\[{]", printed, re.MULTILINE).start()
        return json.JSONDecoder().raw_decode(printed, start)[0]  # behind it, standard error's lines

    def frames_kept(self, cache, *, code=0):
        """By split, where `status` ends with `code`; of each, found = kept + dropped."""
        kept = {}
        for split in self.types_json(f"pipeline status --json --cache {cache}", code=code):
            frames = split["accounting"]["frames"]
            assert frames["found"] == frames["kept"] + sum(frames["dropped"].values()), split
            kept[split["split"]] = frames["kept"]
        return kept

    def is_intact(self, cache):
        """Every byte is as it was written, features belong to their frames, and the counts add
        up: the frames kept, by split.
        """
        found = self.types_json(f"pipeline verify --json --cache {cache}")
        assert found["ok"], found
        assert not found["notes"], found
        self.types(f"python {FEATURES_ONE_BY_ONE} {cache} 20", r": \d+ rows")
        kept = self.frames_kept(cache)
        assert kept
        return kept


def changed(settings, changes):
    """Settings with other texts, each of which they must have."""
    for old, new in changes.items():
        assert old in settings, old
        settings = settings.replace(old, new)
    return settings


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The process that runs the commands of all journeys."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "commands.py")],
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path_factory.mktemp("server"),
    ) as running:
        yield running


@pytest.fixture
def terminal(tmp_path, server, demo_data):
    return Terminal(tmp_path, server, demo_data)
