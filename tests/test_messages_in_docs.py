"""docs/messages.md has every message: it is the source's own, and what really is printed can be found there."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

import cache
from pipeline import synthetic
from pipeline.__main__ import main as pipeline_main
from pipeline.synthetic import writing
from tasks.__main__ import main as tasks_main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/messages.md"
ENTRY = re.compile(r"^- (`+) ?(.*?) ?\1 \([\w.]+\)$", re.MULTILINE)
GAP = re.compile(r"‹[^›]*›")
NAMES = ("insta_variety", "mpi_inf_3dhp", "amass", "3dpw", "penn_action", "posetrack", "h36m", "kinetics")


def entries() -> list[str]:
    return [match[2] for match in ENTRY.finditer(PAGE.read_text())]


def words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]{2,}", GAP.sub(" ", text))


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    """docs/messages.py, which is no package's."""
    sys.path.insert(0, str(ROOT / "docs"))
    spec = importlib.util.spec_from_file_location("docs_messages", ROOT / "docs/messages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "docs"))
    del sys.modules[spec.name]


def test_the_page_is_what_the_source_says(generator: ModuleType) -> None:
    now = generator.page(generator.messages())
    assert PAGE.read_text() == now, "messages have changed: run `python docs/messages.py`, and look at what differs"


def test_the_examples_of_the_generator_hold(generator: ModuleType) -> None:
    told = [doctest.testmod(sys.modules[name]) for name in ("messages_text", "messages_source")]
    assert all(result.failed == 0 for result in told)
    assert sum(result.attempted for result in told) > 1


# ------------------------------------------------------------------------------- by another look at the source


def raised_words(file: Path) -> Iterator[tuple[int, str]]:
    """Every longer piece of text that stands in a raise statement itself, with its line."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
            continue
        if ast.unparse(node.exc.func).rpartition(".")[2] in (
            *("AssertionError", "TypeError", "AttributeError", "IndexError", "KeyError", "NotImplementedError"),
        ):
            continue
        said = [*node.exc.args, *(each.value for each in node.exc.keywords if each.arg != "reason")]
        for part in (part for each in said for part in ast.walk(each)):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                pieces = re.split(r"\{[^{}]*\}", part.value)  # of what is formatted
                yield from ((node.lineno, " ".join(piece.split())) for piece in pieces if len(words(piece)) > 2)


@pytest.mark.parametrize("package", ["cache", "pipeline", "vibe_model", "report", "tasks"])
def test_what_a_raise_statement_says_is_on_the_page(package: str) -> None:
    text = " ".join(PAGE.read_text().split())
    pieces = [
        (file.relative_to(ROOT), line, said)
        for file in sorted((ROOT / package).rglob("*.py"))
        for line, said in raised_words(file)
    ]
    assert len(pieces) > 1
    assert [piece for piece in pieces if piece[2] not in text] == []


# ------------------------------------------------------------------------------------------- real errors, printed


def entry_of(message: str) -> str | None:
    """The entry of the page that a message is an instance of; the one with the most words of its own."""
    message = " ".join(message.split())
    found = []
    for entry in entries():
        pattern = ".*".join(re.escape(part) for part in GAP.split(entry))
        if len(words(entry)) > 2 and re.fullmatch(pattern, message):
            found.append(entry)
    return max(found, key=lambda entry: len(words(entry)), default=None)


class Place:
    """A folder with embedded raw data, a cache of some of it, and both command lines."""

    def __init__(self, folder: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        shutil.copytree(made, folder, dirs_exist_ok=True)

    def path(self, name: str) -> Path:
        return self.folder / name

    def fails(self, *arguments: object, tasks: bool = False) -> str:
        """What a command that must fail says on stderr."""
        code = (tasks_main if tasks else pipeline_main)([str(argument) for argument in arguments])
        said = self._capsys.readouterr().err
        assert code == 2, said
        return re.sub(r"^(error:|✗) ", "", said.strip())

    def convert(self, raw: str = "penn", name: str = "penn_action", split: str = "train", *more: object) -> str:
        return self.fails("convert", name, split, "--raw", self.path(raw), "--cache", self.path("new"), *more)

    def configured(self, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
        file = self.path("luigi.cfg")
        file.write_text(text)
        monkeypatch.setenv("LUIGI_CONFIG_PATH", str(file))
        return self.fails("plan")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """penn, posetrack, 3dpw, body; cache: penn_action/train with an invented stream."""
    folder = tmp_path_factory.mktemp("made")
    for name, raw, n_frames in (("penn_action", "penn", 3), ("posetrack", "posetrack", 10), ("amass", "amass", 300)):
        synthetic.write_dataset(name, folder / raw, n_videos=2, n_frames=n_frames)
    writing.write_body(folder / "body")
    arguments = ("convert", "penn_action", "train", "--raw", folder / "penn", "--cache", folder / "cache")
    assert pipeline_main([str(argument) for argument in arguments]) == 0
    rows = cache.open(folder / "cache")["penn_action/train"].tracks[-1].stop
    with cache.StreamWriter(folder / "cache", "penn_action/train", "resnet50", plan="other") as stream:
        stream.write(0, np.zeros((rows, 2048), np.float32), np.ones(rows), np.zeros((rows, 2), np.uint64))
        identity = {
            "kind": "resnet50",
            "precision": "fast",
            "version": 2,
            "weights": {"argument": "1", "kind": "untrained"},
        }
        stream.commit({"identity": identity, "stand_in": True})
    return folder


@pytest.fixture
def place(tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, made, capsys)


def label(place: Place) -> Path:
    return sorted(place.path("penn/labels").glob("*.mat"))[0]


def truncated(place: Place) -> str:
    label(place).write_bytes(label(place).read_bytes()[:60])
    return place.convert("penn", "penn_action", "train", "--strict")


def without_a_key(place: Place) -> str:
    held = {key: value for key, value in loadmat(label(place)).items() if key not in ("x",) and key[0] != "_"}
    savemat(label(place), held)
    return place.convert("penn", "penn_action", "train", "--strict")


def without_pictures(place: Place) -> str:
    shutil.rmtree(place.path("penn/frames"))
    return place.convert("penn", "penn_action", "train", "--strict")


def no_json(place: Place) -> str:
    file = next(place.path("posetrack").rglob("train/*.json"))
    file.write_text("<html>")
    return place.convert("posetrack", "posetrack", "train", "--strict")


def no_archive(place: Place) -> str:
    next(place.path("amass").rglob("*_poses.npz")).write_bytes(b"PK\x03\x04 and then nothing")
    return place.convert("amass", "amass", "train", "--strict")


def broken_manifest(place: Place) -> str:
    place.path("cache/penn_action/train/manifest.json").write_text("{")
    return place.fails("status", "--cache", place.path("cache"))


def a_body_that_is_no_pickle(place: Place) -> str:
    synthetic.write_dataset("3dpw", place.path("3dpw"), n_videos=1, n_frames=10)
    for file in place.path("body").glob("SMPL_NEUTRAL.*"):
        file.unlink()
    place.path("body/SMPL_NEUTRAL.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    return place.convert("3dpw", "3dpw", "train", "--body", place.path("body"))


def other_kind_of_body(place: Place) -> str:
    synthetic.write_dataset("3dpw", place.path("3dpw"), n_videos=1, n_frames=10)
    place.path("3dpw/STAND_IN.json").unlink()
    return place.convert("3dpw", "3dpw", "train", "--body", place.path("body"))


def a_checkpoint(place: Place, content: bytes) -> str:
    place.path("best.pt").write_bytes(content)
    return place.fails("evaluate", "--checkpoint", place.path("best.pt"), tasks=True)


def extract(place: Place, *more: object) -> str:
    return place.fails("extract", "penn_action", "train", "--cache", place.path("cache"), *more)


ERRORS: dict[str, Any] = {
    "no cache": lambda p: p.fails("status", "--cache", p.path("nowhere")),
    "no cache to clear": lambda p: p.fails("gc", "--cache", p.path("penn")),
    "an empty raw folder": lambda p: p.convert("nowhere"),
    "another dataset's raw folder": lambda p: p.convert("penn", "posetrack"),
    "no such split": lambda p: p.convert("penn", "penn_action", "validation"),
    "no body": lambda p: p.convert("penn", "3dpw", "train", "--body", p.path("nobody")),
    "a file where the cache belongs": lambda p: p.fails(
        "convert", "penn_action", "train", "--raw", p.path("penn"), "--cache", label(p)
    ),
    "a label file that is cut short": truncated,
    "a label file without a key": without_a_key,
    "no pictures": without_pictures,
    "a web page instead of JSON": no_json,
    "half an archive": no_archive,
    "a broken manifest": broken_manifest,
    "a hostile body": a_body_that_is_no_pickle,
    "a stand-in body with other data": other_kind_of_body,
    "a stream of other weights": lambda p: extract(p, "--weights", "untrained:0"),
    "weights of no kind": lambda p: extract(p, "--weights", "resnet:50"),
    "weights that are not there": lambda p: extract(p, "--weights", f"spin:{p.path('no.pt')}"),
    "weights that are no checkpoint": lambda p: extract(
        p, "--stream", "other", "--kind", "resnet50", "--weights", f"file:{label(p)}"
    ),
    "a stream of no kind": lambda p: extract(p, "--stream", "other", "--kind", "other", "--weights", "untrained:0"),
    "an export of no stream": lambda p: p.fails(
        *("export", "penn_action", "train", "--cache", p.path("cache"), "--format", "vibe"),
        *("--out", p.path("db.pt"), "--stream", "other"),
    ),
    "an import of a picture": lambda p: p.fails(
        *("import", next(p.path("penn").rglob("*.jpg")), "penn_action", "test", "--cache", p.path("new")),
        *("--format", "vibe"),
    ),
    "a track that is not there": lambda p: p.fails(
        *("show", "penn_action", "train", "--cache", p.path("cache"), "--out", p.path("x.html"), "--track", "9/9")
    ),
    "nothing to accept": lambda p: p.fails(
        *("accept", "penn_action/train", "--cache", p.path("new"), "--raw", p.path("penn"), "--because", "so")
    ),
    "a checkpoint that is not there": lambda p: p.fails("evaluate", "--checkpoint", p.path("no.pt"), tasks=True),
    "a checkpoint that is text": lambda p: a_checkpoint(p, b"not a checkpoint"),
    "a video that is not there": lambda p: p.fails(
        *("predict", p.path("no.mp4"), "--keypoints", p.path("k"), "--checkpoint", p.path("no.pt")),
        *("--out", p.path("out")),
        tasks=True,
    ),
}


@pytest.mark.parametrize("what", ERRORS)
def test_an_error_that_is_printed_is_on_the_page(what: str, place: Place) -> None:
    message = ERRORS[what](place)
    assert "This should not happen" not in message
    assert entry_of(message) is not None, message


PATHS = "[paths]\nraw = raw\nbody = body\ncache = cache\nruns = runs\n"
SETTINGS = {
    "an unknown key": f"{PATHS}[data]\ndatasets = amass\n[convert]\nwrokers = 2\n",
    "an unknown section": f"{PATHS}[data]\ndatasets = amass\n[covnert]\nworkers = 2\n",
    "a dataset that does not exist": f"{PATHS}[data]\ndatasets = amas\n",
    "a key twice": f"{PATHS}raw = other\n[data]\ndatasets = amass\n",
    "no section": "workers = 2\n",
    "a key that is missing": "[paths]\nraw = raw\n[data]\ndatasets = amass\n",
}


@pytest.mark.parametrize("what", SETTINGS)
def test_a_mistake_in_the_settings_is_on_the_page(what: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    message = place.configured(monkeypatch, SETTINGS[what])
    assert entry_of(message) is not None, message


def test_what_a_setting_must_be_is_on_the_page(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    message = place.configured(monkeypatch, f"{PATHS}[data]\ndatasets = amass\n[convert]\nworkers = two\n")
    assert message.endswith("workers = two: expected a whole number, 0 or more")
    assert {"a whole number", "‹in_words›, ‹least› or more"} <= set(entries())


# ------------------------------------------------------------------------------------- pages that quote messages


def quoted(page: Path) -> Iterator[str]:
    """The first cells of tables whose first column is `you see`, where they are code and nothing else."""
    inside = False
    for line in page.read_text().splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.startswith("| you see"):
            inside = True
        elif inside and (match := re.match(r"\| (`+) ?([^`].*?) ?\1 \|", line)):
            yield match[2].replace("\\|", "|")


@pytest.mark.parametrize("page", ["troubleshooting", *(f"datasets/{name}" for name in sorted(NAMES))])
def test_a_message_that_a_page_explains_is_one_of_ours(page: str) -> None:
    known = entries()
    fragments = list(quoted(ROOT / f"docs/{page}.md"))
    assert fragments
    for fragment in fragments:
        pattern = ".*".join(re.escape(part.strip()) for part in fragment.split("…") if part.strip())
        assert any(re.search(pattern, entry) for entry in known), f"docs/{page}.md: {fragment}"
