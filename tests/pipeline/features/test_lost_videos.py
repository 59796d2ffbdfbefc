"""A committed video that is missing, changed or unreadable costs its own rows, and those only until it is back."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache

PENN = "penn_action/train"
STREAMS = ("resnet50", "homography")


@pytest.fixture(autouse=True)
def quick(network: Any, small_shards: None) -> None:
    """A network that costs nothing, and 16 rows a shard: two videos."""


@pytest.fixture
def extract(penn: Any, ran: Any) -> Any:
    """`extract` of one kind of stream; what it prints."""

    def run(kind: str, *more: object, code: int = 0, root: Path = penn.root) -> str:
        weights = ["--weights", "untrained:0"] if kind == "resnet50" else []
        words = ["--kind", kind, "--raw", penn.raw, "--workers", 2, *weights]
        return str(ran("extract", PENN, "--cache", root, *words, *more, code=code).out)

    return run


def type_advice(ran: Any, shown: str, option: str, code: int = 0) -> str:
    """Type the command with this option that a message names."""
    found = re.search(rf"-m pipeline (convert [^\n]*{option})", shown)
    assert found is not None, shown
    return str(ran(*shlex.split(found[1]), code=code).out)


def features(root: Path, kind: str) -> dict[str, np.ndarray]:
    """Track -> flags of its rows."""
    split = cache.open(root)[PENN]
    flags = split.column(f"features/{kind}_ok")
    return {track.name: np.asarray(flags[track.start : track.stop]) for track in split.tracks}


def arrays_of(into: Any, root: Path, kind: str) -> dict[str, bytes]:
    """Bytes of a stream's shards."""
    wanted = [f"{PENN}/features/{kind}{part}/c/" for part in ("", "_ok", "_key")]
    return {name: data for name, data in into.tree(root).items() if name.startswith(tuple(wanted))}


def written(into: Any, root: Path) -> dict[str, tuple[int, int]]:
    """Files of a cache, without folders, with their sizes and times."""
    return {name: about for name, about in into.everything(root).items() if (root / name).is_file()}


def hide(penn: Any, video: str, at: Path) -> None:
    shutil.move(penn.frames(video), at / f"frames-{video}")
    shutil.move(penn.label(video), at / f"label-{video}")


def put_back(penn: Any, video: str, at: Path) -> None:
    shutil.move(at / f"frames-{video}", penn.frames(video))
    shutil.move(at / f"label-{video}", penn.label(video))


def test_a_lost_clip_costs_itself_and_after_it_is_back_the_bytes_are_those_of_an_undisturbed_cache(
    penn, ran, into, extract, tmp_path
):
    convert = ["convert", PENN, "--raw", penn.raw, "--cache", penn.root]
    calm = tmp_path / "calm"
    ran(*convert)
    ran(*convert[:-1], calm)
    extract("resnet50")
    extract("resnet50", root=calm)
    penn.add("0007", "0009")
    ran(*convert[:-1], calm)
    for kind in STREAMS:
        extract(kind, root=calm)

    hide(penn, "0003", tmp_path)  # beside 0001 in the first shard
    ran(*convert, code=1)
    assert "16 rows computed" in extract("resnet50"), "it has the lost clip's rows"
    shown = extract("homography", code=1)
    assert "✗ penn_action/train: homography: 7 rows of 1 video wait for images: 0003 (no " in shown
    flags = features(penn.root, "homography")
    assert [name for name, of in flags.items() if not of.all()] == ["0003/0"]
    assert flags["0003/0"].tolist() == [2, *[0] * 7], "the first frame needs no image: it has none before it"
    held = written(into, penn.root)
    again = extract("homography", code=1)
    assert (again.count("\n"), "7 rows of 1 video wait for images" in again) == (1, True)
    assert written(into, penn.root) == held, "nothing is computed or written twice"

    put_back(penn, "0003", tmp_path)
    ran(*convert)
    assert "extracted, 7 rows computed" in extract("homography")
    assert "homography is up to date" in extract("homography")
    for kind in STREAMS:
        assert arrays_of(into, penn.root, kind) == arrays_of(into, calm, kind)
    assert cache.verify(penn.root).ok


def test_a_copy_has_every_row_of_a_lagging_stream_and_the_numbers_that_it_prints_are_right(
    penn, ran, into, extract, tmp_path
):
    convert = ["convert", PENN, "--raw", penn.raw, "--cache", penn.root]
    copied = tmp_path / "copied"
    copy = ["copy", PENN, "--cache", penn.root, "--to", copied]
    ran(*convert)
    extract("homography")  # 24 rows, the last shard half full
    penn.add("0007", "0009")
    hide(penn, "0007", tmp_path)
    ran(*convert)
    put_back(penn, "0007", tmp_path)
    ran(*convert)
    shown = ran(*copy).out
    assert f"{PENN}: copied 40 rows with homography\n" in shown
    assert "! homography of penn_action/train is incomplete: 24 of 40 rows copied, 16 missing in " in shown
    for track, rows in into.rows(penn.root, PENN, "features/homography").items():
        if track not in ("0007/0", "0009/0"):
            np.testing.assert_array_equal(into.rows(copied, PENN, "features/homography")[track], rows)
    assert f"{PENN}: up to date\n" in ran(*copy).out
    assert cache.verify(copied).ok

    alone = Path(shutil.copytree(copied, tmp_path / "alone"))
    assert "extracted, 16 rows computed" in extract("homography", root=alone)
    extract("homography")
    assert f"{PENN}: copied homography\n" in ran(*copy).out
    for root in (copied, alone):
        found = into.rows(root, PENN, "features/homography")
        for track, rows in into.rows(penn.root, PENN, "features/homography").items():
            np.testing.assert_array_equal(found[track], rows)
    assert arrays_of(into, copied, "homography") == arrays_of(into, alone, "homography")
    assert f"{PENN}: up to date\n" in ran(*copy).out
