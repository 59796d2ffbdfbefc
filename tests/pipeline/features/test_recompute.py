"""`verify --recompute`: rows with the numbers of another frame are found, and a sound cache gives
no alarm.
"""

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

import cache
from cache import CropPolicy, Jitter
from pipeline import crops, table
from pipeline.features import streams
from pipeline.features.extract import Extraction, extract_together
from pipeline.features.plan import plan_extraction
from pipeline.features.recompute import Misaligned, Recomputed, draw_rows, recompute
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.base import Machine, NumberStream, PairStream
from pipeline.features.weights import WeightsSpec
from pipeline.files.pixels import sources
from tests.packages import without
from tests.pipeline.datasets.by_hand import encode

SPLIT = "toy/train"
SMALL = CropPolicy(size=16)
SIDE = 96  # px
ROWS = (2, 13, 30, 8, 33)
SCENE = cv2.GaussianBlur(
    np.random.default_rng(3).integers(0, 256, (400, 400, 3), np.uint8), (0, 0), 4
)
SCENE = cv2.normalize(SCENE, None, 0, 255, cv2.NORM_MINMAX)


@dataclass(frozen=True, kw_only=True)
class Tiny(NumberStream):
    """The mean colours of 16 parts of a small crop."""

    crop: CropPolicy = SMALL

    kind: ClassVar[str] = "tiny"
    dim: ClassVar[int] = 48
    dtype: ClassVar[str] = "float32"

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Any:
        return _Means()


@dataclass(frozen=True, kw_only=True)
class Followed(PairStream):
    """The mean colours of 16 parts of the pair's crops, and the left hip, by the later row's
    keypoints.
    """

    kind: ClassVar[str] = "followed"
    dim: ClassVar[int] = 98
    columns: ClassVar[tuple[str, ...]] = ("kp_2d",)

    def pair(self, previous: np.ndarray, current: np.ndarray, kp_2d: np.ndarray) -> np.ndarray:
        means = _Means()(np.stack([previous, current])).ravel()
        return np.concatenate([means, kp_2d[27, :2]]).astype(np.float32)


class _Means:
    batch_size, lanes = 64, 1
    provenance: ClassVar[Mapping[str, Any]] = {"stand_in": True}

    def adopt(self, memory: np.ndarray) -> None: ...

    def release(self) -> None: ...

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        n, side = len(batch), batch.shape[1] // 4
        means = batch.reshape(n, 4, side, 4, side, 3).mean((2, 4)).reshape(n, 48)
        return np.asarray(means, np.float32)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(table.OWN[streams.ENTRY_POINTS], "tiny", f"{__name__}:Tiny")
        patch.setitem(table.OWN[streams.ENTRY_POINTS], "followed", f"{__name__}:Followed")
        yield


class Toy:
    """Videos of a scene that a camera passes over, and persons whose boxes move otherwise."""

    def __init__(
        self,
        folder: Path,
        videos: int,
        frames: int,
        persons: int,
        *,
        still: bool = False,
        layout: int = 0,
    ) -> None:
        """`layout`: seed from which gaps, steps and lengths of tracks are drawn; 0: all tracks have
        all frames.
        """
        self.raw = folder / "raw"
        self.root = folder / "cache"
        self.frames = frames
        self.still = still
        self.layout = layout
        rng = np.random.default_rng(layout)
        with cache.SplitWriter(
            self.root,
            SPLIT,
            columns=("frame_index", "bbox", "kp_2d"),
            plan="toy",
            rows_per_shard=16,
            rows_per_chunk=8,
            provenance={"raw": str(self.raw)},
        ) as writer:
            writer.begin()
            for video in range(videos):
                source = self._video(video) if video % 2 else self._pictures(video)
                entry = cache.VideoEntry(
                    name=f"v{video}",
                    source=source,
                    pixels=sources.parse(self.raw, source).digest(),
                    width=SIDE,
                    height=SIDE,
                )
                tracks = [self._track(f"v{video}", person, rng) for person in range(persons)]
                writer.append(entry, tracks)
            writer.commit({"stand_in": True})

    def _track(self, video: str, person: int, rng: np.random.Generator) -> cache.TrackRows:
        """A person who walks at random, in the frames that the layout leaves."""
        frames = self.frames
        centres = (
            SIDE * (0.35 + 0.3 * rng.random((1, 2)))
            + rng.uniform(-1.5, 1.5, (frames, 2)).cumsum(0) / 3
        )
        box = np.hstack([centres, np.full((frames, 2), SIDE * 0.5)]).astype(np.float32)
        kp_2d = np.dstack([rng.uniform(0, SIDE, (frames, 49, 2)), np.ones((frames, 49))])
        step = 1
        is_there = np.ones(frames, bool)
        if self.layout:
            step = int(rng.integers(1, 4))
            is_there = rng.random(-(-frames // step)) < 0.8
        frame = np.arange(0, frames, step)[is_there]
        rows = {
            "frame_index": np.arange(frames)[frame],
            "bbox": box[frame],
            "kp_2d": kp_2d.astype(np.float32)[frame],
        }
        return cache.TrackRows(
            name=f"{video}/{person}",
            columns=rows,
            video=video,
            step=step,
            fps=30.0,
            crop_scale=1.2,
        )

    def picture(self, video: int, frame: int) -> np.ndarray:
        y, x = (17 * video) % 150, (29 * video) % 100
        moved = 0 if self.still else 3 * frame
        return np.ascontiguousarray(SCENE[y + moved // 2 :][:SIDE, x + moved :][:, :SIDE])

    def _pictures(self, video: int) -> str:
        (self.raw / f"v{video}").mkdir(parents=True)
        for frame in range(self.frames):
            picture = self.picture(video, frame)[..., ::-1]
            cv2.imwrite(
                str(self.raw / f"v{video}/{frame:06d}.png"),
                picture,
                [cv2.IMWRITE_PNG_COMPRESSION, 1],
            )
        return f"pictures:v{video}/{{:06d}}.png+0"

    def _video(self, video: int) -> str:
        encode(
            self.raw / f"v{video}.avi",
            [self.picture(video, t)[..., ::-1] for t in range(self.frames)],
        )
        return f"video:v{video}.avi"

    @property
    def split(self) -> cache.Split:
        return cache.open(self.root)[SPLIT]

    def extract(self, *specs: StreamSpec, workers: int = 1) -> dict[str, Extraction]:
        plans = [plan_extraction(self.root, SPLIT, spec) for spec in specs]
        done = extract_together(plans, Resources(workers=workers))
        return {of_stream.plan.spec.name: of_stream for of_stream in done}

    def place(self, row: int) -> tuple[str, int]:
        """Track and frame."""
        track = self.split.tracks[int(self.split.track_of(np.array([row]))[0])]
        return track.name, row - track.start

    def keep(self, *names: str) -> None:
        """Delete the other streams."""
        for name in set(self.split.streams) - set(names):
            cache.delete_stream(self.root, SPLIT, name)

    def plant(self, stream: str, changed: Mapping[int, Any]) -> None:
        """Other numbers of some rows: all else stays, as after a mistake in an extraction."""
        split = self.split
        manifest, extent = split.stream_manifest(stream), int(split.manifest["extent"])
        form = {"dim": manifest["dim"], "dtype": manifest["dtype"]}
        ok, keys = (split.rows(f"features/{stream}_{part}", 0, extent) for part in ("ok", "key"))
        data = split.rows(f"features/{stream}", 0, extent)
        for row, value in changed.items():
            data[row] = value
        cache.delete_stream(self.root, SPLIT, stream)
        with cache.StreamWriter(self.root, SPLIT, stream, plan="planted", **form) as writer:
            for shard in writer.pending:
                rows = slice(writer.rows(shard).start, writer.rows(shard).stop)
                writer.write(shard, data[rows], ok[rows], keys[rows])
            writer.commit({name: manifest[name] for name in ("identity", "backbone", "stand_in")})


def specs(*names: str) -> list[StreamSpec]:
    every = {
        "tiny": Tiny(),
        "tiny.j1": Tiny(
            crop=CropPolicy(
                size=32, region=(16, 16), scale=1.1, jitter=Jitter(copy=1, flip=0.6, seed=3)
            )
        ),
        "homography": streams.get("homography"),
        "pr_vipe": streams.get("pr_vipe"),
        "motion": Followed(),  # of pairs of crops, and labels
    }
    return [StreamSpec(name, every[name]) for name in names or every]


def found(done: Recomputed) -> dict[str, dict[tuple[str, int], Misaligned]]:
    assert (done.skipped, done.refused) == ([], [])
    assert not any(one.unmatched for one in done.compared)
    return {one.stream: {row[:2]: row for row in one.misaligned} for one in done.compared}


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Sound streams of every kind, of pictures and of a video. Only to be read."""
    toy = Toy(tmp_path_factory.mktemp("toy"), videos=2, frames=9, persons=2)
    toy.extract(*specs())
    return toy


@pytest.fixture
def toy(every_kind: Toy, tmp_path: Path) -> Toy:
    """A copy, to be changed."""
    copy = object.__new__(Toy)
    copy.__dict__ |= every_kind.__dict__ | {
        "root": Path(shutil.copytree(every_kind.root, tmp_path / "cache"))
    }
    return copy


# --------------------------------------------------------------------------------------------------
# alignment


def test_of_every_kind_the_row_with_its_neighbour_s_numbers_is_found_and_no_other(toy: Toy) -> None:
    split, planted = toy.split, dict(zip((spec.name for spec in specs()), ROWS, strict=True))
    for name, row in planted.items():
        toy.plant(name, {row: split.rows(f"features/{name}", row - 1, row)[0]})
    by_own_box = crops.crop_person(toy.picture(0, 1), split.rows("bbox", 2, 3)[0], 1.2, 16)
    toy.plant("tiny", {planted["tiny"]: _Means()(by_own_box[None])[0]})
    done = recompute(toy.root, 1000)
    misaligned = found(done)
    rows_of = {name: {*rows} for name, rows in misaligned.items()}
    assert rows_of == {name: {toy.place(row)} for name, row in planted.items()}
    assert misaligned["tiny"][toy.place(planted["tiny"])].neighbour == 1
    rows = {one.stream: (one.rows, one.not_computed) for one in done.compared}
    assert rows == {name: (32 if name in ("homography", "motion") else 36, 0) for name in rows}
    sound = {one.stream: one.differing - len(one.misaligned) for one in done.compared}
    assert not any(n for name, n in sound.items() if name not in ("homography", "motion"))


@pytest.mark.parametrize(
    "layout", [1, *(pytest.param(other, marks=pytest.mark.slow) for other in (2, 3))]
)
def test_in_any_layout_every_row_has_the_numbers_of_its_own_frame_which_is_decoded_once(
    tmp_path, layout
):
    """With gaps, steps, shards that several videos share, videos of several shards; by any number
    of processes.
    """
    toy = Toy(tmp_path, videos=3, frames=21, persons=3, layout=layout)
    done = toy.extract(*specs(), workers=layout)
    assert {name for name, rows in found(recompute(toy.root, 10**4)).items() if rows} == set()
    split = toy.split
    rows = {
        name: split.rows(f"features/{name}_ok", 0, int(split.manifest["extent"]))
        for name in split.streams
    }
    live = split.track_of(np.arange(len(rows["tiny"]))) >= 0
    first = np.isin(np.arange(len(live)), split.runs[:, 0])
    assert (rows["tiny"][live] == cache.COMPUTED).all()
    assert (rows["homography"][live & first] == cache.UNDEFINED).all()
    assert (rows["homography"][live & ~first] == cache.COMPUTED).all()
    frames = split.rows("frame_index", 0, len(live))[live]
    video = split.tracks.video[split.track_of(np.flatnonzero(live))]
    assert done["tiny"].meter.frames == len({*zip(video.tolist(), frames.tolist(), strict=True)})


def test_where_nothing_moves_there_is_no_alarm(tmp_path: Path) -> None:
    toy = Toy(tmp_path, videos=2, frames=9, persons=1, still=True)
    toy.extract(*specs("tiny", "homography"))
    assert found(recompute(toy.root, 1000)) == {"tiny": {}, "homography": {}}


def test_rows_of_zeros_and_rows_that_are_as_far_from_their_own_frame_match_nothing(
    toy: Toy,
) -> None:
    toy.keep("tiny")
    of_another_video = toy.split.rows("features/tiny", 31, 32)[0] * 3
    toy.plant("tiny", {4: 0, 13: -of_another_video, 22: of_another_video})
    done = recompute(toy.root, 1000)
    (one,) = done.compared
    assert (one.unmatched, one.misaligned, one.differing, done.ok) == (3, [], 3, False)


def test_rows_far_from_what_this_machine_computes_end_with_1_in_streams_of_pairs_too(
    toy: Toy, verify: Any
) -> None:
    """As after an extraction by other code, or on another kind of processor."""
    toy.keep("homography")
    row = toy.split.rows("features/homography", 13, 14)[0]
    toy.plant("homography", {13: 1.01 * row})
    assert (
        "1 row of 0.2% difference or more, which match no neighbouring frame clearly better"
        in verify().out
    )
    toy.plant("homography", {13: 0.9 * row})
    shown = verify(code=1).out
    assert "✗ toy/train, homography: 32 rows recomputed" in shown
    assert "largest difference 10.00%" in shown
    assert (
        "1 row of 5% difference or more: this machine computes other numbers from their frames. "
        "Other code" in shown
    )
    (compared,) = json.loads(verify("--json", code=1).out)["recompute"]["compared"]
    assert (compared["beyond"], compared["misaligned"]) == (1, [])


# --------------------------------------------------------------------------------------------------
# what it draws


def test_rows_are_drawn_once_each_by_the_seed_alone_and_only_where_they_were_computed(
    every_kind: Toy,
) -> None:
    split = every_kind.split
    draws = [draw_rows(split, "homography", 12, seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert all(len(set(rows)) == 12 and rows == sorted(rows) for rows in draws)
    every = draw_rows(split, "homography", 10**6, 0)
    assert every.tolist() == [row for row in range(36) if row % 9]
    counts = np.bincount(
        np.concatenate([draw_rows(split, "tiny", 9, seed) for seed in range(200)]), minlength=36
    )
    assert 20 < counts.min() <= counts.max() < 85  # 50 each, sd 6


def test_a_stream_without_shards_has_no_rows_to_compare(tmp_path: Path) -> None:
    toy = Toy(tmp_path, videos=1, frames=4, persons=1)
    toy.extract(*specs("tiny"))
    cache.invalidate(toy.root, SPLIT, "tiny", toy.split.stream_shards("tiny"))
    done = recompute(toy.root, 5)
    assert [one.rows for one in done.compared] == [0]
    assert done.ok


# --------------------------------------------------------------------------------------------------
# the command


def test_rows_of_a_second_commit_are_compared_too(penn: Any, into: Any, ran: Any) -> None:
    penn.converted()
    extract = functools.partial(into.extract, name="pr_vipe", stream=streams.get("pr_vipe"))
    extract(penn.root)
    penn.add("0007")
    penn.convert()
    extract(penn.root)
    assert len(penn.split.manifest["commits"]) == 2
    shown = ran("verify", "--fast", "--cache", penn.root, "--recompute", 50)
    assert "✓ penn_action/train, pr_vipe: 32 rows recomputed" in shown.out
    penn.edit("0001")  # its old rows stay in a shard that others need
    penn.convert()
    extract(penn.root)
    assert (
        "32 rows recomputed" in ran("verify", "--fast", "--cache", penn.root, "--recompute", 50).out
    )


@pytest.fixture
def verify(ran: Callable[..., Any], toy: Toy) -> Callable[..., Any]:
    return lambda *more, code=0: ran(
        "verify", "--fast", "--cache", toy.root, "--recompute", 50, *more, code=code
    )


def test_the_command_names_the_row_and_ends_with_1(toy: Toy, verify: Callable[..., Any]) -> None:
    toy.keep("pr_vipe")
    sound = "✓ toy/train, pr_vipe: 36 rows recomputed, largest difference 0.00%"
    assert sound in verify().out
    toy.plant("pr_vipe", {13: toy.split.rows("features/pr_vipe", 14, 15)[0]})
    shown = verify(code=1).out
    assert "v0/1, frame 4: differs by" in shown
    assert "and from frame 5 by 0.00%" in shown
    document = json.loads(verify("--json", code=1).out)
    assert (document["ok"], document["recompute"]["ok"]) == (False, False)
    (one,) = document["recompute"]["compared"]
    assert (one["stream"], one["rows"]) == ("pr_vipe", 36)
    assert [(row["track"], row["frame"], row["neighbour"]) for row in one["misaligned"]] == [
        ("v0/1", 4, 5)
    ]


def test_weights_that_are_not_at_hand_are_skipped_and_may_be_named(toy, network, tmp_path, verify):
    file = tmp_path / "weights.pt"
    file.write_bytes(b"some weights")
    weights = WeightsSpec("file", str(file))
    toy.keep()
    toy.extract(StreamSpec("own", streams.get("resnet50", weights=weights)))
    assert "own" in found(recompute(toy.root, 5))  # they are where they were
    moved = file.rename(tmp_path / "moved.pt")
    (skipped,) = recompute(toy.root, 5).skipped
    assert (skipped.stream, "its weights are missing" in skipped.why) == ("own", True)
    done = recompute(toy.root, 5, weights=WeightsSpec("file", str(moved)))
    assert ("own" in found(done), done.ok) == (True, True)
    file.write_bytes(b"other weights")
    assert "its weights are missing" in recompute(toy.root, 5).skipped[0].why
    (skipped,) = recompute(toy.root, 5, weights=weights).skipped
    assert "extracted differently" in skipped.why
    assert "✗ toy/train, own: not compared: " in verify(code=1).out
    with without(table.OWN[streams.ENTRY_POINTS], "resnet50"):
        assert (
            "stream 'resnet50', whose package is not installed"
            in recompute(toy.root, 5).skipped[0].why
        )


def test_what_could_not_be_compared_is_not_ok(penn: Any, network: Any, ran: Any) -> None:
    penn.converted("fast")
    sound = ("verify", "--fast", "--cache", penn.root, "--recompute", 50)
    assert json.loads(ran(*sound, "--json").out)["ok"] is True
    (penn.frames("0003") / "000002.jpg").write_bytes(b"another picture")
    assert "8 rows not compared, the first: " in ran(*sound, code=1).out
    document = json.loads(ran(*sound, "--json", code=1).out)
    assert (document["ok"], document["problems"], document["recompute"]["ok"]) == (False, [], False)
