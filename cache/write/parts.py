"""Parts of an array job: shares of a step's work, done by processes without the writer's lock.
[cache]

On a cluster, an array job runs the same command N times, as parts 1 to N. Each part stages its
share of the work, and a later command commits it. A running part renews a small file next to its
results, its sign of life. While such a file is fresh, no other command commits or removes the
staged work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from cache.errors import Busy, CacheError
from cache.format.folders import places_of
from cache.format.layout import RUNNING
from cache.format.place import Place
from cache.storage import store_at
from cache.storage.base import Root, Store
from cache.write.staged import FILE, STAGED, VIDEO, Plan, unpack

RENEW: Final = 20.0  # s between two writes of a running part's file
FRESH: Final = 180.0  # s; a part whose file is older has been killed
POLLS: Final = 10  # how often `wait_for_parts` looks at the files within RENEW

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an array job."""

    number: int  # from 1
    of: int  # how many parts the job has

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This part's share of the items: consecutive ones. Each item is in exactly one share.

        >>> [Part(number, 3).share("abcde") for number in (1, 2, 3)]
        ['a', 'bc', 'de']
        """
        start = len(items) * (self.number - 1) // self.of
        stop = len(items) * self.number // self.of
        return items[start:stop]

    @contextmanager
    def running(self, root: Root | Store, folder: str) -> Iterator[None]:
        """Within the `with` block, write and renew a file in `folder` that shows that this part is
        running.
        """
        store = store_at(root)
        file = {f"{folder}/{RUNNING}{self.number}-of-{self.of}": b""}
        store.put_small(file, folder, shared=True)
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(RENEW):
                # After a short network fault, the next write may succeed.
                with suppress(OSError, CacheError):
                    store.put_small(file, folder, shared=True)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            store.remove([*file])


def refuse_running_parts(root: Root | Store, folder: str) -> None:
    """Raise Busy if a part seems to be running: its file in `folder` is fresh."""
    store = store_at(root)
    fresh = _fresh(_ages_of_signs(store, folder))
    if fresh:
        youngest = min(fresh, key=fresh.__getitem__)
        remaining = FRESH - max(fresh[youngest], 0.0)
        again = f"run this again in {remaining:.0f} s, or delete this file."
        raise _busy(store, folder, youngest, fresh[youngest], f"if they were killed, {again}")


def wait_for_parts(root: Root | Store, folder: str, tell: Callable[[str], None]) -> None:
    """Wait until the files of killed parts in `folder` are no longer fresh, and remove them.

    Raises Busy if a file is renewed meanwhile: its part is running. Waits at most FRESH seconds, as
    the clocks of the machines may differ.

    Args:
        tell: called once with a message, if there is something to wait for.
    """
    store = store_at(root)
    began = time.monotonic()
    signs = _ages_of_signs(store, folder)
    fresh = _fresh(signs)
    if fresh:
        longest = max(FRESH - max(age, 0.0) for age in fresh.values())
        first = store.location(f"{folder}/{min(fresh)}")
        tell(
            f"{first}: a part was running until {_ago(min(fresh.values()))}: waiting up to "
            f"{longest:.0f} s for it"
        )
    # The limit is needed where a clock is ahead: then a file would stay fresh.
    while fresh and time.monotonic() - began < FRESH:
        time.sleep(RENEW / POLLS)
        before = fresh
        fresh = _fresh(_ages_of_signs(store, folder))
        for name, age in fresh.items():
            if name not in before or age < before[name]:
                raise _busy(store, folder, name, age, "or end them.")
    store.remove([f"{folder}/{name}" for name in signs])


def _ages_of_signs(store: Store, folder: str) -> dict[str, float]:
    """The age in seconds of the files of running and killed parts (their signs of life), by name;
    negative if another machine's clock is ahead.
    """
    ages = dict[str, float]()
    for name in store.list_names(folder):
        if name.startswith(RUNNING):
            with suppress(FileNotFoundError):
                ages[name] = store.age(f"{folder}/{name}")
    return ages


def _fresh(ages: Mapping[str, float]) -> dict[str, float]:
    """Those files whose parts may be running: not older than FRESH."""
    return {name: age for name, age in ages.items() if age < FRESH}


def _busy(store: Store, folder: str, name: str, age: float, do: str) -> Busy:
    location = store.location(f"{folder}/{name}")
    expected = "no running part"
    sign = f"a sign of life {_ago(age)}"
    wait = f"Wait until all parts have ended; {do}"
    return Busy.at(location, expected=expected, found=sign, do=wait)


def _ago(age: float) -> str:
    if age < -1.0:
        return f"now (the clocks of the machines differ by {-age:.0f} s)"
    return f"{max(age, 0.0):.0f} s ago"


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
    heads = []  # head of the first piece of each plan
    for name in store.list_names(place.staged):
        names = _pieces(place, name)
        if not names:
            continue
        head = _read_head(store, f"{place.staged}/{name}/{names[0]}")
        if head.get("plan") != plan:
            n_pieces += len(names)
            heads.append(head)
    if not heads:
        return None
    return _OtherWork(n_pieces, heads[0].get("plan"), str(heads[0].get("host", "")))


def _pieces(place: Place, plan: str) -> list[str]:
    """Names of the pieces of staged work in the folder of a plan."""
    names = place.store.list_names(f"{place.staged}/{plan}")
    return [name for name in names if not name.startswith((f"{FILE}-", "."))]


def _read_head(store: Store, key: str) -> dict[str, Any]:
    """The head of a piece, with its plan and host; {} for a damaged piece."""
    try:
        return unpack(store.read(key))[0]
    except (OSError, ValueError):
        return {}


def staged_by_parts(root: Root | Store, split: str) -> list[str]:
    """A list of one line about the work that parts have staged for a split and its streams; [] if
    there is none.
    """
    texts = list[str]()
    for place in places_of(store_at(root), split):
        with suppress(PermissionError):
            texts += _staged_texts(place)
    if not texts:
        return []
    return [f"staged by parts: {'; '.join(texts)}"]


def _staged_texts(place: Place) -> list[str]:
    """Texts about what parts have staged for one split or stream, and which have not ended."""
    signs = place.store.list_names(place.writing)
    shards = set()
    n_videos = 0
    for plan in place.store.list_names(place.staged):
        for piece in _pieces(place, plan):
            kind, _, identity = piece.partition("-")
            if kind == STAGED:
                shards.add(identity.partition("-")[0])  # a shard may be staged twice
            elif kind == VIDEO:
                n_videos += 1
    texts = []
    if shards:
        texts.append(f"shards of {place.stream}: {len(shards):,}")
    if n_videos:
        texts.append(f"videos: {n_videos:,}")
    for name in signs:
        if name.startswith(RUNNING):
            texts.append(f"not ended: {name.removeprefix(RUNNING)}")
    return texts
