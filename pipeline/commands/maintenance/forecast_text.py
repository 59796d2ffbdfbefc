"""A forecast as text, and as JSON.  [raw -> tracks -> features] -> windows"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.console import DOUBT, duration, plain, size
from pipeline.cli.text import count
from pipeline.commands.maintenance.forecast import CONVERT, DETECT, EXTRACT, Forecast, Rate, Work

STEPS: Final = (DETECT, CONVERT, EXTRACT)
MEASURED_BY: Final = {
    DETECT: "the first clips that are detected here give one",
    CONVERT: "--sample 16 measures it, or the first conversion here",
    EXTRACT: "--rate gives one, or the first extraction here",
}
STARTS: Final = 60  # s of a step: where steps are shorter, what their starts take is no small part


def forecast_lines(forecasts: Sequence[Forecast], root: cache.Root) -> Iterator[str]:
    """Person-frames by split, and of which they are not known; of the others person-frames, bytes and hours in all."""
    if not forecasts:
        return
    yield "[bold]forecast[/bold]"
    known = [result for result in forecasts if result.expected.rows is not None]
    yield from (f"  {plain(result.split):<24}  {plain(_expected(result))}" for result in known)
    unknown = [result for result in forecasts if result.expected.rows is None]
    for why in dict.fromkeys(result.expected.source for result in unknown):
        names = ", ".join(result.split for result in unknown if result.expected.source == why)
        yield f"  {'no forecast':<24}  {plain(names)}: {why}"
    works = [work for result in known for work in result.works.values()]
    if not works:
        return
    disk: dict[str, float] = {"columns": sum(result.columns for result in known)}
    for result in known:
        for name, n_bytes in result.bytes.items():
            disk[name] = disk.get(name, 0) + n_bytes
    disk["tables"] = sum(result.tables for result in known)
    total = sum(disk.values())
    rows = sum(
        max([result.expected.rows or 0, *(work.rows for work in result.extractions.values())]) for result in known
    )
    yield f"  {'in all':<24}  about {_about(rows)} person-frames, {size(total)}, {plain(_time(works))}" + (
        f"; without {count(len(unknown), 'split')} of unknown size" if unknown else ""
    )
    yield f"  {'disk':<24}  {', '.join(f'{plain(name)} {size(n)}' for name, n in disk.items() if n)}"
    if isinstance(root, Path) and (free := _free(root)) < total:
        yield f"  {DOUBT} the disk of {plain(str(root))} has {size(free)} left"
    yield from (f"  {plain(title):<24}  {plain(text)}" for title, text in _steps(works))


def _time(works: Sequence[Work]) -> str:
    """Of all steps together. Those without a known speed are named, and so is the start of short ones."""
    untimed = [work for work in works if work.rate is None]
    without = f"{_titles(untimed)} (no speed is known)"
    if len(untimed) == len(works):
        return f"hours not known: {without}"
    least, most = _seconds(works)
    text = _between(least, most)
    n_steps = len({(work.step, work.name) if work.step == DETECT else i for i, work in enumerate(works)})
    if n_steps > 1 and most < STARTS * n_steps:
        text += f" and some seconds for the start of each of {n_steps} steps"
    return f"{text}; without {without}" if untimed else text


def _titles(works: Sequence[Work]) -> str:
    """Each once: `convert 3dpw, amass, extract resnet50`."""
    names = {step: dict.fromkeys(work.name for work in works if work.step == step) for step in STEPS}
    return ", ".join(f"{step} {', '.join(names[step])}" for step in STEPS if names[step])


def _seconds(works: Sequence[Work]) -> tuple[float, float]:
    """At least and at most, of those with a known speed."""
    seconds = [work.seconds for work in works if work.seconds is not None]
    return sum(least for least, _ in seconds), sum(most for _, most in seconds)


def _steps(works: Sequence[Work]) -> Iterator[tuple[str, str]]:
    """Each kind of step, such as `extract resnet50`, with its hours and the speed that they follow from."""
    for step, name in dict.fromkeys((work.step, work.name) for step in STEPS for work in works if work.step == step):
        same = [work for work in works if (work.step, work.name) == (step, name)]
        carried, rows, rate = sum(work.carried for work in same), sum(work.rows for work in same), same[0].rate
        least, most = _seconds(same)
        texts = [] if rate is None else [f"{_between(least, most)} {_speed(rate, rows / most)}"]
        if carried:
            texts.append(f"of {_about(rows)} rows at most {_about(carried)} are carried over, not computed")
        if texts:
            yield f"{step} {name}", "; ".join(texts)
    untimed = [work for work in works if work.rate is None]
    for step in STEPS:
        if same := [work for work in untimed if work.step == step]:
            yield "no speed is known", f"{_titles(same)}: {MEASURED_BY[step]}"


def _between(least: float, most: float) -> str:
    """
    >>> _between(9, 9.2), _between(0, 61), _between(3600, 9000)
    ('9 s', 'at most 61 s', '60 min to 2.5 h')
    """
    if duration(least) == duration(most):
        return duration(most)
    return f"{duration(least)} to {duration(most)}" if least else f"at most {duration(most)}"


def _speed(rate: Rate, rows_a_second: float) -> str:
    """`on 4 devices at 1,200 a second each`, or `at 92 a second, measured here 3 days ago`."""
    if rate.devices:
        return f"on {count(rate.devices, 'device')} at {rate.rows / rate.devices:,.0f} a second each"
    return f"at {_about(rows_a_second)} a second, {rate.source.partition(', over ')[0]}"


def _expected(result: Forecast) -> str:
    """Person-frames of the conversion; rows of streams where these are others."""
    rows, source, error, *_ = result.expected
    new = "no new person-frames"
    if result.expected.videos:
        new = f"about {_about(rows or 0)} person-frames{f' ± {error:.0%}' if error else ''}, {source}"
    others = (work for work in result.extractions.values() if work.rows > (rows or 0))
    return "; ".join([new, *(f"extract {work.name}: {_about(work.rows)} rows" for work in others)])


def _about(n: float) -> str:
    """
    >>> [_about(n) for n in (0, 987.4, 81749, 41_234_567, 2.1e9)]
    ['0', '987', '81,700', '41.2 million', '2,100 million']
    """
    if n >= 1e6:
        return f"{float(f'{n / 1e6:.3g}'):,.10g} million"
    return f"{float(f'{n:.3g}'):,.0f}"


def _free(root: Path) -> int:
    """Bytes left on the disk of a folder that need not be there yet."""
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def forecast_as_dict(found: Forecast | None) -> dict[str, Any] | None:
    """For --json."""
    if found is None:
        return None
    rated = {name: work.rate for name, work in found.works.items() if work.rate is not None}
    seconds = {name: work.seconds for name, work in found.works.items()}
    return {
        "rows": found.expected.rows,
        "source": found.expected.source,
        "error": found.expected.error,
        "bytes": {"columns": found.columns, **found.bytes, "tables": found.tables},
        "steps": {name: {"rows": work.rows, "carried_at_most": work.carried} for name, work in found.works.items()},
        "seconds": {name: None if both is None else both[1] for name, both in seconds.items()},
        "seconds_at_least": {name: None if both is None else both[0] for name, both in seconds.items()},
        "rates": {name: {"rows_a_second": rate.rows, "source": rate.source} for name, rate in rated.items()},
    }
