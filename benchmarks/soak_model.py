"""What a cache must have of the lab of benchmarks/soak.py, and how it is compared with what readers get."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import cache
from benchmarks.soak_lab import CROP, FIRST, HEIGHT, MOTION, PENN, PEOPLE, WIDTH, SoakMotion, SoakPeople, Video, edges
from pipeline.track import CROP_SCALE

Array = NDArray[Any]
Held = Mapping[str, int]  # the videos, with their version, whose rows a stream has


@dataclass(frozen=True)
class State:
    """What the cache must have of a split."""

    videos: Mapping[str, Video] = field(default_factory=dict)
    streams: Mapping[str, Held] = field(default_factory=dict)
    there: bool = False

    def converted(self, videos: Mapping[str, Video]) -> State:
        """After a commit of these videos: streams keep the rows of those that stayed."""
        before = {name: (video.version, video.spoiled) for name, video in self.videos.items()}
        stayed = {
            name: video.version for name, video in videos.items() if before.get(name) == (video.version, video.spoiled)
        }
        streams = {
            stream: {name: version for name, version in held.items() if stayed.get(name) == version}
            for stream, held in self.streams.items()
        }
        return State(dict(videos), streams, there=True)

    def extracted(self, streams: Sequence[str]) -> State:
        every = {name: video.version for name, video in self.videos.items()}
        return replace(self, streams={**self.streams, **dict.fromkeys(streams, every)})


class Checks:
    """Comparisons of a split with the model. Each returns what differs."""

    def __init__(self) -> None:
        self.count = 0
        self.fingerprints: dict[tuple[str, str, int, bool], str] = {}  # of what was committed, by `_version`

    def equal(self, what: str, found: Any, expected: Any) -> list[str]:
        self.count += 1
        same = np.array_equal(found, expected) if isinstance(expected, np.ndarray) else found == expected
        return [] if same else [f"{what}: expected {str(expected)[:300]}, found {str(found)[:300]}"]

    def tracks(self, split: cache.Split, videos: Mapping[str, Video]) -> list[str]:
        """Tables, accounts and columns."""
        dataset, _, part = split.name.partition("/")
        wrong = self.equal("videos", sorted(split.videos.names), sorted(videos))
        if wrong:
            return wrong
        tracks = {track.name: track for track in split.tracks}
        expected = {name: (video, columns) for name, video, columns in tracks_of(dataset, part, videos)}
        kept = Counter[str]()
        for video, columns in expected.values():
            kept[video] += len(columns["frame_index"])
        for entry in split.videos:
            raw, account = videos[entry.name], entry.account
            spoiled = "bad_label_file" if raw.spoiled and raw.split == part else ""
            n_frames = sum(len(person.frame) for person in raw.people) if raw.split == part and not spoiled else 0
            got = (account["set_aside"], account["found"], account["kept"])
            wrong += self.equal(f"account of {entry.name}", got, (spoiled, n_frames, kept[entry.name]))
            known = self.fingerprints.get(_version(split, entry.name, raw), entry.fingerprint)
            wrong += self.equal(f"fingerprint of {entry.name}", entry.fingerprint, known)
        wrong += self.equal("tracks", sorted(tracks), sorted(expected))
        wrong += self.equal("rows", split.manifest["rows"], kept.total())
        for name, (video, columns) in expected.items() if not wrong else ():
            track = tracks[name]
            step = usual_step(columns["frame_index"].tolist())
            wrong += self.equal(f"{name}'s record", (track.video, track.step, track.crop_scale), (video, step, 1.3))
            wrong += self.equal("columns", sorted(split.columns), sorted(columns))
            for column, rows in columns.items():
                stored = split.rows(column, track.start, track.stop)
                wrong += self.equal(f"{name}: {column}", stored, rows.astype(stored.dtype))
        return wrong

    def remember(self, split: cache.Split, videos: Mapping[str, Video]) -> None:
        """What the cache knows each video by: other pictures of the same labels are seen by nothing else."""
        self.fingerprints |= {_version(split, one.name, videos[one.name]): one.fingerprint for one in split.videos}

    def stream(self, split: cache.Split, videos: Mapping[str, Video], stream: str, held: Held | None) -> list[str]:
        """Rows and their numbers; `held` None: whatever rows are there."""
        tracks = {track.name: track for track in split.tracks}
        size = int(split.manifest["geometry"]["rows_per_shard"])
        shards, wrong = set(split.stream_shards(stream)), list[str]()
        n_windows = 0
        dataset, _, part = split.name.partition("/")
        for name, video, columns in tracks_of(dataset, part, videos):
            first, stop = tracks[name].start, tracks[name].stop
            own = set(range(first // size, (stop - 1) // size + 1))
            if held is None:
                has = own <= shards
            else:
                has = held.get(video) == videos[video].version
                wrong += self.equal(f"{name}: shards of {stream}", sorted(own & shards), sorted(own) if has else [])
            if not has or wrong:
                continue
            flags, numbers = features(videos[video], columns, stream)
            ok = split.rows(f"features/{stream}_ok", first, stop)
            if (
                held is not None or 255 not in ok
            ):  # else it has rows of the shard, but not these: reading them is refused
                wrong += self.equal(f"{name}: flags of {stream}", ok, flags.astype(ok.dtype))
            rows = np.flatnonzero(flags != 0)
            n_windows += len(rows)
            if wrong or not len(rows):
                continue
            if stream == "crops":
                found = np.array([decoded(blob) for blob in split.blobs(stream, rows + first)], np.float64)
            else:
                windows = np.stack([rows + first, rows + first + 1], axis=1)
                found = split.read(windows, stream, fields=["features"])["features"][:, 0].astype(np.float64)
            expected = np.array([numbers[row] for row in rows])
            near = {"joints": 1e-3, "step": 0}.get(stream, 2.5)  # px, from where the crop was cut out
            self.count += 1
            if found.shape != expected.shape or (np.abs(found - expected) > near).any():
                wrong.append(f"{name}: {stream}: expected {expected.tolist()}, found {found.tolist()}")
        if held is not None and not wrong:
            wrong += self.equal(f"windows of {stream}", len(split.windows(1, 1, stream)), n_windows)
        return wrong


def _version(split: cache.Split, name: str, video: Video) -> tuple[str, str, int, bool]:
    return split.name, name, video.version, video.spoiled


def features(video: Video, columns: Mapping[str, Array], stream: str) -> tuple[Array, list[list[float] | None]]:
    """A track's flags (T,) and, where there is a value, its numbers (of crops: `edges`), as a stream must have them."""
    frames = columns["frame_index"].tolist()
    step = usual_step(frames)
    values = [video.pictures.get(frame, (0, 0))[0] for frame in frames]
    flags, found = [], list[list[float] | None]()
    for row, (frame, value, box) in enumerate(zip(frames, values, columns["bbox"].tolist(), strict=True)):
        numbers: list[float] | None = None
        flag = 1 if value else 0
        if stream == "joints":
            xy = columns["kp_2d"][row, :, :2].astype(np.float64)
            flag = 1 if xy[FIRST, 0] % 2 == 0 else 2
            numbers = xy.mean(axis=0).tolist() if flag == 1 else [0, 0]
        elif stream == "step" and (not row or frame - frames[row - 1] != step):
            flag, numbers = 2, [0, 0]
        elif stream == "step":
            flag = 1 if value and values[row - 1] else 0
            numbers = [values[row - 1], value] if flag else None
        elif flag:
            side = box[2] * CROP_SCALE
            ends = ((0 - box[0], WIDTH - box[0]), (0 - box[1], HEIGHT - box[1]))
            placed = [float(np.clip((end / side + 0.5) * CROP, 0, CROP)) for pair in ends for end in pair]
            numbers = [value, *placed]
        flags.append(flag)
        found.append(numbers)
    return np.array(flags), found


def usual_step(frames: Sequence[int]) -> int:
    """The most common difference, the smallest of several."""
    steps = [after - before for before, after in itertools.pairwise(frames)]
    return min(set(steps), key=lambda step: (-steps.count(step), step), default=1)


def decoded(data: bytes) -> list[int]:
    """`edges` of a stored crop."""
    return edges(np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8))


def tracks_of(dataset: str, split: str, videos: Mapping[str, Video]) -> Iterator[tuple[str, str, dict[str, Array]]]:
    """(track, video, columns) of everything that a split must have."""
    names = {PENN: ("frame_index", "bbox", "kp_2d"), PEOPLE: SoakPeople.kept, MOTION: SoakMotion.kept}[dataset]
    for name, video in sorted(videos.items()):
        for number, person in enumerate(video.people):
            rows = video.rows(dataset, person)
            if len(rows) and not video.spoiled and video.split == split:
                yield f"{name}/{number}", name, person.columns(names, rows)
