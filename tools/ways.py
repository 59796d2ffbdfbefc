"""List the product's files that run on each way of docs/architecture.md, by the coverage of all
processes.

    .venv/bin/python tools/ways.py             number of files, by folder
    .venv/bin/python tools/ways.py --files     their names, from lower layers to higher ones

A file counts if the body of one of its functions ran; an import does not count. Uses demo data in a
temporary folder.
"""

import argparse
import ast
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import coverage

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("cache", "pipeline", "vibe_model", "tasks")  # from lower to higher
PIPELINE: Final = ("-m", "pipeline")
BATCH: Final = """
import cache
from vibe_model import TrainConfig
from vibe_model.training.data import TrainingBatches
config = TrainConfig(
    datasets_2d=(), datasets_3d=("3dpw/train",), prior="none", motion=(), seqlen=4, batch_size=2
)
TrainingBatches(config, {"3dpw/train": cache.open("cache")["3dpw/train"]})[0]
"""
VIDEOS: Final = (
    *PIPELINE,
    "prepare",
    "videos",
    "--raw",
    "raw/videos",
    "--cache",
    "videos",
    "--weights",
    "untrained:0",
)
SETTINGS: Final = (
    "[paths]\nraw = raw\nbody = body\ncache = cache\nruns = runs\n[data]\ndatasets = 3dpw\n"
)
# in this order: they use what the earlier ones have written
WAYS: Final[dict[str, tuple[str, ...]]] = {
    "convert": (
        *PIPELINE,
        "convert",
        "3dpw",
        "train",
        "--raw",
        "raw/3dpw",
        "--cache",
        "cache",
        "--body",
        "body",
    ),
    "extract": (
        *PIPELINE,
        "extract",
        "3dpw",
        "train",
        "--cache",
        "cache",
        "--weights",
        "untrained:0",
    ),
    "batch": ("-c", BATCH),
    "prepare": VIDEOS,  # up to date
    "config": (*PIPELINE, "config", "features.workers"),
}
# A killed process saves nothing: a SIGTERM, at which coverage saves, precedes each SIGKILL.
GENTLE: Final = """
import os, pathlib, signal, time
kill = os.kill
def gentle(process, number):
    if number == signal.SIGKILL:
        kill(process, signal.SIGTERM)
        stat = pathlib.Path(f"/proc/{process}/stat")
        for _ in range(80):  # at most 4 s
            time.sleep(0.05 if stat.exists() and ") Z" not in stat.read_text() else 0)
    kill(process, number)
os.kill = gentle
"""


def function_bodies(text: str) -> Iterator[set[int]]:
    """The lines of each function's body, without its docstring."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = set[int]()
            for part in node.body:
                lines.update(range(part.lineno, (part.end_lineno or 0) + 1))
            if ast.get_docstring(node) is not None:
                docstring = node.body[0]
                lines.difference_update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
            yield lines - {node.lineno}


def files_run(data: coverage.CoverageData) -> dict[str, int]:
    """File -> how many of its functions ran, in the order of the packages."""
    counts = {}
    for file in data.measured_files():
        lines = set(data.lines(file) or ())
        path = Path(file)
        n = sum(not body.isdisjoint(lines) for body in function_bodies(path.read_text("utf-8")))
        if n:
            counts[path.relative_to(ROOT).as_posix()] = n

    def in_order(file: str) -> tuple[int, str]:
        package = file.partition("/")[0]
        return PACKAGES.index(package), file

    return {file: counts[file] for file in sorted(counts, key=in_order)}


def measure(folder: Path) -> dict[str, dict[str, int]]:
    """Way -> files that ran, with their number of functions. Writes demo data and caches into an
    empty folder.
    """
    # not the working folder: a command refuses modules in it that hide others
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(GENTLE)
    (folder / "luigi.cfg").write_text(SETTINGS)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    plain |= {"PYTHONPATH": str(ROOT), "LUIGI_CONFIG_PATH": "luigi.cfg", "OMP_NUM_THREADS": "1"}
    ways = {}
    run((*PIPELINE, "synthesize", "--out", ".", "--size", "tiny"), folder, plain)
    run(VIDEOS, folder, plain)
    for way, command in WAYS.items():
        settings = folder / f"{way}.ini"
        data = folder / f"{way}.coverage"
        source = ",".join(str(ROOT / package) for package in PACKAGES)
        lines = (
            "[run]",
            f"data_file = {data}",
            "parallel = true",
            "sigterm = true",
            "patch = _exit,fork,subprocess",
            f"source = {source}",
        )
        settings.write_text("\n".join(lines))
        measured = plain | {"COVERAGE_PROCESS_START": str(settings)}
        measured["PYTHONPATH"] = f"{site}{os.pathsep}{ROOT}"
        run(command, folder, measured)
        combined = coverage.Coverage(data_file=data, config_file=False)
        # of processes that ended while they wrote their data once more
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            combined.combine()
        ways[way] = files_run(combined.get_data())
    return ways


def run(command: tuple[str, ...], folder: Path, env: Mapping[str, str]) -> None:
    """Run Python with these arguments. Raises RuntimeError with its messages if it fails."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, *command], cwd=folder, env=env, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def main() -> None:
    """Print the ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files", action="store_true", help="name every file, with its number of functions"
    )
    names = parser.parse_args().files
    with tempfile.TemporaryDirectory() as folder:
        ways = measure(Path(folder))
    for way, files in ways.items():
        print(f"{way}: {len(files)} files, {sum(files.values())} functions")  # noqa: T201
        counts: Mapping[str, int] = files
        if not names:
            counts = Counter("/".join(file.split("/")[:2]) for file in files)
        for name, n in counts.items():
            print(f"  {n:4} {name}")  # noqa: T201


if __name__ == "__main__":
    main()
