"""docs/ says what the code does: its examples run, and its lists of reasons and settings are the code's own."""

import ast
import configparser
import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline import datasets, streams
from pipeline.__main__ import parser
from pipeline.accounting import VideoAccount
from pipeline.datasets.release import Totals
from pipeline.errors import RawDataError
from pipeline.extraction import decoders
from pipeline.parsing import typed
from pipeline.sections import TYPES
from tasks import settings
from tasks.settings import OF_TRAINING
from tasks.training import train_config
from vibe_model import mposer_config
from vibe_model.config import PRESETS, TrainConfig
from vibe_model.variants import VARIANTS

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
NOT_RUN = "python not run"  # what a block says that is no whole program

# The files of pipeline/ whose errors end in a video's account, by the dataset whose page explains them.
READERS = {
    name: {f"datasets/{place.partition(':')[0].rpartition('.')[2]}.py"} for name, place in datasets.DATASETS.items()
}
SHARED = {
    "datasets/base.py",
    "datasets/arrays.py",
    "datasets/detections.py",
    "datasets/cdf.py",
    "datasets/h36m_files.py",
    "datasets/h36m_fits.py",
    "datasets/h36m_metadata.py",
    "datasets/h36m_poses.py",
    "datasets/json_files.py",
    "datasets/mat5.py",
    "datasets/posetrack_labels.py",
    "datasets/hdf5.py",
    "datasets/mpi_inf_3dhp_labels.py",
    "datasets/mpi_inf_3dhp_release.py",
    "datasets/pixels.py",
    "datasets/release.py",
    "frames.py",
    "convert.py",
    "record_frames.py",
}


def document(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def sections(text: str) -> dict[str, str]:
    """Heading -> what stands below it, of every `## heading`."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def tables(text: str, first: str) -> Iterator[dict[str, str]]:
    """The rows, by column, of every table whose first column is called `first`; without back-quotes."""
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            header = []
        elif not header:
            header = [cell.strip("`") for cell in cells]
        elif header[0] == first and not set(line) <= set("|-"):
            assert len(cells) == len(header), line
            yield {name: cell.strip("`") for name, cell in zip(header, cells, strict=True)}


# ---------------------------------------------------------------------------------------------------- examples


def blocks(text: str) -> list[tuple[str, int, str]]:
    """(what stands behind the three back-quotes, line number, code) of every block of Python."""
    found = re.finditer(r"^```(py.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    return [(match[1].strip(), text[: match.start(2)].count("\n"), match[2]) for match in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small cache in data/cache, as the examples expect it."""
    folder = tmp_path_factory.mktemp("examples")
    n_rows = 40
    columns: dict[str, np.ndarray[Any, Any]] = {
        "frame_index": np.arange(n_rows),
        "bbox": np.full((n_rows, 4), 100, np.float32),
        "kp_2d": np.ones((n_rows, 49, 3), np.float32),
    }
    track = cache.TrackRows(name="0001/0", video="0001", step=1, fps=25.0, crop_scale=1.3, columns=columns)
    with cache.SplitWriter(folder / "data/cache", "penn_action/train", columns=columns, plan="example") as writer:
        writer.begin()
        writer.append(cache.VideoEntry(name="0001"), [track])
        writer.commit({})
    with cache.StreamWriter(folder / "data/cache", "penn_action/train", "resnet50", plan="example") as stream:
        keys = np.zeros((n_rows, 2), np.uint64)
        stream.write(0, np.zeros((n_rows, 2048), np.float32), np.ones(n_rows), keys)
        stream.commit({})
    return folder


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.relative_to(ROOT / "docs").as_posix())
def test_every_example_runs_or_says_that_it_does_not(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "example"}  # a page's examples follow one another
    for said, line, code in blocks(file.read_text()):
        assert said in ("python", NOT_RUN), f"{file.name}, line {line}: say ```python, or ```{NOT_RUN}"
        if said == "python":
            exec(compile("\n" * line + code, file, "exec"), names)


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.relative_to(ROOT / "docs").as_posix())
def test_every_link_to_a_file_leads_to_one(file: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text()):
        if "://" not in target:
            assert (file.parent / target).exists(), f"{file.name} links to {target}"


# ----------------------------------------------------------------------------------------------------- reasons


class Reasons(ast.NodeVisitor):
    """Every reason under which a file of the pipeline counts something out."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: set[str] = set()
        self.constants = {
            node.target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        }
        self.visit(tree)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("drop", "drop_track", "put_aside"):
            self._add(node.args[0])
        if called == "RawDataError":
            given = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            self._add(given[0] if given else ast.Constant(default_reason()))
        self.generic_visit(node)

    def _add(self, reason: ast.expr) -> None:
        match reason:
            case ast.Constant(value=str(name)):
                self.found.add(name)
            case ast.Name(id=name) if name in self.constants:
                self.found.add(self.constants[name])
            case ast.Name(id="reason") | ast.Attribute(attr="reason"):
                pass  # a key of a dict called `reasons`, or an error that was counted where it is raised
            case _:
                raise AssertionError(f"line {reason.lineno}: this test cannot tell which reason it is")

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Dict):
            self._add_keys(node.targets[0], node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.value, ast.Dict):
            self._add_keys(node.target, node.value)
        self.generic_visit(node)

    def _add_keys(self, target: ast.expr, reasons: ast.Dict) -> None:
        if isinstance(target, ast.Name) and target.id == "reasons":
            for key in reasons.keys:
                assert key is not None
                self._add(key)


def default_reason() -> str:
    return RawDataError(Path("f"), "key", expected="a", found="b", do="c").reason


def reasons_in(files: set[str]) -> set[str]:
    return set().union(*(Reasons(ast.parse((ROOT / "pipeline" / file).read_text())).found for file in files))


def told_reasons(page: str) -> set[str]:
    return {row["reason"] for row in tables(document(page), "reason")}


def test_every_reader_is_looked_at() -> None:
    assert {f"datasets/{file.name}" for file in (ROOT / "pipeline/datasets").glob("*.py")} <= {
        *set().union(*READERS.values()),
        *SHARED,
        "datasets/__init__.py",
    }


@pytest.mark.parametrize("name", READERS)
def test_a_dataset_s_reasons_are_explained_on_its_page(name: str) -> None:
    told = told_reasons(f"datasets/{name}.md")
    assert reasons_in(READERS[name]) - told_reasons("datasets.md") <= told
    assert told <= reasons_in(READERS[name] | SHARED)


def test_the_reasons_that_are_explained_are_those_that_exist() -> None:
    told = set().union(*map(told_reasons, ["datasets.md", *(f"datasets/{name}.md" for name in READERS)]))
    assert told == reasons_in(SHARED.union(*READERS.values()))


def test_the_problems_that_are_explained_are_those_that_exist() -> None:
    exist = {decoders.HUNG, decoders.CRASHED, decoders.AFTER}
    for file in ("frames.py", "pictures.py", "record_frames.py", "extraction/pieces.py"):
        for node in ast.walk(ast.parse((ROOT / "pipeline" / file).read_text())):
            match node:
                case ast.Call(func=ast.Name(id="PictureError"), args=[ast.Constant(value=kind), *_]):
                    exist.add(kind)
                case ast.Call(func=ast.Name(id="Frame"), args=[_, _, _, ast.Constant(value=kind)]):
                    exist.add(kind)
                case ast.Call(func=ast.Name(id="Shown"), args=[_, _, ast.Constant(value=kind)]):
                    exist.add(kind)
                case ast.Assign(targets=[ast.Name(id="kind")], value=ast.Constant(value=kind)):
                    exist.add(kind)
                case ast.Assign(
                    targets=[ast.Tuple(elts=[_, ast.Name(id="kind")])],
                    value=ast.Tuple(elts=[_, ast.Constant(value=kind)]),
                ):
                    exist.add(kind)
    section = sections(document("datasets.md"))["Frames that cannot be decoded"]
    assert {row["problem"] for row in tables(section, "problem")} == exist


@pytest.mark.parametrize("row", list(tables(document("datasets.md"), "name")), ids=lambda row: row["name"])
def test_the_list_of_datasets_is_the_registry_s(row: dict[str, str]) -> None:
    dataset = datasets.get(row["name"])
    assert row["splits"] == ", ".join(dataset.splits)
    assert ("none" in row["pictures"]) is not dataset.has_pixels
    options = [field.name for field in dataclasses.fields(dataset)]
    assert row["options in `luigi.cfg"] == (f"[{row['name']}] {' '.join(options)}" if options else "none")


def test_no_dataset_is_left_out() -> None:
    rows = list(tables(document("datasets.md"), "name"))
    assert [row["name"] for row in rows] == list(datasets.DATASETS)
    for row in rows:
        assert row["its page"] == f"[{row['name']}](datasets/{row['name']}.md)"
        page = document(f"datasets/{row['name']}.md")
        assert re.sub(r"^https?://", "", datasets.get(row["name"]).page).rstrip("/") in page


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_a_dataset_s_page_has_the_release_s_numbers(name: str) -> None:
    def told(n: int | None) -> str:
        return "not known" if n is None else f"{n:,}"

    totals = datasets.get(name).totals
    parts = [*datasets.get(name).splits, *(["all"] if "all" in totals else [])]
    rows = {row["split"]: row for row in tables(document(f"datasets/{name}.md"), "split")}
    assert list(rows) == parts
    for split in parts:
        known = totals.get(split, Totals())
        assert (rows[split]["videos"], rows[split]["person-frames"]) == (told(known.videos), told(known.frames))


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_a_dataset_s_page_says_what_doctor_looks_for(name: str) -> None:
    rows = list(tables(document(f"datasets/{name}.md"), "part"))
    parts = datasets.get(name).parts
    assert [row["part"] for row in rows] == [part.what for part in parts]
    for row, part in zip(rows, parts, strict=True):
        assert re.split("`? or `?", row["where"]) == list(part.shown or part.patterns)
        assert row["of the download"] == part.source
        assert row["in the release"] == ("not known" if part.known is None else f"{part.known:,}")
        assert row["needed"] == (f"no; without it: {part.without}" if part.without else "yes")


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_a_dataset_s_commands_are_understood(name: str) -> None:
    page = sections(document(f"datasets/{name}.md"))
    commands = re.findall(r"^ +\S+ -m pipeline (.*)$", page["Commands"], re.MULTILINE)
    used = [parser().parse_args(shlex.split(words)) for words in commands]
    assert {args.split for args in used if args.command == "convert"} == set(datasets.get(name).splits)
    assert {"doctor", "convert", "show", "status"} <= {args.command for args in used}
    assert "When it goes wrong" in page


def test_the_keys_of_an_account_are_those_that_are_written() -> None:
    told = document("cache-format.md").partition("the pipeline writes `name`")[2].partition("`found` = `kept`")[0]
    assert ["name", *re.findall(r"`(\w+)`", told)] == list(VideoAccount("a video").as_dict())


# ---------------------------------------------------------------------------------------------------- settings

OWN = TYPES  # section -> its dataclass
OPTIONS = {name: type(datasets.get(name)) for name in datasets.DATASETS if dataclasses.fields(datasets.get(name))}
OPTIONS |= {name: streams.find(name) for name in streams.STREAMS if name != "resnet50"}  # whose are in [features]


def told_settings(section: str) -> dict[str, dict[str, str]]:
    rows = list(tables(sections(document("settings.md"))[f"`[{section}]`"], "key"))
    by_key = {row["key"].removesuffix(" *").strip("`"): row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def value(spec: Any, key: str, text: str) -> Any:
    return typed(ROOT / "luigi.cfg", "any", {key: text}, spec)[key]


def test_every_section_is_there() -> None:
    told = re.findall(r"^## `\[(\w+)\]`$", document("settings.md"), re.MULTILINE)
    assert sorted(told) == sorted([*OWN, *OPTIONS, "train", "mposer"])


@pytest.mark.parametrize("section", [*OWN, *OPTIONS])
def test_every_setting_is_there_with_its_default(section: str) -> None:
    spec: Any = {**OWN, **OPTIONS}[section]
    told = told_settings(section)
    assert list(told) == [field.name for field in dataclasses.fields(spec)]
    for field in dataclasses.fields(spec):
        if field.default is dataclasses.MISSING:
            assert told[field.name]["default"] == "required"
        else:
            assert value(spec, field.name, told[field.name]["default"]) == field.default, field.name


def test_every_setting_of_training_is_there_with_the_presets_values() -> None:
    told = told_settings("train")
    own = {key: told.pop(key) for key in settings.OF_TRAIN}
    assert own["preset"]["default"] == "published"
    assert all(f"`{name}`" in own["preset"]["meaning"] for name in PRESETS)
    assert all(f"`{name}`" in own["variant"]["meaning"] for name in VARIANTS)
    elsewhere = {"cache", "runs", "body", "stream"}
    assert set(told) == {field.name for field in dataclasses.fields(TrainConfig)} - elsewhere
    for key, row in told.items():
        for preset in ("published", "embedded"):
            assert value(TrainConfig, key, row[preset]) == getattr(PRESETS[preset](), key), f"{key} of {preset}"


def test_every_setting_of_the_motion_prior_is_there_with_the_presets_values() -> None:
    told = told_settings("mposer")
    assert all(f"`{name}`" in told["preset"]["meaning"] for name in mposer_config.PRESETS)
    told.pop("preset")
    elsewhere = {*OF_TRAINING, "motion"}
    assert set(told) == {field.name for field in dataclasses.fields(mposer_config.MPoserConfig)} - elsewhere
    for key, row in told.items():
        for preset, make in mposer_config.PRESETS.items():
            found = value(mposer_config.MPoserConfig, key, row[preset])
            assert found == getattr(make(), key), f"{key} of {preset}"


def test_a_setting_of_training_that_is_told_elsewhere_is_refused_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("cache", "runs", "body", "stream"):
        file = tmp_path / f"{key}.cfg"
        paths = "[paths]\nraw = raw\nbody = body\ncache = cache\nruns = runs\n[data]\ndatasets = amass\n"
        file.write_text(f"{paths}[train]\npreset = embedded\n{key} = x\n")
        monkeypatch.setattr("tasks.training.settings", lambda file=file: settings.load(file))
        with pytest.raises(Exception, match=rf"\[train\] {key}: is set in"):
            train_config()


def test_what_luigi_cfg_sets_of_luigi_itself_is_there() -> None:
    shipped = configparser.ConfigParser(interpolation=None)
    shipped.read(ROOT / "luigi.cfg")
    ours = [
        (f"[{name}]", *item) for name in shipped.sections() if name in settings.LUIGI for item in shipped[name].items()
    ]
    section = sections(document("settings.md"))["Luigi's own sections"]
    assert [(row["section"], row["key"], row["set to"]) for row in tables(section, "section")] == ours
    assert (
        set(re.findall(r"`\[(\w+)\]`", section.partition("\n\n")[0] + section.partition("\n\n")[2])) >= settings.LUIGI
    )
