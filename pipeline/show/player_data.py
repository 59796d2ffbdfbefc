"""What a player draws, as JSON.  tracks -> [data]"""

from __future__ import annotations

import base64
import json
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from pipeline.files.raw.corrections import quote
from pipeline.people.boxes import tight_boxes
from pipeline.people.hands import HANDS, hand_bones
from pipeline.people.skeletons import Array, Doubles, Ints, bones
from pipeline.show.clip import DrawnTrack
from pipeline.show.drawing import NAMES, SIDE_COLOURS, SIDES, side_of_bone
from pipeline.show.player_tracks import DRAWN, PlayedTrack, ShownFrames, joints_of, seen_joints
from pipeline.show.player_video import TICKS, ticks_of

QUARTER: Final = 4  # coordinates are whole quarters of a px
FURTHEST: Final = 8000  # px from the picture's corner
UNSEEN: Final = -32768  # as a coordinate


def player_data(
    part: ShownFrames, tracks: Sequence[PlayedTrack], split: str, *, has_bodies: bool
) -> str:
    """JSON of all that is drawn, without "<". Arrays are little-endian, in base64:

    ticks (n,) int32, times of the frames; of each track with N rows and J seen joints: frames (N,)
    int32, boxes (N, 4) int16 (x, y, width, height), points (N, J, 2) int16, confidence (N, J)
    uint8, 255 for 1. Coordinates are quarters of a px of the picture, whose first pixel begins at
    0; those of joints that are not seen are UNSEEN.
    """
    joints = seen_joints([track.person for track in tracks])
    places = {joint: place for place, joint in enumerate(joints)}
    drawn = []
    lines = [(a, b, side_of_bone(a, b)) for a, b in bones("spin49")]
    for a, b in hand_bones():
        side = HANDS[b].partition("_")[0]
        lines.append((len(NAMES) + a, len(NAMES) + b, side))
    for a, b, side in lines:
        if a in places and b in places:
            drawn.append([places[a], places[b], side])
    width, height = part.picture
    ticks = ticks_of(part.times)
    data = {
        "width": width,
        "height": height,
        "has_bodies": has_bodies,
        "first": part.first,
        "step": part.step,
        "ticks": pack(ticks, "<i4"),
        "ticks_per_second": TICKS,
        "names": [DRAWN[joint] for joint in joints],
        # of joints that are dots; those of hands are ends of lines alone
        "sides": [SIDES[joint] if joint < len(NAMES) else None for joint in joints],
        "bones": drawn,
        "colours": SIDE_COLOURS,
        "tracks": [_track_data(track, joints, part, split) for track in tracks],
    }
    return json_data(data)


def _track_data(
    track: PlayedTrack, joints: Sequence[int], part: ShownFrames, split: str
) -> dict[str, Any]:
    person = track.person
    columns = person.track.rows
    bbox = columns["bbox"][track.rows].astype(np.float64)
    centre = bbox[:, :2] + 0.5
    size = bbox[:, 2:]
    corners = np.hstack([centre - size / 2, size])
    boxes = _quarters(corners.reshape(-1, 2, 2) * part.scale)

    kp_2d = joints_of(person.track, track.rows)[:, joints]
    confidence = kp_2d[..., 2]
    is_seen = (confidence > 0) & np.isfinite(kp_2d).all(axis=-1)
    points = _quarters((kp_2d[..., :2] + 0.5) * part.scale)
    points[~is_seen] = UNSEEN
    in_255ths = np.rint(255 * np.clip(confidence, 0, 1))
    in_255ths[~is_seen] = 0
    return {
        "name": person.name,
        "colour": hex_colour(person),
        "crop_scale": person.track.record.crop_scale,
        "frames": pack(track.frames, "<i4"),
        "boxes": pack(boxes, "<i2"),
        "points": pack(points, "<i2"),
        "confidence": pack(in_255ths, "u1"),
        "odd": track.odd_frames,
        "portraits": track.portrait_frames.tolist(),
        "stretches": _stretches(person, split),
    }


def _stretches(person: DrawnTrack, split: str) -> list[dict[str, Any]]:
    """Whose the track's rows were before corrections, as their lines need it: of each stretch the
    name, the first frame, and the place there.
    """
    record = person.track.record
    rows = person.track.rows
    frames = rows["frame_index"].tolist()
    boxes = rows["bbox"]
    if "kp_2d" in rows and rows["kp_2d"].any():
        boxes = tight_boxes(rows["kp_2d"])[0]
    whole = [[person.name, frames[0]]]
    stretches = []
    for name, first, *_ in person.track.account.get("people", {}).get(record.name, whole):
        full_name = quote(f"{split}/{record.video}/{name}")
        row = min(bisect_left(frames, first), len(frames) - 1)  # its first rows may be left out
        place = describe_place(frames[row], boxes[row])
        stretches.append({"name": full_name, "first": first, "place": place})
    return stretches


def describe_place(frame: int, box: Array) -> str:
    """A place at the end of a line of corrections. box: (4,) cxcywh px."""
    x, y, side = np.rint(box[:3]).astype(int)
    return f"@{frame}:{x},{y},{side}"


def _quarters(lengths: Doubles) -> Ints:
    """Lengths px in whole quarters, within int16; those that are not finite are 0."""
    near = np.clip(lengths, -FURTHEST, FURTHEST)
    quarters = np.rint(QUARTER * near)
    return np.nan_to_num(quarters).astype(np.int64)


def json_data(data: Any) -> str:
    """JSON that may stand in a page: without "<"."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def pack(values: Array, dtype: str) -> str:
    """An array as base64 of its bytes."""
    data = np.ascontiguousarray(values, dtype)
    return base64.b64encode(data.tobytes()).decode()


def hex_colour(person: DrawnTrack) -> str:
    """A person's colour as #rrggbb."""
    levels = [round(255 * share) for share in person.colour]
    return f"#{bytes(levels).hex()}"
