"""An extraction that is killed or interrupted goes on with the rows that it had computed, to the same bytes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cache
from pipeline.features import extract as features
from pipeline.features.engine.shards import OpenShards
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from tests.pipeline.features.conftest import write_split

ROOT = Path(__file__).parents[3]
SPLIT = "penn_action/train"
KILLED = """
import os, signal, sys
from pathlib import Path
import cache
import made_up
from pipeline.features import extract as features
from pipeline.features.engine import run
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec

run.CHECKPOINT_EVERY, write, written = 0.0, cache.StreamShards.checkpoint, []

def checkpoint(*args):
    write(*args)
    written.append(args)
    len(written) < 3 or os.kill(os.getpid(), signal.SIGKILL)

cache.StreamShards.checkpoint = checkpoint
plan = plan_extraction(Path(sys.argv[1]), "penn_action/train", StreamSpec("colour", made_up.Colour()))
features.extract(plan, Resources(batch_size=4, workers=1))
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fewer rows than a shard has, of small noisy pictures with two persons; one picture is cut short."""
    folder, lengths = tmp_path_factory.mktemp("one_shard"), (30, 7, 8, 50, 21)
    raw, root, rng = folder / "raw", folder / "cache", np.random.default_rng(5)
    for number, n_frames in enumerate(lengths):
        (raw / f"{number}").mkdir(parents=True)
        for frame in range(n_frames):
            picture = rng.integers(0, 256, (40, 40, 3), np.uint8)
            cv2.imwrite(str(raw / f"{number}/{frame:06d}.jpg"), picture)
    cut = raw / "3/000005.jpg"
    cut.write_bytes(cut.read_bytes()[:-50])

    def track(video: int, person: int, length: int) -> cache.TrackRows:
        bbox = np.tile(np.array([20 + person, 20, 20, 30], np.float32), (length, 1))
        columns = {"frame_index": np.arange(length), "bbox": bbox}
        about: dict[str, Any] = {"name": f"{video}/{person}", "video": f"{video}", "columns": columns}
        return cache.TrackRows(**about, step=1, fps=30.0, crop_scale=1.2)

    tracks = {f"{i}": [track(i, 0, n), track(i, 1, n // 3)] for i, n in enumerate(lengths)}
    write_split(root, SPLIT, raw, tracks, 40, rows_per_shard=512)
    return root


@pytest.fixture
def colours(small: Path, made_up: Any, tmp_path: Path) -> Callable[[str], features.Extraction]:
    """Extract from a cache of that name, in this process."""

    def extract(name: str) -> features.Extraction:
        if not (tmp_path / name).exists():
            shutil.copytree(small, tmp_path / name)
        spec = StreamSpec("colour", made_up.Colour())
        return features.extract(plan_extraction(tmp_path / name, SPLIT, spec), Resources(batch_size=4, workers=1))

    return extract


def test_computed_rows_of_an_incomplete_shard_survive_sigkill(small, on_path, into, tmp_path, colours):
    calm, root = colours("calm"), Path(shutil.copytree(small, tmp_path / "killed"))
    path = os.pathsep.join([str(on_path), str(ROOT)])
    command = [sys.executable, "-W", "error", "-c", KILLED, str(root)]
    assert subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}).returncode == -signal.SIGKILL
    report = cache.verify(root)
    assert report.ok
    assert [note for note in report.notes if "unfinished work" in note]
    assert "features/colour" in cache.gc(root).skipped[0]
    given_up = Path(shutil.copytree(root, tmp_path / "given_up"))
    assert [key.rpartition("/")[2] for key in cache.gc(given_up, unfinished=True).removed] == ["partial-0"]

    again = colours("killed")
    assert again.kept >= 3 * 4 - 2  # batches of 4 rows, of which two cannot be decoded
    assert (again.computed, again.carried) == (calm.computed - again.kept, 0)
    assert again.problems == calm.problems
    assert into.tree(root) == into.tree(tmp_path / "calm")
    assert cache.verify(root).notes == ()


@contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C when the third batch has been computed."""
    put, batches = OpenShards.store, []

    def put_or_stop(*args: Any) -> None:
        put(*args)
        batches.append(args)
        if len(batches) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OpenShards, "store", put_or_stop)
        yield


def test_ctrl_c_keeps_every_computed_row_and_the_next_command_says_so(small, tmp_path, monkeypatch, run, ran, capsys):
    root = shutil.copytree(small, tmp_path / "cache")
    words = ("extract", *SPLIT.split("/"), "--cache", root, "--kind", "homography", "--workers", 1)
    with interrupted(monkeypatch):
        assert run(*words) == 130
    assert "interrupted: computed rows are kept" in capsys.readouterr().err
    assert re.search(r"0 carried over, \d\d kept of an interrupted run", ran(*words).out)
    assert run("verify", "--cache", root) == 0


def test_a_torn_checkpoint_is_ignored(colours: Any, into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = colours("calm")
    with interrupted(monkeypatch), pytest.raises(KeyboardInterrupt):
        colours("killed")
    (file,) = (tmp_path / "killed" / SPLIT).rglob("partial-0")
    file.write_bytes(file.read_bytes()[:-100])
    again = colours("killed")
    assert (again.kept, again.computed) == (0, calm.computed)
    assert into.tree(tmp_path / "killed") == into.tree(tmp_path / "calm")


@pytest.mark.parametrize("stopped", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_interrupted_command_reports_it_and_leaves_no_process(made_up, small, tmp_path, stopped):
    root = Path(shutil.copytree(small, tmp_path / "cache"))
    command = [sys.executable, "-m", "pipeline", "extract", *SPLIT.split("/"), "--cache", str(root)]
    with subprocess.Popen(
        [*command, "--kind", "homography", "--workers", "2"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        end = time.monotonic() + 30
        while not (held := made_up.decoders_of(process.pid)) and time.monotonic() < end:
            time.sleep(0.002)
        assert held
        for one in held if stopped else ():  # as a decoder that hangs
            os.kill(one, signal.SIGSTOP)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        told = process.communicate()[1]
        assert process.returncode == 130, told
        assert made_up.decoders_of(process.pid) == []
    assert "interrupted: computed rows are kept" in told
    assert "Traceback" not in told
    assert "KeyboardInterrupt" not in told
