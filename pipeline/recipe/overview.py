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
from pipeline.conversion.plan import ConversionPlan, committed_split, compare
from pipeline.errors import PipelineError
from pipeline.features.plan import ExtractionPlan, compare_stream, missing_rows
from pipeline.files.raw.files import digest_or_problem
from pipeline.recipe.recipe import Recipe


@dataclass(slots=True)
class SplitPlan:
    """The plans of one recipe's steps. A plan is None, or empty, if it cannot be made."""

    recipe: Recipe
    committed: cache.Split | None = None  # the split in the cache, if any
    conversion: ConversionPlan | None = None
    # of the recipe's streams, for the committed rows, without those that the conversion adds
    extractions: list[ExtractionPlan] = field(default_factory=list)
    # incomplete streams in the cache that no setting or option names -> number of missing rows
    unnamed: dict[str, int] = field(default_factory=dict)
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

    @property
    def converts(self) -> bool:
        """Whether the conversion has something to do, now or after the detection."""
        return self.conversion is not None and bool(self.conversion.why or self.undetected)

    @property
    def lost_videos(self) -> Sequence[str]:
        """Messages about committed videos that are missing or unusable."""
        if self.conversion is None:
            return ()
        if self.conversion.up_to_date:
            return self.conversion.problems
        return self.conversion.kept_lines

    @property
    def complete_streams(self) -> list[str]:
        """The streams of a split that is up to date, without incomplete ones that are not named."""
        if self.committed is None:
            return []
        return [name for name in self.committed.streams if name not in self.unnamed]


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
    todo = plan.conversion
    adds_rows = plan.committed is None or bool(todo and (todo.append or plan.undetected))
    if not plan.problems and (adds_rows or any(stream.why for stream in plan.extractions)):
        recipe.refuse_random_weights(recipe.streams)


def _plan_committed(plan: SplitPlan, committed: cache.Split) -> None:
    """Set `plan.extractions` and `plan.unnamed`. A refusal of a stream is added to `plan.problems`
    if it was extracted with other settings, else to `plan.refusals`.
    """
    for spec in plan.recipe.streams:
        message = ""
        if spec.stream.reads.crops:
            message = spec.missing_columns(committed)
        stream = compare_stream(committed, replace(spec, raw=plan.recipe.raw))
        if stream.differs:
            plan.problems.append(stream.refusal)
        elif stream.refusal:
            message = stream.refusal
            stream = replace(stream, why="")  # it is not extracted
        if message:
            plan.refusals.append(message)
        if stream.missing is not None:
            plan.extractions.append(stream)
    planned = {stream.spec.name for stream in plan.extractions}
    for name in committed.streams:
        n_missing = missing_rows(committed, name).rows
        if n_missing and name not in planned:
            plan.unnamed[name] = n_missing
