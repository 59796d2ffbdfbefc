"""What was removed is in no byte below the cache after `erase_rows` and `gc`, and what stays is as
it was.
"""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import cache
from cache import CacheChanged, SplitWriter
from cache.format.extra import ExtraColumn
from tests.cache import toy
from tests.cache.disk import Interruption, Killed, Model, Watched, on_disk, watching
from tests.raising import cache_refuses
from tests.trees import contents

pytestmark = pytest.mark.promise("erase")

SPLIT = "toy/train"
SMALL = {"rows_per_shard": 8, "rows_per_chunk": 4}
PRESSURE = ExtraColumn("pressure", about="made up", shape=(2,), dtype="float64", gaps=True)
HEIGHT = ExtraColumn("height", about="made up", dtype="float32", per="track")
FORMS = {"halves": cache.StreamForm(4), "singles": cache.StreamForm(4, "float32")}


# --------------------------------------------------------------------------------------------------
# a cache, and what its rows are


def person(name, n_rows):
    """A video of one track. One number of its labels, 25, is in those of all people."""
    rng = np.random.default_rng([n_rows, *name.encode()])
    entry, (track,) = toy.video(name, n_rows)
    bbox = rng.uniform(50, 100, (n_rows, 4)).astype(np.float32)
    bbox[0, 0] = 25
    pressure = rng.normal(size=(n_rows, 2))
    pressure[::3] = np.nan
    columns = {"frame_index": np.arange(n_rows), "bbox": bbox}
    extra = {"pressure": pressure, "height": np.float32(rng.uniform(1, 2))}
    entry = replace(entry, account={**entry.account, "message": f"äbout {name}"})
    return entry, [replace(track, columns=columns, extra=extra)]


def write(root, people, drop=(), plan="plan"):
    with SplitWriter(
        root, SPLIT, columns=["bbox"], extra=[PRESSURE, HEIGHT], plan=plan, **SMALL
    ) as writer:
        following = writer.begin(drop)
        for video in people:
            if video[0].name not in following.journalled:
                following.append(*video)
        following.commit({"plan": plan})


def keys_of(state, shard):
    """(n, 2) the bits of each row's box."""
    rows = state.rows(shard)
    bbox = toy.opened(state.place.store.root).rows("bbox", rows.start, rows.stop)
    return np.ascontiguousarray(bbox).view(np.uint64)


def features_of(keys, dtype):
    """(n, 4) of numbers that nothing else in the cache has."""
    return (np.sin((keys[:, :1] % 2**20) + np.arange(4) * 0.7) * 3).astype(dtype)


def extract(root):
    """The number of rows that are computed, as no row of the stream has their keys."""
    n_computed = 0
    for name, form in FORMS.items():
        with cache.StreamWriter(root, SPLIT, name, form, plan="weights") as writer:
            waiting = writer.shards.committed_rows.pending_rows()
            writer.reopen([row // 8 for start, stop in waiting for row in range(start, stop)])
            state = writer.shards
            for shard in state.pending:
                keys = keys_of(state, shard)
                carried, data, ok = state.carried(keys)
                own = features_of(keys, form.dtype)
                n_computed += int((~carried & state.live(shard)).sum())
                new_ok = (keys[:, 0] % 5 > 0).astype(np.uint8)  # some frames cannot be decoded
                writer.write(
                    shard,
                    np.where(carried[:, None], data, own),
                    np.where(carried, ok, new_ok),
                    keys,
                )
            writer.commit({"weights": "known"})
    return n_computed


LENGTHS = {"anna": 5, "bert": 9, "mallory": 11, "dora": 6, "emil": 20, "trent": 3}


def make(root):
    """Two commits, of which the first loses mallory, whose rows are in shards with others'."""
    names = list(LENGTHS)
    write(root, [person(name, LENGTHS[name]) for name in names[:4]])
    extract(root)
    write(root, [person(name, LENGTHS[name]) for name in names[4:]], plan="second")
    extract(root)
    return root


def remove(root):
    write(root, [], drop=["mallory"], plan="one less")


def values_of(name, kind):
    """The bytes of each number and text of a video: of its labels, or of its features in a dtype.

    Two bytes are somewhere by chance, so those of float16 are the eight of a row.
    """
    entry, (track,) = person(name, LENGTHS[name])
    bbox = track.columns["bbox"]
    pressure = track.extra["pressure"]
    if kind == "text":
        return {text.encode() for text in (entry.name, entry.source, entry.account["message"])}
    if kind == "float64":
        return {value.tobytes() for value in pressure[np.isfinite(pressure)]}
    if kind == "labels":
        return {value.tobytes() for value in [*bbox.ravel(), track.extra["height"]]}
    keys = np.ascontiguousarray(bbox).view(np.uint64)
    features = features_of(keys, kind)[keys[:, 0] % 5 > 0]
    return {values.tobytes() for values in (features if kind == "float16" else features.ravel())}


def removed_values():
    """Kind -> the values of mallory that nobody else has."""
    values = {}
    for kind in ("text", "labels", "float16", "float32", "float64"):
        others = [values_of(name, kind) for name in LENGTHS if name != "mallory"]
        values[kind] = values_of("mallory", kind).difference(*others)
    assert np.float32(25).tobytes() not in values["labels"]  # everybody has it
    return values


def missing(root):
    """Kind -> how many of the removed values are in no file below a cache."""
    store = cache.store_at(root)
    files = b"\0".join(store.read(key) for key in store.file_sizes(""))
    return {
        kind: sum(value not in files for value in values)
        for kind, values in removed_values().items()
    }


def live(root):
    """The digests of what readers get."""
    split = toy.opened(root)
    return [cache.content_digest(split, stream) for stream in (None, *split.streams)]


def erase(root):
    """The command, in S3 while nobody writes."""
    erasure = cache.erase_rows(toy.opened(root))
    collected = cache.gc(root, older_than=0, unfinished=True, pins=None)
    assert (collected.skipped, collected.problems) == ([], [])
    return erasure


@pytest.fixture(scope="module")
def made_people(tmp_path_factory):
    return make(tmp_path_factory.mktemp("people") / "cache")


def remove_from(made, root):
    shutil.copytree(made, root)
    remove(root)
    return root


@pytest.fixture
def root(made_people, tmp_path):
    """A cache to change that mallory was removed from."""
    return remove_from(made_people, tmp_path / "cache")


@pytest.fixture(params=["disk", "memory", "server"])
def anywhere(request):
    if request.param == "disk":
        return request.getfixturevalue("root")
    place = request.getfixturevalue({"memory": "bucket", "server": "url"}[request.param])
    remove(make(place))
    return place


# --------------------------------------------------------------------------------------------------
# no byte of what was removed


def test_each_value_of_a_removed_person_is_found_before_and_none_after(anywhere):
    before = live(anywhere)
    n_values = {kind: len(values) for kind, values in removed_values().items()}
    assert min(n_values.values()) >= 3
    cache.gc(anywhere, older_than=0, dry_run=True)
    assert not any(missing(anywhere).values())
    dry = cache.erase_rows(toy.opened(anywhere), dry_run=True)
    assert not any(missing(anywhere).values())
    erasure = erase(anywhere)
    assert missing(anywhere) == n_values
    assert live(anywhere) == before
    assert (cache.verify(anywhere).problems, cache.verify(anywhere).notes) == ((), [])
    # The first commit is of one piece; the second one stays as it is.
    assert erasure == dry
    assert (erasure.removed, erasure.moved) == (11, 5 + 9 + 6)
    assert extract(anywhere) == 0


def test_a_second_time_nothing_is_moved_and_no_file_changes(root):
    erase(root)
    before = contents(root)
    again = erase(root)
    assert (again.removed, again.moved) == (0, 0)
    assert contents(root) == before


def test_the_bytes_of_a_row_are_those_of_its_values_in_all_columns_and_streams(root):
    erasure = cache.erase_rows(toy.opened(root), dry_run=True)
    labels = 8 + 4 * 4 + 2 * 8  # frame_index, bbox, pressure
    assert erasure.row_bytes == labels + 4 * 2 + 4 * 4 + 2 * (1 + 2 * 8)


def test_only_shards_that_are_joined_to_removed_rows_go(tmp_path):
    """Eight rows a shard: `b` joins the first two, nothing joins the third to them."""
    root = tmp_path / "cache"
    lengths = {"a": 4, "b": 8, "c": 4, "d": 8, "e": 2, "f": 3}
    write(root, [person(name, n_rows) for name, n_rows in lengths.items()])
    extract(root)
    write(root, [], drop=["a", "e"], plan="without a and e")
    before = live(root)
    erasure = erase(root)
    split = toy.opened(root)
    starts = dict(zip(split.videos.names, split.tracks.start.tolist(), strict=True))
    assert starts == {"d": 16, "b": 32, "c": 40, "f": 44}
    assert (erasure.removed, erasure.moved) == (6, 8 + 4 + 3)
    assert sorted(split.commit.shards) == [2, 4, 5]
    assert split.open_stream("halves").shards == [2, 4, 5]
    assert live(root) == before


def test_shards_without_rows_of_tracks_go_and_nothing_is_written(tmp_path):
    root = tmp_path / "cache"
    write(root, [person("a", 8), person("b", 16), person("c", 5)])
    extract(root)
    write(root, [], drop=["b"], plan="without b")
    before = live(root)
    erasure = erase(root)
    assert (erasure.removed, erasure.moved) == (16, 0)
    assert sorted(toy.opened(root).commit.shards) == [0, 3]
    assert toy.opened(root).open_stream("halves").shards == [0, 3]
    assert live(root) == before


def test_the_last_row_of_the_last_person_can_go(tmp_path):
    root = tmp_path / "cache"
    write(root, [person("mallory", 11)])
    extract(root)
    remove(root)
    assert erase(root).moved == 0
    assert missing(root) == {kind: len(values) for kind, values in removed_values().items()}
    assert live(root)
    write(root, [person("anna", 5)], plan="again")
    assert extract(root) > 0
    assert cache.verify(root).ok


# --------------------------------------------------------------------------------------------------
# streams that lack rows, or are of other rows


def test_rows_that_a_stream_lacks_are_still_missing_and_no_others(made_people, tmp_path):
    root = Path(shutil.copytree(made_people, tmp_path / "cache"))
    for name in FORMS:
        cache.invalidate(root, SPLIT, name, [1, 5])  # as after damage
    remove(root)
    before = live(root)
    erase(root)
    assert live(root) == before
    assert missing(root) == {kind: len(values) for kind, values in removed_values().items()}
    lacking = {name: toy.opened(root).open_stream(name).pending_rows() for name in FORMS}
    assert all(len(rows) for rows in lacking.values())
    assert extract(root) > 0
    assert live(root) == live(remove_from(made_people, tmp_path / "quiet"))


def test_a_stream_of_other_rows_is_refused_before_anything_is_moved(root):
    folder = root / SPLIT / "features/halves"
    manifest = json.loads((folder / "manifest.json").read_text())
    toy.rewrite(folder / "manifest.json", rows=dict.fromkeys(manifest["rows"], "0123456789abcdef"))
    changed = contents(root)
    with cache_refuses("other rows"):
        cache.erase_rows(toy.opened(root))
    assert contents(root) == changed


def test_a_tag_keeps_no_rows_that_are_erased(root, made_people):
    cache.tag(root, "before")
    erase(root)
    tagged = cache.open(root, at="before")[SPLIT]
    rows = [tagged.rows("bbox", track.start, track.stop) for track in tagged.tracks[-2:]]
    assert sum(map(len, rows)) == LENGTHS["emil"] + LENGTHS["trent"]
    with pytest.raises(CacheChanged):
        tagged.rows("bbox", tagged.tracks[0].start, tagged.tracks[0].stop)
    assert missing(root) == {kind: len(values) for kind, values in removed_values().items()}


def test_a_running_writer_is_not_disturbed(root):
    split = toy.opened(root)
    before = live(root)
    with (
        cache.StreamWriter(root, SPLIT, "halves", FORMS["halves"], plan="weights"),
        pytest.raises(cache.Busy),
    ):
        cache.erase_rows(split)
    erase(root)
    assert live(root) == before


# --------------------------------------------------------------------------------------------------
# killed, and read meanwhile


class Files(Model):
    """Notes at which changes files get their names."""

    def __init__(self, disk):
        super().__init__(disk)
        self.watched: Watched
        self.moments: list[int] = []

    def do(self, name, path, *rest):
        super().do(name, path, *rest)
        if name == "rename":
            self.moments.append(self.watched.changes)


def moments(root):
    """The numbers of the changes of an erasure after which a file has its name."""
    watched = Watched(root, Files(on_disk(root)))
    watched.model.watched = watched
    with watching(watched):
        erase(root)
    return watched.model.moments


def kill(root, at):
    split = toy.opened(root)
    with watching(Watched(root, Model(on_disk(root)), Interruption(at))), pytest.raises(Killed):
        cache.erase_rows(split)
        cache.gc(root, unfinished=True)


def test_after_a_kill_at_any_file_it_ends_alike(root, tmp_path):
    expected = live(root)
    n_values = {kind: len(values) for kind, values in removed_values().items()}
    after_files = moments(Path(shutil.copytree(root, tmp_path / "counted")))
    assert len(after_files) > 20
    for at in after_files:
        killed = Path(shutil.copytree(root, tmp_path / str(at)))
        kill(killed, at + 1)
        assert live(killed)[0] == expected[0]
        cache.gc(killed)  # as each night
        erase(killed)
        assert live(killed) == expected, at
        assert missing(killed) == n_values, at
        report = cache.verify(killed)
        assert (report.problems, report.notes) == ((), [])
        assert extract(killed) == 0
        shutil.rmtree(killed)


def test_after_a_kill_and_a_commit_features_are_still_carried_over(root, tmp_path):
    """Also where the same rows are moved again."""
    after_files = moments(Path(shutil.copytree(root, tmp_path / "counted")))
    for drop in ([], ["bert"]):
        more = partial(write, people=[person("x", 7)], drop=drop, plan=f"more {drop}")
        quiet = Path(shutil.copytree(root, tmp_path / f"quiet{drop}"))
        more(quiet)
        written = live(quiet)
        assert extract(quiet) == 7 * len(FORMS)
        for at in after_files[:: len(after_files) // 8]:
            killed = Path(shutil.copytree(root, tmp_path / f"{at}{drop}"))
            kill(killed, at + 1)
            more(killed)
            erase(killed)
            assert live(killed) == written
            assert extract(killed) == 7 * len(FORMS)
            assert live(killed) == live(quiet)


def rows_by_track(split):
    """(track, n-th row of it) -> its values, in windows of two rows that have all features."""
    windows = split.windows(2, 1, streams=list(FORMS))
    batch = split.read(windows, streams=list(FORMS), fields=["bbox", "pressure", *FORMS])
    rows = {}
    for number, (start, _) in enumerate(windows.tolist()):
        track = split.tracks[int(split.track_of(np.array([start]))[0])]
        values = [batch[name][number].tobytes() for name in ("bbox", "pressure", *FORMS)]
        rows[track.name, start - track.start] = values
    return rows


def test_an_open_reader_reads_right_rows_or_is_told(root):
    """Opened before, or at any moment, and first read at a later one."""
    expected = rows_by_track(toy.opened(root))
    waiting = [toy.opened(root) for _ in range(90)]
    n_right, n_told = 0, 0

    def judge(split):
        nonlocal n_right, n_told
        try:
            rows = rows_by_track(split)
        except CacheChanged:
            n_told += 1
        else:
            n_right += 1
            assert rows.items() <= expected.items()

    def read(number):
        if number % 5 == 0:
            watched.beside = True
            waiting.append(toy.opened(root))
            judge(waiting.pop(0))
            watched.beside = False

    watched = Watched(root, Model(on_disk(root)), before_change=read)
    with watching(watched):
        erase(root)
    for split in waiting:
        judge(split)
    assert n_right > 20
    assert n_told >= 3
    assert rows_by_track(toy.opened(root)) == expected
