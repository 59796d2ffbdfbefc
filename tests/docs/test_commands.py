"""All commands in the documentation exist and accept their arguments; those of README.md run."""

import contextlib
import functools
import importlib.util
import io
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import TaskClassException

import pipeline.__main__
import tasks.__main__
from tests.docs.markdown import PAGES, ROOT, merged, name_of

STARTS = re.compile(r"(?:[A-Z_]+=\S+ )*(make |\.venv/bin/|luigi --|python -m |vibe-pipeline )")
BESIDE = re.compile(r"\s{3,}\S.*$")  # an explanation beside a command
CODE = re.compile(r"`([^`\n]+)`")  # within a line
PARSERS = {"pipeline": pipeline.__main__.parser, "tasks": tasks.__main__.parser}
# of other projects
PROGRAMS = {"dask", "dask cuda", "luigid", "pip", "sphinx-build", "torchrun", "tensorboard"}

# Commands in the pages below that the test at the end does not run, and why.
NOT_RUN = {
    "make test": "runs these tests",
    "make check": "runs these tests",
    "make try": "downloads 93 MB; tests/pipeline/extras/bodies/test_try.py runs it where it can",
    "make docs": "tests/docs/test_built_site.py builds them",
    "spin:model_checkpoint.pt": "wants SPIN's checkpoint, which may not be distributed",
    "data/mine": "wants a user's videos, and downloads weights",
}
RUN = {"README.md": 1, "docs/getting-started.md": 10}  # page -> commands that it has at least
STAMPS = (".ready", ".dev")  # of the Makefile: what the environment has
# a split of a dataset that a page adds -> one that is there
EXAMPLES = {"lab_recordings/train": "penn_action/train"}
# `doctor` on a folder without data: it ends with 1, something is missing
EMPTY = ("doctor", "--raw")


@dataclass(frozen=True)
class Command:
    """A command in a page."""

    page: Path
    line: int
    text: str
    whole: bool  # a line of a block of code; otherwise part of a sentence, and perhaps of a command

    def __str__(self):
        return f"{name_of(self.page)}:{self.line}: {self.text}"


def commands(page):
    """All commands of a page: lines of indented or fenced blocks, and code within sentences."""
    lines = page.read_text().splitlines()
    fence, number = "", 0
    while number < len(lines):
        line, first = lines[number], number + 1
        number += 1
        if line.lstrip().startswith("```"):
            fence = "" if fence else line.strip()[3:] or "text"
        elif fence in ("text", "sh", "bash", "console") or (not fence and line.startswith("    ")):
            text = line.strip()
            while text.endswith("\\") and number < len(lines):
                text, number = f"{text[:-1].rstrip()} {lines[number].strip()}", number + 1
            if STARTS.match(text):
                yield Command(page, first, text, whole=True)
        elif not fence:
            yield from (
                Command(page, first, code, False)
                for code in CODE.findall(line)
                if STARTS.match(code + " ")
            )


SHOWN = {page: shown for page in PAGES if (shown := list(commands(page)))}


# --------------------------------------------------------------------------------------------------
# do they exist


def words_of(command):
    """The words of the program that a line starts, without the shell's syntax."""
    text = BESIDE.sub("", command.text).replace("<run>", "RUN")
    words = [EXAMPLES.get(word, word) for word in shlex.split(text, comments=True)]
    words = list(itertools.dropwhile(re.compile(r"[A-Z_]+=").match, words))
    return list(
        itertools.takewhile(lambda word: word not in ("&", "&&", "|", ">", ";", "...", "…"), words)
    )


def problem(command):
    """What is wrong with a command, or ""."""
    program, *words = words_of(command)
    program = program.removeprefix(".venv/bin/")
    if program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        named = {word for word in words if not re.search(r"=|^-|^[A-Z]+$", word)}
        return ", ".join(f"there is no target {word}" for word in named - targets)
    if program == "luigi":
        return of_luigi(words, whole=command.whole)
    if program == "vibe-pipeline":
        return of_parser("pipeline", words, whole=command.whole)
    if program in ("python", "python3", "torchrun") and "-m" in words:
        module, *rest = words[words.index("-m") + 1 :] or [""]
        if module in PARSERS:
            return of_parser(module, rest, whole=command.whole)
        return (
            ""
            if module in ("", "venv") or importlib.util.find_spec(module)
            else f"there is no module {module}"
        )
    if program == "python":
        return of_script(words)
    return "" if program in PROGRAMS else f"this test does not know {program}"


def of_script(words):
    if not words or words[0].startswith("-"):
        return ""
    script = ROOT / words[0]
    if not script.is_file():
        return f"there is no {words[0]}"
    options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    # Benchmarks share options through a module of their own.
    sources = "".join(file.read_text() for file in script.parent.glob("*.py"))
    return ", ".join(
        f"{words[0]} has no {option}" for option in options if f'"{option}"' not in sources
    )


@functools.cache
def choices(module):
    """The commands of `python -m` a module."""
    parser = PARSERS[module]()
    known = next(action.choices for action in parser._actions if action.choices)
    for command in known.values():
        command.format_help()  # which imports it
    return known


def of_parser(module, words, *, whole):
    """Check that argparse accepts a whole command, or that the names in a part of one are known."""
    printed = io.StringIO()
    if whole:
        try:
            with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
                PARSERS[module]().parse_args(words)
        except SystemExit as end:
            return printed.getvalue() if end.code else ""
        return ""
    if not words or not re.fullmatch(r"[a-z][a-z-]*(\|[a-z-]+)*", words[0]):
        return ""  # a placeholder as COMMAND, or an option of all commands
    names = words[0].split("|")
    if missing := [name for name in names if name not in choices(module)]:
        return f"there is no command {missing[0]}"
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    known = choices(module)[names[0]]._option_string_actions
    return ", ".join(f"{words[0]} has no {option}" for option in options if option not in known)


def of_luigi(words, *, whole):
    if not whole and (
        len(words) < 3 or any(re.fullmatch(r"[A-Z]+|.*\|.*", word) for word in words)
    ):
        return ""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), CmdlineParser.global_instance(words) as parser:
            parser.get_task_obj()
    except SystemExit:
        return printed.getvalue()
    except TaskClassException as error:
        return str(error)
    return ""


@pytest.mark.parametrize("page", SHOWN, ids=name_of)
def test_commands_exist_and_take_their_arguments(page, monkeypatch):
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(ROOT / "luigi.cfg"))
    assert {str(command): wrong for command in SHOWN[page] if (wrong := problem(command))} == {}


def test_a_wrong_option_is_found():
    assert problem(Command(ROOT, 1, "python -m pipeline verify --deep", whole=True))


def test_commands_run_as_they_are_typed_in_a_clone():
    """Without `activate`: PATH has no luigi, and its python has no packages. OF_INSTALLED is about
    any installation.
    """
    typed = [
        command
        for page, shown in SHOWN.items()
        if name_of(page) not in OF_INSTALLED
        for command in shown
    ]
    bare = re.compile(r"(?:[A-Z_]+=\S+ )*(?:luigi --module|python -m (?:pipeline|tasks)) [a-zA-Z]")
    assert [str(command) for command in typed if bare.match(command.text)] == []


OF_INSTALLED = {
    f"docs/{page}.md" for page in ("installing", "settings", "terminal", "commands", "api/index")
}
OF_OTHERS = {
    *(
        "--build-arg",
        "--ignore-existing",
        "--immutable",
        "--ipc",
        "--partition",
        "--dist",
        "--gpus",
    ),
    *("--pred-out-dir", "--save-predictions"),
}
NAMED = re.compile(r"`(--[a-z][a-z0-9-]*[a-z0-9])\b[^`\n]*`")


def test_every_option_that_a_sentence_names_exists():
    parsers = [parser for module in PARSERS for parser in choices(module).values()]
    known = OF_OTHERS.union(*(parser._option_string_actions for parser in parsers))
    scripts = "".join(file.read_text() for file in (ROOT / "benchmarks").rglob("*.py"))
    pages = [page for page in PAGES if page.name != "vibe-databases.md"]  # mostly of others
    named = {(page.name, option) for page in pages for option in NAMED.findall(page.read_text())}
    assert len(named) > 50
    assert {
        (page, option)
        for page, option in named
        if option not in known and f'"{option}"' not in scripts
    } == set()


# --------------------------------------------------------------------------------------------------
# do they run

TINY = """
[data]
datasets = penn_action 3dpw amass
[embedded]
size = tiny
[convert]
workers = 1
[features]
device = cpu
batch_size = 8
[vibe]
baseline = false
datasets_2d = penn_action/train
strides = penn_action/train:4 3dpw/train:4
seqlen = 6
batch_size = 4
iterations = 3
epochs = 2
hidden_size = 8
regressor_size = 8
disc_size = 8
[pose_embedding]
poses_3d = 3dpw/train
validation = 3dpw/validation
eval_poses = 10
hidden_size = 8
iterations = 2
epochs = 1
[hmmr]
iterations = 2
epochs = 1
[part_dynamics]
datasets_2d = penn_action/train
iterations = 2
epochs = 1
"""  # makes the embedded run take seconds


@pytest.fixture
def checkout(tmp_path):
    """A copy of this checkout, with this environment in its .venv and a luigi.cfg for tiny data."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(
        listed, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(lambda name: name and (ROOT / name).is_file(), names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name not in STAMPS:
            (tmp_path / ".venv" / part.name).symlink_to(part)
    for name in STAMPS:
        (tmp_path / ".venv" / name).touch()
    (tmp_path / "luigi.cfg").write_text(merged((ROOT / "luigi.cfg").read_text(), TINY))
    return tmp_path


def to_run(page):
    """The commands in a page's blocks, in order, and the `mkdir` lines before them."""
    text = page.read_text()
    folders = re.finditer(r"^ {4,}(mkdir .*)$", text, re.MULTILINE)
    made = [
        Command(page, text[: found.start()].count("\n") + 1, found[1], whole=True)
        for found in folders
    ]
    shown = [command for command in commands(page) if command.whole]
    for command in sorted(made + shown, key=lambda command: command.line):
        if not any(left_out in command.text for left_out in NOT_RUN):
            yield command


@pytest.mark.slow
def test_the_commands_of_the_readme_and_of_getting_started_run_in_their_order(checkout):
    # without what was typed behind the `make` that runs the tests
    own = {"LUIGI_CONFIG_PATH", "MAKEFLAGS", "PYTHON", "VENV"}
    environment = {name: os.environ[name] for name in os.environ.keys() - own}
    environment |= {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    for page, least in RUN.items():
        shown = list(to_run(ROOT / page))
        assert len(shown) >= least, page
        for command in shown:
            words = shlex.split(command.text, comments=True)
            if "raw/penn_action" in words:  # the reader has downloaded it by then
                demo = checkout / "demo/raw/penn_action"
                shutil.copytree(demo, checkout / "raw/penn_action", dirs_exist_ok=True)
            captured = {"capture_output": True, "text": True, "timeout": 900}
            done = subprocess.run(words, cwd=checkout, env=environment, check=False, **captured)
            expected = 1 if set(EMPTY) <= set(words) else 0
            assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
    assert_python_runs((ROOT / "README.md").read_text(), checkout, environment)


def assert_python_runs(text, folder, environment):
    """Run a page's Python that begins with `import cache`, on the cache that commands have made."""
    found = re.search(r"^( *)import cache\n(?:\1.*\n|\n)+", text, re.MULTILINE)
    assert found is not None
    # Tiny data has no 16 frames in a row.
    code = (
        found[0].replace("seqlen=16", "seqlen=6").replace("(16, 8,", "(6, 3,").partition("```")[0]
    )
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=folder, env=environment, check=True
    )
