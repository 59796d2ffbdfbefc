"""Files that get their final name before they are synced: a power cut could leave them empty."""

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vibe_model.runs import CURVES, LAST

# of TensorBoard, which repeats what it has not written
EXCEPTED = "events.out.tfevents"


def _state(info):
    return info.st_ino, info.st_mtime_ns, info.st_size


def _files(path):
    if path.is_symlink():
        return []
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    if path.name == f".{LAST}.part":
        files.append(path.with_name(CURVES))
    return [file for file in files if EXCEPTED not in file.name]


@dataclass
class Renames:
    names: list[str] = field(default_factory=list)  # final names
    unsynced: list[str] = field(default_factory=list)  # files that were written since their sync


@contextmanager
def watch_renames(below):
    """Yield a `Renames` of this process below a folder. Whatever writes a file is seen by the
    file's time: Python, libraries in C.
    """
    synced, renames = set(), Renames()
    sync, rename, replace = os.fsync, os.rename, os.replace

    def fsync(file):
        sync(file)
        number = file if isinstance(file, int) else file.fileno()
        synced.add(_state(os.fstat(number)))

    def checked(function):
        def call(source, target, **options):
            path = Path(source)
            if path.is_relative_to(below):
                renames.names.append(Path(target).name)
                for file in _files(path):
                    if _state(file.stat()) not in synced:
                        renames.unsynced.append(f"{file} -> {target}")
            function(source, target, **options)

        return call

    os.fsync, os.rename, os.replace = fsync, checked(rename), checked(replace)
    try:
        yield renames
    finally:
        os.fsync, os.rename, os.replace = sync, rename, replace
