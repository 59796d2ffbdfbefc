"""A committed split and its raw folder: reader, folders, missing videos.  [raw] -> rows

Rows whose raw files are gone stay committed until the user drops them, because a partially mounted
drive looks the same as deleted videos. A video is missing if the raw folder does not list it, or
one of its files is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

import cache
from pipeline import datasets
from pipeline.accounting import VideoAccount, reason
from pipeline.cli.text import FEW, command, count, few
from pipeline.clips.files import EXTENSIONS
from pipeline.conversion.identity import kind_of
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError, RawDataError, StandInMixed, similar_path
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.sources import file_part
from pipeline.files.raw import RawVideo, changes, files

OTHER_SPLIT: Final = "of another split"  # state of a video
NOT_RECORDED: Final = "not recorded"  # state of a video in a cache of another program
UNUSABLE: Final = "with rows cannot be used any more; the rows are kept"
DROP: Final = "--drop-removed"
MOUNT: Final = "Mount its disk"
NAME_RAW: Final = "name the dataset's raw folder (--raw DIR, or [paths] raw in luigi.cfg)."
LET_GO: Final = f"{DROP}, or [convert] removed = drop in luigi.cfg"


def names_with_rows(committed: cache.Split) -> frozenset[str]:
    """Committed videos that have tracks."""
    names = committed.videos.names
    return frozenset(names[number] for number in np.unique(committed.tracks.video).tolist())


def _pair_renamed(gone: Mapping[str, str], coming: Mapping[str, str]) -> dict[str, str]:
    """New name -> old name of videos with equal content. `gone`, `coming`: name -> content. Sorted
    by name.

    >>> _pair_renamed({"b": "0", "a": "0"}, {"c": "0", "d": "1"})
    {'c': 'a'}
    """
    by_content: dict[str, list[str]] = {}
    for name in sorted(gone, reverse=True):
        by_content.setdefault(gone[name], []).append(name)
    renamed = {}
    for name, content in sorted(coming.items()):
        if by_content.get(content):
            renamed[name] = by_content[content].pop()
    return renamed


def renamed_videos(
    committed: cache.Split,
    raw: Path,
    gone: Mapping[str, str],
    coming: Sequence[RawVideo],
    digests: Mapping[str, str],
) -> dict[str, str]:
    """New name -> old name of videos with equal content, else of clips with equal images.

    The second rule is for clips whose keypoint files differ, since those name the clip. gone: name
    -> digest. digests: by name, of some of the coming videos.
    """
    if not gone:
        return {}
    old = {name: digest[: changes.CONTENTS] for name, digest in gone.items()}
    new = {}
    for video in coming:
        digest = digests.get(video.name) or changes.video_digest(raw, video)
        new[video.name] = digest[: changes.CONTENTS]
    renamed = _pair_renamed(old, new)
    lost = gone.keys() - renamed.values()
    pixels = {}
    for number, name in enumerate(committed.videos.names):
        if name in lost:
            pixels[name] = file_part(committed.videos[number].pixels)
    if not any(pixels.values()):
        return renamed

    clips = {}
    for video in coming:
        is_clip = bool(video.files) and video.files[0].suffix.lower() in EXTENSIONS
        if is_clip and video.name not in renamed:
            with contextlib.suppress(RawDataError, OSError):  # the conversion reports it
                clips[video.name] = Video(raw, str(video.files[0])).digest()
    return renamed | _pair_renamed(pixels, clips)


def recorded_raw(committed: cache.Split) -> str:
    """The raw folder at conversion; "" if unknown."""
    return str(committed.provenance.get("raw") or "")


def drop_command(split: cache.Split, raw: Path | None = None) -> str:
    """The command that deletes the rows of lost videos. raw: the raw folder; None: as recorded."""
    named = ["--raw", str(raw or recorded_raw(split))]
    body = split.provenance.get("body")
    if body:
        named += ["--body", str(body)]
    return command("convert", split.name, *named, "--cache", str(split.root), DROP)


def refuse_missing_folder(raw: Path, committed: cache.Split | None) -> None:
    """Raise PipelineError if the raw folder is missing, and has been there or has a similar name.

    The dataset's reader reports others, with the download that it expects there.
    """
    if files.is_folder_there(raw) or raw.is_file():
        return
    similar = similar_path(raw)
    if committed is not None:
        found = f"no such folder{similar or ';'}"
        raise PipelineError(f"{raw}: {found} {_origin(committed, raw)} {MOUNT}, or: {NAME_RAW}")
    if similar:
        raise PipelineError(f"{raw}: no such folder{similar} To use another folder, {NAME_RAW}")


def no_videos(raw: Path, committed: cache.Split) -> PipelineError:
    """The error about a raw folder without any video of a committed split."""
    found = "none" if files.list_names(raw) else "an empty folder"
    n_videos = f"and the cache has {count(len(committed.videos), 'video')}"
    expected = f"expected videos of {committed.name}, found {found}, {n_videos}"
    return PipelineError(f"{raw}: {expected}. {_origin(committed, raw)} {MOUNT}, or: {NAME_RAW}")


def _origin(committed: cache.Split, raw: Path) -> str:
    folder = recorded_raw(committed) or "an unknown folder"
    if folder == str(raw.resolve()):
        folder = "this folder"
    return f"{committed.name} was converted from {folder}."


def refuse_loss(
    committed: cache.Split, raw: Path, reader: Mapping[str, Any], columns: Iterable[str]
) -> None:
    """Raise PipelineError if a conversion would destroy committed data instead of updating it;
    StandInMixed if demo data would replace real data, or the reverse.

    reader: identity of the new reader. columns: of its tracks.
    """
    root = committed.root
    folder = f"{root}/{committed.name}"
    before = committed.manifest["reader"]
    if "imported" in before:
        raise PipelineError(
            f"{folder}: was imported from {before['imported']['file']}: a conversion would "
            "replace the rows of its "
            "features. Convert into another cache, or delete that split and its features."
        )
    stored = set(committed.columns) - committed.extra.keys()
    other_columns = stored.difference(columns)
    if (before["body"] is None) != (reader["body"] is None):
        other_columns = stored.symmetric_difference(columns)
    if other_columns:
        was = _describe_reader(before)
        now = _describe_reader(reader)
        do = f"Restore the label files that {raw} had for them. " if was == now else ""
        raise PipelineError(
            f"{folder}: was converted from {was}, and now from {now}: other columns, "
            f"{', '.join(sorted(other_columns))}. The columns of a split cannot change. {do}"
            "Convert into another cache (--cache, or [paths] cache in luigi.cfg), or delete that "
            "folder with its features and convert the split again."
        )
    if before["stand_in"] != reader["stand_in"]:
        other = "demo" if reader["stand_in"] else "real"
        raise StandInMixed(
            f"{folder}: was made from {kind_of(before)}, and {raw} is {kind_of(reader)}, which "
            f"would replace it. Use another cache: --cache {root}-{other}, or [paths] cache in "
            "luigi.cfg."
        )


def _describe_reader(reader: Mapping[str, Any]) -> str:
    body = "without" if reader["body"] is None else "with"
    return f"{kind_of(reader)} {body} a body model"


def refuse_other_folder(
    committed: cache.Split, raw: Path, *, n_same: int, missing: Collection[str], n_new: int
) -> None:
    """Raise PipelineError if the folder has other videos than the committed ones.

    n_same: unchanged committed videos. missing: committed videos that it does not have. n_new: its
    other videos.
    """
    is_update = n_same and not (missing and n_new)
    if is_update or not committed.manifest["rows"]:
        return
    n_videos = count(len(committed.videos), "video")
    raise PipelineError(
        f"{committed.root}/{committed.name}: was converted from {recorded_raw(committed)}, but "
        f"{raw} has {n_same:,} of its {n_videos} and {n_new:,} others: this would replace one "
        "folder by another. To keep both, put them into one folder, or use another cache "
        f"(--cache, or [paths] cache in luigi.cfg). To replace the old videos: {LET_GO}"
    )


def refuse_without_raw(
    committed: cache.Split, raw: Path, missing: Collection[str], why: str
) -> None:
    """Raise PipelineError if all videos must be read again because of `why`, and some are
    `missing`.
    """
    if missing:
        first = "; ".join(few(sorted(missing), FEW, "plan --all"))
        raise PipelineError(
            f"{committed.name}: all videos must be converted again ({why}), but "
            f"{count(len(missing), 'video')} missing "
            f"from {raw}: {first}. Restore them, or delete their rows: {LET_GO}"
        )


def missing_names(missing: Mapping[str, str]) -> list[str]:
    """Missing videos, each with its missing file if others are present."""
    names = []
    for video, path in sorted(missing.items()):
        names.append(f"{video} (without {path})" if path else video)
    return names


def why_empty(committed: cache.Split) -> list[str]:
    """Message that none of a split's videos could be used, with the commonest reason; empty if some
    could.
    """
    if committed.manifest["rows"] or "videos" not in committed.manifest.get("accounting", {}):
        return []
    accounts = (VideoAccount.from_dict(video.account) for video in committed.videos)
    return empty_lines(committed.name, committed.manifest["accounting"], accounts)


def empty_lines(
    name: str, totals: Mapping[str, Any], accounts: Iterable[VideoAccount]
) -> list[str]:
    """`why_empty` from a split's totals and accounts."""
    videos = totals["videos"]
    if videos["kept"]:
        return []
    if not videos["found"]:
        dataset_name, _, split = name.partition("/")
        dataset = datasets.find_installed(dataset_name)
        if dataset is not None and split in dataset.optional_splits:
            return []
        return [f"{name}: no rows: the raw folder has no video of this split."]
    by_reason: dict[str, list[VideoAccount]] = {}
    for account in accounts:
        # A track without a frame left was dropped for the reasons of its frames.
        dropped = dict(account.tracks_dropped)
        dropped.pop("no_frame_left", None)
        dropped = dropped or account.dropped
        why = account.set_aside or max(sorted(dropped), key=dropped.__getitem__, default="")
        if why:
            by_reason.setdefault(why, []).append(account)
    text = f"{name}: no rows: none of {count(videos['found'], 'video')} could be used."
    if by_reason:
        why, rejected = max(by_reason.items(), key=lambda item: len(item[1]))
        first = rejected[0]
        message = f": {first.message}" if first.message else "."
        text += (
            f" The most common reason is {why} ({count(len(rejected), 'video')}): "
            f"{reason(why).meaning}. The first, {first.name}{message}"
        )
    return [text]


def harmless_of(split: cache.Split) -> tuple[str, ...]:
    """Reasons for which a video may have no rows without a failure; "" is one."""
    dataset = datasets.find_installed(split.name.partition("/")[0])
    if dataset is None:
        return ("",)
    return ("", *dataset.harmless)


def why_without_track(account: Mapping[str, Any]) -> str:
    """Why a video of the split gave no track; "" for others."""
    if any(account[key] for key in ("tracks_kept", "set_aside", "other_split")):
        return ""
    if not account["found"]:
        return "no person"
    dropped = ", ".join(f"{n:,} {reason}" for reason, n in account["dropped"].items())
    return "; ".join(filter(None, [dropped, *account["notes"]]))


def video_state(account: Mapping[str, Any], harmless: Collection[str]) -> tuple[str, str, str]:
    """State of a committed video, its reason, and a message. `harmless`: reasons that are no
    failure.
    """
    if "tracks_kept" not in account:
        return NOT_RECORDED, "", ""
    message = "; ".join(filter(None, [account["message"], *account["notes"]]))
    why = why_without_track(account)
    if why:
        dropped = account["dropped"]
        return "without a track", max(dropped, key=dropped.get, default="no_person"), why
    because = account["set_aside"]
    if because:
        state = "not labelled" if because in harmless else "rejected"
    else:
        state = "kept" if account["tracks_kept"] else OTHER_SPLIT
    return state, because, message


def recorded_reader(
    split: cache.Split, raw: Path | None, body: Path | None
) -> tuple[Dataset, Path, Path | None]:
    """The reader with its options, the raw folder and the body folder of a committed split's
    conversion.

    `raw`, `body`: their new places, if they moved. Raises PipelineError if one is unknown or
    missing, and for a split that was not converted here.
    """
    if "parameters" not in split.manifest.get("reader", {}):
        raise PipelineError(
            f"{split.name}: was not converted from raw data here: it cannot be converted again"
        )
    raw = raw_folder(split, raw)
    return _recorded_dataset(split, raw), raw, _body_folder(split, body)


def _recorded_dataset(split: cache.Split, raw: Path) -> Dataset:
    parameters: Mapping[str, Any] = split.manifest["reader"]["parameters"]
    options = dict(parameters)
    for name, value in parameters.items():
        if isinstance(value, list):  # JSON has no tuples
            options[name] = tuple(value)
    dataset, _, name = split.name.partition("/")
    not_installed = datasets.not_installed(dataset)
    if not_installed:
        raise PipelineError(f"split of {not_installed}")
    return datasets.get(dataset, **options).detect_layout(raw, name)


def missing_now(split: cache.Split) -> tuple[dict[str, str], dict[str, str]]:
    """Committed videos with rows that are gone from the recorded raw folder -> the missing file;
    "": all.

    Also those that the last conversion could not use -> their rejection. Lists folders only. Empty
    if none is recorded. Raises PipelineError if it is missing, or another dataset's.
    """
    raw = Path(recorded_raw(split))
    if "parameters" not in split.manifest.get("reader", {}) or not recorded_raw(split):
        return {}, {}
    if not raw.is_dir():
        again = command("convert", split.name, "--raw", "DIR", "--cache", str(split.root))
        raise PipelineError(
            f"its raw folder {raw} is missing. Mount its disk. If it has moved: {again}"
        )
    if not files.list_names(raw):
        raise no_videos(raw, split)
    videos = _recorded_dataset(split, raw).videos(raw, split.name.partition("/")[2])
    listed = {changes.utf8(video.name): video for video in videos}
    stamps = changes.read_stamps(split.root, split.name)
    missing = {}
    for name in sorted(names_with_rows(split)):
        if name not in listed:
            missing[name] = ""
            continue
        before = stamps[name].stamp if name in stamps else None
        lost = changes.lost_input(before, changes.stamp(raw, listed[name]))
        if lost:
            missing[name] = lost

    rejections = {}
    for name, video in stamps.items():
        if video.unusable and name not in missing:
            rejections[name] = video.unusable
    return missing, rejections


def raw_folder(split: cache.Split, given: Path | None) -> Path:
    """The given folder, or the recorded one. Raises PipelineError if it is unknown or missing."""
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


def _body_folder(split: cache.Split, given: Path | None) -> Path | None:
    if given is not None or split.manifest["reader"]["body"] is None:
        return given
    recorded = split.provenance.get("body")
    if recorded is None:
        raise PipelineError(
            f"{split.name}: its body model's folder is not recorded. Use --body DIR."
        )
    return Path(str(recorded))


def rejected_videos(split: cache.Split) -> tuple[int, Iterator[str]]:
    """Number of videos rejected because of errors, and a line about each."""
    harmless = harmless_of(split)
    reasons = split.manifest.get("accounting", {}).get("videos", {}).get("set_aside", {})
    n_rejected = sum(n for reason, n in reasons.items() if reason not in harmless)
    messages = (
        f"{video.name}: {video.account['set_aside']}: {video.account.get('message', '')}"
        for video in split.videos
        if video.account.get("set_aside", "") not in harmless
    )
    return n_rejected, messages
