"""What the next run would do for each split, and why: the works of its three steps.  [raw -> tracks
-> features]

`plan_runs` plans detection, conversion and extraction of every recipe without doing any: it
compares names, sizes and times of raw files, and reads manifests and tables. Errors are recorded in
the `NextRun`, so that one broken split does not hide the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cache
from cache.write.parts import PartsWork, staged_by_parts
from pipeline.clips.detectors import Detector
from pipeline.clips.files import KEYPOINTS, keypoint_file, read_detection
from pipeline.errors import PipelineError
from pipeline.files.raw import texts_of
from pipeline.files.raw.changes import what_differs
from pipeline.files.raw.files import digest_or_problem
from pipeline.steps.conversion.comparison import ReadReason
from pipeline.steps.conversion.keep import as_json
from pipeline.steps.conversion.plan import ConversionWork, plan_conversion
from pipeline.steps.conversion_record import committed_split
from pipeline.steps.extraction.plan import ExtractionWork, Why
from pipeline.steps.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.steps.detection.plan import DetectionWork


@dataclass(frozen=True, slots=True)
class NextRun:
    """What is to do for one split. A work is None, or missing, if it cannot be planned."""

    recipe: Recipe
    committed: cache.Split | None = None  # the split in the cache, if any
    conversion: ConversionWork | None = None
    # of the whole raw folder; None also until the detector's weights are downloaded
    detection: DetectionWork | None = None
    undetected: tuple[str, ...] = ()  # clips of this split that the detector has to do
    # of the committed rows, without those that the conversion adds, and without staged shards
    extractions: tuple[ExtractionWork, ...] = ()

    # messages
    problems: Sequence[str] = ()  # errors that a run will meet
    refusals: Sequence[str] = ()  # streams to import, missing columns
    staged: Sequence[PartsWork] = ()

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def up_to_date(self) -> bool:
        """Whether a run has nothing to do, and meets no error."""
        if self.problems or self.refusals or self.undetected:
            return False
        if self.conversion is None or not self.conversion.up_to_date:
            return False
        return not any(work.why or work.differs for work in self.extractions)

    @property
    def converts(self) -> bool:
        """Whether the conversion has something to do, now or after the detection."""
        return self.conversion is not None and bool(self.conversion.why or self.undetected)

    @property
    def adds_rows(self) -> bool:
        """Whether the conversion reads videos, now or after the detection."""
        if self.committed is None or self.undetected:
            return True
        return self.conversion is not None and bool(self.conversion.items)

    @property
    def n_to_read(self) -> int:
        """Number of videos that the conversion reads, now or after the detection."""
        undetected = {*self.undetected}
        items = () if self.conversion is None else self.conversion.items
        files = (map(str, item.video.files) for item in items)
        return len(undetected) + sum(map(undetected.isdisjoint, files))

    def as_dict(self) -> dict[str, Any]:
        """The run as JSON values; docs/terminal.md describes the keys."""
        convert = None
        work = self.conversion
        if work is not None:
            convert = {
                "why": work.why,
                "videos": {
                    "read": self.n_to_read,
                    "of": work.n_videos,
                    "kept": work.n_left_alone,
                    "touched": len(work.touched),
                },
                **named_videos(work),
                "renamed": work.renamed,
                **as_json(work.losses),
            }
        return {
            "nothing_to_do": self.up_to_date,
            "to_be_made": self.recipe.needs_demo_data,
            "detect": list(self.undetected),
            "convert": convert,
            "staged": self.staged,
            "extract": [
                {
                    "stream": extraction.spec.name,
                    "why": extraction.why,
                    "shards": len(extraction.missing.shards) + len(extraction.missing.incomplete),
                    "rows": extraction.missing.rows,
                }
                for extraction in self.extractions
                if extraction.missing is not None
            ],
        }


def named_videos(work: ConversionWork) -> dict[str, Any]:
    """New, changed (with how their files differ from those that were converted) and removed videos;
    none if all are read.
    """
    new = list[str]()
    changed = dict[str, list[str]]()
    if work.committed is None or work.differs:
        return {"new": new, "changed": changed, "removed": ()}
    for item in work.items:
        if item.reason == ReadReason.NEW:
            new.append(item.video.name)
        elif item.reason != ReadReason.RENAMED:
            changed[item.video.name] = what_differs(item.recorded, item.stamp)
    return {"new": new, "changed": changed, "removed": work.removed}


def plan_runs(recipes: Iterable[Recipe]) -> list[NextRun]:
    """Plan every recipe. Those of one raw folder share the work of its detection. Errors become
    `NextRun.problems`.
    """
    # raw folder -> what to detect in it; None if all clips have labels that it would not make
    detections: dict[Path, DetectionWork | None] = {}
    return [_plan_run(recipe, detections) for recipe in recipes]


def _plan_run(recipe: Recipe, detections: dict[Path, DetectionWork | None]) -> NextRun:
    run = NextRun(recipe)
    problems = []
    try:
        run = replace(run, staged=staged_by_parts(recipe.root, recipe.name))
        run = replace(run, committed=committed_split(recipe.root, recipe.name))
        if recipe.needs_demo_data:
            return run
        conversion = plan_conversion(recipe)
        # the split whose tables are read already
        run = replace(run, conversion=conversion, committed=conversion.committed)
        run = _add_detection(run, conversion, detections)
    except (PipelineError, cache.CacheError) as error:
        problems.append(str(error))
    if run.committed is not None:
        run = _add_extractions(run, run.committed)
        problems += run.problems
    if not problems and (run.adds_rows or any(work.why for work in run.extractions)):
        try:
            recipe.refuse_random_weights(recipe.streams)
        except PipelineError as error:
            problems.append(str(error))
    return replace(run, problems=problems)


def _add_detection(
    run: NextRun, conversion: ConversionWork, detections: dict[Path, DetectionWork | None]
) -> NextRun:
    """Plan the detection for a split. detections: by raw folder, to which this one is added.

    A detection is planned by the detector's weights. Until these are downloaded, there is no work,
    and clips are undetected by the other options of their keypoints.
    """
    recipe = run.recipe
    raw = recipe.raw
    detector = recipe.detector
    if detector is None:
        return run
    from pipeline.steps.detection.plan import plan_unlabelled, unlabelled_clips

    if detector.downloads:
        unlabelled = unlabelled_clips(raw, by_any_detector=recipe.by_any_detector)
        todo = [clip for clip in unlabelled if not _is_detected(raw, clip, detector)]
    else:
        if raw not in detections:
            detections[raw] = plan_unlabelled(recipe)
        detection = detections[raw]
        run = replace(run, detection=detection)
        todo = [] if detection is None else [files.clip for files in detection.missing]
    if not todo:
        return run
    of_split = {file for video in texts_of(conversion.listed) for file in video.files}
    return replace(run, undetected=tuple(clip for clip in todo if clip in of_split))


def _is_detected(raw: Path, clip: str, detector: Detector) -> bool:
    """Whether a clip, as it is now, has keypoints by this detector with its N of `--every N`. The
    weights are not compared: they are not downloaded yet.
    """
    detection = read_detection(keypoint_file(raw / KEYPOINTS, clip))
    if detection is None or detection.clip_digest != digest_or_problem(raw / clip):
        return False
    every = detection.options.get("every", 1)
    return (detection.detector, every) == (detector.name, detector.every)


def _add_extractions(run: NextRun, committed: cache.Split) -> NextRun:
    """Compare the recipe's streams with the committed ones, up to one that cannot be read."""
    works = []
    problems = []
    refusals = []
    for spec in run.recipe.streams:
        message = ""
        try:
            if spec.stream.reads.crops:
                message = spec.missing_columns(committed)
            work = ExtractionWork.compare(committed, replace(spec, raw=run.recipe.raw))
        except (PipelineError, cache.CacheError) as error:
            problems.append(str(error))
            break
        if work.differs and work.refusal is not None:
            problems.append(work.refusal)
        elif work.refusal is not None:
            message = work.refusal
            work = replace(work, why=Why.NOTHING)  # it is not extracted
        if message:
            refusals.append(message)
        if work.missing is not None:
            works.append(_leave_out_staged(work, committed) if run.staged else work)
    return replace(run, extractions=tuple(works), problems=problems, refusals=refusals)


def _leave_out_staged(work: ExtractionWork, committed: cache.Split) -> ExtractionWork:
    """The work without the shards that parts have staged as it does."""
    missing = work.missing
    if missing is None or work.differs:
        return work
    staged = work.open(cache.StreamShards).list_staged()
    n_staged = int(committed.rows_by_shard()[sorted(staged)].sum())
    shards = tuple(shard for shard in missing.shards if shard not in staged)
    return replace(work, missing=replace(missing, shards=shards, rows=missing.rows - n_staged))
