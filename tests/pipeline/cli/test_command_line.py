"""`python -m pipeline`: what it prints, and its exit codes."""

import errno
import functools
import io
import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from pipeline import datasets, table
from pipeline.cli.console import plain
from pipeline.datasets.penn_action import PennAction
from pipeline.features.engine import shards
from tests.cache import toy

ROOT = Path(__file__).parents[3]


@pytest.fixture
def root(penn):
    """A cache with Penn Action's train split: three videos of 8 frames."""
    penn.converted()
    return Path(penn.root)


@pytest.fixture
def convert(penn, ran):
    return functools.partial(ran, "convert", penn.name, *penn.places)


@pytest.fixture
def extract(penn, ran):
    return functools.partial(ran, "extract", penn.name, "--cache", penn.root)


@pytest.fixture
def status_of(penn, ran):
    """The output of `status`."""
    return lambda *more, code=0: str(ran("status", "--cache", penn.root, *more, code=code).out)


def test_rejected_videos_and_rows_without_features_are_in_the_document(
    penn, convert, extract, status_of, network
):
    penn.spoil("0003")
    (penn.frames("0005") / "000002.jpg").write_bytes(b"")
    convert()
    shown = extract(code=1).out
    assert "error: penn_action/train: 1 row without features: picture_empty" in shown
    assert "0005, frame 1: " in shown
    (row,) = json.loads(status_of("--json"))
    assert (row["split"], row["tracks"], row["stand_in"]) == (penn.name, 2, True)
    assert (row["streams"], row["undecodable"]) == (["resnet50 (untrained)"], {"resnet50": 1})
    assert row["accounting"] == penn.split.manifest["accounting"]
    assert [text.partition(":")[0] for text in row["set_aside"]] == ["bad_label_file"]
    rejected = next(video for video in row["videos"] if video["name"] == "0003")
    assert (rejected["set_aside"], rejected["failed"]) == ("bad_label_file", True)
    for shard in (penn.root / penn.name / "features/resnet50_ok/c").iterdir():
        shard.unlink()
    assert "error: penn_action/train: resnet50 is damaged: " in status_of(code=1)


def test_a_row_that_is_not_finite_costs_itself_alone(
    penn, convert, extract, status_of, network, monkeypatch
):
    (penn.frames("0005") / "000002.jpg").write_bytes(b"")
    convert()
    compute, seen = network.__call__, []

    def overflow(self, crops):
        numbers = compute(self, crops)
        seen.append(len(crops))
        numbers[0, :3] *= 1e9 if len(seen) == 1 else 1
        return numbers

    monkeypatch.setattr(network, "__call__", overflow)
    shown = extract(code=1).out
    assert (
        "22 rows computed" in shown
        and "error: penn_action/train: 1 row without features: not_finite" in shown
    )
    assert re.search(r"track 000\d/0, frame \d: its numbers are not finite in float16\n", shown)
    replace = f"extract penn_action/train --stream resnet50 --cache {penn.root} .*--replace"
    reasons = "not_finite or picture_empty"
    assert re.search(
        f"2 rows without features in resnet50: {reasons}; to try again: touch the folder of a mended file, .*{replace}",
        status_of(),
    )
    (row,) = json.loads(status_of("--json"))
    assert row["without_features"] == {"resnet50": {"not_finite": 1, "picture_empty": 1}}
    assert (extract().out, len(network.batches)) == (
        "· extract    penn_action/train         resnet50 is up to date (verify checks its shards)\n",
        len(seen),
    )
    assert "23 rows computed" in extract("--replace", code=1).out
    assert "1 row without features in resnet50: picture_empty;" in status_of()


def test_reasons_go_with_the_rows_that_had_them(penn, convert, extract, status_of, network):
    image = penn.frames("0005") / "000002.jpg"
    whole = image.read_bytes()
    image.write_bytes(b"")
    convert()
    extract(code=1)
    assert "1 row without features in resnet50: picture_empty;" in status_of()
    image.unlink()
    image.write_bytes(whole)
    penn.add("0007")
    (penn.frames("0007") / "000002.jpg").write_bytes(b"text")
    convert()
    extract(code=1)
    assert "1 row without features in resnet50: picture_format;" in status_of()


def test_an_extraction_without_any_finite_row_ends(penn, convert, extract, network, monkeypatch):
    convert()
    monkeypatch.setattr(shards, "MOST_NOT_FINITE", 12)
    monkeypatch.setattr(
        network, "__call__", lambda self, crops: np.full((len(crops), 2048), np.nan, np.float32)
    )
    assert "penn_action/train: resnet50: no row of " in extract(code=2).err


def test_messages_of_libraries_about_a_broken_video_are_not_shown_beside_our_own(
    tmp_path,
):
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(2000))
    code = (
        "import sys, pathlib\nfrom pipeline.files.pixels.frames import Video\nfrom "
        "pipeline.errors import RawDataError\ntry: Video(pathlib.Path(sys.argv[1]), "
        "sys.argv[2]).header()\nexcept RawDataError: print('refused')"
    )
    words = [sys.executable, "-c", code, str(tmp_path), "broken.mp4"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("refused\n", "")


# words, and below them what the message names
MISTAKES = r"""

    required: COMMAND
prepair
    'prepair'; did you mean 'prepare'?
gc --cache {root} arm wrestling.mkv --fats
    arm wrestling.mkv --fats. Expected no further name; put a name that has spaces into quotes
verify --cache {root} --fats
    unrecognized arguments: --fats; did you mean '--fast'? (python -m pip
prepare videos --raw clips --cahce {root}
    unrecognized arguments: --cahce; did you mean '--cache'?
prepare videos --raw {penn} --cache {file}
    {file}: this is a file, where a folder is needed
convert kinetics/train --raw {penn} --cache {root}
    For your own clips, use the dataset videos.
gc --cache {root} --older-than 1d
    --older-than: expected a whole number of at least 0, found '1d'
gc --cache {root} --unused-for week
    --unused-for: expected a whole number of at least 0, found 'week'
convert penn_action/train --raw nowhere --cache {root}
    nowhere
convert penn_action/val --raw {penn} --cache {root}
    penn_action has no split 'val'; it has train, test
convert penn/train --raw {penn} --cache {root}
    no dataset is called 'penn'; known: penn_action,
convert penn_action/train --raw {penn}
    required: --cache
convert penn_action/test --cache {root}
    --raw DIR
convert penn_action/train --raw {penn} --cache {file}
    {file}: this is a file
convert 3dpw/train --raw {3dpw} --cache {root} --body nowhere
    nowhere
verify --cache nowhere
    nowhere
status --cache nowhere
    nowhere
status penn_action/val --cache {root}
    no split 'penn_action/val'
train --model vibe
    Run python -m tasks train
extract penn_action --cache {root}
    expected DATASET/SPLIT, found 'penn_action'
extract penn_action/train test --cache {root}
    found 'penn_action train test'
extract penn_action test --cache {root}
    penn_action/test
extract penn_action/test --cache {root}
    penn_action/test
extract penn_action/train --cache {root} --weights resnet
    resnet
extract penn_action/train --cache {root} --weights file:no.pt
    no.pt
extract penn_action/train --cache {root} --stream ../x
    ../x
extract penn_action/train --cache {root} --batch-size -1
    found '-1'
extract penn_action/train --cache {root} --set a=1
    expected SECTION.KEY=VALUE
prepare videos --raw {clips} --cache {root} --detector yolo
    no detector is called 'yolo'; known:
detect {clips} --out {root}/new --detector openpose
    keypoint files of OpenPose and other tools are read from keypoints/ in the raw folder
prepare videos --raw {clips} {file} {penn} --cache {root}
    in place of several files name their folder
copy --cache {root} --to {root}
    --to {root}: this is the cache itself
detect {penn} --out {root}/new --set quality
    expected SECTION.KEY=VALUE
{export} --option quality
    expected NAME=VALUE
{export} --option a=1 --option a=2
    a is set to '1' already
{export} --option feature=yes
    unknown key; did you mean 'features'
{export} --body smpl
    --body: the format parquet does not read this folder
import file.pt penn_action/train --format vibe
    required: --cache
synthesize --out {root}/new --seed -1
    found '-1'
synthesize --out {foreign}
    foreign
show penn_action/train --cache {root} --out {root}
    is in the cache
show penn_action/train --cache {root} --out {root}/new/page.html
    does not exist. Create it
show penn_action/train --out {foreign}/page.html
    --cache DIR for converted tracks
show penn_action/train --cache {root} --out {root}/page.html
    is in the cache
show penn_action/train --raw {penn} --out {root}/page.html
    is in the cache
show penn_action/train --cache {root} --out page.pdf
    expected a file name with the suffix
show penn_action/train --cache {root} --out a.html --video 0001x
    did you mean '0001'
doctor penn --raw {root}
    no dataset is called 'penn'
doctor penn_action --raw absent
    folder not found
doctor penn_action --raw {file}
    is a file
status --cache $HOME/cache
    without quotes, variables
status --cache ~nobody-here/cache
    no home folder of ~nobody-here
status --cache 'cache'
    without quotes
status --cache s3:/bucket/cache
    s3://bucket/prefix
status --cache file:///cache
    or file:
status --cache https://lab/cache
    one of s3
status --cache D:\cache
    a path of this system
status --cache {root}/penn_action
    Open the whole
status --cache {root} --csv --json
    --json excludes --csv
status --cache {root} --max-rejected 0.02
    a percentage such as 2%
bodies penn_action/train --cache {root} --age 30
    age from 0 to 1
prepare videos --raw {file} --cache {root}
    Name the folder of the clips
copy --cache {root} --to {root}/copy
    it is in the cache
convert penn_action/train --raw {penn} --cache {root}/new
    it is in the cache
convert penn_action/train --raw {penn} --cache /proc/x/cache
    written in /proc
extract penn_action/train --cache {root} --device gpu
    'gpu'
plan penn_action/val
    penn_action has no split 'val'
plan amass
    is not among penn_action
plan pen
    known: penn_action
"""
EXPORT = "export penn_action/train --cache {root} --format parquet --out new.parquet"


def test_a_mistake_is_one_line_with_code_2_and_changes_nothing(
    root, penn, into, ran, luigi_cfg, tmp_path, network
):
    (tmp_path / "file").write_bytes(b"")
    for file in ("foreign/body/SMPL_NEUTRAL.pkl", "3dpw/sequenceFiles/train/a.pkl"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_bytes(b"mine")
    places = {name: tmp_path / name for name in ("file", "foreign", "3dpw", "clips")}
    places |= {"root": root, "penn": penn.raw, "cfg": luigi_cfg()}
    places["clips"].mkdir()
    before = into.everything(tmp_path)
    for words, message in re.findall(
        r"^(.*)\n    (.+)$", MISTAKES.replace("{export}", EXPORT), re.M
    ):
        shown = ran(*words.format(**places).split(), code=2)
        assert (shown.out, shown.err.count("\n")) == ("", 1), words
        assert shown.err.startswith("error: "), words
        assert message.format(**places) in shown.err, words
        assert into.everything(tmp_path) == before, words


@pytest.mark.parametrize(
    ("error", "start", "end"),
    [
        (
            ZeroDivisionError("division\nby zero"),
            r"ZeroDivisionError: division\nby zero. ",
            "--debug shows where.",
        ),
        (
            ImportError("a.so: failed to map segment"),
            "too little memory (a.so: failed to map",
            "or the job's limit.",
        ),
        (
            torch.OutOfMemoryError("Tried 2 GiB. GPU"),
            "the GPU's memory is full (Tried 2 GiB). Set",
            "(nvidia-smi).",
        ),
        (OSError(errno.EROFS, "", "/a"), "/a: its disk is read-only. Name", "another path."),
    ],
)
def test_an_unexpected_failure_is_one_line_too(convert, monkeypatch, error, start, end):
    monkeypatch.setattr(PennAction, "videos", Mock(side_effect=error))
    (line,) = convert(code=2).err.splitlines()
    assert line.startswith(f"error: {start}") and line.endswith(end)
    assert "Traceback" in convert("--debug", code=2).err


def test_without_the_packages_a_command_is_one_line():
    for program, command in (("pipeline", "status"), ("tasks", "train")):
        words = [sys.executable, "-S", "-m", program, command]
        ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert ended.stderr.endswith("Use .venv/bin/python (make setup).\n")


def test_every_command_explains_itself(ran):
    groups = re.findall(r"^(\w+):\n((?:  +\S.*\n)+)", ran("--help").out, re.MULTILINE)
    commands = {name: re.findall(r"^  (\w+)", text, re.MULTILINE) for name, text in groups[:5]}
    assert list(commands) == ["start", "look", "make", "keep", "exchange"]
    assert [*itertools.chain(*commands.values())] == [*table.COMMANDS["pipeline"]]
    assert commands["start"][0] == "try"
    release = metadata.version("vibe-pipeline")
    assert re.fullmatch(
        rf"vibe-pipeline {release} \((commit \w+(-dirty)?, )?code \w{{12}}\)\n",
        ran("--version").out,
    )
    for name in table.COMMANDS["pipeline"]:
        shown = ran(name, "--help").out
        assert shown.startswith(f"usage: python -m pipeline {name} ")
        examples = re.escape(f"    python -m pipeline {name}")  # tests of the page type them
        assert re.search(rf"\n\nexamples:\n{examples}.*\n{examples}.*\n$", shown)
        assert name not in ("convert", "extract") or all(word in shown for word in datasets.names())


def test_real_data_need_named_weights_and_a_moved_folder_its_name(
    penn, convert, extract, status_of, tmp_path, network
):
    penn.without_marker()
    convert()
    assert "penn_action/train is real data. Name trained weights: " in extract(code=2).err
    moved = penn.raw.rename(tmp_path / "elsewhere")
    assert "--raw DIR" in extract("--weights", "untrained:0", code=2).err
    shown = extract("--weights", "untrained:0", "--raw", moved).out
    assert ("RANDOM WEIGHTS" in shown, "DEMO DATA" in shown) == (True, False)
    assert penn.split.open_stream("resnet50").manifest["backbone"]["stand_in"]
    (row,) = json.loads(status_of("--json", code=1))
    assert row["unlisted"].startswith(
        f"its raw folder {penn.raw} is missing. Mount its disk. If it has moved: "
    )
    assert row["problems"] == [f"{penn.name}: {row['unlisted']}"]
    assert (row["stand_in"], row["streams"], row["raw"]) == (
        False,
        ["resnet50 (untrained)"],
        str(penn.raw),
    )


def test_a_terminal_without_ticks_shows_an_escape_and_names_cannot_steer_it(root, run, monkeypatch):
    assert plain("a\x1b[31mb\r\n\udcff [red] déjà") == r"a\x1b[31mb\r\n\udcff \[red] déjà"
    written = io.BytesIO()
    monkeypatch.setattr(
        sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True)
    )
    assert run("verify", "--cache", root) == 0
    assert written.getvalue().startswith(rb"\u2713 intact: ")


def test_a_cache_of_another_program_has_no_accounts(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "SPLIT", "penn_action/train")
    with toy.writer(tmp_path, "plan") as split:
        following = split.begin()
        for video, tracks in toy.videos():
            following.append(replace(video, account={}), tracks)
        following.commit({})
    shown = ran("status", "--cache", tmp_path, "--all").out
    name, *cells = shown.splitlines()[1].split()
    assert (name, cells[:6]) == ("penn_action/train", ["not", "recorded"] * 3)
    assert {*cells[6:]} == {"-"}
    (row,) = json.loads(ran("status", "--cache", tmp_path, "--json", "--max-rejected", "0").out)
    assert (row["tracks"], row["accounting"], row["stand_in"], row["videos"]) == (7, {}, False, [])
    assert (
        "penn_action/train,a,not recorded,,,,,bad,"
        in ran("status", "--cache", tmp_path, "--csv").out
    )
    extract = ("extract", "penn_action/train", "--cache", tmp_path, "--weights", "untrained:0")
    assert "its raw folder is not recorded" in ran(*extract, code=2).err
