"""COCO's JSON of one video: labelled pictures, and the people on them.  [raw] -> tracks -> features -> windows

`images` (`id`, `file_name`, `is_labeled`), `annotations` (one person in one picture each: `image_id`, `track_id`,
`keypoints`, `bbox`) and `categories`, of which the first names the joints, as PoseTrack has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.formats.arrays import table
from pipeline.formats.json_files import kind, load_json, records, whole

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Coco:
    """The F labelled pictures of a video, and the N annotations on them, in the file's order.

    Methods raise RawDataError where the file holds something else.
    """

    file: Path
    do: str  # what to do about a file that is not as expected
    file_names: list[str]  # F, as stored: not to be trusted
    picture: NDArray[np.int64]  # (N,) 0..F-1
    annotations: Mapping[str, Mapping[str, Any]]  # N: key in the file -> annotation
    categories: object
    notes: list[str]  # what is not used

    @property
    def has_keypoints(self) -> bool:
        """Whether any annotation has keypoints: those of a test set have none."""
        return not all(_is_empty(annotation.get("keypoints")) for annotation in self.annotations.values())

    def joint_names(self) -> list[str]:
        """The J joints in order, by the file's own names, each once."""
        key = "categories[0].keypoints"
        categories = records(self.file, "categories", self.categories, do=self.do)
        names = categories[0].get("keypoints") if categories else None
        if not isinstance(names, list) or not names:
            raise RawDataError(self.file, key, expected="the names of the joints", found=kind(names), do=self.do)
        for i, name in enumerate(names):
            if not isinstance(name, str) or name in names[:i]:
                raise RawDataError(self.file, key, expected="names, each once", found=kind(name), do=self.do)
        return names

    def track_ids(self) -> NDArray[np.int64]:
        """(N,) who it is."""
        stored = {key: annotation.get("track_id") for key, annotation in self.annotations.items()}
        ids = [whole(self.file, f"{key}.track_id", value, do=self.do) for key, value in stored.items()]
        return np.array(ids, np.int64)

    def keypoints(self, n_joints: int) -> Doubles:
        """(N, J, 3) as stored; all 0 for an annotation without keypoints."""
        return self._numbers("keypoints", [0] * 3 * n_joints).reshape(-1, n_joints, 3)

    def boxes(self) -> Doubles:
        """(N, 4) x y of the upper left corner, w h, px; NaN where the file has none."""
        return self._numbers("bbox", [np.nan] * 4)

    def _numbers(self, name: str, absent: list[Any]) -> Doubles:
        stored = [annotation.get(name) for annotation in self.annotations.values()]
        rows = [absent if _is_empty(row) else row for row in stored]
        return table(self.file, [f"{key}.{name}" for key in self.annotations], rows, len(absent))


def load_coco(file: Path, *, do: str) -> Coco:
    """A video's labels. Raises RawDataError for a file that is not COCO's JSON."""
    content = load_json(file, do=do)
    if not isinstance(content, dict):
        raise RawDataError(file, "file", expected="an object", found=kind(content), do=do)
    file_names: list[str] = []
    place_of: dict[int, int | None] = {}  # picture's id -> place among the labelled ones, None for any other
    n_twice = 0
    for i, image in enumerate(records(file, "images", content.get("images"), do=do)):
        image_id = whole(file, f"images[{i}].id", image.get("id"), do=do)
        labelled, name = image.get("is_labeled"), image.get("file_name")
        if not isinstance(labelled, bool) and labelled not in (0, 1):
            raise RawDataError(file, f"images[{i}].is_labeled", expected="true or false", found=kind(labelled), do=do)
        if image_id in place_of:
            n_twice += 1
        elif not labelled:
            place_of[image_id] = None
        elif not isinstance(name, str):
            raise RawDataError(file, f"images[{i}].file_name", expected="text", found=kind(name), do=do)
        else:
            place_of[image_id] = len(file_names)
            file_names.append(name)

    listed = records(file, "annotations", content.get("annotations", []), do=do)
    ids = [whole(file, f"annotations[{i}].image_id", entry.get("image_id"), do=do) for i, entry in enumerate(listed)]
    on_labelled = {i: place for i, image_id in enumerate(ids) if (place := place_of.get(image_id)) is not None}
    notes = [f"{n_twice} pictures have the id of an earlier one: not used"] if n_twice else []
    if others := len(listed) - len(on_labelled):
        notes.append(f"{others} annotations are on pictures that are not labelled, or not listed: not used")
    return Coco(
        file=file,
        do=do,
        file_names=file_names,
        picture=np.array(list(on_labelled.values()), np.int64),
        annotations={f"annotations[{i}]": listed[i] for i in on_labelled},
        categories=content.get("categories"),
        notes=notes,
    )


def _is_empty(stored: object) -> bool:
    """Where nothing was marked, the release has an empty list, or no entry."""
    return stored is None or stored == []
