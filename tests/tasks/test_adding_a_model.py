"""The model of docs/adding-a-model.md in a package of its own: installed, and used as a user would."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline import plug_ins
from tests.tasks.conftest import ROOT, Project
from tests.vibe_model.builders import TinyBody
from tests.vibe_model.training.tiny_runs import assert_same_run, in_memory, killed_at, like_vibe, scalars
from vibe_model import models, training
from vibe_model.prediction.trained import load_trained

PAGE = ROOT / "docs" / "adding-a-model"
TINY = {"seqlen": "6", "batch_size": "2", "iterations": "3", "epochs": "2", "regressor_size": "8"}


class Package:
    """The page's package as pip installs it, for this process alone."""

    def __init__(self, site: Path) -> None:
        project = tomllib.loads((PAGE / "pyproject.toml").read_text())["project"]
        ((group, entries),) = project["entry-points"].items()
        self.about = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        self.about.mkdir(parents=True)
        (self.about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
        lines = [f"[{group}]", *(f"{name} = {to}" for name, to in entries.items())]
        (self.about / "entry_points.txt").write_text("\n".join(lines))

    def uninstall(self) -> None:
        shutil.rmtree(self.about)
        plug_ins.entry_points.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    installed = Package(tmp_path / "site")
    for folder in (tmp_path / "site", PAGE):
        monkeypatch.syspath_prepend(folder)
    plug_ins.entry_points.cache_clear()
    yield installed
    plug_ins.entry_points.cache_clear()


def test_the_page_shows_the_packages_own_code() -> None:
    page = PAGE.with_suffix(".md").read_text()
    package = {suffix: "".join(file.read_text() for file in PAGE.rglob(f"*{suffix}")) for suffix in (".py", ".toml")}
    toml, record, preset, _ = re.findall(r"^```(?:toml|python not run)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert toml in package[".toml"]
    assert record in package[".py"]
    assert preset in package[".py"]


def test_it_trains_is_killed_resumed_evaluated_and_loaded(package, tmp_path, monkeypatch) -> None:
    model = models.find("smoothing")
    in_memory(monkeypatch, "vibe")
    undisturbed = training.run(like_vibe(model.config, tmp_path / "whole", regressor_size=7))
    killed = like_vibe(model.config, tmp_path / "killed", regressor_size=7)
    folder = killed_at(training.run, killed, 3, tmp_path / "left")
    assert training.run(killed) == folder
    assert_same_run(folder, undisturbed)
    assert {"train/kp_2d", "gradient/generator", "validation/b/validation/pa_mpjpe"} < {
        tag for tag, _ in scalars(folder)
    }

    monkeypatch.setattr("vibe_model.prediction.trained.load_body", lambda folder: TinyBody())
    trained = load_trained(folder / "best.pt", None, "cpu")
    assert type(trained.generator).__name__ == "Smoothing"
    assert models.variant_of(killed, "single-frame").per_frame
    assert torch.load(folder / "last.pt", weights_only=True)["gen_state_dict"]["kernel"].abs().sum() > 0


def test_luigi_report_slurm_and_the_commands_take_it_by_its_name(
    package, project: Project, build, tasks_command
) -> None:
    """With demo data enabled, as in a fresh clone."""
    code, shown = tasks_command(project, "config", "train.preset", "smoothing.preset", "smoothing.report")
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [
        *(["train.preset", "embedded"], ["smoothing.preset", "embedded"], ["smoothing.report", "true"])
    ]
    project.configure({"smoothing": TINY})
    reported = build(project, "Report")
    assert reported.code == 0, reported.shown
    assert reported.done == ["train Smoothing, smoothing", "report page"], "VIBE is as it was"
    assert "Smoothing" in (project.folder / "runs/report.html").read_text()
    assert build(project, "Train", model="smoothing").code == 0
    code, shown = tasks_command(project, "train", "--model", "smoothing")
    assert code == 0, shown
    assert "Evaluate --model smoothing\n" in tasks_command(project, "slurm", "--model", "smoothing")[1]

    (best,) = (project.folder / "runs").glob("smoothing-*/best.pt")
    code, shown = tasks_command(project, "evaluate", "--checkpoint", str(best), "--device", "cpu")
    assert code == 0, shown
    assert "\nSmoothing  " in shown
    package.uninstall()
    project.cfg.write_text(project.cfg.read_text().partition("[smoothing]")[0])
    code, shown = tasks_command(project, "evaluate", "--checkpoint", str(best), "--device", "cpu")
    assert code == 2
    assert "no model is called 'smoothing'" in shown
    assert "Install the package" in shown
    project.configure({"smoothing": {"epochs": "1"}})
    code, shown = tasks_command(project, "config", "--check")
    assert code == 2
    assert "unknown section" in shown
    assert "install it, or remove the section" in shown


def test_a_model_without_a_preset_for_demo_data_breaks_nothing_and_says_what_it_takes(
    package, project: Project, build, tasks_command, monkeypatch
) -> None:
    monkeypatch.delitem(models.find("smoothing").presets, "embedded")
    assert build(project, "Report").done == ["report page"], "not trained for hours unless luigi.cfg wants that"
    code, shown = tasks_command(project, "config", "--check")
    assert code == 0, shown
    project.configure({"smoothing": {**TINY, "report": "true"}})
    reported = build(project, "Report")
    assert reported.done == ["train Smoothing, smoothing", "report page"], reported.shown
    assert "Smoothing has no preset 'embedded', for demo data: it is trained by its preset 'usual'" in reported.words
    project.configure({"smoothing": {"preset": "embedded"}})
    code, shown = tasks_command(project, "train", "--model", "smoothing")
    assert code == 2
    assert "[smoothing] preset = embedded: expected one of usual" in shown


def test_a_package_that_does_not_load_is_named_and_leaves_the_other_models_alone(
    package, project: Project, build, tasks_command
) -> None:
    entries = package.about / "entry_points.txt"
    for entry, flaw in (
        ("smoothing = smoothing_model:GONE", "cannot be loaded: AttributeError"),
        ("smoothing = smoothing_model.config:CONFIG", "is not a Model whose section is 'smoothing'"),
        ("smoother = smoothing_model:MODEL", "is not a Model whose section is 'smoother'"),
    ):
        entries.write_text(f"[vibe_pipeline.models]\n{entry}\n")
        plug_ins.entry_points.cache_clear()
        assert build(project, "Report").code == 0
        name = entry.split()[0]
        code, shown = tasks_command(project, "train", "--model", name)
        assert code == 2
        assert f"model '{name}' of package smoothing-model" in shown
        assert flaw in shown
    project.configure({"smoother": {"epochs": "3"}})
    code, shown = tasks_command(project, "config", "--check")
    assert code == 2
    assert "[smoother]: model 'smoother' of package smoothing-model" in shown


def test_what_fails_in_its_modules_is_called_by_its_name_and_its_package(package, monkeypatch) -> None:
    model = models.find("smoothing")
    for module, use in (("training", lambda: model.trainer), ("generator", lambda: model.build(model.config(), None))):
        monkeypatch.setitem(sys.modules, f"smoothing_model.{module}", None)  # its import fails
        with pytest.raises(plug_ins.PlugInError, match=r"model 'smoothing' of package smoothing-model failed in"):
            use()


@pytest.mark.parametrize("variant", ["sped", "single-view+sped"])
def test_an_unknown_variant_of_the_command_line_is_not_blamed_on_luigi_cfg(bare, tasks_command, variant) -> None:
    bare.configure({"hmmr": {"variant": "no-const"}})
    code, shown = tasks_command(bare, "train", "--model", "hmmr", "--variant", variant)
    assert code == 2
    assert shown.startswith("error: --variant: expected one of single-view")
    assert "luigi.cfg" not in shown
