"""Plans of a split's detection, conversion and extraction, and bytes by split and stream.  [raw ->
tracks -> features]

Nothing is written or computed: names, sizes and times of raw files are compared, manifests and
tables are read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

import cache
from cache.format.layout import (
    COLUMNS,
    FEATURES,
    MANIFEST,
    ROWS_PER_CHUNK,
    ROWS_PER_SHARD,
    stream_of,
)
from cache.write.parts import staged_by_parts
from pipeline.clips.detectors import Detector
from pipeline.clips.files import EXTENSIONS, KEYPOINTS, detected_file, read_info
from pipeline.clips.plan import DetectionPlan, detected_otherwise, unlabelled_clips
from pipeline.conversion.identity import Difference
from pipeline.conversion.plan import ConversionPlan, committed_split, compare
from pipeline.errors import PipelineError
from pipeline.features.inputs import COMPARED, has_current_keys
from pipeline.features.plan import CHANGED, MissingRows, compare_stream, missing_rows
from pipeline.features.spec import StreamSpec
from pipeline.files.pixels import sources
from pipeline.files.raw import changes
from pipeline.files.raw.files import digest_or_problem
from pipeline.recipe.recipe import Recipe

CHECKSUM: Final = 4  # bytes of a crc32c
ENTRY: Final = 16  # bytes of a chunk's entry in its shard's index
FLAG_AND_KEY: Final = (1, 16)  # bytes a row of every stream's `_ok` and `_key`


@dataclass(slots=True)
class StreamPlan:
    """Extraction of the committed rows."""

    stream: str
    why: str  # "" if it is up to date
    missing: MissingRows
    form: tuple[int, str]  # numbers a row, and their type
    differs: tuple[Difference, ...] = ()  # if any, an extraction is refused
    other_keys: bool = False  # the stored keys are of another version: no row can be carried over

    @property
    def n_bytes(self) -> int:
        return round(stream_bytes(self.missing.rows, *self.form))


@dataclass(slots=True)
class SplitPlan:
    """A split's plans, each None or empty if it cannot be made."""

    recipe: Recipe
    conversion: ConversionPlan | None = None
    # without rows that the conversion adds
    extractions: list[StreamPlan] = field(default_factory=list)
    committed: cache.Split | None = None
    problems: list[str] = field(default_factory=list)  # errors that a run will meet
    # messages: streams to import, missing columns
    refusals: list[str] = field(default_factory=list)
    # incomplete streams that no setting or option names
    behind: list[StreamPlan] = field(default_factory=list)
    undetected: tuple[str, ...] = ()  # clips without keypoints, for the detector
    # of the whole raw folder; None also until its weights are downloaded
    detection: DetectionPlan | None = None
    parts: list[str] = field(default_factory=list)  # a line about the staged work of parts, if any

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def up_to_date(self) -> bool:
        if self.problems or self.refusals or self.undetected:
            return False
        if self.conversion is None or not self.conversion.up_to_date:
            return False
        return not any(plan.why or plan.differs for plan in self.extractions)

    @property
    def rows_again(self) -> int:
        if self.conversion is None:
            return 0
        return self._rows_of(self.conversion.changed)

    def carried_at_most(self, stream: str, rows: float) -> float:
        """Number of missing `rows` after the conversion that the stream may have already.

        It has rows of removed and changed videos, and carries over those whose images and boxes are
        unchanged.
        """
        if self.conversion is None:
            return 0
        if self.committed is None:  # if a split's manifest is lost, its streams are still there
            store = cache.FeatureCache(self.recipe.root).store
            is_left = store.exists(f"{self.name}/{FEATURES}/{stream}/{MANIFEST}")
            return rows if is_left else 0
        if stream not in self.committed.streams:
            return 0
        if any(plan.stream == stream and plan.other_keys for plan in self.extractions):
            return 0
        replaced = missing_rows(self.committed, stream).replaced
        return min(rows, replaced + self._rows_of(self.conversion.drop))

    def _rows_of(self, videos: Collection[str]) -> int:
        if self.committed is None:
            return 0
        names = frozenset(videos)
        tracks = self.committed.tracks
        of_video = np.array([name in names for name in self.committed.videos.names], bool)
        return int((tracks.stop - tracks.start)[of_video[tracks.video]].sum())

    @property
    def bytes_of_labels(self) -> int:
        if self.conversion is None:
            return 0
        stamps = self.conversion.stamps
        return changes.bytes_of_labels(stamps[video.name] for video in self.conversion.append)


def plan_splits(recipes: Sequence[Recipe]) -> list[SplitPlan]:
    """Plan splits; those of one raw folder share the plan of its detection. Errors become
    `SplitPlan.problems`.
    """
    detections: dict[Path, DetectionPlan] = {}
    return [_plan_split(recipe, detections) for recipe in recipes]


def _plan_split(recipe: Recipe, detections: dict[Path, DetectionPlan]) -> SplitPlan:
    """Plan one split. detections: raw folder -> plan of its detection, which this function adds."""
    plan = SplitPlan(recipe)
    if recipe.not_made:
        return plan
    try:
        plan.parts = staged_by_parts(recipe.root, recipe.name)
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
        _plan_streams(plan, recipe)
    except (PipelineError, cache.CacheError) as error:
        plan.problems.append(str(error))
    return plan


def _plan_detection(
    plan: SplitPlan, conversion: ConversionPlan, detections: dict[Path, DetectionPlan]
) -> None:
    """Find the split's clips without keypoints of [detect]."""
    detector = plan.recipe.detector
    raw = plan.recipe.raw
    if detector is None:
        return
    files = itertools.chain.from_iterable(video.files for video in conversion.listed)
    clips = {str(file) for file in files if file.suffix.lower() in EXTENSIONS}
    if raw not in detections or detector.downloads:
        only = unlabelled_clips(raw, by_any_detector=plan.recipe.by_any_detector)
        if detector.downloads or not only:
            of_split = [clip for clip in only if clip in clips]
            plan.undetected = tuple(
                clip for clip in of_split if not _is_detected(raw, clip, detector)
            )
            return
        detections[raw] = plan.recipe.plan_detection()
    plan.detection = detections[raw]
    missing = (item.clip for item in plan.detection.missing)
    plan.undetected = tuple(clip for clip in missing if clip in clips)


def _is_detected(raw: Path, clip: str, detector: Detector) -> bool:
    """Whether a clip has keypoints of this detector and N. Its weights, which are not downloaded,
    may be others.
    """
    info = read_info(detected_file(raw / KEYPOINTS, clip))
    is_same_clip = bool(info) and info.get("clip_digest") == digest_or_problem(raw / clip)
    return is_same_clip and not detected_otherwise(raw / KEYPOINTS, [clip], detector)


def _plan_streams(plan: SplitPlan, recipe: Recipe) -> None:
    """Plan the recipe's streams, else every committed stream as recorded."""
    committed = plan.committed
    specs = list(recipe.streams)
    if committed is not None:
        of_crops = [spec for spec in specs if spec.stream.reads.crops]
        plan.refusals += filter(None, (spec.missing_columns(committed) for spec in of_crops))
        specs = [spec for spec in specs if committed.known_columns.issuperset(spec.stream.needs)]
        names = {spec.name for spec in specs}
        others = [_as_extracted(committed, name) for name in committed.streams if name not in names]
        if specs:
            plan.behind = [stream for stream in others if stream.why]
            plan.extractions = [_plan_stream(plan, committed, spec, recipe.raw) for spec in specs]
        else:
            plan.extractions = others
        for stream, spec in itertools.zip_longest(plan.extractions, specs):
            stream.other_keys = _has_other_keys(plan.conversion, committed, stream.stream, spec)

    if not recipe.weights or (plan.problems and committed):
        return
    if _will_extract(plan) and recipe.raw.is_dir():
        for spec in recipe.streams:
            spec.refuse_untrained(recipe.raw, recipe.settings.source.where(spec.name, "weights"))


def _will_extract(plan: SplitPlan) -> bool:
    if plan.committed is None or any(stream.why for stream in plan.extractions):
        return True
    return plan.conversion is not None and bool(plan.conversion.append or plan.undetected)


def _has_other_keys(
    conversion: ConversionPlan | None, committed: cache.Split, name: str, spec: StreamSpec | None
) -> bool:
    """Compare a few keys, and the digests of pixels that are part of them, of rows that will be
    written again.
    """
    if conversion is None or not conversion.changed or name not in committed.streams:
        return False
    try:
        spec = spec or StreamSpec.from_manifest(committed, name)
        if spec is None:
            return False
        if not has_current_keys(committed, name, spec.stream):
            return True
    except (PipelineError, cache.CacheError):  # the extraction reports it
        return False
    if not conversion.differs or not spec.stream.reads.crops:
        return False

    has_pixels = False
    for number in np.unique(committed.tracks.video)[:COMPARED].tolist():
        video = committed.videos[number]
        if not video.pixels:
            continue
        source = sources.parse(conversion.raw, video.source)
        if source.place.exists():
            has_pixels = True
            if sources.file_part(video.pixels) == source.digest():
                return False
    return has_pixels


def _as_extracted(committed: cache.Split, name: str) -> StreamPlan:
    manifest = committed.stream_manifest(name)
    missing = missing_rows(committed, name)
    why = CHANGED if missing.rows else ""
    return StreamPlan(name, why, missing, (int(manifest["dim"]), str(manifest["dtype"])))


def _plan_stream(
    plan: SplitPlan, committed: cache.Split, spec: StreamSpec, raw: Path
) -> StreamPlan:
    form = (spec.stream.dim, spec.stream.dtype)
    compared = compare_stream(committed, replace(spec, raw=raw))
    assert compared.missing is not None, "a split with boxes has pixels"
    refusal = compared.refusal
    if compared.differs:
        plan.problems.append(refusal)
    elif refusal:
        plan.refusals.append(refusal)
    why = "" if refusal and not compared.differs else compared.why
    return StreamPlan(spec.name, why, compared.missing, form, compared.differs)


def _array_bytes(rows: float, row_bytes: int) -> float:
    """Bytes of rows in shards and chunks of the default size, with checksums and indexes
    (docs/cache-format.md).
    """
    n_chunks = math.ceil(rows / ROWS_PER_CHUNK)
    n_shards = math.ceil(rows / ROWS_PER_SHARD)
    chunk_bytes = ROWS_PER_CHUNK * row_bytes + CHECKSUM
    index_bytes = ROWS_PER_SHARD // ROWS_PER_CHUNK * ENTRY + CHECKSUM
    return n_chunks * chunk_bytes + n_shards * index_bytes


def columns_bytes(
    rows: float, columns: tuple[str, ...], extra: Iterable[cache.ExtraColumn]
) -> float:
    """Bytes of a split's columns."""
    specs = [
        *(COLUMNS[name] for name in columns),
        *(column.spec for column in extra if column.per == "row"),
    ]
    return sum(_array_bytes(rows, math.prod(spec.trailing) * spec.dtype.itemsize) for spec in specs)


def stream_bytes(rows: float, dim: int, dtype: str) -> float:
    """Bytes of a stream."""
    number_bytes = 2 if dtype == "float16" else 4
    widths = (dim * number_bytes, *FLAG_AND_KEY)
    return sum(_array_bytes(rows, width) for width in widths)


def stored_bytes(split: cache.Split) -> dict[str, Any]:
    """Stored bytes of a split: `columns`, `streams` (by name), `tables` (all other files).

    `commits`: time of the newest commit of "columns" and of each stream; None if lost.
    """
    stored: dict[str, Any] = {"columns": 0, "streams": dict.fromkeys(split.streams, 0), "tables": 0}
    for key, n_bytes in split.store.files(split.name).items():
        top, *names = key.removeprefix(f"{split.name}/").split("/")
        stream = stream_of(names[0]) if names[1:2] == ["c"] else None
        if top in split.columns and names[:1] == ["c"]:
            stored["columns"] += n_bytes
        elif top == FEATURES and stream in stored["streams"]:
            stored["streams"][stream] += n_bytes
        else:
            stored["tables"] += n_bytes
    stored["commits"] = {"columns": split.provenance.get("finished")}
    for name in split.streams:
        stored["commits"][name] = split.stream_provenance(name).get("finished")
    return stored
