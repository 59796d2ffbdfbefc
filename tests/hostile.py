"""Files that must not harm: pickles that call something, and how much memory reading takes."""

import gc
import os
import tracemalloc


class Call:
    """Unpickling it calls `function(*arguments)`: `Call(os.mkdir, "ran")`."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


def memory_peak(run):
    """Bytes that Python and NumPy held at most while `run` ran."""
    gc.collect()  # garbage of earlier work, freed during this one, would hide a part of it
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


THINGS = {
    "folder": lambda path: path.mkdir(),
    "dangling": lambda path: path.symlink_to("nowhere/at/all"),
    "loop": lambda path: path.symlink_to(path.name),
    "fifo": lambda path: os.mkfifo(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "absent": lambda path: None,
}
