"""Where everything on the page comes from.  cache, training -> report: [provenance] -> page

Splits and streams: their commits, readers, weights, software. Runs: their settings, what they read, whether the cache
still holds that. The page itself: when and with what it was made.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.console import duration
from pipeline.cli.text import count
from pipeline.conversion.identity import ACCEPTED, accepted_lines
from report.data.splits import UNREADABLE, Opened
from report.page import Section
from report.training.run import Run
from vibe_model import models, runs
from vibe_model.errors import VibeModelError
from vibe_model.settings.video_config import VideoConfig

SOFTWARE: Final = ("vibe-pipeline", "jinja2", "matplotlib", "numpy", "opencv-python", "tensorboard", "zarr")
PLACES: Final = frozenset({"name", "cache", "runs", "body", "pretrained", "mposer"})  # settings that name files
FILES: Final = (runs.METRICS, "results.csv", "sequences.csv", "worst_windows.csv")
LONG: Final = 160  # characters of a value; of longer ones the beginning is shown
BULKY: Final = frozenset({"files", "shards", "rows", "geometry", "commits", "accounting", "extent", "standardisation"})
NOT_RECORDED: Final = "not recorded"
NAMES: Final = {
    "videos": "videos looked at: kept, rejected, and those that only their label puts into another split",
    "seconds": "seconds, from the first write to the commit",
    "measured.seconds": "measured.seconds: reading pictures, computing features and writing them, without the commit",
}

Commit = dict[str, Any]  # of a split or stream, for the template: what, facts, notes (accepted differences)


def provenance_section(opened: Opened, shown: Sequence[Run], *, fingerprint: str = "") -> Section:
    """All that is recorded of the splits in the cache, of the runs, and of the page."""
    data = {
        "splits": [_made(split.name, split.manifest, split.provenance) for split in opened.splits],
        "streams": [
            _made(f"{split.name} {stream}", split.stream_manifest(stream), split.stream_provenance(stream))
            for split in opened.splits
            for stream in split.streams
        ],
        "runs": [_trained(run, opened) for run in shown if run.about],
        "stages": list(stages(opened, shown)),
        "report": report_facts(),
        "fingerprint": fingerprint,
    }
    line = f"{machine()}; time and size of each stage, commits, settings, software"
    return Section("provenance", "Provenance", "provenance.html", data, line)


def stages(opened: Opened, shown: Sequence[Run]) -> Iterator[tuple[str, str, str, str]]:
    """What each stage took, where it is recorded: (stage, time, size on disk, machines)."""
    commits = [split.provenance for split in opened.splits]
    streams = [split.stream_provenance(stream) for split in opened.splits for stream in split.streams]
    features = sum(size_of(opened.root, f"{split.name}/features") for split in opened.splits)
    columns = sum(size_of(opened.root, split.name) for split in opened.splits) - features
    for what, notes, size in (("conversion", commits, columns), ("features", streams, features)):
        hosts = dict.fromkeys(str(note["host"]) for note in notes if "host" in note)
        seconds = sum(note["seconds"] for note in notes if isinstance(note.get("seconds"), int | float))
        yield what, duration(seconds), f"{size / 1e6:,.1f} MB" if size else "–", ", ".join(hosts) or NOT_RECORDED
    for run in shown:
        held = f"{size_of(run.folder, '') / 1e6:,.1f} MB"
        yield f"training, {run.name}", duration(run.events.seconds), held, ", ".join(run.events.hosts) or NOT_RECORDED


def size_of(root: cache.Root, folder: str) -> int:
    """Bytes of all files below a folder; 0 in an object store, whose listing would cost requests."""
    place = None if "://" in str(root) else Path(root, folder)
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) if place is not None else 0


def machine() -> str:
    """The hardware that the page was made on: that of the stages, where the hosts are the same."""
    cpu = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", cpu.read_text(), re.MULTILINE) if cpu.is_file() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = found[1] if found else platform.machine()
    return f"{platform.node()}: {count(os.cpu_count() or 1, 'core')} ({model}), {memory:.0f} GiB"


def report_facts() -> dict[str, str]:
    """When and with what the page is made."""
    return {
        "Made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Software": ", ".join(f"{name} {metadata.version(name)}" for name in SOFTWARE),
        "Python": platform.python_version(),
        "Code": code_revision(Path(__file__).parents[1]) or "installed: no git clone",
    }


def code_revision(folder: Path) -> str:
    """The git commit of a clone, and whether files differ from it; "" where it is no clone or there is no git."""
    if not (folder / ".git").exists():
        return ""
    changed = ", with changes that are not committed"
    command = ("git", "-C", str(folder), "describe", "--always", "--exclude=*", "--abbrev=12", f"--dirty={changed}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"git commit {done.stdout.strip()}"


def _made(what: str, manifest: Mapping[str, Any], notes: Mapping[str, Any]) -> Commit:
    recorded = {key: value for key, value in manifest.items() if key != ACCEPTED} | dict(notes)
    facts = {NAMES.get(name, name): fact for name, fact in _flat(recorded).items()}
    return {"what": what, "facts": facts, "notes": list(accepted_lines(manifest))}


def _trained(run: Run, opened: Opened) -> dict[str, Any]:
    """A run: its settings beside those of the nearest preset, and what it was trained on."""
    config, about = run.config, run.about
    began = run.events.began
    facts = {
        "Folder": str(run.folder),
        "Files": ", ".join(str(f) for f in (run.folder / n for n in FILES) if f.is_file()) or "none yet",
        "State": run.state,
        "Fingerprint": str(about.get("fingerprint", NOT_RECORDED)),
        "Data": "demo" if run.stand_in else "real",
        "Began": NOT_RECORDED if began is None else datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Duration": duration(run.events.seconds),
        "Host": ", ".join(run.events.hosts) or NOT_RECORDED,
        "Device, as set": NOT_RECORDED if config is None else config.device,
        "Processes": str(about.get("processes", NOT_RECORDED)),
        "Features": str(about.get("features", NOT_RECORDED)),
        "Software": ", ".join(f"{k} {v}" for k, v in about.get("software", {}).items()) or NOT_RECORDED,
    }
    preset, changes = ("", []) if config is None else nearest_preset(config)
    return {
        "name": run.name,
        "facts": facts,
        "preset": preset,
        "changes": changes,
        "settings": _flat(about.get("config", {})),
        "stale": list(_stale(run, opened)),
    }


def nearest_preset(config: VideoConfig) -> tuple[str, list[tuple[str, str, str]]]:
    """The preset that the settings differ least from, and (setting, there, here) of each difference but of places."""
    own, differences = config.as_dict(), {}
    for name, preset in models.of(config).presets.items():
        its = preset().as_dict()
        differences[name] = [(k, _text(its[k]), _text(own[k])) for k in own if k not in PLACES and its[k] != own[k]]
    nearest = min(differences, key=lambda name: len(differences[name]))
    return nearest, differences[nearest]


def _stale(run: Run, opened: Opened) -> Iterator[str]:
    """What the run read and the cache no longer holds, or not as the run read it."""
    inputs, here = run.about.get("inputs", {}), {split.name: split for split in opened.splits}
    stream = "" if run.config is None else run.config.stream
    read = [(name, digest, "") for name, digest in inputs.get("splits", {}).items()]
    read += [(name, digest, stream) for name, digest in inputs.get("streams", {}).items() if stream]
    for name, digest, of in read:
        what = f"{name}, stream {of}" if of else name
        try:
            split = here[name]
            if runs.content_digest(split.stream_manifest(of) if of else split.manifest) != digest:
                yield f"{what}: has changed in the cache since the run read it"
        except (*UNREADABLE, VibeModelError, KeyError):
            yield f"{what}: is not in this cache, or cannot be read"


def _flat(content: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested facts by dotted names, without what is bulky."""
    facts: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value and key not in BULKY:
            facts |= _flat(value, f"{before}{key}.")
        elif key not in BULKY:
            facts[f"{before}{key}"] = _text(value)
    return facts


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONG else f"{text[:LONG]}… ({len(text):,} characters)"
