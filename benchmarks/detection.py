"""How fast does `detect` find people with RTMPose on a CPU?

    .venv/bin/python benchmarks/detection.py --out benchmarks/detection.md

ONNX graphs with the published layers and sizes (`GRAPHS`) and random weights; one person is planted
in YOLOX's output, and joints in RTMPose's. Their parameters and products are counted and compared
with the published numbers. The clip is noise on all scales, 640 x 480, with `--every` 1, 2, 4 and
8. Times include decoding and loading.

Rows: demo clips, people found by the colours of their clothes in whole images, joints in crops
around them. For each row of N = 1, the best overlap with a row of that frame, of the boxes, and of
the extents of the joints, from which readers make boxes.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.boxes import extents
from pipeline.clips.detection.run import detect_planned
from pipeline.clips.detectors import DetectionResources, People, get
from pipeline.clips.detectors.two_parts import Boxes, Networks, TwoPartDetector
from pipeline.clips.files import list_clips
from pipeline.clips.plan import plan_detection
from pipeline.demo.writing import write_dataset
from pipeline.files.pixels.frames import Image, Video

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from benchmarks.features import textured, write_video

EVERY: Final = (1, 2, 4, 8)
# name: width, depth and input px; published M parameters and G products per image
GRAPHS: Final = {
    # Ge et al., table 4, with 80 classes; 2 FLOPs a product
    "yolox-tiny": ((0.375, 0.33, 416), (5.06, 6.45 / 2)),
    "yolox-m": ((0.75, 0.67, 640), (25.3, 73.8 / 2)),
    "rtmpose-m": ((0.75, 0.67, 0), (13.59, 1.93)),  # Jiang et al.; their FLOPs are products
}


@dataclass
class Layers:
    """Nodes of an ONNX graph with random weights. A tensor is its name; `sizes` has its size."""

    rng: np.random.Generator
    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)
    sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # channels, height, width
    products: int = 0

    def __call__(
        self, kind: str, *inputs: Any, size: tuple[int, int, int] | None = None, **attributes: Any
    ) -> str:
        names = [
            value if isinstance(value, str) else self.constant(np.asarray(value))
            for value in inputs
        ]
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        self.sizes[output] = size or self.sizes.get(names[0], (0, 0, 0))
        return output

    def constant(self, values: NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def random(self, *shape: int) -> NDArray[np.float32]:
        return self.rng.standard_normal(shape, np.float32) / math.sqrt(math.prod(shape[1:]))

    def conv(
        self, x: str, out: int, kernel: int, stride: int = 1, *, groups: int = 1, act: bool = True
    ) -> str:
        """A convolution with its folded norm, and SiLU."""
        channels, *sides = self.sizes[x]
        height, width = (-(-side // stride) for side in sides)
        self.products += out * channels // groups * kernel**2 * height * width
        pads = [(kernel - 1) // 2] * 4
        weight, bias = (
            self.random(out, channels // groups, kernel, kernel),
            np.zeros(out, np.float32),
        )
        step, size = [stride, stride], (out, height, width)
        y = self(
            "Conv",
            x,
            weight,
            bias,
            size=size,
            kernel_shape=[kernel] * 2,
            pads=pads,
            strides=step,
            group=groups,
        )
        return self("Mul", y, self("Sigmoid", y)) if act else y

    def concat(self, *parts: str) -> str:
        _, height, width = self.sizes[parts[0]]
        return self(
            "Concat",
            *parts,
            size=(sum(self.sizes[part][0] for part in parts), height, width),
            axis=1,
        )

    def csp(self, x: str, out: int, blocks: int, *, add: bool, next_: bool) -> str:
        """A cross-stage partial layer: darknet's blocks, or CSPNeXt's with attention over channels
        (`next_`).
        """
        half = out // 2
        main, short = self.conv(x, half, 1), self.conv(x, half, 1)
        for _ in range(blocks):
            if next_:
                y = self.conv(self.conv(main, half, 3), half, 5, groups=half)
                y = self.conv(y, half, 1)
            else:
                y = self.conv(self.conv(main, half, 1), half, 3)
            main = self("Add", y, main) if add else y
        joined = self.concat(main, short)
        if next_:
            mean = self("GlobalAveragePool", joined, size=(out, 1, 1))
            joined = self("Mul", joined, self("HardSigmoid", self.conv(mean, out, 1, act=False)))
        return self.conv(joined, out, 1)

    def spp(self, x: str, out: int) -> str:
        y = self.conv(x, self.sizes[x][0] // 2, 1)
        pooled = [
            self("MaxPool", y, kernel_shape=[k, k], pads=[k // 2] * 4, strides=[1, 1])
            for k in (5, 9, 13)
        ]
        return self.conv(self.concat(y, *pooled), out, 1)

    def backbone(self, x: str, width: float, depth: float, *, next_: bool) -> list[str]:
        """The stages of strides 8, 16 and 32."""
        outputs = []
        for stage, blocks in enumerate((3, 6, 6 if next_ else 9, 3)):
            out = int(128 * 2**stage * width)
            x = self.conv(x, out, 3, 2)
            if stage == 3:
                x = self.spp(x, out)
            # YOLOX's darknet has 3, 9, 9, 3 blocks, CSPNeXt 3, 6, 6, 3
            n = round((blocks if next_ or stage != 1 else 9) * depth)
            x = self.csp(x, out, max(n, 1), add=stage < 3, next_=next_)
            outputs.append(x)
        return outputs[1:]

    def enlarge(self, x: str) -> str:
        """Twice as many rows and columns."""
        channels, height, width = self.sizes[x]
        return self(
            "Resize",
            x,
            "",
            np.array([1, 1, 2, 2], np.float32),
            size=(channels, 2 * height, 2 * width),
            mode="nearest",
        )

    def linear(self, x: str, features: tuple[int, int], rows: int) -> str:
        self.products += math.prod(features) * rows
        return self("MatMul", x, self.random(*features))

    def write(self, file: Path, shape: list[Any], outputs: list[str]) -> tuple[float, float]:
        """Write the graph. Return M parameters and G products per image."""
        pixels = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, file.stem, [pixels], made, self.weights)
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
            file,
        )
        return sum(math.prod(weight.dims) for weight in self.weights) / 1e6, self.products / 1e9


def yolox(file: Path, width: float, depth: float, side: int) -> tuple[float, float]:
    """YOLOX for one class, with one person planted in the middle of its rows."""
    g = Layers(np.random.default_rng(0))
    g.sizes["input"] = (3, side, side)
    halves = []
    for j in (0, 1):
        for i in (0, 1):
            begin = [i, j]
            size = (3, side // 2, side // 2)
            halves.append(g("Slice", "input", begin, [side, side], [2, 3], [2, 2], size=size))
    low, middle, high = g.backbone(
        g.conv(g.concat(*halves), int(64 * width), 3), width, depth, next_=False
    )
    blocks, channels = max(round(3 * depth), 1), [int(c * width) for c in (256, 512, 1024)]
    high = g.conv(high, channels[1], 1)
    middle = g.conv(
        g.csp(g.concat(g.enlarge(high), middle), channels[1], blocks, add=False, next_=False),
        channels[0],
        1,
    )
    first = g.csp(g.concat(g.enlarge(middle), low), channels[0], blocks, add=False, next_=False)
    second = g.csp(
        g.concat(g.conv(first, channels[0], 3, 2), middle),
        channels[1],
        blocks,
        add=False,
        next_=False,
    )
    third = g.csp(
        g.concat(g.conv(second, channels[1], 3, 2), high),
        channels[2],
        blocks,
        add=False,
        next_=False,
    )
    levels = []
    for x in (first, second, third):
        x = g.conv(x, channels[0], 1)
        scores, boxes = (g.conv(g.conv(x, channels[0], 3), channels[0], 3) for _ in range(2))
        ends = [
            g.conv(boxes, 4, 1, act=False),
            *(g.conv(part, 1, 1, act=False) for part in (boxes, scores)),
        ]
        _, height, across = g.sizes[x]
        levels.append(g("Reshape", g.concat(*ends), np.array([1, 6, height * across])))
    rows = g("Transpose", g("Concat", *levels, axis=2), perm=[0, 2, 1])
    n = sum((side // s) ** 2 for s in (8, 16, 32))
    planted = np.zeros((1, n, 6), np.float32)
    planted[0, n - (side // 32) ** 2 // 2] = [
        0,
        0,
        np.log(side / 32 * 0.3),
        np.log(side / 32 * 0.6),
        0.9,
        0.9,
    ]
    rows = g("Add", g("Mul", rows, np.float32(1e-20)), planted)
    return g.write(file, [1, 3, side, side], [rows])


def rtmpose(file: Path, width: float, depth: float, _: int) -> tuple[float, float]:
    """RTMPose: CSPNeXt, a 7 x 7 convolution to the joints, a gated attention unit over them, two
    linear layers.
    """
    g = Layers(np.random.default_rng(0))
    g.sizes["input"] = (3, 256, 192)
    x = g.conv("input", int(32 * width), 3, 2)
    x = g.conv(g.conv(x, int(32 * width), 3), int(64 * width), 3)
    x = g.backbone(x, width, depth, next_=True)[-1]
    x = g("Reshape", g.conv(x, 17, 7, act=False), np.array([0, 17, 48]))
    x = g.linear(x, (48, 256), 17)
    uv = g.linear(x, (256, 2 * 512 + 128), 17)
    uv = g("Mul", uv, g("Sigmoid", uv))
    u, v, base = (g("Slice", uv, [a], [b], [2]) for a, b in ((0, 512), (512, 1024), (1024, 1152)))
    kernel = g("Relu", g("MatMul", base, g("Transpose", base, perm=[0, 2, 1])))
    attended = g("MatMul", g("Mul", kernel, kernel), v)
    x = g("Add", x, g.linear(g("Mul", u, attended), (512, 256), 17))
    outputs = []
    # all joints are certain and inside the crop, so that people can be followed
    for bins in (384, 512):
        planted = np.zeros((1, 17, bins), np.float32)
        planted[0, range(17), np.linspace(0.2 * bins, 0.8 * bins, 17).astype(int)] = 0.9
        outputs.append(g("Add", g("Mul", g.linear(x, (256, bins), 17), np.float32(1e-20)), planted))
    return g.write(file, ["batch", 3, 256, 192], outputs)


# --------------------------------------------------------------------------------------------------
# report


def measured(args: argparse.Namespace) -> Iterator[str]:
    """Both person detectors, with each N."""
    clips, size = args.at / "clips", (640, 480)
    clips.mkdir()
    write_video(clips / "noise.mp4", size, args.frames)
    files = {name: args.at / f"{name}.onnx" for name in GRAPHS}
    sizes = []
    for name, ((width, depth, side), published) in GRAPHS.items():
        counted = (yolox if side else rtmpose)(files[name], width, depth, side)
        sizes.append(
            (
                name,
                *(
                    f"{ours:.2f} ({theirs:.2f})"
                    for ours, theirs in zip(counted, published, strict=True)
                ),
            )
        )
    rows, n, cpu_of_all = list[tuple[Any, ...]](), args.frames, 0.0
    for yolo, every in itertools.product(("yolox-tiny", "yolox-m"), EVERY):
        detector = get(
            "rtmpose", weights=str(files["rtmpose-m"]), detector=str(files[yolo]), every=every
        )
        detector.load("cpu")([textured(size, 0)])  # start-up
        began, cpu_before = time.perf_counter(), sum(os.times()[:4])
        plan = plan_detection(clips, args.at / f"out/{yolo}-{every}", detector)
        result = detect_planned(plan, DetectionResources(device="cpu"))
        # also of its processes
        seconds, cpu = time.perf_counter() - began, sum(os.times()[:4]) - cpu_before
        assert result.persons == n, "one person in each frame"
        cpu_of_all = cpu if every == 1 else cpu_of_all
        figures = (
            f"{cpu / n:.3f}",
            f"{seconds / n:.3f}",
            f"{n / seconds:.2f}",
            f"{cpu_of_all / cpu:.2f}",
        )
        rows.append((f"`rtmpose`, {yolo}", every, n, *figures))
    yield from table(
        ("", "N", "frames", "CPU s a frame", "s a frame", "frames/s", "CPU time of N = 1 by this"),
        rows,
    )
    yield from ("", *equal_rows(args.at / "rendered"), "")
    yield f"\n`rtmpose` found one person in each of {n} frames.\n"
    yield from table(
        ("graph, random weights", "M parameters (published)", "G products an image (published)"),
        sizes,
    )


@dataclass(frozen=True)
class Coloured(TwoPartDetector):
    """The demo detector in two parts: boxes by whole images, joints by crops around the boxes."""

    name: ClassVar[str] = "coloured"

    def load_networks(self, device: str) -> Networks:
        whole = get("demo").load(device)

        def look(
            images: Sequence[Image], boxes: Sequence[NDArray[np.float32]]
        ) -> list[NDArray[np.float32]]:
            return [
                np.stack([crop_joints(image, box) for box in one])
                if len(one)
                else np.zeros((0, 17, 3), np.float32)
                for image, one in zip(images, boxes, strict=True)
            ]

        def crop_joints(image: Image, box: NDArray[np.float32]) -> NDArray[np.float32]:
            centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * 1.25 / 2
            x0, y0 = np.maximum(centre - half, 0).astype(int)
            x1, y1 = np.ceil(centre + half).astype(int)
            people = whole([np.ascontiguousarray(image[y0:y1, x0:x1])])[0]
            if not len(people.boxes):
                return np.zeros((17, 3), np.float32)
            off = np.linalg.norm(
                (people.boxes[:, :2] + people.boxes[:, 2:]) / 2 + [x0, y0] - centre, axis=1
            )
            joints = people.keypoints[off.argmin()]
            return np.asarray(joints + np.array([x0, y0, 0]) * (joints[:, 2:] > 0), np.float32)

        return Networks(lambda images: [Boxes(*one[:2]) for one in whole(images)], look)


def equal_rows(folder: Path) -> Iterator[str]:
    """Shares of the rows of N = 1 that overlap one of the same frame, on rendered clips."""
    write_dataset("videos", folder, n_videos=4, n_frames=100)
    found = dict[int, list[People]]()
    for every, clip in itertools.product(EVERY, list_clips(folder)):
        images = [
            frame.image for frame in Video(folder, clip).read(range(100)) if frame.image is not None
        ]
        keys = [t % every == 0 for t in range(len(images))]
        found.setdefault(every, []).extend(Coloured(every=every).load("cpu")(images, keys))
    n = sum(len(people.boxes) for people in found[1])
    rows = []
    for every in EVERY[1:]:
        figures: list[str] = []
        for corners in (
            lambda people: people.boxes,
            lambda people: extents(people.keypoints)[0].reshape(-1, 4),
        ):
            pairs = zip(found[1], found[every], strict=True)
            best = np.concatenate(
                [iou(corners(a), corners(b)).max(axis=1, initial=0) for a, b in pairs]
            )
            figures += [f"{(best >= least).mean():.1%}" for least in (0.9, 0.5)]
        rows.append((every, n, *figures))
    yield from table(
        (
            "N",
            "rows of N = 1",
            "boxes, IoU >= 0.9",
            ">= 0.5",
            "joints' extents, IoU >= 0.9",
            ">= 0.5",
        ),
        rows,
    )


def iou(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """(P, 4) and (Q, 4) corners -> (P, Q)."""
    low, high = (
        np.maximum(a[:, None, :2], b[None, :, :2]),
        np.minimum(a[:, None, 2:], b[None, :, 2:]),
    )
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None] - shared), np.float64)


def main() -> None:
    """Make the graphs, measure, print, write the report."""
    options = parser(__doc__, at="the files, 400 MB")
    options.add_argument("--frames", type=int, default=100, help="of the clip")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        args.at = Path(folder)
        report("People in images.", "How fast are people found?", measured(args), args)


if __name__ == "__main__":
    main()
