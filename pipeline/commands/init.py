"""`python -m pipeline init`: write a luigi.cfg into a working folder outside a clone of the
project.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Final

from pipeline import datasets
from pipeline.cli.command_line import Command
from pipeline.cli.console import err, out, plain
from pipeline.cli.text import as_called, tool
from pipeline.errors import PipelineError
from pipeline.features.weights import WeightsSpec
from pipeline.files.raw.files import is_folder_there

_TEMPLATES: Final = Path(__file__).parent / "templates"
_REAL: Final = {  # values in the template for real data
    "raw": "data/raw",
    "body": "data/body",
    "weights": "spin:data/model_checkpoint.pt",
}


def _run(args: argparse.Namespace) -> int:
    """Write FOLDER/luigi.cfg, and print what to do next. Returns 1 if a named path is missing."""
    file = args.folder / "luigi.cfg"
    options = {key: getattr(args, key) for key in ("raw", "body", "weights")}
    named = {key: _absolute(value) for key, value in options.items() if value is not None}
    template = "luigi.cfg"
    values: dict[str, str] = {}
    found: list[str] = []
    if args.real:
        template = "real.cfg"
        values = {**_REAL, **named}
        raw = args.folder / values["raw"]
        found = [name for name in datasets.names() if is_folder_there(raw / name)]
        values["datasets"] = " ".join(found or datasets.RELEASES)
        weights = WeightsSpec.parse(values["weights"])
        values["start"] = weights.argument if weights.kind == "spin" else "none"
    elif named:
        raise PipelineError("--raw, --body and --weights are for real data: add --real")
    text = (_TEMPLATES / template).read_text(encoding="utf-8").format(**values)

    args.folder.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(as_called(text))
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
    if args.real:
        listed = values["datasets"] if found else f"all releases: no folder of a dataset in {raw}"
        out.print(plain(f"datasets   {listed}"))
    heading = "next"
    for step in steps:
        out.print(plain(f"{heading:<10} {step}"))
        heading = ""
    code = 0
    for key, value in named.items():
        path = Path(value.removeprefix("spin:").removeprefix("file:"))
        if path.is_absolute() and not path.exists():  # the name of weights is neither
            err.show_problem(f"--{key} {path}: there is no such file or folder")
            code = 1
    return code


def _absolute(value: Path | str) -> str:
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
        return f"{kind}:{_absolute(Path(file))}"
    return value


COMMAND: Final = Command(_run)
