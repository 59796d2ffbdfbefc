"""The papers' presets: what is said before they are trained, and what HMMR reads and evaluates."""

import pytest

from cache.crop_policy import CropPolicy
from pipeline.__main__ import main as pipeline
from pipeline.errors import ConfigError
from pipeline.features.streams.network import ResNet50
from pipeline.people import smpl_files
from pipeline.settings.sections import stream_of
from tasks.__main__ import main as tasks
from tests.fake_network import replace_network
from tests.results import read_file
from tests.tasks.conftest import GOOD, forget, load
from vibe_model import runs, training
from vibe_model.sections import ModelSections

PRESETS = (
    ("vibe", "published"),
    ("vibe", "paper"),
    ("hmmr", "hmmr"),
    ("hmmr", "hmmr-published"),
    ("part_dynamics", "partdyn"),
)


@pytest.fixture
def real(tmp_path, monkeypatch, within):
    """Folders of real data without data, and trainings that end before they begin."""
    for folder in ("raw", "body"):
        (tmp_path / folder).mkdir()
    for name in smpl_files.missing(tmp_path / "body"):
        for gender in ("NEUTRAL", "MALE", "FEMALE"):
            file = name.partition(" ")[0].replace("NEUTRAL", gender)
            (tmp_path / "body" / file).touch()
    for gender in ("MALE", "FEMALE"):
        (tmp_path / "body" / f"SMPLX_{gender}.npz").touch()
    (tmp_path / "spin.pt").touch()
    replace_network(monkeypatch)
    monkeypatch.setattr(runs, "open_splits", lambda config, pin=None: {})
    monkeypatch.setattr(training, "run", lambda config, progress: config.runs / config.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(words):
    forget()
    return (tasks if words[0] == "train" else pipeline)(words)


def test_what_the_presets_of_the_papers_say_before_they_are_trained(real, golden, monkeypatch):
    with golden("papers", command, {}) as show:
        folders = ("--raw", "raw", "--body", "body")
        show("nothing is there", "init", "gone", "--real", "--raw", "row", "--weights", "spin:n.pt")
        for weights in ("spin:spin.pt", "torchvision:IMAGENET1K_V2"):
            work = weights.partition(":")[0]
            show(f"with {weights}", "init", work, "--real", *folders, "--weights", weights)
            text = (real / work / "luigi.cfg").read_text()
            show.add(text[text.index("[resnet50]") : text.index("[core]")])
            monkeypatch.setenv("LUIGI_CONFIG_PATH", str(real / work / "luigi.cfg"))
            for model, preset in PRESETS:
                words = ("--set", f"{model}.preset={preset}")
                if model == "part_dynamics":  # else TrainPrVIPE's, by what the cache has
                    words += ("--set", "part_dynamics.embedding=spin.pt")
                show(f"{preset}, {weights}", "config", "--check", *words)
                if (preset, work) == ("hmmr-published", "spin"):
                    words += ("--set", "hmmr.pretrained=none")
                    show("HMMR's regressor is another one", "config", "--check", *words)
                show("its first lines", "train", "--model", model, *words)


HMMR = """
[data]
datasets = 3dpw amass penn_action
[hmmr]
preset = hmmr-published
copies_3d = 2
datasets_2d = penn_action/train
datasets_3d = 3dpw/train
validation = 3dpw/validation penn_action/train:0001*
evaluation = 3dpw/test penn_action/train:!0001*
baseline = false
seqlen = 6
stride = 4
batch_size = 2
iterations = 1
epochs = 1
width = 32
regressor_size = 8
prior = none
"""


@pytest.fixture
def hmmr(project):
    """A project with demo data of Penn Action and 3DPW, for a short training as published."""
    project.configure(HMMR)
    return project


def test_hmmr_reads_copies_of_what_it_trains_on_and_evaluates_all_but_its_validation_tracks(
    hmmr, build, tasks_command
):
    ran = build(hmmr, "TrainHMMR")
    assert ran.code == 0, ran.shown
    assert ran.shown.count("hmmr starts from a random regressor, not from HMR's") == 1
    copies = {
        path.relative_to(hmmr.folder / "cache").as_posix()
        for path in hmmr.folder.glob("cache/*/*/features/*.j?")
    }
    assert copies == {
        "3dpw/train/features/resnet50.j1",
        "3dpw/train/features/resnet50.j2",
        "penn_action/train/features/resnet50.j1",
    }
    (folder,) = [folder for folder in hmmr.runs if folder.name.startswith("hmmr")]
    for name in ("config.json", "metrics.json"):
        assert read_file(folder / name)["starts_from"] == "random weights"
    out = hmmr.folder / "out"
    words = ("--checkpoint", str(folder / "best.pt"), "--out", str(out))
    assert tasks_command(hmmr, "evaluate", *words)[0] == 0
    for made in (folder, out):  # of the two videos of Penn Action, 0001 chooses the epoch
        rows = read_file(made / "sequences.json")["sequences"]
        assert [row["track"] for row in rows] == ["downtown_stretching_07/0", "0003/0"]
        numbers = read_file(made / "metrics.json")["penn_action/train"]["hmmr"]
        assert {"accel", "pck_aligned"} <= numbers.keys()


def test_a_jittered_copy_without_a_section_has_the_options_of_its_stream(tmp_path):
    options = "[resnet50]\nprecision = exact\ncrop = scale:1.1\n"
    source = load(tmp_path, GOOD + options).source
    copy = stream_of(source, "resnet50.j2").stream
    assert copy == ResNet50(precision="exact", crop=CropPolicy.parse("scale:1.1 jitter:2"))
    with pytest.raises(ConfigError, match="crop: unknown key"):
        stream_of(source, "pr_vipe.j1")


def test_a_check_names_a_stream_that_only_a_model_reads_and_no_setting_defines(tmp_path):
    text = GOOD.replace("penn_action amass", "penn_action kinetics 3dpw amass")
    loaded = load(tmp_path, text + "[part_dynamics]\npr_vipe_stream = mine\n")
    with pytest.raises(ConfigError, match="no stream is called 'mine'"):
        [*ModelSections(loaded).check_all_inputs()]
