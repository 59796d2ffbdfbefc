"""A lab: a raw folder of Penn Action that is edited at random, all that readers get of its cache,
and processes that work on it.

`crashes.py` starts the processes: a command that can be killed, a reader beside it, and a cluster.
All write small shards and renew their signs of life often (`shrink`), so that a short run has many
shards, and a killed part is soon taken for dead.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import multiprocessing
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import psutil  # type: ignore[import-untyped]
from scipy.io import loadmat

import cache
from cache.write import parts, split_writer
from pipeline.__main__ import main as pipeline_main
from pipeline.extras.demo import writing as synthetic
from pipeline.extras.demo.files import jpeg, write_mat
from pipeline.extras.demo.layouts import Request

SPLIT = "penn_action/train"
STREAM = "homography"
KINDS = ("labels", "frames")
# forks a process that has imported these modules
FRESH: Final = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["__main__", "pipeline.__main__"])
# what a worker of a cluster runs when it starts
SHRUNK: Final = "from benchmarks.lab import shrink\nshrink()\n"


class Lab:
    """A raw folder of Penn Action that is edited, and videos that are not in it."""

    def __init__(self, folder: Path) -> None:
        self.raw = folder / "raw/penn_action"
        self.spare = folder / "spare"
        self._sizes = itertools.count()
        synthetic.write_dataset("penn_action", self.raw, Request(n_videos=6, n_frames=9))
        for kind in KINDS:
            (self.spare / kind).mkdir(parents=True)

    @property
    def names(self) -> list[str]:
        """Present videos."""
        return _names_in(self.raw)

    def edit(self, rng: random.Random) -> str:
        """Change one video, or exchange two. Return their names and the change."""
        away = _names_in(self.spare)
        verbs = ["correct", "image", "broken image", "spoil", "touch", "replace"]
        if away:
            verbs += ["add"] * 3
        if len(self.names) > 3:
            verbs += ["remove"] * 2
        verb = rng.choice(verbs)
        name = rng.choice(away if verb == "add" else self.names)

        if verb == "add":
            _move(name, self.spare, self.raw)
        elif verb == "remove":
            _move(name, self.raw, self.spare)
        elif verb == "replace":
            name = self._exchange(rng)
        elif verb == "correct":
            self._correct_label(name, rng)
        elif verb == "spoil":
            self._spoil_label(name)
        elif verb == "touch":
            os.utime(self._label(name))
        else:
            self._replace_image(name, rng, is_broken=verb == "broken image")
        return f"{name}: {verb}"

    def count_images(self, name: str) -> int:
        """Number of a video's images that can be decoded and are as large as the first of them."""
        images = [cv2.imread(str(file)) for file in sorted((self.raw / "frames" / name).iterdir())]
        shapes = [image.shape for image in images if image is not None]
        return sum(shape == shapes[0] for shape in shapes)

    def _label(self, name: str) -> Path:
        return self.raw / f"labels/{name}.mat"

    def _exchange(self, rng: random.Random) -> str:
        """Give each of two videos the other one's name: both names now have other pixels and
        labels.
        """
        first, second = rng.sample(self.names, 2)
        aside = self.spare / "aside"
        for kind in KINDS:
            (aside / kind).mkdir(parents=True)
        _move(first, self.raw, aside)
        _move(second, self.raw, self.raw, to=first)
        _move(first, aside, self.raw, to=second)
        shutil.rmtree(aside)
        return f"{first} and {second}"

    def _correct_label(self, name: str, rng: random.Random) -> None:
        with contextlib.suppress(ValueError, TypeError, OSError):  # a spoiled one stays so
            label = self._label(name)
            variables = {
                key: value for key, value in loadmat(label).items() if not key.startswith("__")
            }
            variables["x"][rng.randrange(len(variables["x"]))] += 1
            write_mat(label, variables)

    def _spoil_label(self, name: str) -> None:
        """Cut the end of a label file, and restore it the next time."""
        label = self._label(name)
        whole = label.with_suffix(".whole")
        if whole.exists():
            whole.replace(label)
        else:
            shutil.copyfile(label, whole)
            label.write_bytes(label.read_bytes()[:-100])

    def _replace_image(self, name: str, rng: random.Random, *, is_broken: bool) -> None:
        image = rng.choice(sorted((self.raw / "frames" / name).glob("*.jpg")))
        grey = jpeg(np.full((270, 480, 3), rng.randrange(256), np.uint8))
        # A new size shows a changed image, and the label's new time that sizes are compared at all.
        os.utime(self._label(name))
        image.write_bytes((b"no image" if is_broken else grey) + bytes(next(self._sizes)))


def _names_in(folder: Path) -> list[str]:
    return sorted(file.stem for file in (folder / "labels").glob("*.mat"))


def _move(name: str, folder: Path, other: Path, *, to: str = "") -> None:
    """Move a video's label and frames to another folder, or to another name."""
    new = to or name
    (folder / f"labels/{name}.mat").rename(other / f"labels/{new}.mat")
    (folder / "frames" / name).rename(other / "frames" / new)
    whole = folder / f"labels/{name}.whole"
    if whole.exists():
        whole.rename(other / f"labels/{new}.whole")


class _Entry(NamedTuple):
    """All that readers get of one track or one video."""

    video: str
    labels: tuple[Any, ...]  # of a video: its VideoEntry alone
    stream: tuple[list[int], bytes] | None = None  # flags and rows of STREAM; None: not computed


Contents = Mapping[str, _Entry]


def contents(root: Path) -> Contents:
    """All that readers get of a split's tracks, and the accounts of its videos."""
    if not (root / "zarr.json").exists() or SPLIT not in cache.open(root):
        return {}
    split = cache.open(root)[SPLIT]
    has_stream = STREAM in split.streams  # asked once: another process may commit its first rows
    entries = dict[str, _Entry]()

    for track in split.tracks:
        columns = {
            name: split.rows(name, track.start, track.stop).tobytes() for name in split.columns
        }
        labels = (repr((track.fps, track.step, track.crop_scale)), columns)
        rows = _stored_rows(split, track.start, track.stop) if has_stream else None
        entries[track.name] = _Entry(track.video, labels, rows)

    for video in split.videos:
        entries[f"video {video.name}"] = _Entry(video.name, (video,))
    return entries


def videos_of(state: Contents) -> dict[str, cache.VideoEntry]:
    """The videos of a cache's contents, by name."""
    return {
        entry.video: entry.labels[0] for name, entry in state.items() if name.startswith("video ")
    }


def _stored_rows(split: cache.Split, start: int, stop: int) -> tuple[list[int], bytes] | None:
    """Flags and bytes of a track's rows in STREAM; None unless all of their shards are computed."""
    size = split.manifest["geometry"]["rows_per_shard"]
    needed = range(start // size, (stop - 1) // size + 1)
    if not {*needed} <= {*split.open_stream(STREAM).shards}:
        return None
    flags = split.rows(f"features/{STREAM}_ok", start, stop)
    return flags.tolist(), split.rows(f"features/{STREAM}", start, stop).tobytes()


def state_of(root: Path) -> str:
    """A digest of `contents`, also while another process writes."""
    while True:
        with contextlib.suppress(cache.CacheChanged):  # replaced since it was opened: open it again
            return hashlib.sha256(repr(sorted(contents(root).items())).encode()).hexdigest()


def differences(actual: Contents, state: Contents, *, complete: bool) -> list[str]:
    """Names of tracks and videos that differ. complete: a missing row of the stream is a
    difference.
    """
    names = list(actual.keys() ^ state.keys())
    for name in actual.keys() & state.keys():
        ours = actual[name]
        theirs = state[name]
        is_computed = ours.stream is not None or complete
        has_wrong_rows = is_computed and theirs.stream is not None and ours.stream != theirs.stream
        if ours.labels != theirs.labels or ours.video != theirs.video or has_wrong_rows:
            names.append(name)
    return sorted(names)


def shrink() -> None:
    """Let this process write small shards, and take a part for killed after a second without a sign
    of life.
    """
    for module, name, value in (
        (split_writer, "ROWS_PER_SHARD", 16),
        (split_writer, "ROWS_PER_CHUNK", 4),
        (parts, "RENEW", 0.2),
        (parts, "FRESH", 1.0),
    ):
        setattr(module, name, value)


def run_command(words: Sequence[str], log: str) -> None:
    """Run a command in this process, whose output goes to a file."""
    shrink()
    with (
        Path(log).open("w") as out,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        sys.exit(pipeline_main(list(words)))


def children_of(process: int) -> list[int]:
    """The numbers of a process's children, and of theirs."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(process).children(recursive=True)]
    return []


@contextlib.contextmanager
def reader_beside(root: Path) -> Iterator[Callable[[], set[str]]]:
    """A process that reads a cache again and again. Yields a function that ends it and returns all
    states it saw.
    """
    here, there = FRESH.Pipe()
    process = FRESH.Process(target=_keep_reading, args=(str(root), there), daemon=True)
    process.start()
    here.recv()  # it is reading

    def end() -> set[str]:
        here.send("end")
        states: set[str] = here.recv()
        return states

    try:
        yield end
    finally:
        process.kill()
        process.join()


def _keep_reading(root: str, pipe: Connection[Any, Any]) -> None:
    """The reader's loop."""
    pipe.send("reading")
    states = set[str]()
    while not pipe.poll():
        try:
            states.add(state_of(Path(root)))
        except Exception as error:  # a reader must never meet any
            states.add(f"{type(error).__name__}: {error}")
        time.sleep(0.005)  # leaves time for the writer
    pipe.send(states)
