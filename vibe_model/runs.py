"""Names, folders and files of runs, without torch.  features -> windows -> [training,
evaluation]

A run is one training, with its results, in the folder `<runs>/<name>-<fingerprint>`. The
fingerprint is a digest of the settings and of all data that the run reads (`fingerprint`), so equal
runs share a folder, and a run whose settings or data have changed gets a new one.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from cache.storage.durable import sync_folder
from pipeline.errors import ConfigError, DataError, StandInMixed
from pipeline.estimates import estimates_of
from vibe_model.settings import RunConfig, VideoConfig, split_of

if TYPE_CHECKING:
    from cache import Split

CONFIG: Final = "config.json"  # written first
LAST: Final = "last.pt"  # the whole state
BEST: Final = "best.pt"  # the network of the best epoch
# a line for each logged step: [step, seconds of training, {tag: number}]
CURVES: Final = "curves.jsonl"
METRICS: Final = "metrics.json"  # written last: the run is finished
SEQUENCES: Final = "sequences"  # results by track: sequences.json and .csv
WORST_WINDOWS: Final = "worst_windows"  # worst_windows.json and .csv
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


def missing(config: RunConfig) -> list[str]:
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
    absent = missing(config)
    if absent:
        present = ", ".join(opened.splits) or "none"
        splits = {name.partition("/features/")[0] for name in absent}
        naming = []  # settings that name one of these splits
        for key, value in config.as_dict().items():
            if isinstance(value, list) and not splits.isdisjoint(map(split_of, value)):
                naming.append(key)
        raise DataError(
            f"{config.cache}: expected {', '.join(absent)}, found splits {present}. Convert "
            f"and extract them, or name others in {', '.join(naming)}."
        )
    return {name: opened[name] for name in config.splits}


def demo_splits(splits: Mapping[str, Split]) -> dict[str, bool]:
    """Sources for `require_one_kind`: "split 3dpw/train" -> whether it is demo data."""
    return {
        f"split {name}": bool(split.manifest.get("stand_in", False))
        for name, split in splits.items()
    }


def require_one_kind(is_demo: Mapping[str, bool | None]) -> bool:
    """Require that sources are all demo data or all real. Returns whether they are demo data.

    is_demo: Source, as named in the message -> whether it is demo data. None: unknown, ignored.
    Example: {"split 3dpw/train": False, "the body": False}. Raises StandInMixed.
    """
    demo = ", ".join(source for source, flag in is_demo.items() if flag is True)
    real = ", ".join(source for source, flag in is_demo.items() if flag is False)
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

    For a `VideoConfig`: "splits" and "streams" (name -> digest), "body", and one key for each of
    `VideoConfig.files`. For other trainings: split -> digest, and "body" if the run reads one.
    """
    of_splits = {name: _content_digest(splits[name].manifest) for name in config.splits}
    if not isinstance(config, VideoConfig):
        body = getattr(config, "body", None)
        if body is not None:
            of_splits["body"] = folder_digest(body)
        return of_splits
    of_streams = dict[str, str]()
    for name, streams in config.streams.items():
        for stream in streams:
            key = name if stream == config.stream else f"{name}/{stream}"
            of_streams[key] = _content_digest(splits[name].stream_manifest(stream))
    digests: dict[str, Any] = {"splits": of_splits, "streams": of_streams, "body": None}
    if config.body is not None:
        digests["body"] = folder_digest(config.body)
    for name, file in config.files().items():
        digests[name] = None if file is None else file_digest(file)
    return digests


def estimated_bodies(config: VideoConfig, splits: Mapping[str, Split]) -> dict[str, str]:
    """Training splits whose body labels are estimates instead of ground truth.

    Returns split -> description, such as "estimates of WHAM". Splits of which only the 2D joints
    are trained on are not included.
    """
    estimated = {}
    for part in config.parts:
        if part == "datasets_2d":  # 2D joints alone
            continue
        for name in config.splits_of(part):
            whose = estimates_of(splits[name])
            if whose:
                estimated[name] = whose
    return estimated


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
    return _digest(config, config.as_dict(), inputs(config, splits))


def _digest(config: RunConfig, settings: Mapping[str, Any], read: Mapping[str, Any]) -> str:
    settings = {name: value for name, value in settings.items() if name not in config.NEUTRAL}
    parts = {**config.VERSION, "settings": settings, "inputs": read}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def run_folder(config: RunConfig, splits: Mapping[str, Split] | None = None) -> Path:
    """The folder of a configuration's run: `<runs>/<name>-<fingerprint>`, which may not exist yet.

    Settings may be added in later versions of this project. A run that began before a setting
    existed counts as a run with this setting's default; then the folder of that run is returned.

    Opens the cache unless `splits` are given. Raises as `open_splits` does.
    """
    if splits is None:
        splits = open_splits(config)
    settings = config.as_dict()
    read = inputs(config, splits)
    folder = config.runs / f"{config.name}-{_digest(config, settings, read)}"
    if (folder / CONFIG).is_file():
        return folder

    for earlier, record in _begun_runs(config).items():
        # the digest without settings and inputs that its version did not have
        added = config.unchanged_settings - record["config"].keys()
        known = {name: value for name, value in settings.items() if name not in added}
        known_inputs = {
            name: digest for name, digest in read.items() if digest or name in record["inputs"]
        }
        if earlier.name == f"{config.name}-{_digest(config, known, known_inputs)}":
            return earlier
    return folder


def _begun_runs(config: RunConfig) -> dict[Path, dict[str, Any]]:
    """Folder -> content of config.json, for all runs of this name. Skips damaged files."""
    begun = {}
    for file in config.runs.glob(f"*/{CONFIG}"):
        if file.parent.name.rpartition("-")[0] == config.name:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                content = json.loads(file.read_bytes())
                for name in ("config", "inputs"):
                    content[name] = dict(content[name])  # raises if it is no mapping
                begun[file.parent] = content
    return begun


def is_complete(config: RunConfig) -> bool:
    """Whether this configuration's run on the current cache is finished."""
    return not missing(config) and is_finished(run_folder(config))


def is_finished(folder: Path) -> bool:
    """Whether a run's best.pt and metrics.json exist."""
    return (folder / METRICS).is_file() and (folder / BEST).is_file()


def what_differs(config: VideoConfig) -> str:
    """Describe how this run differs from the newest run of the same name.

    Returns "" if this run has already begun, or if it is the first run of this name.
    """
    splits = open_splits(config)
    folder = run_folder(config, splits)
    earlier = _begun_runs(config)
    if not earlier or (folder / CONFIG).is_file():
        return ""
    newest = max(earlier, key=lambda begun: (begun / CONFIG).stat().st_mtime)
    record = earlier[newest]
    differ = _changed_settings(config, record["config"])
    differ += _changed_inputs(inputs(config, splits), record["inputs"])
    return f"{newest.name}: {'; '.join(differ) or 'trained by another version of this project'}"


def _changed_settings(config: VideoConfig, old: Mapping[str, Any]) -> list[str]:
    """Settings that differ from an earlier run's, such as "seed was 0, is 1"."""
    new = json.loads(json.dumps(config.as_dict()))
    added = config.unchanged_settings - old.keys()  # in later versions than the earlier run's
    changed = []
    for key in sorted(new.keys() - config.NEUTRAL - added):
        if old.get(key) != new[key]:
            changed.append(f"{key} was {json.dumps(old.get(key))}, is {json.dumps(new[key])}")
    return changed


def _changed_inputs(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """Inputs that differ from an earlier run's: "other splits: 3dpw/train", "another body"."""
    changed = []
    for kind, digests in new.items():
        recorded = old.get(kind)
        if isinstance(digests, Mapping) and isinstance(recorded, Mapping):
            both = recorded.keys() & digests.keys()
            names = [name for name in digests if name in both and digests[name] != recorded[name]]
            if names:
                changed.append(f"other {kind}: {', '.join(names)}")
        elif digests != recorded:
            changed.append(f"another {kind}")
    return changed


def folder_digest(folder: Path) -> str:
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


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 atomically."""
    replace_file(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write sorted JSON without NaN, atomically."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def csv_text(lines: Iterable[Iterable[Any]]) -> str:
    """Lines of cells as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
