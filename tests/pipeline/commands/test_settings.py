"""Every command resolves settings alike: an option, else `--set`, else luigi.cfg, else the
default.
"""

import dataclasses
import importlib
import inspect
import re
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
from tests.pipeline.datasets.by_hand import coco, standing, write_json, write_video

DECIMATE = "[amass]\nresampling = decimate"


@pytest.fixture
def raw_amass(embedded, tmp_path):
    """The dataset's own folder, below RAW. Only to be read."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/amass").symlink_to(embedded.raw("amass"))
    return tmp_path / "raw/amass"


@pytest.fixture
def raw_3dpw(embedded, tmp_path):
    return Path(embedded.copy("3dpw", tmp_path / "raw/3dpw"))


AMASS = "convert amass/train --raw RAW/amass --cache CACHE"
THREEDPW = "convert 3dpw/train --raw RAW/3dpw --cache CACHE --workers 1"
EXTRACT = "extract penn_action/train --cache CACHE --workers 1"


def resampling(tmp_path):
    """What the manifest of AMASS records."""
    manifest = cache.open(tmp_path / "cache")["amass/train"].manifest
    return str(manifest["reader"]["parameters"]["resampling"])


def printed_command(shown):
    """The command of a message, from its first word on."""
    return shown.partition(" -m pipeline ")[2]


@pytest.mark.usefixtures("raw_amass")
def test_a_datasets_options_are_those_of_luigi_cfg_with_set_over_them(luigi_cfg, types, tmp_path):
    types(AMASS)
    assert resampling(tmp_path) == "slerp"
    types(f"{AMASS} --set amass.resampling=decimate")  # there need be no luigi.cfg
    assert resampling(tmp_path) == "decimate"
    luigi_cfg("amass", DECIMATE)
    types(AMASS, "up to date")
    plan = "plan amass --set paths.raw=RAW --cache CACHE"
    types(plan, "up to date: 1 split")
    types(f"{plan} --set amass.resampling=slerp", "resampling was decimate, is slerp")
    types("show amass/train --raw RAW/amass --out TMP/page.html")
    assert "decimate" in (tmp_path / "page.html").read_text()
    types(f"{AMASS} --set amass.resampling=slerp")
    assert resampling(tmp_path) == "slerp"


def test_a_command_that_is_printed_names_the_options_of_the_conversion(embedded, types, tmp_path):
    raw = embedded.copy("amass", tmp_path / "raw/amass")
    decimated = f"{AMASS} --set amass.resampling=decimate"
    types(decimated)
    name = cache.open(tmp_path / "cache")["amass/train"].videos[0].name
    for file in raw.rglob(f"{Path(name).name}*.npz"):
        file.unlink()
    shown = types(decimated, code=1).partition("delete their rows: ")[2]
    types(printed_command(shown), "1 removed", "0 videos read")
    assert resampling(tmp_path) == "decimate"
    assert name not in cache.open(tmp_path / "cache")["amass/train"].videos.names


# A command, a setting that it does not read, and words of the message. Its first part is left out
# where it is that of AMASS.
UNREAD = """
| amas.resampling=slerp | unknown section + 'amass'
| penn_action.min_frames=20 | unknown key + penn_action has none
| amass.resampling=nonsense | nonsense + slerp or decimate
| vibe.epochs=3 | vibe.epochs + `convert` + convert.workers
| videos.min_frames=3 | videos.min_frames + `convert`
--retry | amass.resampling=decimate | amass.resampling
show amass/train --raw RAW/amass --out page.html | videos.min_frames=3 | videos.min_frames
extract penn_action/train --cache CONVERTED | amass.resampling=decimate | amass.resampling
extract penn_action/train --cache CONVERTED --stream pr_vipe | timm.network=x | timm
status --cache CONVERTED | amass.resampling=decimate | amass.resampling + paths.cache
detect TMP --out TMP/k --detector demo | rtmpose.min_score=0.5 | rtmpose.min_score + `detect`
detect TMP --out TMP/k --detector rtmpose | rtmpose.size=3 | rtmpose + size: unknown key
doctor amass --raw RAW | vibe.epochs=3 | vibe.epochs
"""


@pytest.mark.parametrize("unread", UNREAD.strip("\n").splitlines())
def test_unread_settings_are_refused(unread, raw_amass, converted, command_line, tmp_path):
    command, setting, words = (part.strip() for part in unread.split("|"))
    if not command or command.startswith("--"):
        command = f"{AMASS} {command}"
    command = command.replace("CONVERTED", str(converted.root("")))
    shown = command_line(f"{command} --set {setting}", code=2)
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("error: --set ")
    assert [word for word in words.split(" + ") if word not in shown.err] == []
    keys = re.findall(r"[a-z_]+\.[a-z_]+", shown.err.partition("It reads ")[2])
    assert len(keys) == len(set(keys))
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


READING = {  # command -> runs that together read all that it names; plan: all but training's
    "convert": ["3dpw/train --raw {3dpw} --cache {tmp}/c", "3dpw/train --cache {tmp}/c --retry"],
    "check": ["{tmp}/people.json {tmp}/clip.mp4"],
    "show": [
        "3dpw/train --raw {3dpw} --out {tmp}/p.html",
        "3dpw/train --cache {tmp}/c --out {tmp}/p.html",
    ],
    "export": ["3dpw/train --cache {tmp}/c --format wham --out {tmp}/x"],
    "detect": ["{tmp} --out {tmp}/k --detector demo"],
    "doctor": ["amass --raw {3dpw}/.."],
    "extract": [
        "penn_action/train --cache {penn}",
        "penn_action/train --cache {penn} --stream mine --kind resnet50",
    ],
    "prepare": [
        *("3dpw --raw {3dpw} --cache {tmp}/c --plan", "videos --raw {raw} --cache {tmp}/e --plan"),
        "penn_action --raw {raw} --cache {tmp}/d --weights untrained:0",
    ],
    "plan": [],
}


@pytest.mark.parametrize("name", sorted(table.COMMANDS["pipeline"]))
def test_a_command_reads_only_what_it_names(
    name, luigi_cfg, embedded, network, run, penn, tmp_path, monkeypatch
):
    module = importlib.import_module(table.COMMANDS["pipeline"][name].module)
    if name not in READING:
        assert (module.COMMAND.reads, "args.cfg" in inspect.getsource(module)) == (None, False)
        return
    luigi_cfg("3dpw")
    penn.converted()
    write_json(tmp_path / "people.json", coco([standing("coco", 130, 90)]))
    write_video(tmp_path / "clip.mp4", 1)
    places = {"3dpw": embedded.raw("3dpw"), "raw": penn.raw, "penn": penn.root, "tmp": tmp_path}
    run("convert", "3dpw/train", "--raw", places["3dpw"], "--cache", tmp_path / "c")
    named, (required, used, every), check = (
        [],
        (set() for _ in range(3)),
        arguments._refuse_unread,
    )

    def begin(args, reads):
        check(args, reads)
        _ = args.cfg.named_paths  # all of them, which are compared with the cache
        used.clear()
        named[:] = reads
        required.update(args.reads(args))

    def record(kind, attribute, name_of):
        read = getattr(kind, attribute)
        monkeypatch.setattr(
            kind, attribute, lambda self, key: (used.add(name_of(key)), read(self, key))[1]
        )

    monkeypatch.setattr(arguments, "_refuse_unread", begin)
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


@pytest.mark.usefixtures("raw_amass")
def test_settings_of_scripts_and_of_luigi_cfg_are_for_all_commands(
    types, luigi_cfg, monkeypatch, tmp_path
):
    luigi_cfg("amass", f"{DECIMATE}\n[videos]\nmin_frames = 10\n[vibe]\nepochs = 3")
    monkeypatch.setenv("PIPELINE_SET", "vibe.epochs=4\nvideos.min_frames=12")
    types(AMASS)
    assert resampling(tmp_path) == "decimate"


def test_a_command_refuses_unknown_keys_anywhere_and_wrong_values_of_what_it_reads(
    penn, luigi_cfg, types
):
    penn.converted()
    luigi_cfg(more="[features]\ndevice = gpu")
    types("status", "penn_action/train")
    types(EXTRACT, "[features] device = gpu: expected auto, cpu", code=2)
    luigi_cfg(more="[features]\ndevise = cpu")
    types("status", "[features] devise: unknown key; did you mean 'device'?", code=2)


def test_an_option_with_the_value_none_overrides_the_setting(penn, network, luigi_cfg, types):
    penn.converted()
    luigi_cfg(more="[dask]\nscheduler = nonsense://\n[features]\ndevices = cpu,cpu")
    types(f"{EXTRACT} --replace --scheduler none --devices none", "rows computed")
    assert network.batches, "in this process"


def test_options_are_settings_unless_they_are_given(penn, luigi_cfg, types):
    penn.spoil("0001")
    luigi_cfg(more="[convert]\nstrict = true\nworkers = 1")
    convert = "convert penn_action/train --raw RAW/penn_action --cache CACHE"
    types(convert, "0001", code=2)
    types(f"{convert} --set convert.strict=false")
    types(f"{convert} --strict --set convert.strict=false", "0001", code=2)


@pytest.mark.parametrize("real", ["raw", "body"])
def test_a_body_of_the_other_kind_is_left_out_with_a_line_and_refused_by_name(
    real, types, raw_3dpw, embedded, luigi_cfg, tmp_path
):
    luigi_cfg("3dpw")
    body = Path(shutil.copytree(embedded.body, tmp_path / "body"))
    ({"raw": raw_3dpw, "body": body}[real] / MARKER).unlink()
    types(f"{THREEDPW} --body TMP/body", "error: ", str(raw_3dpw), str(body), code=2)
    for _ in range(2):
        types(THREEDPW, "[paths] body", "is not used", "no 3D joints", "--body DIR")
    assert "kp_3d" not in cache.open(tmp_path / "cache")["3dpw/train"].columns


def test_a_body_that_is_not_there_is_an_error_unless_it_is_to_be_made(types, raw_3dpw, luigi_cfg):
    (raw_3dpw / MARKER).unlink()
    luigi_cfg("3dpw")
    types(THREEDPW, "SMPL", code=2)
    luigi_cfg("3dpw", "[embedded]\nenabled = true")
    types(THREEDPW, "is not used for 3dpw")


def test_a_stream_goes_on_with_its_weights_if_they_are_named(
    penn, network, luigi_cfg, types, tmp_path
):
    penn.without_marker()
    file = tmp_path / "w.pt"
    file.write_bytes(b"weights")
    luigi_cfg(more="[resnet50]\nweights = untrained:0")
    penn.convert()
    # only the command line may name them for real data
    types(EXTRACT, "--weights untrained:0", code=2)
    named = f"{EXTRACT} --weights file:TMP/w.pt --precision exact"
    types(named)
    refused = types(EXTRACT, code=2)
    types(printed_command(refused.partition("To continue it")[2]), "resnet50 is up to date")

    penn.add("0101")
    penn.convert()
    moved = file.rename(tmp_path / "moved.pt")
    types(named, "file not found", code=2)
    luigi_cfg(more=f"[resnet50]\nweights = file:{moved}\nprecision = exact")  # the same bytes
    types(EXTRACT, "8 rows computed")
    moved.write_bytes(b"others")
    types(EXTRACT, "weights was file:", code=2)


@pytest.mark.parametrize("crop", ["", "--set other.crop=scale:1.2"])
def test_a_stream_that_no_setting_names_is_refused_with_the_command_that_names_its_options(
    crop, penn, network, types
):
    penn.converted()
    other = f"{EXTRACT} --stream other"
    types(other, "Name its kind: --kind resnet50", code=2)
    types(f"{other} --kind resnet50 --set other.weights=untrained:4 {crop}")
    types(printed_command(types(other, code=2)), "up to date")


def test_a_new_stream_is_what_luigi_cfg_says(penn, network, luigi_cfg, types):
    penn.converted()
    own = "[mine]\nkind = resnet50\nweights = untrained:3\nprecision = exact"
    luigi_cfg(more=f"[features]\nstreams = mine pr_vipe\nworkers = 1\n{own}")
    types(EXTRACT)
    identity = penn.split.open_stream("mine").manifest["identity"]
    assert (identity["weights"]["argument"], identity["precision"]) == ("3", "exact")
    assert set(penn.split.streams) == {"mine", "pr_vipe"}
    # make data would find nothing to do either
    types(
        "plan penn_action/train --set paths.raw=RAW --cache CACHE",
        "mine (untrained), pr_vipe (untrained)",
    )
    wrong = "error: --weights = spn:x: weights 'spn:x': expected SPIN's checkpoint, spin:FILE"
    types(f"{EXTRACT} --kind resnet50 --weights spn:x", wrong, code=2)
    types(f"{EXTRACT} --stream other --kind resnet50 --weights untrained:4")
    assert penn.split.open_stream("other").manifest["identity"]["weights"]["argument"] == "4"
    # what is set is not left out for what is recorded
    types(f"{EXTRACT} --set mine.precision=fast", "precision was exact, is fast", code=2)


def test_set_of_a_kind_s_section_leaves_the_keys_of_a_stream_s_own_section(
    penn, network, luigi_cfg, types
):
    penn.converted()
    sections = "[resnet50]\nweights = untrained:1\n[fine]\nkind = resnet50\nprecision = exact"
    luigi_cfg(more=f"[features]\nstreams = fine\nworkers = 1\n{sections}")
    types(f"{EXTRACT} --set resnet50.precision=fast --set resnet50.weights=untrained:3")
    identity = penn.split.open_stream("fine").manifest["identity"]
    assert identity["precision"] == "exact", "[fine] has it"
    assert identity["weights"]["argument"] == "3", "[fine] lacks it, and --set is over the file"


def test_a_stream_called_as_a_kind_is_of_that_kind_unless_kind_says_otherwise(
    penn, network, types, monkeypatch
):
    penn.converted()
    monkeypatch.setattr(Homography, "pair", lambda *_: np.zeros(9, np.float32))
    types(f"{EXTRACT} --stream homography")
    named = f"{EXTRACT} --stream pr_vipe --kind resnet50"
    types(named)
    kinds = [
        penn.split.open_stream(name).manifest["identity"]["kind"] for name in penn.split.streams
    ]
    assert kinds == ["homography", "resnet50"]
    types(f"{EXTRACT} --stream pr_vipe", "kind was resnet50, is pr_vipe", code=2)
    types(named, "up to date")
    types(f"{named} --set resnet50.precision=exact", "precision was fast, is exact", code=2)
