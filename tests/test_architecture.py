"""The shape of the project, held by tests: imports go one way, and what has nothing to compute imports no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {  # package -> what it may import of ours
    "cache": {"cache"},
    "pipeline": {"pipeline", "cache"},
    "vibe_model": {"vibe_model", "cache", "pipeline"},
    "report": {"report", "pipeline", "vibe_model", "cache"},
    "tasks": {"tasks", "report", "pipeline", "vibe_model", "cache"},
}
OF_PIPELINE = (("pipeline", "body"), ("pipeline", "skeletons"))  # all that the models may know of it


def imported(file: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            # `from pipeline import body` names the module pipeline.body
            own = node.module.split(".")[0] in LAYERS
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if own else {node.module}
    return names


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", LAYERS)
def test_imports_flow_one_way(package: str) -> None:
    for file in files(package):
        ours = {name for name in imported(file) if name.split(".")[0] in LAYERS}
        assert {name for name in ours if name.split(".")[0] not in LAYERS[package]} == set(), file


def test_the_models_know_only_the_body_and_the_skeletons_of_the_pipeline() -> None:
    for file in files("vibe_model"):
        for name in imported(file):
            if name.split(".")[0] == "pipeline":
                assert tuple(name.split(".")[:2]) in OF_PIPELINE, f"{file} imports {name}"


def test_the_pipeline_knows_no_luigi() -> None:
    for package in ("cache", "pipeline", "vibe_model", "report"):
        for file in files(package):
            assert not any(name.split(".")[0] == "luigi" for name in imported(file)), file


@pytest.mark.parametrize(
    "module",
    [
        "cache",
        "tasks",
        "pipeline.__main__",
        "pipeline.datasets",
        "pipeline.features.streams",
        "pipeline.synthetic",
        "pipeline.maintenance.overview",
        "pipeline.maintenance.accept",
    ],
)
def test_importing_what_has_nothing_to_compute_imports_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
