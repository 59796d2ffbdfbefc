"""A manifest from elsewhere, with any wrong entry and a digest that matches, or such a file of
tables: each command raises CacheError, or reports it, and never fails otherwise.
"""

import hashlib
import io
import itertools
import json
import random
import shutil

import numpy as np
import pytest

import cache
from cache import CacheError, ExtraColumn
from cache.format.layout import json_file
from tests.cache import toy

SPLIT = toy.SPLIT
WRONG = (None, True, -1, 3, 2**62, 10**30, 0.5, "x", "", [], [[]], ["x"], {})
WRONG += ({"x": "y"}, [[0, 0.5]], [[5, 1]], [[0, 2**62]], {"0": "8:0"}, "int8", [-1], [2, 3])
NAMES = ("x", "../x", "007", "9" * 30, "")


@pytest.fixture
def small(tmp_path):
    """A split of 40 rows with extra columns, and a stream of it."""
    root = tmp_path / "cache"
    extra = [
        ExtraColumn(name="height", about="of the body", unit="m", per="track", dtype="float32"),
        ExtraColumn(name="hands", about="seen", shape=(2,), dtype="int8", mirror=((0, 1),)),
    ]
    values = {"height": np.float32(1.8), "hands": np.zeros((40, 2), np.int8)}
    toy.split_of(root, {"valid": np.ones(40, bool)}, extra, own=values)
    toy.write_stream(root, bad_rows=[3], identity={"crop": {}})
    return root


def places(value, *path):
    """The paths of all entries, at any depth."""
    if path:
        yield path
    inner = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, entry in inner:
        yield from places(entry, *path, key)


def changed(manifest, path, value, *, renamed=False):
    """A copy with another value in one place; or with another name for the value there."""
    copy = json.loads(json.dumps(manifest))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    if renamed:
        holder[value] = holder.pop(path[-1])
    else:
        holder[path[-1]] = value
    return copy


def others(manifest):
    """Manifests in which one entry is wrong, missing or has another name; what it is."""
    values = itertools.cycle(WRONG)  # each entry gets some, so that all entries get all
    for path in places(manifest):
        if path[0] in ("digest", "format"):
            continue
        title = "/".join(map(str, path))
        for value in itertools.islice(values, 5):
            yield f"{title}: {value}", changed(manifest, path, value)
        if isinstance(path[-1], str):
            for name in NAMES:
                yield f"{title} as {name}", changed(manifest, path, name, renamed=True)


def use(root):
    """Check, repair and read all that manifests tell. Raises CacheError."""
    cache.repair(root, cache.verify(root))
    split = toy.opened(root)
    repr(split)
    split.read([[4, 8]], fields=["features", "valid", "hands"])
    split.windows(4, stream="resnet50")
    split.open_stream("resnet50").pending_rows()
    split.open_stream("resnet50").undecodable()
    split.rows("height", 0, 40)
    assert [*split.tracks, *split.videos]
    cache.content_digest(split)
    cache.content_digest(split, "resnet50")


@pytest.mark.parametrize("place", ["", "features/resnet50/"])
def test_a_wrong_entry_of_a_manifest_ends_in_no_other_error(place, small, tmp_path):
    root = tmp_path / "changed"
    shutil.copytree(small, root)
    file = root / SPLIT / place / "manifest.json"
    manifest = json.loads(file.read_bytes())
    n_refused = 0
    for title, other in others(manifest):
        body = {key: value for key, value in other.items() if key != "digest"}
        file.write_bytes(json_file({**body, "digest": cache.fingerprint(body)}))
        try:
            toy.opened(root).open_stream("resnet50")
        except CacheError:
            n_refused += 1
            if n_refused % 10:
                continue  # each command reads it alike
            assert not cache.verify(root).ok
        except Exception as error:
            raise AssertionError(title) from error
        try:
            use(root)
        except CacheError:
            pass
        except Exception as error:
            raise AssertionError(title) from error
        shutil.rmtree(root)
        shutil.copytree(small, root)
    assert n_refused > 100


def saved(tables, save=np.savez):
    file = io.BytesIO()
    save(file, **tables)
    return file.getvalue()


def other_tables(file):
    """Files of tables in which something is wrong; what it is, and whether each reader must see
    it.
    """
    with np.load(io.BytesIO(file)) as stored:
        tables = dict(stored)
    for name, table in tables.items():
        wrong = {
            "missing": None,
            "objects": table.astype(object),
            "longer": np.concatenate([table, table]),
            "wider": np.repeat(table[..., None], 2, axis=-1),
            "of another type": np.zeros_like(table, "<i2"),
            "one number": np.array(3),
            "in another order": np.asfortranarray(np.zeros((len(table) + 1, 3, 2))),
        }
        for why, array in wrong.items():
            others = {key: values for key, values in tables.items() if key != name}
            if array is not None:
                others[name] = array
            is_free = why == "longer" and name == "video_account"  # as long as its texts are
            yield f"{name}: {why}", saved(others), not is_free
    yield "another table", saved({**tables, "track_more": tables["track_start"]}), True
    yield "compressed", saved(tables, np.savez_compressed), True
    yield "no archive", b"x" * 100, True
    yield "empty", b"", True
    huge = file.replace(b"'shape': (1,), }" + b" " * 4, b"'shape': (" + b"9" * 5 + b",), }", 3)
    yield "a huge array", huge, True
    digits = b"'shape': (" + b"9" * 40 + b",), }"
    header = file.index(b"'shape': (1,), }")
    yield "a shape that no number holds", file[:header] + digits + file[header + 52 :], True
    rng = random.Random(0)
    for number in range(300):
        bit = rng.randrange(8 * len(file))
        yield f"bit {bit}", toy.flipped(file, bit), False
        yield f"cut {number}", file[: rng.randrange(len(file))], False


def test_a_file_of_tables_from_elsewhere_ends_in_no_other_error(small):
    manifest = small / SPLIT / "manifest.json"
    whole = toy.tables_file(small).read_bytes()
    n_refused = 0
    for title, file, must_be_seen in other_tables(whole):
        toy.rewrite(manifest, tables=hashlib.sha256(file).hexdigest())
        toy.tables_file(small).write_bytes(file)
        try:
            toy.opened(small)
        except CacheError as error:
            n_refused += 1
            if n_refused % 10 == 0:
                assert str(error) in cache.verify(small).problems
        except Exception as error:
            raise AssertionError(title) from error
        else:
            assert not must_be_seen, title
    assert n_refused > 300
