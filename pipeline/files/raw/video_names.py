"""Names of videos in settings: paths below the raw folder, as `status` prints them, or full names,
DATASET/SPLIT/PATH.  [raw] -> tracks

Here a path has a "/" before it, so that it differs from a full name. Names that are equal in
Unicode's composed form are equal: file systems store é in two ways.
"""

from __future__ import annotations

import fnmatch
import unicodedata
from collections.abc import Iterable, Mapping

from pipeline.errors import ConfigError, did_you_mean


def compose(name: str) -> str:
    """The name in Unicode's composed form."""
    return unicodedata.normalize("NFC", name)


def fits(pattern: str, split: str, path: str) -> tuple[bool, bool]:
    """Whether a pattern, such as slow/*, fits a video by its path, and by its full name.

    split: DATASET/SPLIT.
    """
    pattern = compose(pattern)
    is_full = pattern.partition("/")[0] == split.partition("/")[0]
    names = compose(path), compose(f"{split}/{path}")
    # names may have [ or ]
    by_path, in_full = (name == pattern or fnmatch.fnmatchcase(name, pattern) for name in names)
    return by_path, is_full and in_full


class VideoNames:
    """The videos of a dataset that settings may name."""

    def __init__(self, dataset: str, by_split: Mapping[str, Iterable[str]]) -> None:
        """by_split: Split -> paths."""
        self.dataset = dataset
        self.videos = [(split, path) for split, paths in by_split.items() for path in paths]
        # path with "/" before it, or full name -> split, "" for a path, and path of the video
        self._by_name: dict[str, tuple[str, str]] = {}
        for split, path in self.videos:
            self._by_name[f"/{compose(path)}"] = "", path
            self._by_name[compose(f"{dataset}/{split}/{path}")] = split, path

    def find(self, name: str) -> tuple[str, str] | None:
        """The split, "" if the name has none, and path of the video with this name; None if there
        is none. Raises ConfigError for the path of one that is the full name of another one.
        """
        by_path = self._by_name.get(f"/{compose(name)}")
        in_full = self._by_name.get(compose(name))
        if by_path and in_full:
            raise ConfigError(self._both_ways(name))
        return by_path or in_full

    def check(self, pattern: str, setting: str) -> None:
        """Raise ConfigError for a pattern of a setting that fits no video, or some by their paths
        and others by their full names.
        """
        ways = {fits(pattern, f"{self.dataset}/{split}", path) for split, path in self.videos}
        by_path = any(way[0] for way in ways)
        in_full = any(way[1] for way in ways)
        if by_path and in_full:
            raise ConfigError(f"{setting}: {self._both_ways(pattern)}.")
        if not (by_path or in_full):
            suggestion = self.suggest(pattern) or "."
            raise ConfigError(
                f"{setting}: no video of {self.dataset} fits {pattern!r}{suggestion} Expected its "
                "path below the raw folder, or a pattern such as slow/*."
            )

    def suggest(self, name: str) -> str:
        """A suggestion for a name that fits no video, as `did_you_mean`."""
        return did_you_mean(compose(name), [known.removeprefix("/") for known in self._by_name])

    def _both_ways(self, name: str) -> str:
        return (
            f"{name!r} is the path of a video and the full name of another one. Write "
            f"{self.dataset}/SPLIT/ before it for the first one"
        )
