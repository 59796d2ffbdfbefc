"""A working folder in which tests type wrong commands."""

import pytest

from pipeline.__main__ import main as pipeline
from tasks.__main__ import main as tasks
from tasks.settings import settings

SETTINGS = """\
[paths]
raw = raw
body = body
cache = cache
runs = runs
[data]
datasets = penn_action
[features]
streams = homography
"""


@pytest.fixture(scope="module")
def lab(embedded, converted, tmp_path_factory):
    """A working folder: Penn Action, a cache with a stream, a luigi.cfg. Only to be read."""
    folder = tmp_path_factory.mktemp("lab")
    embedded.copy("penn_action", folder / "raw/penn_action")
    converted.copy(folder / "raw/penn_action", folder / "cache")
    (folder / "luigi.cfg").write_text(SETTINGS)
    return folder


@pytest.fixture
def types_in_lab(lab, monkeypatch, capsys):
    """What a command printed in the folder, after its exit code."""
    monkeypatch.chdir(lab)
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)

    def types_in_lab(command):
        capsys.readouterr()
        settings.cache_clear()
        program, _, words = command.partition(" ")
        try:
            code = {"pipeline": pipeline, "tasks": tasks}[program](words.split(" "))
        except SystemExit as ended:  # from argparse
            code = int(ended.code or 0)
        shown = capsys.readouterr()
        return f"{code}: {shown.err}{shown.out}"

    return types_in_lab
