"""A change tells what it forgets: a line in the table, a page, a test, a version to raise; and its
file in `changes` has one line.
"""

import argparse
import hashlib
import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from pipeline import plug_ins, table
from pipeline.clips.detectors import Detector
from pipeline.datasets.base import Dataset
from pipeline.extras.exchange.formats import ExportFormat
from pipeline.features.streams.base import Stream
from pipeline.files.raw import files
from pipeline.files.raw.files import HASHED_WHOLE, MIB
from tests import shared_code
from tests.docs.markdown import ROOT, document, tables
from tests.environments import git, run
from tests.source_code import modules
from vibe_model import models
from vibe_model.evaluation.protocols import PROTOCOLS
from vibe_model.metrics import METRICS
from vibe_model.models import Model

CODE = {module: file.read_text() for module, file in sorted(modules().items())}
WRITES_FILES = (
    r"write_aside|write_atomic|write_page|write_json|video_writer|replace_file|write_text"
    r"|write_bytes|\.open\(\"[wax]"
)
TESTS = "".join(
    file.read_text() for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__)
)
# group of the table -> what it registers, the pages that tell of it
KINDS = {
    "vibe_pipeline.datasets": (Dataset, "datasets.md"),
    "vibe_pipeline.streams": (Stream, "features.md"),
    "vibe_pipeline.detectors": (Detector, "clips/detecting.md"),
    "vibe_pipeline.exports": (ExportFormat, "exports.md"),
    "vibe_pipeline.models": (Model, "settings.md"),
}
PAGE_OF = {"part_dynamics": "part-dynamics.md"}
REGISTERED = [(group, name) for group in KINDS for name in table.OWN[group]]


@pytest.mark.parametrize(("group", "name"), REGISTERED, ids=lambda text: text.split(".")[-1])
def test_what_is_registered_has_a_page_and_a_test(group, name):
    page = KINDS[group][1]
    text = document(page)
    assert re.search(rf"[`\[/_]{name}\b", text), f"docs/{page} says nothing about {name}"
    target = table.OWN[group][name].partition(":")[2]
    assert re.search(rf"""(?:["'/]|--format ){name}\b|\b{target}\b""", TESTS), (
        f"no test names {name}"
    )


@pytest.mark.parametrize("group", KINDS)
def test_what_could_be_registered_is(group):
    """Records of a module, and classes with a name of their own."""
    kind = KINDS[group][0]
    listed = [plug_ins.load(target) for target in table.OWN[group].values()]
    missing = []
    for module_name, text in CODE.items():
        if kind.__name__ not in text and f"{group.rpartition('.')[2]}." not in text:
            continue
        module = importlib.import_module(module_name)
        for name, value in vars(module).items():
            if isinstance(value, kind) or is_named_class(value, kind):
                if not any(value is one for one in listed):
                    missing.append(f"{module.__name__}:{name}")
    assert missing == [], f"add them to pipeline/table.py, {group}"


@pytest.mark.parametrize("kind", ["datasets", "streams", "detectors"])
def test_what_is_registered_has_a_record_and_nothing_else_has(kind):
    recorded = {file.stem for file in (ROOT / "tests/golden" / kind).glob("*.json")}
    ours = {*table.OWN[f"vibe_pipeline.{kind}"]}
    assert ours == recorded, (
        "pytest --rewrite-golden tests/test_options.py; delete records of others"
    )


def test_no_transcript_shows_what_another_one_shows():
    """A dozen words in two of tests/golden/*.txt: whoever changes them would change both. A test of
    transcripts names what it leaves to another one, as tests/pipeline/cli/test_printed.py does.
    """
    shown = {}
    twice = []
    for file in sorted((ROOT / "tests/golden").glob("*.txt")):
        for line in file.read_text().splitlines():
            if line.startswith("$ "):
                continue
            text = line.partition("python -m")[0]  # a command that is proposed
            words = re.sub(r"\d+", "N", text).split()
            for start in range(len(words) - 11):
                part = " ".join(words[start : start + 12])
                first = shown.setdefault(part, file.name)
                if first != file.name:
                    twice.append(f"{first}, {file.name}: {part}")
    assert len(shown) > 500
    assert twice == []


def is_named_class(value, kind):
    if not isinstance(value, type) or not issubclass(value, kind):
        return False
    return any(isinstance(vars(value).get(key), str) for key in ("name", "kind"))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_a_page_and_a_test(name):
    pages = "".join(document(page) for page in ("vibe.md", "hmmr.md", "getting-started.md"))
    title = METRICS[name].title
    assert f"`{name}`" in pages or title.lower() in pages.lower(), "no page tells of it"
    assert f'"{name}"' in TESTS, "no test names it"


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_of_the_protocols_that_it_names(name):
    assert METRICS[name].protocols
    for protocol in METRICS[name].protocols:
        assert name in PROTOCOLS[protocol].metrics


@pytest.mark.parametrize("model", models.every(), ids=lambda model: model.section)
def test_the_losses_of_a_model_are_those_of_its_page(model):
    page = document(PAGE_OF.get(model.section, f"{model.section}.md"))
    told = [name for row in tables(page, "term") for name in re.findall(r"\w+", row["term"])]
    terms = model.presets[model.preset]().TERMS
    assert [name for name in terms if name not in told] == [], "they have no weight on its page"


@pytest.mark.parametrize("model", models.every(), ids=lambda model: model.section)
def test_the_choices_of_a_model_s_settings_are_on_a_page(model):
    pages = {PAGE_OF.get(model.section, f"{model.section}.md"), "vibe.md", "settings.md"}
    told = {*re.findall(r"\w+", " ".join(document(page) for page in sorted(pages)))}
    for name, kind in get_type_hints(model.config).items():
        if get_origin(kind) is Literal:
            for word in (name, *get_args(kind)):
                assert word in told, f"[{model.section}] {name}: no page tells of {word!r}"


def test_every_command_is_in_the_table():
    listed = {entry.module for names in table.COMMANDS.values() for entry in names.values()}
    having = {
        module for module, text in CODE.items() if re.search(r"^COMMAND\b.*= ", text, re.MULTILINE)
    }
    assert having == listed


@pytest.mark.promise("inputs")
@pytest.mark.parametrize(
    ("program", "name"), [(main, name) for main, names in table.COMMANDS.items() for name in names]
)
def test_a_command_that_writes_files_has_a_rule_for_them(program, name):
    entry = table.COMMANDS[program][name]
    (commands,) = (
        action
        for action in importlib.import_module(f"{program}.__main__").parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    commands.choices[name].format_help()  # adds its options
    options = {action.dest for action in commands.choices[name]._actions}
    source = Path(importlib.import_module(entry.module).__file__).read_text()
    if entry.writes == "nothing":
        assert not options & {"out", "overwrite"}, f"{name} --out: which rule has it?"
        assert not re.search(WRITES_FILES, source), f"{entry.module}: which rule has its file?"
    assert ("overwrite" in options) == (entry.writes == "output")
    assert entry.writes != "output" or "OutputRule" in source


def test_every_version_is_on_the_page_of_versions_to_raise():
    page = document("architecture.md").partition("## Versions to raise")[2]
    having = [
        str(modules()[module].relative_to(ROOT))
        for module, text in CODE.items()
        if re.search(r"^VERSION\b.*= ", text, re.MULTILINE)
    ]
    assert len(having) > 5
    assert [file for file in having if f"`{file}`" not in page] == []


@pytest.mark.parametrize("name", shared_code.FILES)
def test_shared_code_is_as_recorded_or_its_version_is_raised(name):
    """Whoever changes it says whether results are equal."""
    version = shared_code.version_of(name)
    recorded = shared_code.record_of(name).value or {"version": version, "files": {}}
    changed = shared_code.changes(recorded["files"], shared_code.digests(name))
    users = ", ".join(one.name for one in shared_code.members() if name in one.uses)
    record = f"`python -m tests.shared_code {name}` records it"
    assert changed == [] or version != recorded["version"], (
        f"{', '.join(changed)}: shared code of {users}. If the same input may give other results, "
        f"raise uses[{name!r}] in {shared_code.place_of(name)}, or `version` of those whose results "
        f"change. Then, or if all results are equal, {record}."
    )
    assert (changed, version) == ([], recorded["version"]), f"the version is raised: {record}."


MEMBERS = [*shared_code.members()]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_shared_code_is_declared_by_those_who_use_it(member):
    """Else their data would not be made again when its version is raised."""
    names = shared_code.names_of(member.kind)
    used = {}
    for file in member.files():
        used.setdefault(shared_code.owner(file, names), []).append(file)
    used.pop(None, None)
    for name, found in used.items():
        assert name in member.uses, f"`uses` of {member.definition} has no {name!r}: {found}"
    assert member.uses.keys() <= used.keys(), f"{member.definition} does not use all of its `uses`"


def test_a_file_that_two_use_is_shared_code():
    users = {}
    for member in MEMBERS:
        for file in member.files():
            users.setdefault(file, {})[member.module] = member.kind
    for file, kinds in users.items():
        if len(kinds) > 1 and file.startswith("pipeline/"):
            for kind in {*kinds.values()}:
                plain = (*shared_code.PLAIN, *shared_code.OPENS_WEIGHTS[kind])
                shared = shared_code.owner(file, shared_code.names_of(kind))
                assert shared or any(shared_code.holds(place, file) for place in plain), (
                    f"{file}: add it to FILES of tests/shared_code.py, for {kind}"
                )


ABOUT_DATA = ("again", "carried over", r"\d (?:second|minute|hour|day)s?\b")


def wrong_form(file):
    """What is wrong with the file of a change, or ""."""
    if not re.fullmatch(r"[\w-]+\.(?:new|fix|data)", file.name):
        return f"{file.name} is not NAME.new, NAME.fix or NAME.data"
    text = file.read_text()
    if not re.fullmatch(r"\S.*\.\n", text):
        return f"{file.name} is not one line that ends with a full stop"
    missing = [words for words in ABOUT_DATA if not re.search(words, text)]
    if file.suffix == ".data" and missing:
        return f"{file.name} has no {missing[0]!r}"
    return ""


def test_every_change_is_a_file_of_one_line():
    files = [file for file in (ROOT / "changes").iterdir() if file.name != "__pycache__"]
    wrong = [wrong_form(file) for file in files if file.name != "show.py"]
    assert [text for text in wrong if text] == [], "CONTRIBUTING.md, Changes, says how"


def test_a_change_of_another_form_is_told(tmp_path):
    data = "penn_action: read again (4 minutes); features of equal rows are carried over.\n"
    for name, text in {"a.new": "One.\n", "a-b.fix": "Two.\n", "c.data": data}.items():
        (tmp_path / name).write_text(text)
        assert not wrong_form(tmp_path / name)
    wrong = {"a.txt": "One.\n", "a b.new": "One.\n", "two.new": "One.\nTwo.\n", "a.fix": ""}
    wrong |= {"open.new": "One.", "short.data": "penn_action is read again.\n"}
    for name, text in wrong.items():
        (tmp_path / name).write_text(text)
        assert name in wrong_form(tmp_path / name)


def test_changes_are_printed_by_the_day_of_their_commit(tmp_path):
    folder = tmp_path / "changes"
    folder.mkdir()
    shutil.copy(ROOT / "changes/show.py", folder)
    git(folder, "init", "-q")
    added = [("2026-01-09", "b.new", "B is new"), ("2026-01-09", "a.fix", "A is right")]
    for day, name, text in [*added, ("2026-03-02", "a.data", "C is read again")]:
        (folder / name).write_text(f"{text}.\n")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "One", GIT_AUTHOR_DATE=f"{day}T12:00:00")
    (folder / "b.new").write_text("B is new, and larger.\n")
    git(folder, "commit", "-qam", "A later day")
    assert run([sys.executable, folder / "show.py"], folder).stdout == (
        "## 2026-03-02\n\n- Computed again: C is read again.\n\n"
        "## 2026-01-09\n\n- New: B is new, and larger.\n- Fixed: A is right.\n\n"
    )


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_the_digests_of_files_are_those_of_earlier_conversions(tmp_path):
    """With others, every video counts as changed, and its features are computed again. If that is
    meant: change this test, and say so in a file `changes/NAME.data`.
    """
    content = np.random.default_rng(0).bytes(HASHED_WHOLE + 12345)
    size = len(content)
    middle = (size - MIB) // 2
    probes = content[:MIB] + content[middle : middle + MIB] + content[-MIB:]
    contents = {"large.mp4": content, "large.npz": content, "small.mp4": content[:999]}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    expected = {name: sha256(data) for name, data in contents.items()}
    expected["large.mp4"] = sha256(f"probed {size}".encode() + probes)
    assert {name: files.file_digest(tmp_path / name) for name in contents} == expected
    assert files.whole_file_digest(tmp_path / "large.mp4") == sha256(content)
    assert files.span_digest(tmp_path / "large.npz", 5, 5 + 2 * MIB) == sha256(
        content[5 : 5 + 2 * MIB]
    )
    sizes = [(name, len(data)) for name, data in sorted(contents.items())]
    digests = [(name, sha256(data)) for name, data in sorted(contents.items())]
    assert files.folder_digest(tmp_path) == sha256(repr(sizes).encode())
    assert files.contents_digest(tmp_path) == sha256(repr(digests).encode())
