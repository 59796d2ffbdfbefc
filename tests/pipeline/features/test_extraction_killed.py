"""A killed or interrupted extraction, started again: the same bytes, and little done twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cache
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.processes.settings import Resources
from pipeline.steps.extraction.extract import extract_together
from pipeline.steps.extraction.plan import plan_extraction
from tests.pipeline.features.made_pictures import SPLIT, convert_noise
from tests.waiting import await_that

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
SHARD = 8  # rows

# What a killed process runs. It dies when it has written three checkpoints, or three shards.
RUNNER = """
import os, signal, sys
from pathlib import Path
import cache
import made_up
from pipeline.steps.extraction import extract as features
from pipeline.features.engine import run
from pipeline.steps.extraction.plan import plan_extraction
from pipeline.features.spec import StreamSpec
from pipeline.processes.settings import Resources

run.CHECKPOINT_EVERY, written = 0.0, []
kind, name = {"checkpoints": (cache.StreamShards, "checkpoint"), "shards": (cache.StreamShards, "stage")}[sys.argv[2]]
write = getattr(kind, name)

def write_or_die(*args, **options):
    write(*args, **options)
    written.append(args)
    len(written) < 3 or os.kill(os.getpid(), signal.SIGKILL)

setattr(kind, name, write_or_die)
plan = plan_extraction(Path(sys.argv[1]), "penn_action/train", StreamSpec("colour", made_up.Colour()))
features.extract_together([plan], Resources(batch_size=4, workers=2))
"""


@pytest.fixture(scope="module")
def runner(on_path):
    (on_path / "runner.py").write_text(RUNNER)
    return on_path / "runner.py"


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return convert_noise(tmp_path_factory.mktemp("small"), SHARD)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The same with fewer rows than a shard, as a folder of clips has."""
    return convert_noise(tmp_path_factory.mktemp("one_shard"), 512)


@pytest.fixture
def colours(made_up, into, tmp_path):
    """Extract from a cache of that name, in this process."""
    stream = {"name": "colour", "stream": made_up.Colour()}
    return lambda name: into.extract(tmp_path / name, workers=1, batch_size=4, **stream)


@pytest.mark.promise("resumable")
@pytest.mark.parametrize(
    ("written", "fixture"), [("checkpoints", "small"), ("shards", "converted")]
)
def test_computed_rows_survive_sigkill_and_the_next_run_ends_with_the_same_bytes(
    written, fixture, runner, into, tmp_path, colours, request
):
    before = request.getfixturevalue(fixture)
    root, _ = (Path(shutil.copytree(before, tmp_path / name)) for name in ("killed", "calm"))
    calm = colours("calm")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(runner.parent), str(ROOT)])}
    words = [sys.executable, "-W", "error", str(runner), str(root), written]
    ended = subprocess.run(words, cwd=ROOT, env=environment, timeout=600)
    assert ended.returncode == -signal.SIGKILL
    report = cache.verify(root)
    assert report.ok
    assert [note for note in report.notes if "unfinished work" in note]
    if written == "checkpoints":
        assert "features/colour" in cache.gc(root).skipped[0]
        given_up, torn = (
            Path(shutil.copytree(root, tmp_path / name)) for name in ("given_up", "torn")
        )
        assert [key.rpartition("/")[2] for key in cache.gc(given_up, unfinished=True).removed] == [
            "staged"
        ]
        (file,) = (torn / SPLIT).rglob("rows-0")
        file.write_bytes(file.read_bytes()[:-100])
        again = colours("torn")
        assert (again.kept, again.computed) == (0, calm.computed)
        assert into.tree(torn) == into.tree(tmp_path / "calm")

    again = colours("killed")
    # two rows cannot be decoded
    assert again.kept >= 3 * (4 if written == "checkpoints" else SHARD) - 2
    assert (again.carried, again.computed < calm.computed) == (0, True)
    # a finished shard has rows that cannot be decoded
    assert again.computed + again.kept - calm.computed in (0, 2)
    assert into.tree(root) == into.tree(tmp_path / "calm")
    assert cache.verify(root).notes == []


def test_rows_that_are_computed_before_an_interruption_are_kept(small, tmp_path, types):
    root = Path(shutil.copytree(small, tmp_path / "cache"))
    plan = plan_extraction(root, SPLIT, StreamSpec("homography", streams.get("homography")))
    with pytest.raises(ZeroDivisionError):
        extract_together([plan], Resources(workers=1), progress=lambda done, *_: done < 40 or 1 / 0)
    extract = f"extract {SPLIT} --cache CACHE --kind homography --workers 1"
    types(extract, "0 carried over", "kept of an earlier run", code=1)


@pytest.mark.parametrize("stopped", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_interrupted_command_reports_it_and_leaves_no_process(
    made_up, converted, tmp_path, stopped
):
    root = Path(shutil.copytree(converted, tmp_path / "cache"))
    command = [sys.executable, "-m", "pipeline", "extract", SPLIT, "--cache", str(root)]
    with subprocess.Popen(
        [*command, "--kind", "homography", "--workers", "2"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        await_that(lambda: made_up.decoders_of(process.pid))
        held = made_up.decoders_of(process.pid)
        for one in held if stopped else ():  # as a decoder that hangs
            os.kill(one, signal.SIGSTOP)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        told = process.communicate()[1]
        assert process.returncode == 130, told
        assert made_up.decoders_of(process.pid) == []
    assert "interrupted: what is in the cache is kept" in told
    assert "Traceback" not in told
    assert "KeyboardInterrupt" not in told
