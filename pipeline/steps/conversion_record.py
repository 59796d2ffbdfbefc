"""The record of a committed split's conversion: its reader, its folders, its rejected videos.
[raw] -> rows

The cache records of each split which reader made its rows, from which folders, and what became of
each video (`accounting.VideoAccount`). `ConversionRecord` gives commands and plans these facts, and
the folders and the reader by which the split is converted again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cache
from pipeline import datasets
from pipeline.accounting import PASSING, is_error
from pipeline.cli.text import command, count, from_here
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.files.raw.changes import NEVER_SEEN, LastReading
from pipeline.settings.options import DROP

# entry of the manifest: videos that kept their rows when another reader converted the others
EARLIER_READER: Final = "earlier_reader"
# in the provenance: the file of corrections
CORRECTIONS: Final = "leave_out"
MOUNT: Final = "Mount its disk"
_BLOCK: Final = 4096  # videos whose texts are made at a time
LET_GO: Final = f"{DROP}, or [convert] removed = drop in luigi.cfg"


def committed_split(root: cache.Root, name: str) -> cache.Split | None:
    """The split in the cache; None if there is no such split or cache, or it was deleted.

    Raises MissingSplit if its disk does not seem to be mounted.
    """
    features = cache.FeatureCache(root)
    if features.is_committed(name):
        return cache.open(root)[name]
    features.refuse_unmounted(name)
    return None


@dataclass(frozen=True, slots=True)
class ConversionRecord:
    """What the cache records of a split's conversion. An imported split, and one of another
    program, lack some of it.
    """

    split: cache.Split

    @property
    def reader(self) -> Mapping[str, Any]:
        """The reader's identity (`identity.reader_parts`), or the file of an imported split; {}:
        not recorded.
        """
        return dict(self.split.manifest.get("reader") or {})

    @property
    def totals(self) -> Mapping[str, Any]:
        """Sums of the videos' accounts (`Accounting.totals`); {}: not recorded."""
        return dict(self.split.manifest.get("accounting", {}))

    @property
    def is_stand_in(self) -> bool:
        """Whether its rows are demo data."""
        return bool(self.split.manifest.get("stand_in"))

    @property
    def imported(self) -> str | None:
        """The file of an imported split; None: it was not imported."""
        file: str | None = self.reader.get("imported", {}).get("file")
        return file

    @property
    def was_converted_here(self) -> bool:
        """Whether the split was converted from raw data here, not imported."""
        return "parameters" in self.reader

    @property
    def raw(self) -> Path | None:
        """The raw folder at conversion; None: not recorded."""
        recorded = self.split.provenance.get("raw")
        return Path(str(recorded)) if recorded else None

    @property
    def earlier_reader(self) -> frozenset[str]:
        """Names of the videos whose rows an earlier reader made."""
        return frozenset(self.split.manifest.get(EARLIER_READER, ()))

    # ----------------------------------------------------------------------------------------------
    # to convert it again

    def dataset(self) -> Dataset:
        """The reader, with the options of the conversion. Raises PipelineError if it is not
        installed.
        """
        name = self.split.name.partition("/")[0]
        if not datasets.is_known(name):
            raise PipelineError(f"split of {datasets.missing_label(name)}")
        options = {**datasets.find(name).added, **self.reader["parameters"]}
        for option, value in options.items():
            if isinstance(value, list):  # JSON has no tuples
                options[option] = tuple(value)
        return datasets.get(name, **options)

    def raw_folder(self, given: Path | None) -> Path:
        """Return the given raw folder, else the recorded one.

        Raises PipelineError if there is neither, or if the folder does not exist.
        """
        raw = given or self.raw
        if raw is None:
            raise self.unknown_raw()
        if not raw.is_dir():
            problem = f"its raw folder was {raw}" if given is None else f"--raw is {raw}"
            raise PipelineError(f"{self.split.name}: {problem}, which does not exist. {_NAME_RAW}")
        return raw

    def unknown_raw(self) -> PipelineError:
        """The error that the raw folder is not recorded, for the caller to raise."""
        return PipelineError(
            f"{self.split.name}: its raw folder is not recorded in provenance.json. {_NAME_RAW}"
        )

    def body_folder(self, given: Path | None) -> Path | None:
        """Return the given body folder, else the recorded one if the rows depend on it.

        Raises PipelineError if it is not recorded.
        """
        if given is not None or self.reader["body"] is None:
            return given
        recorded = self.split.provenance.get("body")
        if recorded is None:
            raise PipelineError(
                f"{self.split.name}: its body model's folder is not recorded. Use --body DIR."
            )
        return Path(str(recorded))

    def lasting(self, dataset: Dataset) -> dict[str, Any]:
        """Setting -> its value, of those that hold for the next conversion, too, unless the user
        names another value.
        """
        options = self.reader.get("parameters", {})
        kept = (*dataset.by_clip, *dataset.lasting_options)
        values = {f"{dataset.name}.{option}": options.get(option) for option in kept}
        values["convert.corrections"] = self.split.provenance.get(CORRECTIONS)
        return {setting: value for setting, value in values.items() if value}

    def has_moved(self, raw: Path) -> bool:
        """Whether `raw` is another folder than that of the conversion; False if it is unknown."""
        return self.raw not in (None, raw.resolve())

    def convert_command(self, *more: str) -> str:
        """The command that converts the split as recorded. more: further options."""
        return command("convert", self.split.name, "--cache", from_here(self.split.root), *more)

    def drop_command(self, raw: Path | None) -> str:
        """The command that deletes the rows of missing and unusable videos.

        raw: the raw folder; None: the recorded one.
        """
        if raw is not None and self.has_moved(raw):
            return self.convert_command("--retry", "--raw", str(raw), DROP)
        return self.convert_command(DROP)

    # ----------------------------------------------------------------------------------------------
    # videos without rows

    def digests(self, seen: Mapping[str, LastReading]) -> dict[str, str]:
        """Name -> digest of every video. Texts that `seen` has are not made twice."""
        tables = self.split.tables
        known = dict(zip(seen, seen, strict=True))
        digests = {}
        for start in range(0, len(self.split.videos), _BLOCK):
            rows = slice(start, start + _BLOCK)
            names = tables.texts("video_name", rows)
            for name, digest in zip(names, tables.texts("video_fingerprint", rows), strict=True):
                recorded = seen.get(name, NEVER_SEEN).digest
                digests[known.get(name, name)] = recorded if recorded == digest else digest
        return digests

    def names_to_retry(self, *, retry: bool) -> set[str]:
        """Names of rejected videos that are read again though their files have not changed: those
        of passing reasons; retry: all that were rejected because of an error.
        """
        reasons = set(self._errors)
        if not retry:
            reasons &= PASSING
        if not reasons:  # no look at every video, of which there may be 400,000
            return set()
        return {video.name for video in self.split.videos if video.account["set_aside"] in reasons}

    @property
    def n_rejected(self) -> int:
        """The number of videos that were rejected because of errors."""
        return sum(self._errors.values())

    def rejections(self) -> Iterator[str]:
        """Yield a line about each video that was rejected because of an error."""
        for video in self.split.videos:
            reason = video.account.get("set_aside", "")
            if is_error(reason):
                yield f"{video.name}: {reason}: {video.account.get('message', '')}"

    @property
    def _errors(self) -> Mapping[str, int]:
        """The errors for which videos were rejected -> their number."""
        reasons = self.totals.get("videos", {}).get("set_aside", {})
        return {reason: n for reason, n in reasons.items() if is_error(reason)}

    def why_empty(self) -> list[str]:
        """Say why a converted split has no rows, with the reasons; empty if it has any."""
        videos = self.totals.get("videos")
        if self.split.manifest["rows"] or videos is None or videos["kept"]:
            return []
        if videos["found"]:
            return [_none_usable(self)]
        dataset_name, _, split = self.split.name.partition("/")
        dataset = datasets.find_installed(dataset_name)
        if dataset is not None and split in dataset.release.optional_splits:
            return []
        return [f"{self.split.name}: no rows: the raw folder has no video of this split."]


# --------------------------------------------------------------------------------------------------
# messages

_NAME_RAW: Final = "Name the dataset's own raw folder: --raw DIR."


def _none_usable(record: ConversionRecord) -> str:
    """Why a split has no rows, although its raw folder has videos."""
    totals = record.totals
    reasons = [f"{count(n, 'video')} {why}" for why, n in totals["videos"]["set_aside"].items()]
    reasons += [f"{count(n, 'frame')} {why}" for why, n in totals["frames"]["dropped"].items()]
    none_usable = f"none of {count(totals['videos']['found'], 'video')} could be used"
    why = ", ".join(reasons) or "nobody is labelled"
    text = f"{record.split.name}: no rows: {none_usable} ({why})."
    for video in record.split.videos:
        first = video.account["message"] or "; ".join(video.account["notes"])
        if first:
            return f"{text} The first, {video.name}: {first}"
    return text
