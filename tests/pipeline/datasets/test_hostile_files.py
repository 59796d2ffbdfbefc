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
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h5py
import pytest

from pipeline import datasets
from pipeline.datasets import RELEASES
from pipeline.files.pixels.sources import parse
from pipeline.files.raw import MARKER
from pipeline.people.track import column_problems
from pipeline.processes import Failed
from pipeline.processes.ordered import ordered_map
from pipeline.steps.conversion import convert, reading
from tests.fixtures import planned
from tests.hostile import THINGS
from tests.pipeline.clips.labels.made_detections import CASES, SIZE, N, write
from tests.pipeline.datasets.by_hand import write_video
from tests.pipeline.datasets.made_smplx import write_models
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


def flip(data, rng):
    """One to four bits flipped, half of the time among the first 600 bytes, where headers are."""
    out = bytearray(data)
    reach = min(len(out), rng.choice((600, len(out))))
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite(data, rng):
    """A stretch of bytes all ones: lengths and counts become huge, floats NaN."""
    n = rng.choice((2, 4, 8, 16))
    start = rng.randrange(max(1, min(len(data), rng.choice((2000, len(data)))) - n))
    return data[:start] + b"\xff" * n + data[start + n :]


def splice(data, rng):
    """A stretch taken out: all that follows is shifted."""
    start = rng.randrange(max(1, len(data) - 1))
    return data[:start] + data[start + rng.randint(1, 64) :]


def claiming(side):
    """A JPEG whose header claims `side` px of height and width."""

    def change(data, rng):
        start = min(at for at in (data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) if at >= 0)
        return data[: start + 5] + 2 * side.to_bytes(2, "big") + data[start + 9 :]

    return change


CUTS = {f"{part}/1000": part for part in (0, 1, 30, 300, 600, 900, 999)}
CLAIMS = {f"claiming {side}": claiming(side) for side in (60_000, 8193, 8192)}
CHANGES = {
    "cut off": lambda data, rng: data[:-7],
    **{name: lambda data, rng, n=n: data[: len(data) * n // 1000] for name, n in CUTS.items()},
    "flip": flip,
    "overwrite": overwrite,
    "splice": splice,
    **CLAIMS,
    "zeros": lambda data, rng: bytes(len(data)),
    "doubled": lambda data, rng: data + data,
    **{kind: lambda data, rng, content=content: content for kind, content in FILES.items()},
}


class Case(NamedTuple):
    """What becomes of a file of the dataset in `good`, beside which each process has a copy."""

    good: Path
    file: str
    kind: str
    seed: int

    @property
    def body(self):
        """The folder of the body model, if there is one."""
        folder = self.good.parent.parent / "body"
        return folder if folder.is_dir() else None

    def put(self, path):
        data = path.read_bytes()
        path.unlink()
        if self.kind in THINGS:
            THINGS[self.kind](path)
        else:
            path.write_bytes(CHANGES[self.kind](data, random.Random(self.seed)))


def examine(case):
    """What a reader did wrong with one hostile file; empty: it behaved. In a process of its own."""
    dataset = datasets.get(case.good.name)
    raw = case.good.with_name(f"{case.good.name}-{os.getpid()}")
    if not raw.is_dir():
        shutil.copytree(case.good, raw)
    target = raw / case.file
    before = {split: list(dataset.videos(raw, split)) for split in dataset.splits}
    case.put(target)
    problems = []
    try:
        for split, listed in before.items():
            videos = {video.name: video for video in dataset.videos(raw, split)}
            for video in listed:
                if belongs(Path(case.file), video):
                    if video.name in videos:
                        read = reading.VideoReader(dataset, split, raw, case.body, None).read
                        problems += reading_problems(raw, read(videos[video.name]))
                elif video.name not in videos:
                    problems.append(f"{split}: {video.name} is not listed any more")
    except MemoryError:
        raise
    except Exception:
        problems.append(traceback.format_exc(limit=-4))
    if case.kind == "folder":
        target.rmdir()
    target.unlink(missing_ok=True)
    shutil.copyfile(case.good / case.file, target)
    return problems


def belongs(file, video):
    return file in video.files or file.parent in (*video.folders, *video.label_folders)


def reading_problems(raw, read):
    """Of one video as conversion reads it, then of its pixels as extraction does."""
    if read.account.set_aside == reading.UNEXPECTED:
        return [read.account.message]
    read.account.check()
    problems = []
    for track in read.tracks:
        problems += [f"{track.name}: {problem}" for problem in column_problems(track.columns)]
        if read.entry.source:
            wanted = track.columns["frame_index"].tolist()
            frames = [frame.index for frame in parse(raw, read.entry.source).read(wanted)]
            if frames != wanted:
                problems.append(f"{track.name}: frames {frames} were read in place of {wanted}")
    return problems


def kinds_of_file(raw):
    """Two files, the first by name, of every kind in a raw folder: suffix, depth, first folder."""
    names = {}
    for path in sorted(raw.rglob("*")):
        below = path.relative_to(raw)
        if path.is_file() and path.name != MARKER:
            first = re.sub(r"\d+", "#", below.parts[0])
            kind = path.suffix, len(below.parts), first if len(below.parts) > 1 else ""
            form = re.sub(r"\d+", "#", below.as_posix())
            names.setdefault(kind, {}).setdefault(form, below.as_posix())
    return [file for forms in names.values() for file in [*forms.values()][:2]]


def cases(good, file, number, thorough, kinds):
    """Of the `number`-th file."""
    found = ["cut off", *(CUTS if thorough else ("0/1000", "300/1000"))]
    n_flips = FLIPS if thorough else 2
    if file.endswith(".cdf"):  # most make cdflib hang
        n_flips //= 2
    for i in range(n_flips):
        found += ["flip", ("overwrite", "splice")[i % 2]]
    if file.endswith(".jpg"):
        found += [*CLAIMS][: 3 if thorough else 2]
    return [Case(good, file, kind, 1000 * number + i) for i, kind in enumerate([*found, *kinds])]


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "all"])
def assert_harmless(request, tmp_path, monkeypatch):
    """Hostile variants of these files cost their own video and nothing else. `raw` is called as its
    dataset.
    """
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def check(raw, files):
        kinds = ("zeros", "doubled", *FILES, *THINGS)
        step = 1 if request.param else min(3, len(files))  # each file has every third kind
        todo = []
        for i, file in enumerate(files):
            todo += cases(raw, file, i, request.param, kinds[i % step :: step])
        results = ordered_map(examine, todo, 2, timeout=PATIENCE, memory=MEMORY)
        failures, n_ended = [], 0
        for case, first in zip(todo, results, strict=True):
            result, in_library = first, case.file.endswith(IN_LIBRARIES)
            is_late = isinstance(first, Failed) and first.reason == "reader_timeout"
            if is_late and not in_library:
                # it was slow, or hangs at any limit
                (result,) = ordered_map(examine, [case], 1, memory=MEMORY)
            is_ended = isinstance(result, Failed)
            n_ended += is_ended or is_late  # its copy is as it was left
            if result and not (is_ended and in_library):
                what = result.message if is_ended else " | ".join(result)
                failures.append(f"{case.file} {case.kind} {case.seed}: {what}")
        assert not failures, "\n".join(failures)
        assert not list(here.iterdir()), "something was written into the current folder"
        copies = [copy for copy in raw.parent.iterdir() if copy != raw]
        assert copies
        if not n_ended:
            for copy in copies:
                assert contents(copy) == contents(raw), "something was written beside the case"

    return check


@pytest.mark.promise("contained")
@pytest.mark.parametrize("name", RELEASES)
def test_damaged_files_cost_their_own_video_and_nothing_else(
    name, embedded, tmp_path, assert_harmless
):
    raw = embedded.copy(name, tmp_path / "raw" / name)
    if datasets.get(name).labels.needs_body:
        (tmp_path / "body").mkdir()
        write_models(tmp_path / "body")
    assert_harmless(raw, kinds_of_file(raw))


DETECTORS = {
    "coco": ".json", "alphapose": ".json", "mmpose demo": ".json", "mmpose inferencer": ".json",
    "mot": ".txt", "csv": ".csv", "yolo pose": "",
}  # fmt: skip


def test_damaged_files_of_every_detector_cost_their_own_clip(tmp_path, assert_harmless):
    raw, files = tmp_path / "raw/videos", []
    for k, (name, suffix) in enumerate(DETECTORS.items()):
        write_video(raw / f"{k}.mp4", N, size=SIZE, step=0)
        write(raw / f"keypoints/{k}{suffix}", CASES[name].files)
        files.append(f"keypoints/{k}{suffix or '/c_1.txt'}")
    assert_harmless(raw, files)


def element(kind, content):
    """A piece of a MATLAB v5 file."""
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def variable(*shape):
    """What comes before the numbers of a variable x."""
    dimensions = element(5, struct.pack("<2i", *shape))
    return element(6, struct.pack("<II", 6, 0)) + dimensions + element(1, b"x")


def mat_that_crashes_scipy(file):
    """The type of a variable's numbers is 255, which SciPy takes for an index."""
    file.write_bytes(MATLAB + element(14, variable(2, 1) + element(255, bytes(16))))


def mat_that_swells(file):
    """A compressed variable that claims 2 GiB of numbers."""
    n_bytes = 1 << 31
    head = variable(n_bytes >> 3, 1)
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


PENN = ("penn_action", "train", "labels/0003.mat")
TEST = ("mpi_inf_3dhp", "test", "**/annot_data.mat")


@pytest.mark.parametrize(
    ("place", "spoil", "reasons"),
    [
        # SciPy reads beyond a table: what is there decides whether that ends the process.
        (PENN, mat_that_crashes_scipy, "reader_crashed or bad_label_file"),
        (PENN, mat_that_swells, "reader_memory"),
        (TEST, hdf5_that_swells, "bad_label_file"),  # it reports that itself
        (("h36m", "train", "S1/*/D2_Positions/*.cdf"), cdf_that_hangs_cdflib, "reader_timeout"),
    ],
)
def test_a_file_at_which_a_library_fails_costs_its_own_video(
    place, spoil, reasons, embedded, tmp_path, monkeypatch
):
    name, split, pattern = place
    raw = embedded.copy(name, tmp_path / "raw")
    spoil(next(raw.glob(pattern)))

    def judge(limit):
        root = tmp_path / f"cache{limit}"
        plan = planned(datasets.get(name), split, raw, root)
        limited_map = partial(ordered_map, timeout=limit, memory=512 * MIB)
        monkeypatch.setattr("pipeline.processes.ordered.ordered_map", limited_map)
        videos = convert.convert(plan).document["accounting"]["videos"]
        (reason,) = videos["set_aside"]
        assert reason in reasons.split(" or ")
        assert videos["kept"] == videos["found"] - 1
        assert planned(datasets.get(name), split, raw, root).up_to_date

    with_growing_limit(judge, 3 if reasons == "reader_timeout" else 60)


def reasons_of(name, raw):
    """Why the videos were rejected."""
    dataset = datasets.get(name)
    videos = [(split, video) for split in dataset.splits for video in dataset.videos(raw, split)]
    return {dataset.read_accounted(raw, split, video)[1].set_aside for split, video in videos}


@pytest.mark.promise("contained")
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
