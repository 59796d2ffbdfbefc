"""The ablation's table from numbers written by hand; its variants; and a small one from training to
the files.
"""

import csv
import io

import pytest

from pipeline.errors import ConfigError
from tasks import Ablation, Train, TrainMPoser
from tasks.ablation import TABLE, _AblationResults, _reasons_to_skip
from tasks.results import RunMetrics
from tasks.training import _mposer_config, model_config
from tests.results import read_file
from vibe_model import runs
from vibe_model.sections import VIBE
from vibe_model.vibe.config import MPoserConfig, TrainConfig

MPOSER = """
[mposer]
hidden_size = 8
latent_size = 4
iterations = 5
epochs = 2
batch_size = 4
"""


def run_of(pa_mpjpe, smoothed=None, *, stand_in=False, **others):
    """metrics.json of a run on one split."""
    result = {"pa_mpjpe": pa_mpjpe, "baseline": {"pa_mpjpe": 135.4}, "frames": 1119, **others}
    if smoothed is not None:
        result["smoothed"] = {"sigma": 2.0, "pa_mpjpe": smoothed}
    published = {**result, "pa_mpjpe": pa_mpjpe + 1}
    return RunMetrics(
        {
            "stand_in": stand_in,
            "best": {"epoch": 1},
            "3dpw/test": {**result, "published": published},
        }
    )


THREE_SEEDS = {
    "per-frame": [run_of(80.0, 79.0, accel=30.0), run_of(84.0, 80.0, accel=30.0)],
    "mposer": [run_of(50.0), run_of(53.0)],
}


def rows_of(by_variant):
    """Protocol -> rows of the table."""
    return {table.protocol: table.rows for table in _AblationResults.average(by_variant).tables}


def test_the_table_holds_mean_and_spread_over_seeds_beside_the_baselines():
    rows = {row.model: row for row in rows_of(THREE_SEEDS)["default"]}
    baselines = [
        "mean body",
        "per frame, no temporal encoder",
        "per frame, no temporal encoder, smoothed",
    ]
    assert list(rows) == [*baselines, "G + MPoser prior"]
    errors = [row.errors["pa_mpjpe"] for row in rows.values()]
    # Of two numbers the sample's standard deviation is their distance over the root of 2.
    assert [error.mean for error in errors] == pytest.approx([135.4, 82.0, 79.5, 51.5])
    assert errors[0].spread is None, "the mean body has no seed"
    assert [error.spread for error in errors[1:]] == pytest.approx(
        [4 / 2**0.5, 1 / 2**0.5, 3 / 2**0.5]
    )
    assert [row.n_runs for row in rows.values()] == [1, 2, 2, 2]
    published = [row for row in rows_of(THREE_SEEDS)["published"] if row.n_runs]
    assert published[-1].errors["pa_mpjpe"].mean == pytest.approx(52.5)
    odd = {"mposer": [run_of(50.0, accel=20.0), run_of(53.0)]}
    assert all("accel" not in row.errors for row in rows_of(odd)["default"]), (
        "an error that one seed lacks has no mean"
    )


def test_the_papers_figures_are_below_ones_own_on_real_data_by_their_protocol():
    rows = rows_of(THREE_SEEDS)
    assert all(row.n_runs for row in rows["default"])
    published = {row.model: row for row in rows["published"] if row.n_runs is None}
    pa_mpjpe = [row.errors["pa_mpjpe"].mean for row in published.values()]
    assert pa_mpjpe == [73.6, 75.8, 72.4, 60.1, 56.9, 54.1, 53.7, 54.2, 51.9, 53.6, 52.4]
    errors = published["G + MPoser prior, published"].errors
    assert [error.mean for error in errors.values()] == [54.1, 87.0, 103.9, 28.2]
    demo = rows_of({"mposer": [run_of(50.04, stand_in=True)]})
    assert all(row.n_runs for row in demo["published"])
    assert [row.text("pa_mpjpe") for row in demo["default"]] == ["135.4", "50.0"]


def test_csv_has_two_columns_an_error_and_empty_cells():
    lines = list(csv.DictReader(io.StringIO(_AblationResults.average(THREE_SEEDS).as_csv())))
    per_frame, mposer = (
        next(line for line in lines if line["model"].startswith(n))
        for n in ("per frame,", "G + MP")
    )
    assert (per_frame["pa_mpjpe"], per_frame["pa_mpjpe_spread"]) == ("82.0", "2.83")
    assert (per_frame["accel"], per_frame["accel_spread"]) == ("30.0", "0.0")
    assert (mposer["accel"], mposer["accel_spread"], mposer["seeds"], mposer["frames"]) == (
        "",
        "",
        "2",
        "1119",
    )


def test_variants_that_the_data_cannot_train_are_left_out():
    config = TrainConfig(datasets_3d=("3dpw/train",))
    assert _reasons_to_skip(config) == {"without-3dpw": "3dpw/train is the only 3D data"}
    assert _reasons_to_skip(TrainConfig(datasets_3d=("h36m/train",))) == {
        "without-3dpw": "3dpw/train is not trained on"
    }
    assert _reasons_to_skip(TrainConfig()) == {}
    attention = {f"attention-{n}x{size}" for n in (2, 3) for size in (512, 1024)}
    assert (
        _reasons_to_skip(TrainConfig(motion=(), prior="none")).keys()
        == {"mposer", "concat"} | attention
    )


@pytest.fixture
def asking(bare, within):
    """The ablation of a luigi.cfg whose [vibe] differs by this text."""

    def ask(text="", **parameters):
        bare.configure(f"[data]\ndatasets = 3dpw amass h36m\n[vibe]\n{text}")
        within(bare)
        return Ablation(**parameters)

    return ask


def test_it_requires_a_training_for_each_variant_and_seed(asking):
    task = asking(variants="per-frame, concat", seeds="3,5,3")
    trained = [(t.variant, t.seed) for t in task.requires() if isinstance(t, Train)]
    assert trained == [("per-frame", 3), ("per-frame", 5), ("concat", 3), ("concat", 5)]
    assert task.what == "2 variants, 2 seeds"


def test_a_negative_seed_is_refused(asking):
    asking("seed = 6")
    assert model_config(VIBE).seed == 6
    with pytest.raises(ConfigError, match="seed"):
        model_config(VIBE, None, -1)
    for wrong in ({"seeds": "0,-1"}, {"variants": "mposer,dropout"}):
        with pytest.raises(ConfigError, match=r"--seeds 0,-1|--variants: unknown"):
            asking(**wrong).requires()


def test_a_priors_windows_are_those_that_the_generator_is_trained_on(asking):
    asking("seqlen = 7\nstrides = amass/train:3\nmotion = amass/train")
    config = _mposer_config(model_config(VIBE, "mposer", 4))
    assert (config.seqlen, config.seed, config.motion, config.strides) == (
        7,
        4,
        ("amass/train",),
        {"amass/train": 3},
    )
    assert config.hidden_size == MPoserConfig.embedded().hidden_size, "[vibe] preset is embedded"


def test_a_prior_without_its_data_is_a_file_that_does_not_exist(asking):
    task = asking(variants="mposer", seeds="0")
    config = model_config(VIBE, "mposer", 0)
    assert (
        config.mposer
        == TrainMPoser.checkpoint(config)
        == config.runs / "mposer-unknown" / "best.pt"
    )
    assert not task.complete()
    assert not TrainMPoser().complete()


@pytest.mark.slow
def test_from_a_project_to_the_table(project, build):
    project.configure(MPOSER)
    chosen = {"variants": "per-frame,mposer", "seeds": "0,1"}
    ran = build(project, "Ablation", **chosen)
    assert ran.code == 0, ran.shown
    folder = project.folder / "runs"
    table = (folder / TABLE).read_text()
    assert "\n3dpw/test,default,G + MPoser prior,2," in table
    for seed in (0, 1):
        config = model_config(VIBE, "mposer", seed)
        prior = runs.run_folder(_mposer_config(config))
        assert config.mposer == prior / "best.pt"
        about = read_file(runs.run_folder(config) / "config.json")["config"]
        assert (about["seed"], about["mposer"]) == (seed, str(config.mposer))
    assert "DEMO DATA" in ran.shown
    assert read_file(prior / "best.pt")["stand_in"] is True

    before = project.files()
    again = build(project, "Ablation", **chosen)
    assert (again.code, again.done) == (0, [])
    assert "G + MPoser prior" in again.shown
    assert project.files() == before
    (folder / TABLE).write_text("something else")
    (done,) = build(project, "Ablation", **chosen).done
    assert done.startswith("ablate 2 variants")
    assert (folder / TABLE).read_text() == table
