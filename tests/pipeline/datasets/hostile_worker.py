"""A process that reads mutated raw files and says what came of it: one line of JSON in, one out.

    hostile_worker.py FOLDER

FOLDER/<dataset> are copies of embedded datasets, to be changed; each case is undone after it. That a case crashes,
hangs or fills memory is for the parent to see.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 1 << 20
ADDRESS_SPACE = 12 * 1024 * MIB  # a reader that trusts a claimed size meets MemoryError, and the machine lives on
HTML = b"<!DOCTYPE html><html><body>Please log in to download this file</body></html>\n" * 20
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xff\xff\x00\x00\xff\xff\x08\x02\x00\x00\x00" + bytes(400)
GZIP = b"\x1f\x8b\x08\x00" + bytes(300)
ZIP = b"PK\x03\x04" + bytes(300)
PICKLE = b"cos\nsystem\n(S'touch hostile'\ntR."


def flipped(data: bytes, seed: int) -> bytes:
    """One to four bits flipped, half of the time among the first 600 bytes, where headers are."""
    rng = random.Random(seed)
    out = bytearray(data)
    reach = min(len(out), 600) if seed % 2 else len(out)
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwritten(data: bytes, seed: int) -> bytes:
    """A stretch of bytes all ones: lengths and counts become huge, floats NaN."""
    rng = random.Random(seed)
    n = rng.choice((2, 4, 8, 16))
    start = rng.randrange(max(1, min(len(data), 2000 if seed % 2 else len(data)) - n))
    return data[:start] + b"\xff" * n + data[start + n :]


def spliced(data: bytes, seed: int) -> bytes:
    """A stretch taken out: all that follows is shifted."""
    rng = random.Random(seed)
    start = rng.randrange(max(1, len(data) - 1))
    return data[:start] + data[start + rng.randint(1, 64) :]


def claiming(data: bytes, side: int) -> bytes:
    """A JPEG whose header says that it is `side` px high and wide."""
    start = next(at for at in range(len(data)) if data[at : at + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return data[: start + 5] + 2 * side.to_bytes(2, "big") + data[start + 9 :]


CONTENT: dict[str, Callable[[bytes, int], bytes]] = {
    "truncated": lambda data, part: data[: len(data) * part // 1000],
    "cut_off": lambda data, n: data[:-n],
    "flipped": flipped,
    "overwritten": overwritten,
    "spliced": spliced,
    "claiming": claiming,
    "zeros": lambda data, _: bytes(len(data)),
    "doubled": lambda data, _: data + data,
    "html": lambda *_: HTML,
    "png": lambda *_: PNG,
    "gzip": lambda *_: GZIP,
    "zip": lambda *_: ZIP,
    "pickle": lambda *_: PICKLE,
    "nested": lambda *_: b"[" * 100_000,
    "given": lambda *_: b"",  # replaced by the case's own bytes
}


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


THINGS: dict[str, Callable[[Path], None]] = {
    "folder": lambda path: path.mkdir(),
    "dangling": _link("nowhere/at/all"),
    "loop": lambda path: path.symlink_to(path.name),
    "fifo": lambda path: os.mkfifo(path),
    "endless": _link("/dev/zero"),
    "absent": lambda path: None,
}


def put(path: Path, kind: str, argument: Any) -> None:
    """What lies at `path` is replaced by something hostile."""
    data = path.read_bytes()
    path.unlink()
    if kind in THINGS:
        THINGS[kind](path)
    elif kind == "given":
        path.write_bytes(bytes.fromhex(argument))
    else:
        path.write_bytes(CONTENT[kind](data, argument))


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def examine(raw: Path, case: dict[str, Any]) -> list[str]:
    """What a reader did wrong with one mutated file; empty: it behaved."""
    from pipeline import datasets

    dataset, target = datasets.get(case["dataset"]), raw / case["file"]
    whole = target.read_bytes()
    before = {split: affected(dataset, raw, split, Path(case["file"])) for split in dataset.splits}
    put(target, case["kind"], case["argument"])
    problems = []
    try:
        for split, (touched, others) in before.items():
            videos = {video.name: video for video in dataset.videos(raw, split)}
            if lost := others - videos.keys():
                problems.append(f"{split}: {sorted(lost)} are not listed any more")
            for name in sorted(touched & videos.keys()):
                problems += reading_problems(dataset, split, raw, videos[name])
    except Exception:
        problems.append(traceback.format_exc(limit=-4))
    finally:
        remove(target)
        target.write_bytes(whole)
    return problems


def affected(dataset: Any, raw: Path, split: str, file: Path) -> tuple[set[str], set[str]]:
    """Names of the videos that a file belongs to, and of all others."""
    touched, others = set(), set()
    for video in dataset.videos(raw, split):
        belongs = file in video.files or file.parent in (*video.folders, *video.label_folders)
        (touched if belongs else others).add(video.name)
    return touched, others


def reading_problems(dataset: Any, split: str, raw: Path, video: Any) -> list[str]:
    """One video as conversion reads it, then its pixels as extraction does."""
    from pipeline.conversion import convert
    from pipeline.datasets import contract
    from pipeline.pixels import sources

    read = convert._read_one(dataset, split, raw, None, video)
    if read.account.set_aside == convert.UNEXPECTED:
        return [read.account.message]
    read.account.check()
    problems = [
        f"{rows.name}: {problem}" for rows in read.rows for problem in contract.column_problems(dict(rows.columns))
    ]
    if read.entry.source:
        source = sources.parse(raw, read.entry.source)
        for rows in read.rows:
            wanted = rows.columns["frame_index"].tolist()
            frames = [frame.index for frame in source.read(wanted)]
            if frames != wanted:
                problems.append(f"{rows.name}: frames {frames} were read in the place of {wanted}")
    return problems


def main() -> None:
    folder = Path(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what decoders print goes elsewhere
    import cv2

    import pipeline.conversion.convert  # noqa: F401 - what is loaded once counts for no case

    cv2.setNumThreads(1)
    for line in sys.stdin:
        case = json.loads(line)
        problems = examine(folder / case["dataset"], case)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({"problems": problems, "peak_mib": peak}), file=answers, flush=True)


if __name__ == "__main__":
    main()
