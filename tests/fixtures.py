"""Raw datasets small enough for a test, caches of them, and commands."""

from __future__ import annotations

import functools
import importlib
import json
import os
import pickle
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

import cache
from cache.write import split_writer
from pipeline import datasets, table
from pipeline.__main__ import main
from pipeline.datasets.penn_action import PennAction
from pipeline.extras.demo.writing import LAYOUTS
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.network import ResNet50
from pipeline.files.raw import MARKER
from pipeline.processes.settings import Resources
from pipeline.steps.conversion import convert
from pipeline.steps.conversion.plan import plan_conversion
from pipeline.steps.extraction import extract as features
from pipeline.steps.extraction.plan import plan_extraction
from pipeline.steps.recipe import Recipe
from tests.fake_network import replace_network
from tests.pipeline.datasets.label_files import edit_labels
from tests.trees import everything, tree


class Embedded:
    """The embedded datasets, each written when it is asked for; a test that changes one takes a
    copy.
    """

    def __init__(self, folder, demo_data):
        self._folder, self._demo_data = folder, demo_data
        self._takes = {}

    def takes(self, name):
        """The truth behind the dataset's videos."""
        self.raw(name)
        return self._takes[name]

    def raw(self, name):
        """The dataset's own raw folder. Only to be read."""
        folder = self._folder / name
        if name not in self._takes:
            layout = LAYOUTS[name]
            self._takes[name] = self._demo_data.dataset(
                name, folder, n_videos=layout.n_videos, n_frames=layout.n_frames
            )
        return folder

    def copy(self, name, to):
        """The same in a folder of the test's own."""
        return Path(shutil.copytree(self.raw(name), to))

    @functools.cache  # noqa: B019 - there is one of them in a session
    def model(self, name):
        """The body model without which a dataset has no tracks; None for others."""
        dataset = datasets.get(name)
        return dataset.load_body(self.body) if dataset.labels.needs_body else None

    @functools.cached_property
    def body(self):
        """The stand-in body's folder. Only to be read."""
        self._demo_data.body(self._folder / "body")
        return self._folder / "body"


def planned(dataset, split, raw, root, **changed):
    """What a conversion is to do. changed: `body`, `selection`, and options of `plan_conversion`."""
    options = {key: changed.pop(key) for key in ("reads_contents",) if key in changed}
    return plan_conversion(Recipe(dataset, split, raw, root, **changed), **options)


def planned_again(split, **changed):
    """What a conversion that retries videos of a committed split is to do."""
    return plan_conversion(replace(Recipe.from_committed(split, **changed), retry=True))


def convert_into(root, raw, name="penn_action", split="train", *, body=None, **options):
    return convert.convert(planned(datasets.get(name), split, raw, root, body=body), **options)


@pytest.fixture
def network(monkeypatch):
    """In the place of ResNet-50; `network.batches` has an entry for every batch that it saw."""
    return replace_network(monkeypatch)


@dataclass(frozen=True)
class WatchedPenn(PennAction):
    """Penn Action's reader; a folder knows what it has read, and where it is to fail. Videos are
    read elsewhere.
    """

    watched: str = field(default_factory=lambda: os.environ["WATCHED_PENN"])

    def parameters(self):
        return {name: value for name, value in super().parameters().items() if name != "watched"}

    def read(self, raw, split, video, account, body):
        with Path(self.watched, "read").open("a") as names:
            names.write(f"{video.name}\n")
        failure = Path(self.watched, f"fail-{video.name}")
        if failure.exists():
            raise pickle.loads(failure.read_bytes())
        return super().read(raw, split, video, account, body)


class Reads:
    """What `WatchedPenn` reads, and what it fails with."""

    def __init__(self, folder):
        self._folder = folder

    @property
    def names(self):
        """The videos that have been read since the last `clear`."""
        file = self._folder / "read"
        return file.read_text().split() if file.exists() else []

    def clear(self):
        """Nothing has been read, nothing fails."""
        for file in self._folder.iterdir():
            file.unlink()

    def fail(self, name, error=None):
        (self._folder / f"fail-{name}").write_bytes(
            pickle.dumps(error or ZeroDivisionError("float division"))
        )


@pytest.fixture
def reads(tmp_path_factory, monkeypatch):
    """In the place of Penn Action's reader, one that is watched."""
    folder = tmp_path_factory.mktemp("watched")
    monkeypatch.setenv("WATCHED_PENN", str(folder))
    monkeypatch.setitem(table.OWN[datasets.ENTRY_POINTS], "penn_action", f"{__name__}:WatchedPenn")
    return Reads(folder)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_SHARD", 16)
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_CHUNK", 8)


@pytest.fixture(autouse=True)
def empty_working_folder(tmp_path_factory, monkeypatch):
    """Commands read luigi.cfg of the working folder, and that of the clone is for its demo data."""
    folder = tmp_path_factory.getbasetemp() / "empty"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory, demo_data):
    return Embedded(tmp_path_factory.mktemp("embedded"), demo_data)


class Into:
    """The helpers, for tests that cannot import from here."""

    convert: Callable[..., convert.Conversion] = staticmethod(convert_into)
    tree: Callable[[Path], dict[str, bytes]] = staticmethod(tree)
    everything: Callable[[Path], dict[str, tuple[int, int]]] = staticmethod(everything)

    @staticmethod
    def spec(**given):
        """A StreamSpec by all that can be said of one, wherever it belongs: weights, name, ..."""
        stream = {key: given.pop(key) for key in ("weights", "precision") if key in given}
        return StreamSpec(stream=given.pop("stream", None) or ResNet50(**stream), **given)

    @classmethod
    def extract(cls, root, split="penn_action/train", *, replace=False, part=None, **spec):
        resources = {
            key: spec.pop(key)
            for key in ("device", "devices", "batch_size", "workers", "timeout")
            if key in spec
        }
        return features.extract_together(
            [plan_extraction(root, split, cls.spec(**spec), replace=replace)],
            Resources(**resources),
            part=part,
        )[0]

    @staticmethod
    def rows(root, split, name):
        """Track's name -> its rows of a column or, as `features/NAME`, of a stream."""
        opened = cache.open(root)[split]
        column = opened.column(name)
        return {track.name: np.asarray(column[track.start : track.stop]) for track in opened.tracks}


@pytest.fixture(scope="session")
def on_path(tmp_path_factory):
    """A folder with `made_up` alone, on the path of this process and of those that it starts."""
    folder = tmp_path_factory.mktemp("path")
    shutil.copy(Path(__file__).parent / "pipeline/features/made_up.py", folder)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def made_up(on_path):
    return importlib.import_module("made_up")


@pytest.fixture(scope="session")
def into():
    return Into


class Converted:
    """Caches with the embedded Penn Action's train split, converted once a session. Only to be
    copied.
    """

    def __init__(self, embedded, folder):
        self._folder, self.raw = folder, embedded.raw("penn_action")

    def root(self, extracted):
        """In shards of the size that new splits have now; `extracted`: the precision of its stream,
        none for "".
        """
        root = self._folder / f"{split_writer.ROWS_PER_SHARD}{extracted}"
        if not root.is_dir():
            convert_into(root, self.raw)
            if extracted:
                with pytest.MonkeyPatch.context() as patch:
                    replace_network(patch)
                    Into.extract(root, precision=extracted)
        return root

    def copy(self, raw, root, extracted=""):
        """What converting (and extracting) `raw`, an untouched copy, into `root` writes: in a tenth
        of the time.
        """
        shutil.copytree(self.root(extracted), root)
        provenance = root / "penn_action/train/provenance.json"
        provenance.write_text(provenance.read_text().replace(str(self.raw), str(raw)))


@pytest.fixture(scope="session")
def converted(embedded, tmp_path_factory):
    return Converted(embedded, tmp_path_factory.mktemp("converted"))


class Penn:
    """A copy of the embedded Penn Action, and a cache for it. 0001, 0003 and 0005 are of train,
    with 8 frames each.
    """

    name = "penn_action/train"

    def __init__(self, raw, root, converted):
        self.raw, self.root, self._converted = raw, root, converted

    @property
    def places(self):
        """The options of its raw folder and its cache."""
        return "--raw", self.raw, "--cache", self.root

    @property
    def split(self):
        return cache.open(self.root)[self.name]

    def plan(self, split="train", **changed):
        given = {
            "raw": self.raw,
            "root": self.root,
            "dataset": datasets.get("penn_action"),
            **changed,
        }
        return planned(given.pop("dataset"), split, **given)

    def convert(self, split="train", **options):
        return convert.convert(self.plan(split), **options)

    def converted(self, extracted=""):
        """`convert` (and an extraction) of the untouched raw folder, from a cache that is there."""
        self._converted.copy(self.raw, self.root, extracted)

    def recipe(self, stream=None):
        at = () if stream is None else (replace(stream, raw=self.raw),)
        return Recipe(datasets.get("penn_action"), "train", self.raw, self.root, streams=at)

    def rows(self, column):
        return Into.rows(self.root, self.name, column)

    def everything(self):
        return everything(self.root)

    def label(self, video):
        return self.raw / f"labels/{video}.mat"

    def frames(self, video):
        return self.raw / f"frames/{video}"

    def edit(self, video, change=lambda x: x + 1, key="x"):
        """Change a label; else all joints move by a pixel. Returns the bytes before."""
        before = self.label(video).read_bytes()
        edit_labels(self.label(video), lambda label: label | {key: change(label[key])})
        return before

    def spoil(self, *videos):
        """Leave a joint out: `bad_label_file`. Returns the last one's bytes before."""
        return [self.edit(video, lambda x: x[:, :12]) for video in videos][-1]

    def add(self, *videos):
        """Copies of 0001."""
        for video in videos:
            shutil.copy(self.label("0001"), self.label(video))
            shutil.copytree(self.frames("0001"), self.frames(video))

    def remove(self, *videos):
        for video in videos:
            self.label(video).unlink()
            shutil.rmtree(self.frames(video))

    def elsewhere(self, folder):
        """A copy of the raw folder there, for the same cache."""
        return Penn(
            Path(shutil.copytree(self.raw, folder / "penn_action")), self.root, self._converted
        )

    def without_marker(self):
        """As if it were a download: real data."""
        (self.raw / MARKER).unlink()


@pytest.fixture
def penn(embedded, converted, tmp_path):
    return Penn(
        embedded.copy("penn_action", tmp_path / "raw/penn_action"), tmp_path / "cache", converted
    )


@pytest.fixture
def run():
    """`python -m pipeline`, within this process: its exit code."""

    def run(*arguments):
        try:
            return main([str(argument) for argument in arguments])
        except SystemExit as ended:  # from argparse
            return int(ended.code or 0)

    return run


@pytest.fixture
def ran(run, capsys):
    """What a command of `python -m pipeline` printed: `.out` and `.err`; `code`: the exit code that
    it must have.
    """

    def ran(*arguments, code=0):
        capsys.readouterr()
        ended = run(*arguments)
        shown = capsys.readouterr()
        assert ended == code, shown
        return shown

    return ran


@pytest.fixture
def command_line(ran, tmp_path):
    """`command_line("status --cache CACHE", code=1)`: a command as one types it. TMP is the test's folder,
    RAW and CACHE are `raw` and `cache` there, where `penn` has them.
    """

    def run_line(command, code=0):
        command = command.replace("RAW", "TMP/raw").replace("CACHE", "TMP/cache")
        return ran(*shlex.split(command.replace("TMP", str(tmp_path))), code=code)

    return run_line


@pytest.fixture
def types(command_line):
    """`types("status --cache CACHE", "1 video", code=1)`: a command that prints these texts. All
    that it prints is returned, in one line.
    """

    def types(command, *texts, code=0):
        shown = command_line(command, code)
        printed = " ".join((shown.out + shown.err).split())
        missing = [text for text in texts if text not in printed]
        assert not missing, printed
        return printed

    return types


@pytest.fixture
def types_json(command_line):
    """What a command with --json prints."""
    return lambda command, code=0: json.loads(command_line(f"{command} --json", code).out)


@pytest.fixture
def luigi_cfg(tmp_path, monkeypatch):
    """Write a luigi.cfg, which commands read from then on: `luigi_cfg("amass",
    "[amass]\\nresampling = decimate")`.
    """

    def write(datasets="penn_action", more=""):
        file = tmp_path / "luigi.cfg"
        paths = "[paths]\nraw = raw\nbody = body\ncache = cache\nruns = runs\n"
        file.write_text(f"{paths}[data]\ndatasets = {datasets}\n{more}\n")
        monkeypatch.setenv("LUIGI_CONFIG_PATH", str(file))
        return file

    return write
