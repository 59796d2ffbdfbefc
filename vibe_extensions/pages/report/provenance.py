"""Where everything on the page comes from.  cache, training -> report: [provenance] -> page

Splits and streams: their commits, readers, weights, software. Runs: their settings. The page itself: when and with what
it was made.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.console import duration
from pipeline.conversion.identity import ACCEPTED, accepted_lines
from vibe_extensions.pages.report.data import OpenedCache
from vibe_extensions.pages.report.page import PageSection
from vibe_extensions.pages.report.runs import TrainingRun
from vibe_model import runs

SOFTWARE: Final = ("vibe-pipeline", "jinja2", "matplotlib", "numpy", "opencv-python", "tensorboard", "zarr")
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


def provenance_section(opened: OpenedCache, shown: Sequence[TrainingRun], *, fingerprint: str = "") -> PageSection:
    """All that is recorded of the splits in the cache, of the runs, and of the page."""
    data = {
        "splits": [_made(split.name, split.manifest, split.provenance) for split in opened.splits],
        "streams": [
            _made(f"{split.name} {stream}", split.stream_manifest(stream), split.stream_provenance(stream))
            for split in opened.splits
            for stream in split.streams
        ],
        "runs": [_trained(run) for run in shown if run.about],
        "stages": list(stages(opened, shown)),
        "report": report_facts(),
        "fingerprint": fingerprint,
    }
    line = "time and size of each stage, commits, settings, software"
    return PageSection("provenance", "Provenance", "provenance.html", data, line)


def stages(opened: OpenedCache, shown: Sequence[TrainingRun]) -> Iterator[tuple[str, str, str, str]]:
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
    if "://" in str(root):
        return 0
    return sum(file.stat().st_size for file in Path(root, folder).rglob("*") if file.is_file())


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
        process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"git commit {process.stdout.strip()}"


def _made(what: str, manifest: Mapping[str, Any], notes: Mapping[str, Any]) -> Commit:
    recorded = {key: value for key, value in manifest.items() if key != ACCEPTED} | dict(notes)
    facts = {NAMES.get(name, name): fact for name, fact in _flat(recorded).items()}
    return {"what": what, "facts": facts, "notes": list(accepted_lines(manifest))}


def _trained(run: TrainingRun) -> dict[str, Any]:
    """A run, its settings, and what it was trained with."""
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
    return {"name": run.name, "facts": facts, "settings": _flat(about.get("config", {}))}


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
