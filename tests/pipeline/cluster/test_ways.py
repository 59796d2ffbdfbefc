"""Array jobs, devices and Dask workers do the same work in the same way."""

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading

import pytest

from cache.write.parts import Part
from pipeline.errors import PipelineError
from pipeline.features.spec import StreamSpec
from pipeline.processes import cluster
from pipeline.processes.settings import Dask, Resources
from pipeline.steps.extraction.extract import extract_together
from pipeline.steps.extraction.plan import plan_extraction
from tests.other_code import copy_code
from tests.waiting import LIMIT

pytestmark = pytest.mark.processes

PENN = "penn_action/train"
ONE = Resources(workers=1)
TWO = Resources(workers=1, devices="cpu,cpu")
# Runs the command line after a file of its code has changed.
EDITED_MEANWHILE = """
import sys
from pathlib import Path
from pipeline.__main__ import main
from pipeline.processes import software
import pipeline.people.boxes

file = Path(pipeline.people.boxes.__file__)
file.write_text(file.read_text() + "EDITED = True\\n")
sys.exit(main(sys.argv[1:]))
"""


# ------------------------------------------------------------------------------- killed at random


@pytest.mark.promise("equal bytes")
@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 13))]
)
def test_killed_at_random_they_end_with_the_bytes_of_one_run(
    seed, running, penn, made_up, into, tmp_path, small_shards
):
    """An array job, of which one part runs on devices and one on a cluster, then devices."""
    penn.add(*(f"{100 + i:04d}" for i in range(7)))
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for root in (alone, shared):
        into.convert(root, penn.raw)
    calm = StreamSpec("means", made_up.Mortal(folder=str(tmp_path)))
    extract_together([plan_extraction(alone, PENN, calm)], ONE)
    n_calls = len((tmp_path / "calls").read_text().splitlines())

    (tmp_path / "calls").unlink()
    fatal = tuple(random.Random(seed).sample(range(n_calls), 3))
    spec = StreamSpec("means", made_up.Mortal(folder=str(tmp_path), fatal=fatal))
    running.have(0)
    running.have(4)
    end_part(shared, spec, Part(1, 4))
    run_until_done(shared, spec, TWO, part=Part(2, 4))
    run_until_done(shared, spec, ONE, part=Part(3, 4), dask=Dask(running.address))
    done = run_until_done(shared, spec, TWO)
    assert 0 < done.computed < done.kept
    assert done.problems == {}
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) > max(fatal)
    # parts compute where they are told to, not in the process of the command
    assert str(os.getpid()) not in {call.split()[0] for call in calls}
    assert into.tree(shared) == into.tree(alone)


@pytest.mark.parametrize("is_cluster", [False, True])
def test_what_a_part_has_staged_is_reported_before_it_ends(
    is_cluster, running, penn, made_up, tmp_path, small_shards, monkeypatch
):
    """Two shards of 16 and 8 rows are one part; the second one waits for the report of the first."""
    penn.converted()
    monkeypatch.setattr(cluster, "PARTS_OF_WORKER", 1)
    monkeypatch.setattr(cluster, "REPORT_EVERY", 1)
    reported = []

    def report(done, total, message):
        reported.append((done, total, message.partition(",")[0].split(" (")[0]))
        if done == 16:
            (tmp_path / "open").touch()

    how = {"resources": Resources(workers=1, devices="cpu")}
    if is_cluster:
        running.have(1)
        how = {"resources": ONE, "dask": Dask(running.address)}
    spec = StreamSpec("means", made_up.Mortal(folder=str(tmp_path), gate=4))
    opening = threading.Timer(LIMIT, (tmp_path / "open").touch)  # without a report, it fails
    opening.start()
    extract(penn.root, spec, progress=report, **how)
    opening.cancel()
    assert (16, 24, "means staged") in reported
    assert reported[-1][:2] == (24, 24)


def extract(root, spec, resources, **options):
    (done,) = extract_together([plan_extraction(root, PENN, spec)], resources, **options)
    return done


def end_part(root, spec, part):
    """Run a part, again until it has ended by itself."""
    context = multiprocessing.get_context("spawn")
    while True:
        process = context.Process(target=extract, args=(root, spec, ONE), kwargs={"part": part})
        process.start()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            assert process.exitcode == 0
            return


def run_until_done(root, spec, resources, **options):
    """Extract, and again as the error says if a task ended several workers."""
    for _ in range(len(spec.stream.fatal)):
        try:
            return extract(root, spec, resources, **options)
        except PipelineError as error:
            assert re.search("ended at the same (part|work)|were lost while they ran", str(error))
    return extract(root, spec, resources, **options)


# ------------------------------------------------------------------------------------- other code


def test_a_device_whose_process_finds_other_code_is_refused_by_name(penn, into, tmp_path):
    penn.converted()
    before = into.tree(penn.root)
    other = copy_code(tmp_path / "other")
    words = ["extract", PENN, "--kind", "homography", "--workers", 1, "--cache", penn.root]
    command = [sys.executable, "-c", EDITED_MEANWHILE, *words, "--devices", "cpu,cpu"]
    environment = {"PYTHONPATH": str(other)}
    done = subprocess.run(
        [*map(str, command)], cwd=other, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    printed = " ".join(done.stderr.split())
    assert re.search(r"cpu: expected code \w{12}.*, as here, found \w{12}", printed)
    assert "Use the same code and environment, and start both again." in printed
    assert into.tree(penn.root) == before
