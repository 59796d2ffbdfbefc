"""Every command resolves settings alike: an option, else `--set`, else luigi.cfg, else the
default.
"""

import dataclasses
import importlib
import inspect
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import cache
from pipeline import table
from pipeline.features.streams.homography import Homography
from pipeline.files.raw import MARKER
from pipeline.settings import arguments
from pipeline.settings.file import SettingsFile
from pipeline.settings.schema import SECTION_TYPES
from pipeline.settings.sections import Settings

ROOT = Path(__file__).parents[3]
DECIMATE = "[amass]\nresampling = decimate"


@pytest.fixture
def amass(embedded, tmp_path, ran):
    """`convert` of AMASS, and the resampling that its manifest records."""

    def convert(*more):
        ran(
            "convert",
            "amass",
            "train",
            "--raw",
            embedded.raw("amass"),
            "--cache",
            tmp_path / "cache",
            *more,
        )
        manifest = cache.open(tmp_path / "cache")["amass/train"].manifest
        return str(manifest["reader"]["parameters"]["resampling"])

    return convert


@pytest.fixture
def raw_3dpw(embedded, tmp_path):
    return Path(embedded.copy("3dpw", tmp_path / "raw/3dpw"))


@pytest.fixture
def convert_3dpw(raw_3dpw, tmp_path, ran):
    words = (
        "convert",
        "3dpw",
        "train",
        "--raw",
        raw_3dpw,
        "--cache",
        tmp_path / "cache",
        "--workers",
        1,
    )
    return lambda *more, code=0: ran(*words, *more, code=code)


def test_a_datasets_options_are_those_of_luigi_cfg_with_set_over_them(
    amass, embedded, luigi_cfg, ran, tmp_path
):
    assert amass() == "slerp"
    assert amass("--set", "amass.resampling=decimate") == "decimate"  # there need be no luigi.cfg
    luigi_cfg("amass", DECIMATE)
    place = ("amass", "train", "--raw", embedded.raw("amass"))
    assert "up to date" in ran("convert", *place, "--cache", tmp_path / "cache").out
    plan = (
        "plan",
        "amass",
        "--set",
        f"paths.raw={embedded.raw('amass').parent}",
        "--cache",
        tmp_path / "cache",
    )
    assert "amass/train: up to date" in ran(*plan).out
    other = ("--set", "amass.resampling=slerp")
    assert "resampling was decimate, is slerp" in ran(*plan, *other).out
    ran("show", *place, "--out", tmp_path / "page.html", "--tracks", 1)
    assert "decimate" in (tmp_path / "page.html").read_text()
    assert amass(*other) == "slerp"


def test_a_command_that_is_printed_names_the_options_of_the_conversion(embedded, ran, tmp_path):
    raw = tmp_path / "amass"
    shutil.copytree(embedded.raw("amass"), raw)
    root = tmp_path / "cache"
    words = ("convert", "amass/train", "--raw", raw, "--cache", root, "--workers", 1)
    option = ("--set", "amass.resampling=decimate")
    ran(*words, *option)
    name = cache.open(root)["amass/train"].videos[0].name
    for file in raw.rglob(f"{Path(name).name}*.npz"):
        file.unlink()
    shown = ran(*words, *option, code=1)
    printed = " ".join((shown.out + shown.err).split()).partition("delete their rows: ")[2]
    dropped = ran(*shlex.split(printed.partition(" -m pipeline ")[2])).out
    assert "1 removed" in dropped
    assert "0 videos read" in dropped
    split = cache.open(root)["amass/train"]
    assert split.manifest["reader"]["parameters"]["resampling"] == "decimate"
    assert name not in split.videos.names


@pytest.mark.parametrize(
    ("words", "setting", "named"),
    [
        ("convert", "amas.resampling=slerp", ["unknown section", "'amass'"]),
        ("convert", "kinetics.min_frames=20", ["unknown key", "[kinetics] has no settings"]),
        ("convert", "amass.resampling=nonsense", ["nonsense", "slerp or decimate"]),
        ("convert", "vibe.epochs=3", ["vibe.epochs", "`convert`", "convert.workers"]),
        ("convert", "videos.min_frames=3", ["videos.min_frames", "`convert`"]),
        ("convert --retry", "amass.resampling=decimate", ["amass.resampling"]),
        ("show --out page.html", "videos.min_frames=3", ["videos.min_frames"]),
        ("extract", "amass.resampling=decimate", ["amass.resampling"]),
        ("extract --stream pr_vipe", "timm.network=x", ["timm"]),
        ("status", "amass.resampling=decimate", ["amass.resampling", "paths.cache"]),
        ("detect --detector demo", "rtmpose.min_score=0.5", ["rtmpose.min_score", "`detect`"]),
        ("doctor", "vibe.epochs=3", ["vibe.epochs"]),
    ],
)
def test_unread_settings_are_refused(words, setting, named, embedded, ran, converted, tmp_path):
    raw, root = embedded.raw("amass"), converted.root("")
    command, *more = words.split()
    places = {"convert": ["amass", "train", "--raw", raw, "--cache", tmp_path / "cache"]}
    places |= {"status": ["--cache", root]}
    places |= {
        "extract": ["penn_action/train", "--cache", root],
        "show": ["amass", "train", "--raw", raw],
    }
    places |= {"detect": [tmp_path, "--out", tmp_path / "k"]}
    places |= {"doctor": ["amass", "--raw", raw.parent]}
    shown = ran(command, *places[command], *more, "--set", setting, code=2)
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("error: --set ")
    assert [word for word in named if word not in shown.err] == []
    keys = re.findall(r"[a-z_]+\.[a-z_]+", shown.err.partition("It reads ")[2])
    assert len(keys) == len(set(keys))
    assert [path.name for path in tmp_path.iterdir()] == []


READING = {  # command -> runs that together read all that it names; plan: all but training's
    "convert": ["3dpw train --raw {3dpw} --cache {tmp}/c", "3dpw train --cache {tmp}/c --retry"],
    "show": [
        "3dpw train --raw {3dpw} --out {tmp}/p.html",
        "3dpw train --cache {tmp}/c --out {tmp}/p.html",
    ],
    "export": ["3dpw train --cache {tmp}/c --format wham --out {tmp}/x"],
    "detect": ["{tmp} --out {tmp}/k --detector demo"],
    "doctor": ["amass --raw {3dpw}/.."],
    "extract": [
        "penn_action train --cache {penn}",
        "penn_action train --cache {penn} --stream mine --kind resnet50",
    ],
    "prepare": [
        *("3dpw --raw {3dpw} --cache {tmp}/c --plan", "videos --raw {raw} --cache {tmp}/e --plan"),
        "penn_action --raw {raw} --cache {tmp}/d --pages {tmp} --weights untrained:0",
    ],
    "plan": [],
}


@pytest.mark.parametrize("name", sorted(table.COMMANDS["pipeline"]))
def test_a_command_reads_only_what_it_names(
    name, luigi_cfg, embedded, network, run, penn, tmp_path, monkeypatch
):
    module = importlib.import_module(table.COMMANDS["pipeline"][name][0])
    if name not in READING:
        assert (module.COMMAND.reads, "args.cfg" in inspect.getsource(module)) == (None, False)
        return
    luigi_cfg("3dpw")
    penn.converted()
    places = {"3dpw": embedded.raw("3dpw"), "raw": penn.raw, "penn": penn.root, "tmp": tmp_path}
    run("convert", "3dpw/train", "--raw", places["3dpw"], "--cache", tmp_path / "c")
    named, (required, used, every), check = (
        list[str](),
        (set[str]() for _ in range(3)),
        arguments.refuse_unread,
    )

    def begin(args, reads):
        check(args, reads)
        used.clear()
        named[:] = reads
        required.update(args.reads(args))

    def record(kind, attribute, name_of):
        read = getattr(kind, attribute)
        monkeypatch.setattr(
            kind, attribute, lambda self, key: (used.add(name_of(key)), read(self, key))[1]
        )

    monkeypatch.setattr(arguments, "refuse_unread", begin)
    record(Settings, "dataset", str)
    record(SettingsFile, "section", lambda name: "" if name in SECTION_TYPES else name)
    for section, kind in SECTION_TYPES.items():
        keys = {field.name: f"{section}.{field.name}" for field in dataclasses.fields(kind)}
        record(kind, "__getattribute__", lambda key, keys=keys: keys.get(key, ""))
    for words in READING[name]:
        run(name, *words.format(**places).split())
        used -= {"", "paths.cache"}  # `check_new_cache` compares it with --cache
        assert [key for key in used if not {key, key.partition(".")[0]} & {*named}] == []
        every |= used | {key.partition(".")[0] for key in used}
    assert required <= every


def test_settings_of_scripts_and_of_luigi_cfg_are_for_all_commands(amass, luigi_cfg, monkeypatch):
    luigi_cfg("amass", f"{DECIMATE}\n[videos]\nmin_frames = 10\n[vibe]\nepochs = 3")
    monkeypatch.setenv("PIPELINE_SET", "vibe.epochs=4\nvideos.min_frames=12")
    assert amass() == "decimate"


def test_an_option_with_the_value_none_overrides_the_setting(penn, network, luigi_cfg, ran):
    penn.converted()
    luigi_cfg(more="[dask]\nscheduler = nonsense://\n[features]\ndevices = cpu,cpu")
    words = ("extract", penn.name, "--cache", penn.root, "--workers", 1, "--replace")
    assert "rows computed" in ran(*words, "--scheduler", "none", "--devices", "none").out
    assert network.batches, "in this process"


def test_options_are_settings_unless_they_are_given(penn, luigi_cfg, ran):
    penn.spoil("0001")
    luigi_cfg(more="[convert]\nstrict = true\nworkers = 1")
    words = ("convert", penn.name, *penn.places)
    assert "0001" in ran(*words, code=2).err
    ran(*words, "--set", "convert.strict=false")
    assert "0001" in ran(*words, "--strict", "--set", "convert.strict=false", code=2).err


@pytest.mark.parametrize("real", ["raw", "body"])
def test_a_body_of_the_other_kind_is_left_out_with_a_line_and_refused_by_name(
    real, convert_3dpw, raw_3dpw, embedded, luigi_cfg, tmp_path
):
    luigi_cfg("3dpw")
    body = Path(shutil.copytree(embedded.body, tmp_path / "body"))
    ({"raw": raw_3dpw, "body": body}[real] / MARKER).unlink()
    refused = convert_3dpw("--body", body, code=2).err
    assert refused.startswith("error: ")
    assert [folder for folder in (raw_3dpw, body) if str(folder) not in refused] == []
    shown = convert_3dpw()
    (line,) = (line for line in shown.err.splitlines() if "[paths] body" in line)
    assert "is not used" in line
    assert "kp_3d" not in cache.open(tmp_path / "cache")["3dpw/train"].columns


def test_a_body_that_is_not_there_is_an_error_unless_it_is_to_be_made(
    convert_3dpw, raw_3dpw, luigi_cfg
):
    (raw_3dpw / MARKER).unlink()
    luigi_cfg("3dpw")
    assert "SMPL" in convert_3dpw(code=2).err
    luigi_cfg("3dpw", "[embedded]\nenabled = true")
    assert "folder not found" in convert_3dpw().err


def test_a_stream_goes_on_with_its_weights_if_they_are_named(
    penn, network, luigi_cfg, ran, tmp_path
):
    penn.without_marker()
    file = tmp_path / "w.pt"
    file.write_bytes(b"weights")
    words = ("extract", penn.name, "--cache", penn.root, "--workers", 1)
    luigi_cfg(more="[resnet50]\nweights = untrained:0")
    ran("convert", penn.name, *penn.places)
    # only the command line may name them for real data
    assert "--weights untrained:0" in ran(*words, code=2).err
    named = ("--weights", f"file:{file}", "--precision", "exact")
    ran(*words, *named)
    refused = ran(*words, code=2).err
    again = shlex.split(refused.partition("To continue it")[2].partition(" -m pipeline ")[2])
    assert "resnet50 is up to date" in ran(*again).out

    penn.add("0101")
    ran("convert", penn.name, *penn.places)
    moved = file.rename(tmp_path / "moved.pt")
    assert "file not found" in ran(*words, *named, code=2).err
    luigi_cfg(more=f"[resnet50]\nweights = file:{moved}\nprecision = exact")  # the same bytes
    assert "8 rows computed" in ran(*words).out
    moved.write_bytes(b"others")
    assert "weights was file:" in ran(*words, code=2).err


@pytest.mark.parametrize("crop", [(), ("--set", "other.crop=scale:1.2")])
def test_a_stream_that_no_setting_names_is_refused_with_the_command_that_names_its_options(
    crop, penn, network, ran
):
    penn.converted()
    words = ("extract", penn.name, "--cache", penn.root, "--workers", 1, "--stream", "other")
    assert "Name its kind: --kind resnet50" in ran(*words, code=2).err
    ran(*words, "--kind", "resnet50", "--set", "other.weights=untrained:4", *crop)
    refused = ran(*words, code=2).err
    again = shlex.split(refused.partition(" -m pipeline ")[2])
    assert "up to date" in ran(*again).out


def test_a_new_stream_is_what_luigi_cfg_says(penn, network, luigi_cfg, ran):
    penn.converted()
    own = "[mine]\nkind = resnet50\nweights = untrained:3\nprecision = exact"
    luigi_cfg(more=f"[features]\nstreams = mine pr_vipe\nworkers = 1\n{own}")
    ran("extract", penn.name, "--cache", penn.root)
    identity = penn.split.stream_manifest("mine")["identity"]
    assert (identity["weights"]["argument"], identity["precision"]) == ("3", "exact")
    assert set(penn.split.streams) == {"mine", "pr_vipe"}
    plan = ran("plan", penn.name, "--set", f"paths.raw={penn.raw.parent}", "--cache", penn.root)
    assert "mine, pr_vipe" in plan.out, "make data would find nothing to do either"
    wrong = ran(
        "extract",
        penn.name,
        "--cache",
        penn.root,
        "--kind",
        "resnet50",
        "--weights",
        "spn:x",
        code=2,
    ).err
    assert (
        "error: --weights = spn:x: weights 'spn:x': expected SPIN's checkpoint, spin:FILE" in wrong
    )
    kind = ("--kind", "resnet50", "--weights", "untrained:4")
    ran("extract", penn.name, "--cache", penn.root, "--stream", "other", *kind)
    assert penn.split.stream_manifest("other")["identity"]["weights"]["argument"] == "4"
    other = ran("extract", penn.name, "--cache", penn.root, "--set", "mine.precision=fast", code=2)
    assert "precision was exact, is fast" in other.err, (
        "what is set is not left out for what is recorded"
    )


def test_set_of_a_kind_s_section_leaves_the_keys_of_a_stream_s_own_section(
    penn, network, luigi_cfg, ran
):
    penn.converted()
    sections = "[resnet50]\nweights = untrained:1\n[fine]\nkind = resnet50\nprecision = exact"
    luigi_cfg(more=f"[features]\nstreams = fine\nworkers = 1\n{sections}")
    of_kind = ("--set", "resnet50.precision=fast", "--set", "resnet50.weights=untrained:3")
    ran("extract", penn.name, "--cache", penn.root, *of_kind)
    identity = penn.split.stream_manifest("fine")["identity"]
    assert identity["precision"] == "exact", "[fine] has it"
    assert identity["weights"]["argument"] == "3", "[fine] lacks it, and --set is over the file"


def test_a_stream_called_as_a_kind_is_of_that_kind_unless_kind_says_otherwise(
    penn, network, ran, monkeypatch
):
    penn.converted()
    monkeypatch.setattr(Homography, "pair", lambda *_: np.zeros(9, np.float32))
    words = ("extract", penn.name, "--cache", penn.root, "--workers", 1)
    ran(*words, "--stream", "homography")
    assert penn.split.stream_manifest("homography")["identity"]["kind"] == "homography"
    ran(*words, "--stream", "pr_vipe", "--kind", "resnet50")
    assert penn.split.stream_manifest("pr_vipe")["identity"]["kind"] == "resnet50"
    named = ("--stream", "pr_vipe", "--kind", "resnet50")
    assert "kind was resnet50, is pr_vipe" in ran(*words, "--stream", "pr_vipe", code=2).err
    assert "up to date" in ran(*words, *named).out
    other = ran(*words, *named, "--set", "resnet50.precision=exact", code=2)
    assert "precision was fast, is exact" in other.err
