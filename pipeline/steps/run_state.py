"""The state of the last runs of a command, as a file for monitoring.  [raw -> tracks -> features]

A command that writes a cache ends by `record_run`: `<folder>/<command>/<name>.json` has the last
run and the last one that ended with 0. A killed run writes nothing, so watch the age of the latter.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cache
from cache.storage.durable import write_atomic
from cache.write.parts import staged_by_parts
from pipeline.cli.console import IDLE, err, plain
from pipeline.cli.system_errors import error_text
from pipeline.processes.software import package_version
from pipeline.steps.conversion_record import ConversionRecord

if TYPE_CHECKING:
    from pipeline.settings.sections import Settings

SETTING: Final = "paths.state"
REFUSED: Final = 2  # exit code of a command that was not carried out
_LAST: Final = "last_run"
_SUCCESS: Final = "last_success"


def _state_folder(settings: Settings | None, root: cache.Root) -> Path | None:
    """The folder of a cache's states: [paths] state, of the cache of luigi.cfg; or beside the
    cache. None: the cache is in an object store, and the setting names none.
    """
    paths = None if settings is None else settings.named_paths
    if paths is not None and paths.state is not None and paths.cache == root:
        return paths.state
    folder = cache.local_folder(root)
    if folder is None:
        return None
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  "." has no name; links stay
    return folder.with_name(f"{folder.name}.state")


def record_run(
    settings: Settings | None,
    root: cache.Root,
    command: str,
    name: str,
    splits: Sequence[str],
    *,
    code: int,
    seconds: float,
) -> None:
    """Write the state of a run that has ended. A folder that cannot be written is a line.

    Args:
        command: "convert", "Data", ...
        name: Of the split or run, in the file's name.
        splits: Those whose content the state has.
        code: Exit code.
        seconds: Duration of the run.
    """
    folder = _state_folder(settings, root)
    if folder is None:
        if code != REFUSED:
            err.print(
                f"{IDLE} {plain('no state of this run: [paths] state names no folder for it')}"
            )
        return
    try:
        contents = _contents(root, splits)
        if contents is None or (code == REFUSED and not contents["files"]):
            return  # a mistake in the command's words changes nothing
        run = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(seconds, 1),
            "exit_code": code,
            **contents,
            "version": package_version(),
        }
        file = folder / command / f"{name}.json"
        success = _read(file).get(_SUCCESS) if code else run
        state = {"command": command, "name": name, _LAST: run, _SUCCESS: success}
        data = f"{json.dumps(state, indent=1)}\n".encode()
        write_atomic(file, data, shared=True, group_of=cache.local_folder(root))
    except (OSError, cache.CacheError) as error:
        err.warn(f"the state of this run is not written: {error_text(error, [folder])}")


def read_states(settings: Settings | None, root: cache.Root) -> list[dict[str, Any]]:
    """The states of a cache's last runs, by file name; damaged files are left out."""
    folder = _state_folder(settings, root)
    if folder is None:
        return []
    states = (_read(file) for file in sorted(folder.rglob("*.json")))
    return [state for state in states if state]


def prometheus_lines(states: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The states in the text format of Prometheus, for the textfile collector of node_exporter."""
    for when in (_LAST, _SUCCESS):
        for key, unit in _NUMBERS.items():
            metric = f"vibe_pipeline_{when}_{unit}"
            yield f"# TYPE {metric} gauge"
            for state in states:
                run = state.get(when) or {}
                value = run.get(key)
                if key == "time" and value is not None:
                    value = _seconds_since_1970(value)
                if value is not None:
                    labels = f'command="{_label(state["command"])}",name="{_label(state["name"])}"'
                    yield f"{metric}{{{labels}}} {value}"


_NUMBERS: Final = {  # key of a run -> end of its metric's name
    "time": "timestamp_seconds",
    "seconds": "duration_seconds",
    "exit_code": "exit_code",
    "rows": "rows",
    "rejected": "rejected_videos",
    "staged": "staged_pieces",
    "bytes": "bytes",
    "files": "files",
}


def _seconds_since_1970(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp()


def _label(text: object) -> str:
    return str(text).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _contents(root: cache.Root, splits: Sequence[str]) -> dict[str, int] | None:
    """Totals over these splits, as far as they are saved; None without a cache."""
    store = cache.store_at(root)
    if not store.exists("zarr.json"):
        return None
    totals = dict.fromkeys(("rows", "rejected", "staged", "bytes", "files"), 0)
    opened = cache.FeatureCache(store)
    for name in splits:
        staged = staged_by_parts(store, name)
        totals["staged"] += sum(work.shards + work.videos for work in staged)
        if name in opened:
            split = opened[name]
            sizes = store.file_sizes(name)
            totals["rows"] += split.manifest["rows"]
            totals["rejected"] += ConversionRecord(split).n_rejected
            totals["bytes"] += sum(sizes.values())
            totals["files"] += len(sizes)
    return totals


def _read(file: Path) -> dict[str, Any]:
    """A state; empty without a whole one."""
    try:
        state = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and {"command", "name"} <= state.keys() else {}
