"""Which mistakes of repacked datasets are noted? Demo layouts, each with one mistake in its labels.

    .venv/bin/python benchmarks/contradictions.py --out benchmarks/contradictions.md

A mistake is made in all label files of a dataset's split, in the demo layout, and the split is read
with the demo body. It is noted if a video has a contradiction of
`pipeline.datasets.shared.contradictions`. In the layouts as they are, no video has one; the page
says how often each check had a number, not NaN.

The limits were chosen by the first list of mistakes. The second one was written afterwards
(`benchmarks/label_mistakes.py`).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from benchmarks.label_mistakes import FILES, GIVEN, OWN, Mistake
from pipeline import datasets
from pipeline.cli.text import count
from pipeline.datasets.shared import contradictions
from pipeline.extras.demo.layouts import Request
from pipeline.extras.demo.writing import write_body, write_dataset


class Outcome(NamedTuple):
    """What is said of a split."""

    contradictions: list[str]
    rejected: list[str]
    spoke: Mapping[str, int]  # check -> rows with a number


def read_split(raw: Path, name: str, split: str, body: Path) -> Outcome:
    """Read a split of `raw`/<dataset>."""
    spoke = Counter[str]()
    measure = contradictions.measure

    def counted(*labels: Any) -> Any:
        numbers = measure(*labels)
        for check, values in numbers.items():
            spoke[check.text] += int(np.isfinite(values).sum())
        return numbers

    dataset = datasets.get(name).detect_layout(raw / name, split)
    model = dataset.load_body(body) if dataset.labels.uses_body else None
    outcome = Outcome([], [], spoke)
    with mock.patch.object(contradictions, "measure", counted):
        for video in dataset.videos(raw / name, split):
            _, account = dataset.read_accounted(raw / name, split, video, model)
            outcome.contradictions.extend(account.contradictions)
            if account.set_aside:
                outcome.rejected.append(account.rejection)
    return outcome


def read_mistake(mistake: Mistake, right: Path, body: Path, folder: Path) -> Outcome:
    """Make a mistake in a copy of the right layout below `right`, and read it."""
    files = FILES[mistake.dataset]
    shutil.copytree(right / mistake.dataset, folder / mistake.dataset, symlinks=True)
    for file in sorted((folder / mistake.dataset).glob(files.pattern)):
        labels = files.load(file)
        mistake.edit(labels, file)
        files.save(file, labels)
    outcome = read_split(folder, mistake.dataset, files.split, body)
    shutil.rmtree(folder / mistake.dataset)
    return outcome


def _right_lines(right: Path, body: Path) -> Iterator[str]:
    """A line of each dataset and check: the layout as it is."""
    rows = []
    n_noted = 0
    for name in datasets.WITH_DEMO_DATA:
        spoke = Counter[str]()
        for split in datasets.get(name).splits:
            outcome = read_split(right, name, split, body)
            n_noted += len(outcome.contradictions)
            spoke.update(outcome.spoke)
        rows += [(name, check, n) for check, n in spoke.items()]
    yield f"{n_noted} contradictions in the layouts as they are. How often each check had a number:"
    yield ""
    yield from table(("dataset", "check", "rows with a number"), rows)


def _mistake_lines(mistakes: Sequence[Mistake], right: Path, body: Path) -> Iterator[str]:
    """How many mistakes are noted, and a line of each."""
    rows = []
    n_noted = 0
    with tempfile.TemporaryDirectory() as folder:
        for mistake in mistakes:
            outcome = read_mistake(mistake, right, body, Path(folder))
            said = sorted(set(outcome.contradictions))
            n_noted += bool(said)
            if outcome.rejected:
                said.append(f"{count(len(outcome.rejected), 'video')} rejected")
            rows.append((mistake.dataset, mistake.what, "; ".join(said) or "nothing"))
    yield f"{n_noted} of {len(mistakes)} noted:"
    yield ""
    yield from table(("dataset", "mistake", "what is said"), rows)


def _lines(seed: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        right = Path(folder)
        write_body(right / "body")
        for name in datasets.WITH_DEMO_DATA:
            write_dataset(name, right / name, Request(seed=seed, n_videos=3))
        yield from ("## Right labels", "", *_right_lines(right, right / "body"))
        yield from ("", "## Mistakes by which the limits were chosen", "")
        yield from _mistake_lines(GIVEN, right, right / "body")
        yield from ("", "## Mistakes that were written afterwards", "")
        yield from _mistake_lines(OWN, right, right / "body")


def main() -> None:
    """Read, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--seed", type=int, default=0, help="of the demo data")
    args = options.parse_args()
    title = "Which mistakes of repacked datasets are noted?"
    report("Labels of demo layouts that contradict each other.", title, _lines(args.seed), args)


if __name__ == "__main__":
    main()
