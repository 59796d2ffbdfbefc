"""`python -m pipeline init`: write a luigi.cfg into a working folder outside a clone of the
project.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline import datasets
from pipeline.cli.command_line import Command
from pipeline.cli.console import out, plain
from pipeline.errors import PipelineError
from pipeline.settings.file import PATH

TEMPLATE: Final = Path(__file__).parent / "templates" / "luigi.cfg"
ABOUT_REAL: Final = """\
# All paths and settings, for real data: set [data] datasets to those that you have.
# The effective settings, and where each comes from: python -m pipeline config.
"""
OF_DEMO: Final = "seed = 0\n# tiny, default or large\nsize = default\n"
REAL: Final[Mapping[tuple[str, str], str]] = {  # differences from the settings for demo data
    ("paths", "raw"): "data/raw",
    ("paths", "body"): "data/body",
    ("paths", "cache"): "data/cache",
    ("paths", "runs"): "runs",
    ("paths", "new_cache"): "once",
    ("data", "datasets"): " ".join(datasets.RELEASES),
    ("embedded", "enabled"): "false",
    ("resnet50", "weights"): "spin:data/model_checkpoint.pt",
}


def _options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add(
        "folder",
        type=PATH,
        nargs="?",
        default=Path(),
        help="Working folder (default: the current one)",
    )
    add("--real", action="store_true", help="Write settings for real data, not for the demo data")
    add(
        "--raw",
        type=PATH,
        metavar="DIR",
        help="Folder of the downloads, with --real (default: data/raw)",
    )
    add(
        "--body",
        type=PATH,
        metavar="DIR",
        help="Folder of SMPL's files, with --real (default: data/body)",
    )
    help_ = "Weights of the network, with --real (default: spin:data/model_checkpoint.pt)"
    add("--weights", metavar="SPEC", help=help_)


def _run(args: argparse.Namespace) -> int:
    """Write FOLDER/luigi.cfg, and print what to do next."""
    text = TEMPLATE.read_text(encoding="utf-8")
    file = args.folder / "luigi.cfg"
    options = {
        ("paths", "raw"): args.raw,
        ("paths", "body"): args.body,
        ("resnet50", "weights"): args.weights,
    }
    named = {key: absolute(value) for key, value in options.items() if value is not None}
    if named and not args.real:
        raise PipelineError("--raw, --body and --weights are for real data: add --real")
    if args.real:
        text = _fill_template(text, named)

    args.folder.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise PipelineError(f"{file} exists. Name another folder, or move the file.") from error

    steps = []
    if args.folder.resolve() != Path.cwd():
        steps.append(f"cd {shlex.quote(str(args.folder))}")
    if args.real:
        steps.append(f"{tool('vibe-pipeline')} doctor  # lists the files to download")
    for task in ("Data", "EvaluateVIBE"):
        steps.append(f"{tool('luigi')} --module tasks {task}")
    out.print(plain(f"settings   {file}"))
    heading = "next"
    for step in steps:
        out.print(plain(f"{heading:<10} {step}"))
        heading = ""
    return 0


def _fill_template(template: str, named: Mapping[tuple[str, str], str]) -> str:
    """Fill in the template for real data: REAL, overridden by the settings in `named`."""
    _, _, settings = template.partition("\n\n")  # without its heading
    text = set_values(f"{ABOUT_REAL}\n{settings}", {**REAL, **named})
    if OF_DEMO not in text:
        raise KeyError(f"the template has no {OF_DEMO!r}")
    return text.replace(OF_DEMO, "")


def set_values(text: str, values: Mapping[tuple[str, str], str]) -> str:
    """Replace values of keys in a settings file. Raises KeyError for a missing key.

    >>> set_values("[paths]\\nraw = a  # here\\n", {("paths", "raw"): "b"})
    '[paths]\\nraw = b\\n'
    """
    section = ""
    missing = dict(values)
    lines = []
    for line in text.splitlines():
        heading = re.fullmatch(r"\[(\w+)\]\s*", line)
        if heading:
            section = heading[1]
        key = line.partition("=")[0].strip()
        if (section, key) in missing:
            line = f"{key} = {missing.pop((section, key))}"
        lines.append(line)
    if missing:
        keys = ", ".join(f"[{section}] {key}" for section, key in missing)
        raise KeyError(f"the template has no {keys}")
    return "\n".join(lines) + "\n"


def absolute(value: Path | str) -> str:
    """Make a path, or that in a weights option KIND:FILE, absolute, for use in luigi.cfg.

    On the command line, paths are relative to the working folder; in luigi.cfg, to its own folder.
    """
    if isinstance(value, Path):
        path = value.expanduser()
        if ".." in path.parts:
            return str(path.resolve())
        return str(path.absolute())
    kind, _, file = value.partition(":")
    if file and kind in ("spin", "file"):
        return f"{kind}:{absolute(Path(file))}"
    return value


def tool(name: str) -> str:
    """How to type an installed command in any folder: its name, or its path beside this Python."""
    beside = str(Path(sys.executable).with_name(name))
    if shutil.which(name) == beside:
        return name
    return shlex.quote(beside)


COMMAND: Final = Command(_options, _run)
