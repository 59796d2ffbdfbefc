"""The state of a split: what the cache has of it, and what its next run would do.  [raw -> tracks
-> features]

`status` makes the states of the splits of a cache, whose next run converts them as recorded; `plan`
those of luigi.cfg's recipes. Both print the same table, and the same records as JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, Self

import numpy as np

import cache
from cache.format.folders import unmounted_streams
from cache.read.labels import SOME_3D
from cache.write.parts import staged_by_parts
from pipeline.accounting import VideoAccount, VideoOutcome, VideoState, is_error
from pipeline.cli.system_errors import error_text
from pipeline.errors import PipelineError
from pipeline.features.committed import is_untrained, stream_label, weights_of
from pipeline.files.raw.corrections import count_verbs
from pipeline.people.estimates import estimates_of
from pipeline.steps.conversion.keep import Loss, as_json
from pipeline.steps.conversion.plan import plan_conversion
from pipeline.steps.conversion_record import MOUNT, ConversionRecord
from pipeline.steps.grading import stored_words
from pipeline.steps.next_run import NextRun
from pipeline.steps.recipe import Recipe
from pipeline.steps.sentences import lost_videos, problems_of

# keys of accounts
_SHOWN: Final = (
    "dropped", "set_aside", "notes", "assumed", "contradictions", "unread", "corrections"
)  # fmt: skip
_VIDEO_KEYS: Final = (
    "name", "found", "kept", "dropped", "set_aside", "message", "notes", "contradictions", "unread"
)  # fmt: skip


class _StreamStatus(NamedTuple):
    """What is shown of a stream. None: its files are damaged."""

    name: str
    label: str  # its name, with warnings
    weights: Mapping[str, Any]  # as of `weights_of`, and whether they are "untrained"; {}: none
    undecodable: int | None = None  # number of rows without features
    without_features: Mapping[str, int] | None = None  # reason -> number of rows without features
    problem: str | None = None  # message


@dataclass(frozen=True)
class Committed:
    """What is shown of a committed split."""

    record: ConversionRecord
    streams: Sequence[_StreamStatus]

    @classmethod
    def from_split(cls, split: cache.Split) -> Self:
        """Raises CacheError and OSError if the split is unreadable, but not for a damaged stream,
        which has a `problem`.
        """
        return cls(ConversionRecord(split), [_read_stream(split, name) for name in split.streams])

    @cached_property
    def accounts(self) -> list[VideoAccount]:
        """The accounts of videos with losses, notes or assumptions."""
        accounts = []
        for video in self.record.split.videos:
            recorded = video.account
            state = VideoOutcome.from_account(recorded).state
            if state != VideoState.NOT_RECORDED and any(recorded.get(key) for key in _SHOWN):
                accounts.append(VideoAccount.from_dict(recorded))
        return accounts

    @cached_property
    def grades(self) -> Mapping[str, int] | None:
        """How many tracks are good, doubtful, bad and unknown; None if it is not stored."""
        return stored_words(self.record.split)

    @cached_property
    def without_track(self) -> Mapping[str, str]:
        """Video -> why it has no track."""
        without = {}
        for video in self.record.split.videos:
            outcome = VideoOutcome.from_account(video.account)
            if outcome.state == VideoState.WITHOUT_TRACK:
                without[video.name] = outcome.message
        return without

    @property
    def rejected(self) -> list[VideoAccount]:
        """The accounts of videos that were rejected because of an error."""
        if not self.record.n_rejected:
            return []  # no look at every video, of which there may be 400,000
        return [account for account in self.accounts if is_error(account.set_aside)]

    @property
    def n_uncounted(self) -> int:
        """The number of rejected videos whose frames are unknown."""
        return sum(not account.found for account in self.rejected)

    @property
    def _sums(self) -> dict[str, float | None] | None:
        """The totals of the split's numbers; None if it has none."""
        split = self.record.split
        sums: dict[str, float | None] | None = split.manifest.get("sums")
        if sums and SOME_3D in sums:  # videos without such rows do not have it
            return {**sums, SOME_3D: float(np.nansum(split.tables.sums[SOME_3D]))}
        return sums

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        record = self.record
        streams = self.streams
        return {
            "tracks": len(record.split.tracks),
            "accounting": record.totals,
            "sums": self._sums,
            "grades": self.grades,
            "corrections": sum(
                (count_verbs(account.corrections) for account in self.accounts), Counter[str]()
            ),
            "stand_in": record.is_stand_in,
            "imported": record.imported,
            "estimates": estimates_of(record.split),
            "raw": record.raw,
            "streams": [stream.label for stream in streams],
            "weights": {stream.name: stream.weights for stream in streams if stream.weights},
            "undecodable": {stream.name: stream.undecodable for stream in streams},
            "without_features": {
                stream.name: stream.without_features
                for stream in streams
                if stream.without_features is not None
            },
            "set_aside": [f"{account.set_aside}: {account.message}" for account in self.rejected],
            "uncounted": self.n_uncounted,
            "without_track": self.without_track,
            "videos": [_video_document(account) for account in self.accounts],
        }


@dataclass(frozen=True, slots=True)
class SplitStatus:
    """What is committed of a split, and what is to do."""

    name: str
    committed: Committed | None = None  # None: it is not committed, or cannot be read
    next_run: NextRun | None = None  # None: it is unknown
    unlisted: str = ""  # why it is unknown, of a split that was converted here
    problems: Sequence[str] = ()

    @classmethod
    def from_cache(cls, opened: cache.FeatureCache, name: str) -> Self:
        """The state of a committed split. What cannot be read is among its problems.

        The next run is that of `convert` with the recorded folders and options; no content is read
        for it: a look at a cache reads no terabyte.
        """
        try:
            committed = Committed.from_split(opened[name])
        except (cache.CacheError, OSError) as error:
            return cls(name, problems=[error_text(error)])
        record = committed.record
        problems = [stream.problem for stream in committed.streams if stream.problem is not None]
        problems += unmounted_streams(opened.store, name).values()
        if record.raw is None or not record.was_converted_here:
            return cls(name, committed, problems=[*problems, *record.why_empty()])
        try:
            _refuse_missing_folder(record)
            work = plan_conversion(Recipe.from_committed(record.split), reads_contents=False)
        except (PipelineError, cache.CacheError, OSError) as error:
            unlisted = error_text(error)
            return cls(name, committed, None, unlisted, [*problems, f"{name}: {unlisted}"])
        staged = staged_by_parts(opened.store, name)
        run = NextRun(work.recipe, record.split, work, staged=staged)
        return cls(name, committed, run, problems=[*problems, *problems_of(work)])

    @classmethod
    def from_run(cls, run: NextRun) -> Self:
        """The state of a split by its planned run. What cannot be read is among its problems."""
        problems = [*lost_videos(run), *run.problems, *run.refusals]
        unlisted = ""
        if run.conversion is None and not run.recipe.needs_demo_data:
            unlisted = " ".join(run.problems)
        committed = None
        try:
            if run.committed is not None:
                committed = Committed.from_split(run.committed)
        except (cache.CacheError, OSError) as error:
            problems.append(error_text(error))
        return cls(run.name, committed, run, unlisted, list(dict.fromkeys(problems)))

    @property
    def losses(self) -> Mapping[str, Loss]:
        """What committed videos would lose, which keep their rows."""
        if self.next_run is None or self.next_run.conversion is None:
            return {}
        return self.next_run.conversion.losses

    def as_dict(self) -> dict[str, Any]:
        """JSON values; docs/terminal.md describes the keys."""
        document: dict[str, Any] = {"split": self.name}
        if self.committed is not None:
            work = None if self.next_run is None else self.next_run.conversion
            document |= self.committed.as_dict()
            document |= {
                "to_convert": "" if work is None else work.why,
                **as_json(self.losses),
                "unlisted": self.unlisted,
            }
        if self.next_run is not None:
            document |= self.next_run.as_dict()
        return document | {"problems": self.problems}


def _refuse_missing_folder(record: ConversionRecord) -> None:
    if record.raw is not None and not record.raw.is_dir():
        again = record.convert_command("--retry", "--raw", "DIR")
        missing = f"its raw folder {record.raw} is missing"
        raise PipelineError(f"{missing}. {MOUNT}. If it has moved: {again}")


def _video_document(account: VideoAccount) -> dict[str, Any]:
    values = {key: getattr(account, key) for key in _VIDEO_KEYS}
    return {**values, "failed": is_error(account.set_aside)}


def _read_stream(split: cache.Split, name: str) -> _StreamStatus:
    """Read a stream: its label, weights, and rows without features."""
    label = f"{name} (damaged)"
    weights: dict[str, Any] = {}
    try:
        label = stream_label(split, name)
        weights |= weights_of(split, name)
        if weights:
            weights["untrained"] = is_untrained(split, name)
        stream = split.open_stream(name)
        reasons = stream.provenance.get("without_features") or {}
        return _StreamStatus(name, label, weights, stream.undecodable(), reasons)
    except (cache.AccessDenied, cache.ForeignStream) as error:
        problem = f"{split.name}: {error}"
    except (cache.CacheError, OSError) as error:
        problem = f"{split.name}: {name} is damaged: {error_text(error)}"
    return _StreamStatus(name, label, weights, problem=problem)
