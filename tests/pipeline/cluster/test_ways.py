"""Array jobs, devices and Dask workers do the same work in the same way."""

import itertools
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys

import pytest

from cache.write.parts import Part
from pipeline.errors import PipelineError
from pipeline.features.extract import extract_together
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from pipeline.processes.settings import Dask
from pipeline.processes.software import version
from tests.other_code import copy_code, run_other

pytestmark = pytest.mark.processes

PENN = "penn_action/train"
ONE = Resources(workers=1)
TWO = Resources(workers=1, devices="cpu,cpu")
WAYS = pytest.mark.parametrize("way", ["parts", "devices", "dask"])
# "mixed": an array job, of which one part runs on devices and one on a cluster, then devices
KILLED = ["parts", "devices", "dask", "mixed"]
SLOW = [
    pytest.param(way, seed, marks=pytest.mark.slow)
    for way, seed in itertools.product(KILLED, range(1, 7))
    if (way, seed) != ("mixed", 1)  # it has all others
]
# Runs the command line after a file of its code has changed.
EDITED_MEANWHILE = """
import sys
from pathlib import Path
from pipeline.__main__ import main
from pipeline.processes import software
import pipeline.boxes

file = Path(pipeline.boxes.__file__)
file.write_text(file.read_text() + "EDITED = True\\n")
sys.exit(main(sys.argv[1:]))
"""


# ------------------------------------------------------------------------------- killed at random


@pytest.mark.parametrize(("way", "seed"), [("mixed", 1), *SLOW])
def test_killed_at_random_they_end_with_the_bytes_of_one_run(
    way, seed, request, penn, made_up, into, tmp_path, small_shards
):
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
    if way in ("dask", "mixed"):
        running = request.getfixturevalue("running")
        running.have(0)
        running.have(4)
        dask = {"dask": Dask(running.address)}
    if way == "parts":
        end_parts(shared, spec, Part(1, 2), Part(2, 2))
        done = extract(shared, spec, ONE)
        assert done.computed == 0  # all is staged
    elif way == "devices":
        done = run_until_done(shared, spec, TWO)
    elif way == "dask":
        done = run_until_done(shared, spec, ONE, **dask)
    else:
        end_parts(shared, spec, Part(1, 4))
        run_until_done(shared, spec, TWO, part=Part(2, 4))
        run_until_done(shared, spec, ONE, part=Part(3, 4), **dask)
        done = run_until_done(shared, spec, TWO)
        assert 0 < done.computed < done.kept
    assert done.problems == {}
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) > max(fatal)
    # parts compute where they are told to, not in the process of the command
    assert str(os.getpid()) not in {call.split()[0] for call in calls}
    assert into.tree(shared) == into.tree(alone)


def extract(root, spec, resources, **options):
    (done,) = extract_together([plan_extraction(root, PENN, spec)], resources, **options)
    return done


def end_parts(root, spec, *parts):
    """Run parts at once, again until all have ended by themselves."""
    codes = {-signal.SIGKILL}
    while -signal.SIGKILL in codes:
        started = [start_part(root, spec, part) for part in parts]
        for part in started:
            part.join()
        codes = {part.exitcode for part in started}
    assert codes == {0}


def start_part(root, spec, part):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=extract, args=(root, spec, ONE), kwargs={"part": part})
    process.start()
    return process


def run_until_done(root, spec, resources, **options):
    """Extract, and again as the error says if a task ended several workers."""
    for _ in range(len(spec.stream.fatal)):
        try:
            return extract(root, spec, resources, **options)
        except PipelineError as error:
            assert re.search("ended at the same part|were lost while they ran", str(error))
    return extract(root, spec, resources, **options)


# ------------------------------------------------------------------------------------- other code


@pytest.fixture
def other(tmp_path):
    """A copy of the code with other boxes and homographies."""
    return copy_code(tmp_path / "other")


@WAYS
def test_work_of_other_code_is_refused_by_name(
    way, request, penn, other, into, ran, tmp_path, small_shards
):
    into.convert(penn.root, penn.raw)
    before = into.tree(penn.root)
    words = ["extract", PENN, "--kind", "homography", "--workers", 1, "--cache", penn.root]
    if way == "parts":
        run_other(other, *words, "--part", "1/2")
        printed = ran(*words).err
    elif way == "devices":
        command = [sys.executable, "-c", EDITED_MEANWHILE, *words, "--devices", "cpu,cpu"]
        environment = {"PYTHONPATH": str(other)}
        done = subprocess.run(
            [*map(str, command)], cwd=other, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 2
        printed = done.stderr
    else:
        running = request.getfixturevalue("running")
        running.have(0)
        running.add(code=other)
        printed = ran(*words, "--scheduler", running.address, code=2).err

    printed = " ".join(printed.split())
    if way == "parts":
        assert ": code was " in printed
        assert f", is {version('code')}" in printed
        assert "is computed again" in printed
        return
    place = "cpu" if way == "devices" else r"Dask worker at tcp://\S+ on \S+"
    assert re.search(rf"{place}: expected code \w{{12}}.*, as here, found \w{{12}}", printed)
    assert "Use the same code and environment, and start both again." in printed
    assert into.tree(penn.root) == before
