"""The notebook runs on the demo cache, cell by cell, as a reader runs it."""

import ast
import base64
import io
import json
import shutil

import matplotlib.pyplot as plt
import pytest

from tests.docs.markdown import ROOT
from tests.fixtures import *  # noqa: F403

FILE = ROOT / "docs/first-cache.ipynb"
NOTEBOOK = json.loads(FILE.read_text())


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
def test_the_notebook_runs_and_shows_what_is_stored_in_it(folder, monkeypatch, request):
    monkeypatch.chdir(folder)
    plt.switch_backend("agg")
    names = {}
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    shown = [run_cell(cell, names) for cell in cells]
    plot = io.BytesIO()
    names["figure"].savefig(plot, format="png", dpi=60)
    if request.config.getoption("--rewrite-golden"):
        for cell, text in zip(cells, shown, strict=True):
            data = {"text/plain": text}
            if not text:
                data = {"image/png": base64.b64encode(plot.getvalue()).decode()}
            output = {"output_type": "display_data", "data": data, "metadata": {}}
            cell["outputs"] = [output]
        FILE.write_text(json.dumps(NOTEBOOK, indent=1) + "\n")
    stored = [cell["outputs"][0]["data"] for cell in cells]
    assert [data.get("text/plain", "") for data in stored] == shown
    assert base64.b64decode(stored[-1]["image/png"]).startswith(b"\x89PNG")
    assert names["batch"]["features"].shape[1:] == names["drawn"]["features"].shape[1:]
    assert len(names["left"].lines) > 20
    assert [line.get_label() for line in names["right"].lines] == ["rwrist", "lwrist"]
    plt.close(names["figure"])
