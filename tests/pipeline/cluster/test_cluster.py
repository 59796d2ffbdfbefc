"""A scheduler and two workers, as processes: the same bytes as one machine, also when some of them
are killed.
"""

import gc
import itertools
import os
import re
import shlex
import socket
from dataclasses import replace
from pathlib import Path

import distributed
import pytest
from numpy.testing import assert_equal

import cache
from pipeline.clips import detectors
from pipeline.extras.demo.files import mp4_writer
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import MARKER
from pipeline.processes import cluster
from pipeline.processes.settings import Dask, DetectionResources, Resources
from pipeline.steps.conversion.convert import convert
from pipeline.steps.detection.plan import plan_detection
from pipeline.steps.detection.run import detect_planned
from pipeline.steps.extraction.extract import extract_together
from pipeline.steps.extraction.plan import plan_extraction
from tests.other_code import copy_code
from tests.pipeline.cluster.conftest import dask, mapped
from tests.raising import pipeline_refuses
from tests.waiting import LIMIT

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
PENN = "penn_action/train"


# --------------------------------------------------------------------------------------------------
# detection


def test_detection_gives_the_same_files_as_on_one_machine(two, embedded, tmp_path):
    film, clip = (
        next(embedded.raw("kinetics").rglob("*.mp4")),
        tmp_path / "raw/train/dancing/clip.mp4",
    )
    clip.parent.mkdir(parents=True)
    (tmp_path / "raw" / MARKER).write_text("{}")
    with mp4_writer(clip, 25.0, *Video(film.parent, film.name).size()) as writer:
        for frame in Video(film.parent, film.name).read(range(4)):
            writer.write(frame.image[..., ::-1])
    clip.with_name("broken.mp4").write_bytes(b"none")
    found = {}
    devices = "cpu,cpu"
    for name, options in (("alone", {}), ("devices", {}), ("cluster", {"dask": Dask(two.address)})):
        plan = plan_detection(tmp_path / "raw", tmp_path / name, detectors.get("demo"))
        machine = DetectionResources(workers=1, devices=devices if name == "devices" else None)
        report = detect_planned(plan, machine, **options)
        assert [Path(clip).name for clip in report.problems] == ["broken.mp4"]
        (file,) = (path for path in (tmp_path / name).rglob("*.mp4.json") if path.is_file())
        found[name] = report.frames, file.read_bytes()
    assert found["cluster"] == found["alone"] == found["devices"]
    assert found["alone"][0] == 4


# ------------------------------------------------------------------------------------------ what
# workers must have


def test_a_worker_that_does_not_see_the_raw_folder_is_refused_before_anything_is_read(
    two, made_up, tmp_path
):
    with pipeline_refuses(r"Dask worker at tcp://.*/raw not found"):
        list(mapped(two.address, made_up.Doubled(tmp_path), shared=tmp_path / "raw"))
    assert made_up.logged(tmp_path) == []


def test_workers_read_for_a_conversion_that_leaves_a_track_out(two, penn, ran, tmp_path):
    (tmp_path / "out.txt").write_text(f"{penn.name}/0003/0\n")
    words = ["convert", penn.name, "--raw", penn.raw, "--cache", penn.root]
    leave_out = f"convert.leave_out={tmp_path / 'out.txt'}"
    shown = ran(*words, "--set", leave_out, "--scheduler", two.address)
    assert "read here" not in shown.err
    assert "0003/0" not in penn.split.tracks.names


def test_a_worker_with_other_labels_of_all_videos_or_other_weights_is_refused(
    two, penn, made_up, embedded, tmp_path
):
    plan = penn.plan(root=tmp_path / "new")
    plan = replace(plan, reader={**plan.reader, "shared": "of another file"})
    with pipeline_refuses(
        r"^Dask worker at tcp://\S+ on \S+: this worker would read otherwise "
        r"\(shared was of another file, is not set\). Mount the same"
    ):
        convert(plan, dask=Dask(two.address))
    penn.converted()
    plan = plan_extraction(penn.root, PENN, StreamSpec("colour", made_up.Colour()))
    plan = replace(plan, identity={**plan.identity, "weights": "of another file"})
    with pipeline_refuses(
        r"^Dask worker at tcp://\S+ on \S+: this worker would compute colour otherwise "
        r"\(weights was of another file, is not set\). Mount the same files there."
    ):
        extract_together([plan], Resources(workers=1), dask=Dask(two.address))
    detection = plan_detection(embedded.raw("kinetics"), tmp_path / "out", detectors.get("demo"))
    detection = replace(detection, about={**detection.about, "options": {"weights": "another"}})
    with pipeline_refuses(
        r"^Dask worker at tcp://\S+ on \S+: this worker has other weights of demo."
    ):
        detect_planned(detection, DetectionResources(workers=1), dask=Dask(two.address))


# --------------------------------------------------------------------------------------------------
# workers that are lost, or that differ: from here on there are fewer


def test_a_conversion_that_loses_a_worker_ends_alike(
    two, penn, into, tmp_path, monkeypatch, small_shards
):
    """Of a relative folder, which messages name as on one machine."""
    penn.add(*(f"{100 + i:04d}" for i in range(9)))
    penn.label("0003").write_bytes(b"none")  # its account names the file
    monkeypatch.chdir(tmp_path)

    def kill_one(done, total, message=""):
        if done == total // 4 and len(two.workers) == 2:
            two.kill(next(iter(two.workers)))

    for name, options in (
        ("alone", {}),
        ("cluster", {"dask": Dask(str(two.file)), "progress": kill_one}),
    ):
        done = into.convert(Path(name), Path("raw/penn_action"), **options)
        assert "raw/penn_action/labels/0003.mat" in done.document["rejected"]["0003"]
        assert str(tmp_path) not in done.document["rejected"]["0003"]
    assert len(two.workers) == 1
    assert into.tree(tmp_path / "cluster") == into.tree(tmp_path / "alone")


class Elsewhere(type(Path())):  # type: ignore[misc]
    """Of a process whose working folder the workers do not have: they stay in their own."""

    @classmethod
    def cwd(cls):
        return Path("/nowhere")


def test_what_a_worker_has_of_an_earlier_state_or_cannot_read_is_read_again_by_name(
    running, penn, into, ran, tmp_path, monkeypatch
):
    """At one path, this process has the raw folder, and the only worker a copy, in which other times
    do not matter.
    """
    running.have(1)
    copy = penn.elsewhere(running.folder / tmp_path.name)
    raw = copy.raw.relative_to(running.folder)
    monkeypatch.chdir(tmp_path)
    raw.parent.mkdir(parents=True)
    raw.symlink_to(penn.raw)
    monkeypatch.setattr(cluster, "Path", Elsewhere)
    penn.edit("0001")
    unreadable = copy.label("0003")
    unreadable.unlink()
    unreadable.symlink_to("/proc/self/mem")  # no error but its first byte
    os.utime(copy.label("0005"), ns=(1, 1))
    words = ["convert", penn.name, "--cache", penn.root, "--raw"]
    shown = " ".join(ran(*words, raw, "--scheduler", running.address).err.split())
    assert f"{penn.name}: 2 videos read here, first 0001: Dask workers cannot read them" in shown
    assert "up to date" in ran(*words, penn.raw).out
    ran("convert", penn.name, "--raw", penn.raw, "--cache", tmp_path / "calm")
    assert_equal(penn.rows("kp_2d"), into.rows(tmp_path / "calm", penn.name, "kp_2d"))


def test_streams_of_every_kind_give_the_same_bytes_as_here(
    two, made_up, penn, into, tmp_path, small_shards
):
    """Also when a worker is lost; and after a change only its rows are computed, by workers too."""
    penn.add("0100", "0101", "0102")
    alone, shared = tmp_path / "alone", tmp_path / "cluster"
    resources = Resources(workers=1)
    jittered = made_up.Colour(crop=cache.CropPolicy(jitter=cache.Jitter(copy=1)))
    made = {"colour": made_up.Colour(), "colour.j1": jittered, "single": made_up.Single()}
    made |= {"followed": made_up.Followed(), "pr_vipe": streams.get("pr_vipe")}
    specs = [StreamSpec(name, stream) for name, stream in made.items()]
    reported = []

    def kill_one(done, total, message=""):
        reported.append((done, total))
        if done and len(two.workers) == 2:
            two.kill(next(iter(two.workers)))

    for root in (alone, shared):
        into.convert(root, penn.raw)
    for spec in specs:
        extract_together([plan_extraction(alone, PENN, spec)], resources)
    plans = [plan_extraction(shared, PENN, spec) for spec in specs]
    done = extract_together(plans, resources, dask=Dask(two.address), progress=kill_one)
    assert len(two.workers) == 1
    assert into.tree(shared) == into.tree(alone)
    assert [(one.carried, one.problems) for one in done] == [(0, {})] * 5
    # what the lost worker had finished is taken over, and is not counted
    assert all(0 < one.computed <= 48 for one in done)
    assert len({one.meter.frames for one in done[:4]}) == 1  # decoded once for all
    assert reported[-1] == (48, 48)  # rows

    moved = [[7 * (2 <= frame < 5)] for frame in range(8)]  # three boxes move
    penn.edit("0003", lambda x: x.astype(float) - moved)
    for root, options in ((alone, {}), (shared, {"dask": Dask(two.address)})):
        into.convert(root, penn.raw)
        again = extract_together([plan_extraction(root, PENN, specs[0])], resources, **options)[0]
        assert (again.computed, again.carried) == (3, 5)
    assert into.tree(shared) == into.tree(alone)


def test_a_worker_with_other_code_is_refused_before_anything_is_read(running, penn, tmp_path, ran):
    running.have(0)
    other = running.add(code=copy_code(tmp_path / "other"))
    words = [
        "convert",
        penn.name,
        *penn.places,
        "--scheduler",
        running.address,
    ]
    shown = " ".join(ran(*words, code=2).err.split())
    running.kill(other)  # the next test wants workers with this code
    assert re.search(
        rf"Dask worker at tcp://\S+ on {socket.gethostname()}: expected code \w{{12}}, as here, "
        r"found",
        shown,
    )
    assert "Use the same code and environment, and start both again." in shown
    assert not (penn.root / penn.name / "manifest.json").exists()


# ----------------------------------------------------------------------------------------- whether
# there is a cluster


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", "127.0.0.1:9: no Dask scheduler answers there"),
        ("cluster", "cluster: expected tcp://HOST:PORT"),
        ("node1:port", "node1:port: expected tcp://HOST:PORT"),
        ("http://node1:8787/status", "status: expected tcp://HOST:PORT"),
        ("nowhere/scheduler.json", "expected the file that `dask scheduler"),
    ],
)
def test_an_address_without_a_scheduler_is_refused(address, said, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER", 0.3)
    with pipeline_refuses(said):
        list(mapped(address, str))
    clients = [each for each in gc.get_objects() if type(each) is distributed.Client]
    assert {client.status for client in clients} <= {"closed"}  # an open one stops the next one


@pytest.mark.parametrize("content", ["", "[]", '{"type": "Sched'])
def test_a_file_without_an_address_is_no_scheduler_s(content, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "ANSWER", 0.3)
    file = tmp_path / "scheduler.json"
    file.write_text(content)
    with pipeline_refuses("--scheduler-file` writes, found another one after"):
        list(mapped(str(file), str))


def test_a_cluster_without_workers(running, embedded, into, tmp_path, ran):
    """Of each command, after the time that it was given."""
    running.have(0)
    raw, made, clips = embedded.raw("penn_action"), tmp_path / "made", embedded.raw("kinetics")
    into.convert(made, raw)
    for words in (
        ("convert", PENN, "--raw", raw, "--cache", tmp_path / "new"),
        ("extract", PENN, "--cache", made, "--kind", "pr_vipe"),
        ("detect", clips, "--out", tmp_path / "found", "--detector", "demo"),
    ):
        shown = ran(
            *words, "--scheduler", running.address, "--set", "dask.patience=0.5", code=2
        ).err
        assert "waited 0.5 s for a Dask worker. Start workers" in " ".join(shown.split())


# --------------------------------------------------------------------------------------------------
# the page


def commands_of_the_page(heading):
    """The words of every command below a heading of docs/clusters.md, but of those that it does
    not run itself.
    """
    section = re.split(r"^## ", (ROOT / "docs/clusters.md").read_text(), flags=re.MULTILINE)
    text = next(part for part in section if part.startswith(heading))
    block = next(part for part in text.split("\n\n") if part.startswith("    "))
    joined = block.replace("\\\n", " ")
    return [shlex.split(line) for line in joined.splitlines()]


@pytest.mark.slow
def test_the_commands_of_the_page_make_a_cluster_that_converts(embedded, into, tmp_path, on_path):
    scheduler, worker, convert, extract = commands_of_the_page("Dask: several machines")
    started = []
    try:
        for words, more in (
            (scheduler, ["--port", "0", "--no-dashboard"]),
            (worker, ["--no-dashboard"]),
        ):
            assert words[0] == ".venv/bin/dask"
            options = [word.replace("/shared", str(tmp_path)) for word in words[1:]]
            options = [
                "2" if before == "--nworkers" else word
                for before, word in itertools.pairwise(["", *options])
            ]
            started.append(dask(tmp_path, on_path, *options, *more))
        file = str(tmp_path / "scheduler.json")
        for words in (convert, extract):
            assert words[words.index("--scheduler") + 1] == "/shared/scheduler.json"
        into.convert(tmp_path / "alone", embedded.raw("penn_action"))
        into.convert(tmp_path / "cluster", embedded.raw("penn_action"), dask=Dask(file))
    finally:
        for process in reversed(started):
            process.terminate()  # a nanny ends its workers when it is told to end
        for process in started:
            process.wait(LIMIT)
    assert into.tree(tmp_path / "cluster") == into.tree(tmp_path / "alone")
