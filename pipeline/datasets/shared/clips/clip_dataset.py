"""Datasets of clips whose people a detector finds: their options, and what these state about a
clip's label files.  [raw -> tracks] -> features
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar

from pipeline.clips.labels.joint_orders import StatedOrder
from pipeline.clips.labels.label_content import Stated, StatedIdentities
from pipeline.clips.labels.people_classes import StatedClasses
from pipeline.datasets.base import Dataset, Origin
from pipeline.datasets.shared.checks import LabelRules
from pipeline.datasets.shared.clips.by_clip import stated_columns
from pipeline.files.raw.files import VIDEOS


@dataclass(frozen=True)
class ClipDataset(Dataset):
    """A dataset of clips whose people a detector finds. Clips without its labels are rejected."""

    # names or numbers of the classes that are people in keypoint files, as "player, referee";
    # unset: person, people, pedestrian and human, or those that the file's format numbers as people
    people_classes: str | None = None
    # file: identities of files are used, and people without one are left out; link: they are not
    # used, people are linked; another word: the key of people in JSON files that has it, used as
    # file; unset: they are used, unless no people can have them
    identities: str | None = None
    # which columns of CSV files and of flat records in JSON are read, as
    # "track:tracker_id frame:frame_number-1 x:left% y:top% w:width% h:height%"; also x2, y2, score,
    # class, and by clips, "lab/*=..., ..."; unset: track, frame, x, y, w, h of CSV
    table_columns: str | None = None
    # keep the joints of hands, where keypoint files have them, as the column kp_2d_hands
    hands: bool = False

    # 2: what files of people state is used, identities too, and what of them is not read is told;
    # ends of H.264 slices
    # 3: boxes with a side under a pixel, and more boxes that are two corners, are refused
    # 4: COCO-WholeBody's `foot_kpts` are joints; MMPose's Halpe-136 is read
    uses = Dataset.uses | {"clips": 4}
    labels = LabelRules(keypoints_from="detected")
    corrects_people = True
    by_clip: ClassVar[tuple[str, ...]] = ("table_columns",)
    lasting_options: ClassVar[tuple[str, ...]] = ("hands",)
    added: ClassVar[Mapping[str, Any]] = dict.fromkeys(
        ("people_classes", "identities", "table_columns")
    ) | {"hands": False}

    def __post_init__(self) -> None:
        self.stated("")  # raises ConfigError for an invalid option

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        names = super().columns(split, body=body)
        return (*names, "kp_2d_hands") if self.hands else names

    def full_split(self, clip: str) -> str:
        """DATASET/SPLIT of a clip, by its path below the raw folder."""
        return f"{self.name}/{clip.partition('/')[0]}"

    def joint_order(self, clip: str) -> StatedOrder:
        """What the user states about files of a clip that do not name their joints."""
        return StatedOrder()

    def stated(self, clip: str) -> Stated:
        """What the user states about the label files of a clip."""
        listed = [name.strip().casefold() for name in (self.people_classes or "").split(",")]
        numbers = frozenset(name for name in listed if name.isdecimal())
        names = frozenset(filter(None, listed)) - numbers
        classes = StatedClasses(names, numbers, f"[{self.name}] people_classes")
        identities = StatedIdentities(self.identities, f"[{self.name}] identities")
        columns = stated_columns(self.full_split(clip), self.table_columns, clip)
        return Stated(self.joint_order(clip), classes, identities, columns, self.hands)

    def origin(self, video: str) -> Origin:
        """The recording is the published video: the stem of the clip's file name, in any folder.

        The start and end seconds that Kinetics appends to the name are removed.

        >>> from pipeline import datasets
        >>> datasets.get("kinetics").origin("train/abseiling/jB8CPlU9xjA_000012_000022").recording
        'jB8CPlU9xjA'
        """
        path = PurePath(video)
        name = path.stem if path.suffix.lower() in VIDEOS else path.name
        return Origin(recording=re.sub(r"_[0-9]{6}_[0-9]{6}$", "", name))
