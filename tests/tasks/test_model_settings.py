"""What is trained, by luigi.cfg: presets, variants, and the command line over all of them."""

import pytest

from pipeline.errors import ConfigError
from tasks import Convert, EvaluateHMMR, Train, TrainPrVIPE
from tasks.training import model_config
from tests.tasks.conftest import GOOD, ROOT, load
from vibe_model import models
from vibe_model.hmmr.config import HMMRConfig
from vibe_model.sections import VIBE, ModelSections, RunChoice
from vibe_model.vibe.config import TrainConfig


@pytest.fixture
def config_with(bare, within):
    """VIBE's configuration by `[vibe]` with a text."""

    def read(text=""):
        bare.configure("[data]\ndatasets = penn_action kinetics 3dpw amass")
        bare.configure(f"[vibe]\npreset = embedded\ndatasets_2d\n{text}")
        within(bare)
        return model_config(VIBE)

    return read


SETTINGS = """
epochs = 7
lr_generator = 2e-4
strides = 3dpw/train:4 penn_action/train:2
tracks = 3dpw/test:*_01/0 3dpw/validation:a:b
pretrained = spin.pt
"""


def test_the_training_settings_build_on_a_preset_and_other_sections(config_with, bare):
    bare.configure("[features]\nstreams = other\n[other]\nkind = resnet50")
    (bare.folder / "spin.pt").write_bytes(b"")
    config = config_with(SETTINGS)
    assert (config.epochs, config.lr_generator) == (7, 2e-4)
    assert config.datasets_2d == ("penn_action/train", "kinetics/train"), (
        "of the preset's, what is enabled"
    )
    assert (config.cache, config.runs, config.body) == tuple(
        bare.folder / name for name in ("cache", "runs", "body")
    )
    assert config.stream == "other"
    assert config.strides == {"3dpw/train": 4, "penn_action/train": 2}
    assert config.tracks == {"3dpw/test": "*_01/0", "3dpw/validation": "a:b"}
    assert config.pretrained == bare.folder / "spin.pt"
    config = config_with("pretrained = none\nstrides =\nmotion =\nprior = none")
    assert (config.pretrained, config.strides) == (None, {})


def test_a_variant_wins_over_the_settings_and_several_are_joined(config_with, tmp_path):
    config = config_with(
        "variant = attention-2x512\ndisc_size = 64\nattention_layers = 5\nepochs = 3"
    )
    assert (config.disc_size, config.attention_layers, config.epochs) == (512, 3, 3)
    assert config.name.endswith("-attention-2x512")
    lists = "datasets_3d = 3dpw/train 3dpw/validation\ndisc_size\nattention_layers\n"
    config = config_with(f"{lists}variant = per-frame")
    assert (config.n_layers, config.prior) == (0, "none")
    both = VIBE.vary(config, "without-3dpw+concat")
    assert both.splits_of("datasets_3d") == ("3dpw/validation",)
    assert (both.n_layers, both.disc_pool) == (0, "concat")
    for text in ("none", ""):
        loaded = load(
            tmp_path, GOOD.replace("preset = embedded", f"preset = embedded\nvariant = {text}")
        )
        assert ModelSections(loaded).model(VIBE).name == "embedded"


def test_hmmr_has_a_section_of_its_own_and_trains_embedded_where_vibe_does(tmp_path):
    hmmr = models.find("hmmr")
    found = ModelSections(load(tmp_path, GOOD)).model(hmmr)
    assert (found.name, found.cache, found.batch_size) == ("hmmr-embedded", tmp_path / "cache", 4)
    real = GOOD.replace("preset = embedded", "preset = published")
    sections = ModelSections(load(tmp_path, real + "[hmmr]\nbatch_size = 4\npast = 3\n"))
    found = sections.model(hmmr, "no-const", seed=7)
    assert isinstance(found, HMMRConfig)
    assert (found.regressor, found.batch_size, found.deltas, found.seed) == ("spin", 4, (-3, 5), 7)
    assert (found.name, found.weights["const"]) == ("hmmr-no-const", 0)


def test_what_is_trained_follows_from_whether_the_data_are_demo_data(tmp_path):
    shipped, hmmr = (ROOT / "luigi.cfg").read_text(), models.find("hmmr")
    demo = load(tmp_path, shipped)
    real = load(tmp_path, shipped.replace("enabled = true", "enabled = false"))
    assert demo.detector is not None and demo.detector.name == "demo"
    assert real.detector is None
    kinds = [RunChoice.read(s, model) for s in (demo, real) for model in (VIBE, hmmr)]
    assert [(k.preset, k.baseline, k.report) for k in kinds] == [
        *[
            ("embedded", True, True),
            ("embedded", False, True),
            ("published", True, True),
            ("hmmr", True, False),
        ]
    ]
    priors = [ModelSections(s).mposer(ModelSections(s).model(VIBE)) for s in (demo, real)]
    assert [prior.hidden_size for prior in priors] == [128, 512], "embedded where VIBE's is"
    assert ModelSections(real).model(VIBE) == TrainConfig(
        cache=real.paths.cache, runs=real.paths.runs, body=real.paths.body
    )
    assert "videos/train" in ModelSections(demo).model(hmmr).datasets_2d


def test_the_size_of_features_is_the_streams(tmp_path):
    own = "[features]\nstreams = vit\n[vit]\nkind = torchvision\nnetwork = vit_b_16\ndim = 768\n"
    for model in models.every():
        assert ModelSections(load(tmp_path, GOOD + own)).model(model).feature_size == 768


def test_a_stream_that_a_split_can_never_have_is_refused_before_training(tmp_path):
    own = "[features]\nstreams = resnet50 pr_vipe homography\n[pr_vipe]\nkind = cam_angvel\n"
    own += "[part_dynamics]\nreport = true\n"
    loaded = load(tmp_path, GOOD.replace("datasets = ", "datasets = kinetics 3dpw ") + own)
    sections = ModelSections(loaded)
    part_dynamics = models.find("part_dynamics")
    message = r"\[part_dynamics\]: stream 'pr_vipe' is computed from extrinsics, which penn_action"
    with pytest.raises(ConfigError, match=message):
        sections.check_inputs(sections.model(part_dynamics), part_dynamics)


def test_hmmr_is_evaluated_beside_its_single_view_baseline(config_with, bare):
    bare.configure("[hmmr]\nvariant = no-const\npast = 0\nbaseline = true")
    config_with()
    own, baseline = (task.config() for task in EvaluateHMMR().requires())
    assert isinstance(own, HMMRConfig)
    assert (own.name, own.past, own.temporal) == ("hmmr-embedded-no-const", 0, True)
    assert (baseline.name, baseline.per_frame, baseline.weights["const"]) == (
        f"{own.name}+single-view",
        True,
        0,
    )
    bare.configure("[hmmr]\nvariant = single-view")
    config_with()
    assert EvaluateHMMR().requires() == [Train(model="hmmr")]


def test_the_pose_embedding_needs_converted_splits_alone(config_with, bare):
    bare.configure(
        "[pose_embedding]\nposes_3d = 3dpw/train\nvalidation = 3dpw/validation\nlr = 0.5"
    )
    config_with()
    found = TrainPrVIPE(seed=4).config()
    assert (found.seed, found.lr, found.batch_size, found.name) == (4, 0.5, 64, "pr-vipe")
    needed = [(type(one), one.what) for one in TrainPrVIPE().requires()]
    assert needed == [
        (Convert, "amass/train"),
        (Convert, "3dpw/train"),
        (Convert, "3dpw/validation"),
    ]
    with pytest.raises(ConfigError, match="Pr-VIPE has no variants"):
        TrainPrVIPE(variant="small").config()
    bare.configure("[pose_embedding]\nposes_3d = h36m/nowhere")
    config_with()
    with pytest.raises(ConfigError, match=r"\[pose_embedding\] poses_3d"):
        TrainPrVIPE().requires()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            "validation = 3dpw/val",
            r"\[vibe\] validation: there is no split 3dpw/val; .*known: .*3dpw/validation",
        ),
        (
            "pretrained = gone.pt",
            r"\[vibe\] pretrained = .*bare/gone\.pt: there is no such file\. Name another",
        ),
    ],
)
def test_splits_and_files_that_are_absent_are_reported_before_anything_runs(
    config_with, train, message
):
    with pytest.raises(ConfigError, match=message):
        config_with(train)
