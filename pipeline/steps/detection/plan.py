"""Decide which clips a detector has to process.  [pixels] -> raw keypoints -> tracks

A clip's keypoint file is up to date if its fingerprint is that of the clip's pixels, the detector
and its options. `plan_detection` compares all clips with their files. In a `DetectionWork`, each
clip is one of these:

    refused      it cannot have a file: it is damaged, or its name is not supported
    up to date   its file has its fingerprint (only their number is stored)
    failed       an earlier run gave it up, and neither the clip nor the detector has changed
    renamed      a lost file has its fingerprint: that file is renamed like the clip
    missing      it is to be detected

A lost file is one that `detect` wrote for a clip that no longer exists.

`pipeline.steps.detection.run` does it, and commands and tasks show it.
`unlabelled_clips` says which clips have no labels of another tool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cache import fingerprint
from cache.write.parts import Part
from pipeline.cli import pages
from pipeline.cli.text import command, from_here
from pipeline.clips.detectors import Detector, identity, terms
from pipeline.clips.files import KEYPOINTS, VERSION, ClipFiles, keypoint_file, read_detection
from pipeline.clips.labels.label_files import ClipLabels
from pipeline.clips.listing import KINDS, describe_others, list_clips
from pipeline.errors import ConfigError, PipelineError, RawDataError
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import is_demo_data
from pipeline.files.raw.changes import refuse_other_encoding, utf8
from pipeline.files.raw.files import VIDEOS, digest_or_problem, list_files
from pipeline.steps.recipe import Recipe


@dataclass(frozen=True, slots=True)
class DetectionWork:
    """What is to do with each clip (see above). Can be pickled."""

    raw: Path
    out: Path
    detector: Detector
    about: Mapping[str, Any]  # the part of a file's `info` that all clips share
    missing: Sequence[ClipFiles]  # clips to detect: their file is missing or not up to date
    renamed: Mapping[ClipFiles, ClipFiles]  # renamed clips -> their files under the old names
    failed: Mapping[ClipFiles, str]  # clips that an earlier run gave up -> why
    n_up_to_date: int  # number of clips whose file is up to date
    refused: Mapping[str, str]  # clips that cannot have a file -> why
    weights: Sequence[Mapping[str, str]]  # `Detector.terms`, if there are clips to detect; else []

    @property
    def up_to_date(self) -> bool:
        """Whether there is nothing to do, except to retry failed clips."""
        return not self.missing and not self.renamed

    @property
    def problems(self) -> dict[str, str]:
        """Clip -> why it has no file."""
        return dict(self.refused) | {target.clip: why for target, why in self.failed.items()}

    def is_unchanged(self, target: ClipFiles) -> bool:
        """Whether the clip, as this machine sees it, is still the one that was planned."""
        try:
            return _target_of(self.out, Video(self.raw, target.clip), self.about) == target
        except (RawDataError, OSError):
            return False

    @property
    def retry_command(self) -> str:
        """The command that retries clips that were given up."""
        words = ["detect", from_here(self.raw), "--out", from_here(self.out)]
        words += ["--detector", self.detector.name]
        for field in fields(self.detector):
            value = getattr(self.detector, field.name)
            words += ["--set", f"{self.detector.name}.{field.name}={value}"]
        return command(*words)


def usual_detector(raw: Path) -> str:
    """Name of the default detector for a clip or a folder: `demo` for demo data, else `rtmpose`."""
    if raw.is_file():
        raw = raw.parent
    return "demo" if is_demo_data(raw) else "rtmpose"


def unlabelled_clips(raw: Path, *, by_any_detector: bool) -> list[str]:
    """List clips below `raw` that have no labels of another tool, so that `detect` may write them.

    by_any_detector: also leave out clips that have up-to-date labels of `detect` by any detector.
    Raises ConfigError if there are no clips.
    """
    raw, clips = _clips_of(raw)
    labels = ClipLabels(raw, clips)
    unlabelled = []
    for clip in clips:
        if clip.startswith(f"{KEYPOINTS}/"):  # a video among the labels is no clip
            continue
        folder, _, name = clip.rpartition("/")
        if labels.find(name, folder):
            detection = read_detection(keypoint_file(raw / KEYPOINTS, clip))
            is_labelled = detection is None
            if detection is not None and by_any_detector:  # else the plan compares the detectors
                is_labelled = detection.clip_digest == digest_or_problem(raw / clip)
        else:
            # labels of a similar name are probably the clip's: conversion says how to rename them
            is_labelled = labels.find_similar(name, folder) is not None
        if not is_labelled:
            unlabelled.append(clip)
    return unlabelled


def plan_unlabelled(recipe: Recipe) -> DetectionWork | None:
    """Plan the detection in the clips of a recipe's raw folder that have no labels of another tool,
    which all splits of the dataset share; None if there are none. Raises as `plan_detection` does,
    and ConfigError without a detector.
    """
    raw = recipe.raw
    if recipe.detector is None:
        raise ConfigError(f"{recipe.dataset.name}: [detect] detector names no detector")
    only = unlabelled_clips(raw, by_any_detector=recipe.by_any_detector)
    if not only:
        return None
    return plan_detection(raw, raw / KEYPOINTS, recipe.detector, only)


def plan_detection(
    raw: Path,
    out: Path,
    detector: Detector,
    only: Sequence[str] | None = None,
    part: Part | None = None,
) -> DetectionWork:
    """Compare the clips below `raw` with their files in `out`. Writes nothing.

    Args:
        raw: A folder of clips, or one clip.
        only: Plan only these clips.
        part: Plan only this share of the clips.

    Raises:
        ConfigError: There are no clips, `out` is their folder, or a stand-in detector is used on
            real data.
        MissingAssets: Weights are missing.
        PlugInError: Another package's detector fails.
    """
    one_clip = raw.is_file()  # if so, other files in `out` are of other clips
    raw, clips = _clips_of(raw)
    if out.resolve() == raw.resolve():
        raise ConfigError(
            f"--out {out}: this is the folder of the clips. Name {out / KEYPOINTS}, where "
            "`convert` reads them."
        )
    demo = is_demo_data(raw)
    if detector.stand_in and not demo:
        raise ConfigError(
            f"{detector.name} finds people only in demo data, but {raw} is real data. Use "
            f"another detector, or the output of another tool ({pages.KEYPOINT_FILES})."
        )
    about = {
        "detector": detector.name,
        "version": detector.version,
        "options": identity(detector),
        "stand_in": demo,
    }
    lost: dict[str, ClipFiles] = {}
    if not one_clip:
        lost = _find_lost_clips(raw, out, clips)
    if only is not None:
        clips = list(only)
    if part is not None:
        clips = list(part.share(clips))

    return _plan_clips(raw, out, detector, about, clips, lost)


def _plan_clips(
    raw: Path,
    out: Path,
    detector: Detector,
    about: Mapping[str, Any],
    clips: Iterable[str],
    lost: dict[str, ClipFiles],
) -> DetectionWork:
    """Plan what to do for each clip.

    about: as in `DetectionWork`. lost: fingerprint -> a file without a clip. A clip with this
    fingerprint is the file's clip under a new name, and is taken out of `lost`.
    """
    missing = []
    renamed = dict[ClipFiles, ClipFiles]()
    failed = {}
    n_up_to_date = 0
    refused: dict[str, str] = {}
    for clip in clips:
        try:
            video = Video(raw, clip)
            target = _target_of(out, video, about)
            is_up_to_date = target.is_up_to_date()
            if not is_up_to_date:
                video.require_whole()
        except (PipelineError, OSError) as error:
            refused[utf8(clip)] = str(error)
            continue
        if is_up_to_date:
            n_up_to_date += 1
        elif target.failed.is_file():
            failed[target] = target.failed.read_text()
        elif target.fingerprint in lost:
            renamed[target] = lost.pop(target.fingerprint)
        else:
            missing.append(target)

    return DetectionWork(
        raw=raw,
        out=out,
        detector=detector,
        about=about,
        missing=missing,
        renamed=renamed,
        failed=failed,
        n_up_to_date=n_up_to_date,
        refused=refused,
        weights=terms(detector) if missing or failed else [],
    )


def _clips_of(raw: Path) -> tuple[Path, list[str]]:
    """Return the raw folder and its clips; for one clip, its folder and its name.

    Raises ConfigError if there are no clips.
    """
    if raw.is_file():
        if raw.suffix.lower() not in VIDEOS:
            raise ConfigError(
                f"{raw}: expected a clip or a folder of clips, {KINDS}; found another file"
            )
        return raw.parent, [raw.name]
    clips = list_clips(raw)
    if not clips:
        problem = "no such file or folder"
        if raw.is_dir():
            problem = "; ".join(filter(None, ["no clips in this folder", describe_others(raw)]))
        raise ConfigError(f"{raw}: {problem}. Name a folder with {KINDS}.")
    return raw, clips


def _target_of(out: Path, video: Video, about: Mapping[str, Any]) -> ClipFiles:
    """Compute a clip's fingerprint, and return its `ClipFiles`. about: as in `DetectionWork`.

    Raises RawDataError if the clip's name or kind of file is not supported.
    """
    refuse_other_encoding(video.root, video.path)
    video.require_known_kind()
    decided_by = {
        "version": VERSION,
        "detector": about["detector"],
        "detector_version": about["version"],
        "options": about["options"],
        "pixels": video.digest(),
    }
    return ClipFiles(out, video.path, fingerprint(decided_by))


def _find_lost_clips(raw: Path, out: Path, clips: Sequence[str]) -> dict[str, ClipFiles]:
    """Find complete files of `detect` in `out` whose clips are no longer in `raw` (deleted or
    renamed), by the fingerprint that the file states.
    """
    lost = {}
    for clip in sorted({file.removesuffix(".json") for file in list_files(out)} - {*clips}):
        is_clip = Path(clip).suffix.lower() in VIDEOS
        if not is_clip or (raw / clip).exists():
            continue
        detection = read_detection(keypoint_file(out, clip))
        if detection is not None and detection.clip == clip:
            target = ClipFiles(out, clip, detection.fingerprint)
            if target.is_whole():
                lost[target.fingerprint] = target
    return lost
