"""Several devices of one machine, a process for each: here two CPUs."""

from dataclasses import replace

import pytest

from pipeline.errors import PipelineError
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Machine
from pipeline.processes.cluster import run_parts
from pipeline.processes.settings import NO_CLUSTER, Computing, Dask, Resources
from pipeline.steps.extraction.extract import extract_together
from pipeline.steps.extraction.plan import plan_extraction
from tests.raising import config_refuses, pipeline_refuses

pytestmark = pytest.mark.processes

PENN = "penn_action/train"
TWO = Resources(workers=2, devices="cpu,cpu")


@pytest.fixture
def roots(penn, small_shards, tmp_path):
    """Two equal caches of two shards."""
    penn.converted()
    alone = tmp_path / "alone"
    penn.root.rename(alone)
    penn.converted()
    return alone, penn.root


@pytest.mark.parametrize("fatal", [pytest.param((), marks=pytest.mark.slow), (0,)])
def test_two_devices_share_the_shards_and_give_the_same_bytes_as_one(
    roots, into, made_up, tmp_path, fatal, capsys
):
    alone, shared = roots
    reported = []

    def extract(root, name, resources, fatal=()):
        (tmp_path / name).mkdir()
        spec = StreamSpec("means", made_up.Mortal(folder=str(tmp_path / name), fatal=fatal))
        (done,) = extract_together(
            [plan_extraction(root, PENN, spec)],
            resources,
            progress=lambda n, total, _: reported.append((n, total)),
        )
        assert (done.computed, done.problems) == (24, {})
        calls = (tmp_path / name / "calls").read_text().splitlines()
        return {call.partition(" ")[0] for call in calls}

    assert len(extract(alone, "one", Resources(workers=1))) == 1
    assert len(extract(shared, "two", TWO, fatal)) == 2 + len(fatal)  # processes
    assert into.tree(shared) == into.tree(alone)
    assert reported[-1] == (24, 24)  # rows
    loss = "! cpu: the process of this device was killed by SIGKILL"
    assert capsys.readouterr().err.count(loss) == len(fatal)


def test_two_processes_that_die_at_the_same_shards_end_it(roots, made_up, tmp_path):
    spec = StreamSpec("means", made_up.Mortal(folder=str(tmp_path), fatal=tuple(range(9))))
    with pipeline_refuses(r"cpu: 2 processes ended at the same work, the last one was killed"):
        extract_together([plan_extraction(roots[0], PENN, spec)], TWO)


def test_what_a_part_raises_comes_with_its_device():
    how = {"most": 1, "shared": None, "plug_ins": ()}
    with pipeline_refuses(r"^cpu: two of one") as caught:
        list(run_parts(_refuse, ["one", "two"], NO_CLUSTER, ("cpu", "cpu"), **how))
    assert "In a process of its own" in caught.value.__notes__[0]


def _refuse(part, progress, device):
    raise PipelineError("two of one")


@pytest.mark.parametrize(
    ("devices", "device", "message"),
    [
        ("gpu", "auto", "expected numbers of GPUs such as 0,1,2,3, found 'gpu'"),
        ("cuda", "auto", "found 'cuda'"),
        ("0,1", "cuda", "devices 0,1: device cuda is set, too"),
    ],
)
def test_devices_are_named_by_number(devices, device, message):
    named = Computing(devices="0 cuda:3, 0, cpu,cpu").processes
    assert named == ("cuda:0", "cuda:3", "cuda:0", "cpu", "cpu")
    with config_refuses(message):
        _ = Computing(device, devices).processes


def test_devices_beside_a_cluster_are_refused(root):
    with config_refuses("devices cpu,cpu: workers of a cluster have their own"):
        extract_together([plan_extraction(root, PENN, StreamSpec())], TWO, dask=Dask("tcp://a:1"))


def test_a_process_has_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    resources = Resources(batch_size=8, devices="0,1,cpu")
    assert (resources.machine("cuda:1"), resources.decoders("cuda:1")) == (Machine("cuda:1", 8), 5)
    resources = replace(resources, workers=9)
    assert (resources.machine("cpu"), resources.decoders("cpu")) == (
        Machine("cpu", 8, threads=5),
        3,
    )
    assert (resources.machine(), resources.decoders()) == (Machine(batch_size=8), 9)
