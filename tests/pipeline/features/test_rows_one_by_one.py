"""Extracted rows have the numbers of their own frame, box and labels: those that are computed for
each row alone.
"""

import functools

import cv2
import numpy as np
import pytest

import cache
from cache import CropPolicy, Jitter
from pipeline import table
from pipeline.features import streams
from pipeline.features.extract import extract_together
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from pipeline.files.pixels import sources
from tests.made_splits import write_split
from tests.oracles.features import SAME, differences
from tests.pipeline.datasets.by_hand import encode

SPLIT = "toy/train"
SIDE = 96  # px
SCENE = cv2.GaussianBlur(
    np.random.default_rng(3).integers(0, 256, (400, 400, 3), np.uint8), (0, 0), 4
)
SCENE = cv2.normalize(SCENE, None, 0, 255, cv2.NORM_MINMAX)


class Toy:
    """Videos of a scene that a camera passes over, and persons whose boxes move otherwise."""

    def __init__(
        self,
        folder,
        videos,
        frames,
        persons,
        *,
        layout=0,
    ):
        """`layout`: seed from which gaps, steps and lengths of tracks are drawn; 0: all tracks have
        all frames.
        """
        self.raw = folder / "raw"
        self.root = folder / "cache"
        self.frames = frames
        self.layout = layout
        rng = np.random.default_rng(layout)
        entries = []
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
            entries.append((entry, tracks))
        sizes = {"rows_per_shard": 16, "rows_per_chunk": 8}
        write_split(self.root, SPLIT, entries, provenance={"raw": str(self.raw)}, **sizes)

    def _track(self, video, person, rng):
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

    def picture(self, video, frame):
        y, x = (17 * video) % 150, (29 * video) % 100
        return np.ascontiguousarray(SCENE[y + 3 * frame // 2 :][:SIDE, x + 3 * frame :][:, :SIDE])

    def _pictures(self, video):
        (self.raw / f"v{video}").mkdir(parents=True)
        for frame in range(self.frames):
            picture = self.picture(video, frame)[..., ::-1]
            cv2.imwrite(
                str(self.raw / f"v{video}/{frame:06d}.png"),
                picture,
                [cv2.IMWRITE_PNG_COMPRESSION, 1],
            )
        return f"pictures:v{video}/{{:06d}}.png+0"

    def _video(self, video):
        encode(
            self.raw / f"v{video}.avi",
            [self.picture(video, t)[..., ::-1] for t in range(self.frames)],
        )
        return f"video:v{video}.avi"

    @property
    def split(self):
        return cache.open(self.root)[SPLIT]

    def extract(self, *specs, workers=1):
        plans = [plan_extraction(self.root, SPLIT, spec) for spec in specs]
        done = extract_together(plans, Resources(workers=workers))
        return {of_stream.plan.spec.name: of_stream for of_stream in done}


@pytest.fixture
def specs(made_up, monkeypatch):
    """Streams of every kind."""
    for kind, name in {"colour": "Colour", "followed": "Followed"}.items():
        monkeypatch.setitem(table.OWN[streams.ENTRY_POINTS], kind, f"made_up:{name}")
    jitter = Jitter(copy=1, flip=0.6, seed=3)
    every = {
        "colour": made_up.Colour(crop=CropPolicy(size=16)),
        "colour.j1": made_up.Colour(
            crop=CropPolicy(size=32, region=(16, 16), scale=1.1, jitter=jitter)
        ),
        "homography": streams.get("homography"),
        "pr_vipe": streams.get("pr_vipe"),
        "followed": made_up.Followed(),  # of pairs of crops, and labels
    }
    return [StreamSpec(name, stream) for name, stream in every.items()]


@pytest.mark.parametrize(
    "layout", [1, *(pytest.param(other, marks=pytest.mark.slow) for other in (2, 3))]
)
def test_in_any_layout_every_row_has_the_numbers_of_its_own_frame_which_is_decoded_once(
    tmp_path, layout, specs
):
    """With gaps, steps, shards that several videos share, videos of several shards; by any number
    of processes.
    """
    toy = Toy(tmp_path, videos=3, frames=21, persons=3, layout=layout)
    done = toy.extract(*specs, workers=layout)
    split = toy.split
    largest = {name: differences(split, name).max() for name in split.streams}
    assert all(difference < SAME for difference in largest.values()), largest
    rows = {
        name: split.rows(f"features/{name}_ok", 0, int(split.manifest["extent"]))
        for name in split.streams
    }
    live = split.track_of(np.arange(len(rows["colour"]))) >= 0
    first = np.isin(np.arange(len(live)), split.runs[:, 0])
    assert (rows["colour"][live] == cache.COMPUTED).all()
    assert (rows["homography"][live & first] == cache.UNDEFINED).all()
    assert (rows["homography"][live & ~first] == cache.COMPUTED).all()
    frames = split.rows("frame_index", 0, len(live))[live]
    video = split.tracks.video[split.track_of(np.flatnonzero(live))]
    assert done["colour"].meter.frames == len({*zip(video.tolist(), frames.tolist(), strict=True)})


def test_rows_of_a_second_commit_have_the_numbers_of_their_frames(penn, into):
    penn.converted()
    extract = functools.partial(into.extract, name="pr_vipe", stream=streams.get("pr_vipe"))
    extract(penn.root)
    penn.add("0007")
    penn.convert()
    extract(penn.root)
    assert len(penn.split.manifest["commits"]) == 2
    found = differences(penn.split, "pr_vipe")
    assert len(found) == 32
    assert (found < SAME).all()
    penn.edit("0001")  # its old rows stay in a shard that others need
    penn.convert()
    extract(penn.root)
    found = differences(penn.split, "pr_vipe")
    assert len(found) == 32
    assert (found < SAME).all()
