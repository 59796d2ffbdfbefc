"""Names, folders and files of runs, without torch.  features -> windows -> [training,
evaluation]

A run is one training, with its results, in the folder `<runs>/<name>-<fingerprint>`, such as
runs/vibe-3f0c92d1a7b4e856. The fingerprint is a digest of the settings and of all data that the run
reads (`fingerprint`), so equal runs share a folder, and a run whose settings or data have changed
gets a new one.

`open_splits` opens the data of a configuration, `run_folder` names its folder, and `is_finished`
says whether anything is left to do. `training.loop` writes the folder's files, and evaluations add
theirs, by the functions at the end: each file is replaced atomically.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from cache.storage.durable import sync_folder, write_atomic
from pipeline.errors import ConfigError, DataError, StandInMixed
from vibe_model.settings import RunConfig, VideoConfig

if TYPE_CHECKING:
    from cache import Split

# Files and folders in a run's folder.
CONFIG: Final = "config.json"  # written first
LAST: Final = "last.pt"  # the whole state
BEST: Final = "best.pt"  # the network of the best epoch
# a line for each logged step: [step, seconds of training, {tag: number}]
CURVES: Final = "curves.jsonl"
METRICS: Final = "metrics.json"  # written last: the run is finished
SEQUENCES: Final = "sequences"  # results by track, in sequences.json

# Keys in metrics.json.
KEYPOINTS: Final = "keypoints"  # in a split's manifest and metrics: labels or detected
# in a split's metrics: published evaluation with the same numbers
COMPARES_WITH: Final = "compares_with"
LABEL_BODY: Final = "label_body"  # in a split's metrics: genders of the bodies of its 3D labels

NEUTRAL_BODY: Final = "neutral"  # gender of every model's body

# Files of a body folder that affect results: of each line, the first one that exists. Other files
# of the folder do not change its digest.
BODY_FILES: Final = (
    ("J_regressor_extra.npy",),
    ("J_regressor_h36m.npy",),
    ("SMPL_NEUTRAL.pkl", "SMPL_NEUTRAL.npz"),
    ("smpl_mean_params.npz",),
)
# Tables about the source videos. They do not affect training, so the digests leave them out.
_ABOUT_VIDEOS: Final = ("video_fingerprint/", "video_pixels/", "video_account")


def _missing(config: RunConfig) -> list[str]:
    """Names of the data that the configuration reads and the cache does not have.

    A split is named `dataset/split`; a stream of an existing split `dataset/split/features/stream`.
    """
    import cache  # slow to import, and settings alone do not need it

    if not cache.store_at(config.cache).exists("zarr.json"):
        return list(config.splits)
    opened = cache.open(config.cache)
    absent = [name for name in config.splits if name not in opened.splits]
    absent_streams = list[str]()
    for name, streams in config.streams.items():
        if name not in absent:
            present = opened[name].streams
            absent_streams += [f"{name}/features/{key}" for key in streams if key not in present]
    return absent + absent_streams


def open_splits(config: RunConfig) -> dict[str, Split]:
    """Open the configuration's splits, by name. Raises DataError for a missing split or stream."""
    import cache

    opened = cache.open(config.cache)
    absent = _missing(config)
    if absent:
        present = ", ".join(opened.splits) or "none"
        raise DataError(
            f"{config.cache}: expected {', '.join(absent)}, found splits {present}. Convert "
            "and extract them, or name others in the settings."
        )
    return {name: opened[name] for name in config.splits}


def require_one_kind(
    is_demo: Mapping[str, bool], splits: Mapping[str, Split] | None = None
) -> bool:
    """Require that splits and other sources are all demo data or all real. Returns whether they are
    demo data. Raises StandInMixed.

    is_demo: Source, as named in the message -> whether it is demo data, such as {"the body":
    False}.
    """
    sources = {
        f"split {name}": bool(split.manifest.get("stand_in"))
        for name, split in (splits or {}).items()
    }
    sources |= is_demo
    demo = ", ".join(source for source, flag in sources.items() if flag)
    real = ", ".join(source for source, flag in sources.items() if not flag)
    if demo and real:
        raise StandInMixed(
            f"demo data ({demo}) cannot be used together with real data ({real}). For real data "
            "get SMPL's files "
            "([paths] body), a checkpoint trained on real data, such as VIBE's published one, "
            "and the weights of its "
            'features (spin:FILE): docs/getting-started.md, "The first real dataset". Demo data '
            "go with the demo body "
            "and a model trained on them."
        )
    return bool(demo)


def inputs(config: RunConfig, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Digests of all data that the run reads, as config.json records them.

    For models of video features, with one key for each of `VideoConfig.files`, None for a file that
    is not used:

        {"splits": {"3dpw/train": "1f2e...", ...}, "streams": {"3dpw/train": "77aa...", ...},
         "body": "9c01...", "pretrained": None, "mposer": "b3d4..."}

    For other trainings, which read no streams: {"amass/train": "5a0f...", "body": "9c01..."}.
    """
    split_digests = {name: _content_digest(splits[name].manifest) for name in config.splits}
    if isinstance(config, VideoConfig):
        return _video_inputs(config, splits, split_digests)
    body = getattr(config, "body", None)
    if body is not None:
        split_digests["body"] = _folder_digest(body)
    return split_digests


def _video_inputs(
    config: VideoConfig, splits: Mapping[str, Split], split_digests: Mapping[str, str]
) -> dict[str, Any]:
    stream_digests = dict[str, str]()
    for name, streams in config.streams.items():
        for stream in streams:
            key = name if stream == config.stream else f"{name}/{stream}"
            stream_digests[key] = _content_digest(splits[name].open_stream(stream).manifest)
    digests: dict[str, Any] = {"splits": split_digests, "streams": stream_digests, "body": None}
    if config.body is not None:
        digests["body"] = _folder_digest(config.body)
    for name, file in config.files().items():
        digests[name] = None if file is None else file_digest(file)
    return digests


def _content_digest(manifest: Mapping[str, Any]) -> str:
    """Digest of a split's or a stream's rows and tracks, from its manifest.

    It does not cover `_ABOUT_VIDEOS`.
    """
    if "files" not in manifest:  # written by other software
        return str(manifest["digest"])
    files = {
        name: digest
        for name, digest in manifest["files"].items()
        if not name.startswith(_ABOUT_VIDEOS)
    }
    content = {
        "files": files,
        **{key: manifest[key] for key in ("extent", "commits", "geometry", "shards")},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def fingerprint(config: RunConfig, splits: Mapping[str, Split]) -> str:
    """16 hex digits that are equal for runs that must give the same numbers.

    They depend on the model's VERSION, on all settings that are not NEUTRAL, and on `inputs`.
    """
    settings = config.as_dict()
    decisive = {name: value for name, value in settings.items() if name not in config.NEUTRAL}
    parts = {**config.VERSION, "settings": decisive, "inputs": inputs(config, splits)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def run_folder(config: RunConfig, splits: Mapping[str, Split] | None = None) -> Path:
    """The folder of a configuration's run: `<runs>/<name>-<fingerprint>`, which may not exist yet.

    Opens the cache unless `splits` are given. Raises as `open_splits` does.
    """
    if splits is None:
        splits = open_splits(config)
    return config.runs / f"{config.name}-{fingerprint(config, splits)}"


def is_complete(config: RunConfig) -> bool:
    """Whether this configuration's run on the current cache is finished."""
    return not _missing(config) and is_finished(run_folder(config))


def is_finished(folder: Path) -> bool:
    """Whether a run's best.pt and metrics.json exist."""
    return (folder / METRICS).is_file() and (folder / BEST).is_file()


def _folder_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of a body folder's `BODY_FILES`.

    Raises ConfigError for a missing folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder of body model files, found none")
    lines = list[str]()
    for names in BODY_FILES:
        present = [folder / name for name in names if (folder / name).is_file()]
        lines += [f"{file.name} {file_digest(file)}" for file in present[:1]]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content. Raises ConfigError for a missing file.

    Within a process, the digest is cached as long as the file's size and time do not change.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: expected a file, found none")
    status = file.stat()
    return _file_digest(file, status.st_size, status.st_mtime_ns)


@functools.cache
def _file_digest(file: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - size and time are the cache's key
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file atomically and durably: readers see the old content or the new one."""
    part = path.with_name(f".{path.name}.part")
    # left by a killed run, or a link: it is replaced, never written through
    part.unlink(missing_ok=True)
    with part.open("xb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    sync_folder(path.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write sorted JSON without NaN, atomically."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    write_atomic(path, f"{text}\n".encode())


def csv_text(lines: Iterable[Iterable[Any]]) -> str:
    """Lines of cells as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
