"""Videos that could not be used, read again.  [raw -> tracks -> rows] -> features -> windows

A conversion reads only what changed. What failed for a reason outside the files (as a defect of the reader
that is fixed now) is read once more here, changed or not. Nothing is written for a video that fails in
the same way, so a retry without success changes no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cache
from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.cli.progress import Progress, silent
from pipeline.conversion.convert import Conversion, convert, is_failure, read_videos
from pipeline.conversion.missing import names_with_rows, recorded_raw
from pipeline.conversion.plan import ConversionPlan, compare, read_again
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.raw import changes


@dataclass(frozen=True, slots=True)
class Retry:
    """The result, by the names of the videos that had failed."""

    failed: tuple[str, ...]  # all that were to be read again
    gone: tuple[str, ...]  # no longer in the raw folder: the next conversion drops them
    accounts: tuple[VideoAccount, ...]  # those that were read again, as they are now
    conversion: Conversion | None  # of those whose result changed; None: there was nothing to write

    @property
    def recovered(self) -> tuple[str, ...]:
        """Those that are usable now."""
        return tuple(account.name for account in self.accounts if not account.set_aside)

    @property
    def rejected(self) -> tuple[VideoAccount, ...]:
        """Those that still cannot be used."""
        return tuple(account for account in self.accounts if account.set_aside)


def retry(
    plan: ConversionPlan,
    *,
    video: str | None = None,
    reason: str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> Retry:
    """Read the failed videos of a committed split again, and commit those whose result differs.

    `video`, `reason`: only this video, only those that were rejected for this reason. Usable videos are read twice, to
    know and to commit, so that memory stays that of one video and a kill costs nothing.

    Raises PipelineError when the split is not committed, when all of it is to be converted again, and for a video or a
    reason that there is not among the failed ones.
    """
    failed = {account.name: account for account in plan.accounts() if is_failure(plan.dataset, account)}
    if video is not None and video not in failed:
        raise PipelineError(f"{plan.name}: {video!r} is not among its {len(failed):,} failed videos (status --all)")
    reasons = sorted({account.set_aside for account in failed.values()})
    if reason is not None and reason not in reasons:
        raise PipelineError(f"{plan.name}: no video failed with {reason!r}; reasons: {', '.join(reasons) or 'none'}")
    chosen = {
        name: account
        for name, account in failed.items()
        if video in (None, name) and reason in (None, account.set_aside)
    }
    todo = read_again(plan, chosen)
    gone = tuple(sorted(chosen.keys() - {video.name for video in todo.append}))
    accounts: list[VideoAccount] = []
    changed: set[str] = set()
    digests = plan.digests()
    for read in read_videos(todo, todo.append, workers, scheduler):
        accounts.append(read.account)
        if read.entry.fingerprint != digests[read.entry.name] or read.account != chosen[read.entry.name]:
            changed.add(read.entry.name)
        progress(len(accounts), len(todo.append), read.entry.name)
    done = None
    if changed:
        done = convert(read_again(plan, changed), workers=workers, scheduler=scheduler, progress=progress)
    return Retry(tuple(chosen), gone, tuple(accounts), done)


def recorded_plan(split: cache.Split, raw: Path | None = None, body: Path | None = None) -> ConversionPlan:
    """The plan of a committed split. Arguments and errors as of `recorded_reader`."""
    reader, folder, body = recorded_reader(split, raw, body)
    return compare(split, reader, split.name.partition("/")[2], raw=folder, root=split.root, body=body)


def recorded_reader(
    split: cache.Split, raw: Path | None = None, body: Path | None = None
) -> tuple[Dataset, Path, Path | None]:
    """The reader with its options, the raw folder and the body model's folder of a committed split's conversion.

    `raw`, `body`: where they are now, when they have moved. Raises PipelineError where one of them is not known or not
    there, and for a split that was not converted by this project.
    """
    if "parameters" not in split.manifest.get("reader", {}):
        raise PipelineError(f"{split.name}: was not converted from raw data here: it cannot be converted again")
    return _recorded_dataset(split), raw_folder(split, raw), _body_folder(split, body)


def _recorded_dataset(split: cache.Split) -> Dataset:
    parameters: Mapping[str, Any] = split.manifest["reader"]["parameters"]
    # JSON has no tuples; an option of many values is one.
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in parameters.items()}
    return datasets.get(split.name.partition("/")[0], **options)


def missing_now(split: cache.Split) -> dict[str, str]:
    """Committed videos with rows that are gone from the recorded raw folder -> which of their files; "": all.

    Folders are listed, no file is opened. {} where that folder is not there at all: a cache is used without its raw
    data, too. Raises PipelineError where it is not the dataset's.
    """
    raw = Path(recorded_raw(split))
    if "parameters" not in split.manifest.get("reader", {}) or not recorded_raw(split) or not raw.is_dir():
        return {}
    listed = {changes.utf8(v.name): v for v in _recorded_dataset(split).videos(raw, split.name.partition("/")[2])}
    seen, missing = changes.read_stamps(split.root, split.name), {}
    for name in sorted(names_with_rows(split)):
        was = seen[name][0] if name in seen else None
        lost = changes.lost_input(was, changes.stamp(raw, listed[name])) if name in listed else ""
        if lost or name not in listed:
            missing[name] = lost
    return missing


def raw_folder(split: cache.Split, given: Path | None) -> Path:
    """The given one, or where it was at conversion. Raises PipelineError where it is not known, and for no folder."""
    recorded, do = split.provenance.get("raw"), "Name the dataset's own raw folder: --raw DIR."
    if given is None and recorded is None:
        raise PipelineError(f"{split.name}: its raw folder is not known, provenance.json is lost. {do}")
    raw = given or Path(str(recorded))
    if not raw.is_dir():
        was = f"its raw data were in {recorded}" if given is None else f"--raw is {raw}"
        raise PipelineError(f"{split.name}: {was}, and that folder is not there now. {do}")
    return raw


def _body_folder(split: cache.Split, given: Path | None) -> Path | None:
    if given is not None or split.manifest["reader"]["body"] is None:
        return given
    if (recorded := split.provenance.get("body")) is None:
        raise PipelineError(
            f"{split.name}: was converted with a body model whose folder is not recorded. Name it: --body DIR."
        )
    return Path(str(recorded))
