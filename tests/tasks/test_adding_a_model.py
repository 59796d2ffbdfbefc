"""The model of docs/adding-a-model.md in a package of its own. As a user would:
tests/journeys/test_extend.py.
"""

import sys

import pytest

from pipeline import plug_ins
from tasks import Report
from tests.packages import install_page, without
from tests.vibe_model.training.tiny_runs import (
    in_memory,
    like_vibe,
)
from vibe_model import models, training

TINY = """
[former]
seqlen = 6
batch_size = 2
iterations = 3
epochs = 2
hidden_size = 8
report = true
"""


@pytest.fixture
def package(site):
    """The page's package, installed for this process alone: what says that it is."""
    return install_page(site, "model")


def test_a_model_without_a_preset_for_demo_data_breaks_nothing(
    package, project, build, tasks_command, within
):
    with without(models.find("former").presets, "embedded"):
        within(project)
        trained = [task.model for task in Report().requires()]
        assert trained == ["vibe"], "not trained for hours unless luigi.cfg wants that"
        project.configure(TINY)
        within(project)
        assert [task.model for task in Report().requires()] == ["vibe", "former"]
        trained = build(project, "Train", model="former")
        assert trained.done == ["train Former, former"], trained.shown
        project.configure("[former]\npreset = embedded")
        code, shown = tasks_command(project, "train", "--model", "former")
        assert code == 2
        assert "[former] preset = embedded: expected one of usual" in shown


MODULE = "__init__.py"


@pytest.mark.parametrize(
    ("file", "before", "after", "message"),
    [
        ("entry_points.txt", ":MODEL", ":GONE", "cannot be loaded: AttributeError"),
        ("entry_points.txt", "former =", "formerly =", "is not a Model whose section is 'formerly'"),
        (MODULE, "MODEL: ClassVar[str]", "NAME: ClassVar[str]", "is not a Model whose section is 'former'"),
        (MODULE, "from pydantic.dataclasses import", "from dataclasses import", "found FormerConfig of the st"),
        (MODULE, '{"n_layers"', '{"n_layer"', "'single-frame': n_layer: no such setting; did you mean 'n_layers'"),
    ],
)  # fmt: skip
def test_a_package_that_does_not_load_is_named(
    package, bare, tasks_command, file, before, after, message
):
    changed = (package if file == "entry_points.txt" else package.parent / "former") / file
    assert before in changed.read_text()
    changed.write_text(changed.read_text().replace(before, after))
    plug_ins._entry_points.cache_clear()
    name = "formerly" if after.startswith("formerly") else "former"
    code, shown = tasks_command(bare, "train", "--model", name)
    assert code == 2
    assert f"model '{name}' of package former" in shown
    assert message in shown


def test_a_package_that_does_not_load_leaves_the_other_models_alone(
    package, project, build, tasks_command
):
    (package / "entry_points.txt").write_text("[vibe_pipeline.models]\nformerly = former:MODEL\n")
    plug_ins._entry_points.cache_clear()
    assert build(project, "Report").code == 0
    project.configure("[formerly]\nepochs = 3")
    code, shown = tasks_command(project, "train", "--model", "hmmr")
    assert code == 2
    assert "[formerly]: model 'formerly' of package former" in shown


def test_what_fails_in_its_modules_is_called_by_its_name_and_its_package(package, monkeypatch):
    config = models.find("former").config()
    monkeypatch.setitem(sys.modules, "former.network", None)  # its import fails
    for use in (
        lambda config: models.find(config.MODEL).load_trainer(),
        lambda config: models.build_generator(config, None),
    ):
        with pytest.raises(
            plug_ins.PlugInError, match=r"model 'former' of package former failed in"
        ):
            use(config)


EVALUATED = "        state = self.embed"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("pred = self", "None + 1\n        pred = self", r"losses, .*: TypeError: unsupported .*network.py:\d+"),
        ("self.learners =", "self.lerners =", r"by its learners: AttributeError: .* 'learners'"),
        ("class FormerTrainer(VideoTrainer):", "{}\n    def prepare(self, splits): 1 / 0", "prepare: Zero.*network.py"),
        (EVALUATED, "        if not self.training: [][0]\n{}", "regress: IndexError: .*at .*network.py:"),
    ],
)  # fmt: skip
def test_a_bug_of_a_model_is_told_with_its_package_and_line(
    package, tmp_path, monkeypatch, before, after, message
):
    file = package.parent / "former" / "network.py"
    source = file.read_text()
    assert before in source
    file.write_text(source.replace(before, after.replace("{}", before)))
    in_memory(monkeypatch, "vibe")
    with pytest.raises(
        plug_ins.PlugInError, match=rf"^model 'former' of package former failed in .*{message}"
    ):
        training.run(like_vibe(models.find("former").config, tmp_path, hidden_size=8))
