"""Plan an extraction: the missing rows of a stream.  tracks -> [features] -> windows

Commands call `plan_extraction`, which refuses streams that cannot be extended, or
`ExtractionWork.compare`, which tells why instead. Both return an `ExtractionWork` with the stream's
`MissingRows`, which `extract.py` computes. `plan_streams` plans those of a recipe. Nothing here
imports torch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self, TypeVar

import cache
from cache import Split
from cache.format.folders import refuse_unmounted_stream
from cache.format.manifest import lost_manifest
from pipeline.cli.text import command, from_here
from pipeline.errors import PipelineError
from pipeline.features.committed import (
    IMPORTED,
    MissingRows,
    advise_continuing,
    fill_command,
)
from pipeline.features.spec import StreamSpec
from pipeline.grades import BLAZE_JOINTS
from pipeline.grades.stored import are_outdated
from pipeline.processes.software import staging_plan
from pipeline.steps.conversion.identity import Difference, describe, find_differences
from pipeline.steps.conversion.plan import UNFINISHED
from pipeline.steps.recipe import Recipe

Opened = TypeVar("Opened", "cache.StreamShards", "cache.StreamWriter")

# what to do about a stream that differs from its record
OTHER_NAME: Final = (
    "Use another stream name (--stream NAME, [features] streams), or recompute it: extract "
    "--replace."
)


class Why(StrEnum):
    """Why a stream is extracted, as messages say it."""

    NOTHING = ""  # it is up to date
    # all rows
    NEW = "not extracted before"
    MANIFEST_LOST = "its manifest is lost"
    REPLACE = "--replace"
    # rows of an existing stream: of missing shards, or of shards that it has
    CHANGED = "the split has changed"
    WAITING = "some videos could not be read before"
    # no rows: its last commit is to be finished
    UNFINISHED = UNFINISHED


@dataclass(frozen=True, slots=True)
class ExtractionWork:
    """What is to do for one stream of one split. It is one of these cases:

        case                                why                   missing
        the split lacks columns it needs    NOTHING               None
        it is new                           NEW                   all rows
        it lost its manifest                MANIFEST_LOST         all rows
        it exists, and is to be replaced    REPLACE               all rows
        it exists, and rows are missing     CHANGED or WAITING    these rows
        its last commit was interrupted     UNFINISHED            no rows
        it is up to date                    NOTHING               no rows

    An existing stream that `differs` is refused, unless it is replaced.
    """

    root: cache.Root
    split: str
    spec: StreamSpec
    identity: Mapping[str, Any]  # everything that decides the stream's rows besides its inputs
    why: Why = Why.NOTHING  # why there is something to extract
    missing: MissingRows | None = None  # the rows to extract
    # differences between the recorded identity and this one; if any, the extraction is refused
    differs: tuple[Difference, ...] = ()
    # why it is not extracted: it differs from the recorded one, or its rows are imported
    refusal: str | None = None

    @classmethod
    def compare(cls, committed: Split, spec: StreamSpec, *, replace: bool = False) -> Self:
        """Plan the extraction for an open split, without refusing it: differences from the
        committed stream are in `differs`. Raises PipelineError if another program wrote the stream.
        """
        identity = spec.stream.identity()
        make = functools.partial(cls, committed.root, committed.name, spec, identity)
        if committed.unknown_columns(spec.stream.needs):
            return make()

        why = _why_all_rows(committed, spec.name, replace=replace)
        if why:
            missing = MissingRows.find(committed, None)
            return make(why=why, missing=missing, refusal=_refuse_imported(committed, spec, why))

        missing = MissingRows.find(committed, spec.name)
        why = _why_extended(committed, spec.name, missing)
        recorded = committed.open_stream(spec.name).identity
        if not recorded:
            why_not = "has no recorded identity: another program wrote it"
            raise PipelineError(f"{committed.name}: stream {spec.name!r} {why_not}. {OTHER_NAME}")
        if recorded.get("kind") == identity["kind"] == IMPORTED:  # settings do not name its file
            return make(why=why, missing=missing, refusal=_refuse_imported(committed, spec, why))
        differs = tuple(find_differences(recorded, identity))
        refusal = None
        if differs:
            about = f"{committed.name}: stream {spec.name!r} was extracted differently"
            advice = f"{OTHER_NAME} {advise_continuing(committed, spec.name)}"
            refusal = f"{about}: {describe(recorded, identity)}. {advice}"
        return make(why=why, missing=missing, differs=differs, refusal=refusal)

    @property
    def up_to_date(self) -> bool:
        """Whether there is nothing to extract."""
        return self.why == Why.NOTHING

    @property
    def replace(self) -> bool:
        """Whether the existing stream is deleted before."""
        return self.why in (Why.MANIFEST_LOST, Why.REPLACE)

    @property
    def staging(self) -> Mapping[str, Any]:
        """The plan under which shards are staged."""
        return staging_plan(cache.fingerprint(dict(self.identity)), self.spec.stream)

    def open(self, opened: Callable[..., Opened]) -> Opened:
        """Open the stream in the cache, as a `StreamShards` or a `StreamWriter`."""
        names = self.root, self.split, self.spec.name
        return opened(*names, self.spec.stream.form, plan=self.staging)


def plan_extraction(
    root: cache.Root, split: str, spec: StreamSpec, *, replace: bool = False
) -> ExtractionWork:
    """Plan the extraction of a stream: find what the committed stream lacks.

    Args:
        replace: recompute an existing stream. This repairs lost shards and retries undecodable
            frames.

    Raises CacheError if the split does not exist, PipelineError if the committed stream has other
    weights, precision or options, or if a stream of crops needs a column that the split lacks.
    """
    committed = cache.open(root)[split]
    if spec.stream.reads.crops:
        refusal = spec.missing_columns(committed)
        if refusal:
            raise PipelineError(refusal)
    work = ExtractionWork.compare(committed, spec, replace=replace)
    if work.refusal:
        raise PipelineError(work.refusal)
    return work


def plan_streams(recipe: Recipe) -> list[ExtractionWork]:
    """Plan the extraction of a recipe's streams.

    Raises as `plan_extraction` does, and ConfigError for random weights on real data.
    """
    works = []
    for spec in recipe.streams:
        spec_here = dataclasses.replace(spec, raw=recipe.raw)
        replaces = False
        if spec.stream.is_trained:  # other weights replace its rows, in seconds without pixels
            committed = cache.open(recipe.root)[recipe.name]
            replaces = bool(ExtractionWork.compare(committed, spec_here).differs)
        works.append(plan_extraction(recipe.root, recipe.name, spec_here, replace=replaces))
    recipe.refuse_random_weights([work.spec for work in works if not work.up_to_date])
    return works


def _refuse_imported(committed: Split, spec: StreamSpec, why: Why) -> str | None:
    """Why rows of an imported stream are not extracted; None for others, and without rows."""
    if why == Why.NOTHING or spec.stream.kind != IMPORTED:
        return None
    words = ["import", "FILE", committed.name, "--format", "arrays", "--as", spec.name]
    do = command(*words, "--cache", from_here(committed.root))
    if spec.name in committed.streams:
        do = fill_command(committed, spec.name)
    about = f"{committed.name}: stream {spec.name!r} is imported and cannot be extracted ({why})"
    return f"{about}. Import it: {do}"


def _why_all_rows(committed: Split, stream: str, *, replace: bool) -> Why:
    """Why all rows of a stream are to be extracted, if it is new or to be replaced. Raises
    CacheError if its disk seems to be unmounted.
    """
    if stream in committed.streams:
        return Why.REPLACE if replace else Why.NOTHING
    # a stream without its manifest counts as new, but `replace` deletes its arrays first
    place = committed.place(stream)
    if replace and lost_manifest(place) is not None:
        return Why.MANIFEST_LOST
    refuse_unmounted_stream(place)
    return Why.NEW


def _why_extended(committed: Split, stream: str, missing: MissingRows) -> Why:
    """Why an existing stream has to be extended, or its commit finished."""
    if missing.shards:
        return Why.CHANGED
    if missing.rows:
        return Why.WAITING
    is_graded = stream == BLAZE_JOINTS
    if committed.has_unfinished_commit(stream) or (is_graded and are_outdated(committed)):
        return Why.UNFINISHED
    return Why.NOTHING
