"""The names that other people's code, packages and scripts use stay where they are."""

import argparse
import inspect
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest

from pipeline import table
from pipeline.__main__ import parser
from tests.environments import run

NAMES = {  # module, or a class in it -> its public names
    "cache": "open verify FeatureCache Split MixturePart mirror torch_mixture torch_windows",
    "cache:Split": "tracks windows column live read",
    "pipeline.datasets": "names get",
    "pipeline.people.boxes": "crop_person normalise_keypoints smooth_boxes",
    "pipeline.people.skeletons": "convert",
    "pipeline.people.body:Body": "load stand_in",
    "pipeline.people.track:Track": """dataset split name video fps frame_index bbox kp_2d kp_3d
        kp_3d_eval pose betas trans has_3d has_smpl valid gender crop_scale frames""",
    "pipeline.accounting": "Accounting",
    "pipeline.testing": "DatasetContract StreamContract",
    "vibe_model": "VIBE MotionDiscriminator load_published",
    "vibe_model.losses": "generator_losses adversarial_generator adversarial_discriminator",
    "vibe_model.metrics": "mpjpe pa_mpjpe pve accel accel_error pck auc",
    "vibe_model.training": "run",
    "vibe_model.hmmr.generator": "HMMR",
    "vibe_model.hmmr.training": "PoseDiscriminator",
    "vibe_model.part_dynamics.generator": "PartDynamics",
    "vibe_model.part_dynamics.pr_vipe.network": "PrVIPE",
    "tasks": """Data TrainVIBE EvaluateVIBE TrainHMMR TrainPartDynamics Train Evaluate Ablation
        Report""",
}
MODULES = """pipeline.api vibe_model.api vibe_model.hmmr.losses vibe_model.part_dynamics.losses
    vibe_model.part_dynamics.pr_vipe.losses"""
PARAMETERS = {  # function -> its first arguments
    "pipeline.people.skeletons:convert": "keypoints source target",
    "pipeline.people.boxes:crop_person": "image bbox scale size",
    "pipeline.people.boxes:normalise_keypoints": "kp_2d bbox scale size",
    "pipeline.people.boxes:smooth_boxes": "kp_2d threshold median sigma",
    "pipeline.datasets.base:Dataset.tracks": "self raw_dir split body report",
    "cache:Split.read": "self windows stream fields dtype out",
}
# module -> what `USER` misspells
UNKNOWN = [("vibe_model", "VIBBE"), ("pipeline.api", "Bodie"), ("vibe_model.api", "VideoTrained")]
ROOT = Path(__file__).parents[1]
GROUPS = ("datasets", "streams", "detectors", "models", "exports")  # of entry points
COMMANDS = """doctor synthesize convert extract show export detect prepare copy bodies status plan
    verify gc"""


@pytest.mark.parametrize("place", [*NAMES, *MODULES.split()])
def test_public_names_are_where_they_were(place):
    owner = resolve_name(place)
    members = {*dir(owner), *getattr(owner, "__annotations__", {})}
    for name in NAMES.get(place, "").split():
        assert name in members or resolve_name(f"{place}.{name}"), name


@pytest.mark.parametrize("module", ["cache", "pipeline.api", "vibe_model", "vibe_model.api"])
def test_names_that_are_imported_on_use_are_listed_and_can_be_loaded(module):
    owner = resolve_name(module)
    later = {"cache": "gc", "pipeline.api": "Body", "vibe_model": "VIBE"}
    later["vibe_model.api"] = "VideoTrainer"
    assert later[module] in dir(owner)
    for name in owner.__all__:
        assert name in dir(owner)
        getattr(owner, name)
    with pytest.raises(AttributeError, match="VIBBE"):
        resolve_name(f"{module}:VIBBE")


USER = """
from vibe_model import VIBE, VIBBE
from pipeline.api import Bodie
from vibe_model.api import VideoTrainer, VideoTrained

def theta(model: VIBE, features: object) -> None:
    reveal_type(model(features))
"""


@pytest.mark.slow  # a minute, if mypy has not read torch before
def test_type_checkers_know_lazy_names_and_what_a_model_returns_and_refuse_others(tmp_path):
    file = tmp_path / "user.py"
    file.write_text(USER)
    found = run([sys.executable, "-m", "mypy", "--strict", file], ROOT).stdout
    errors = [line.partition("error: ")[2] for line in found.splitlines() if "error: " in line]
    for error, (module, name) in zip(errors, UNKNOWN, strict=True):
        assert error.startswith(f'Module "{module}" has no attribute "{name}"'), found
    assert 'Revealed type is "dict[str, torch._tensor.Tensor]"' in found.replace("builtins.", "")


@pytest.mark.parametrize("function", PARAMETERS)
def test_public_functions_take_the_arguments_that_they_took(function):
    parameters = list(inspect.signature(resolve_name(function)).parameters)
    assert [name for name in parameters if name in PARAMETERS[function].split()] == (
        PARAMETERS[function].split()
    )


def test_public_commands_and_groups_of_entry_points_are_what_they_were():
    (commands,) = [
        action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    assert {*COMMANDS.split()} <= {*commands.choices}
    assert {f"vibe_pipeline.{group}" for group in GROUPS} == {*table.OWN}
    assert {"train", "evaluate", "predict", "report"} <= {*table.COMMANDS["tasks"]}
