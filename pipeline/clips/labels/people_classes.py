"""Which classes of a file are people: as the user states, or by their names.  [raw] -> tracks"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline.clips.labels.label_values import joint_names, label_error, records
from pipeline.errors import RawDataError
from pipeline.files.formats.names import quote_name, shown_names

PEOPLE: Final = ("person", "people", "pedestrian", "human")  # names of their class
# COCO's, AP-10K's and others; and joints that people do not have
ANIMALS: Final = re.compile(
    "(?<![a-z])(animal|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|monkey|macaque|ape"
    "|tiger|lion|mouse|mice|rat|pig|fox|wolf|deer|rabbit|fish|fly|locust|tail|tailbase|paw|hoof"
    "|withers|snout|beak|wings)(?![a-z])"
)


class StatedClasses(NamedTuple):
    """The classes that are people, as far as the user states them."""

    names: frozenset[str] = frozenset()  # in lower case; empty: none is stated
    numbers: frozenset[str] = frozenset()  # of classes in files without names
    setting: str = "people_classes"

    def are_people(self, name: str, usual: Collection[str]) -> bool:
        """Whether a class of this name, or number, is people. usual: those that are if no name, or
        no number, is stated.
        """
        stated = self.numbers if name.isdecimal() else self.names
        return name.casefold() in (stated or usual)

    def no_people(self, file: Path, key: str, classes: Iterable[str]) -> RawDataError:
        """The error that none of a file's classes is people."""
        expected = f"a class {' or '.join(sorted(self.names or PEOPLE))}"
        do = f"State those that are people: {self.setting}."
        return label_error(file, key, expected, shown_names(classes), do)


class Categories(NamedTuple):
    """Which of COCO's categories are people."""

    people: frozenset[str]  # ids
    joints: list[str] | None  # names, if the file has them
    names: Mapping[str, str]  # of all categories, by id
    is_assumed: bool  # several are people by no name and no joints

    def name(self, annotation: Mapping[str, Any]) -> str:
        """The name of an annotation's category; its id if it is unknown."""
        category = str(annotation.get("category_id"))
        return self.names.get(category, category)

    def are_people(self, annotation: Mapping[str, Any]) -> bool:
        """Whether an annotation's category is people: all are if the file names no categories, or
        the annotation has none.
        """
        is_known = bool(self.names) and "category_id" in annotation
        return not is_known or str(annotation.get("category_id")) in self.people


def read_categories(file: Path, stored: object, classes: StatedClasses) -> Categories:
    """Choose the categories that are people: those with a stated name, or one of PEOPLE. If none is
    stated, and none has such a name, all but animals (AP-10K's, macaques). If some of these have
    keypoints, only they are people. Raises RawDataError if none has a stated name.
    """
    listed = [*records(file, "categories", stored or [])]  # read once
    people = [each for each in listed if classes.are_people(str(each.get("name")), PEOPLE)]
    is_assumed = not people
    if is_assumed and listed and classes.names:
        raise classes.no_people(file, "categories", [str(each.get("name")) for each in listed])
    if is_assumed:
        people = [category for category in listed if not _is_animal(category)]
    with_joints = [category for category in people if category.get("keypoints")]
    if with_joints:
        people = with_joints
    key = "categories.keypoints"
    joints = None
    for category in with_joints:
        names = joint_names(file, key, category["keypoints"])
        joints = joints or names
        if names != joints:
            first, other = (quote_name(entry.get("name")) for entry in (people[0], category))
            actual = f"others for {first} and {other}"
            do = "Export one skeleton for all categories of people."
            raise label_error(file, key, "the same joints for all people", actual, do)
    name_of = {str(category.get("id")): str(category.get("name")) for category in listed}
    ids = frozenset(str(category.get("id")) for category in people)
    return Categories(ids, joints, name_of, is_assumed and len(ids) > 1 and joints is None)


def _is_animal(category: Mapping[str, Any]) -> bool:
    joints = category.get("keypoints")
    texts = [category.get("name"), category.get("supercategory")]
    if isinstance(joints, list):
        texts += joints
    return ANIMALS.search(" ".join(map(str, texts)).lower()) is not None
