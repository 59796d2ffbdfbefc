"""What people look for in a repository: its citation, its checks on GitHub, its version."""

import re
import shutil
import sys
import tomllib
from pathlib import Path

import yaml

from tests.environments import git, run

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_that_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    found = [str(citation[key]) for key in ("title", "abstract", "version", "license")]
    assert found == [PROJECT[key] for key in ("name", "description", "version", "license")]


def test_the_workflow_runs_the_checks_on_supported_versions():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["checks"]
    assert job["steps"][-1] == {"run": ".ci/run", "env": {"PYTHON": "python${{ matrix.python }}"}}
    assert (ROOT / ".ci/run").stat().st_mode & 0o100
    for version in job["strategy"]["matrix"]["python"]:
        assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]


def version_in(clone):
    """What --version prints, without the id of the code, which stays."""
    words = [sys.executable, "-m", "pipeline", "--version"]
    text = run(words, clone).stdout
    return re.sub(r"code \w{12}\)\n$", "code ID)", text)


def test_the_version_names_the_commit_of_a_clone_and_whether_it_has_changed(tmp_path):
    for package in ("cache", "pipeline", "tasks", "vibe_model"):
        shutil.copytree(ROOT / package, tmp_path / package)
    (tmp_path / "README.md").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "README.md")
    git(tmp_path, "commit", "-qm", "First")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    release = f"vibe-pipeline {PROJECT['version']}"
    assert version_in(tmp_path) == f"{release} (commit {commit}, code ID)"
    (tmp_path / "README.md").write_text("changed")
    assert version_in(tmp_path) == f"{release} (commit {commit}-dirty, code ID)"
    shutil.rmtree(tmp_path / ".git")
    assert version_in(tmp_path) == f"{release} (code ID)"
