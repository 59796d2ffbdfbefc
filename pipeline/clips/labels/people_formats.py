"""The formats of people that are read: the name of each, how it is recognised, its reader, the
joint orders that its document fixes, and its row of docs/clips/keypoint-files.md.  [raw] -> tracks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline.clips.labels import keypoints_json, mmpose, sam_3d_body, tables, text_files
from pipeline.clips.labels.keypoints_json import has
from pipeline.clips.labels.label_content import NOT_STATED, LabelContent, Stated
from pipeline.files.formats.large_json import StreamedList


class Source(NamedTuple):
    """A clip's file of people, or its folder of files: one of these is what was found in it."""

    place: Path
    stated: Stated = NOT_STATED
    json: Any = None  # as of `read_json`
    text: Any = None  # the first line of other text that is not blank; "" without one
    frames: Sequence[tuple[int, Path]] = ()  # numbered files of single frames
    persons: Sequence[Path] = ()  # TRC files of single people


@dataclass(frozen=True, slots=True)
class _PeopleFormat:
    """A format of files of people."""

    name: str
    row: str  # of the page's table
    recognises: Callable[[Source], bool]  # asked in the order of FORMATS
    # of a source, with Sizes, which may be None for a file; raises RawDataError
    read: Callable[[Source, Any], LabelContent]
    orders: Mapping[int, str] = field(default_factory=dict)  # number of joints -> joint order


FORMATS: Final = (
    _PeopleFormat(
        "COCO's JSON",
        "| COCO's JSON, as `detect` writes it | an object with `images` | 0; from "
        "`frame_index`, or the number at the end of `file_name` | `x y w h`, px | those named "
        "in `categories`, and COCO-WholeBody's `foot_kpts`, else see [joints](#joints); score: "
        "`keypoint_scores`, else v, which is 1 for visibility 1 and 2 | `track_id`, or [CVAT's and "
        "sleap-io's](identity.md#which-key) |",
        lambda source: has(source.json, "images"),
        lambda source, sizes: keypoints_json.coco_content(
            source.place, source.json, sizes, source.stated
        ),
    ),
    _PeopleFormat(
        "MMPose's inferencer",
        "| MMPose's inferencer (`--pred-out-dir`, for a video); a list of Ultralytics' "
        "`to_json()`, one for each frame | a list with `instances`, or of lists | 0; from "
        "`frame_id`, or the place in the list | not used | see [joints](#joints); score: "
        "`keypoint_scores`, or `visible` | `track_id` |",
        lambda source: _is_list(
            source.json, lambda frame: isinstance(frame, list) or has(frame, "instances")
        ),
        lambda source, _: mmpose.mmpose_content(
            mmpose.INFERENCER, source.place, "frames", source.json, None, source.stated
        ),
    ),
    _PeopleFormat(
        "MMPose's demo",
        "| MMPose's demo (`--save-predictions`) | an object with `instance_info` | 1; from "
        "`frame_id` | not used | by the names in `meta_info` | `track_id` |",
        lambda source: has(source.json, "instance_info"),
        lambda source, _: mmpose.mmpose_content(
            mmpose.DEMO,
            source.place,
            "instance_info",
            source.json["instance_info"],
            source.json.get("meta_info"),
            source.stated,
        ),
    ),
    _PeopleFormat(
        "SAM 3D Body",
        "| SAM 3D Body: what `process_one_image` returns, saved as npz, npy, pickle or JSON "
        "([how](../results.md#sam-3d-body)) | `pred_keypoints_2d` of each person; a file for each "
        "image, or one for all | 0; from `frame`, or the number at the end of the file's name | "
        "`x y x y`, px | its 70, of which 24 are taken, and [hands](#hands); score 1 | none |",
        lambda source: sam_3d_body.is_of_tool(
            source.frames[0][1] if source.frames else source.place
        ),
        lambda source, _: sam_3d_body.sam_content(source.place, source.frames),
    ),
    _PeopleFormat(
        "OpenPose",
        "| OpenPose (`--write_json`) | a JSON file per frame, with `people`; or a list of "
        "these, as ComfyUI's | 0; from the number in the file name, or the place in the list | "
        "none | 75 numbers: BODY_25; 54: OpenPose's COCO body; others: see [joints](#joints) | "
        "none |",
        lambda source: (
            _is_list(source.json, lambda page: has(page, "people"))
            or (bool(source.frames) and source.frames[0][1].suffix == ".json")
        ),
        lambda source, sizes: keypoints_json.openpose_content(
            source.place, source.json, source.frames, sizes, source.stated
        ),
        orders={25: "body_25", 18: "openpose_coco"},
    ),
    _PeopleFormat(
        "Flat records",
        "| Flat records, [whose columns you name](#name-the-columns-of-a-table) | a list of "
        "objects without a list or an object in them | 0, or as you state | `x y w h`, px, or as "
        "you state | none | `track` |",
        lambda source: bool(source.stated.columns.theirs) and _is_list(source.json, _is_flat),
        lambda source, sizes: tables.records_content(
            source.place, source.json, sizes, source.stated
        ),
    ),
    _PeopleFormat(
        "AlphaPose's and COCO's results",
        "| AlphaPose's and COCO's results (also ViTPose's) | a list with `image_id` | 0; from "
        "the number at the end of `image_id` | `x y w h`, px | see [joints](#joints) | `idx`, "
        "unless all are 0; or as COCO's JSON |",
        lambda source: source.json == [] or _is_list(source.json, lambda r: isinstance(r, dict)),
        lambda source, _: keypoints_json.results_content(source.place, source.json, source.stated),
    ),
    _PeopleFormat(
        "YOLO",
        "| YOLO (Ultralytics' `save_txt`) | a text file per frame | 1; from the number in the "
        "file name | `cx cy w h`, fractions of the image | COCO's 17, if it has joints | last "
        "number, if tracked |",
        lambda source: bool(source.frames),
        lambda source, sizes: text_files.yolo_content(
            source.frames, sizes()[0], source.stated.classes
        ),
    ),
    _PeopleFormat(
        "MOT",
        "| MOT (MOTChallenge) | text that begins with a number: `frame,id,x,y,w,h,conf,...` | "
        "1 | `x y w h`, px; the first pixel is 1 | none | `id`, unless it is -1 |",
        lambda source: text_files.are_mot_lines(source.text),
        lambda source, _: text_files.mot_content(source.place, source.stated.classes),
    ),
    _PeopleFormat(
        "Sports2D's TRC in px",
        "| Sports2D's TRC in px | `.trc`: one file for each person; in a folder, those with "
        "`_px` in their names | 0; from `Time` and the rate | none | by the names in the file; "
        "confidence 1 | number at the end of the file's name |",
        lambda source: bool(source.persons),
        lambda source, _: text_files.trc_content(source.persons),
    ),
    _PeopleFormat(
        "CSV",
        "| CSV | text with a header line that has `track`, `frame`, `x`, `y`, `w`, `h`, or "
        "[the columns that you name](#name-the-columns-of-a-table) | 0, or as you state | "
        "`x y w h`, px, or as you state | none | `track` |",
        lambda source: source.text is not None,
        lambda source, sizes: tables.csv_content(source.place, source.text, sizes, source.stated),
    ),
)


def format_of(source: Source) -> _PeopleFormat:
    """The format of a source. Raises RawDataError if it is none of FORMATS."""
    for candidate in FORMATS:
        if candidate.recognises(source):
            return candidate
    raise keypoints_json.no_format(source.place, source.json)


def _is_list(content: Any, is_entry: Callable[[Any], bool]) -> bool:
    """Whether it is a list with entries of this kind alone."""
    is_list = isinstance(content, list | StreamedList)
    return is_list and len(content) > 0 and all(map(is_entry, content))


def _is_flat(entry: Any) -> bool:
    """Whether it is an object without a list or an object in it."""
    return isinstance(entry, dict) and not any(isinstance(v, list | dict) for v in entry.values())
