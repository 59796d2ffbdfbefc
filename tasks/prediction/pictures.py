"""What a model in training sees: predicted bodies over a few frames of validation.  windows -> [training]

Two strips a window: the frames with their 2D labels, and the same frames with the predicted bodies. The windows are the
same in every epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

import cache
from pipeline import crops
from pipeline.features.pixel_sources import raw_folder
from pipeline.pixels import sources
from pipeline.pixels.frames import Image
from tasks.prediction.drawing import STAND_IN, BodyDrawing, caption, draw_skeleton, record_type
from tasks.settings import settings
from tasks.terminal import USER_ERRORS, warn
from vibe_model.prediction.predict import device_of
from vibe_model.prediction.windows import read_inputs, windows_with

if TYPE_CHECKING:
    from cache import Split
    from vibe_model.networks.video_model import VideoModel
    from vibe_model.settings.video_config import VideoConfig

N_WINDOWS: Final = 4  # of all validation splits together
N_FRAMES: Final = 6  # of a window
TILE_PX: Final = 160  # side of a frame: six of them are 960 px
GREY: Final = 96  # of a frame without a picture


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A fixed window, and its frames as they are drawn."""

    name: str  # of its picture
    inputs: Mapping[str, NDArray[np.float32]]  # (T, dim) each: what the model reads
    shown: NDArray[np.int64]  # (N,) which of the T frames
    tiles: NDArray[np.uint8]  # (N, TILE_PX, TILE_PX, 3) RGB, grey where there is no picture
    labelled: NDArray[np.uint8]  # the same with the labels


@dataclass(slots=True)
class Pictures:
    """Draws pictures at each epoch's end, for `training.run`.

    Nothing is read before the first call. It never raises: what is missing, such as raw pictures, is reported once, and
    bodies are then drawn on grey. The windows' frames, about a megabyte, are kept from one epoch to the next.
    """

    config: VideoConfig
    examples: list[Example] | None = None
    warned: set[str] = field(default_factory=set)

    def __call__(self, generator: VideoModel, epoch: int) -> dict[str, Image]:  # noqa: ARG002 - the same at every epoch
        try:
            if self.examples is None:
                share = -(-N_WINDOWS // len(self.config.validation))
                splits = [cache.open(self.config.cache)[name] for name in self.config.validation]
                chosen = ((split, window) for split in splits for window in spread_windows(split, self.config, share))
                self.examples = [self._example(split, *window) for split, window in chosen]
            return {example.name: draw(generator, example) for example in self.examples}
        except Exception as error:  # a picture is never worth days of training
            self._warn_once(f"no overview pictures: {type(error).__name__}: {error}")
            return {}

    def _example(self, split: Split, start: int, stop: int) -> Example:
        window = np.array([[start, stop]], np.int64)
        has_2d = "kp_2d" in split.columns
        fields = ("frame_index", "bbox", *(["kp_2d"] if has_2d else []))
        read = {key: array[0] for key, array in split.read(window, self.config.stream, fields).items()}
        inputs = read_inputs(split, window, self.config.stream, self.config.beside)
        shown = np.unique(np.linspace(0, stop - start - 1, N_FRAMES).round().astype(np.int64))
        number = int(split.track_of(np.array([start]))[0])
        track = split.tracks[number]
        read["bbox"][:, 2:] *= split.crop_policy(self.config.stream).scale
        tiles = self._tiles(split, number, read["frame_index"][shown], read["bbox"][shown])
        labelled = tiles.copy()
        if has_2d:
            for tile, kp_2d in zip(labelled, read["kp_2d"][shown], strict=True):
                draw_labels(tile, kp_2d)
        frames = f"frames {read['frame_index'][0]}-{read['frame_index'][-1]}"
        given = {name: array[0] for name, array in inputs.items()}
        return Example(f"{split.name}/{track.name} {frames}", given, shown, tiles, labelled)

    def _tiles(
        self, split: Split, number: int, frame_index: NDArray[np.int64], bbox: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """(N, TILE_PX, TILE_PX, 3) crops of the frames."""
        tiles = np.full((len(frame_index), TILE_PX, TILE_PX, 3), GREY, np.uint8)
        problem = ""
        try:
            place = settings().raw(split.name.partition("/")[0])
            entry, scale = split.videos[int(split.tracks.video[number])], split.tracks[number].crop_scale
            source = sources.parse(raw_folder(split, place if place.is_dir() else None), entry.source)
            for i, frame in enumerate(source.read(frame_index.tolist())):
                if frame.image is None:
                    problem = frame.problem or "no picture"
                else:
                    tiles[i] = crops.crop_person(frame.image, bbox[i], scale, TILE_PX)
        except USER_ERRORS as error:
            problem = str(error)
        if problem:
            for tile in tiles[(tiles == GREY).all(axis=(1, 2, 3))]:
                caption(tile, "no picture", line=1)
            self._warn_once(f"overview pictures are on grey, {split.name}: {problem}")
        return tiles

    def _warn_once(self, text: str) -> None:
        kind = text.partition(":")[0]
        if kind not in self.warned:
            self.warned.add(kind)
            warn(text)


def spread_windows(split: Split, config: VideoConfig, n_windows: int) -> list[tuple[int, int]]:
    """The first window of each of at most `n_windows` tracks, spread over the split's; the same every time."""
    windows = windows_with(split, config.seqlen, config.stream, config.beside, stride=config.seqlen)
    if not len(windows):
        return []
    _, first = np.unique(split.track_of(windows[:, 0]), return_index=True)
    chosen = np.unique(np.linspace(0, len(first) - 1, n_windows).round().astype(np.int64))
    return [(int(start), int(stop)) for start, stop in windows[first[chosen]]]


def draw(generator: VideoModel, example: Example) -> Image:
    """(2 TILE_PX, N TILE_PX, 3) RGB: frames with labels above, with predicted bodies below."""
    mode = generator.training
    generator.eval()
    try:
        device = device_of(generator)
        given = {name: torch.as_tensor(array[None], device=device) for name, array in example.inputs.items()}
        with torch.no_grad():
            estimate = generator.regress(**given)
        records = np.zeros(len(example.shown), record_type())
        for name, part in estimate._asdict().items():
            records[name] = part[0].float().cpu().numpy()[example.shown]
        records["bbox"] = (TILE_PX / 2, TILE_PX / 2, TILE_PX, TILE_PX)  # the tile is the crop
        records["crop_scale"] = 1
        drawing = BodyDrawing.of(generator)
        verts = drawing.vertices(records)
    finally:
        generator.train(mode)
    painted = [drawing.paint(tile, records[[i]], verts[[i]]) for i, tile in enumerate(example.tiles)]
    strips = [np.concatenate([*strip], axis=1) for strip in (example.labelled, painted)]
    picture = np.concatenate(strips, axis=0)
    caption(picture, STAND_IN if generator.body.is_stand_in else "")
    return picture


def draw_labels(tile: Image, kp_2d: NDArray[np.floating[Any]]) -> None:
    """Bones and joints of (49, 3) keypoints in [-1, 1] over the tile, in place."""
    pixels = (kp_2d[:, :2] + 1) * (TILE_PX / 2)
    inside = np.abs(kp_2d[:, :2]).max(axis=1) < 4  # OpenCV draws what is far outside wrongly
    draw_skeleton(tile, np.column_stack([pixels, np.where(inside, kp_2d[:, 2], 0)]))
