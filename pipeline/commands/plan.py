"""`python -m pipeline plan`: what would run, how much, and why. Writes nothing."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.console import DONE, DOUBT, IDLE, WRONG, duration, err, out, plain, show_json, size
from pipeline.cli.options import cores, json_option, whole, workers_option
from pipeline.cli.text import FEW, command, count, few
from pipeline.conversion.plan import ConversionPlan
from pipeline.errors import PipelineError
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import KINDS
from pipeline.maintenance.forecast import CONVERT, Forecast, Rate, bytes_of_a_crop, forecast, measured_rates, readable
from pipeline.maintenance.overview import SplitPlan, StreamPlan, plan_split
from pipeline.raw.changes import what_differs
from pipeline.raw.stand_in import is_stand_in
from pipeline.settings.arguments import check_own_folder, joined
from pipeline.settings.commands import body_of, dataset_of
from pipeline.settings.file import settings_file
from pipeline.settings.targets import Target, absent, broken_in, by_settings, stream_named

HELP: Final = (
    "Show what conversion and extraction would do, how much, and why: `make data` by luigi.cfg, or one split with "
    "--raw and --cache. Training is not included."
)


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "names", nargs="*", metavar="DATASET[/SPLIT]", help="only these; with --raw, the one split of that folder"
    )
    sub.add_argument("--all", action="store_true", help="name every video, not the first few")
    json_option(sub, "; always names all videos")
    add = sub.add_argument
    add(
        "--sample", type=whole(1), default=0, metavar="N", help="forecast: read N videos of every split to be converted"
    )
    add("--rate", type=whole(1), help="forecast: rows a second of each device; default: as measured on this machine")
    add("--devices", type=whole(1), default=1, help="forecast: with --rate, how many devices (default 1)")
    workers_option(sub, "forecast: processes that read the sample")
    target_options(sub)


def target_options(sub: argparse.ArgumentParser) -> None:
    """For commands that compare the cache with luigi.cfg, or with one raw folder."""
    sub.set_defaults(reads=reads)
    add = sub.add_argument
    add("--config", type=Path, help="another luigi.cfg than LUIGI_CONFIG_PATH or ./luigi.cfg")
    add("--cache", type=cache.place_of, help="the cache's folder or URL; default: [paths] cache of luigi.cfg")
    add("--raw", type=Path, help="a dataset's own raw folder, instead of those of luigi.cfg")
    add("--body", type=Path, help="with --raw: SMPL's files, for datasets that need them; default: [paths] body")
    add("--stream", help="with --raw and --weights: the stream's name; default: every stream there is")
    add("--weights", help=f"with --raw: the network's, {', '.join(f'{kind}:...' for kind in KINDS)}")
    add("--precision", choices=["exact", "fast"], help="with --raw and --weights; default: [features] precision")


def reads(args: argparse.Namespace) -> list[str] | None:
    """With --raw the dataset's section, [paths] body and the stream's options; else all of luigi.cfg."""
    of_stream = ["features.precision", ResNet50.kind] if args.weights else []
    name = "/".join(args.names).partition("/")[0]
    return None if args.raw is None else [name, "paths.body", *of_stream]


def run(args: argparse.Namespace) -> int:
    """What would run, split by split; one with an error shows it, and the others follow. Exit code 2 then."""
    targets = targets_of(args, args.names)
    plans, lacking = [plan_split(target) for target in targets], absent(targets)
    broken = [] if args.raw is not None or args.names else broken_in(args.config or settings_file())
    for text in broken:
        err.print(f"{DOUBT} {plain(text)}: left out")
    forecasts = forecasts_of(plans, args)
    if args.json:
        show_json([as_dict(plan, lacking) | {"forecast": forecast_as_dict(forecasts.get(plan.name))} for plan in plans])
    else:
        most = None if args.all else FEW
        for plan in plans:
            for line in lines(plan, most, lacking):
                out.print(line)
        for line in forecast_lines([*forecasts.values()], plans[0].target.root if plans else ""):
            out.print(line)
        for line in _new_times(plans, args):
            out.print(line)
        for text in lacking:
            out.print(f"{WRONG} {plain(text)}")
        if plans and all(plan.up_to_date for plan in plans):
            out.print(f"up to date: {count(len(plans), 'split')} converted and extracted (training is not included)")
    return 2 if broken or lacking or any(plan.problems for plan in plans) else 0


def targets_of(args: argparse.Namespace, names: Sequence[str]) -> list[Target]:
    """What the arguments ask for. Raises PipelineError where they do not fit together, ConfigError of luigi.cfg."""
    if args.raw is None:
        if alone := [f"--{name}" for name in ("body", "stream", "weights", "precision") if getattr(args, name)]:
            raise PipelineError(f"{alone[0]} goes with --raw DIR; without it, luigi.cfg sets everything but --cache")
        return by_settings(args.config or settings_file(), joined(names), args.cache)
    name, _, split = "/".join(names).partition("/")
    if args.cache is None or not split or "/" in split:
        raise PipelineError(
            "--raw is one dataset's own folder: name the split and --cache, as DATASET SPLIT --cache DIR"
        )
    if args.precision is not None and args.weights is None:
        raise PipelineError("--precision goes with --weights")
    dataset, spec = dataset_of(args, name), None
    check_own_folder(args.raw, dataset)
    dataset.check_split(split)
    if args.weights is not None:
        stream = stream_named(ResNet50.kind, args.weights, args.precision, {}, args.source)
        spec = StreamSpec(args.stream or stream.kind, stream, raw=args.raw)
    body = body_of(args, dataset, demo=is_stand_in(args.raw))
    return [Target(dataset, split, args.raw, args.cache, body, spec)]


def lines(plan: SplitPlan, most: int | None, shown: Collection[str] = ()) -> Iterator[str]:
    """A split's plans as text, ready to be printed. `most`: so many videos by name; None: all. `shown`: problems that
    are printed once for all splits."""
    todo, more = plan.conversion, ""
    if plan.up_to_date and todo is not None:
        has = "".join(f", {plain(stream.stream)}" for stream in plan.extractions)
        yield f"{DONE} {plain(plan.name)}: up to date ({count(todo.n_videos, 'video')}{has})"
    else:
        yield f"[bold]{plain(plan.name)}[/bold]"
    if plan.target.not_made:
        yield "  convert  all of it, once the demo data are made: they are not there yet"
        return
    if todo is not None and todo.why:
        more = ", and new rows of the conversion"
        yield from (f"  {line}" for line in _conversion(plan, todo, most))
    yield from (f"  {line}" for line in _notes(plan))
    for stream in () if plan.up_to_date else plan.extractions:
        if stream.why:
            yield from (f"  {line}" for line in _extraction(plan, stream, more))
        elif more and not stream.differs and (todo is None or todo.append):
            again = f", about {count(plan.rows_again, 'row')} of changed videos among them" if plan.rows_again else ""
            yield f"  extract  {plain(stream.stream)}: new rows of the conversion{again}"
    if plan.committed is None and plan.target.stream is not None and not plan.problems:
        yield f"  extract  {plain(plan.target.stream.name)}: all rows of the conversion"
    for problem in plan.problems:
        yield f"  {WRONG} {plain(problem) if problem not in shown else 'cannot be planned: see the last lines'}"


def _conversion(plan: SplitPlan, todo: ConversionPlan, most: int | None) -> Iterator[str]:
    of = f"{count(len(todo.append), 'video')} to read of {len(todo.stamps):,}"
    yield f"convert  {of}, {size(plan.bytes_of_labels)} of labels and videos"
    yield f"  why    {plain(todo.why)}"
    if todo.differs or plan.committed is None:
        return
    videos = [f"new      {name}" for name in todo.new]
    videos += [f"changed  {name}: {'; '.join(differences)}" for name, differences in _changed(todo).items()]
    videos += [f"renamed  {old} -> {name}" for name, old in todo.renamed.items()]
    videos += [f"removed  {name}" for name in todo.removed]
    for line in few(videos, len(videos) if most is None else most, "plan --all, or --json"):
        yield f"  {plain(line)}"
    if plan.rows_again:
        yield f"  the changed ones have {count(plan.rows_again, 'row')} now, {size(plan.bytes_again)}"


def _changed(todo: ConversionPlan) -> dict[str, list[str]]:
    """Changed video -> what differs of its files."""
    recorded = todo.recorded()
    return {name: what_differs(recorded.get(name), todo.stamps[name]) for name in todo.changed}


def _extraction(plan: SplitPlan, todo: StreamPlan, more: str) -> Iterator[str]:
    lacks, of = todo.lacks, plan.committed.manifest["rows"] if plan.committed is not None else 0
    shards = count(len(lacks.shards), "shard")
    yield f"extract  {plain(todo.stream)}: {lacks.rows:,} of {count(of, 'row')} in {shards}, {size(todo.n_bytes)}{more}"
    yield f"  why    {plain(todo.why)}"
    if lacks.carried_at_most:
        yield f"  at most {lacks.carried_at_most:,} of them are carried over from rows that were replaced"


def _notes(plan: SplitPlan) -> Iterator[str]:
    """Videos that are gone, streams that no task extracts, and accepted differences."""
    for text in () if plan.conversion is None else plan.conversion.missing_lines:
        yield f"{WRONG} {plain(text)}"
    for stream in plan.behind:
        split = command("extract", plan.target.dataset.name, plan.target.split, "--cache", str(plan.target.root))
        yield f"{DOUBT} " + plain(
            f"stream {stream.stream} lacks {count(stream.lacks.rows, 'row')}, and `make data` extracts only "
            f"[features] stream: {split} --stream {stream.stream}, with the options that it was extracted with"
        )
    yield from (f"{IDLE} {plain(text)}" for text in plan.accepted)


def _new_times(plans: Sequence[SplitPlan], args: argparse.Namespace) -> Iterator[str]:
    """Files whose content every plan reads, and the one command that records their times."""
    touched = [plan for plan in plans if plan.conversion is not None and plan.conversion.touched]
    if touched:
        n = sum(len(plan.conversion.touched) for plan in touched if plan.conversion is not None)
        given = {option: getattr(args, option) for option in ("config", "cache", "raw", "body")}
        options = [word for option, value in given.items() if value is not None for word in (f"--{option}", str(value))]
        text = f"{count(n, 'video')} of {count(len(touched), 'split')} with new file times and the same content"
        yield f"{DOUBT} {text}, which every plan reads to compare. Record them:"
        yield f"    {plain(command('accept', *args.names, *options))}"


# -------------------------------------------------------------------------------------------------------- forecast


def forecasts_of(plans: Sequence[SplitPlan], args: argparse.Namespace) -> dict[str, Forecast]:
    """By split, of those where something is to be done. Reads a sample of videos where --sample asks for one."""
    if args.devices > 1 and args.rate is None:
        raise PipelineError("--devices goes with --rate: rows a second of each device")
    splits = readable(plans[0].target.root) if plans else []
    rates = measured_rates(splits)
    if args.rate is not None:
        on = f"given: {count(args.devices, 'device')} at {args.rate:,} a second"
        streams = {spec.name for plan in plans for spec in (plan.target.stream, *plan.target.also) if spec}
        streams |= {stream.stream for plan in plans for stream in plan.extractions}
        rates |= dict.fromkeys(streams, Rate(args.rate * args.devices, on, devices=args.devices))
    more = {"sample": args.sample, "workers": cores(args.workers), "crop": bytes_of_a_crop(splits)}
    found = {plan.name: forecast(plan, rates, **more) for plan in plans}
    return {name: one for name, one in found.items() if one is not None}


def forecast_lines(found: Sequence[Forecast], root: cache.Root) -> Iterator[str]:
    """Person-frames by split, and of which they are not known; of the others person-frames, bytes and hours in all."""
    if not found:
        return
    yield "[bold]forecast[/bold]"
    known = [one for one in found if one.expected.rows is not None]
    yield from (f"  {plain(one.split):<24}  {plain(_expected(one))}" for one in known)
    for why in dict.fromkeys(one.expected.source for one in found if one.expected.rows is None):
        names = ", ".join(one.split for one in found if one.expected.rows is None and one.expected.source == why)
        yield f"  {'no forecast':<24}  {plain(names)}: {why}"
    rows = sum(max(one.expected.rows or 0, *one.rows.values(), 0) for one in known)
    if not rows:
        return
    of: dict[str, float] = {"columns": sum(one.columns for one in known)}
    for one in known:
        for name, n_bytes in one.bytes.items():
            of[name] = of.get(name, 0) + n_bytes
    total, timed = sum(of.values()), sum(seconds or 0 for one in known for seconds in one.seconds.values())
    hours = f", {duration(timed)}" if timed else ""
    without = f", without {count(len(found) - len(known), 'split')} of unknown size" * (len(known) < len(found))
    yield f"  {'in all':<24}  about {_about(rows)} person-frames, {size(total)}{hours}{without}"
    yield f"  {'disk':<24}  {', '.join(f'{plain(name)} {size(n)}' for name, n in of.items() if n)}"
    if isinstance(root, Path) and (free := _free(root)) < total:
        yield f"  {DOUBT} the disk of {plain(str(root))} has {size(free)} left"
    yield from (f"  {plain(what):<24}  {plain(text)}" for what, text in _hours(known))


def _hours(known: Sequence[Forecast]) -> Iterator[tuple[str, str]]:
    """`convert DATASET` and `extract STREAM`, each with its hours and the speed that they follow from."""
    works: dict[str, list[tuple[Forecast, str]]] = {}
    for one in known:
        for work in one.seconds:
            what = f"{CONVERT} {one.split.partition('/')[0]}" if work == CONVERT else f"extract {work}"
            works.setdefault(what, []).append((one, work))
    for what, parts in works.items():
        rated = [(one, work) for one, work in parts if work in one.rates]
        if rated:
            seconds = sum(one.seconds[work] or 0 for one, work in rated)
            done = sum(_rows(one, work) for one, work in rated)
            yield what, f"{duration(seconds)} {_speed(rated[0][0].rates[rated[0][1]], done / seconds)}"
    if unknown := [what for what, parts in works.items() if any(work not in one.rates for one, work in parts)]:
        do = "--sample 16 measures conversions, --rate gives extractions one"
        yield "not in these hours", f"{', '.join(unknown)}: no speed was measured here ({do})"


def _rows(one: Forecast, work: str) -> float:
    return one.expected.rows or 0 if work == CONVERT else one.rows[work]


def _speed(rate: Rate, rows_a_second: float) -> str:
    """`on 4 devices at 1,200 a second each`, or `at 92 a second, measured here 3 days ago`."""
    if rate.devices:
        return f"on {count(rate.devices, 'device')} at {rate.rows / rate.devices:,.0f} a second each"
    return f"at {_about(rows_a_second)} a second, {rate.source.partition(', over ')[0]}"


def _expected(one: Forecast) -> str:
    rows, source, error, _ = one.expected
    rows = rows or 0
    new = f"about {_about(rows)} person-frames{f' ± {error:.0%}' if error else ''}, {source}" if rows else source
    return "; ".join([new, *(f"{name} lacks {_about(n - rows)} rows" for name, n in one.rows.items() if n > rows)])


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
    return {
        "rows": found.expected.rows,
        "source": found.expected.source,
        "error": found.expected.error,
        "bytes": {"columns": found.columns, **found.bytes},
        "seconds": found.seconds,
        "rates": {work: {"rows_a_second": rate.rows, "source": rate.source} for work, rate in found.rates.items()},
    }


def as_dict(plan: SplitPlan, more_problems: Sequence[str] = ()) -> dict[str, Any]:
    """For --json."""
    todo, conversion = plan.conversion, None
    if todo is not None:
        by_video = not todo.differs and plan.committed is not None
        n_videos = {"read": len(todo.append), "of": len(todo.stamps), "kept": todo.kept, "touched": len(todo.touched)}
        conversion = {
            "why": todo.why,
            "reader": [difference.as_dict() for difference in todo.differs],
            "videos": n_videos,
            "new": list(todo.new) if by_video else [],
            "changed": _changed(todo) if by_video else {},
            "removed": list(todo.removed) if by_video else [],
            "renamed": dict(todo.renamed),
            "missing": dict(todo.missing),
            "bytes_to_read": plan.bytes_of_labels,
            "rows_again": plan.rows_again,
            "bytes_again": plan.bytes_again,
        }
    return {
        "split": plan.name,
        "nothing_to_do": plan.up_to_date,
        "to_be_made": plan.target.not_made,
        "convert": conversion,
        "extract": [
            {
                "stream": stream.stream,
                "why": stream.why,
                "identity": [difference.as_dict() for difference in stream.differs],
                "shards": len(stream.lacks.shards),
                "rows": stream.lacks.rows,
                "carried_at_most": stream.lacks.carried_at_most,
                "bytes": stream.n_bytes,
            }
            for stream in plan.extractions
        ],
        "problems": list(dict.fromkeys([*plan.problems, *more_problems])),
        "behind": [{"stream": stream.stream, "rows": stream.lacks.rows} for stream in plan.behind],
    }
