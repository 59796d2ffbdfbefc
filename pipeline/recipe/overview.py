"""Plans of all steps of recipes.  [raw -> tracks -> features]

A recipe names a split, its raw folder, a detector for its clips, and streams to extract. For each
recipe, `plan_splits` plans the three steps detection, conversion and extraction without doing any:
it compares names, sizes and times of raw files, and reads manifests and tables. Errors are recorded
in the `SplitPlan`, so that one broken split does not hide the others. The commands `plan` and
`prepare` print these plans.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cache
from cache.write.parts import staged_by_parts
from pipeline.clips.detectors import Detector
from pipeline.clips.files import EXTENSIONS, KEYPOINTS, detected_file, read_info
from pipeline.clips.plan import DetectionPlan, detected_otherwise, unlabelled_clips
from pipeline.conversion.identity import Difference
from pipeline.conversion.plan import ConversionPlan, committed_split, compare
from pipeline.errors import PipelineError
from pipeline.features.plan import CHANGED, MissingRows, compare_stream, missing_rows
from pipeline.features.spec import StreamSpec
from pipeline.files.raw.files import digest_or_problem
from pipeline.recipe.recipe import Recipe


@dataclass(slots=True)
class StreamPlan:
    """Extraction of one stream, of the rows that are committed now."""

    stream: str  # name
    # reason for the extraction; "" if there is nothing to extract, or if it is refused for another
    # reason than `differs`
    why: str
    missing: MissingRows
    # differences between the recorded settings and the recipe's: with any, extraction is refused
    # (`SplitPlan.problems`)
    differs: tuple[Difference, ...] = ()


@dataclass(slots=True)
class SplitPlan:
    """The plans of one recipe's steps. A plan is None, or empty, if it cannot be made."""

    recipe: Recipe
    committed: cache.Split | None = None  # the split in the cache, if any
    conversion: ConversionPlan | None = None
    # for the committed rows, without those that the conversion adds
    extractions: list[StreamPlan] = field(default_factory=list)
    # incomplete streams in the cache that no setting or option names
    unnamed: list[StreamPlan] = field(default_factory=list)
    # of the whole raw folder; None also until the detector's weights are downloaded
    detection: DetectionPlan | None = None
    undetected: tuple[str, ...] = ()  # clips of this split that the detector has to do

    # messages
    problems: list[str] = field(default_factory=list)  # errors that a run will meet
    refusals: list[str] = field(default_factory=list)  # streams to import, missing columns
    staged: list[str] = field(default_factory=list)  # a line about the staged work of parts, if any

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
        return not any(plan.why or plan.differs for plan in self.extractions)


def plan_splits(recipes: Sequence[Recipe]) -> list[SplitPlan]:
    """Plan every recipe. Those of one raw folder share the plan of its detection. Errors become
    `SplitPlan.problems`.
    """
    detections: dict[Path, DetectionPlan] = {}
    return [_plan_split(recipe, detections) for recipe in recipes]


def _plan_split(recipe: Recipe, detections: dict[Path, DetectionPlan]) -> SplitPlan:
    """Plan one split. detections: raw folder -> plan of its detection, which this function adds."""
    plan = SplitPlan(recipe)
    if recipe.needs_demo_data:
        return plan
    try:
        plan.staged = staged_by_parts(recipe.root, recipe.name)
        plan.committed = committed_split(recipe.root, recipe.name)
        plan.conversion = compare(
            plan.committed,
            recipe.dataset,
            recipe.split,
            raw=recipe.raw,
            root=recipe.root,
            body=recipe.body,
            drop_removed=recipe.drop_removed,
        )
        _plan_detection(plan, plan.conversion, detections)
    except (PipelineError, cache.CacheError) as error:
        plan.problems.append(str(error))
    try:
        _plan_streams(plan)
    except (PipelineError, cache.CacheError) as error:
        plan.problems.append(str(error))
    return plan


def _plan_detection(
    plan: SplitPlan, conversion: ConversionPlan, detections: dict[Path, DetectionPlan]
) -> None:
    """Set `plan.undetected`, the clips of this split that the detector has to do, and
    `plan.detection`, if it can be made. detections: as for `_plan_split`.

    A detection is planned by the detector's weights. Until these are downloaded, there is no plan,
    and clips are undetected by the other options of their keypoints.
    """
    recipe = plan.recipe
    detector = recipe.detector
    if detector is None:
        return
    files = itertools.chain.from_iterable(video.files for video in conversion.listed)
    of_split = {str(file) for file in files if file.suffix.lower() in EXTENSIONS}
    if detector.downloads:
        unlabelled = unlabelled_clips(recipe.raw, by_any_detector=recipe.by_any_detector)
        clips = [clip for clip in unlabelled if clip in of_split]
        plan.undetected = tuple(c for c in clips if not _is_detected(recipe.raw, c, detector))
        return
    plan.detection = _detection_of_folder(recipe, detections)
    if plan.detection is not None:
        missing = (item.clip for item in plan.detection.missing)
        plan.undetected = tuple(clip for clip in missing if clip in of_split)


def _detection_of_folder(
    recipe: Recipe, detections: dict[Path, DetectionPlan]
) -> DetectionPlan | None:
    """The plan of the raw folder's detection, which its splits share; None if all clips have labels
    that detection would not make.
    """
    raw = recipe.raw
    if raw not in detections:
        if not unlabelled_clips(raw, by_any_detector=recipe.by_any_detector):
            return None
        detections[raw] = recipe.plan_detection()
    return detections[raw]


def _is_detected(raw: Path, clip: str, detector: Detector) -> bool:
    """Whether a clip, as it is now, has keypoints by this detector with its N of `--every N`. The
    weights are not compared: they are not downloaded yet.
    """
    info = read_info(detected_file(raw / KEYPOINTS, clip))
    is_same_clip = bool(info) and info.get("clip_digest") == digest_or_problem(raw / clip)
    return is_same_clip and not detected_otherwise(raw / KEYPOINTS, [clip], detector)


def _plan_streams(plan: SplitPlan) -> None:
    """Plan the extraction of the committed rows. Raise ConfigError if a run would extract real data
    with random weights.
    """
    recipe = plan.recipe
    if plan.committed is not None:
        _plan_committed(plan, plan.committed)
        if plan.problems:  # no run, and so no extraction
            return
    if _will_extract(plan):
        recipe.refuse_random_weights(recipe.streams)


def _plan_committed(plan: SplitPlan, committed: cache.Split) -> None:
    """Set `plan.extractions` and `plan.unnamed`, and add to `plan.refusals`.

    Plans the recipe's streams for which the split has the columns. If there is none, plans every
    stream in the cache with the settings that it was extracted with.
    """
    specs = list[StreamSpec]()
    for spec in plan.recipe.streams:
        if spec.stream.reads.crops:
            message = spec.missing_columns(committed)
            if message:
                plan.refusals.append(message)
        if committed.known_columns.issuperset(spec.stream.needs):
            specs.append(spec)
    planned = {spec.name for spec in specs}
    others = [_as_extracted(committed, name) for name in committed.streams if name not in planned]
    if specs:
        plan.unnamed = [stream for stream in others if stream.why]
        plan.extractions = [_plan_stream(plan, committed, spec) for spec in specs]
    else:
        plan.extractions = others


def _will_extract(plan: SplitPlan) -> bool:
    """Whether a run has rows to extract, now or after its conversion."""
    if plan.committed is None or any(stream.why for stream in plan.extractions):
        return True
    return plan.conversion is not None and bool(plan.conversion.append or plan.undetected)


def _as_extracted(committed: cache.Split, name: str) -> StreamPlan:
    """The plan of a stream with the settings that it was extracted with."""
    missing = missing_rows(committed, name)
    why = CHANGED if missing.rows else ""
    return StreamPlan(name, why, missing)


def _plan_stream(plan: SplitPlan, committed: cache.Split, spec: StreamSpec) -> StreamPlan:
    """The plan of a stream with the settings `spec`.

    A refusal is added to `plan.problems` if the settings differ from the recorded ones, else to
    `plan.refusals`: then the stream is not extracted, and its `why` is "".
    """
    compared = compare_stream(committed, replace(spec, raw=plan.recipe.raw))
    assert compared.missing is not None, "a split with boxes has pixels"
    why = compared.why
    if compared.differs:
        plan.problems.append(compared.refusal)
    elif compared.refusal:
        plan.refusals.append(compared.refusal)
        why = ""
    return StreamPlan(spec.name, why, compared.missing, compared.differs)
