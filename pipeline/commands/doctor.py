"""`python -m pipeline doctor`: what is found of each download, what is missing, what to do."""

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

HELP: Final = (
    "Examine the raw folders: what is found, what is missing, what to do. Exit code 1 when something is missing."
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is examined, and where."""

    raw: Path  # raw/<dataset>/ is that dataset's own download
    body: Path | None
    cache: cache.Root
    datasets: tuple[str, ...]
    broken: tuple[str, ...]  # messages: datasets that are not examined, since their package cannot be loaded
    named: tuple[str, ...]  # the datasets that the command names; none: all
    made: frozenset[str] = frozenset()  # of these, demo data will be made where there is nothing
    by_make: bool = False  # luigi.cfg has these folders, so that `make data` does the rest
    untrained: bool = False  # [features] weights are an untrained network's


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "datasets", nargs="*", metavar="DATASET", help="only these; default: all of luigi.cfg, or all with --raw"
    )
    sub.add_argument("--raw", type=Path, help="the folder that holds <dataset>/; default: [paths] raw of luigi.cfg")
    sub.add_argument(
        "--body", type=Path, help="the folder of SMPL's files; default: [paths] body, unless --raw is given"
    )
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """A table of parts; below it, what to do about those that are missing."""
    scope = _scope(tuple(args.datasets), args.raw, args.body)
    for text in scope.broken:
        err.print(f"{DOUBT} {plain(text)}: left out")
    examined = [examine.examine(datasets.get(name), scope.raw / name) for name in scope.datasets]
    body = None if scope.body is None else examine.examine_body(scope.body)
    needed = any(e.uses_body for e in examined)
    mixtures = list(examine.mixtures(examined, body))
    lacking = [e.dataset for e in examined if e.missing and e.dataset not in scope.made]
    if body is not None and body.missing and needed and not scope.made:
        lacking.append(body.dataset)
    shown = [*examined, *([body] if body is not None else [])]
    states = dict.fromkeys(scope.made, TO_BE_MADE)
    if scope.made:
        states[examine.BODY] = TO_BE_MADE
    if args.body is None and body is not None and body.missing and not needed:
        states[examine.BODY] = NOT_NEEDED
    code = 1 if lacking or mixtures or scope.broken else 0
    if args.json:
        documents = [_as_dict(e, states.get(e.dataset, "")) for e in shown]
        show_json({"examined": documents, "mixtures": [mixture._asdict() for mixture in mixtures]})
        return code
    show(table(shown, states))
    for e in shown:
        print_problems(e, states.get(e.dataset, ""))
    for mixture in mixtures:
        out.print(f"\n{WRONG} {plain(f'{mixture.what}. {mixture.do}')}")
    for line in _next_steps(scope, examined, body, lacking):
        out.print(plain(line))
    return code


def _as_dict(e: Examination, state: str) -> dict[str, Any]:
    """For --json. `state`: of missing parts that the user need not provide."""
    document = e.as_dict()
    for part in document["parts"]:
        if state and part["state"] == "missing":
            part["state"] = state
    return document


def _scope(names: tuple[str, ...], raw: Path | None, body: Path | None) -> Scope:
    """The options, completed from luigi.cfg.

    Raises PipelineError for an unknown dataset, PlugInError for one that is named and cannot be loaded, ConfigError.
    """
    known = datasets.names()
    if unknown := sorted(set(names) - set(known)):
        raise PipelineError(f"no dataset is called {unknown[0]!r}; known: {', '.join(known)}")
    if raw is not None:
        _check_raw(raw, "--raw", names)
        broken = datasets.broken(known)
        chosen = names or tuple(name for name in known if name not in broken)
        return Scope(raw, body, Path("data/cache"), chosen, tuple(broken.values()), names)
    from pipeline import synthetic  # imports what renders: as much as all other commands need together

    found = load(
        settings_file(),
        "Run from the project's folder, set LUIGI_CONFIG_PATH, or name the folder of the data: --raw DIR.",
    )
    enabled, paths = found.data.datasets, found.paths
    broken = datasets.broken(enabled)
    chosen = names or tuple(name for name in enabled if name not in broken)
    if not found.embedded.enabled:
        _check_raw(paths.raw, f"{found.file}, [paths] raw", chosen)
    return Scope(
        paths.raw,
        body or paths.body,
        paths.cache,
        chosen,
        tuple(broken.values()),
        names,
        made=frozenset(chosen) & frozenset(synthetic.LAYOUTS if found.embedded.enabled else ()),
        by_make=set(chosen) <= set(enabled),
        untrained=found.features.weights.startswith("untrained"),
    )


def _check_raw(raw: Path, option: str, names: Sequence[str]) -> None:
    """Raise PipelineError for what cannot be the folder that holds the datasets' own folders.

    `names`: the datasets to examine; none: all.
    """
    if not listing.is_there(raw):
        why = "a link to a missing folder" if raw.is_symlink() else "there is no such folder (a typo?)"
        raise PipelineError(f"{option} {raw}: {why}. Name the folder that holds <dataset>/, or make it: mkdir -p {raw}")
    if not listing.is_folder_there(raw):
        raise PipelineError(f"{option} {raw} is a file. Name the folder that holds <dataset>/")
    own = raw.resolve()
    known = datasets.names()
    for name in names or [name for name in known if name not in datasets.broken(known)]:
        patterns = globs([pattern for part in datasets.get(name).parts for pattern in part.patterns])
        alike = listing.letters(own.name) == listing.letters(name) and not listing.is_there(raw / name)
        if alike and (names or listing.any_fits(raw, patterns)):
            holder = "the folder that holds it" + ("" if own.name == name else f", renamed to {name}")
            again = command("doctor", *names, "--raw", str(own.parent))
            raise PipelineError(f"{option} {raw} is {name}'s own folder. Name {holder}: {again}")


def _next_steps(
    scope: Scope, examined: Sequence[Examination], body: Examination | None, lacking: Sequence[str]
) -> Iterator[str]:
    """The next command, to be copied."""
    yield ""
    where = [] if scope.by_make else ["--raw", str(scope.raw)]
    if where and scope.body is not None:
        where += ["--body", str(scope.body)]
    clashing = [e.dataset for e in examined if e.usable and body is not None and examine.clash(e, body)]
    if lacking or clashing:
        yield f"When that is done: {command('doctor', *scope.named, *where)}"
    if scope.by_make:
        yield from _by_make(scope, examined, clashing, lacking)
        return
    has_body = body is None or not body.missing
    ready = [e for e in examined if e.usable and e.dataset not in clashing and (has_body or not e.uses_body)]
    if ready:
        yield "To convert what was found:"
    caches = {stand_in: _other_cache(scope.cache, stand_in) for stand_in in {e.stand_in for e in ready}}
    for e in ready:
        rest = ["--raw", str(e.raw)]
        rest += ["--body", str(scope.body)] if e.uses_body and scope.body is not None else []
        rest += ["--cache", str(caches[e.stand_in][0])]
        yield from (f"  {command('convert', e.dataset, split, *rest)}" for split in e.usable)
    yield from (why for _, why in caches.values() if why)


def _by_make(
    scope: Scope, examined: Sequence[Examination], clashing: Sequence[str], lacking: Sequence[str]
) -> Iterator[str]:
    """What to set in luigi.cfg, and that `make data` comes next."""
    real = [e for e in examined if e.usable and not e.stand_in]
    first = []
    if scope.untrained and (pixels := [e.dataset for e in real if datasets.get(e.dataset).has_pixels]):
        first.append(f"[features] weights = {FORMS} (untrained ones are for demo data; real: {', '.join(pixels)})")
    if real and (why := _other_cache(scope.cache, stand_in=False)[1]):
        first.append(f"[paths] cache to another folder ({why})")
    if first:
        yield "First, in luigi.cfg, set " + ", and ".join(first)
    if not lacking and not clashing:
        yield "Then: make data" if first else "Next, unless `plan` shows that all is up to date: make data"
    elif lacking and len(lacking) < len(examined):
        yield "Or remove the datasets that you do not have from [data] datasets, and: make data"


def _other_cache(root: cache.Root, stand_in: bool) -> tuple[cache.Root, str]:
    """A cache for data of this kind, and why it is not `root`: because that holds splits of the other kind."""
    if not (listing.is_folder_there(root) if isinstance(root, Path) else cache.store_at(root).exists("zarr.json")):
        return root, ""
    splits = cache.open(root)
    other = next((name for name in splits if bool(splits[name].manifest["stand_in"]) != stand_in), None)
    if other is None:
        return root, ""
    why = f"{root} holds {'real' if stand_in else 'demo'} data, {other} for one: no training takes both"
    suffix = "_stand_ins" if stand_in else "_real"
    return (f"{root.rstrip('/')}{suffix}" if isinstance(root, str) else root.with_name(root.name + suffix)), why
