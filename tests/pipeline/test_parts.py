"""Array jobs: parts that are killed and run again, one twice at once, others of other numbers; then
the commit.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import cache
from cache.errors import Busy
from cache.format.layout import RUNNING
from cache.storage import local
from cache.write import parts
from cache.write.parts import Part
from pipeline import datasets
from pipeline.cli.progress import silent
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.processes.settings import NO_CLUSTER
from pipeline.steps.conversion import convert, reading
from pipeline.steps.conversion.parts import read_part
from pipeline.steps.extraction import extract
from pipeline.steps.next_run import plan_runs
from pipeline.steps.sentences import next_lines
from tests.cache.storage.buckets import objects
from tests.fixtures import planned
from tests.pipeline.features.made_pictures import FEW, SPLIT, convert_noise
from tests.trees import contents
from tests.waiting import await_that

ROOT = Path(__file__).parents[2]
# For each line of [commands, folder, environment], forks a process for each command, which is killed at one
# of its writes, by a seed; "" for none. Then it prints their exit codes.
RUNNER = """
import json, os, random, signal, sys, traceback
from cache.storage import local, object_store
from pipeline import datasets, table
from pipeline.__main__ import main
import pipeline.commands.convert, pipeline.commands.detect, pipeline.commands.extract
import pipeline.datasets.penn_action, pipeline.extras.demo.detector, pipeline.features.streams.homography
# what commands import when they work
import pipeline.commands.options.steps, pipeline.extras.demo.writing, pipeline.steps.extraction.extract
from tests.inline_processes import inline_processes

def dying(real):
    def act(*args, **options):
        rng.random() < 0.15 and os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)
    return act

for line in sys.stdin:
    commands, folder, environment = json.loads(line)
    children = []
    for words, seed in commands:
        children.append(os.fork())
        if children[-1]:
            continue
        code = 70
        os.dup2(2, 1)
        try:
            os.chdir(folder)
            os.environ.update(environment)
            if "WATCHED_PENN" in environment:  # the fixture `reads`: parts are taken over by the same reader's code
                table.OWN[datasets.ENTRY_POINTS]["penn_action"] = "tests.fixtures:WatchedPenn"
            if seed:
                rng = random.Random(int(seed))
                store = object_store.ObjectStore
                for owner, name in ((local, "write_synced"), (local, "publish"), (local.os, "replace"),
                                    (store, "put"), (store, "put_small")):
                    setattr(owner, name, dying(getattr(owner, name)))
            with inline_processes():
                code = main(words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), flush=True)
"""
AGAIN = ("1/3", "2/3", "3/3", "2/3", "5/5")  # one of them twice
ROUNDS = pytest.mark.parametrize("rounds", [1, pytest.param(6, marks=pytest.mark.slow)])
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def run_parts():
    """Runs parts at the same time, and returns their exit codes."""
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as runner:

        def run(command, parts, seeds):
            commands = [
                (f"{command} --part {part}".split(), str(seed))
                for part, seed in zip(parts, seeds, strict=True)
            ]
            print(
                json.dumps([commands, str(Path.cwd()), {**os.environ}]),
                file=runner.stdin,
                flush=True,
            )
            codes = [int(code) for code in runner.stdout.readline().split()]
            assert set(codes) <= {0, KILLED}
            return codes

        yield run
        runner.stdin.close()


@pytest.fixture
def kill_and_run_again(run_parts):
    """Kills three parts at random, and runs them again, one twice, and one of another number."""

    def run(command, rounds=1):
        seeds = random.Random(1)
        codes = []
        for _ in range(rounds):  # in the last ones, there may be nothing left to write
            codes += run_parts(command, AGAIN[:3], [seeds.randrange(100) for _ in range(3)])
        assert KILLED in codes
        assert KILLED not in run_parts(command, AGAIN, [""] * len(AGAIN))

    return run


def given_up(root):
    """What is left of a cache when its parts are given up."""
    copied = Path(shutil.copytree(root, root.with_name("given_up")))
    cache.gc(copied, unfinished=True)
    assert not list(copied.rglob(".writing"))
    return copied


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A cache of noisy images in 8 shards."""
    return convert_noise(tmp_path_factory.mktemp("noise"), 8, cut_short=False, lengths=FEW)


@pytest.fixture(scope="module")
def calm_noise(noise, into):
    """The same with homographies, of one run."""
    root = Path(shutil.copytree(noise, noise.with_name("calm")))
    stream = streams.get("homography")
    into.extract(root, SPLIT, name="homography", stream=stream, workers=1)
    return root


EXTRACT = f"extract {SPLIT} --kind homography --workers 1 --cache"
CONVERT = f"convert {SPLIT} --raw RAW/penn_action --workers 1 --cache"


@ROUNDS
def test_killed_parts_of_an_extraction_end_with_the_bytes_of_one_run(
    noise, calm_noise, tmp_path, into, types, rounds, kill_and_run_again
):
    root = Path(shutil.copytree(noise, tmp_path / "parts"))
    kill_and_run_again(f"{EXTRACT} {root}", rounds)
    assert cache.open(root)[SPLIT].streams == ()
    types(
        f"status --cache {root}",
        "finished by shares, not yet in the cache: shards of homography: 8",
    )
    assert "unfinished work" in cache.gc(root).skipped[0]
    assert into.tree(given_up(root)) == into.tree(noise)
    types(f"{EXTRACT} {root}", "extracted, 0 rows computed")
    assert into.tree(root) == into.tree(calm_noise)
    assert not list(root.rglob(".writing"))


def test_parts_of_an_extraction_stage_in_an_object_store_too(
    url, noise, calm_noise, into, types, kill_and_run_again
):
    cache.store_at(url).put_small(contents(noise), "")
    kill_and_run_again(f"{EXTRACT} {url}")
    types(
        f"status --cache {url}",
        "finished by shares, not yet in the cache: shards of homography: 8",
    )
    types(f"{EXTRACT} {url}", "extracted, 0 rows computed")
    assert objects(url) == into.tree(calm_noise)
    assert not [key for key in cache.store_at(url).file_sizes("") if ".writing" in key]


@ROUNDS
def test_killed_parts_of_a_conversion_end_with_the_bytes_of_one_run(
    tmp_path, into, types, reads, rounds, demo_data, kill_and_run_again
):
    raw, calm, root = (tmp_path / name for name in ("raw/penn_action", "calm", "parts"))
    demo_data.dataset("penn_action", raw, n_videos=4, n_frames=3)
    types(f"{CONVERT} {calm}")
    kill_and_run_again(f"convert {SPLIT} --raw {raw} --workers 1 --cache {root}", rounds)
    n_videos = len(cache.open(calm)[SPLIT].videos)
    types(
        f"status --cache {root}",
        f"· {SPLIT}: finished by shares, not yet in the cache: videos: {n_videos}",
    )
    given_up(root)
    reads.clear()
    types(f"{CONVERT} {root}")
    assert reads.names == []
    assert into.tree(root) == into.tree(calm)
    assert not list(root.rglob(".writing"))


@ROUNDS
def test_killed_parts_of_a_detection_end_with_the_files_of_one_run(
    tmp_path, types, rounds, demo_data, kill_and_run_again
):
    raw, calm, out = (tmp_path / name for name in ("raw", "calm", "parts"))
    demo_data.dataset("kinetics", raw, n_videos=3, n_frames=2)
    detect = f"detect {raw} --workers 1 --out"
    types(f"{detect} {calm}")
    kill_and_run_again(f"{detect} {out}", rounds)
    types(f"{detect} {out}", "6 clips up to date")
    next(out.rglob("*.json")).unlink()
    types(f"{detect} {out}")  # which removes temporary files, too
    assert contents(out) == contents(calm)


@pytest.mark.parametrize(
    ("dataset", "split"), [("3dpw", "train"), ("emdb", "emdb1"), ("kinetics", "train")]
)
def test_tracks_of_every_kind_wait_in_the_spool_unchanged(
    dataset, split, embedded, tmp_path, into, monkeypatch
):
    raw, body = embedded.raw(dataset), embedded.body
    calm, root = (
        planned(datasets.get(dataset), split, raw=raw, root=tmp_path / name, body=body)
        for name in ("calm", "parts")
    )
    convert.convert(calm)
    options = {"workers": 1, "dask": NO_CLUSTER, "progress": silent}
    assert read_part(root, Part(1, 1), **options) == []
    monkeypatch.setattr(reading, "VideoReader", None)
    convert.convert(root)
    assert into.tree(tmp_path / "parts") == into.tree(tmp_path / "calm")


def test_a_plan_counts_the_rows_that_no_part_has_staged(penn, types, small_shards):
    """24 rows in two shards, of which a part stages the first one of one stream."""
    penn.converted()
    types(f"extract {penn.name} --kind homography --workers 1 --cache CACHE --part 1/2")
    specs = [StreamSpec(name, streams.get("homography")) for name in ("homography", "other")]
    (run,) = plan_runs([replace(penn.recipe(), streams=tuple(specs))])
    shown = "\n".join(next_lines(run, None))
    assert "extract  homography: 8 of 24 rows in 1 shard\n" in shown
    assert "extract  other: 24 of 24 rows in 2 shards\n" in shown
    assert [work["rows"] for work in run.as_dict()["extract"]] == [8, 24]


def test_a_video_waits_in_the_spool_only_while_its_content_is_the_same(
    penn, reads, into, types, tmp_path
):
    types(f"{CONVERT} CACHE --part 1/1", "6 videos finished, not yet in the cache")
    assert "finished by shares, not yet in the cache: videos: 6" in "\n".join(
        next_lines(*plan_runs([penn.recipe()]), None)
    )
    os.utime(penn.label("0001"), ns=(1, 1))
    penn.edit("0003")
    types(f"{CONVERT} CACHE --part 1/3")  # it is there, by its content
    reads.clear()
    types(f"{CONVERT} CACHE")
    assert reads.names == ["0003"]
    types(f"{CONVERT} TMP/calm")
    assert into.tree(penn.root) == into.tree(tmp_path / "calm")


def test_parts_have_read_for_a_run_that_drops(penn, reads, types):
    types(f"{CONVERT} CACHE --part 1/1", "6 videos finished, not yet in the cache")
    reads.clear()
    assert "computed again" not in types(f"{CONVERT} CACHE --drop-removed")
    assert reads.names == []


def test_a_part_that_wakes_after_the_commit_says_so(penn, types, monkeypatch):
    def read_late(plan, part, **options):
        convert.convert(plan)
        return read_part(plan, part, **options)

    monkeypatch.setattr(convert, "read_part", read_late)
    part = f"{CONVERT} CACHE --part 1/1"
    types(part, "another command has saved its work meanwhile", "gc --unfinished")
    assert "meanwhile" not in types(part)


def test_a_part_of_an_extraction_that_wakes_after_the_commit_says_so(
    noise, tmp_path, types, monkeypatch
):
    shutil.copytree(noise, tmp_path / "cache")
    together = extract.extract_together

    def extract_late(*arguments, **options):
        done = together(*arguments, **options)
        monkeypatch.setattr(extract, "extract_together", together)
        types(f"{EXTRACT} CACHE")
        return done

    monkeypatch.setattr(extract, "extract_together", extract_late)
    types(f"{EXTRACT} CACHE --part 1/2", "another command has saved its work meanwhile")


def test_a_part_that_wakes_after_the_commit_while_it_writes_says_so(
    noise, tmp_path, types, monkeypatch
):
    root = Path(shutil.copytree(noise, tmp_path / "cache"))
    write = local.write_synced

    def write_late(file, *data):
        write(file, *data)
        for sign in root.rglob(f"{RUNNING}*"):
            if file.name.startswith(".0-"):  # suspended at its first shard, for longer than FRESH
                monkeypatch.setattr(local, "write_synced", write)
                os.utime(sign, (1, 1))
                types(f"{EXTRACT} CACHE")

    monkeypatch.setattr(local, "write_synced", write_late)
    said = "another command has saved its work meanwhile", "without --part", "gc --unfinished"
    types(f"{EXTRACT} CACHE --part 1/2", *said, code=2)
    types(f"gc --unfinished --cache {root}")
    assert not list(root.rglob(".writing"))


def test_a_damaged_file_of_the_spool_is_named_and_read_again(penn, reads, types):
    types(f"{CONVERT} CACHE --part 1/1")
    file = min((penn.root / penn.name / ".writing/staged").glob("*/video-*"))
    file.write_bytes(file.read_bytes()[:-9])
    said = f"{file}: was damaged, and is removed now. Run the command again."
    types(f"{CONVERT} CACHE", said, code=2)
    reads.clear()
    types(f"{CONVERT} CACHE")
    assert len(reads.names) == 1


def test_a_video_that_cannot_be_read_now_is_named_by_its_part_and_read_again(penn, reads, types):
    reads.fail("0003", PermissionError(13, "Permission denied", str(penn.label("0003"))))
    said = "5 videos finished, not yet in the cache", "0003: not_readable_now"
    types(f"{CONVERT} CACHE --part 1/1", *said, code=1)
    reads.clear()
    types(f"{CONVERT} CACHE")
    assert reads.names == ["0003"]
    assert len(penn.split.tracks) == 3


@pytest.mark.processes
def test_rows_of_parts_keep_the_record_of_how_they_were_made(
    noise, tmp_path, made_up, into, monkeypatch
):
    """Also if the command that commits runs elsewhere: with another device, without the weights."""

    def extract(name, part=None, **resources):
        stream = {"name": "colour", "stream": made_up.Colour()}
        return into.extract(tmp_path / name, workers=1, part=part, **stream, **resources)

    for name in ("calm", "parts"):
        shutil.copytree(noise, tmp_path / name)
    assert extract("calm").shards == 8
    monkeypatch.setattr(made_up.Mean, "provenance", {"stand_in": True, "device": "cpu"})
    calm = cache.open(tmp_path / "calm")[SPLIT].open_stream("colour").manifest["backbone"]
    assert calm == {"stand_in": True}
    assert [extract("parts", Part(k, 3)).shards for k in (3, 1)] == [3, 2]
    assert extract("parts", Part(2, 3), devices="cpu,cpu").shards == 3
    monkeypatch.setattr(made_up.Mean, "provenance", {"stand_in": True, "device": "another"})
    done = extract("parts")
    assert (done.computed, done.shards) == (0, 8)
    assert (
        cache.open(tmp_path / "parts")[SPLIT].open_stream("colour").manifest["backbone"]["device"]
        == "cpu"
    )
    assert into.rows(tmp_path / "parts", SPLIT, "features/colour").keys()


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "a/b"])
def test_other_parts_are_refused(part, types):
    said = "argument --part: expected K/N with K from 1 to N, such as 3/8 ("
    types(f"{EXTRACT} CACHE --part={part}", said, code=2)


@pytest.mark.parametrize(
    "command",
    [*(f"{CONVERT} CACHE --{option}" for option in ("strict", "retry", "drop-removed")),
     f"{EXTRACT} CACHE --replace"],
)  # fmt: skip
def test_options_of_a_commit_are_refused_for_a_part(command, penn, types):
    printed = types(f"{command} --part 1/2", code=2)
    assert re.search(r"--part: not allowed with|not allowed with argument --part", printed)


def test_a_running_part_renews_its_file_until_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "RENEW", 0.01)
    file = tmp_path / "folder/running-2-of-3"
    with Part(2, 3).running(tmp_path, "folder"):
        os.utime(file, (1, 1))
        await_that(lambda: file.stat().st_mtime > 2)
        with pytest.raises(Busy, match="running-2-of-3: expected no running process of a share"):
            parts.refuse_running_parts(tmp_path, "folder")
    assert not file.exists()
    file.touch()
    os.utime(file, (time.time() + 999_999,) * 2)
    wrong_clock = (
        r"running-2-of-3: .* life now \(the clocks of the machines differ by 99\d{4} s\).* "
        r"run this again in 100\d{4} s, or delete this file"
    )
    with pytest.raises(Busy, match=wrong_clock):
        parts.refuse_running_parts(tmp_path, "folder")
    os.utime(file, (time.time() - 200,) * 2)
    parts.refuse_running_parts(tmp_path, "folder")  # it was killed


def test_the_last_command_removes_files_of_parts_that_were_killed_long_ago(penn, types):
    file = penn.root / penn.name / ".writing/running-2-of-3"
    file.parent.mkdir(parents=True)
    file.touch()
    os.utime(file, (time.time() - 2 * parts.FRESH,) * 2)
    types(f"{CONVERT} CACHE")
    assert not file.exists()
    assert penn.split.manifest["rows"]


def test_a_command_beside_a_running_part_ends_while_that_one_works(penn, types, monkeypatch):
    monkeypatch.setattr(parts, "RENEW", 0.01)
    with Part(2, 3).running(penn.root, f"{penn.name}/.writing"):
        types(f"{CONVERT} CACHE", "running-2-of-3: expected no running process of a share", code=75)
    assert not cache.FeatureCache(penn.root).splits
