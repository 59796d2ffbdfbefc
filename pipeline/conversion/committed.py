"""The records of a committed split's conversion, and its raw folder now.  [raw] -> rows

The cache records of each split which reader made its rows, from which folders, and what became of
each video. Commands and plans ask these records:

    recorded_reader     how to convert the split again
    refuse_...          would a new conversion destroy data instead of updating it?
    why_empty           why has the split no rows?
    video_state         what became of a video?

The account of a video is a dict with the fields of `VideoAccount`, where "set_aside" is the reason
why the video was rejected, or "":

    {"name": "0001", "found": 120, "kept": 0, "set_aside": "no_label", "message": "...", ...}

A cache of another program may not have these fields. The manifest's entry "accounting" has the
sums:

    {"videos": {"found": 12, "kept": 0, "set_aside": {"no_label": 12}, ...}, ...}
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import cache
from pipeline import datasets
from pipeline.accounting import NOT_NOW, is_error
from pipeline.cli.text import command, count
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError, StandInMixed

OTHER_SPLIT: Final = "of another split"  # state of a video
WITHOUT_TRACK: Final = "without a track"  # state of a video
NOT_RECORDED: Final = "not recorded"  # state of a video in a cache of another program
WOULD_LOSE: Final = "would lose rows; the rows are kept"
# entry of the manifest: videos that kept their rows when another reader converted the others
EARLIER_READER: Final = "earlier_reader"
LEAVE_OUT: Final = "leave_out"  # in the provenance: the list of tracks that are left out
DROP: Final = "--drop-removed"
MOUNT: Final = "Mount its disk"
LET_GO: Final = f"{DROP}, or [convert] removed = drop in luigi.cfg"


class _VideoState(NamedTuple):
    """What became of a committed video, in words for tables and pages."""

    state: str  # kept, rejected, not labelled, WITHOUT_TRACK, OTHER_SPLIT or NOT_RECORDED
    reason: str  # the name of the reason (`accounting.REASONS`); "" for a kept video
    message: str


def committed_split(root: cache.Root, name: str) -> cache.Split | None:
    """The split in the cache; None if there is no such split or cache, or it was deleted.

    Raises MissingSplit if its disk does not seem to be mounted.
    """
    features = cache.FeatureCache(root)
    if features.is_committed(name):
        return cache.open(root)[name]
    features.refuse_unmounted(name)
    return None


def recorded_reader(
    split: cache.Split, raw: Path | None, body: Path | None
) -> tuple[Dataset, Path, Path | None]:
    """Return (reader, raw folder, body folder), by which a committed split's videos are read again.

    The reader has the options of the conversion. `raw`, `body`: new places of the folders, if they
    moved. Raises PipelineError if one is unknown or missing, and for a split that was not converted
    here.
    """
    if "parameters" not in split.manifest.get("reader", {}):
        raise PipelineError(
            f"{split.name}: was not converted from raw data here: it cannot be converted again"
        )
    raw = raw_folder(split, raw)
    options = dict(split.manifest["reader"]["parameters"])
    for option, value in options.items():
        if isinstance(value, list):  # JSON has no tuples
            options[option] = tuple(value)
    name, _, part = split.name.partition("/")
    if name not in datasets.names():
        raise PipelineError(f"split of {datasets.missing_label(name)}")
    dataset = datasets.get(name, **options).detect_layout(raw, part)
    if body is None and split.manifest["reader"]["body"] is not None:  # its rows depend on it
        recorded = split.provenance.get("body")
        if recorded is None:
            raise PipelineError(
                f"{split.name}: its body model's folder is not recorded. Use --body DIR."
            )
        body = Path(str(recorded))
    return dataset, raw, body


def recorded_raw(committed: cache.Split) -> str:
    """The raw folder at conversion; "" if unknown."""
    return str(committed.provenance.get("raw") or "")


def has_moved(committed: cache.Split, raw: Path) -> bool:
    """Whether `raw` is another folder than the one at conversion; False if that one is unknown."""
    return recorded_raw(committed) not in ("", str(raw.resolve()))


def raw_folder(split: cache.Split, given: Path | None) -> Path:
    """Return the given raw folder, else the recorded one.

    Raises PipelineError if there is neither, or if the folder does not exist.
    """
    recorded = split.provenance.get("raw")
    do = "Name the dataset's own raw folder: --raw DIR."
    if given is None and recorded is None:
        raise PipelineError(
            f"{split.name}: its raw folder is unknown, because provenance.json is missing. {do}"
        )
    raw = given or Path(str(recorded))
    if not raw.is_dir():
        problem = f"its raw folder was {recorded}" if given is None else f"--raw is {raw}"
        raise PipelineError(f"{split.name}: {problem}, which does not exist. {do}")
    return raw


def earlier_reader(committed: cache.Split | None) -> frozenset[str]:
    """Names of the committed videos whose rows an earlier reader made."""
    if committed is None:
        return frozenset()
    return frozenset(committed.manifest.get(EARLIER_READER, ()))


def list_rejected(committed: cache.Split, *, retry: bool) -> set[str]:
    """Names of rejected videos that are read again though their files have not changed: those that
    could not be read at the time; retry: all that were rejected because of an error.
    """
    reasons = set(filter(is_error, committed.manifest["accounting"]["videos"]["set_aside"]))
    if not retry:
        reasons &= {NOT_NOW}
    if not reasons:  # no look at every video, of which there may be 400,000
        return set()
    return {video.name for video in committed.videos if video.account["set_aside"] in reasons}


def missing_names(missing: Mapping[str, str]) -> list[str]:
    """Texts for missing videos: the name, with the file that is gone if others are present.

    >>> missing_names({"b": "b/labels.json", "a": ""})
    ['a', 'b (without b/labels.json)']
    """
    names = []
    for video, path in sorted(missing.items()):
        names.append(f"{video} (without {path})" if path else video)
    return names


def drop_command(split: cache.Split, raw: Path | None) -> str:
    """The command that deletes the rows of missing and unusable videos.

    raw: the raw folder; None: the recorded one.
    """
    if raw is not None and has_moved(split, raw):
        return convert_command(split, "--retry", "--raw", str(raw), DROP)
    return convert_command(split, DROP)


def convert_command(split: cache.Split, *more: str) -> str:
    """The command that converts a committed split as recorded. more: further options."""
    return command("convert", split.name, "--cache", str(split.root), *more)


def refuse_loss(
    committed: cache.Split, raw: Path, reader: Mapping[str, Any], columns: Iterable[str]
) -> None:
    """Raise PipelineError if a conversion would destroy committed data instead of updating it.

    That is so for an imported split, and if the columns would be others. Raise StandInMixed if demo
    data would replace real data, or the reverse.

    reader: identity of the new reader. columns: of its tracks.
    """
    folder = f"{committed.root}/{committed.name}"
    before = committed.manifest["reader"]
    if "imported" in before:
        raise PipelineError(
            f"{folder}: was imported from {before['imported']['file']}: a conversion would "
            "replace the rows of its "
            "features. Convert into another cache, or delete that split and its features."
        )
    # Columns must not be lost; label files that were added since then may bring new ones. But if
    # only one of both conversions has a body model, the columns must be the same.
    stored = set(committed.columns) - committed.extra.keys()
    other_columns = stored.difference(columns)
    if (before["body"] is None) != (reader["body"] is None):
        other_columns = stored.symmetric_difference(columns)
    if other_columns:
        earlier = _describe_reader(before)
        current = _describe_reader(reader)
        do = f"Restore the label files that {raw} had for them. " if earlier == current else ""
        raise PipelineError(
            f"{folder}: was converted from {earlier}, and now from {current}: other columns, "
            f"{', '.join(sorted(other_columns))}. The columns of a split cannot change. {do}"
            "Convert into another cache (--cache, or [paths] cache in luigi.cfg), or delete that "
            "folder with its features and convert the split again."
        )
    _require_same_kind(committed, raw, stand_in=reader["stand_in"])


def refuse_mixed_cache(root: cache.Root, source: Path | str, *, stand_in: bool) -> None:
    """Raise StandInMixed if a split that is not in the cache yet would bring demo data into a cache
    of real data, or the reverse.

    source: the raw folder, or the name of the split.
    """
    features = cache.FeatureCache(root)
    for name in features.splits:
        with contextlib.suppress(cache.CacheError):  # another command reports it
            _require_same_kind(features[name], source, stand_in=stand_in)


def _require_same_kind(split: cache.Split, source: Path | str, *, stand_in: bool) -> None:
    """Raise StandInMixed unless both are demo data, or both are real data."""
    was_stand_in = bool(split.manifest.get("stand_in"))
    if was_stand_in != stand_in:
        before = _kind_of_data(stand_in=was_stand_in)
        kind = _kind_of_data(stand_in=stand_in)
        root = f"{split.root}-{kind.split()[0]}"
        raise StandInMixed(
            f"{split.root}/{split.name}: was made from {before}, and {source} is {kind}: they do "
            f"not share a cache. Use another cache: --cache {root}, or [paths] cache in luigi.cfg."
        )


def _describe_reader(reader: Mapping[str, Any]) -> str:
    body = "without" if reader["body"] is None else "with"
    return f"{_kind_of_data(stand_in=reader['stand_in'])} {body} a body model"


def _kind_of_data(*, stand_in: bool) -> str:
    """The kind of data as text: "demo data" or "real data"."""
    return "demo data" if stand_in else "real data"


def refuse_other_folder(
    committed: cache.Split, raw: Path, *, n_same: int, missing: Collection[str], n_new: int
) -> None:
    """Raise PipelineError if a raw folder at a new place holds other videos than the split, so that
    an update would replace one dataset by another.

    n_same: unchanged committed videos that it has. missing: committed videos that it does not have.
    n_new: its other videos. If some are the same, and none is missing or none is new, the folder
    has moved.
    """
    is_same_data = n_same and not (missing and n_new)
    if is_same_data or not committed.manifest["rows"]:
        return
    n_videos = count(len(committed.videos), "video")
    raise PipelineError(
        f"{committed.root}/{committed.name}: was converted from {recorded_raw(committed)}, but "
        f"{raw} has {n_same:,} of its {n_videos} and {n_new:,} others: this would replace one "
        "folder by another. To keep both, put them into one folder, or use another cache "
        f"(--cache, or [paths] cache in luigi.cfg). To replace the old videos: {LET_GO}"
    )


def why_empty(committed: cache.Split) -> list[str]:
    """Say why a converted split has no rows, with the reasons; empty if it has any."""
    name = committed.name
    totals = committed.manifest.get("accounting")
    if committed.manifest["rows"] or not totals or totals["videos"]["kept"]:
        return []
    videos = totals["videos"]
    if not videos["found"]:
        dataset_name, _, split = name.partition("/")
        dataset = datasets.find_installed(dataset_name)
        if dataset is not None and split in dataset.release.optional_splits:
            return []
        return [f"{name}: no rows: the raw folder has no video of this split."]

    reasons = [f"{count(n, 'video')} {why}" for why, n in videos["set_aside"].items()]
    reasons += [f"{count(n, 'frame')} {why}" for why, n in totals["frames"]["dropped"].items()]
    none_usable = f"none of {count(videos['found'], 'video')} could be used"
    why = ", ".join(reasons) or "nobody is labelled"
    text = f"{name}: no rows: {none_usable} ({why})."
    for video in committed.videos:
        if video.account["message"]:
            return [f"{text} The first, {video.name}: {video.account['message']}"]
    return [text]


def _why_without_track(account: Mapping[str, Any]) -> str:
    """Why a video of the split that was not rejected gave no track; "" for all other videos.

    For example "120 too_few_visible_joints, 8 face_only; the labels end at frame 128".
    """
    if account["tracks_kept"] or account["set_aside"] or account["other_split"]:
        return ""
    if not account["found"]:
        return "no person"
    dropped = ", ".join(f"{n:,} {reason}" for reason, n in account["dropped"].items())
    return "; ".join(filter(None, [dropped, *account["notes"]]))


def video_state(account: Mapping[str, Any]) -> _VideoState:
    """What became of a committed video, by its account."""
    if "tracks_kept" not in account:
        return _VideoState(NOT_RECORDED, "", "")
    why = _why_without_track(account)
    if why:
        dropped = account["dropped"]
        main_reason = max(dropped, key=dropped.get, default="no_person")
        return _VideoState(WITHOUT_TRACK, main_reason, why)
    message = "; ".join(filter(None, [account["message"], *account["notes"]]))
    rejection = account["set_aside"]
    if rejection:
        state = "rejected" if is_error(rejection) else "not labelled"
    else:
        state = "kept" if account["tracks_kept"] else OTHER_SPLIT
    return _VideoState(state, rejection, message)


def rejected_videos(split: cache.Split) -> tuple[int, Iterator[str]]:
    """The number of videos that were rejected because of errors, and a line about each."""
    reasons = split.manifest.get("accounting", {}).get("videos", {}).get("set_aside", {})
    n_rejected = sum(n for reason, n in reasons.items() if is_error(reason))
    messages = (
        f"{video.name}: {video.account['set_aside']}: {video.account.get('message', '')}"
        for video in split.videos
        if is_error(video.account.get("set_aside", ""))
    )
    return n_rejected, messages
