import dataclasses
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

from pipeline import datasets
from pipeline.errors import ConfigError
from pipeline.features.spec import Resources
from pipeline.features.streams.base import Machine
from pipeline.features.streams.crops import Crops
from pipeline.settings import sections
from tasks import settings
from vibe_model.settings.config import TrainConfig
from vibe_model.settings.mposer_config import MPoserConfig

ROOT = Path(__file__).parents[2]

GOOD = """
[paths]
raw = raw
body = /somewhere/smpl
cache = cache
runs = runs
[data]
datasets = penn_action amass
[convert]
workers = 3
[amass]
resampling = decimate
[train]
preset = embedded
[core]
autoload_range = false
"""


def load(tmp_path: Path, text: str) -> settings.Settings:
    file = tmp_path / "luigi.cfg"
    file.write_text(text)
    return settings.load(file)


def test_the_shipped_luigi_cfg_is_valid() -> None:
    assert settings.load(ROOT / "luigi.cfg").data.datasets == tuple(datasets.DATASETS)


def test_relative_paths_lie_below_the_folder_of_the_file_and_absolute_ones_where_they_say(tmp_path: Path) -> None:
    paths = load(tmp_path, GOOD).paths
    assert paths.cache == tmp_path / "cache"
    assert paths.body == Path("/somewhere/smpl")


@pytest.mark.parametrize("before", ["[paths]", "raw = raw", "[data]", "datasets = penn_action amass"])
def test_commands_without_luigi_tell_what_is_missing_too(before: str, tmp_path: Path) -> None:
    (tmp_path / "luigi.cfg").write_text(GOOD.replace(before, ""))
    with pytest.raises(ConfigError, match=r"luigi\.cfg"):
        sections.load(tmp_path / "luigi.cfg")


def test_values_arrive_in_their_types(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.convert.workers == 3
    assert loaded.convert.strict is False
    assert loaded.dataset("amass").parameters() == {"resampling": "decimate"}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "cache = cache",
            "cahce = cache",
            r"line 5 \[paths\] cahce: unknown key; did you mean 'cache'\? known: raw, body, cache, runs",
        ),
        ("runs = runs", "", r"luigi\.cfg, line 2 \[paths\]: 'runs' is missing"),
        ("workers = 3", "workers = three", r"line 10 \[convert\] workers = three: expected a whole number"),
        ("workers = 3", "strict = perhaps", r"\[convert\] strict = perhaps: expected true or false"),
        (
            "[convert]",
            "[conversion]",
            r"line 9 \[conversion\]: unknown section;.* known: .*convert,.*Luigi's own: core",
        ),
        (
            "penn_action amass",
            "penn_action amas",
            r"line 8 \[data\] datasets: there is no dataset 'amas'; did you mean 'amass'\? known: penn",
        ),
        (
            "resampling = decimate",
            "resample = x",
            r"line 12 \[amass\] resample: unknown key; did you mean 'resampling'\?",
        ),
        ("[data]", "[data", r"luigi\.cfg"),
        ("workers = 3", "workers = -1", r"\[convert\] workers = -1: expected a whole number, 0 or more"),
        ("penn_action amass", "", r"\[data\] datasets: expected one or more of .*, found none"),
        ("penn_action amass", "amass amass", r"\[data\] datasets: .*, found one twice \(amass amass\)"),
        ("cache = cache", "cache =", r"\[paths\] cache = : expected a path"),
        (
            "= decimate",
            "= sideways",
            r"luigi\.cfg, line 12 \[amass\] amass: resampling is 'sideways'; it can be slerp or",
        ),
        (
            "[core]",
            "[embedded]\nsize = huge\n[core]",
            r"\[embedded\] size = huge: expected one of tiny, default, large",
        ),
        ("[core]", "[embedded]\nseed = -1\n[core]", r"\[embedded\] seed = -1: expected a whole number, 0 or more"),
        ("[core]", "[features]\nprecision = quick\n[core]", r"precision = quick: expected one of exact, fast"),
        ("[core]", "[features]\nbatch_size = -1\n[core]", r"batch_size = -1: expected a whole number, 0 or more"),
        ("[core]", "[features]\ntimeout = 0\n[core]", r"timeout = 0: expected a whole number, 1 or more"),
        (
            "[core]",
            "[features]\nkind = resnet5\n[core]",
            r"kind: no stream is called 'resnet5'; known: resnet50",
        ),
        (
            "[core]",
            "[features]\ncrops = resnet50\n[core]",
            r"line 16 \[features\] crops: stream 'resnet50' cannot be computed from itself",
        ),
        (
            "[core]",
            "[crops]\nquality = 90\n[core]",
            r"\[crops\] has options of a stream, but .* kind is resnet50, and crops is none",
        ),
        (
            "[core]",
            "[features]\ncrops = crops\n[crops]\nquality = 101\n[core]",
            r"line 18 \[crops\] quality 101: expected",
        ),
        ("[core]", "[features]\ncrops = ../x\n[core]", r"line 16 \[features\] crops: '\.\./x' is no stream's name"),
        ("[core]", "[features]\nstream = a_ok\n[core]", r"line 16 \[features\] stream: 'a_ok' is no stream's name"),
        ("[core]", "[features]\nkind = crops\n[crops]\nquality = 101\n[core]", r"quality 101: expected 1 to 100"),
        ("[core]", "[features]\nkind = crops\n[crops]\nquality = good\n[core]", r"quality = good: expected a whole"),
        ("[core]", "[resnet50]\nweights = untrained:1\n[core]", r"\[resnet50\] weights: belongs into \[features\]"),
        (
            "[core]",
            "[dask]\nschedular = x\n[core]",
            r"line 16 \[dask\] schedular: unknown key; did you mean 'scheduler'\? known: scheduler",
        ),
        ("[core]", "[features]\nweights = spin\n[core]", r"line 16 \[features\] weights 'spin': expected one of"),
        ("[core]", "[features]\nweights = untrained:x\n[core]", r"expected a whole number as seed, as in untrained:0"),
        ("[core]", "[convert]\n[core]", r"line 15 \[convert\]: this section is in line 9 already"),
    ],
)
def test_a_mistake_is_named_with_its_section_and_what_was_expected(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, GOOD.replace(before, after))


def test_streams_of_other_kinds_have_a_section_of_their_own(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + "[features]\nstream = small\nkind = crops\n[crops]\nquality = 80\n")
    assert (loaded.stream.name, loaded.stream.stream, loaded.stream.crops) == ("small", Crops(quality=80), "")


def test_a_stream_that_is_called_like_another_section_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.features.streams.names", lambda: ("resnet50", "crops", "amass"))
    with pytest.raises(ConfigError, match="a stream of another package is called 'amass'"):
        load(tmp_path, GOOD)


def test_what_of_the_machine_may_be_taken_is_handed_on(tmp_path: Path) -> None:
    given = "[features]\ncrops = small\ndevice = cuda\nbatch_size = 64\ncompile = true\nworkers = 5\ntimeout = 9\n"
    loaded = load(tmp_path, GOOD + given + "[dask]\nscheduler = tcp://node:8786\n")
    assert loaded.stream.crops == "small"
    assert loaded.stream.resources == Resources(Machine("cuda", 64, compile=True), workers=5, timeout=9)
    assert loaded.dask.scheduler == "tcp://node:8786"
    assert load(tmp_path, GOOD).dask.scheduler is None


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LUIGI_CONFIG_PATH"):
        settings.load(tmp_path / "luigi.cfg")


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "luigi.cfg").write_bytes(b"[paths]\nraw = \xff\n")
    with pytest.raises(ConfigError, match=r"luigi\.cfg, line 2: expected text in UTF-8, found the byte 0xff"):
        settings.load(tmp_path / "luigi.cfg")


@pytest.mark.parametrize(("given", "expected"), [("file:w/r50.pt", "file:{}/w/r50.pt"), ("spin:/s.pt", "spin:/s.pt")])
def test_a_checkpoints_path_is_taken_from_the_folder_of_the_file(tmp_path: Path, given: str, expected: str) -> None:
    loaded = load(tmp_path, GOOD + f"[features]\nweights = {given}\n")
    assert str(loaded.stream.stream.weights) == expected.format(tmp_path)


def test_names_of_torchvisions_weights_are_no_paths(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + "[features]\nweights = torchvision:IMAGENET1K_V2\n")
    assert str(loaded.stream.stream.weights) == "torchvision:IMAGENET1K_V2"


# ------------------------------------------------------------------------------------------------- contradictions


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[features]\ndevice = cpu\ncompile = true\n", r"line 19 \[features\] compile = true: device is cpu"),
        ("[features]\ndevice = gpu\n", r"line 18 \[features\] device = gpu: expected auto, cpu, cuda, or"),
        ("[features]\nkind = crops\nweights = untrained:0\n", r"line 19 \[features\] weights: is for kind = resnet50"),
        ("[features]\nkind = crops\nprecision = fast\n", r"line 19 \[features\] precision: is for kind = resnet50"),
        ("[features]\ndecode = reduced\n", r"line 18 \[features\] decode: this key is gone. Pictures are"),
        (
            "[features]\ndevice = cuda:1\n[dask]\nscheduler = tcp://a:1\n",
            r"line 18 \[features\] device = cuda:1: with \[dask\] scheduler every worker has a GPU of its own",
        ),
        ("[machine]\npreset = cluster\n", r"line 17 \[machine\]: this section is gone. Set the keys"),
        ("[mposer]\npreset = mine\n", r"line 18 \[mposer\] preset = mine: expected one of amass, embedded"),
        ("[mposer]\nseqlen = 3\n", r"line 18 \[mposer\] seqlen: is set in \[train\] or \[paths\], not here"),
        ("[mposer]\nepochs = 0\n", r"line 18 \[mposer\] epochs: expected more than 0, found 0"),
        ("[DEFAULT]\nworkers = 3\n", r"line 17 \[DEFAULT\]: unknown section"),
    ],
)
def test_settings_that_contradict_each_other_are_told_with_the_line_of_one(
    tmp_path: Path, more: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"luigi\.cfg, {message}"):
        load(tmp_path, GOOD + more)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("runs = runs", "runs = cache/runs", r"line 6 \[paths\] runs: .*cache/runs is in the cache, .*cache, which"),
        ("raw = raw", "raw = cache", r"line 3 \[paths\] raw: .* is in the cache"),
        ("runs = runs", "runs = raw", r"line 6 \[paths\] runs: .*raw is raw, too: name a folder of its own"),
    ],
)
def test_what_gc_would_take_for_a_left_over_cannot_lie_in_the_cache(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, GOOD.replace(before, after))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("hold = device", r"line 15 \[train\] hold = device: device is cpu, whose memory is called ram"),
        ("device = cuda:1\nprocesses = 2", r"line 16 \[train\] processes = 2: device is cuda:1, but each of several"),
        ("strides = 3dpw/trian:4", r"line 15 \[train\] strides: there is no split 3dpw/trian; .*known: .*3dpw/train"),
        ("tracks = h36m/vla:*", r"line 15 \[train\] tracks: there is no split h36m/vla"),
        (
            "epoch = 3",
            r"line 15 \[train\] epoch: unknown key; did you mean 'epochs'\? known: preset, variant, baseline",
        ),
        ("baseline = perhaps", r"line 15 \[train\] baseline = perhaps: expected true or false"),
        ("variant = concatt", r"line 15 \[train\] variant: expected one of per-frame, .* found 'concatt'"),
        ("batch_size = 4\nprocesses = 5", r"line 16 \[train\] processes: expected at most batch_size, 4"),
    ],
)
def test_mistakes_of_training_are_told_before_anybody_trains(tmp_path: Path, keys: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, GOOD.replace("preset = embedded", f"preset = embedded\n{keys}"))


def test_keys_of_training_that_other_sections_set_are_not_offered(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        load(tmp_path, GOOD.replace("preset = embedded", "nonsense = 1"))
    known = str(told.value).partition("known: ")[2].split(", ")
    assert not {"cache", "runs", "body", "stream"} & set(known)


def test_no_variant_may_be_said_in_words(tmp_path: Path) -> None:
    for text in ("none", ""):
        loaded = load(tmp_path, GOOD.replace("preset = embedded", f"preset = embedded\nvariant = {text}"))
        assert settings.own_config(loaded).name == "embedded"


# ------------------------------------------------------------------------------------------------------ any typo

SECTIONS = {
    **{name: tuple(f.name for f in dataclasses.fields(spec)) for name, spec in sections.TYPES.items()},
    **{name: tuple(f.name for f in dataclasses.fields(datasets.get(name))) for name in ("amass", "3dpw")},
    "train": tuple(f.name for f in dataclasses.fields(TrainConfig)),
    "mposer": tuple(f.name for f in dataclasses.fields(MPoserConfig)),
}


@st.composite
def typos(draw: st.DrawFn) -> tuple[str, str]:
    """A section, and one of its keys with a letter lost, doubled, exchanged, or in another case."""
    section = draw(st.sampled_from(sorted(SECTIONS)))
    key = draw(st.sampled_from(SECTIONS[section]))
    at = draw(st.integers(0, len(key) - 1))
    letter = draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_0"))
    wrong = draw(
        st.sampled_from(
            [
                key[:at] + key[at + 1 :],
                key[:at] + key[at] + key[at:],
                key[:at] + letter + key[at + 1 :],
                key[:at] + key[at].upper() + key[at + 1 :],
                key[:at] + letter + key[at:],
            ]
        )
    )
    assume(wrong and wrong not in SECTIONS[section] and wrong not in settings.OF_TRAIN)
    return section, wrong


@pytest.mark.slow
@given(typos(), st.integers(0, 5))
@hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_typo_of_any_key_is_told_with_its_line(tmp_path: Path, typo: tuple[str, str], blank: int) -> None:
    section, wrong = typo
    lines = GOOD.splitlines()
    if f"[{section}]" not in lines:
        lines += [f"[{section}]"]
    at = lines.index(f"[{section}]") + 1
    lines[at:at] = ["# a comment"] * blank + [f"{wrong} = 1"]
    with pytest.raises(ConfigError) as told:
        load(tmp_path, "\n".join(lines))
    message = str(told.value)
    assert message.startswith(f"{tmp_path / 'luigi.cfg'}, line {at + blank + 1} [{section}] {wrong}: unknown key;")
    assert "\n" not in message
