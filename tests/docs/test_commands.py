"""Every command in the documentation exists and takes the arguments that it is shown with; those of README.md run."""

import argparse
import configparser
import contextlib
import functools
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import TaskClassException

import pipeline.__main__
import tasks.__main__

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]
STARTS = re.compile(r"(?:[A-Z_]+=\S+ )*(make |\.venv/bin/|luigi --|python -m |vibe-pipeline )")
BESIDE = re.compile(r"\s{3,}\S.*$")  # what a command does, beside it
CODE = re.compile(r"`([^`\n]+)`")  # within a line
PROGRAMS = {"dask", "dask cuda", "luigid", "pip", "sphinx-build", "torchrun", "tensorboard"}  # of other projects

# What is shown in the pages below and not run by the test at the end, and why.
NOT_RUN = {
    "make test": "runs these tests",
    "make check": "runs these tests",
    "make docs": "tests/docs/test_built_site.py builds them",
    "spin:model_checkpoint.pt": "wants SPIN's checkpoint, which may not be distributed",
}
RUN = {"README.md": 1, "docs/getting-started.md": 10}  # page -> commands that it has at least
EXAMPLES = {"lab_recordings": "penn_action"}  # a dataset that a page adds -> one that is there
EMPTY = ("doctor", "--raw")  # `doctor` on a folder without data: it ends with 1, something is missing


@dataclass(frozen=True)
class Command:
    """One command, as it stands in a page."""

    page: Path
    line: int
    text: str
    whole: bool  # a line of a block of code; otherwise words within a sentence, which may be a part

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


def commands(page: Path) -> Iterator[Command]:
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
            yield from (Command(page, first, code, False) for code in CODE.findall(line) if STARTS.match(code + " "))


SHOWN = {page: found for page in PAGES if page.is_file() and (found := list(commands(page)))}


# --------------------------------------------------------------------------------------------------- do they exist


def words_of(command: Command) -> list[str]:
    """The words of the one program that a line starts, without what the shell does around it."""
    text = BESIDE.sub("", command.text).replace("<run>", "RUN")
    words = [EXAMPLES.get(word, word) for word in shlex.split(text, comments=True)]
    while re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    ends = [number for number, word in enumerate(words) if word in ("&", "&&", "|", ">", ";", "...", "…")]
    return words[: ends[0]] if ends else words


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def problem(command: Command) -> str:
    """What is wrong with a command; "" when nothing is."""
    words = words_of(command)
    program = words[0].removeprefix(".venv/bin/")
    match program:
        case "make":
            wanted = [word for word in words[1:] if not re.search(r"=|^-|^[A-Z]+$", word)]
            return ", ".join(f"there is no target {word}" for word in wanted if word not in targets())
        case "luigi":
            return of_luigi(words[1:], whole=command.whole)
        case "vibe-pipeline":
            return of_parser(parser_of("pipeline"), words[1:], whole=command.whole)
        case "python" | "python3" | "torchrun" if "-m" in words:
            place = words.index("-m") + 1
            return of_module(words[place] if place < len(words) else "", words[place + 1 :], whole=command.whole)
        case "python":
            return of_script(words[1:])
    return "" if program in PROGRAMS else f"this test does not know {program}"


@functools.cache
def parser_of(module: str) -> argparse.ArgumentParser:
    return {"pipeline": pipeline.__main__, "tasks": tasks.__main__}[module].parser()


def of_module(module: str, words: list[str], *, whole: bool) -> str:
    if module in ("pipeline", "tasks"):
        return of_parser(parser_of(module), words, whole=whole)
    return "" if module in ("", "venv") or importlib.util.find_spec(module) else f"there is no module {module}"


def of_script(words: list[str]) -> str:
    if not words or words[0].startswith("-"):
        return ""
    script = ROOT / words[0]
    if not script.is_file():
        return f"there is no {words[0]}"
    options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    # Benchmarks share options through modules of their own.
    sources = "".join(file.read_text() for file in script.parent.glob("*.py"))
    return ", ".join(f"{words[0]} has no {option}" for option in options if f'"{option}"' not in sources)


def of_parser(parser, words: list[str], *, whole: bool) -> str:
    """Does argparse take it? Of code within a sentence, which may be a part of a command: are its names known?"""
    printed = io.StringIO()
    if whole:
        try:
            with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
                parser.parse_args(words)
        except SystemExit as end:
            return printed.getvalue() if end.code else ""
        return ""
    known = next(action.choices for action in parser._actions if action.choices)
    if not words or not re.fullmatch(r"[a-z][a-z-]*(\|[a-z-]+)*", words[0]):
        return ""  # a placeholder as COMMAND, or an option of all commands
    for name in words[0].split("|"):
        if name not in known:
            return f"there is no command {name}"
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    has = known[words[0].split("|")[0]]._option_string_actions
    return ", ".join(f"{words[0]} has no {option}" for option in options if option not in has)


def of_luigi(words: list[str], *, whole: bool) -> str:
    placeholder = any(re.fullmatch(r"[A-Z]+|.*\|.*", word) for word in words)
    if not whole and (placeholder or len(words) < 3):
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


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist_and_take_their_arguments(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(ROOT / "luigi.cfg"))
    assert {str(command): wrong for command in SHOWN[page] if (wrong := problem(command))} == {}


OF_OTHERS = {
    "--build-arg",
    "--ignore-existing",
    "--immutable",
    "--ipc",
    "--partition",
    "--dist",
    "--pred-out-dir",
    "--save-predictions",
    "--gpus",
}
NAMED = re.compile(r"`(--[a-z][a-z-]*[a-z])\b[^`\n]*`")


def test_every_option_that_a_sentence_names_exists() -> None:
    known = OF_OTHERS.copy()
    for module in ("pipeline", "tasks"):
        every = next(action.choices for action in parser_of(module)._actions if action.choices)
        known.update(option for command in every.values() for option in command._option_string_actions)
    scripts = "".join(file.read_text() for file in (ROOT / "benchmarks").rglob("*.py"))
    pages = [page for page in PAGES if page.name not in ("cluster.md", "vibe-databases.md")]  # mostly of others
    named = {(page.name, option) for page in pages for option in NAMED.findall(page.read_text())}
    assert len(named) > 50
    assert {one for one in named if one[1] not in known and f'"{one[1]}"' not in scripts} == set()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("make everything", "no target everything"),
        (".venv/bin/python -m pipeline convrt penn_action train", "convrt"),
        (".venv/bin/python -m pipeline verify --cache data/cache --deep", "--deep"),
        (".venv/bin/python -m pipeline convert penn_action", "required"),
        (".venv/bin/luigi --module tasks TrainHMR --local-scheduler", "TrainHMR"),
        (".venv/bin/luigi --module tasks TrainVIBE --backbone resnet50", "--backbone"),
        (".venv/bin/torchrun --nproc-per-node 4 -m tasks teach", "teach"),
        (".venv/bin/python benchmarks/nothing.py", "no benchmarks/nothing.py"),
        (".venv/bin/python benchmarks/windows.py --deep", "no --deep"),
        (".venv/bin/frobnicate", "frobnicate"),
    ],
)
def test_a_command_that_is_wrong_is_found(text: str, printed: str) -> None:
    assert printed in problem(Command(ROOT / "README.md", 1, text, whole=True))


def test_commands_are_found_in_blocks_and_in_sentences(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Say `make data`, not `luigi`.\n\n    make train  # a comment\n"
        "    .venv/bin/luigi --module tasks \\\n        Data\n"
        "\n```python\nmake = 1\n```\n```sh\nCUDA_VISIBLE_DEVICES=3 .venv/bin/dask worker\n```\n"
    )
    found = [(one.line, one.text, one.whole) for one in commands(page)]
    assert found == [
        (1, "make data", False),
        (3, "make train  # a comment", True),
        (4, ".venv/bin/luigi --module tasks Data", True),
        (11, "CUDA_VISIBLE_DEVICES=3 .venv/bin/dask worker", True),
    ]


# ------------------------------------------------------------------------------------------------------- do they run

TINY = {  # what makes the embedded run one of seconds
    "data": {"datasets": "penn_action 3dpw amass"},
    "embedded": {"size": "tiny"},
    "convert": {"workers": "1"},
    "features": {"device": "cpu", "batch_size": "8"},
    "vibe": {
        "baseline": "false",
        "datasets_2d": "penn_action/train",
        "strides": "penn_action/train:4 3dpw/train:4",
        "seqlen": "6",
        "batch_size": "4",
        "iterations": "3",
        "epochs": "2",
        "hidden_size": "8",
        "regressor_size": "8",
        "disc_size": "8",
    },
    "pose_embedding": {
        "poses_3d": "3dpw/train",
        "validation": "3dpw/validation",
        "eval_poses": "10",
        "hidden_size": "8",
        "iterations": "2",
        "epochs": "1",
    },
    "hmmr": {"iterations": "2", "epochs": "1"},
    "part_dynamics": {"datasets_2d": "penn_action/train", "iterations": "2", "epochs": "1"},
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout, with this environment in its .venv and a luigi.cfg for tiny data."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(lambda name: name and (ROOT / name).is_file(), names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".ready":
            (tmp_path / ".venv" / part.name).symlink_to(part)
    (tmp_path / ".venv/.ready").touch()
    config = configparser.ConfigParser(interpolation=None)
    config.read(tmp_path / "luigi.cfg")
    config.read_dict(TINY)
    with (tmp_path / "luigi.cfg").open("w") as file:
        config.write(file)
    return tmp_path


def to_run(page: Path) -> Iterator[Command]:
    """The commands that a page shows in blocks, in its order, and what makes folders for them."""
    text = page.read_text()
    folders = re.finditer(r"^ {4,}(mkdir .*)$", text, re.MULTILINE)
    made = [Command(page, text[: found.start()].count("\n") + 1, found[1], whole=True) for found in folders]
    shown = [command for command in commands(page) if command.whole]
    for command in sorted(made + shown, key=lambda command: command.line):
        if not any(left_out in command.text for left_out in NOT_RUN):
            yield command


@pytest.mark.slow
def test_the_commands_of_the_readme_and_of_getting_started_run_in_their_order(checkout: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LUIGI_CONFIG_PATH"}
    environment |= {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    for page, least in RUN.items():
        ran = 0
        for command in to_run(ROOT / page):
            words = shlex.split(command.text, comments=True)
            if "raw/penn_action" in words:  # the reader has downloaded it by then
                shutil.copytree(
                    checkout / "data/embedded/raw/penn_action", checkout / "raw/penn_action", dirs_exist_ok=True
                )
            done = subprocess.run(
                words, cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=900
            )
            expected = 1 if set(EMPTY) <= set(words) else 0
            assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
            ran += 1
        assert ran >= least, page
        assert_python_runs((ROOT / page).read_text(), checkout, environment)


def assert_python_runs(text: str, folder: Path, environment: dict[str, str]) -> None:
    """A page's Python that begins with `import cache`, on the cache that its commands have made."""
    found = re.search(r"^( *)import cache\n(?:\1.*\n|\n)+", text, re.MULTILINE)
    assert found is not None
    # Tiny data has no 16 frames in a row.
    code = found[0].replace("seqlen=16", "seqlen=6").replace("(16, 8,", "(6, 3,").partition("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
