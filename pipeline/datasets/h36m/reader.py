"""Human3.6M: actors in a studio, four cameras, motion capture.  [raw -> tracks] -> features

Ionescu, Papava, Olaru, Sminchisescu: Human3.6M: Large Scale Datasets and Predictive Methods for 3D
Human Sensing in Natural Environments, PAMI 2014.

    S<k>/Videos/<sequence>.mp4          or images in S<k>/images/<sequence>/; "Walking 1.54138969"
                                        is a sequence: <action>[ <n>].<camera>
    S<k>/MyPoseFeatures/{D2_Positions,D3_Positions_mono}/<sequence>.cdf
    metadata.xml                        cameras, and each subject's sequence names of an action
    smpl_param/Human36M_subject<k>_smpl_param.json      optional SMPL fits in the world by other
                                                        authors: action id -> subaction id ->
                                                        frame -> pose 72, shape 10
    smpl_param/Human36M_subject<k>_camera.json          camera "1" to "4" -> R (3, 3); both also in
                                                        annotations/

`release_layout` reads this layout. `json_layout` reads another one, of images and JSON files, which
is used for sequences that are missing or incomplete in this one: `Human36M.videos` chooses
(`_add_json_videos`), and `Human36M.read` gets `LabelledFrames` from `read_labels` of either module.

In both layouts, a sequence has the release's name, such as "S9/Walking 1.54138969", and the first
two files of its `RawVideo` are its label files, whether they exist or not
(`json_layout.needed_files`): 2D and 3D poses here, joints and cameras there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.accounting import Totals, VideoAccount
from pipeline.datasets.base import (
    Dataset,
    ImageFolders,
    Licence,
    Mistake,
    Origin,
    Release,
    ReleasePart,
)
from pipeline.datasets.h36m import json_layout, release_layout
from pipeline.datasets.h36m.json_layout import (
    CAMERA,
    FILE,
    FITS,
    FOLDERS,
    JOINTS_3D,
    label_files,
    smpl_labels,
)
from pipeline.datasets.h36m.release_layout import (
    FPS,
    METADATA,
    PICTURES,
    POSES_2D,
    POSES_3D,
    VIDEOS,
)
from pipeline.datasets.shared.checks import LabelRules
from pipeline.datasets.shared.labelled_track import labelled_track
from pipeline.datasets.shared.smpl import BODIES, EXTRINSICS, UP
from pipeline.errors import RawDataError
from pipeline.files.raw import RawVideo
from pipeline.people.skeletons import Ints, convert
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.body import Body

BOX_FACTOR: Final = 1.1
SUBJECTS: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("S1", "S5", "S6", "S7", "S8"),
    "val": ("S9", "S11"),
}
WORLD_UP: Final = np.array([0, 0, 1], np.float32)  # of metadata.xml's cameras
# recording -> a note about a fault in the release
DAMAGED: Final = dict.fromkeys(
    ("S9/Greeting", "S9/SittingDown 1", "S9/Waiting 1"), "its labels lie off the images"
) | {"S11/Directions": "the video of camera 54138969 is damaged in the release"}


def _split_parts(split: str) -> Iterator[ReleasePart]:
    """Yield the parts of the release that a split needs: frames, 2D poses and 3D poses.

    The images, cameras or joints of `json_layout` can replace them (`instead`). Patterns list the
    split's subjects in braces, and [!_] skips files that are no sequences. Some of val:

        {S9,S11}/Videos/[!_]<action>.<camera>.mp4
        images/s_{09,11}_act_<action>_subact_<n>_ca_<camera>/
        annotations/Human36M_subject{9,11}_camera.json
    """
    subjects = SUBJECTS[split]
    numbers = [subject[1:] for subject in subjects]
    any_subject = f"{{{','.join(subjects)}}}"
    any_number = f"{{{','.join(numbers)}}}"
    any_padded = f"{{{','.join(number.zfill(2) for number in numbers)}}}"
    sequence = "[!_]<action>.<camera>"
    n_sequences = 15 * 2 * 4 * len(subjects)  # 15 actions, twice each, by four cameras

    def archives(name: str) -> str:
        return ", ".join(f"{name}_{subject}.tgz" for subject in subjects)

    def part(
        content: str,
        *patterns: str,
        source: str = json_layout.SOURCE,
        known: int = n_sequences,
        instead: ReleasePart | None = None,
    ) -> ReleasePart:
        description = f"{split} {content}"
        return ReleasePart(description, patterns, source, (split,), known, instead=instead)

    images = f"images/s_{any_padded}_act_<action>_subact_<n>_ca_<camera>/"
    subject_file = f"annotations/{FILE}{any_number}"
    json_images = part("images", images)
    json_cameras = part("cameras", subject_file + CAMERA, known=len(subjects))
    json_joints = part("joints", subject_file + JOINTS_3D, known=len(subjects))

    yield part(
        "videos or images",
        f"{any_subject}/{VIDEOS}/{sequence}.mp4",
        *(f"{any_subject}/{folder}/{sequence}/" for folder in PICTURES),
        source=f"{archives('Videos')}; or {json_layout.SOURCE}",
        instead=json_images,
    )
    yield part(
        "2D poses",
        f"{any_subject}/{POSES_2D}/{sequence}.cdf",
        source=archives("Poses_D2_Positions"),
        instead=json_cameras,
    )
    yield part(
        "3D poses",
        f"{any_subject}/{POSES_3D}/{sequence}.cdf",
        source=archives("Poses_D3_Positions_mono"),
        instead=json_joints,
    )


@dataclass(frozen=True)
class Human36M(Dataset):
    """One track per sequence (an action seen by one camera), with every second frame.

    It has SMPL labels if the raw folder has the public fits.
    """

    name = "h36m"
    splits = tuple(SUBJECTS)
    # 7: images of another size than the release's are refused; one thread decodes a clip; wrong
    # times; 8: ends of H.264 slices
    version = 8
    uses = Dataset.uses | BODIES

    release = Release(
        page="http://vision.imar.ro/human3.6m",
        access="signed licence",
        licence=Licence(
            "Human3.6M's licence agreement", "http://vision.imar.ro/human3.6m/eula.php", "no"
        ),
        parts=(
            *_split_parts("train"),
            *_split_parts("val"),
            ReleasePart(
                METADATA.name,
                (METADATA.name,),
                "metadata.xml in the release's own code (Release-v1.1), available on the same page",
                known=1,
                without="cameras of the release's own files",
            ),
            ReleasePart(
                "SMPL fits",
                tuple(f"{folder}/Human36M_subject<k>{fit}" for folder in FOLDERS for fit in FITS),
                "SMPL parameters of Human3.6M and the cameras that go with them, of "
                "github.com/mks0601/I2L-MeshNet_RELEASE",
                known=7,
                without="pose and betas: has_smpl is 0 everywhere",
            ),
        ),
        mistakes=(
            Mistake(
                "*/metadata.xml", "is not read there", "Copy it into the dataset's own folder."
            ),
            Mistake(
                "S*/MyPoseFeatures/D3_Positions/",
                "is in the world's axes and not read",
                "Download D3_Positions_mono, if it is not there yet.",
            ),
        ),
        recording="sequence",
        # four cameras film each action
        image_folders=ImageFolders(
            alike_by_camera=True, short=frozenset({"S11/Directions.54138969"})
        ),
        # the poses at 50 fps as users counted them (issue 1 of weigq/3d_pose_baseline_pytorch),
        # with those of the corrupt video
        totals={"train": Totals(600, 1_559_752), "val": Totals(240, 550_644)},
    )
    labels = LabelRules(
        checks_fits=True,  # the public SMPL fits are compared with the joints
        extra=(EXTRINSICS, UP),
        optional_extra=(EXTRINSICS.name, UP.name),  # need the cameras
    )

    def detect_layout(self, raw: Path, split: str) -> Human36M:
        has_fits = any(label_files(raw, subject, FITS) for subject in SUBJECTS[split])
        if has_fits:
            return self
        return _WithoutFits(**asdict(self))

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        labels = ("frame_index", "bbox", "kp_2d", "kp_3d", "pose", "betas", "has_3d", "has_smpl")
        return (*labels, "kp_3d_eval") if split == "val" else labels

    def origin(self, video: str) -> Origin:
        """The recording is the action of one subject, which four cameras filmed.

        >>> Human36M().origin("S9/Walking 1.54138969")
        Origin(subject='S9', recording='S9/Walking 1')
        """
        match = re.fullmatch(r"(S[0-9]+)/([^/.]+)\.[0-9]+", video)
        if match is None:
            return Origin()
        return Origin(match[1], f"{match[1]}/{match[2]}")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        """List the sequences that either layout has, each once."""
        subjects = SUBJECTS[split]
        with_folder = [subject for subject in subjects if (raw / subject).is_dir()]
        listed: dict[str, RawVideo] = {}
        for subject in with_folder:
            for video in release_layout.list_videos(raw, subject):
                listed[video.name] = video
        _add_json_videos(raw, subjects, listed)
        if not listed and not with_folder:
            expected = (
                f"{' '.join(subjects)}, or some of them, or images/s_XX_act_XX_subact_XX_ca_XX"
            )
            do = "Point the raw folder at the one that holds the subjects' folders."
            raise RawDataError(raw, "folders", expected, "none of them", do)
        return sorted(listed.values(), key=lambda video: video.name)

    def label_note(self, raw: Path, split: str) -> str:
        videos = json_layout.list_videos(raw, SUBJECTS[split])
        subjects = {video.name.partition("/")[0] for video in videos}
        both = sorted(subject for subject in subjects if (raw / subject).is_dir())
        if not both:
            return ""
        return f"{', '.join(both)}: S<k>/ counts for sequences that are complete in it, not images/"

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        recording, _, _ = video.name.rpartition(".")
        if recording in DAMAGED:
            account.note(DAMAGED[recording])
        read_labels = json_layout.read_labels if _is_json(video) else release_layout.read_labels
        labels = read_labels(raw, video, account)
        extrinsics, intrinsics = labels.camera or (None, None)

        def labels_of(rows: Ints) -> dict[str, Any]:
            frames = labels.frame_index[rows]
            common14 = convert(labels.joints[rows], source="h36m", target="common14")
            joints = common14.astype(np.float32)
            return smpl_labels(raw, video, frames, labels.action, joints, body, account)

        return labelled_track(
            self,
            split,
            video,
            account,
            labels.source,
            reasons=labels.reasons,
            skeleton="h36m",
            kp_2d=labels.kp_2d,
            kp_3d=labels.joints,
            evaluation=split == "val",
            frame_index=labels.frame_index,
            box_factor=BOX_FACTOR,
            extrinsics=extrinsics,
            labels_of=labels_of,
            fps=FPS,
            intrinsics=intrinsics,
            extra={} if extrinsics is None else {"up": WORLD_UP},
        )


@dataclass(frozen=True)
class _WithoutFits(Human36M):
    """The reader of a raw folder without SMPL fits: its labels do not depend on the body model."""

    labels = replace(Human36M.labels, checks_fits=False)


def _add_json_videos(raw: Path, subjects: Sequence[str], listed: dict[str, RawVideo]) -> None:
    """Add the sequences of `json_layout` to `listed`, which has those of the release by name.

    If both layouts have a sequence, the release's stays, unless only the other one is complete.
    """
    # folder that json_layout would have of a sequence -> the release's sequence
    by_image_folder = {json_layout.image_folder(name): video for name, video in listed.items()}
    for video in json_layout.list_videos(raw, subjects):
        released = by_image_folder.get(video.folders[0])
        if released is not None:
            if _is_complete(raw, released) or not _is_complete(raw, video):
                continue
            del listed[released.name]  # S1's Photo may be TakingPhoto in the other layout
        listed[video.name] = video


def _is_json(video: RawVideo) -> bool:
    """Whether a video has the layout of `json_layout`."""
    return video.files[0].suffix == ".json"


def _is_complete(raw: Path, video: RawVideo) -> bool:
    """Whether a sequence, in either layout, has cameras, frames and both label files."""
    has_cameras = _is_json(video) or METADATA in video.files
    has_frames = bool(video.folders) or any(file.suffix == ".mp4" for file in video.files)
    has_labels = all(file.is_file() for file in json_layout.needed_files(raw, video))
    return has_cameras and has_frames and has_labels
