"""Finding people in clips: speed beside torchvision's own loop, memory, and the demo detector beside the truth.

    .venv/bin/python benchmarks/detection.py [--clips FILE ...] [--openpose VIDEO JSON] [--weights FILE|pretrained]

- Speed: `detect` with Keypoint R-CNN on the CPU, beside the loop of torchvision's documentation: one picture at a time
  through `keypointrcnn_resnet50_fpn`, under `inference_mode`. The same clips, the same weights, the default size of 800
  px, one run. Without --weights the network is untrained, with the scores of its boxes stretched so that a few pass.
  What both find is compared: boxes in px and OKS of keypoints, of detections that both score `min_score` or more.
- Memory: the most that `detect` takes with many tiny clips, and with one long clip, by the demo detector.
- Accuracy: the demo detector beside the truth of demo data.
- OpenPose's real output beside that of the pretrained network, where its weights can be had.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models.detection import KeypointRCNN

from pipeline import synthetic
from pipeline.detect import get, rcnn
from pipeline.detect.keypoint_rcnn import PRETRAINED
from pipeline.detect.run import Machine, detect_clips
from pipeline.errors import MissingAssets
from pipeline.files.formats.labels.detections import read_detections
from pipeline.files.pixels.frames import Video
from pipeline.files.raw.stand_in import MARKER
from pipeline.skeletons import convert

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import report

Floats = NDArray[np.floating]
ROOT: Final = Path(__file__).parents[1]
MIN_SCORE: Final = 0.7
# COCO's: standard deviations of annotators, times a person's scale. Lin et al.; cocodataset.org/#keypoints-eval.
SIGMAS: Final = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000


def oks(found: Floats, truth: Floats, area: float) -> float:
    """Object keypoint similarity of (17, 3) joints: over those that both have; 0 where there are none."""
    both = (found[:, 2] > 0) & (truth[:, 2] > 0)
    squared = ((found[:, :2] - truth[:, :2]) ** 2).sum(axis=1)
    similar = np.exp(-squared / (2 * max(area, 1.0) * (2 * SIGMAS) ** 2))
    return float(similar[both].mean()) if both.any() else 0.0


def busy() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


# ---------------------------------------------------------------------------------------------------------- speed


def untrained(file: Path, image: NDArray[np.uint8]) -> None:
    """Seeded weights with which a few boxes of a picture pass: the spread of their scores is stretched."""
    torch.manual_seed(0)
    network = rcnn.plain(800, 0.05).eval().requires_grad_(False)
    given: list[torch.Tensor] = []
    predictor: Any = network.roi_heads.box_predictor
    hook = predictor.register_forward_hook(lambda _, inputs, __: given.append(inputs[0].flatten(1)))
    with torch.inference_mode():
        network([torch.from_numpy(image).permute(2, 0, 1) / 255])
    hook.remove()
    score = predictor.cls_score
    raw = given[0] @ (score.weight[1] - score.weight[0])
    stretch = float(3 / raw.std())
    score.weight.mul_(stretch)
    score.bias.copy_(torch.tensor([float(torch.quantile(raw, 0.97)) * stretch, 1.0]))
    torch.save(network.state_dict(), file)


def torchvisions_loop(network: KeypointRCNN, clips: Sequence[Path]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """What it finds in each frame."""
    for clip in clips:
        capture = cv2.VideoCapture(str(clip))
        while True:
            there, bgr = capture.read()
            if not there:
                break
            picture = torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)).permute(2, 0, 1).float() / 255
            with torch.inference_mode():
                (found,) = network([picture])
            yield {key: value.numpy() for key, value in found.items()}


def speed(clips: Sequence[Path], n_frames: int, weights: str, work: Path) -> Iterator[str]:
    """The table's rows, and how the two agree."""
    raw, file = work / "raw", work / "w.pth"
    shortened = [shorten(clip, raw / f"{k}.avi", n_frames) for k, clip in enumerate(clips)]
    first = next(Video(raw, shortened[0].name).read([0])).image
    assert first is not None
    if not weights:
        untrained(file, first)
    detector: Any = get("keypoint_rcnn", weights=weights or str(file), min_score=MIN_SCORE, precision="exact")
    network = rcnn.plain(800, 0.05).eval().requires_grad_(False)
    network.load_state_dict(torch.load(detector.file(), weights_only=True))
    next(torchvisions_loop(network, shortened[:1]))  # the first picture of a network takes longer
    began, cpu = time.perf_counter(), busy()
    theirs = list(torchvisions_loop(network, shortened))
    plain = time.perf_counter() - began, busy() - cpu
    detector.load("cpu")([first])
    began, cpu = time.perf_counter(), busy()
    report = detect_clips(raw, work / "out", detector, Machine("cpu"))
    ours = time.perf_counter() - began, busy() - cpu
    began = time.process_time()
    for clip in shortened:
        list(Video(raw, clip.name).read(range(n_frames)))
    decoding = time.process_time() - began
    yield "| | frames | CPU s a frame | s a frame | frames/s |\n|---|---|---|---|---|"
    for name, (seconds, worked), n in (("torchvision's loop", plain, len(theirs)), ("`detect`", ours, report.frames)):
        yield f"| {name} | {n} | {worked / n:.2f} | {seconds / n:.2f} | {n / seconds:.2f} |"
    yield (
        f"\n`detect` takes {plain[1] / ours[1]:.2f} times less CPU time and {plain[0] / ours[0]:.2f} times less time. "
        f"Decoding: {decoding / report.frames * 1000:.1f} ms of a core a frame, "
        f"{decoding / (decoding + ours[1]):.1%} of the work."
    )
    found = [frame for clip in shortened for frame in _people(work / "out" / f"{clip.name}.json", n_frames)]
    yield agreement(found, [_sure(one) for one in theirs])


def shorten(clip: Path, to: Path, n_frames: int) -> Path:
    """The first frames of a clip, without loss, so that both decode the same."""
    to.parent.mkdir(parents=True, exist_ok=True)
    frames = list(Video(clip.parent, clip.name).read(range(n_frames)))
    height, width = frames[0].image.shape[:2]  # type: ignore[union-attr]
    writer = cv2.VideoWriter(str(to), cv2.VideoWriter.fourcc(*"FFV1"), 25, (width, height))
    for frame in frames:
        assert frame.image is not None, frame.problem
        writer.write(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    writer.release()
    return to


Person = tuple[Floats, Floats]  # (4,) box's corners, (17, 2) joints, px


def _people(file: Path, n_frames: int) -> list[list[Person]]:
    frames: list[list[Person]] = [[] for _ in range(n_frames)]
    for one in json.loads(file.read_text())["annotations"]:
        x, y, width, height = one["bbox"]
        box = np.array([x, y, x + width, y + height])
        frames[one["image_id"] - 1].append((box, np.array(one["keypoints"]).reshape(17, 3)[:, :2]))
    return frames


def _sure(found: dict[str, NDArray[np.float32]]) -> list[Person]:
    sure = found["scores"] >= MIN_SCORE
    return list(zip(found["boxes"][sure], found["keypoints"][sure, :, :2], strict=True))


def agreement(found: Sequence[Sequence[Person]], theirs: Sequence[Sequence[Person]]) -> str:
    """How far apart what both find is; frames in which they find different numbers of people are counted."""
    pairs = [pair for a, b in zip(found, theirs, strict=True) if len(a) == len(b) for pair in zip(a, b, strict=True)]
    apart = [float(np.abs(ours[0] - other[0]).max()) for ours, other in pairs]
    seen = np.ones((17, 1))
    similar = [
        oks(np.hstack([a[1], seen]), np.hstack([b[1], seen]), float((b[0][2:] - b[0][:2]).prod())) for a, b in pairs
    ]
    differing = sum(len(a) != len(b) for a, b in zip(found, theirs, strict=True))
    if not pairs:
        return "Neither finds anyone."
    return (
        f"{len(pairs)} persons found by both; frames with another number of them: {differing}. Boxes at most "
        f"{max(apart):.3f} px apart (files have two decimals); OKS {np.mean(similar):.4f}, lowest {min(similar):.4f}."
    )


# --------------------------------------------------------------------------------------------------------- memory

MEMORY_OF: Final = """
import resource, sys, time
from pathlib import Path
from pipeline.detect import get
from pipeline.detect.run import Machine, detect_clips
began = time.perf_counter()
report = detect_clips(Path(sys.argv[1]), Path(sys.argv[2]), get("demo"), Machine(workers=2))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(report.done, report.frames, f"{peak:.0f}", f"{time.perf_counter() - began:.0f}")
"""


def memory(n_clips: int, minutes: Sequence[float], work: Path) -> Iterator[str]:
    """The table's rows."""
    yield "| clips | frames | peak, MiB | s |\n|---|---|---|---|"
    of_clips = [(f"{n:,} of 5 frames", [5] * n) for n in (max(1, n_clips // 10), n_clips)]
    of_one = [(f"one of {length:g} minutes", [round(length * 60 * 25)]) for length in minutes]
    for k, (name, lengths) in enumerate(of_clips + of_one):
        raw = work / f"raw {k}"
        raw.mkdir(parents=True)
        (raw / MARKER).write_text("{}")
        for number, length in enumerate(lengths):
            tiny_clip(raw / f"{number:04d}.mp4", length)
        command = [sys.executable, "-c", MEMORY_OF, str(raw), str(work / f"out {k}")]
        done, frames, peak, seconds = subprocess.check_output(command, cwd=ROOT, text=True).split()
        assert (int(done), int(frames)) == (len(lengths), sum(lengths))
        yield f"| {name} | {int(frames):,} | {peak} | {seconds} |"


def tiny_clip(file: Path, n_frames: int) -> None:
    """64 x 48 px at 25 fps: a block that moves."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for t in range(n_frames):
        image = np.full((48, 64, 3), 90, np.uint8)
        image[:, t % 60 : t % 60 + 5] = 220
        writer.write(image)
    writer.release()


# ------------------------------------------------------------------------------------------------------- accuracy


def accuracy(work: Path, n_videos: int) -> Iterator[str]:
    """The demo detector beside the truth of demo data."""
    find = get("demo").load("cpu")
    truths = misses = extra = 0
    similar: list[float] = []
    right: list[NDArray[np.bool_]] = []
    for take in synthetic.write_dataset("kinetics", work / "kinetics", n_videos=n_videos):
        for frame in Video(work / "kinetics", take.shot.file).read(range(take.shot.n_frames)):
            assert frame.image is not None
            people = list(find([frame.image])[0].keypoints)
            extra += max(0, len(people) - len(take.actors))
            for actor in take.actors:
                points = np.column_stack([actor.kp_2d[frame.index], np.ones(len(actor.kp_2d[frame.index]))])
                truth = convert(points, source="spin49", target="coco")
                truths += 1
                side = np.ptp(truth[truth[:, 2] > 0, :2], axis=0)
                scores = [oks(person, truth, float(side.prod())) for person in people]
                if not scores or max(scores) < 0.5:
                    misses += 1
                    continue
                person = people.pop(int(np.argmax(scores)))
                similar.append(max(scores))
                seen = (person[:, 2] > 0) & (truth[:, 2] > 0)
                apart = np.linalg.norm(person[:, :2] - truth[:, :2], axis=1)
                right.append(apart[seen] < 0.1 * side.max())
    yield (
        f"{truths} person-frames of demo data: {misses} missed (no one found with an OKS of 0.5 or more), {extra} too "
        f"many. Of those found: OKS {np.mean(similar):.3f}, PCK {np.concatenate(right).mean():.3f} (of joints that it "
        "finds, within a tenth of the person's height or width; it finds no eyes and ears)."
    )


def openpose(video: Path, folder: Path, weights: str, work: Path) -> str:
    """The network beside OpenPose's own output on a real video; the reason where it is skipped."""
    detector: Any = get("keypoint_rcnn", weights=weights or PRETRAINED)
    try:
        detector.file()
    except MissingAssets as error:
        return f"Skipped: {error}"
    (work / "real").mkdir()
    (work / "real" / video.name).symlink_to(video.resolve())
    detect_clips(work / "real", work / "found", detector)
    size = Video(video.parent, video.name).size
    ours = read_detections(work / "found" / f"{video.name}.json", video.stem, size)
    theirs = read_detections(folder, video.stem, size)
    assert ours is not None
    assert theirs is not None
    by_frame = dict(zip(ours.frame_index.tolist(), ours.keypoints, strict=True))
    scores = []
    for frame, persons in zip(theirs.frame_index.tolist(), theirs.keypoints, strict=True):
        for person in persons:
            truth = convert(person, source=theirs.skeleton, target="coco")
            seen = truth[truth[:, 2] > 0, :2]
            area = float(np.ptp(seen, axis=0).prod()) if len(seen) else 0.0
            scores.append(max((oks(one, truth, area) for one in by_frame.get(frame, [])), default=0.0))
    missed = sum(score < 0.5 for score in scores)
    return f"{len(scores)} person-frames of OpenPose: OKS {np.mean(scores):.3f}, {missed} below 0.5."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="*", default=[], type=Path, metavar="FILE")
    parser.add_argument("--frames", type=int, default=4, help="of each clip")
    parser.add_argument("--weights", default="", help="of the network; default: untrained")
    parser.add_argument("--openpose", nargs=2, type=Path, metavar=("VIDEO", "JSON"))
    parser.add_argument("--tiny-clips", type=int, default=1000)
    parser.add_argument("--minutes", type=float, nargs="*", default=[4, 20, 120], help="of long clips")
    parser.add_argument("--videos", type=int, default=4, help="of demo data")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    parts: list[tuple[str, Callable[[Path], Iterator[str]]]] = []
    if args.clips:
        parts += [("Speed", lambda work: speed(args.clips, args.frames, args.weights, work))]
    if args.tiny_clips:
        parts += [("Memory", lambda work: memory(args.tiny_clips, args.minutes, work))]
    if args.videos:
        parts += [("The demo detector", lambda work: accuracy(work, args.videos))]
    if args.openpose:
        parts += [
            ("Beside OpenPose", lambda work: iter([openpose(args.openpose[0], args.openpose[1], args.weights, work)]))
        ]
    lines: list[str] = []
    for title, part in parts:
        with tempfile.TemporaryDirectory() as folder:
            lines += [f"## {title}", "", *part(Path(folder)), ""]
    report("Weights are untrained, demo data made up.", "Finding people in clips", lines, args)


if __name__ == "__main__":
    main()
