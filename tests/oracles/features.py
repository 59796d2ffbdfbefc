"""Features of single rows, computed apart from the extraction.  tracks -> [features]

A checksum cannot show that a row has the numbers of another frame. `compute_rows` finds the frame
and box of each row by itself, decodes that frame alone, and computes the row. With the extraction,
it shares the decoder, the crop, reading labels, and the stream's own code.

    python tests/oracles/features.py CACHE N

compares N rows of each stream in a cache with their stored numbers.
"""

import functools
import sys

import numpy as np

import cache
from pipeline.features import streams
from pipeline.features.committed import IMPORTED
from pipeline.features.inputs import column, crop_labels, find_crops, label_batch
from pipeline.features.streams import compute_batch, compute_labels, compute_row, load
from pipeline.features.streams.base import Machine
from pipeline.people.boxes import crop_person
from pipeline.steps.raw_images import pixels

# Relative difference that no sound row reaches. Rows differ by up to 0.0004 (float16, batches of
# other rows), successive frames of demo data by at least 0.05.
SAME = 0.002


def computed_rows(split, name):
    """The rows of the split's tracks that have features."""
    rows = [np.arange(track.start, track.stop) for track in split.tracks]
    live = np.concatenate([np.zeros(0, np.int64), *rows])
    return live[column(split, f"features/{name}_ok", live) == cache.COMPUTED]


def compute_rows(split, name, rows):
    """Features (n, dim) of a stream's rows, NaN where they are unknown."""
    stream = _recorded_stream(split, name)
    computer, _ = load(stream, Machine(), split.open_stream(name).manifest["backbone"])
    computed = np.full((len(rows), stream.dim), np.nan, np.float32)
    if not stream.reads.crops:
        labels = label_batch(split, np.asarray(rows, np.int64), stream.reads)
        values, known = compute_labels(stream, computer, labels, len(rows))
        computed[known] = values[known]
        return computed
    images = _images(split, stream)
    if computer is not None:
        for start in range(0, len(rows), computer.batch_size):
            some = np.asarray(rows[start : start + computer.batch_size])
            crops = [images(row)[0] for row in some.tolist()]
            computed[start : start + len(some)] = _run_network(split, stream, computer, some, crops)
        return computed
    for i, row in enumerate(rows):
        (cut,) = find_crops(split, stream, np.array([row]))["cut"]
        labels = label_batch(split, np.array([row]), stream.reads)
        of_row = crop_labels({label: values[0] for label, values in labels.items()}, cut)
        numbers = compute_row(stream, images(row), of_row, f"row {row}")
        if numbers is not None:
            computed[i] = numbers
    return computed


def _recorded_stream(split, name):
    """The stream with its recorded options, and the file of weights that provenance.json names."""
    identity = split.open_stream(name).manifest["identity"]
    stream = streams.of_identity(identity)
    file = split.open_stream(name).provenance.get("weights_file")
    if stream is None and file is not None:
        weights = {"kind": identity["weights"]["kind"], "argument": file}
        stream = streams.of_identity({**identity, "weights": weights})
    assert stream is not None, f"{split.name}: {name} cannot be computed here"
    assert stream.identity() == identity, f"{split.name}: {name} has other weights now"
    return stream


def _images(split, stream):
    """A function from a row to the images that it is computed from: its own is the last."""
    pixels_of = pixels(split, None)

    @functools.lru_cache(maxsize=64)
    def decode(video, number):
        (frame,) = pixels_of(video).decode(iter([number]))
        assert frame.image is not None, frame.problem
        return frame

    def images(row):
        (track,) = split.track_of(np.array([row]))
        video = int(split.tracks.video[track])
        (cut,) = find_crops(split, stream, np.array([row]))["cut"]
        size = stream.policy.size
        numbers = split.rows("frame_index", row + 1 - stream.reads.crops, row + 1).tolist()
        frames = [decode(video, number).image for number in numbers]
        if stream.reads.is_whole:
            return frames
        crop = functools.partial(
            crop_person, bbox=cut["bbox"], scale=cut["scale"], size=size, mirrored=cut["mirrored"]
        )
        return [*map(crop, frames)]

    return images


def _run_network(split, stream, computer, rows, crops):
    """Features (n, dim) of n crops of rows, which are at most a batch. The batch repeats them."""
    filled = np.arange(computer.batch_size) % len(rows)
    memory = np.zeros((computer.batch_size * computer.lanes, *crops[0].shape), np.uint8)
    memory[: computer.batch_size] = np.stack(crops)[filled]
    computer.adopt(memory)
    try:
        batch = memory[: computer.batch_size][:, *stream.policy.slices]
        labels = label_batch(split, rows[filled], stream.reads)
        return np.array(compute_batch(stream, computer, batch, labels)[: len(rows)])
    finally:
        computer.release()


def differences(split, name, rows=None):
    """How much stored rows (default: all that have features) differ from computed ones: (n,).

    Of each part of a row, such as an output of a graph, |stored - computed| / the larger norm; of
    the parts, the largest.
    """
    chosen = computed_rows(split, name) if rows is None else np.asarray(rows)
    stored = column(split, f"features/{name}", chosen).astype(np.float64)
    computed = compute_rows(split, name, chosen.tolist()).astype(np.float64)
    recorded = (split.open_stream(name).manifest["backbone"] or {}).get("parts", [])
    starts = [int(part["offset"]) for part in recorded[1:]]
    largest = np.zeros(len(chosen))
    for stored_part, part in zip(
        np.split(stored, starts, axis=1), np.split(computed, starts, axis=1), strict=True
    ):
        norms = [np.linalg.norm(values, axis=1) for values in (stored_part, part)]
        size = np.maximum(np.maximum(*norms), np.finfo(np.float32).tiny)
        largest = np.maximum(largest, np.linalg.norm(stored_part - part, axis=1) / size)
    return largest


def main(root, n):
    """Print the largest difference of each stream's rows. Returns 1 if a row is another one's, or
    if a stream has no rows.
    """
    code = 0
    rng = np.random.default_rng(0)
    opened = cache.open(root)
    for split in (opened[name] for name in opened.splits):
        for name in split.streams:
            if split.open_stream(name).manifest.get("identity", {}).get("kind") == IMPORTED:
                continue
            rows = computed_rows(split, name)
            rows = np.sort(rng.choice(rows, min(n, len(rows)), replace=False))
            found = differences(split, name, rows)
            is_sound = len(found) > 0 and bool((found < SAME).all())
            code = code if is_sound else 1
            print(f"{split.name}, {name}: {len(found)} rows, {found.max(initial=0):.2%}")  # noqa: T201
    return code


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tests/oracles/features.py CACHE N")
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
