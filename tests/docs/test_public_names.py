"""The API reference has all names of ours that pages and their packages import."""

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.markdown import DOCS, ROOT, blocks, document

OURS = {"cache", "pipeline", "vibe_model", "tasks"}
MODULE = re.compile(r"(current|auto)module:: ([\w.]+)")
NAME = re.compile(r"(?:auto(?:class|function|data|exception)|py:data):: ([\w.]+)")
# Names that other code may rely on, besides those that pages import.
PROMISED = """
cache.open cache.FeatureCache cache.Split cache.verify cache.mixture.Mixture
pipeline.datasets.names pipeline.datasets.get pipeline.datasets.base.Dataset pipeline.people.track.Track
pipeline.people.skeletons.convert pipeline.people.boxes.crop_person pipeline.people.boxes.normalise_keypoints
pipeline.people.boxes.smooth_boxes
pipeline.people.body.Body vibe_model.VIBE vibe_model.MotionDiscriminator
vibe_model.load_published vibe_model.losses.generator_losses vibe_model.losses.adversarial_generator
vibe_model.losses.adversarial_discriminator vibe_model.vibe.training.step_losses
vibe_model.training.run
vibe_model.metrics.mpjpe vibe_model.metrics.pa_mpjpe vibe_model.metrics.pve vibe_model.metrics.accel
vibe_model.metrics.accel_error vibe_model.metrics.pck vibe_model.metrics.auc
cache.torch_mixture cache.MixturePart
tasks.Data tasks.TrainVIBE tasks.EvaluateVIBE tasks.Report
vibe_model.networks.video_model.VideoModel vibe_model.networks.video_model.Estimate
vibe_model.vibe.networks.Regressor
vibe_model.training.video.VideoTrainer vibe_model.training.data.TrainingBatch
vibe_model.settings.VideoConfig
vibe_model.models.Model vibe_model.models.Training pipeline.features.weights.WeightsSpec
pipeline.clips.detectors.Detector pipeline.clips.detectors.People
pipeline.files.pixels.frames.Video pipeline.files.pixels.frames.FrameSource
pipeline.datasets.base.Origin pipeline.testing.datasets.reader_problems cache.torch_windows
pipeline.testing.streams.stream_problems
vibe_model.evaluation.protocols.Protocol
"""


def resolved(path):
    """A module or an attribute of one. Raises AttributeError if it does not exist."""
    module, _, name = path.rpartition(".")
    try:
        return (
            getattr(importlib.import_module(module), name)
            if module
            else importlib.import_module(path)
        )
    except AttributeError:
        return importlib.import_module(path)


def imported():
    """Every name of ours that a page's code or a file of its package imports."""
    pages = (code for page in DOCS for code in blocks("py[^\\n]*", page.read_text()))
    for code in (*pages, *map(Path.read_text, (ROOT / "docs").glob("adding-a-*/**/*.py"))):
        try:
            nodes = list(ast.walk(ast.parse(code)))
        except SyntaxError:  # a piece of a file, which is read as a whole
            continue
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(scope="module")
def listed():
    """The modules and paths in the reference, and the objects that they name."""
    paths = set()
    for page in (ROOT / "docs/api").glob("*.md"):
        current = ""
        for line in page.read_text().splitlines():
            if module := MODULE.search(line):
                current = module[2] if module[1] == "current" else current
                paths.add(module[2])
                if module[1] == "auto":
                    held = vars(importlib.import_module(module[2]))
                    paths |= {f"{module[2]}.{name}" for name in held if name[0] != "_"}
            elif name := NAME.search(line):
                whole = name[1] if name[1].split(".")[0] in OURS else f"{current}.{name[1]}"
                paths |= {whole, whole.rpartition(".")[0]}
    return paths, [resolved(path) for path in sorted(paths)]


def is_listed(path, listed):
    paths, things = listed
    thing = resolved(path)
    if isinstance(thing, ModuleType):
        return any(f"{name}.".startswith(f"{thing.__name__}.") for name in paths)
    return path in paths or any(thing is other for other in things)


def test_every_name_that_a_page_or_the_design_names_is_in_the_reference(listed):
    names = {*imported(), *PROMISED.split()}
    assert len(names) > 50
    assert sorted(name for name in names if not is_listed(name, listed)) == []
    assert not is_listed("cache.read.split.require_cache", listed), (
        "a name that the reference does not have"
    )


@pytest.mark.parametrize("package", ["pipeline", "vibe_model"])
def test_the_names_for_packages_are_those_of_the_api_module(package, listed):
    page = document(f"api/{package}.md")
    section = page.partition("## For packages\n")[2].partition("\n## ")[0]
    module = importlib.import_module(f"{package}.api")
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    names = sorted(module.__all__)
    assert sorted(re.findall(r"`(\w+)`", "".join(rows))) == names
    assert [name for name in names if not is_listed(f"{package}.api.{name}", listed)] == []
