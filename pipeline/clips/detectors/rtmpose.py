"""RTMPose (17 COCO joints) on people found by YOLOX or RTMDet, in ONNX Runtime.  [pixels ->
keypoints] -> tracks

Jiang et al.: RTMPose, 2023 (arXiv 2303.07399); Ge et al.: YOLOX, 2021 (arXiv 2107.08430); Lyu et
al.: RTMDet, 2022 (arXiv 2212.07784). OpenMMLab publishes them as ONNX graphs, which are downloaded
once into torch's cache folder.

The person detector sees the whole image, scaled and padded to its input size. RTMPose sees each
person's crop, and returns for each joint a score for every half pixel of the crop's width and
height (SimCC; Li et al., ECCV 2022). Sizes are (width, height) px. As in OpenMMLab's training, (0,
0) is the image's corner for boxes and the first pixel's centre for joints.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self

import cv2
import numpy as np

from pipeline.cli.console import err, plain
from pipeline.cli.text import size
from pipeline.clips.detectors import graphs
from pipeline.clips.detectors.graphs import Graph, GraphNetwork
from pipeline.clips.detectors.two_parts import Boxes, Networks, TwoPartDetector
from pipeline.errors import ConfigError, MissingAssets
from pipeline.files.licences import DATA_TERMS, NOT_KNOWN
from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Doubles, Float32s, Floats, Ints
from pipeline.processes import cores

PRETRAINED: Final = "pretrained"  # option value that names the default published weights
TIMEOUT: Final = 60  # s, until the server answers
ADDRESS: Final = "https://download.openmmlab.com/mmpose/v1/projects/rtmposev1/onnx_sdk/"


class _Published(NamedTuple):
    """A zip file of OpenMMLab."""

    file: str
    sha256: str  # of the graph in it, as recorded by projects that use it (OpenMMLab states none)

    @property
    def url(self) -> str:
        return ADDRESS + self.file

    @property
    def local(self) -> Path:
        """Path of the download in torch's cache folder."""
        home = os.environ.get("TORCH_HOME") or Path(
            os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch"
        )
        return Path(home).expanduser() / "hub/checkpoints" / self.file


# option -> name that it accepts -> published file
PUBLISHED: Final[Mapping[str, Mapping[str, _Published]]] = {
    "detector": {
        "yolox-tiny": _Published(
            "yolox_tiny_8xb8-300e_humanart-6f3252f9.zip",
            "ceb11c07298f95c50d7c5abeb906d03340c85f23aa79e3e66966e7fb6c307250",
        ),
        "yolox-m": _Published(
            "yolox_m_8xb8-300e_humanart-c2c7a14a.zip",
            "3dea6513388889f0fff4b77bf7a26013600321b9eb9ceb0e9a400a82572f5f23",
        ),
    },
    "weights": {
        "rtmpose-s": _Published(
            "rtmpose-s_simcc-body7_pt-body7_420e-256x192-acd4a1ef_20230504.zip",
            "9aeb635b83f86aea45cf45d85798f7eba1a162de8e0d721c44e54fe5eebaf47d",
        ),
        "rtmpose-m": _Published(
            "rtmpose-m_simcc-body7_pt-body7_420e-256x192-e48f03d0_20230504.zip",
            "5c0a4bf67953e6d2ac43ce15e77dc9d5d354ae18430a47d2c5963a7bc5683e3c",
        ),
    },
}
LICENCE: Final = f"Apache-2.0, {DATA_TERMS}"  # of all of these
FAMILIES: Final = ("yolox", "rtmdet")
JOINTS: Final = 17
GREY: Final = 114  # value of padded pixels
# mean and standard deviation of ImageNet's pixels: red, green, blue
MEAN: Final = np.array([123.675, 116.28, 103.53], np.float32)
STD: Final = np.array([58.395, 57.12, 57.375], np.float32)
CROP_SCALE: Final = 1.25  # crop side / box side, as in RTMPose's training
BINS: Final = 2  # RTMPose's scores per px of the crop


class _NetworkOption(NamedTuple):
    """One of the two networks, as an option names it."""

    option: str
    name: str
    release: _Published | None  # None: the name is a file

    @property
    def file(self) -> Path:
        if self.release is None:
            return Path(self.name)
        return self.release.local


@dataclass(frozen=True)
class RTMPose(TwoPartDetector):
    """Finds people by YOLOX or RTMDet (`detector`), and 17 joints of each by RTMPose (`weights`).

    Both options are an ONNX file, a zip with one, or the name of a published one.
    """

    # of RTMPose: an ONNX file, a zip with one, rtmpose-s, or pretrained (rtmpose-m)
    weights: str = PRETRAINED
    # of persons: an ONNX file, a zip with one, yolox-m, or pretrained (yolox-tiny)
    detector: str = PRETRAINED
    family: Literal["auto", "yolox", "rtmdet"] = "auto"  # of `detector`; auto: from its file name
    min_score: float = 0.3  # minimum score of a person, 0 to 1
    max_overlap: float = 0.45  # maximum intersection over union of two persons' boxes, 0 to 1

    name: ClassVar[str] = "rtmpose"

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = (self.min_score, self.max_overlap)
        are_shares = all(0 <= share <= 1 for share in shares)
        if not are_shares or self.family not in ("auto", *FAMILIES):
            raise ConfigError(
                f"min_score {self.min_score}, max_overlap {self.max_overlap}, family "
                f"{self.family}: expected numbers from 0 to 1, and auto, yolox or rtmdet",
                "min_score",
                "max_overlap",
                "family",
            )

    @property
    def downloads(self) -> bool:
        parts = self._parts()
        return any(part.release is not None and not part.file.is_file() for part in parts)

    def _parts(self) -> list[_NetworkOption]:
        """The two networks as the options name them: the person detector, then RTMPose."""
        names = {
            "detector": _resolve_pretrained(self.detector, "yolox-tiny"),
            "weights": _resolve_pretrained(self.weights, "rtmpose-m"),
        }
        parts = []
        for option, name in names.items():
            release = PUBLISHED[option].get(name)
            parts.append(_NetworkOption(option, name, release))
        return parts

    def identity(self) -> dict[str, Any]:
        detector, pose = self.files()
        digests = {"weights": pose.digest, "detector": detector.digest}
        return super().identity() | digests | {"family": self.family_of(detector)}

    def terms(self) -> list[dict[str, str]]:
        urls: dict[str, str] = {}  # by digest
        for releases in PUBLISHED.values():
            urls |= {release.sha256: release.url for release in releases.values()}
        terms = []
        for graph in self.files():
            licence = LICENCE if graph.digest in urls else NOT_KNOWN
            source = urls.get(graph.digest, "a file")
            terms.append({"sha256": graph.digest, "licence": licence, "source": source})
        return terms

    def below(self, folder: Path) -> Self:
        parts = self._parts()
        files = {part.option: str(folder / part.name) for part in parts if part.release is None}
        return replace(self, **files)  # type: ignore[arg-type]

    def files(self) -> tuple[Graph, Graph]:
        """Read the graphs of the person detector and of RTMPose; downloads published ones.

        Raises MissingAssets for files that are missing and cannot be downloaded, and RawDataError
        for a file without a graph.
        """
        parts = self._parts()
        absent = [part for part in parts if not part.file.is_file()]
        for option, name, release in absent:
            if release is None:
                names = ", ".join((PRETRAINED, *PUBLISHED[option]))
                raise MissingAssets(
                    f"{option} {name!r}: file not found. Name it: --set rtmpose.{option}=FILE, or "
                    f"one of {names}."
                )
        _download_all(absent)
        detector, pose = map(_read_graph, parts)
        return detector, pose

    def family_of(self, detector: Graph) -> str:
        """The person detector's family, "yolox" or "rtmdet", by the option or the file's name.

        Raises ConfigError if neither states it.
        """
        if self.family != "auto":
            return self.family
        names = f"{detector.file.name}/{detector.name}".lower()
        named = [family for family in FAMILIES if family in names]
        if len(named) != 1:
            raise ConfigError(
                f"family: the name of {detector.file} does not contain yolox or rtmdet, whose "
                "inputs differ. Name it: --set rtmpose.family=yolox or --set rtmpose.family=rtmdet."
            )
        return named[0]

    def load_networks(self, device: str) -> Networks:
        detector, pose = self.files()
        person_network = GraphNetwork(detector, device)
        pose_network = GraphNetwork(pose, device)
        normalised = self.family_of(detector) == "rtmdet"
        finder = _PersonFinder(self, person_network, pose_network, normalised=normalised)
        finder.check()

        compute_each: Callable[..., Iterable[Any]] = map
        if not person_network.on_gpu:  # each image is computed by one core
            compute_each = ThreadPoolExecutor(cores(0), thread_name_prefix="onnx").map
        return Networks(
            lambda images: list(compute_each(finder.boxes, images)),
            lambda images, boxes: list(compute_each(finder.joints, images, boxes)),
        )


def _resolve_pretrained(name: str, default: str) -> str:
    return default if name == PRETRAINED else name


def _read_graph(part: _NetworkOption) -> Graph:
    """Read a network's graph. Raises MissingAssets for a published file with other content, and
    RawDataError for a file without a graph.
    """
    graph = graphs.read(part.file)
    release = part.release
    if release is not None and graph.digest != release.sha256:
        raise MissingAssets(
            f"{part.file}: it does not contain {part.name}: expected SHA-256 {release.sha256}, "
            f"found {graph.digest}. Delete the file to download it again."
        )
    return graph


def _download_all(networks: Iterable[_NetworkOption]) -> None:
    """Download published networks. Raises MissingAssets for all that cannot be downloaded."""
    problems = []
    for _, name, release in networks:
        assert release is not None
        try:
            _download(name, release)
        except OSError as error:  # urllib's errors are OSErrors, too
            why = getattr(error, "reason", error)
            problems.append(
                f"{name}: {release.url} cannot be downloaded ({why}). Download it elsewhere, and "
                f"copy it to {release.local}. "
            )
    if problems:
        raise MissingAssets(
            f"{''.join(problems)}Or name your files: --set rtmpose.weights=FILE "
            "--set rtmpose.detector=FILE. "
            "Without them: the same command with --detector blaze_pose."
        )


def _download(name: str, release: _Published) -> None:
    """Download published weights, after printing their size and licence. Raises OSError."""
    import torch

    url = release.url
    file = release.local
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - an address of OpenMMLab's
        length = answer.headers.get("Content-Length")
    stated = size(int(length)) if length else "size not stated"
    err.print(plain(f"downloading {name} ({stated}, licence {LICENCE}) from {url} to {file}"))
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(url, str(file), progress=False)


class _PersonFinder:
    """Finds the people in an image, and the joints of each."""

    def __init__(
        self, options: RTMPose, detector: GraphNetwork, pose: GraphNetwork, *, normalised: bool
    ) -> None:
        self._options = options
        self._detector = detector
        self._pose = pose
        self._normalised = normalised  # as of `_detector_input`

    def check(self) -> None:
        """Run both networks on a blank image. Raises RawDataError for unexpected outputs."""
        blank = np.full((64, 48, 3), GREY, np.uint8)
        self.boxes(blank)
        whole = np.array([[0, 0, 48, 64]], np.float32)
        self.joints(blank, whole)

    def boxes(self, image: Image) -> Boxes:
        """Boxes of the people in an image (H, W, 3) RGB, best first. Raises RawDataError for
        unexpected outputs of the network.
        """
        padded, scale = _letterbox(image, self._detector.size)
        outputs = self._detector(_detector_input(padded, normalised=self._normalised))
        # as OpenMMLab exports them: boxes, px of the padded image, with scores; and classes
        match [output.shape for output in outputs]:
            case [(1, rows, 5), (1, labels)] if rows == labels:
                is_person = outputs[1][0] == 0
                persons = outputs[0][0, is_person]
            case _:
                expected = "boxes (1, N, 5) and labels (1, N)"
                raise self._detector.outputs_error(expected, outputs)
        corners = persons[:, :4]
        scores = persons[:, 4]
        height, width = image.shape[:2]
        in_image = corners / np.tile(scale, 2)
        boxes = np.clip(in_image, 0, [width, height, width, height])

        sides = boxes[:, 2:] - boxes[:, :2]
        has_extent = (sides >= 1).all(axis=1)  # px
        scores = np.where(has_extent, scores, -1)  # below every min_score
        min_score = self._options.min_score
        max_overlap = self._options.max_overlap
        best = _suppress_overlaps(boxes, scores, min_score=min_score, max_overlap=max_overlap)
        confidence = np.clip(scores[best], 0, 1)
        return Boxes(boxes[best].astype(np.float32), confidence.astype(np.float32))

    def joints(self, image: Image, boxes: Float32s) -> Float32s:
        """Joints of P people, (P, 17, 3) px and confidence, from their boxes (P, 4): corners, px.
        Raises RawDataError for unexpected outputs of the network.
        """
        if not len(boxes):
            return np.zeros((0, JOINTS, 3), np.float32)
        size = self._pose.size
        n = len(boxes)
        affines = _crop_affines(boxes, size)
        outputs = self._pose(_pose_input(image, affines, size))
        expected = [(n, JOINTS, BINS * side) for side in size]
        if [output.shape for output in outputs] != expected:
            raise self._pose.outputs_error(" and ".join(map(str, expected)), outputs)
        return _read_joints(outputs[0], outputs[1], affines)


def _letterbox(image: Image, size: tuple[int, int]) -> tuple[Image, Floats]:
    """Scale an image (H, W, 3) to fit `size`, and pad it on the right and below.

    Returns the padded image and the scale (x, y), (2,).
    """
    height, width = image.shape[:2]
    ratio = min(size[0] / width, size[1] / height)
    scaled_width = max(1, int(width * ratio + 0.5))
    scaled_height = max(1, int(height * ratio + 0.5))
    scaled_size = scaled_width, scaled_height
    scaled = cv2.resize(image, scaled_size, interpolation=cv2.INTER_LINEAR)

    padded = np.full((size[1], size[0], 3), GREY, np.uint8)
    padded[:scaled_height, :scaled_width] = scaled
    return padded, np.array(scaled_size) / (width, height)


def _detector_input(padded: Image, *, normalised: bool) -> Float32s:
    """Convert an image (H, W, 3) RGB to the detector's input (1, 3, H, W): blue, green, red.

    Values are 0 to 255 (YOLOX), or `normalised` by ImageNet's mean and deviation (RTMDet).
    """
    pixels = padded[..., ::-1].astype(np.float32)
    if normalised:
        pixels = (pixels - MEAN[::-1]) / STD[::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def _suppress_overlaps(
    boxes: Floats, scores: Floats, *, min_score: float, max_overlap: float
) -> Ints:
    """Greedy non-maximum suppression: indices of the boxes to keep, best first.

    Boxes (N, 4) are corners. A box is dropped if its intersection over union with a better one is
    above `max_overlap`, or if its score is below `min_score`.
    """
    sure = np.nonzero(scores >= min_score)[0]
    corner = boxes[sure, :2]
    sides = boxes[sure, 2:] - corner
    rectangles = np.hstack([corner, sides]).astype(float)  # OpenCV's left, top, width, height
    confidence = scores[sure].astype(float)
    best = cv2.dnn.NMSBoxes(rectangles.tolist(), confidence.tolist(), 0.0, max_overlap)
    return sure[np.array(best, np.int64).reshape(-1)]


def _crop_affines(boxes: Floats, size: tuple[int, int]) -> Doubles:
    """Affine transforms (P, 2, 3) from image px to px of a crop of `size` around each box.

    boxes: (P, 4) corners, px.
    """
    corners = boxes.astype(np.float64)
    low = corners[:, :2]
    high = corners[:, 2:]
    width, height = ((high - low) * CROP_SCALE).T
    scale = np.minimum(size[0] / width, size[1] / height)
    box_middle = scale[:, None] * (low + high) / 2  # px of the crop
    crop_middle = np.array(size) / 2

    affines = np.zeros((len(boxes), 2, 3))
    affines[:, 0, 0] = affines[:, 1, 1] = scale
    affines[:, :, 2] = crop_middle - box_middle
    return affines


def _pose_input(image: Image, affines: Floats, size: tuple[int, int]) -> Float32s:
    """Cut out P crops and normalise them, (P, 3, height, width) RGB, black outside the image."""
    crops = np.stack(
        [cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR) for affine in affines]
    )
    normalised = (crops - MEAN) / STD
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), np.float32)


def _read_joints(across: Floats, down: Floats, affines: Floats) -> Float32s:
    """Read the joints of P crops from RTMPose's scores: (P, J, 3) image px and confidence 0..1.

    across: (P, J, 2 width) scores of x. down: (P, J, 2 height) scores of y. A joint is at its
    highest scores; its confidence is the lower of the two maxima.
    """
    column = across.argmax(axis=-1)
    row = down.argmax(axis=-1)
    crop_px = np.stack([column, row], axis=-1) / BINS
    scale = affines[:, None, None, 0, 0]  # of both axes
    shift = affines[:, None, :, 2]
    points = (crop_px - shift) / scale

    lower = np.minimum(across.max(axis=-1), down.max(axis=-1))
    confidence = np.clip(lower, 0, 1)[..., None]
    return np.concatenate([points, confidence], axis=-1).astype(np.float32)
