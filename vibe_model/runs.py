"""A run's name, folder and completeness, without torch.  features -> windows -> [training] -> evaluation

A run is named after everything that can change its numbers: the configuration, the commits of the splits and streams
that it reads, the body, and the checkpoint that it starts from.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from vibe_model.errors import ConfigError, DataError, StandInMixed
from vibe_model.settings.config import TrainConfig

if TYPE_CHECKING:
    from cache import Split

# Settings that do not change a run's numbers: where things are, and how often the state is saved.
_ELSEWHERE: Final = frozenset(
    {"name", "cache", "runs", "body", "pretrained", "mposer", "processes", "checkpoint_every", "hold", "read_workers"}
)
# Raised by hand when the same inputs and settings would train to other numbers.
TRAINING_VERSION: Final = 3
# What `pipeline.smpl.assets.load` reads: of each line, the first file that is there. Others change no number.
_BODY_FILES: Final = (
    ("J_regressor_extra.npy",),
    ("J_regressor_h36m.npy",),
    ("SMPL_NEUTRAL.pkl", "SMPL_NEUTRAL.npz"),
    ("smpl_mean_params.npz",),
)
_SAID_OF_VIDEOS: Final = ("video_fingerprint/", "video_pixels/", "video_account")
CONFIG: Final = "config.json"  # written first
METRICS: Final = "metrics.json"  # written last: its presence is the end of a run
BEST: Final = "best.pt"  # the generator of the best epoch


def missing(config: TrainConfig) -> list[str]:
    """What the configuration reads and the cache does not have: splits, and streams of splits."""
    import cache

    if not cache.store_at(config.cache).exists("zarr.json"):
        return list(config.splits)
    opened = cache.open(config.cache)
    absent = [name for name in config.splits if name not in opened.splits]
    with_pixels = [name for name in config.pixel_splits if name not in absent]
    return absent + [
        f"{name}/features/{config.stream}" for name in with_pixels if config.stream not in opened[name].streams
    ]


def open_splits(config: TrainConfig) -> dict[str, Split]:
    """Every split that the configuration names, open. Raises DataError when the cache lacks one, or its stream."""
    import cache  # here: it is slow to import, and settings alone need none

    opened = cache.open(config.cache)
    if absent := missing(config):
        known = ", ".join(opened.splits) or "none"
        raise DataError(
            f"{config.cache}: expected {', '.join(absent)}, found splits {known}. Convert and extract them, or name "
            "others."
        )
    return {name: opened[name] for name in config.splits}


def check_stand_in(body_stands_in: bool, splits: Mapping[str, Split]) -> bool:
    """Is all of it stand-in data? Raises StandInMixed when some is and some is not: its numbers would mean nothing."""
    # A split that somebody else wrote says nothing about it: it is no stand-in of ours.
    kinds = {f"split {name}": bool(split.manifest.get("stand_in", False)) for name, split in splits.items()}
    kinds["the body"] = body_stands_in
    stand_ins, real = ([what for what, kind in kinds.items() if kind is wanted] for wanted in (True, False))
    if stand_ins and real:
        raise StandInMixed(
            f"stand-ins ({', '.join(stand_ins)}) cannot be used together with real data ({', '.join(real)}). "
            "Set body to the SMPL files for real data, and leave it out for embedded data."
        )
    return not real


def check_streams(config: TrainConfig, splits: Mapping[str, Split]) -> bool:
    """Are features of a stand-in network among those that are read?

    Raises DataError when they are of a wrong size, or of different networks: those would train to nothing that means
    anything. A stream that somebody else wrote need not say what made it (`identity`), and is not compared.
    """
    streams = {name: splits[name].stream_manifest(config.stream) for name in config.pixel_splits}
    for name, stream in streams.items():
        if stream["dim"] != config.feature_size:
            raise DataError(
                f"{name}: stream {config.stream}: expected features of {config.feature_size} numbers, found "
                f"{stream['dim']}. Set feature_size to what the stream has."
            )
    _check_one_network(config.stream, {n: s["identity"] for n, s in streams.items() if "identity" in s})
    return any(bool(stream.get("stand_in", False)) for stream in streams.values())


def _check_one_network(stream: str, identities: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise DataError unless the streams of all splits were made alike: weights, precision, version."""
    if not identities:
        return
    first, expected = next(iter(identities.items()))
    for name, found in identities.items():
        if expected.get("kind") == found.get("kind") == "imported":  # each of a file of its own
            expected, found = ({k: v for k, v in i.items() if k != "file_sha256"} for i in (expected, found))
        keys = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        if keys:
            differ = "; ".join(f"{key} {expected.get(key)} and {found.get(key)}" for key in keys)
            raise DataError(
                f"stream {stream}: expected features of one network, found different ones in {first} and {name}: "
                f"{differ}. Extract one of them anew with the other's settings (--replace), or name another stream."
            )


def inputs(config: TrainConfig, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Digests of everything that the run reads."""
    return {
        "splits": {name: content_digest(splits[name].manifest) for name in config.splits},
        "streams": {name: content_digest(splits[name].stream_manifest(config.stream)) for name in config.pixel_splits},
        "body": None if config.body is None else folder_digest(config.body),
        "pretrained": None if config.pretrained is None else file_digest(config.pretrained),
        "mposer": None if config.prior != "mposer" or config.mposer is None else _prior_digest(config.mposer),
    }


def _prior_digest(file: Path) -> str:
    if not file.is_file():
        raise ConfigError(
            f"{file}: expected a trained motion prior for prior = mposer, found none. "
            "`luigi --module tasks TrainMPoser` trains it."
        )
    return file_digest(file)


def content_digest(manifest: Mapping[str, Any]) -> str:
    """Digest of a split's or a stream's rows and tracks; not of what they were made from, which `accept` restates."""
    if "files" not in manifest:  # of somebody else's writing
        return str(manifest["digest"])
    files = {k: v for k, v in manifest["files"].items() if not k.startswith(_SAID_OF_VIDEOS)}
    held = {"files": files, **{key: manifest[key] for key in ("extent", "commits", "geometry", "shards")}}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def fingerprint(config: TrainConfig, splits: Mapping[str, Split]) -> str:
    """16 hex digits: the same for runs that must give the same numbers."""
    settings = {name: value for name, value in config.as_dict().items() if name not in _ELSEWHERE}
    parts = {"version": TRAINING_VERSION, "settings": settings, "inputs": inputs(config, splits)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def run_folder(config: TrainConfig, splits: Mapping[str, Split] | None = None) -> Path:
    """`runs/<name>-<fingerprint>`. Opens the cache unless `splits` are given; raises as `open_splits` does."""
    return config.runs / f"{config.name}-{fingerprint(config, open_splits(config) if splits is None else splits)}"


def is_complete(config: TrainConfig, splits: Mapping[str, Split] | None = None) -> bool:
    """Has a run with this configuration, on what the cache holds now, been finished? Not if something is missing."""
    if splits is None and missing(config):
        return False
    return is_finished(run_folder(config, splits))


def is_finished(folder: Path) -> bool:
    """Is what a run is trained for there: its best epoch, and the metrics that are written last?"""
    return (folder / METRICS).is_file() and (folder / BEST).is_file()


def beside(config: TrainConfig) -> str:
    """Why this is another run than the newest one of the same name: "laptop-1f2e...: epochs was 8, is 5".

    Empty where it has been begun already, or is the first of its name.
    """
    splits = open_splits(config)
    own = run_folder(config, splits)
    others = [file for file in config.runs.glob(f"*/{CONFIG}") if file.parent.name.rpartition("-")[0] == config.name]
    if not others or (own / CONFIG).is_file():
        return ""
    newest = max(others, key=lambda file: file.stat().st_mtime)
    was = json.loads(newest.read_text())
    differ = "; ".join(_differences(was, config, inputs(config, splits)))
    return f"{newest.parent.name}: {differ or 'trained by another version of this project'}"


def _differences(was: Mapping[str, Any], config: TrainConfig, read: Mapping[str, Any]) -> Iterator[str]:
    """Settings and inputs of a run's config.json that are others now."""
    now = json.loads(json.dumps(config.as_dict()))
    for key in sorted((was["config"].keys() | now.keys()) - _ELSEWHERE):
        if was["config"].get(key) != now.get(key):
            yield f"{key} was {_said(was['config'].get(key))}, is {_said(now.get(key))}"
    for what, found in read.items():
        before = was["inputs"].get(what)
        if isinstance(found, Mapping) and isinstance(before, Mapping):
            changed = [name for name in found if name in before and found[name] != before[name]]
            if changed:
                yield f"other {what}: {', '.join(changed)}"
        elif found != before:
            yield f"another {what}"


def _said(value: Any) -> str:
    """A setting as luigi.cfg says it, more or less."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return " ".join(f"{key}:{one}" for key, one in value.items()) or "none"
    return "none" if value is None else str(value)


def folder_digest(folder: Path) -> str:
    """sha256 over names and contents of the files in a body's folder that the body is read from.

    Absent ones are left out: whoever loads the body tells them. Raises ConfigError when there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder of body model files, found none")
    present = ([folder / name for name in names if (folder / name).is_file()] for names in _BODY_FILES)
    return _digest_of(f"{files[0].name} {file_digest(files[0])}" for files in present if files)


def file_digest(file: Path) -> str:
    """sha256 of a file's content; remembered while size and time stay."""
    if not file.is_file():
        raise ConfigError(f"{file}: expected a file, found none")
    status = file.stat()
    return _file_digest(file, status.st_size, status.st_mtime_ns)


@functools.cache
def _file_digest(file: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - size and time are the memory's key
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_of(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write beside `path`, make it durable, then exchange: a reader sees the old file or the new one, whole."""
    beside = path.with_name(f".{path.name}.part")
    with beside.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Strict JSON (no NaN), sorted, exchanged atomically."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
    replace_file(path, lambda stream: stream.write(text.encode()))
