"""Who was found where in a clip, on one picture: detections, tracks, and when each is there.  tracks -> [picture]"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

import cache
from cache import TrackRecord, VideoEntry
from pipeline.cli.progress import Progress
from pipeline.cli.text import count
from pipeline.detect.files import KEYPOINTS
from pipeline.exchange.show.painted_bodies import COLOURS
from pipeline.files.formats.labels.detections import read_results
from pipeline.files.pixels import sources as pixel_sources
from pipeline.files.pixels.frames import Image, Pictures, Video
from pipeline.files.pixels.numbered import n_frames
from pipeline.files.raw.stand_in import is_stand_in
from tasks.prediction.drawing import STAND_IN, caption, draw_skeleton
from tasks.prediction.job import CACHE
from tasks.prediction.sources import Source
from vibe_model.prediction.predict import file_name

ACROSS, DOWN = 4, 2  # frames
WIDTH: Final = 320  # px of a frame
LANE: Final = 14  # px of a person's line below the frames
MOST: Final = 30  # persons that have one
MARGIN: Final = 150  # px before the lines, for names
FOUND: Final = (215, 215, 215)  # of detections
PAPER: Final = 30  # grey


def write_previews(source: Source, out: Path, progress: Progress) -> list[Path]:
    """`out`/preview.png of the one video, or of several `out`/previews/*.png; the files."""
    split = cache.open(out / CACHE)[f"{source.reader.name}/{source.split}"]
    tracks: dict[int, list[TrackRecord]] = {}
    for track, number in zip(split.tracks, split.tracks.video.tolist(), strict=True):
        tracks.setdefault(number, []).append(track)
    files = []
    for number, entry in enumerate(split.videos):
        if entry.source:  # else it could not be read
            name = "preview.png" if len(split.videos) == 1 else f"previews/{Path(file_name(entry.name)).stem}.png"
            file = out / name
            file.parent.mkdir(parents=True, exist_ok=True)
            drawn = sheet(source, split, entry, tracks.get(number, []))
            cv2.imwrite(str(file), drawn[..., ::-1])
            files.append(file)
        progress(number + 1, len(split.videos), entry.name)
    return files


def sheet(source: Source, split: cache.Split, entry: VideoEntry, tracks: Sequence[TrackRecord]) -> Image:
    """(H, ACROSS * WIDTH, 3) RGB: frames spread over the clip, what was detected in grey, tracks in colour."""
    pixels = pixel_sources.parse(source.raw, entry.source)
    total = n_frames(pixels) if isinstance(pixels, Pictures | Video) else 0
    file = source.raw / KEYPOINTS / f"{entry.name}.json"
    found = read_results(file) if source.people.get("from", "").startswith("detector") else None
    detected = {} if found is None else dict(zip(found.frame_index.tolist(), found.keypoints, strict=True))
    shown = np.unique(np.linspace(0, max(total - 1, 0), ACROSS * DOWN).round().astype(int)).tolist()
    rows = {track.name: split.rows("frame_index", track.start, track.stop) for track in tracks}
    tiles = []
    for frame in pixels.read(shown):
        image = np.zeros((entry.height, entry.width, 3), np.uint8) if frame.image is None else frame.image
        scale = WIDTH / image.shape[1]
        tile = np.asarray(
            cv2.resize(image, (WIDTH, round(image.shape[0] * scale)), interpolation=cv2.INTER_AREA), np.uint8
        )
        for joints in detected.get(frame.index, ()):
            for x, y, confidence in (joints * (scale, scale, 1)).tolist():
                if confidence > 0:
                    cv2.circle(tile, (round(x), round(y)), 3, FOUND, 1, cv2.LINE_AA)
        for i, track in enumerate(tracks):
            at = int(np.searchsorted(rows[track.name], frame.index))
            if at < len(rows[track.name]) and rows[track.name][at] == frame.index:
                _draw_person(tile, split, track, track.start + at, _colour(i), scale)
        caption(tile, f"frame {frame.index}")
        tiles.append(tile)
    blank = np.full_like(tiles[0], PAPER)
    tiles += [blank] * (-len(tiles) % ACROSS)
    grid = [np.concatenate(tiles[i : i + ACROSS], axis=1) for i in range(0, len(tiles), ACROSS)]
    below = _lanes(entry, rows, total, ACROSS * WIDTH, demo=is_stand_in(source.raw))
    return np.concatenate([*grid, below])


def _draw_person(tile: Image, split: cache.Split, track: TrackRecord, row: int, colour: Any, scale: float) -> None:
    x, y, w, h = (split.rows("bbox", row, row + 1)[0] * scale).tolist()
    corner = round(x - w / 2), round(y - h / 2)
    cv2.rectangle(tile, corner, (round(x + w / 2), round(y + h / 2)), colour, 1, cv2.LINE_AA)
    cv2.putText(tile, _person(track.name), (corner[0] + 2, max(corner[1] - 3, 10)), *_FONT, colour, 1, cv2.LINE_AA)
    if "kp_2d" in split.columns:
        draw_skeleton(tile, split.rows("kp_2d", row, row + 1)[0] * (scale, scale, 1))


def _lanes(entry: VideoEntry, rows: dict[str, Any], total: int, width: int, *, demo: bool) -> Image:
    """When each person is there, and what became of the rest."""
    account = entry.account
    dropped = ", ".join(f"{n:,} {reason}" for reason, n in account["dropped"].items())
    text = f"{entry.name}: {count(total, 'frame')}, {account['kept']:,} of {account['found']:,} person-frames kept"
    lines = [text + (f", dropped: {dropped}" if dropped else "")]
    lines += [f"and {len(rows) - MOST} more persons"] * (len(rows) > MOST) + [account["message"]] * bool(
        account["message"]
    )
    lines += [f"{STAND_IN}: found by a stand-in"] * demo
    persons = list(rows.items())[:MOST]
    picture = np.full((LANE * len(persons) + 18 * len(lines) + 10, width, 3), PAPER, np.uint8)
    for i, (name, frames) in enumerate(persons):
        top = 6 + LANE * i
        label = f"{_person(name)}: {count(len(frames), 'frame')}"
        cv2.putText(picture, label, (6, top + 9), *_FONT, _colour(i), 1, cv2.LINE_AA)
        places = MARGIN + (np.arange(total + 1) * (width - MARGIN - 10) / max(total, 1)).astype(int)
        picture[top : top + LANE - 4, MARGIN : width - 10] = PAPER + 25
        for frame in frames.tolist():
            picture[top : top + LANE - 4, places[frame] : max(places[frame + 1], places[frame] + 1)] = _colour(i)
    for i, line in enumerate(reversed(lines)):
        plain = line.encode("ascii", "replace").decode()
        cv2.putText(picture, plain, (6, len(picture) - 6 - 18 * i), *_FONT, (235, 235, 235), 1, cv2.LINE_AA)
    return picture


_FONT: Final = (cv2.FONT_HERSHEY_SIMPLEX, 0.4)


def _person(track: str) -> str:
    return track.rpartition("/")[2].encode("ascii", "replace").decode()


def _colour(i: int) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in COLOURS[i % len(COLOURS)])
    return red, green, blue
