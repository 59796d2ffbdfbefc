"""`python -m pipeline doctor`: what of each download is there, what is missing, what to do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cache
from pipeline import datasets
from pipeline.cli.console import DOUBT, WRONG, err, out, plain, show, show_json
from pipeline.cli.options import json_option
from pipeline.cli.text import command
from pipeline.datasets.release import globs
from pipeline.doctor import examine
from pipeline.doctor.examine import Examination
from pipeline.doctor.report import NOT_NEEDED, TO_BE_MADE, print_problems, table
from pipeline.errors import PipelineError
from pipeline.features.weights import FORMS
from pipeline.raw import listing
from pipeline.settings.file import settings_file
from pipeline.settings.sections import load

HELP: Final = "Look at the raw folders: what is there, what is missing, what to do. Exit 1 when something is missing."


@dataclass(frozen=True, slots=True)
class Scope:
    """What is to be looked at, and where."""

    raw: Path  # raw/<dataset>/ is that dataset's own download
    body: Path | None
    cache: cache.Root
    datasets: tuple[str, ...]
    made: frozenset[str]  # of these, stand-ins will be made where there is nothing
    by_make: bool  # luigi.cfg leads there, so `make data` does the rest
    untrained: bool = False  # [features] weights are a stand-in
    typed: tuple[str, ...] = ()  # the datasets that the command names; none: all
    broken: tuple[str, ...] = ()  # what cannot be looked at, since its package cannot be loaded, in words


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "datasets", nargs="*", metavar="DATASET", help="only these; else all that luigi.cfg enables, or all with --raw"
    )
    sub.add_argument("--raw", type=Path, help="the folder that holds <dataset>/; else [paths] raw of luigi.cfg")
    sub.add_argument("--body", type=Path, help="the folder of SMPL's files; else [paths] body, unless --raw is given")
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """A table of parts; below it, what to do about those that are not there."""
    scope = scope_of(args.datasets, args.raw, args.body)
    for text in scope.broken:
        err.print(f"{DOUBT} {plain(text)}: left out")
    examined = [examine.examine(datasets.get(name), scope.raw / name) for name in scope.datasets]
    body = None if scope.body is None else examine.examine_body(scope.body)
    mixtures = list(examine.mixtures(examined, body))
    lacking = [e for e in examined if e.missing and e.dataset not in scope.made]
    if body is not None and body.missing and not scope.made and any(e.uses_body for e in examined):
        lacking.append(body)
    shown = [*examined, *([body] if body is not None else [])]
    made = {*scope.made, *([examine.BODY] if scope.made else [])}
    unneeded = args.body is None and body is not None and bool(body.missing) and not any(e.uses_body for e in examined)
    states = dict.fromkeys(made, TO_BE_MADE) | ({examine.BODY: NOT_NEEDED} if unneeded else {})
    if args.json:
        told = [as_dict(e, states.get(e.dataset, "")) for e in shown]
        show_json({"examined": told, "mixtures": [m._asdict() for m in mixtures]})
        return 1 if lacking or mixtures or scope.broken else 0
    show(table(shown, states))
    for e in shown:
        print_problems(e, states.get(e.dataset, ""))
    for mixture in mixtures:
        out.print(f"\n{WRONG} {plain(f'{mixture.what}. {mixture.do}')}")
    for line in next_steps(scope, examined, body, [e.dataset for e in lacking]):
        out.print(plain(line))
    return 1 if lacking or mixtures or scope.broken else 0


def as_dict(e: Examination, state: str) -> dict[str, Any]:
    """For a machine to read. `state`: of what is missing, where nobody has to bring it."""
    told = e.as_dict()
    for part in told["parts"]:
        if state and part["state"] == "missing":
            part["state"] = state
    return told


def scope_of(names: Sequence[str], raw: Path | None, body: Path | None) -> Scope:
    """What the options and luigi.cfg say together.

    Raises PipelineError for an unknown dataset, PlugInError for one that is named and cannot be loaded, ConfigError.
    """
    known = datasets.names()
    if unknown := sorted(set(names) - set(known)):
        raise PipelineError(f"no dataset is called {unknown[0]!r}; known: {', '.join(known)}")
    if raw is not None:
        check_raw(raw, "--raw", tuple(names))
        whole, broken = _loadable(known)
        chosen, by_default = tuple(names) or whole, Path("data/cache")
        return Scope(raw, body, by_default, chosen, frozenset(), by_make=False, typed=tuple(names), broken=broken)
    from pipeline import synthetic  # imports what renders: as much as all other commands need together

    do = "Run from the project's folder, set LUIGI_CONFIG_PATH, or name the folder of the data: --raw DIR."
    found = load(settings_file(), do)
    enabled, paths = found.data.datasets, found.paths
    whole, broken = _loadable(enabled)
    chosen = tuple(names) or whole
    made = frozenset(chosen) & frozenset(synthetic.LAYOUTS) if found.embedded.enabled else frozenset[str]()
    if not found.embedded.enabled:
        check_raw(paths.raw, f"{found.file}, [paths] raw", chosen)
    by_make, untrained = set(chosen) <= set(enabled), found.features.weights.startswith("untrained")
    return Scope(paths.raw, body or paths.body, paths.cache, chosen, made, by_make, untrained, tuple(names), broken)


def _loadable(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of which the package is whole, and what is wrong with the others."""
    broken = datasets.broken(names)
    return tuple(name for name in names if name not in broken), tuple(broken.values())


def check_raw(raw: Path, said: str, names: Sequence[str]) -> None:
    """Raise PipelineError for what cannot be the folder that holds the datasets' own folders.

    `names`: the datasets that were asked for; none: all are looked at.
    """
    if not listing.is_there(raw):
        why = "it is a link to what is not there" if raw.is_symlink() else "there is no such folder (a typo?)"
        raise PipelineError(f"{said} {raw}: {why}. Name the folder that holds <dataset>/, or make it: mkdir -p {raw}")
    if not listing.is_folder_there(raw):
        raise PipelineError(f"{said} {raw} is a file. Name the folder that holds <dataset>/")
    own = raw.resolve()
    for name in names or _loadable(datasets.names())[0]:
        patterns = [glob for part in datasets.get(name).parts for glob in globs(part.patterns)]
        alike = listing.letters(own.name) == listing.letters(name) and not listing.is_there(raw / name)
        if alike and (names or listing.any_fits(raw, patterns)):
            renamed = "" if own.name == name else f", renamed to {name}"
            again = command("doctor", *names, "--raw", str(own.parent))
            what = f"{said} {raw} is {name}'s own folder: the folder that holds it{renamed}, is meant"
            raise PipelineError(f"{what.replace('it, is', 'it is')}. {again}")


def next_steps(
    scope: Scope, examined: Sequence[Examination], body: Examination | None, lacking: Sequence[str]
) -> Iterator[str]:
    """The command that comes next, ready to be run."""
    yield ""
    where = [] if scope.by_make else ["--raw", str(scope.raw)]
    if where and scope.body is not None:
        where += ["--body", str(scope.body)]
    clashing = [e.dataset for e in examined if e.usable and body is not None and examine.clash(e, body)]
    if lacking or clashing:
        yield f"When that is done: {command('doctor', *scope.typed, *where)}"
    if scope.by_make:
        yield from _by_make(scope, examined, clashing, lacking)
        return
    body_is_there = body is None or not body.missing
    ready = [e for e in examined if e.usable and e.dataset not in clashing and (body_is_there or not e.uses_body)]
    if ready:
        yield "To convert what is there:"
    caches = {stand_in: other_cache(scope.cache, stand_in) for stand_in in {e.stand_in for e in ready}}
    for e in ready:
        rest = ["--raw", str(e.raw)]
        rest += ["--body", str(scope.body)] if e.uses_body and scope.body is not None else []
        rest += ["--cache", str(caches[e.stand_in][0])]
        for split in e.usable:
            yield "  " + command("convert", e.dataset, split, *rest)
    yield from (why for _, why in caches.values() if why)


def _by_make(
    scope: Scope, examined: Sequence[Examination], clashing: Sequence[str], lacking: Sequence[str]
) -> Iterator[str]:
    """What is to be set in luigi.cfg, and that `make data` comes next."""
    real = [e for e in examined if e.usable and not e.stand_in]
    first = []
    if scope.untrained and (pixels := [e.dataset for e in real if datasets.get(e.dataset).has_pixels]):
        first.append(f"[features] weights = {FORMS} (untrained ones are for stand-ins, and {', '.join(pixels)}: real)")
    if real and (why := other_cache(scope.cache, stand_in=False)[1]):
        first.append(f"[paths] cache to another folder ({why})")
    if first:
        yield "First, in luigi.cfg, set " + ", and ".join(first)
    if not lacking and not clashing:
        yield "Then: make data" if first else "Next, unless `plan` has nothing to do: make data"
    elif len(lacking) < len(examined) and lacking:
        yield "Or take out of [data] datasets what you do not have, and: make data"


def other_cache(root: cache.Root, stand_in: bool) -> tuple[cache.Root, str]:
    """A cache for data of this kind, and why it is not `root`: because that holds splits of the other kind."""
    kinds = {True: "stand-ins", False: "real data"}
    if isinstance(root, Path) and not listing.is_folder_there(root):
        return root, ""
    if isinstance(root, str) and not cache.store_at(root).exists("zarr.json"):
        return root, ""
    splits = cache.open(root)
    held = [name for name in splits if bool(splits[name].manifest["stand_in"]) != stand_in]
    if not held:
        return root, ""
    why = f"{root} holds {kinds[not stand_in]}, {held[0]} for one: no training takes both"
    kind = "_stand_ins" if stand_in else "_real"
    return (f"{root.rstrip('/')}{kind}" if isinstance(root, str) else root.with_name(root.name + kind)), why
