"""Where everything on the page comes from.  cache, training -> report: [provenance] -> page

Splits and streams: their commits, readers, weights, software. Runs: their settings, what they read, whether the cache
still holds that. The page itself: when and with what it was made, and a fingerprint of what it shows.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.conversion.identity import ACCEPTED, accepted_lines
from report.figures import duration
from report.page import Section
from report.training.events import PATTERN
from report.training.run_folder import CONFIG, Run
from vibe_model import runs
from vibe_model.errors import VibeModelError
from vibe_model.runs import SEQUENCES, WORST_WINDOWS
from vibe_model.settings.config import PRESETS, TrainConfig

VERSION: Final = 2  # raised when the page shows the same things otherwise
SOFTWARE: Final = ("vibe-pipeline", "jinja2", "matplotlib", "numpy", "opencv-python", "tensorboard", "zarr")
PLACES: Final = frozenset(
    {"name", "cache", "runs", "body", "pretrained", "mposer"}
)  # settings that say where things are
FILES: Final = (runs.METRICS, "results.csv", "sequences.csv", "worst_windows.csv")
LONG: Final = 160  # characters of a value; longer ones are told by their beginning
BULKY: Final = frozenset({"files", "shards", "rows", "geometry", "commits", "accounting", "extent", "standardisation"})

NAMES: Final = {
    "videos": "videos looked at: kept, set aside, and those that only their label puts into another split",
    "seconds": "seconds, from the first write to the commit",
    "measured.seconds": "measured.seconds: reading pictures, computing features and writing them, without the commit",
}

Facts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Made:
    """A commit of a split or of a stream: the line of the table, and everything else that is recorded."""

    what: str  # 3dpw/train, or 3dpw/train resnet50
    summary: Sequence[str]  # cells beside its name
    facts: Facts
    notes: Sequence[str]  # differences that somebody accepted


@dataclass(frozen=True, slots=True)
class Trained:
    """A run: its settings, and what it was trained on."""

    name: str
    facts: Facts
    preset: str  # the one that its settings are nearest to
    changes: Sequence[tuple[str, str, str]]  # setting, of the preset, of the run
    settings: Facts
    stale: Sequence[str]  # what the cache no longer holds as the run read it


def provenance_section(root: cache.Root, shown: Sequence[Run], *, fingerprint: str) -> Section:
    """All that is recorded of the splits in the cache, of the runs, and of the page."""
    splits, streams, problems = _cache(root)
    data = {
        "splits": splits,
        "streams": streams,
        "problems": problems,
        "runs": [_trained(run, root) for run in shown if run.about],
        "report": report_facts(),
        "fingerprint": fingerprint,
    }
    return Section("provenance", "Provenance", "provenance.html", data)


def report_facts() -> dict[str, str]:
    """When and with what the page is made."""
    versions = {name: metadata.version(name) for name in SOFTWARE}
    return {
        "Made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Software": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Python": platform.python_version(),
        "Code": code_revision(Path(__file__).parents[1]) or "installed: no git clone",
    }


def code_revision(folder: Path) -> str:
    """The git commit of a clone, and whether files differ from it; "" where it is no clone or there is no git."""
    if not (folder / ".git").exists():
        return ""
    git = ("git", "-C", str(folder))
    try:
        asked = (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        commit, changed = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
            for words in asked
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"git commit {commit}" + (", with changes that are not committed" if changed else "")


def stands_in(manifest: Mapping[str, Any]) -> bool:
    """Does the manifest of a split or of a stream speak of stand-in data, or of a stand-in network?"""
    return bool(manifest.get("stand_in") or _mapping(manifest.get("backbone")).get("stand_in"))


def fingerprint(root: cache.Root, folders: Iterable[Path], others: Iterable[str] = ()) -> str:
    """16 hex digits over all that the page shows: commits of the cache, files of the runs, `others`.

    Reads manifests, and the sizes and times of the runs' files. What cannot be read counts as that.
    """
    state: dict[str, Any] = {"version": VERSION, "software": report_facts()["Software"], "others": list(others)}
    try:
        opened = cache.open(root)
        state["splits"] = {name: _commits(opened, name) for name in opened.splits}
    except (cache.CacheError, OSError) as error:
        state["splits"] = str(error)
    names = (CONFIG, runs.METRICS, runs.BEST, *(f"{t}.json" for t in (SEQUENCES, WORST_WINDOWS)))
    for folder in folders:
        files = [*(folder / name for name in names), *sorted(folder.glob(PATTERN))]
        state[str(folder)] = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.exists()]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def _commits(opened: cache.FeatureCache, name: str) -> Any:
    try:
        split = opened[name]
        streams = {stream: split.stream_manifest(stream).get("digest") for stream in split.streams}
        return [split.manifest.get("digest"), streams]
    except (cache.CacheError, OSError) as error:
        return str(error)


def _cache(root: cache.Root) -> tuple[list[Made], list[Made], list[str]]:
    """The commits of all splits, and of all streams, and what is wrong with others."""
    splits: list[Made] = []
    streams: list[Made] = []
    problems: list[str] = []
    try:
        opened = cache.open(root)
    except (cache.CacheError, OSError) as error:
        return [], [], [str(error)]
    for name in opened.splits:
        try:
            split = opened[name]
            splits.append(_split(split))
            streams += [_stream(split, stream) for stream in split.streams]
        except (cache.CacheError, OSError) as error:
            problems.append(str(error))
    return splits, streams, problems


def _split(split: cache.Split) -> Made:
    manifest, notes = split.manifest, split.provenance
    reader = manifest.get("reader", {})
    parameters = ", ".join(f"{k} = {v}" for k, v in reader.get("parameters", {}).items())
    summary = (
        "stand-in" if stands_in(manifest) else "real",
        f"{reader['dataset']}, version {reader['version']}"
        if reader.keys() >= {"dataset", "version"}
        else "not recorded",
        parameters or "none",
        str(manifest.get("digest", ""))[:12],
        *_when(notes),
    )
    return Made(split.name, summary, _told({**_own(manifest), **notes}), list(accepted_lines(manifest)))


def _stream(split: cache.Split, stream: str) -> Made:
    manifest = split.stream_manifest(stream)
    notes = split.stream_provenance(stream)
    identity, made_by = manifest.get("identity", {}), manifest.get("backbone", {})
    weights = identity.get("weights", {})
    summary = (
        "stand-in" if stands_in(manifest) else "real",
        ":".join(map(str, filter(None, (weights.get("kind"), weights.get("argument"))))) or "not recorded",
        " ".join(filter(None, (identity.get("precision", ""), made_by.get("arithmetic", "")))) or "not recorded",
        str(made_by.get("device", "not recorded")),
        str(manifest.get("digest", ""))[:12],
        *_when(notes),
    )
    facts = _told({**_own(manifest), **notes})
    return Made(f"{split.name} {stream}", summary, facts, list(accepted_lines(manifest)))


def _told(content: Mapping[str, Any]) -> dict[str, str]:
    """Nested facts, with names that say what a number is where its own does not."""
    return {NAMES.get(name, name): fact for name, fact in _flat(content).items()}


def _own(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key not in BULKY and key != ACCEPTED}


def _when(notes: Mapping[str, Any]) -> tuple[str, str, str]:
    """When, where and in how long a commit was made."""
    when = str(notes.get("finished", "not recorded")).replace("T", " ").replace("+00:00", " UTC")
    seconds = notes.get("seconds")
    return when, str(notes.get("host", "not recorded")), duration(seconds) if isinstance(seconds, int | float) else "–"


def _trained(run: Run, root: cache.Root) -> Trained:
    config, about = run.config, run.about
    began = run.events.began
    facts = {
        "Folder": str(run.folder),
        "Files": ", ".join(str(f) for f in (run.folder / n for n in FILES) if f.is_file()) or "none yet",
        "State": run.state,
        "Fingerprint": str(about.get("fingerprint", "not recorded")),
        "Data": "stand-in" if run.stand_in else "real",
        "Began": "not recorded" if began is None else datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Duration": duration(run.events.seconds),
        "Host": ", ".join(run.events.hosts) or "not recorded",
        "Device, as set": "not recorded" if config is None else config.device,
        "Processes": str(about.get("processes", "not recorded")),
        "Features": str(about.get("features", "not recorded")),
        "Software": ", ".join(f"{k} {v}" for k, v in _mapping(about.get("software")).items()) or "not recorded",
    }
    preset, changes = ("", []) if config is None else nearest_preset(config)
    settings = _flat(_mapping(about.get("config")))
    return Trained(run.name, facts, preset, changes, settings, list(_stale(run, root)))


def nearest_preset(config: TrainConfig) -> tuple[str, list[tuple[str, str, str]]]:
    """The preset that the settings differ least from, and (setting, there, here) of each difference, places aside."""
    own = config.as_dict()
    differences = {}
    for name, preset in PRESETS.items():
        its = preset().as_dict()
        differences[name] = [(k, _text(its[k]), _text(own[k])) for k in own if k not in PLACES and its[k] != own[k]]
    nearest = min(differences, key=lambda name: len(differences[name]))
    return nearest, differences[nearest]


def _stale(run: Run, root: cache.Root) -> Iterator[str]:
    """What the cache holds otherwise than the run read it, or no longer."""
    inputs = _mapping(run.about.get("inputs"))
    if run.config is None or not inputs:
        return
    for kind in ("splits", "streams"):
        for name, digest in _mapping(inputs.get(kind)).items():
            what = name if kind == "splits" else f"{name}, stream {run.config.stream}"
            try:
                split = cache.open(root)[name]
                manifest = split.manifest if kind == "splits" else split.stream_manifest(run.config.stream)
                if runs.content_digest(manifest) != digest:
                    yield f"{what}: has changed in the cache since the run read it"
            except (cache.CacheError, VibeModelError, OSError, KeyError):
                yield f"{what}: is not in this cache, or cannot be read"


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _flat(content: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested facts by dotted names; what is bulky is left out, what is long is cut, and says so."""
    facts: dict[str, str] = {}
    for key, value in content.items():
        if key in BULKY:
            continue
        if isinstance(value, Mapping) and value:
            facts |= _flat(value, f"{before}{key}.")
        else:
            facts[f"{before}{key}"] = _text(value)
    return facts


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONG else f"{text[:LONG]}… ({len(text):,} characters)"
