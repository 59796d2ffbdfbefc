"""Which planted faults do the tests notice?

    .venv/bin/python -m pytest --numprocesses 2 --cov --cov-context=test --cov-report=
    nice .venv/bin/python tests/mutate.py --coverage .coverage | tee faults.tsv

A fault is one operator, comparison, condition, number or truth value that is changed in a file
of the product, drawn by file, in a clone of HEAD. The tests that run its line, as the coverage of
HEAD says, are run until one fails: those of the file's own name first, NEAREST at most. A fault
that changes no result, or the number in a message, is rightly not noticed.
"""

import argparse
import ast
import gc
import importlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DRAWN = {"cache": 60, "pipeline": 60, "vibe_model": 20, "tasks": 10}  # faults by folder
NEAREST = 250
LIMIT_S = 600  # for the tests of one fault: one that makes them hang is noticed
SWAPPED = "Add-Sub Mult-Div FloorDiv-Mult Mod-Mult And-Or Lt-LtE Gt-GtE Eq-NotEq Is-IsNot In-NotIn"
SWAP = {}
for pair in SWAPPED.split():
    one, other = (getattr(ast, name) for name in pair.split("-"))
    SWAP |= {other: one, one: other}
IMPORTED_ONCE = "hypothesis torch torchvision zarr scipy.signal scipy.stats h5py cv2 cdflib luigi"


def mutable(tree):
    """Operators, comparisons, conditions and constants of a file that may be changed."""
    kept = set()
    for node in ast.walk(tree):
        for decorator in getattr(node, "decorator_list", ()):
            kept.update(ast.walk(decorator))
        if isinstance(node, ast.keyword) and node.arg == "strict":
            kept.add(node.value)
    nodes = [node for node in ast.walk(tree) if node not in kept]
    return [node for node in nodes if can_change(node)]


def can_change(node):
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        return type(node.op) in SWAP
    if isinstance(node, ast.Compare):
        return type(node.ops[0]) in SWAP
    if isinstance(node, ast.If | ast.IfExp):
        return not isinstance(node.test, ast.BoolOp | ast.Compare)
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def change(node):
    """Change a node. Returns what stood there, and what stands there now."""
    shown = node.test if isinstance(node, ast.If | ast.IfExp) else node
    before = ast.unparse(shown)
    if isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.Compare):
        node.ops[0] = SWAP[type(node.ops[0])]()
    elif isinstance(node, ast.If | ast.IfExp):
        node.test = shown = ast.UnaryOp(ast.Not(), node.test)
    else:
        node.op = SWAP[type(node.op)]()
    return before, ast.unparse(shown)


def runs_at_import(tree, line):
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return not any(node.body[0].lineno <= line <= node.end_lineno for node in functions)


def tests_of(coverage, file, line):
    """Tests that run a line, or any line of the file if `line` is None; the nearest by name first."""
    rows = coverage.execute(
        "select distinct context from arc join file on file.id = file_id join context on "
        "context.id = context_id where path like ? and coalesce(? in (fromno, tono), true)",
        (f"%/{file}", line),
    )
    tests = {context.rpartition("|")[0] for (context,) in rows} - {""}
    stem = Path(file).stem
    words = set(re.split(r"\W|_", str(file)))

    def distance(test):
        path = test.partition("::")[0]
        n_shared = len(words & set(re.split(r"\W|_", path)))
        return "journeys" in path, stem not in path, -n_shared, test  # journeys take long

    return sorted(tests, key=distance)


def passes(clone, tests):
    """Run tests in a process that need not import again what takes long; it keeps no bytecode."""
    if not (child := os.fork()):
        os.setsid()
        os.chdir(clone)
        os.environ["PYTHONPATH"] = sys.path[0] = str(clone)
        sys.dont_write_bytecode = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        signal.alarm(LIMIT_S)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore:Module already imported"]
        os._exit(sys.modules["pytest"].main([*options, *tests]))
    code = os.waitpid(child, 0)[1]
    subprocess.run(["pkill", "-9", "-g", str(child)])  # what the tests started
    return code == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--coverage", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", help="numbers of faults")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # as tests/conftest.py has it, before torch is imported
    for name in f"pytest {IMPORTED_ONCE}".split():
        importlib.import_module(name)
    gc.freeze()
    coverage = sqlite3.connect(args.coverage)
    draw = random.Random(args.seed)
    folders = [folder for folder, count in DRAWN.items() for _ in range(count)]
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary, "clone")
        subprocess.run(["git", "clone", "-q", ".", str(clone)], check=True)
        paths = {folder: sorted(clone.glob(f"{folder}/**/*.py")) for folder in DRAWN}
        for number, folder in enumerate(folders):
            nodes = []
            while not nodes:
                path = draw.choice(paths[folder])
                source = path.read_text()
                tree = ast.parse(source)
                nodes = mutable(tree)
            node = draw.choice(nodes)
            if args.only and number not in args.only:
                continue
            file, line = path.relative_to(clone), node.lineno
            tests = [] if runs_at_import(tree, line) else tests_of(coverage, file, line)
            tests = tests or tests_of(coverage, file, None)  # a later line of a statement, too
            before, after = change(node)
            path.write_text(ast.unparse(tree))
            begun = time.monotonic()
            noticed = bool(tests) and not passes(clone, tests[:NEAREST])
            path.write_text(source)
            state = "noticed" if noticed else "not noticed"
            seconds = round(time.monotonic() - begun)
            row = (number, state, f"{file}:{line}", before, after, len(tests), seconds)
            print(*(str(part).replace("\n", " ") for part in row), sep="\t", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
