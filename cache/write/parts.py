"""Parts of an array job: shares of a step's work, done by processes without the writer's lock.
[cache]

On a cluster, an array job runs the same command N times, as parts 1 to N. Each part stages its
share of the work, and a later command commits it. A running part renews a small file next to its
results, its sign of life. While such a file is fresh, no other command commits or removes the
staged work.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from cache.errors import Busy, CacheChanged, CacheError
from cache.format.folders import places_of
from cache.format.layout import RUNNING
from cache.format.place import Place
from cache.storage import store_at
from cache.storage.base import Root, Store
from cache.write.staged import FILE, STAGED, VIDEO, Plan, unpack

RENEW: Final = 20.0  # s between two writes of a running part's file
FRESH: Final = 180.0  # s; a part whose file is older has been killed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an array job."""

    number: int  # from 1
    n_parts: int  # of the job

    def __str__(self) -> str:
        return f"{self.number}/{self.n_parts}"

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This part's share of the items: consecutive ones. Each item is in exactly one share.

        >>> [Part(number, 3).share("abcde") for number in (1, 2, 3)]
        ['a', 'bc', 'de']
        """
        start = len(items) * (self.number - 1) // self.n_parts
        stop = len(items) * self.number // self.n_parts
        return items[start:stop]

    @contextmanager
    def running(self, root: Root | Store, folder: str) -> Iterator[None]:
        """Within the `with` block, write and renew a file in `folder` that shows that this part is
        running. Raises CacheChanged if another command has removed the file that this part writes,
        and CacheError for an object store that no writer may write into.
        """
        store = store_at(root)
        if not store.exclusive:
            store.lock(folder)
        sign_of_life = {f"{folder}/{RUNNING}{self.number}-of-{self.n_parts}": b""}
        store.put_small(sign_of_life, folder, shared=True)
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(RENEW):
                # After a short network fault, the next write may succeed.
                with suppress(OSError, CacheError):
                    store.put_small(sign_of_life, folder, shared=True)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        except FileNotFoundError as error:
            # of a part that was suspended: its file seemed to be of a killed one
            file = Path(str(error.filename))
            if file.name.startswith(".") and file.is_relative_to(store.root):
                raise _removed_meanwhile(file) from error
            raise
        finally:
            ended.set()
            thread.join()
            store.remove([*sign_of_life])


def refuse_running_parts(root: Root | Store, folder: str) -> None:
    """Raise Busy if a part seems to be running: its file in `folder` is younger than FRESH."""
    store = store_at(root)
    ages = dict[str, float]()  # negative if another machine's clock is ahead
    for name in store.list_names(folder):
        if name.startswith(RUNNING):
            with suppress(FileNotFoundError):
                ages[name] = store.age(f"{folder}/{name}")
    youngest = min(ages, key=ages.__getitem__, default=None)
    if youngest is not None and ages[youngest] < FRESH:
        raise _busy(store.location(f"{folder}/{youngest}"), ages[youngest])


class _OtherWork(NamedTuple):
    """Uncommitted work of other plans, which a writer with the current plan does not use."""

    pieces: int  # number of staged shards and videos
    plan: Any  # plan of the first piece; None if the piece is damaged
    host: str  # name of the machine that made the first piece; "" if the piece is damaged


def find_other_work(
    root: Root | Store, split: str, stream: str | None, plan: Plan
) -> _OtherWork | None:
    """Find uncommitted work of a split or stream whose plan is not `plan`; None without any."""
    place = Place(store_at(root), split, stream)
    store = place.store
    n_pieces = 0
    first_head: dict[str, Any] | None = None  # of the first piece
    for name in store.list_names(place.staged):
        names = _pieces(place, name)
        if not names:
            continue
        head: dict[str, Any] = {}  # with its plan and host; {} for a damaged piece
        with suppress(OSError, ValueError):
            piece = unpack(store.read(f"{place.staged}/{name}/{names[0]}"))
            head = {} if piece is None else piece.head
        if head.get("plan") != plan:
            n_pieces += len(names)
            if first_head is None:
                first_head = head
    if first_head is None:
        return None
    return _OtherWork(n_pieces, first_head.get("plan"), str(first_head.get("host", "")))


def _pieces(place: Place, plan: str) -> list[str]:
    """Names of the pieces of staged work in the folder of a plan."""
    names = place.store.list_names(f"{place.staged}/{plan}")
    return [name for name in names if not name.startswith((f"{FILE}-", "."))]


class PartsWork(NamedTuple):
    """What parts have staged for one split or stream, and which of them have not ended."""

    stream: str | None
    shards: int
    videos: int
    not_ended: Mapping[str, float]  # part ("2-of-3") -> s since its sign of life

    def describe(self) -> Iterator[str]:
        """Yield texts for one line."""
        if self.shards:
            yield f"shards of {self.stream}: {self.shards:,}"
        if self.videos:
            yield f"videos: {self.videos:,}"
        for part, age in self.not_ended.items():
            yield f"not ended: {part} (sign of life {max(age, 0.0):.0f} s ago)"


def staged_by_parts(root: Root | Store, split: str) -> list[PartsWork]:
    """The work that parts have staged for a split and its streams."""
    works = []
    for place in places_of(store_at(root), split):
        with suppress(PermissionError):
            work = _staged_work(place)
            if work.shards or work.videos or work.not_ended:
                works.append(work)
    return works


def describe_staged(works: Iterable[PartsWork]) -> str:
    """A line about staged work."""
    texts = (text for work in works for text in work.describe())
    return f"finished by shares, not yet in the cache: {'; '.join(texts)}"


def _staged_work(place: Place) -> PartsWork:
    shards = set[str]()
    n_videos = 0
    for plan in place.store.list_names(place.staged):
        for piece in _pieces(place, plan):
            kind, _, identity = piece.partition("-")
            if kind == STAGED:
                shards.add(identity.partition("-")[0])  # a shard may be staged twice
            elif kind == VIDEO:
                n_videos += 1
    ages = dict[str, float]()
    for name in place.store.list_names(place.writing):
        if name.startswith(RUNNING):
            with suppress(FileNotFoundError):  # it has ended meanwhile
                age = place.store.age(f"{place.writing}/{name}")
                ages[name.removeprefix(RUNNING)] = max(age, 0.0)
    return PartsWork(place.stream, len(shards), n_videos, ages)


def _removed_meanwhile(file: Path) -> CacheChanged:
    """The error for a part whose temporary file is gone."""
    return CacheChanged.at(
        file,
        expected="the file that this process writes",
        found="none: another command has saved its work meanwhile",
        do="Run the command without --part: it does what is missing. What this share finished is "
        "not in the cache; gc --unfinished removes it.",
    )


def _busy(sign: str, age: float) -> Busy:
    """The error for a part whose sign of life is so old (s)."""
    ago = f"{max(age, 0.0):.0f} s ago"
    if age < -1.0:
        ago = f"now (the clocks of the machines differ by {-age:.0f} s)"
    remaining = FRESH - age
    return Busy.at(
        sign,
        expected="no running process of a share",
        found=f"a sign of life {ago}",
        do="Wait until all shares have ended; if they were killed, run this again in "
        f"{remaining:.0f} s, or delete this file.",
    )
