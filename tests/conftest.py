"""What the tests of several packages need: an S3 server of their own, and how they are shared out
to processes.
"""

import contextlib
import functools
import gc
import itertools
import logging
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

from tests.browser import browser, tab_of  # noqa: F401

# A shell starts what it puts into the background with SIGINT ignored, and every process from there
# on: tests of Ctrl-C would wait for nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)

# `make test` has a process on every core; torch with as many threads in each would be slower. It
# reads this once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where single tests take from 10 s to a minute, the longest first.
LONG = (
    "tests/journeys/test_clips",
    "tests/journeys",
    "tests/tasks",
    "tests/test_gold",
    "tests/pipeline/cluster",
)
SHM, NEEDED = Path("/dev/shm"), 8 << 30  # bytes


def keep_files_in_memory():
    """Where there is room: on a disk, deleting an empty folder alone may take milliseconds."""
    if not SHM.is_dir():
        return
    found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if found and min(int(found[1]) << 10, shutil.disk_usage(SHM).free) > NEEDED:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(SHM))
    for lock in SHM.glob("pytest-of-*/pytest-[0-9]*/.lock"):
        with contextlib.suppress(OSError):  # of a run that ends meanwhile, or of another user's
            # pytest itself keeps what killed runs left for days
            if not Path("/proc", lock.read_text()).exists():
                shutil.rmtree(lock.parent, ignore_errors=True)


keep_files_in_memory()

# The same examples each time, however long one takes on a busy machine.
UNHURRIED = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("repeatable", derandomize=True, max_examples=60, **UNHURRIED)
# Others each time, for as long as one lets it: tests/cache/test_histories.py.
hypothesis.settings.register_profile("soak", max_examples=10**6, database=None, **UNHURRIED)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser):
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write what differs in tests/golden from what is printed and made now",
    )


@pytest.fixture
def golden(request, capsys, tmp_path):
    """`with golden("plan", main, {raw: "RAW"}) as show`: what `show(title, *words)` prints is
    tests/golden/plan.txt.
    """
    from tests.golden import Transcript, recorded

    def opened(
        name,
        main,
        places,
        varying=(),
    ):
        made = Transcript(main, capsys, {tmp_path: "TMP", **places}, varying)
        return recorded(name, made, rewrite=request.config.getoption("--rewrite-golden"))

    return opened


@pytest.fixture
def record(request):
    """`record("datasets/penn_action", "options")`: that part of tests/golden/datasets/penn_action.json."""
    from tests.golden import Record

    rewrite = request.config.getoption("--rewrite-golden")
    return lambda name, part: Record(name, part, rewrite=rewrite)


def pytest_terminal_summary(terminalreporter):
    """Print what passing tests have compared: `record_property("compared", text)`."""
    for report in terminalreporter.getreports("passed"):
        texts = [text for name, text in report.user_properties if name == "compared"]
        if report.when == "call" and texts:
            terminalreporter.write_line(f"{report.nodeid}: {'; '.join(texts)}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files go to processes whole, for the sake of their fixtures; those of tests/tasks share one
    finished project, those of tests/journeys the process that runs commands.
    """
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class ByFile(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid):
            if nodeid.startswith("tests/journeys/"):
                return "tests/journeys"
            is_of_project = nodeid.startswith("tests/tasks/") and not nodeid.startswith(
                "tests/tasks/report/"
            )
            return "tests/tasks" if is_of_project else str(super()._split_scope(nodeid))

    config.option.loadscopereorder = (
        False  # it would begin with what has many tests, and end with a journey of a minute
    )
    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """What is imported and collected stays to the end: the garbage collector need not look at it."""
    gc.disable()
    collected = yield
    gc.freeze()
    gc.enable()
    return collected


def pytest_collection_modifyitems(items):
    """The longest files come first, so that no process ends with one while the others have nothing
    left to do.
    """
    items.sort(
        key=lambda item: next(
            (i for i, path in enumerate(LONG) if item.nodeid.startswith(path)), len(LONG)
        )
    )


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    """Nothing here survives a power cut, nor has to: where fsync is called matters, not what it
    does.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def git_is_asked_once():
    """For the commit, which hundreds of commands in this process record, 25 ms of git for each."""
    from pipeline.processes import software

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(software, "_git_commit", functools.cache(software._git_commit))
        yield


@pytest.fixture(autouse=True, scope="session")
def tasks_run_in_this_process():
    """But those of tests with the mark `processes`."""
    from tests.inline_processes import inline_processes

    with inline_processes():
        yield


@pytest.fixture(autouse=True)
def tasks_run_in_processes(request):
    if request.node.get_closest_marker("processes") is None:
        yield
        return
    from tests.inline_processes import real_processes

    with real_processes():
        yield


@pytest.fixture(scope="session")
def demo_data(request, tmp_path_factory):
    """Demo data by name, at the price of a copy."""
    from tests.demo_data import DemoData

    kept = getattr(request.config, "cache", None)
    return DemoData(kept.mkdir("demo-data") if kept else tmp_path_factory.mktemp("demo-data"))


@pytest.fixture(scope="module")
def server():
    """A real S3 server, and a client that is not ours."""
    moto_server = pytest.importorskip(
        "moto.server", reason="a real S3 server is needed: pip install --group dev"
    )
    boto3 = pytest.importorskip("boto3")
    logging.getLogger("werkzeug").disabled = True
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "a-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_TIMEOUT", "600s")  # of a busy machine
        patch.setenv("AWS_CONNECT_TIMEOUT", "600s")
        yield boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    running.stop()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder for packages (tests/packages.py) that are installed for this process and this test
    alone.
    """
    from pipeline import plug_ins

    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path / "site")
    plug_ins._entry_points.cache_clear()
    yield tmp_path / "site"
    plug_ins._entry_points.cache_clear()
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


_numbers = itertools.count()


@pytest.fixture
def url(server):
    """An empty place below a bucket of its own."""
    name = f"bucket-{next(_numbers)}"
    server.create_bucket(Bucket=name)
    return f"s3://{name}/some/where"
