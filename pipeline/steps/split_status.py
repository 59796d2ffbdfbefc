"""What is shown of one split of a cache: its committed state, and the plan of its next conversion,
with the recorded options.  [tracks, features]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import cache
from cache.format.folders import unmounted_streams
from pipeline.accounting import VideoAccount, VideoOutcome, VideoState, is_error
from pipeline.cli.system_errors import error_text
from pipeline.datasets.conversion_record import MOUNT, ConversionRecord
from pipeline.errors import PipelineError
from pipeline.features.committed import is_untrained, stream_label, weights_of
from pipeline.steps.conversion.plan import ConversionWork, plan_conversion
from pipeline.steps.recipe import Recipe
from pipeline.steps.sentences import problems_of

_SHOWN: Final = ("dropped", "set_aside", "notes", "assumed")  # keys of accounts


class _StreamStatus(NamedTuple):
    """What is shown of a stream. None: its files are damaged."""

    name: str
    label: str  # its name, with warnings
    weights: Mapping[str, Any]  # as of `weights_of`, and whether they are "untrained"; {}: none
    undecodable: int | None = None  # number of rows without features
    without_features: Mapping[str, int] | None = None  # reason -> number of rows without features
    problem: str | None = None  # message


@dataclass(frozen=True, slots=True)
class SplitStatus:
    """All that is shown about a split that can be read."""

    record: ConversionRecord
    streams: Sequence[_StreamStatus]
    plan: ConversionWork | None  # of its next conversion; None: none is planned
    unlisted: str | None  # why none is planned, of a split that was converted here
    accounts: Sequence[VideoAccount]  # of videos with losses, notes or assumptions
    without_track: Mapping[str, str]  # video -> why
    problems: Sequence[str]

    @classmethod
    def from_split(cls, split: cache.Split) -> Self:
        """Raises CacheError and OSError if the split is unreadable, but not for a damaged stream,
        which is among its problems.
        """
        record = ConversionRecord(split)
        streams = [_read_stream(split, name) for name in split.streams]
        problems = [stream.problem for stream in streams if stream.problem is not None]
        problems += unmounted_streams(cache.store_at(split.root), split.name).values()
        plan = None
        unlisted = None
        if record.raw is None or not record.was_converted_here:
            problems += record.why_empty()
        else:
            try:
                if record.raw.is_dir():
                    # a look at a cache reads no terabyte
                    plan = plan_conversion(Recipe.recorded(split), reads_contents=False)
                    problems += problems_of(plan)
                else:
                    again = record.convert_command("--retry", "--raw", "DIR")
                    missing = f"its raw folder {record.raw} is missing"
                    unlisted = f"{missing}. {MOUNT}. If it has moved: {again}"
            except (PipelineError, OSError) as error:
                unlisted = error_text(error)
            if unlisted is not None:
                problems.append(f"{split.name}: {unlisted}")
        accounts = []
        without_track = {}
        for video in split.videos:
            recorded = video.account
            outcome = VideoOutcome.from_account(recorded)
            if outcome.state == VideoState.WITHOUT_TRACK:
                without_track[video.name] = outcome.message
            if outcome.state == VideoState.NOT_RECORDED:
                continue
            if any(recorded.get(key) for key in _SHOWN):
                accounts.append(VideoAccount.from_dict(recorded))
        return cls(record, streams, plan, unlisted, accounts, without_track, problems)

    @property
    def name(self) -> str:
        return self.record.split.name

    @property
    def rejected(self) -> list[VideoAccount]:
        """The accounts of videos that were rejected because of an error."""
        return [account for account in self.accounts if is_error(account.set_aside)]

    @property
    def n_uncounted(self) -> int:
        """The number of rejected videos whose frames are unknown."""
        return sum(not account.found for account in self.rejected)


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
    except cache.AccessDenied as error:
        problem = f"{split.name}: {error}"
    except (cache.CacheError, OSError) as error:
        problem = f"{split.name}: {name} is damaged: {error_text(error)}"
    return _StreamStatus(name, label, weights, problem=problem)
