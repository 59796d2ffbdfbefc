"""Videos that could not be used, tried again.  [raw -> tracks -> rows] -> features -> windows

A conversion looks again only at what changed. What failed for a reason outside the files (a disk, a missing right, a
reader that was mended since) is read once more here, changed or not. Nothing is written for a video that fails as it
did before, so a retry that mends nothing changes no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cache
from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.cli.progress import Progress, silent
from pipeline.conversion.convert import Conversion, convert, is_failure, read_videos
from pipeline.conversion.plan import plan_again
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError


@dataclass(frozen=True, slots=True)
class Retry:
    """What came of it, by the names of the videos that had failed."""

    split: str
    failed: tuple[str, ...]  # all of them
    gone: tuple[str, ...]  # no longer in the raw folder: left as they are until the next conversion
    accounts: tuple[VideoAccount, ...]  # those that were read again, as they are now
    conversion: Conversion | None  # of those that came out otherwise; None: there was nothing to write

    @property
    def mended(self) -> tuple[str, ...]:
        """Those that are set aside no longer."""
        return tuple(account.name for account in self.accounts if not account.set_aside)

    @property
    def set_aside(self) -> tuple[VideoAccount, ...]:
        """Those that still cannot be used."""
        return tuple(account for account in self.accounts if account.set_aside)


def recorded_reader(split: cache.Split) -> Dataset:
    """The dataset's reader, with the options that the split was converted with.

    Raises PipelineError when there is no such dataset here.
    """
    if "reader" not in split.manifest:
        raise PipelineError(f"{split.name}: was not converted by this project: only who wrote it can write it anew")
    options: Mapping[str, Any] = split.manifest["reader"]["parameters"]
    # JSON knows no tuples; an option of many values is one.
    as_given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return datasets.get(split.name.partition("/")[0], **as_given)


def failed_videos(dataset: Dataset, split: cache.Split) -> dict[str, cache.VideoEntry]:
    """The committed videos that were set aside because something is wrong with them, by name."""
    return {v.name: v for v in split.videos if is_failure(dataset, VideoAccount.from_dict(dict(v.account)))}


def retry_failed(
    root: cache.Root,
    name: str,
    *,
    raw: Path | None = None,
    body: Path | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> Retry:
    """Read the failed videos of the split `name` again, and commit those that come out otherwise than before.

    `raw` and `body` are where they lie now; None: where they lay at the conversion. Videos that are usable now are read
    twice: once to know, once to commit, so that memory stays that of one video and a kill costs nothing.

    Raises cache.CacheError when the split is not there, PipelineError when its raw or body folder is not, and when the
    split as a whole is to be converted anew.
    """
    split = cache.open(root)[name]
    dataset = recorded_reader(split)
    failed = failed_videos(dataset, split)
    if not failed:
        return Retry(name, (), (), (), None)
    raw, body = raw_folder(split, raw), body_folder(split, body)
    plan = plan_again(dataset, name.partition("/")[2], failed, raw=raw, root=root, body=body)
    gone = tuple(sorted(failed.keys() - {video.name for video in plan.append}))
    accounts: list[VideoAccount] = []
    changed: set[str] = set()
    for read in read_videos(plan, plan.append, workers):
        before = failed[read.entry.name]
        accounts.append(read.account)
        if (read.entry.fingerprint, read.account.as_dict()) != (before.fingerprint, dict(before.account)):
            changed.add(read.entry.name)
        progress(len(accounts), len(plan.append), read.entry.name)
    if not changed:
        return Retry(name, tuple(failed), gone, tuple(accounts), None)
    again = tuple(video for video in plan.append if video.name in changed)
    n_videos = plan.kept + len(plan.append)
    todo = replace(plan, append=again, drop=tuple(v.name for v in again), kept=n_videos - len(again))
    done = convert(todo, workers=workers, progress=progress)
    return Retry(name, tuple(failed), gone, tuple(accounts), done)


def raw_folder(split: cache.Split, given: Path | None) -> Path:
    """Where the dataset's raw folder lies: as given, or as it was at conversion. Raises PipelineError without one."""
    say = "Say where the dataset's own raw folder is: --raw DIR."
    recorded = split.provenance.get("raw")
    if given is None and recorded is None:
        raise PipelineError(f"{split.name}: where its raw data are is not known, provenance.json is lost. {say}")
    raw = given or Path(str(recorded))
    if not raw.is_dir():
        was = f"its raw data were in {recorded}" if given is None else f"--raw is {raw}"
        raise PipelineError(f"{split.name}: {was}, and that folder is not there now. {say}")
    return raw


def body_folder(split: cache.Split, given: Path | None) -> Path | None:
    """Where the body model lies, if the split was made with one. Raises PipelineError when that is not known."""
    if given is not None or split.manifest["reader"]["body"] is None:
        return given
    recorded = split.provenance.get("body")
    if recorded is None:
        raise PipelineError(
            f"{split.name}: was converted with a body model, and where that was is not recorded: name its folder with "
            "--body DIR."
        )
    return Path(str(recorded))
