"""Hostile raw files over all readers: code, paths, damage, crash, hang, memory.

Each is good tracks, a counted reason, or a reader process that was ended in its place; nothing else
is touched, nothing is run and nothing is written.
"""

import json
import os
import random
import re
import shutil
import struct
import traceback
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import pytest

from pipeline import datasets
from pipeline.conversion import convert, reading
from pipeline.datasets import RELEASES
from pipeline.files.pixels.sources import parse
from pipeline.processes import Failed
from pipeline.processes.ordered import ordered_map
from pipeline.track import column_problems
from tests.hostile import THINGS
from tests.pipeline.datasets.by_hand import write_video
from tests.pipeline.files.made_detections import CASES, SIZE, N, write
from tests.trees import contents
from tests.waiting import with_growing_limit

pytestmark = pytest.mark.processes

MIB = 1 << 20
PATIENCE = 20  # s for a case; the usual one takes a hundredth of a second
# a picture of 8192 x 8192, the largest accepted, takes 200 MiB, and is decoded into a second one
MEMORY = 1100 * MIB
# of bits, for each kind of file, in `make test-slow`
FLIPS = int(os.environ.get("HOSTILE_FLIPS", "4"))
MATLAB = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
IN_LIBRARIES = (".mat", ".cdf")  # files whose reader may crash, hang or swell; it is ended then

FILES = {  # of another kind
    "html": b"<!DOCTYPE html><html><body>Please log in to download this file</body></html>\n" * 20,
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xff\xff\x00\x00\xff\xff\x08\x02\x00\x00\x00"
    + bytes(400),
    "gzip": b"\x1f\x8b\x08\x00" + bytes(300),
    "zip": b"PK\x03\x04" + bytes(300),
    "pickle": b"cos\nsystem\n(S'touch hostile'\ntR.",
    "nested": b"[" * 100_000,
}


def flipped(data, seed):
    """One to four bits flipped, half of the time among the first 600 bytes, where headers are."""
    rng = random.Random(seed)
    out = bytearray(data)
    reach = min(len(out), 600) if seed % 2 else len(out)
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwritten(data, seed):
    """A stretch of bytes all ones: lengths and counts become huge, floats NaN."""
    rng = random.Random(seed)
    n = rng.choice((2, 4, 8, 16))
    start = rng.randrange(max(1, min(len(data), 2000 if seed % 2 else len(data)) - n))
    return data[:start] + b"\xff" * n + data[start + n :]


def spliced(data, seed):
    """A stretch taken out: all that follows is shifted."""
    rng = random.Random(seed)
    start = rng.randrange(max(1, len(data) - 1))
    return data[:start] + data[start + rng.randint(1, 64) :]


def claiming(data, side):
    """A JPEG whose header claims `side` px of height and width."""
    start = next(at for at in range(len(data)) if data[at : at + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return data[: start + 5] + 2 * side.to_bytes(2, "big") + data[start + 9 :]


CONTENT = {
    "truncated": lambda data, part: data[: len(data) * part // 1000],
    "cut_off": lambda data, n: data[:-n],
    "flipped": flipped,
    "overwritten": overwritten,
    "spliced": spliced,
    "claiming": claiming,
    "zeros": lambda data, _: bytes(len(data)),
    "doubled": lambda data, _: data + data,
}


def put(path, kind, argument):
    """Replace the file at `path` by something hostile."""
    data = path.read_bytes()
    path.unlink()
    if kind in THINGS:
        THINGS[kind](path)
    else:
        path.write_bytes(FILES[kind] if kind in FILES else CONTENT[kind](data, argument))


class Case(NamedTuple):
    folder: str  # with the untouched dataset, beside which each process has a copy
    dataset: str
    file: str
    kind: str
    argument: Any = 0


def examine(case):
    """What a reader did wrong with one hostile file; empty: it behaved. In a process of its own."""
    good = Path(case.folder, case.dataset)
    raw = good.with_name(f"{case.dataset}-{os.getpid()}")
    if not raw.is_dir():
        shutil.copytree(good, raw)
    dataset, target = datasets.get(case.dataset), raw / case.file
    before = {split: affected(dataset, raw, split, Path(case.file)) for split in dataset.splits}
    put(target, case.kind, case.argument)
    problems = []
    try:
        for split, (touched, others) in before.items():
            videos = {video.name: video for video in dataset.videos(raw, split)}
            if lost := others - videos.keys():
                problems.append(f"{split}: {sorted(lost)} are not listed any more")
            for name in sorted(touched & videos.keys()):
                problems += reading_problems(dataset, split, raw, videos[name])
    except MemoryError:
        raise
    except Exception:
        problems.append(traceback.format_exc(limit=-4))
    if case.kind == "folder":
        target.rmdir()
    target.unlink(missing_ok=True)
    shutil.copyfile(good / case.file, target)
    return problems


def affected(dataset, raw, split, file):
    """Names of the videos that a file belongs to, and of all others."""
    touched, others = set(), set()
    for video in dataset.videos(raw, split):
        belongs = file in video.files or file.parent in (*video.folders, *video.label_folders)
        (touched if belongs else others).add(video.name)
    return touched, others


def reading_problems(dataset, split, raw, video):
    """One video as conversion reads it, then its pixels as extraction does."""
    read = reading.read_video(dataset, split, raw, None, video)
    if read.account.set_aside == reading.UNEXPECTED:
        return [read.account.message]
    read.account.check()
    problems = [
        f"{track.name}: {problem}"
        for track in read.tracks
        for problem in column_problems(track.columns)
    ]
    if read.entry.source:
        source = parse(raw, read.entry.source)
        for track in read.tracks:
            wanted = track.columns["frame_index"].tolist()
            frames = [frame.index for frame in source.read(wanted)]
            if frames != wanted:
                problems.append(f"{track.name}: frames {frames} were read in the place of {wanted}")
    return problems


def kinds_of_file(raw):
    """One file, the first by name, of every kind in a raw folder."""
    first = {}
    for path in sorted(raw.rglob("*")):
        below = path.relative_to(raw)
        if path.is_file() and path.name != "STAND_IN.json":
            folders = [re.sub(r"\d+", "#", part) for part in below.parts[:-1]]
            first.setdefault(
                (path.suffix, re.sub(r"\d+", "#", path.stem), *folders), below.as_posix()
            )
    by_place = {}
    for (suffix, _, *folders), file in first.items():
        by_place.setdefault((suffix, folders[0] if folders else "", len(folders)), []).append(file)
    return [file for files in by_place.values() for file in files[:2]]


def cases(folder, dataset, file, seed, thorough, kinds):
    found = [("cut_off", 7)]
    found += [
        ("truncated", part) for part in ((0, 1, 30, 300, 600, 900, 999) if thorough else (0, 300))
    ]
    # most make cdflib hang
    for i in range((FLIPS if thorough else 2) // (2 if file.endswith(".cdf") else 1)):
        found += [("flipped", seed + i), (("overwritten", "spliced")[i % 2], seed + i)]
    if file.endswith(".jpg"):
        found += [
            ("claiming", side) for side in ((60_000, 8192, 8193) if thorough else (60_000, 8193))
        ]
    found += [(kind, 0) for kind in kinds]
    return (Case(folder, dataset, file, *kind) for kind in found)


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "all"])
def assert_harmless(request, tmp_path, monkeypatch):
    """Hostile variants of these files cost their own video and nothing else. `raw` is called as its
    dataset.
    """
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def check(raw, files):
        below = str(raw.parent), raw.name
        kinds = ("zeros", "doubled", *FILES, *THINGS)
        step = 1 if request.param else min(3, len(files))  # each file has every third kind
        todo = [
            case
            for i, file in enumerate(files)
            for case in cases(*below, file, 1000 * i, request.param, kinds[i % step :: step])
        ]
        found = zip(
            todo, ordered_map(examine, todo, 2, timeout=PATIENCE, memory=MEMORY), strict=True
        )
        failures, ended = [], set()
        for case, first in found:
            result = first
            if (
                isinstance(first, Failed)
                and first.reason == "reader_timeout"
                and not case.file.endswith(IN_LIBRARIES)
            ):
                # it was slow, or hangs at any limit
                (result,) = ordered_map(examine, [case], 1, memory=MEMORY)
                ended.add(case.file)  # its copy is as it was left
            what = " | ".join([result.message] if isinstance(result, Failed) else result)
            if isinstance(result, Failed) and case.file.endswith(IN_LIBRARIES):
                ended.add(case.file)
            elif what:
                failures.append(f"{case.file} {case.kind} {case.argument}: {what}")
        assert not failures, "\n".join(failures)
        assert not list(here.iterdir()), "something was written into the current folder"
        copies = [copy for copy in raw.parent.iterdir() if copy != raw]
        assert copies
        for copy in copies if not ended else []:
            assert contents(copy) == contents(raw), "something was written beside the case"

    return check


@pytest.mark.parametrize("name", RELEASES)
def test_damaged_files_cost_their_own_video_and_nothing_else(
    name, embedded, tmp_path, assert_harmless
):
    raw = embedded.copy(name, tmp_path / "raw" / name)
    assert_harmless(raw, kinds_of_file(raw))


def test_damaged_files_of_every_detector_cost_their_own_clip(tmp_path, assert_harmless):
    suffixes = {
        "coco": ".json",
        "alphapose": ".json",
        "mmpose demo": ".json",
        "mmpose inferencer": ".json",
    }
    suffixes |= {"mot": ".txt", "csv": ".csv", "yolo pose": ""}
    raw, files = tmp_path / "raw/videos", []
    for k, (name, suffix) in enumerate(suffixes.items()):
        write_video(raw / f"{k}.mp4", N, size=SIZE, step=0)
        write(raw / f"keypoints/{k}{suffix}", CASES[name].files)
        files.append(f"keypoints/{k}{suffix or '/c_1.txt'}")
    assert_harmless(raw, files)


def element(kind, content):
    """A piece of a MATLAB v5 file."""
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def mat_that_crashes_scipy(file):
    """The type of a variable's numbers is 255, which SciPy takes for an index."""
    head = (
        element(6, struct.pack("<II", 6, 0))
        + element(5, struct.pack("<2i", 2, 1))
        + element(1, b"x")
    )
    file.write_bytes(MATLAB + element(14, head + element(255, bytes(16))))


def mat_that_swells(file):
    """A compressed variable that claims 2 GiB of numbers."""
    n_bytes = 1 << 31
    head = (
        element(6, struct.pack("<II", 6, 0))
        + element(5, struct.pack("<2i", n_bytes >> 3, 1))
        + element(1, b"x")
    )
    start = struct.pack("<II", 14, len(head) + 8 + n_bytes) + head + struct.pack("<II", 9, n_bytes)
    packed = zlib.compress(start + bytes(1 << 24))
    file.write_bytes(MATLAB + struct.pack("<II", 15, len(packed)) + packed)


def hdf5_that_swells(file):
    """A chunk of some hundred bytes inflates to 1 GiB."""
    deflate = zlib.compressobj()
    start, block = (
        deflate.compress(bytes(1 << 24)) + deflate.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    with h5py.File(file, "r+") as stored:
        shape = (stored["annot2"].shape[0], 1, 17, 2)
        del stored["annot2"]
        written = stored.create_dataset(
            "annot2", shape, "f8", chunks=(1, 1, 17, 2), compression="gzip"
        )
        written.id.write_direct_chunk((0, 0, 0, 0), start + 63 * block)


def cdf_that_hangs_cdflib(file):
    """2^31 - 1 variables, of which each is the one before."""
    data = bytearray(file.read_bytes())
    (overall,) = struct.unpack_from(">q", data, 20)
    (variable,) = struct.unpack_from(">q", data, overall + 20)
    struct.pack_into(">i", data, overall + 60, 2**31 - 1)
    struct.pack_into(">q", data, variable + 12, variable)
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "split", "pattern", "spoil", "reasons"),
    [
        # SciPy reads beyond a table: what is there decides whether that ends the process.
        (
            "penn_action",
            "train",
            "labels/0003.mat",
            mat_that_crashes_scipy,
            "reader_crashed or bad_label_file",
        ),
        ("penn_action", "train", "labels/0003.mat", mat_that_swells, "reader_memory"),
        # it reports that itself
        ("mpi_inf_3dhp", "test", "**/annot_data.mat", hdf5_that_swells, "bad_label_file"),
        (
            "h36m",
            "train",
            "S1/MyPoseFeatures/D2_Positions/*.cdf",
            cdf_that_hangs_cdflib,
            "reader_timeout",
        ),
    ],
)
def test_a_file_at_which_a_library_fails_costs_its_own_video(
    name, split, pattern, spoil, reasons, embedded, tmp_path
):
    raw = embedded.copy(name, tmp_path / "raw")
    spoil(next(raw.glob(pattern)))

    def judge(limit):
        plan = convert.plan_conversion(
            datasets.get(name), split, raw=raw, root=tmp_path / f"cache{limit}"
        )
        done = convert.convert(plan, timeout=limit, memory=512 * MIB)
        assert [account.set_aside in reasons.split(" or ") for account in done.rejected] == [True]
        assert done.totals["videos"]["kept"] == done.totals["videos"]["found"] - 1
        again = convert.plan_conversion(datasets.get(name), split, raw=raw, root=done.plan.root)
        assert again.up_to_date

    with_growing_limit(judge, 3 if reasons == "reader_timeout" else 60)


def reasons_of(name, raw):
    """Why the videos were rejected."""
    dataset = datasets.get(name)
    videos = [(split, video) for split in dataset.splits for video in dataset.videos(raw, split)]
    return {dataset.read_accounted(raw, split, video)[1].set_aside for split, video in videos}


def test_a_pickle_that_would_run_code_runs_none(embedded, tmp_path):
    raw, mark = embedded.copy("3dpw", tmp_path / "raw"), tmp_path / "mark"
    for file in raw.glob("sequenceFiles/*/*.pkl"):
        file.write_bytes(f"cos\nsystem\n(S'touch {mark}'\ntR.".encode())
    assert reasons_of("3dpw", raw) == {"unsafe_pickle"}
    assert not mark.exists()


@pytest.mark.parametrize(
    "path", ["../../outside/{}", "/etc/{}", "images/../../outside/{}", "images\\..\\{}", ""]
)
def test_a_path_in_an_annotation_does_not_lead_outside(path, embedded, tmp_path):
    raw = embedded.copy("posetrack", tmp_path / "raw")
    (tmp_path / "outside").mkdir()
    for file in raw.glob("posetrack_data/annotations/*/*.json"):
        label = json.loads(file.read_bytes())
        for image in label["images"]:
            name = Path(image["file_name"]).name
            # there is something to be found
            shutil.copy(raw / image["file_name"], tmp_path / "outside" / name)
            image["file_name"] = path.format(name)
        file.write_text(json.dumps(label))
    assert reasons_of("posetrack", raw) == {"path_outside"}
