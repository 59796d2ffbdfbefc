"""The notebook runs on the demo cache, cell by cell, as a reader runs it."""

import ast
import json
import shutil

import matplotlib.pyplot as plt
import pytest

from tests.docs.markdown import ROOT
from tests.fixtures import *  # noqa: F403

NOTEBOOK = json.loads((ROOT / "docs/first-cache.ipynb").read_text())


@pytest.fixture
def folder(penn, tmp_path):
    penn.converted("fast")
    shutil.move(penn.root, tmp_path / "demo/cache")
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


def run_cell(cell, names):
    """Run a cell; what Jupyter shows of its last expression."""
    body = ast.parse("".join(cell["source"])).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), cell["id"], "exec"), names)
    if last is None:
        return ""
    shown = eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)
    return repr(shown)


@pytest.mark.usefixtures("network")
def test_the_notebook_runs_and_shows_what_its_headings_say(folder, monkeypatch):
    monkeypatch.chdir(folder)
    plt.switch_backend("agg")
    names = {}
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    shown = [run_cell(cell, names) for cell in cells]
    starts = [text.partition(" ")[0] for text in shown]
    assert starts == [
        "('penn_action/train',)",
        "(Split",
        "TrackRecord(name='0001/0',",
        "{'features':",
        "TorchWindows",
        "",
    ]
    assert names["batch"]["features"].shape[1:] == names["drawn"]["features"].shape[1:]
    assert len(names["left"].lines) > 20
    assert [line.get_label() for line in names["right"].lines] == ["rwrist", "lwrist"]
    plt.close(names["figure"])


def test_the_notebook_is_stored_without_results():
    assert NOTEBOOK["nbformat"] == 4
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
