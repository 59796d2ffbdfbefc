"""RTMPose (17 COCO joints) on people found by YOLOX or RTMDet, in ONNX Runtime.  [pixels -> keypoints] -> tracks

Jiang et al.: RTMPose, 2023 (arXiv 2303.07399); Ge et al.: YOLOX, 2021 (arXiv 2107.08430); Lyu et al.: RTMDet, 2022
(arXiv 2212.07784). OpenMMLab publishes them as ONNX graphs, which are downloaded once into torch's cache folder.
"""

from __future__ import annotations

import itertools
import os
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.cli.console import err, plain, size
from pipeline.errors import ConfigError, MissingAssets
from pipeline.features.weights import DATA_TERMS, NOT_KNOWN
from pipeline.files.pixels.frames import Image
from vibe_extensions.clips.detectors import graphs, simcc
from vibe_extensions.clips.detectors.graphs import Graph, GraphNetwork
from vibe_extensions.clips.detectors.two_parts import Boxes, Networks, TwoPartDetector

PRETRAINED: Final = "pretrained"  # option value that names the default published weights
TIMEOUT: Final = 60  # s, until the server answers
ADDRESS: Final = "https://download.openmmlab.com/mmpose/v1/projects/rtmposev1/onnx_sdk/"


class Published(NamedTuple):
    """A zip file of OpenMMLab."""

    file: str
    sha256: str  # of the graph in it, as recorded by projects that use it (OpenMMLab states none)

    @property
    def url(self) -> str:
        return ADDRESS + self.file

    @property
    def local(self) -> Path:
        """Path of the download in torch's cache folder."""
        home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
        return Path(home).expanduser() / "hub/checkpoints" / self.file


PUBLISHED: Final[Mapping[str, Mapping[str, Published]]] = {  # by the option that names them
    "detector": {
        "yolox-tiny": Published(
            "yolox_tiny_8xb8-300e_humanart-6f3252f9.zip",
            "ceb11c07298f95c50d7c5abeb906d03340c85f23aa79e3e66966e7fb6c307250",
        ),
        "yolox-m": Published(
            "yolox_m_8xb8-300e_humanart-c2c7a14a.zip",
            "3dea6513388889f0fff4b77bf7a26013600321b9eb9ceb0e9a400a82572f5f23",
        ),
    },
    "weights": {
        "rtmpose-s": Published(
            "rtmpose-s_simcc-body7_pt-body7_420e-256x192-acd4a1ef_20230504.zip",
            "9aeb635b83f86aea45cf45d85798f7eba1a162de8e0d721c44e54fe5eebaf47d",
        ),
        "rtmpose-m": Published(
            "rtmpose-m_simcc-body7_pt-body7_420e-256x192-e48f03d0_20230504.zip",
            "5c0a4bf67953e6d2ac43ce15e77dc9d5d354ae18430a47d2c5963a7bc5683e3c",
        ),
    },
}
LICENCE: Final = f"Apache-2.0, {DATA_TERMS}"  # of all of these
FAMILIES: Final = ("yolox", "rtmdet")
JOINTS: Final = 17


@dataclass(frozen=True)
class RTMPose(TwoPartDetector):
    """`weights` of RTMPose and a `detector` of persons: ONNX files, zips with one, or names of published ones."""

    weights: str = PRETRAINED  # of RTMPose: an ONNX file, a zip with one, rtmpose-s, or pretrained (rtmpose-m)
    detector: str = PRETRAINED  # of persons: an ONNX file, a zip with one, yolox-m, or pretrained (yolox-tiny)
    family: Literal["auto", "yolox", "rtmdet"] = "auto"  # of `detector`; auto: from its file name
    min_score: float = 0.3  # minimum score of a person
    max_overlap: float = 0.45  # maximum intersection over union of two persons' boxes

    name: ClassVar[str] = "rtmpose"

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = (self.min_score, self.max_overlap)
        if not all(0 <= share <= 1 for share in shares) or self.family not in ("auto", *FAMILIES):
            raise ConfigError(
                f"min_score {self.min_score}, max_overlap {self.max_overlap}, family {self.family}: expected numbers "
                "from 0 to 1, and auto, yolox or rtmdet"
            )

    @property
    def batch_size(self) -> int:
        return max(8, 2 * len(os.sched_getaffinity(0)))

    @property
    def downloads(self) -> bool:
        return any(release is not None and not release.local.is_file() for _, _, release in self._parts())

    def _parts(self) -> list[tuple[str, str, Published | None]]:
        """Option, name and published weights (None: the name is a file) of the detector and of RTMPose."""
        names = {"detector": _full(self.detector, "yolox-tiny"), "weights": _full(self.weights, "rtmpose-m")}
        return [(key, name, PUBLISHED[key].get(name)) for key, name in names.items()]

    def identity(self) -> dict[str, Any]:
        detector, pose = self.files()
        digests = {"weights": pose.digest, "detector": detector.digest}
        return super().identity() | digests | {"family": self.family_of(detector)}

    def terms(self) -> list[dict[str, str]]:
        urls = {one.sha256: one.url for releases in PUBLISHED.values() for one in releases.values()}
        return [
            {
                "sha256": graph.digest,
                "licence": LICENCE if graph.digest in urls else NOT_KNOWN,
                "source": urls.get(graph.digest, "a file"),
            }
            for graph in self.files()
        ]

    def below(self, folder: Path) -> Self:
        files = {key: folder / name for key, name, release in self._parts() if release is None}
        return replace(self, **{key: str(file) for key, file in files.items()})  # type: ignore[arg-type]

    def files(self) -> tuple[Graph, Graph]:
        """Graphs of the detector and of RTMPose, downloaded if needed.

        Raises MissingAssets for all that is missing, and RawDataError for a file without a graph.
        """
        parts = self._parts()
        for key, name, release in parts:
            if release is None and not Path(name).is_file():
                names = ", ".join((PRETRAINED, *PUBLISHED[key]))
                option = "--weights " if key == "weights" else f"--set {key}="
                raise MissingAssets(f"{key} {name!r}: file not found. Set {option}FILE, or one of {names}.")
        absent = [(release, name) for _, name, release in parts if release and not release.local.is_file()]
        if failures := list(filter(None, itertools.starmap(_download, absent))):
            raise MissingAssets(
                f"{' '.join(failures)} Or name your files: --weights FILE --set detector=FILE. Without them: the same "
                "command with --detector blaze_pose."
            )
        detector, pose = (_graph(name, release) for _, name, release in parts)
        return detector, pose

    def family_of(self, detector: Graph) -> str:
        """The detector's family. Raises ConfigError if neither the option nor a file name states it."""
        named = [family for family in FAMILIES if family in f"{detector.file.name}/{detector.name}".lower()]
        if self.family == "auto" and len(named) != 1:
            raise ConfigError(
                f"family: the name of {detector.file} does not contain yolox or rtmdet, whose inputs differ. "
                "Set --set family=yolox or --set family=rtmdet."
            )
        return named[0] if self.family == "auto" else self.family

    def load_networks(self, device: str) -> Networks:
        detector, pose = self.files()
        networks = GraphNetwork(detector, device), GraphNetwork(pose, device)
        finder = _PersonFinder(self, *networks, normalised=self.family_of(detector) == "rtmdet")
        finder.check()
        each: Callable[..., Iterable[Any]] = map
        if not networks[0].on_gpu:  # one core per image
            each = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="onnx").map
        return Networks(
            lambda images: list(each(finder.boxes, images)),
            lambda images, boxes: list(each(finder.joints, images, boxes)),
        )


def _full(name: str, default: str) -> str:
    return default if name == PRETRAINED else name


def _graph(name: str, release: Published | None) -> Graph:
    """Read the graph of a file or of published weights. Raises as `RTMPose.files`."""
    if release is None:
        return graphs.read(Path(name))
    graph = graphs.read(release.local)
    if graph.digest != release.sha256:
        raise MissingAssets(
            f"{release.local}: it does not contain {name}: expected SHA-256 {release.sha256}, found {graph.digest}. "
            "Delete the file to download it again."
        )
    return graph


def _download(release: Published, name: str) -> str:
    """Print size and licence of published weights, and download them. Returns why this failed, or ""."""
    import torch

    url, file = release.url, release.local
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - an address of OpenMMLab's
            length = answer.headers.get("Content-Length")
        stated = size(int(length)) if length else "size not stated"
        err.print(plain(f"downloading {name} ({stated}, licence {LICENCE}) from {url} to {file}"))
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=False)
    except OSError as error:  # urllib's errors are OSErrors, too
        why = getattr(error, "reason", error)
        return f"{name}: {url} cannot be downloaded ({why}). Download it elsewhere, and copy it to {file}."
    return ""


class _PersonFinder:
    """Finds the people in an image, and the joints of each."""

    def __init__(self, options: RTMPose, detector: GraphNetwork, pose: GraphNetwork, *, normalised: bool) -> None:
        self._options, self._detector, self._pose, self._normalised = options, detector, pose, normalised

    def check(self) -> None:
        """Run both networks on a blank image. Raises RawDataError for unexpected outputs."""
        blank = np.full((64, 48, 3), simcc.GREY, np.uint8)
        self.boxes(blank)
        self.joints(blank, np.array([[0, 0, 48, 64]], np.float32))

    def boxes(self, image: Image) -> Boxes:
        size = self._detector.size
        padded, scale = simcc.letterbox(image, size)
        outputs = self._detector(simcc.detector_input(padded, normalised=self._normalised))
        persons = simcc.persons(outputs, size)
        if persons is None:
            raise self._detector.graph.error("outputs", simcc.forms(size), graphs.shapes(outputs))
        height, width = image.shape[:2]
        boxes = np.clip(persons[0] / np.tile(scale, 2), 0, [width, height, width, height])
        scores = np.where((boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1), persons[1], -1)  # px
        min_score, max_overlap = self._options.min_score, self._options.max_overlap
        best = simcc.suppress_overlaps(boxes, scores, min_score=min_score, max_overlap=max_overlap)
        return Boxes(boxes[best].astype(np.float32), np.clip(scores[best], 0, 1).astype(np.float32))

    def joints(self, image: Image, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(boxes):
            return np.zeros((0, JOINTS, 3), np.float32)
        size, n = self._pose.size, len(boxes)
        affines = simcc.crop_affines(boxes, size)
        outputs = self._pose(simcc.pose_input(image, affines, size))
        expected = [(n, JOINTS, simcc.BINS * side) for side in size]
        if [output.shape for output in outputs] != expected:
            raise self._pose.graph.error("outputs", " and ".join(map(str, expected)), graphs.shapes(outputs))
        return simcc.joints(outputs[0], outputs[1], affines)
