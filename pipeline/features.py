"""Rows -> a feature stream, on GPU or CPU.  tracks -> [features] -> windows

Shard by shard: every frame that the shard's rows show is decoded once, in order, all its persons are cropped from it,
and crops go through the network in batches of one fixed size. Decoding runs ahead in a thread. Planning needs no torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from cache import Split
from pipeline import accepted, crops, frames, sources
from pipeline.differences import Difference, differing
from pipeline.errors import ConfigError, PipelineError
from pipeline.pending import Pending, pending
from pipeline.planning import UNSETTLED
from pipeline.progress import Progress, silent
from pipeline.read_ahead import ahead, batches
from pipeline.stand_in import is_stand_in
from pipeline.weights import WeightsSpec

if TYPE_CHECKING:
    from pipeline.backbones import Backbone

KIND: Final = "resnet50"
VERSION: Final = 1  # raised by hand whenever the same pixels and boxes would give other features
DIM: Final = 2048
AHEAD: Final = 256  # decoded crops waiting for the network: 38 MB
CHANGED: Final = "the split has changed"  # why a stream that is there is extended
EXAMPLES: Final = 5  # problems told in words; the rest are counted


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What is to be extracted: everything here but `device`, `batch_size` and `raw` can change the numbers."""

    name: str = KIND
    weights: WeightsSpec = field(default_factory=lambda: WeightsSpec("untrained", "0"))
    precision: str = "fast"
    device: str = "auto"  # auto: cuda when there is one
    batch_size: int = 32
    raw: Path | None = None  # where the raw folder lies now; None: where it lay at conversion

    def __post_init__(self) -> None:
        if self.precision not in ("exact", "fast"):
            raise ConfigError(f"precision {self.precision!r}: expected exact or fast")
        if self.batch_size < 1:
            raise ConfigError(f"batch size {self.batch_size}: expected at least 1")

    def at(self, raw: Path) -> StreamSpec:
        """The same stream, with the raw folder where it lies now."""
        return replace(self, raw=raw)

    def identity(self) -> dict[str, Any]:
        """The stream's fingerprint beside its rows' own keys (pixels, frame, box, crop scale)."""
        return {"kind": KIND, "version": VERSION, "weights": self.weights.identity(), "precision": self.precision}


@dataclass(frozen=True, slots=True)
class ExtractionPlan:
    """What an extraction would do, and why; `why` is "" when there is nothing to do."""

    root: cache.Root
    split: str
    spec: StreamSpec
    identity: Mapping[str, Any]
    replace: bool
    why: str
    lacks: Pending | None = None  # None: motion alone, without pixels
    differs: tuple[
        Difference, ...
    ] = ()  # what the stream was made with, and is not asked for now: an extraction refuses

    @property
    def up_to_date(self) -> bool:
        return not self.why


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extraction did, in rows."""

    plan: ExtractionPlan
    computed: int
    carried: int  # rows whose pixels, frame and box the stream already had
    problems: Mapping[str, int]  # why rows have no feature -> how many
    examples: tuple[str, ...]  # the first few problems, in words
    seconds: float


def plan_extraction(root: cache.Root, split: str, spec: StreamSpec, *, replace: bool = False) -> ExtractionPlan:
    """Compare the committed rows with what the stream has.

    Raises cache.CacheError when the split is not there, PipelineError when the stream holds features of other weights
    or another precision: those go into a stream of another name. With `replace`, a stream that is there is made again
    from nothing, whatever it holds: that repairs lost shards, and tries undecodable frames once more.
    """
    plan = compare_stream(cache.open(root)[split], spec, replace=replace)
    if plan.differs:
        raise PipelineError(
            f"{split}: the stream {spec.name!r} was extracted otherwise: {'; '.join(map(str, plan.differs))} (now "
            f"{spec.weights}, {spec.precision}). A stream keeps its weights and precision: name another one (--stream "
            "NAME, [features] stream), or discard it (--replace). If the numbers are the same nevertheless, say so: "
            "`python -m pipeline accept`."
        )
    return plan


def compare_stream(committed: Split, spec: StreamSpec, *, replace: bool = False) -> ExtractionPlan:
    """The same for a split that is open, and with what the stream was extracted with otherwise told in `differs`."""
    make = functools.partial(ExtractionPlan, committed.root, committed.name, spec, spec.identity(), replace=False)
    if "bbox" not in committed.columns:
        return make(why="")  # motion only: there are no pixels
    if spec.name not in committed.streams:
        return make(why="not extracted before", lacks=pending(committed, None))
    if replace:
        return make(why="asked for anew", lacks=pending(committed, None), replace=True)
    lacks = pending(committed, spec.name)
    why = CHANGED if lacks.shards else UNSETTLED if committed.unsettled(spec.name) else ""
    identity = committed.stream_manifest(spec.name)["identity"]
    return make(why=why, lacks=lacks, differs=tuple(differing(identity, spec.identity())))


def refuse_untrained(spec: StreamSpec, raw: Path, said: str) -> None:
    """Raise ConfigError for an untrained network that would see real data. `said`: where its weights were named."""
    if spec.weights.stand_in and not is_stand_in(raw):
        raise ConfigError(
            f"{said} = {spec.weights}: an untrained network is for embedded data, and {raw} is real. Name its weights: "
            "spin:FILE, torchvision:NAME or file:FILE."
        )


def is_current(split: Split, stream: str) -> bool:
    """Does the stream have every row of the split's tracks? If not, it lags behind them."""
    return not pending(split, stream).shards


def extract(plan: ExtractionPlan, *, progress: Progress = silent) -> Extraction:
    """Compute the rows that the stream lacks, and commit. Killed at any point, it goes on at the shard.

    A frame that cannot be decoded costs its rows: they are marked (`ok` 0), counted, and kept out of windows.
    Raises PipelineError when the raw folder is not where it was at conversion, lacks a committed video's pictures, or
    has others than those that were converted.
    """
    started = time.monotonic()
    split = cache.open(plan.root)[plan.split]
    held = plan.spec.name in split.streams and not plan.replace
    rows = RowSource(split, _raw_folder(split, plan.spec))
    network = _Network(plan.spec, split.stream_manifest(plan.spec.name)["backbone"] if held else None)
    if plan.replace:
        network.provenance()  # loads it: what cannot be loaded must not cost the stream that is there
        cache.discard(plan.root, plan.split, plan.spec.name)
    tally = _Tally(progress, started)
    identity = cache.fingerprint(dict(plan.identity))
    with cache.StreamWriter(plan.root, plan.split, plan.spec.name, dim=DIM, plan=identity) as writer:
        if writer.split_digest != split.manifest["digest"]:
            raise cache.CacheChanged(f"{plan.split}: there has been a commit since it was looked at: run it again")
        pending = writer.pending
        tally.total = sum(int(writer.live(shard).sum()) for shard in pending)
        for shard in pending:
            _extract_shard(writer, shard, rows, network, tally)
        backbone = network.provenance()
        stand_in = backbone["stand_in"] or split.manifest["stand_in"]
        remembered = accepted.entry(accepted.records(split.stream_manifest(plan.spec.name))) if held else {}
        writer.commit({**remembered, "identity": dict(plan.identity), "backbone": backbone, "stand_in": stand_in})
    seconds = time.monotonic() - started
    return Extraction(plan, tally.computed, tally.carried, dict(tally.problems), tuple(tally.examples), seconds)


def _extract_shard(writer: cache.StreamWriter, shard: int, rows: RowSource, network: _Network, tally: _Tally) -> None:
    first = writer.rows(shard).start
    live = first + np.flatnonzero(writer.live(shard))
    keys = np.zeros((len(writer.rows(shard)), 2), np.uint64)
    keys[live - first] = rows.keys(live)
    carried, features, ok = writer.carried(keys)
    carried[np.setdiff1d(np.arange(len(keys)), live - first)] = True  # rows of no track need nothing
    todo = live[~carried[live - first]]
    tally.add(carried=len(live) - len(todo))
    for batch in batches(rows.crops(todo, tally), network.batch_size):
        at = np.array([cropped.row for cropped in batch]) - first
        features[at] = network([cropped.crop for cropped in batch])
        ok[at] = 1
        tally.add(computed=len(batch))
    writer.write(shard, features, ok, keys)


@dataclass(slots=True)
class _Tally:
    """What has been done so far, and who is told."""

    progress: Progress
    started: float
    total: int = 0
    computed: int = 0
    carried: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def add(self, computed: int = 0, carried: int = 0) -> None:
        self.computed += computed
        self.carried += carried
        rate = self.computed / max(time.monotonic() - self.started, 1e-3)
        self.progress(self.computed + self.carried, self.total, f"{rate:.0f} a second")

    def problem(self, kind: str, example: str, rows: int) -> None:
        self.problems[kind] = self.problems.get(kind, 0) + rows
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


class Cropped(NamedTuple):
    """One person in one frame, ready for the network."""

    row: int
    crop: frames.Image  # (224, 224, 3) uint8 RGB


class RowSource:
    """Pixels of a split's rows: in which video, frame and box each lies."""

    def __init__(self, split: Split, raw: Path) -> None:
        self.split, self.raw = split, raw
        self._known: set[int] = set()  # videos whose pixels have been compared with what was converted

    def keys(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """(n, 2): 128 bits that differ when the row's pixels, frame, box or crop scale do."""
        track = self.split.track_of(rows)
        video = self.split.tracks.video[track]
        scale = np.asarray(self.split.tracks.crop_scale[track], np.float64)
        frame, bbox = self._rows("frame_index", rows), self._rows("bbox", rows)
        pixels = {number: self.split.videos[number].pixels.encode() for number in np.unique(video).tolist()}
        out = np.empty((len(rows), 16), np.uint8)
        for i in range(len(rows)):
            key = hashlib.blake2b(pixels[int(video[i])], digest_size=16)
            key.update(frame[i].tobytes() + bbox[i].tobytes() + scale[i].tobytes())
            out[i] = np.frombuffer(key.digest(), np.uint8)
        return out.view(np.uint64)

    def crops(self, rows: NDArray[np.int64], tally: _Tally) -> Iterator[Cropped]:
        """Decode every frame of these rows once, video by video, in order; yield the crops of all its persons.

        Decoding runs ahead of the caller in a thread, at most AHEAD crops.
        """
        yield from ahead(self._decode(rows, tally), AHEAD)

    def _decode(self, rows: NDArray[np.int64], tally: _Tally) -> Iterator[Cropped]:
        track = self.split.track_of(rows)
        video, scale = self.split.tracks.video[track], self.split.tracks.crop_scale[track]
        frame, bbox = self._rows("frame_index", rows), self._rows("bbox", rows)
        order = np.lexsort((rows, frame, video))
        for of_video in _groups(order, video):
            entry, source = self._source(int(video[of_video[0]]))
            by_frame = {int(frame[group[0]]): group for group in _groups(of_video, frame)}
            for decoded in source.read(by_frame):
                group = by_frame[decoded.index]
                if decoded.image is None:
                    tally.problem(decoded.kind, f"{entry.name}, frame {decoded.index}: {decoded.problem}", len(group))
                    continue
                for i in group:
                    yield Cropped(int(rows[i]), crops.crop_person(decoded.image, bbox[i], scale=float(scale[i])))

    def _source(self, number: int) -> tuple[cache.VideoEntry, frames.FrameSource]:
        """A video and its pixels. Raises PipelineError when they are not those that its boxes and keys were made for.

        An entry of somebody else's writing that does not name its pixels is taken as it is.
        """
        entry = self.split.videos[number]
        source = sources.parse(self.raw, entry.source)
        if number not in self._known and entry.pixels and source.digest() != entry.pixels:
            raise PipelineError(
                f"{self.split.name}: {entry.name}: {source.place} does not hold the pictures that were converted. If "
                "those lie elsewhere, say where: --raw DIR, or [paths] raw in luigi.cfg. If they were changed, convert "
                f"again, after `touch '{source.place}'`: conversion looks again at what has another time."
            )
        self._known.add(number)
        return entry, source

    def _rows(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The given rows, ascending and within one shard, of one column."""
        if not len(rows):
            return np.empty((0, *cache.COLUMNS[name].trailing), cache.COLUMNS[name].dtype)
        start = int(rows[0])
        return self.split.rows(name, start, int(rows[-1]) + 1)[rows - start]


class _Network:
    """The backbone, loaded at the first crop: an extraction that only carries rows over never imports torch."""

    def __init__(self, spec: StreamSpec, recorded: Mapping[str, Any] | None) -> None:
        self.batch_size = spec.batch_size
        self._spec = spec
        self._recorded = recorded
        self._loaded: tuple[Backbone, dict[str, Any]] | None = None

    def __call__(self, batch: list[frames.Image]) -> NDArray[np.float32]:
        """Crops -> (n, 2048). Batches are filled up to one size: a row's numbers must not depend on its company."""
        import torch

        backbone, _ = self._load()
        filled = np.zeros((self.batch_size, *batch[0].shape), np.uint8)
        filled[: len(batch)] = batch
        device = next(backbone.network.parameters()).device
        features = backbone(torch.from_numpy(filled).to(device))
        result: NDArray[np.float32] = features[: len(batch)].cpu().numpy()
        return result

    def provenance(self) -> dict[str, Any]:
        """Weights, their sha256, stand-in or not; as an earlier extraction recorded it when nothing was computed."""
        if self._loaded is None and self._recorded is not None:
            return dict(self._recorded)
        return self._load()[1]

    def _load(self) -> tuple[Backbone, dict[str, Any]]:
        if self._loaded is None:
            standardisation = (self._recorded or {}).get("standardisation")
            told = None if standardisation is None else json.dumps(standardisation)
            self._loaded = _backbone(self._spec.weights, self._spec.precision, self._spec.device, told)
        return self._loaded


@functools.lru_cache(maxsize=1)
def _backbone(
    weights: WeightsSpec, precision: str, device: str, standardisation: str | None
) -> tuple[Backbone, dict[str, Any]]:
    """The network on its device, loaded once for all the splits that a process extracts."""
    import torch

    from pipeline import backbones
    from pipeline.synthetic import calibration_crops

    there = torch.cuda.is_available()
    if device.startswith("cuda") and not there:
        raise ConfigError(f"device {device!r}: torch {torch.__version__} finds no CUDA device here. Take cpu, or auto.")
    if device == "auto":
        device = "cuda" if there else "cpu"
    recorded = None if standardisation is None else json.loads(standardisation)
    network, provenance = backbones.load(weights, precision=precision, calibration=calibration_crops, recorded=recorded)
    return network.to(device), provenance


def _raw_folder(split: Split, spec: StreamSpec) -> Path:
    """The dataset's raw folder. A wrong one must not pass: every row of it would be marked as undecodable, for good."""
    say = "Say where the dataset's own raw folder is: --raw DIR, or [paths] raw in luigi.cfg."
    recorded = split.provenance.get("raw")
    if imported := split.manifest.get("reader", {}).get("imported"):
        unknown = not all(split.videos[number].source for number in np.unique(split.tracks.video).tolist())
        if unknown:
            raise PipelineError(
                f"{split.name}: was imported from {imported['file']}, which does not say where its pictures are. "
                "Convert the dataset into another cache to extract from it."
            )
        if spec.raw is None:
            raise PipelineError(f"{split.name}: was imported from {imported['file']}. {say}")
    if spec.raw is None and recorded is None:
        raise PipelineError(f"{split.name}: where its pictures are is not known, provenance.json is lost. {say}")
    raw = spec.raw or Path(str(recorded))
    if not raw.is_dir():
        was = f"its pictures were in {recorded} when it was converted" if spec.raw is None else f"--raw is {raw}"
        raise PipelineError(f"{split.name}: {was}, and that folder is not there now. {say}")
    entries = [split.videos[number] for number in np.unique(split.tracks.video).tolist()]
    absent = [entry for entry in entries if entry.source and not sources.parse(raw, entry.source).place.exists()]
    if absent:
        place = sources.parse(raw, absent[0].source).place
        raise PipelineError(
            f"{split.name}: the pictures of {len(absent)} of its {len(entries)} videos are not below {raw}, first "
            f"{absent[0].name}: there is no {place}. {say} If they were removed on purpose, convert again."
        )
    return raw


def _groups(order: NDArray[np.int64], by: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Split positions, already sorted by `by`, into runs of equal `by`."""
    if not len(order):
        return []
    return np.split(order, np.flatnonzero(np.diff(by[order])) + 1)
