"""Tables of the pages that are made from the code, so that nothing is typed twice.

In a page, a table stands between `<!-- table NAME -->` and `<!-- end of table -->`. If the code has
changed, `pytest --rewrite-golden tests/docs/test_tables.py` writes the page again.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import inspect
import math
import operator
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pipeline.__main__
import tasks.__main__
from docs.setting_keys import NO_VALUES, about, sections
from pipeline import datasets, table
from pipeline.accounting import REASONS
from pipeline.cli.command_line import EXIT_CODES
from pipeline.clips import detectors
from pipeline.clips.labels import people_formats
from pipeline.clips.labels.checks import CHECKS
from pipeline.clips.labels.joint_orders import ORDERS
from pipeline.commands.status import COLUMNS
from pipeline.datasets import RELEASES
from pipeline.datasets.shared import contradictions
from pipeline.extras.exchange.formats import FORMATS
from pipeline.features import streams
from pipeline.features.weights import KINDS
from pipeline.grades.words import MEASURES
from pipeline.people.hands import BODY_JOINTS
from pipeline.people.skeletons import JOINTS
from vibe_model import models
from vibe_model.evaluation.protocols import PROTOCOLS
from vibe_model.metrics import METRICS

ROOT: Final = Path(__file__).parents[1]
PROGRAMS: Final[dict[str, Callable[[], argparse.ArgumentParser]]] = {
    "pipeline": pipeline.__main__.parser,
    "tasks": tasks.__main__.parser,
}


def _table(heading: str, rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown. heading: its columns, as "key | meaning"."""
    lines = [f"| {heading} |", "|---" * len(heading.split(" | ")) + "|"]
    for row in rows:
        cells = (str(cell).replace("|", r"\|").replace("<", r"\<") for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def commands(program: str) -> dict[str, argparse.ArgumentParser]:
    """The commands of a program, each with all of its options."""
    subparsers = next(
        action
        for action in PROGRAMS[program]()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    found: dict[str, argparse.ArgumentParser] = dict(subparsers.choices)
    for parser in found.values():
        parser.format_help()  # which imports the command
    return found


def _arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Each argument as it is typed, and its help."""
    formatter = parser._get_formatter()
    for action in parser._actions:
        if action.help is None or action.help == argparse.SUPPRESS:
            continue
        if action.dest in ("help", "settings"):  # of all commands: the page has them once
            continue
        names = action.option_strings or [_place(action)]
        value = ""
        if action.option_strings and action.nargs != 0:
            value = f" {formatter._format_args(action, action.dest.upper())}"
        yield ", ".join(f"`{name}{value}`" for name in names), formatter._expand_help(action)


def _place(action: argparse.Action) -> str:
    """An argument without a name, as it is typed."""
    name = str(action.metavar or action.dest)
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} ..."}.get(str(action.nargs), name)


def _commands_of(program: str) -> str:
    """A section for each command: what it does, how it is called, its arguments."""
    parts = []
    for name, parser in commands(program).items():
        places = (
            _place(action)
            for action in parser._actions
            if not action.option_strings and action.help != argparse.SUPPRESS
        )
        call = f"`.venv/bin/python -m {program} {' '.join([name, *places])}`"
        parts += [f"### {name}", parser.description or "", call]
        parts.append(_table("argument | meaning", _arguments(parser)))
        examples = table.COMMANDS[program][name].examples
        call = f"    .venv/bin/python -m {program} {name}"
        parts.append("\n".join(f"{call} {words}".rstrip() for words in examples))
    return "\n\n".join(parts)


def _exit_codes() -> str:
    return _table("code | `python -m pipeline`, `python -m tasks`", EXIT_CODES.items())


def _reasons() -> str:
    rows = [
        (f"`{name}`", "no" if reason.by_design else "yes", reason.meaning)
        for name, reason in sorted(REASONS.items())
    ]
    return _table("reason | is something wrong with the files? | meaning", rows)


def _joint_orders() -> str:
    """With the release's version, by which a paper can cite them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = ((f"`{name}`", len(joints), ", ".join(joints)) for name, joints in JOINTS.items())
    orders = _table("order | joints | names, from 0", rows)
    release = f"{project['name']} {project['version']}"
    return f"Orders of {release}; a paper cites them by this version:\n\n{orders}"


def _datasets() -> str:
    return _table("dataset | access | splits | official download | columns", _dataset_rows())


def _licences() -> str:
    rows = []
    for name in datasets.names():
        release = datasets.get(name).release
        page = release.licence.page or release.page
        text = f"{release.licence.name}, [site]({page})" if page else release.licence.name
        rows.append((f"`{name}`", text, release.licence.sharing))
    return _table("dataset | licence | may rows be passed on?", rows)


def _dataset_rows() -> Iterator[tuple[str, ...]]:
    for name in RELEASES:
        reader = datasets.get(name)
        sizes = []
        for split, known in reader.release.totals.items():
            numbers = [f"{n:,} {unit}" for unit, n in known.as_dict().items()]
            if numbers:
                sizes.append(f"{split}: {', '.join(numbers)}")
        columns = reader.columns(reader.splits[0], body=True)
        extra = (one.name for one in reader.extra_columns(reader.splits[0], body=True))
        shown = [column for column in (*columns, *extra) if column not in ("frame_index", "bbox")]
        page = "bedlam" if name == "bedlam2" else name
        yield (
            f"[`{name}`](datasets/{page}.md), [site]({reader.release.page})",
            reader.release.access,
            ", ".join(reader.splits),
            "; ".join(sizes) or "unknown",
            _code(shown),
        )


def asked() -> dict[str, list[str]]:
    """What is said of labels that contradict each other -> the datasets whose demo data have both,
    as `benchmarks/contradictions.py` counted.
    """
    found: dict[str, list[str]] = {
        check.text: []
        for check in vars(contradictions).values()
        if isinstance(check, contradictions.Contradiction)
    }
    report = (ROOT / "benchmarks/contradictions.md").read_text()
    for name, said in re.findall(r"(?m)^\| (\w+) \| (.+) \| [1-9]\d* \|$", report):
        found[said].append(name)
    return found


def _contradictions() -> str:
    rows = ((said, _code(names)) for said, names in asked().items())
    return _table("what is said | datasets that are asked", rows)


def _numbers_of_joints() -> str:
    rows = [(3 * n, "all", _code(orders)) for n, orders in ORDERS.items()]
    rows += [(3 * n, f"first {body}", _code(ORDERS[body])) for n, body in BODY_JOINTS.items()]
    return _table("numbers of a person | joints that are read | joint orders", rows)


_FORMAT: Final = ("recognized by", "first frame", "boxes", "joints", "identity")


def _keypoint_formats() -> str:
    lines = []
    for form in people_formats.FORMATS:
        name, *cells = (cell.strip() for cell in form.row.strip("|").split("|"))
        lines.append(f"- **{name}**")
        lines += [f"  - {title}: {cell}" for title, cell in zip(_FORMAT, cells, strict=True)]
    return "\n".join(lines)


def _grades() -> str:
    rows = []
    for name, measure in MEASURES.items():
        sign = "<" if measure.is_worse is operator.lt else ">"
        limits = [
            "" if math.isnan(limit) else "any" if limit < 0 else f"{sign} {limit:g}"
            for limit in (measure.doubtful, measure.bad)
        ]
        text = measure.text.replace("{name}", "another track")
        rows.append((f"`{name}`", re.sub(r"{.*?}", "N", text), *limits))
    return _table("number | as a reason | doubtful | bad", rows)


def _metrics() -> str:
    rows = [
        (metric.title, f"`{name}`", metric.unit, metric.better, metric.meaning)
        for name, metric in METRICS.items()
    ]
    return _table("metric | key | unit | better | meaning", rows)


def _checks_of_people() -> str:
    rows: dict[tuple[object, ...], None] = {}
    for check in CHECKS:
        done = "refuses" if check.key else "notes"
        text = check.text.format(limit=check.limit)
        rows[text, f"{check.share:.0%}", check.least, done] = None
    return _table("what is seen | of more than | of at least | what it does", rows)


def _exports() -> str:
    rows = []
    for name in table.OWN["vibe_pipeline.exports"]:
        chosen = FORMATS.find(name)
        extras = sorted(set(chosen.packages.values()))
        rows.append((f"`{name}`", chosen.about, _code(extras)))
    return _table("format | output | extra to install", rows)


def _streams() -> str:
    rows = []
    for kind in table.OWN["vibe_pipeline.streams"]:
        stream = streams.find(kind)
        options = {field.name for field in dataclasses.fields(stream)}
        number = vars(stream).get("dim")
        if "dim" in options or not isinstance(number, int):
            number = "by its options"
        rows.append((f"`{kind}`", number, _first_sentence(stream)))
    return _table("kind | numbers per row | what they are", rows)


def _detectors() -> str:
    rows = []
    for name in table.OWN["vibe_pipeline.detectors"]:
        detector = detectors.find(name)
        options = _code(field.name for field in dataclasses.fields(detector))
        rows.append((f"`{name}`", _first_sentence(detector), options))
    return _table("detector | what it does | options", rows)


def _losses(name: str) -> str:
    """The terms of a model's loss, with the weights of its usual preset."""
    model = models.find(name)
    config = model.presets[model.preset]()
    rows = [
        (f"`{term}`", f"{weight:g}", about(type(config), f"{term}_weight"))
        for term, weight in config.weights.items()
    ]
    return _table("term | weight | definition", rows)


def _columns_of_status() -> str:
    rows = ((f"`{name}`", column.meaning) for name, column in COLUMNS.items())
    return _table("column | what it shows", rows)


def _protocols() -> str:
    rows = ((f"`{name}`", protocol.meaning) for name, protocol in PROTOCOLS.items())
    return _table("protocol | rules", rows)


def _presets() -> str:
    """VIBE's presets, with the splits that they train on."""
    rows = []
    for name, preset in models.find("vibe").presets.items():
        config = preset()
        rows.append((f"`{name}`", _code(config.datasets_2d), _code(config.datasets_3d)))
    return _table("preset | 2D data | 3D data", rows)


def _weights() -> str:
    rows = []
    for kind in KINDS.values():
        meaning, _, form = kind.form.rpartition(", ")
        rows.append((f"`{form}`", meaning, kind.licence))
    return _table("weights | what they are | licence", rows)


def _first_sentence(thing: Any) -> str:
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".")


def _options(section: str) -> str:
    rows = []
    for key in sections()[section]:
        default = key.default if key.default in NO_VALUES else f"`{key.default}`"
        default = ", ".join(filter(None, (default, key.limits)))
        rows.append((f"`{key.name}`", default, key.about))
    return _table("option | default | meaning", rows)


def _reports() -> str:
    rows = []
    for report in sorted((ROOT / "benchmarks").glob("*.md")):
        title = report.read_text().partition("\n")[0].removeprefix("# ")
        rows.append((title, f"[{report.stem}](../benchmarks/{report.name})"))
    return _table("question | report", rows)


@functools.cache
def _promises() -> dict[str, list[tuple[str, str]]]:
    """Promise -> the tests that are marked with it: (file, name), in alphabetical order; the name
    is "" for all tests of a file.
    """
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file in sorted((ROOT / "tests").rglob("*.py")):
        text = file.read_text()
        if "pytest.mark.promise" not in text:
            continue
        place = file.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(text)):
            marks: list[ast.expr] = []
            if isinstance(node, ast.FunctionDef):
                marks = node.decorator_list
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
                marks = [node.value]
            for mark in marks:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                    promise = ast.literal_eval(mark.args[0])
                    found[promise].append((place, getattr(node, "name", "")))
    return found


def _tests_of(promise: str) -> str:
    """The tests of a promise, folded."""
    lines = [f"<details><summary>Tests ({len(_promises()[promise])})</summary>", ""]
    for place, name in _promises()[promise]:
        sentence = name.removeprefix("test_").replace("_", " ") or "all tests of the file"
        lines.append(f"- {sentence} (`{place}`)")
    return "\n".join([*lines, "", "</details>"])


TABLES: Final[dict[str, Callable[[], str]]] = {
    "commands of pipeline": lambda: _commands_of("pipeline"),
    "commands of tasks": lambda: _commands_of("tasks"),
    "exit codes": _exit_codes,
    "reasons": _reasons,
    "joint orders": _joint_orders,
    "checks of people": _checks_of_people,
    "keypoint formats": _keypoint_formats,
    "limits of grades": _grades,
    "datasets": _datasets,
    "licences of datasets": _licences,
    "metrics": _metrics,
    "reports": _reports,
    "exports": _exports,
    "streams": _streams,
    "detectors": _detectors,
    "columns of status": _columns_of_status,
    "protocols": _protocols,
    "presets of vibe": _presets,
    "weights of resnet50": _weights,
    "labels that contradict each other": _contradictions,
    "numbers of joints": _numbers_of_joints,
    **{
        f"options of {name}": partial(_options, name)
        for name in ("rtmpose", "blaze_pose", "3dpw", "amass", "onnx")
    },
    **{f"losses of {name}": partial(_losses, name) for name in table.OWN["vibe_pipeline.models"]},
    **{f"tests of {promise}": partial(_tests_of, promise) for promise in _promises()},
}
