"""What people look for in a repository: its citation, its checks on GitHub, its version."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from pipeline.processes import software

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_that_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    found = [str(citation[key]) for key in ("title", "abstract", "version", "license")]
    assert found == [PROJECT[key] for key in ("name", "description", "version", "license")]


def test_the_workflow_runs_the_checks_on_supported_versions() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["checks"]
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert (ROOT / ".ci/run").stat().st_mode & 0o100
    for version in job["strategy"]["matrix"]["python"]:
        assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]


def test_the_version_names_the_commit_of_a_clone_and_whether_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(tmp_path)]
    (tmp_path / "file").touch()
    for words in (["init", "-q"], ["add", "file"], ["commit", "-qm", "First"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True)[:12]
    monkeypatch.setattr(software, "_HOME", tmp_path)
    assert f"(commit {commit}, code " in software.package_version()
    (tmp_path / "file").write_text("changed")
    assert f"(commit {commit}-dirty, code " in software.package_version()
    shutil.rmtree(tmp_path / ".git")
    assert re.search(r"\d \((commit \w{12}, )?code \w{12}", software.package_version())
