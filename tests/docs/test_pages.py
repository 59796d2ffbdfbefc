"""The pages' examples run, their links lead somewhere, and their settings are those of the code."""

import ast
import configparser
import dataclasses
import itertools
import re
from functools import cache as memo
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from markdown_it import MarkdownIt
from torch.utils.data import DataLoader

import cache
from docs import setting_keys
from pipeline import datasets
from pipeline.clips import detectors
from pipeline.commands.config import effective
from pipeline.datasets import RELEASES
from pipeline.features import streams
from pipeline.settings.file import LUIGI, Section
from pipeline.settings.schema import SECTION_TYPES
from pipeline.settings.sections import training_sections
from tasks import settings
from tasks.training import model_config
from tests.docs.markdown import DOCS, PAGES, ROOT, blocks, document, merged, name_of, tables
from tests.made_splits import track_of, write_split, write_stream
from vibe_model import models
from vibe_model.part_dynamics.pr_vipe.config import PR_VIPE
from vibe_model.sections import VIBE
from vibe_model.vibe.config import MPOSER

NOT_RUN = "python not run"  # language of blocks that are no whole programs


def sections(text):
    """Each `## heading` -> the text below it."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small cache in demo/cache, which the examples read."""
    folder, n = tmp_path_factory.mktemp("examples"), 40
    columns = {
        "frame_index": np.arange(n),
        "bbox": np.full((n, 4), 100, np.float32),
        "kp_2d": np.ones((n, 49, 3)),
    }
    videos = [(cache.VideoEntry(name="0001"), [track_of("0001/0", columns)])]
    write_split(folder / "demo/cache", "penn_action/train", videos, {})
    write_stream(
        folder / "demo/cache",
        "penn_action/train",
        "resnet50",
        lambda rows: np.zeros((n, 2048)),
        recorded={},
    )
    return folder


@pytest.mark.parametrize("file", DOCS, ids=name_of)
def test_every_example_runs_or_says_that_it_does_not(file, folder, monkeypatch):
    monkeypatch.chdir(folder)
    run_examples(file)


PICTURED = (
    "index", "look", "bodies", "predicting", "getting-started", "vibe", "exports",
    *(f"clips/{name}" for name in ("first-result", "grades", "identity", "detecting")),
    *(f"datasets/{name}" for name in RELEASES if name != "bedlam2"),
)  # fmt: skip


@pytest.mark.parametrize("name", PICTURED)
def test_a_page_of_something_that_one_sees_has_a_picture_with_words_for_it(name):
    pictures = re.findall(r"!\[(.*?)\]\((\S+\.jpg)\)", document(f"{name}.md"))
    assert pictures
    for words, file in pictures:
        assert len(words.split()) >= 8
        assert (ROOT / "docs" / name).parent.joinpath(file).stat().st_size < 150_000


CLIP = r"pictures/(try|detecting|identity|grades|bodies|player|demo)\."
SHOWING = [file for file in PAGES if re.search(CLIP, file.read_text())]


@pytest.mark.parametrize("file", [*SHOWING, ROOT / "docs/pictures/demo.html"], ids=name_of)
def test_whoever_sees_the_clip_reads_whose_it_is_and_finds_its_licence(file):
    text = file.read_text()
    assert "copyright (c) 2022, perfanalytics" in text
    (licence,) = set(re.findall(r"[(\"]([\w./]*sports2d-licence\.txt)", text))
    assert "Redistributions" in (file.parent / licence).read_text()


def test_windows_resume_at_the_same_sample(folder, monkeypatch):
    """By the permutation of the page."""
    monkeypatch.chdir(folder)
    page = ROOT / "docs/api/cache.md"
    names = run_examples(page)
    order, k = names["order"], names["k"]
    windows = cache.torch_windows(
        cache.open("demo/cache")["penn_action/train"], 4, 1, fields=["rows"]
    )
    starts = lambda loader: [row for batch in loader for row in batch["rows"][:, 0].tolist()]  # noqa: E731
    order = np.random.default_rng([0, 3]).permutation(len(windows))
    for n_workers in (0, 2):
        loader = DataLoader(windows, batch_size=4, sampler=order[k:], num_workers=n_workers)
        assert starts(loader) == windows.windows[order, 0].tolist()[k:]


def run_examples(file):
    names = {"__name__": "example"}  # a page's examples build on earlier ones
    text = file.read_text()
    for block in re.finditer(r"^```(py.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        line = text[: block.start(2)].count("\n")
        assert block[1] in ("python", NOT_RUN), (
            f"{file.name}, line {line}: say ```python, or ```{NOT_RUN}"
        )
        if block[1] == "python":
            exec(compile("\n" * line + block[2], file, "exec"), names)
    return names


@memo
def tokens(page):
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def links(page):
    """(path, anchor) of all links and images in this repository."""
    for token in (child for block in tokens(page) for child in block.children or ()):
        target = token.attrGet("href") or token.attrGet("src") or ""
        parts = urlsplit(str(target))
        if target and not parts.scheme:
            yield unquote(parts.path), parts.fragment


@memo
def anchors(page):
    """GitHub's anchors of headings: lower case, no punctuation, "-" for spaces, "-1" for a second
    one of the name.
    """
    found = set()
    blocks = tokens(page)
    for before, block in itertools.pairwise(blocks):
        if before.type == "heading_open":
            text = "".join(
                child.content
                for child in block.children or ()
                if child.type in ("text", "code_inline")
            )
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            taken = next(
                number
                for number in range(1000)
                if (f"{slug}-{number}" if number else slug) not in found
            )
            found.add(f"{slug}-{taken}" if taken else slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page):
    for place, anchor in links(page):
        target = (page.parent / place).resolve() if place else page
        assert target.is_relative_to(ROOT), f"{place} lies outside"
        assert target.exists(), f"there is no {place}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{place}#{anchor}: no such heading"


def named_in(file):
    """The pages that texts of a module name, but docstrings: (path, anchor)."""
    text = file.read_text()
    nodes = [*ast.walk(ast.parse(text if "docs/" in text else ""))]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield from re.findall(r"(docs/[\w/-]+\.md)(?:#([\w-]+))?", node.value)


def test_every_page_that_a_message_names_exists_with_its_heading_and_has_one_constant():
    packages = ("cache", "pipeline", "tasks", "vibe_model")
    modules = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    named = {name_of(file): found for file in modules if (found := [*named_in(file)])}
    targets = [target for found in named.values() for target in found]
    assert len(targets) > 15
    assert [path for path, _ in targets if not (ROOT / path).is_file()] == []
    missing = [(path, heading) for path, heading in targets if heading not in anchors(ROOT / path)]
    assert [one for one in missing if one[1]] == []
    # these know nothing of the pipeline's constants, and `as_called` only asks for a clone
    alone = {"cache/errors.py", "vibe_model/stand_in.py", "pipeline/cli/text.py"}
    assert named.keys() - alone == {"pipeline/cli/pages.py"}
    constants = named["pipeline/cli/pages.py"]
    assert len(constants) == len(set(constants))


@pytest.mark.parametrize("page", ["decisions.md", "architecture.md"])
def test_every_file_that_a_page_about_the_code_names_exists(page):
    named = re.findall(r"`([\w./]+(?:/|\.py))`", document(page))
    assert len(named) > 10
    assert [file for file in named if not (ROOT / file).exists()] == []


@memo
def options():
    """Each dataset with options -> their keys."""
    keys = {
        name: [*setting_keys.keys_of(type(datasets.get(name)))]
        for name in (*RELEASES, *datasets.OWN_CLIPS)
    }
    return {name: found for name, found in keys.items() if found}


def test_every_section_is_in_the_table_of_sections_and_among_the_generated_ones():
    known = {*SECTION_TYPES, *options(), *streams.names(), *detectors.names(), *training_sections()}
    without_keys = {
        name for name in detectors.names() if not dataclasses.fields(detectors.find(name))
    }
    rows = tables(sections(document("settings.md"))["Sections"], "section")
    difference = {row["section"].strip("[]") for row in rows} ^ (known - without_keys)
    assert not difference, "the table of sections in docs/settings.md has a row too many or too few"
    assert set(setting_keys.sections()) == known - without_keys
    assert "```{settings}" in document("settings.md")


def test_every_key_has_a_meaning_and_its_default_where_settings_are_generated():
    for section, keys in {**setting_keys.sections(), "crop": setting_keys.crop_words()}.items():
        assert [key.name for key in keys if len(key.about) < 4] == [], section
        assert all(key.default and not set("`") & set(key.default) for key in keys), section
        numbers = [key for key in keys if re.fullmatch(r"[\d.e-]+", key.default)]
        ranges = (f"{key.about}, {key.limits}" for key in numbers)
        wanted = re.compile(r"\d to |\bover \d|at least \d|whole number|; 0:")
        assert [text for text in ranges if not wanted.search(text)] == [], section


@pytest.mark.parametrize(
    "training", [*models.every(), MPOSER, PR_VIPE], ids=lambda training: training.section
)
def test_every_key_of_a_training_has_the_values_of_its_presets(training):
    keys = {key.name: key for key in setting_keys.sections()[training.section]}
    assert keys["preset"].choices == tuple(training.presets)
    assert set(keys) - {"preset", "variant", "baseline", "report"} == set(training.settable)
    for name, preset in training.presets.items():
        texts = {key: keys[key].presets.get(name, keys[key].default) for key in training.settable}
        texts = {key: "" if text == "(empty)" else text for key, text in texts.items()}
        read = Section(ROOT / "luigi.cfg", training.section, texts).parse(training.config)
        assert read == {key: getattr(preset(), key) for key in training.settable}, name


def test_every_setting_that_a_page_names_exists(tmp_path):
    paths = (
        "[paths]\nraw = raw\nbody = body\ncache = cache\nruns = runs\n[data]\ndatasets = videos\n"
    )
    (tmp_path / "luigi.cfg").write_text(paths)
    known = {(one.section, one.key) for one in effective(settings.load(tmp_path / "luigi.cfg"))}
    known |= {(name, key.name) for name, keys in options().items() for key in keys}
    known |= {
        (kind, field.name)
        for kind in streams.names()
        for field in dataclasses.fields(streams.find(kind))
    }
    named = re.compile(r"`\[(\w+)\](?:` `| )(\w+)(?: = [^`]*)?`")
    used = {
        (page.name, *found)
        for page in PAGES
        for found in named.findall(page.read_text())
        if found[0] not in LUIGI
    }
    assert len(used) > 30
    assert sorted(one for one in used if one[1:] not in known) == []


def test_what_luigi_cfg_sets_of_luigi_itself_is_there():
    shipped = configparser.ConfigParser(interpolation=None)
    shipped.read(ROOT / "luigi.cfg")
    ours = [
        (f"[{name}]", *item)
        for name in shipped.sections()
        if name in LUIGI
        for item in shipped[name].items()
    ]
    section = sections(document("settings.md"))["Luigi's own sections"]
    assert [
        (row["section"], row["key"], row["set to"]) for row in tables(section, "section")
    ] == ours
    assert (
        set(re.findall(r"`\[(\w+)\]`", section.partition("\n\n")[0] + section.partition("\n\n")[2]))
        >= LUIGI
    )


def test_the_luigi_cfg_of_getting_started_is_one(tmp_path, monkeypatch):
    shown, *_ = blocks("ini", document("getting-started.md"))
    (tmp_path / "luigi.cfg").write_text(merged((ROOT / "luigi.cfg").read_text(), shown))
    (tmp_path / "model_checkpoint.pt").touch()
    read = settings.load(tmp_path / "luigi.cfg")
    monkeypatch.setattr("tasks.training.settings", lambda: read)
    assert read.data.datasets == ("penn_action", "3dpw", "amass")
    wanted = {"penn_action/train", "3dpw/train", "amass/train", "3dpw/validation", "3dpw/test"}
    assert set(model_config(VIBE).splits) == wanted
