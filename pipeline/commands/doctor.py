"""`python -m pipeline doctor`: what is found of each download, what is missing, what to do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import cache
from pipeline import datasets
from pipeline.cli.console import DOUBT, WRONG, err, out, plain, show, show_json
from pipeline.cli.options import json_option
from pipeline.cli.text import command, count
from pipeline.commands.maintenance.examination_text import NOT_NEEDED, TO_BE_MADE, print_problems, table
from pipeline.commands.maintenance.examine import (
    Examination,
    Problem,
    clashing,
    examine,
    examine_body,
    mixtures,
    unclaimed,
)
from pipeline.commands.settings.commands import dataset_of
from pipeline.commands.settings.file import settings_file
from pipeline.commands.settings.sections import Settings, load
from pipeline.detect.clips import clips_in
from pipeline.detect.files import KEYPOINTS
from pipeline.errors import PipelineError
from pipeline.features.weights import FORMS
from pipeline.files.raw import listing

HELP: Final = (
    "Examine the raw folders: what is found, what is missing, what to do. Exit code 1 when something is missing."
)
NO_SETTINGS: Final = "Run from the project's folder, set LUIGI_CONFIG_PATH, or name the folder of the data: --raw DIR."


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "datasets", nargs="*", metavar="DATASET", help="only these; default: all of luigi.cfg, or all with --raw"
    )
    sub.add_argument("--raw", type=Path, help="the folder that holds <dataset>/; default: [paths] raw of luigi.cfg")
    sub.add_argument(
        "--body", type=Path, help="the folder of SMPL's files; default: [paths] body, unless --raw is given"
    )
    json_option(sub)


def reads(args: argparse.Namespace) -> list[str] | None:
    """With --raw the datasets' sections, else all of luigi.cfg."""
    return None if args.raw is None else list(args.datasets or datasets.names())


def run(args: argparse.Namespace) -> int:
    """A table of parts; below it, what to do about those that are missing.

    Raises PipelineError for an unknown dataset, PlugInError for one that is named and cannot be loaded, ConfigError.
    """
    if unknown := sorted(set(args.datasets) - set(datasets.names())):
        raise PipelineError(f"no dataset is called {unknown[0]!r}; known: {', '.join(datasets.names())}")
    settings = load(settings_file(), NO_SETTINGS) if args.raw is None else None
    enabled = _all_of(args.raw) if settings is None else settings.data.datasets
    broken = datasets.broken(enabled)
    raw, folder, root = args.raw, args.body, cache.place_of("data/cache")
    if settings is not None:
        raw, folder, root = settings.paths.raw, folder or settings.paths.body, settings.paths.cache
    demo = settings is not None and settings.embedded.enabled
    if not demo:
        _check_raw(raw, "--raw" if settings is None else f"{settings.file}, [paths] raw")
    for text in broken.values():
        err.print(f"{DOUBT} {plain(text)}: left out")
    chosen = args.datasets or [name for name in enabled if name not in broken]
    examined = [examine(dataset_of(args, name), _own_folder(raw, name, args.datasets)) for name in chosen]
    if demo:
        examined = [replace(e, excuse=TO_BE_MADE if datasets.has_demo_data(e.dataset) else "") for e in examined]
    needed = any(e.uses_body for e in examined)
    body = None if folder is None else _body(folder, examined, needed or args.body is not None)
    shown = [*examined, *([] if body is None else [body])]
    lacking = [e.dataset for e in shown if e.missing and not e.excuse and (needed or e is not body)]
    mixed = list(mixtures(examined, body))
    clips = {} if demo or args.datasets else _clips(raw, {*enabled, *chosen})
    if args.json:
        found = {"examined": [e.as_dict() for e in shown], "mixtures": [mixture._asdict() for mixture in mixed]}
        show_json(found | {"unclaimed": {str(folder): n for folder, n in clips.items()}})
    else:
        _print(shown, mixed, clips, root)
        by_make = settings if set(chosen) <= set(enabled) else None
        for line in _next(args.datasets, by_make, raw, root, examined, body, lacking):
            out.print(plain(line))
    return 1 if lacking or mixed or broken else 0


def _own_folder(raw: Path, name: str, asked: Sequence[str]) -> Path:
    """`raw`/<dataset>; of clips of the user's own also `raw` itself, where it has clips and no dataset's folder."""
    own, names = raw / name, {*datasets.names()}
    if name not in asked or name not in datasets.OWN_CLIPS or listing.is_folder_there(own):
        return own
    return own if names & {folder.name for folder in listing.folders_in(raw)} or not clips_in(raw) else raw


def _clips(raw: Path, own: set[str]) -> dict[Path, int]:
    """Folders with clips of no dataset. own: datasets that are enabled or named."""
    parts = [part for name in datasets.DATASETS for part in datasets.get(name).parts]
    return unclaimed(raw, {*datasets.names()} - {*datasets.OWN_CLIPS} | own, parts)


def _print(shown: Sequence[Examination], mixed: Sequence[Problem], clips: Mapping[Path, int], root: cache.Root) -> None:
    show(table(shown))
    for e in shown:
        print_problems(e)
    for mixture in mixed:
        out.print(f"\n{WRONG} {plain(f'{mixture.what}. {mixture.do}')}")
    for line in _as_videos(clips, root):
        out.print(plain(line))
    out.print()


def _next(
    asked: Sequence[str],
    settings: Settings | None,
    raw: Path,
    root: cache.Root,
    examined: Sequence[Examination],
    body: Examination | None,
    lacking: Sequence[str],
) -> Iterator[str]:
    """What comes next: this again, then what converts. settings: luigi.cfg, where it enables all that was examined."""
    clashes = clashing(examined, body)
    folder = None if body is None else body.raw
    if lacking or clashes:
        where = [] if settings is not None else ["--raw", str(raw), *(["--body", str(folder)] if folder else [])]
        yield f"When that is done: {command('doctor', *asked, *where)}"
    if settings is not None:
        yield from _by_make(settings, examined, bool(clashes), lacking)
    else:
        has_body = body is None or not body.missing
        ready = [e for e in examined if e.usable and e not in clashes and (has_body or not e.uses_body)]
        yield from _by_hand(ready, folder, root)


def _all_of(raw: Path) -> list[str]:
    """All datasets; of a user's own clips only what is there: nothing is missing where there are none."""
    own = datasets.OWN_CLIPS
    return [name for name in datasets.names() if name not in own or listing.is_folder_there(raw / name)]


def _body(folder: Path, examined: Sequence[Examination], needed: bool) -> Examination:
    """SMPL's files, and why they may be missing: `make data` makes those of the demo data."""
    body = examine_body(folder)
    if body.missing and not needed:
        return replace(body, excuse=NOT_NEEDED)
    return replace(body, excuse=TO_BE_MADE) if any(e.excuse for e in examined) else body


def _check_raw(raw: Path, option: str) -> None:
    """Raise PipelineError for what cannot be the folder that holds the datasets' own folders."""
    if not listing.is_there(raw):
        why = "a link to a missing folder" if raw.is_symlink() else "there is no such folder (a typo?)"
        raise PipelineError(f"{option} {raw}: {why}. Name the folder that holds <dataset>/, or make it: mkdir -p {raw}")
    if not listing.is_folder_there(raw):
        raise PipelineError(f"{option} {raw} is a file. Name the folder that holds <dataset>/")


def _by_make(settings: Settings, examined: Sequence[Examination], clash: bool, lacking: Sequence[str]) -> Iterator[str]:
    """What to set in luigi.cfg, and that `make data` comes next."""
    real = [e.dataset for e in examined if e.usable and not e.stand_in and datasets.get(e.dataset).has_pixels]
    untrained = bool(real) and settings.features.weights.startswith("untrained")
    if untrained:
        about = f"untrained ones are for demo data; real: {', '.join(real)}"
        yield f"First, in luigi.cfg, set [features] weights = {FORMS} ({about})"
    if not lacking and not clash:
        yield "Then: make data" if untrained else "Next, unless `plan` shows that all is up to date: make data"
    elif lacking and len(lacking) < len(examined):
        yield "Or remove the datasets that you do not have from [data] datasets, and: make data"


def _as_videos(clips: Mapping[Path, int], root: cache.Root) -> Iterator[str]:
    """Folders of clips that are no dataset's, and the commands that make tracks of them."""
    for folder, n in clips.items():
        yield f"\n{folder}: {count(n, 'clip')} of no dataset. They can be read as `videos` (docs/datasets/videos.md):"
        yield "  " + command("detect", str(folder), "--out", str(folder / KEYPOINTS), "--weights", "pretrained")
        yield "  " + command("convert", "videos", "train", "--raw", str(folder), "--cache", str(root))


def _by_hand(ready: Sequence[Examination], body: Path | None, root: cache.Root) -> Iterator[str]:
    """The commands that convert what was found. They warn where a cache would hold demo data and real data."""
    if ready:
        yield "To convert what was found:"
    for e in ready:
        if e.dataset in datasets.OWN_CLIPS and not listing.is_folder_there(e.raw / KEYPOINTS):
            yield "  " + command("detect", str(e.raw), "--out", str(e.raw / KEYPOINTS), "--weights", "pretrained")
        rest = ["--raw", str(e.raw), *(["--body", str(body or "SMPL")] if e.uses_body else [])]
        yield from (f"  {command('convert', e.dataset, split, *rest, '--cache', str(root))}" for split in e.usable)
    if body is None and any(e.uses_body for e in ready):
        yield "SMPL: the folder of the body model's files (docs/getting-started.md)"
