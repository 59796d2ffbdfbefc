"""One commit of a split: its columns, fields of tracks, and streams.  tracks -> features ->
[windows]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from functools import cached_property
from typing import Final

import numpy as np

from cache.arrays import Array
from cache.errors import CacheError, suggestion
from cache.format import layout
from cache.format.extra import ExtraColumn
from cache.format.folders import refuse_unmounted_stream
from cache.format.layout import FEATURES, GENDERS, MANIFEST, SKIPPED
from cache.format.manifest import Commit
from cache.format.place import Place
from cache.format.tables import Tables
from cache.read.streams import OpenCommit, OpenStream
from cache.windows import intersect

# Fields of a window's track, repeated in each row. A dataset's own column of the same name replaces
# them.
TRACK_FIELDS: Final = ("gender", "intrinsics", "image_size", "crop_scale")


class DefaultStream(Enum):
    """The default of `stream`, which is another thing than the same name given by a caller."""

    NAME = "resnet50"


DEFAULT_STREAM: Final = DefaultStream.NAME


class OpenSplit(OpenCommit):
    """One commit of a split: its tables, columns and streams, each opened on first use. This is the
    base of `Split`.
    """

    def __init__(self, commit: Commit) -> None:
        super().__init__(commit)
        self.store = commit.place.store
        self.name = commit.place.split
        self.root = self.store.root
        self._streams: dict[str, OpenStream] = {}  # by name, opened on first use

    @property
    def tables(self) -> Tables:
        """Its tables, which a pickled split reads when they are first used. Raises CacheError."""
        return self.commit.tables

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns with a value per row, including extra columns."""
        return tuple(name for name in self.commit.columns if name in self.manifest["shards"])

    def unknown_columns(self, names: Iterable[str]) -> list[str]:
        """Those of these columns, sorted, that are not known for every track, as `image_size` and
        `intrinsics` may be.
        """
        of_tracks = sorted({*names} - {*self.columns})  # a million tracks: only if one is asked for
        return [name for name in of_tracks if not self._is_known(name)]

    def _is_known(self, field: str) -> bool:
        """Whether a field of tracks is known for every track."""
        values = self.track_fields.get(field)
        if values is None or not np.isfinite(values).all():
            return False
        is_size = field == "image_size" and field not in self.extra
        return not is_size or bool((values != 0).all())

    @property
    def extra(self) -> dict[str, ExtraColumn]:
        """Extra columns of rows and tracks, by name."""
        return self.commit.extra

    @cached_property
    def track_fields(self) -> dict[str, Array]:
        """The values (N, ...) of N tracks, by field: TRACK_FIELDS and the dataset's extra track
        columns. A field is left out if there is a column per row of that name.
        """
        tables = self.tables
        genders = tables.utf8_texts("track_gender")
        gender = np.zeros(len(genders), np.uint8)
        for number, name in enumerate(GENDERS):
            gender[genders == name.encode()] = number
        size = np.stack([tables["video_width"], tables["video_height"]], axis=1)
        fields = {
            "gender": gender,
            "intrinsics": tables["track_intrinsics"],
            "image_size": size[tables["track_video"]],
            "crop_scale": tables["track_crop_scale"],
        }
        for name, column in self.extra.items():
            if column.per == "track":
                fields[name] = tables[column.array]
        return {name: values for name, values in fields.items() if name not in self.columns}

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the committed feature streams, sorted."""
        home = f"{self.commit.place.arrays_folder}/{FEATURES}"
        store = self.commit.place.home
        streams = []
        for name in store.list_names(home):
            if layout.is_name(name) and store.etag(f"{home}/{name}/{MANIFEST}") is not None:
                streams.append(name)
        return tuple(streams)

    def place(self, stream: str | None) -> Place:
        """The `Place` of this split, or of one of its streams."""
        return replace(self.commit.place, stream=stream)

    def find_array(self, name: str) -> tuple[OpenCommit, str]:
        """Find the array of a column, or of a stream as "features/<stream>" with "_ok" or "_key":
        the commit that has it, and its name there, such as "resnet50_ok".

        Raises CacheError if there is none of that name.
        """
        if name.startswith(f"{FEATURES}/"):
            array = name.removeprefix(f"{FEATURES}/")
            stream = self.open_stream(layout.stream_of(array))
            if array in stream.commit.manifest["shards"]:
                return stream, array
        elif name in self.columns:
            return self, name
        hint = suggestion(name, self.columns)
        if layout.stream_of(name) in self.streams:
            hint = f"; did you mean '{FEATURES}/{name}'?"
        columns = ", ".join(self.columns)
        raise CacheError(f"{self.name}: no column {name!r} of rows{hint} there are: {columns}")

    def open_stream(self, stream: str) -> OpenStream:
        """A committed stream. Raises CacheError when there is none of that name, or when its disk
        seems to be unmounted.
        """
        if stream not in self._streams:
            layout.check_names(self.name, stream)
            commit = Commit.load(self.place(stream))
            if commit is None:
                refuse_unmounted_stream(self.place(stream))
                self.require_current()  # its cache may have been moved
                hint = suggestion(stream, self.streams)
                names = ", ".join(self.streams) or "none"
                do = "Extract it first, or read labels only (stream=None)."
                raise CacheError(
                    f"{self.name}: no feature stream {stream!r}{hint} there are: {names}. {do}"
                )
            self.require_current()  # else the stream belongs to other rows
            opened = OpenStream(commit, self.commit)
            self._require_features_of_replaced_rows(opened)
            self._streams[stream] = opened
        return self._streams[stream]

    def _require_features_of_replaced_rows(self, stream: OpenStream) -> None:
        """Raise CacheChanged if the stream skipped rows of this commit, because a later one had
        replaced them, or may have lost shards that a later one lacks. They would look like rows
        whose frame could not be decoded, or that are still to be computed.
        """
        place = self.commit.place
        made_for = stream.manifest["split_digest"]
        if made_for == self.commit.digest or place.home.etag(place.manifest) == self.commit.etag:
            return
        skipped = stream.rows_with_flag(SKIPPED)
        shards = np.flatnonzero(self.commit.live_by_shard)
        is_whole = self.require_current.are_named or np.isin(shards, stream.shards).all()
        if not is_whole or len(intersect(self.tables.track_rows, skipped)):
            raise self.commit.changed_error()

    def has_later_commit(self) -> bool:
        """Whether there has been a commit since this one, of the split or of a stream that was
        opened.
        """
        commits = [opened.commit for opened in (self, *self._streams.values())]
        return not all(commit.is_current() for commit in commits)

    @cached_property
    def has_default_stream(self) -> bool:
        """Whether there is a stream of the default name, perhaps damaged. Raises CacheError if its
        disk seems to be unmounted.
        """
        place = self.place(DEFAULT_STREAM.value)
        if place.stream in self._streams or place.home.exists(place.manifest):
            return True
        refuse_unmounted_stream(place)
        return False
