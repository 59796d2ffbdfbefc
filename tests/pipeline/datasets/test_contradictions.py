"""What a release states twice is compared: copies that somebody repacked or resized get a note, right
labels none.
"""

import functools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.contradictions import read_mistake
from benchmarks.label_mistakes import GIVEN
from docs.tables import asked as asked_datasets
from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.datasets import WITH_DEMO_DATA
from pipeline.datasets.shared import contradictions
from pipeline.datasets.shared.contradictions import (
    ELSEWHERE,
    FAR,
    LARGE,
    MISPLACED,
    OUTSIDE,
    SHAPE,
    note_contradictions,
)
from pipeline.extras.demo.camera import Camera
from pipeline.extras.demo.scene import Shot, stage
from pipeline.people.boxes import tight_boxes
from pipeline.people.skeletons import HIP, add_confidence
from pipeline.people.track import Track
from tests.pipeline.datasets.label_files import edit_labels, load_labels

N = 12  # frames
SPLITS = [(name, split) for name in WITH_DEMO_DATA for split in datasets.get(name).splits]
IN_IMAGE = {OUTSIDE, LARGE}
BODIES = {SHAPE, *IN_IMAGE, FAR, ELSEWHERE, MISPLACED}
# what each release states twice in every frame
ASKED = {
    "amass": {SHAPE},
    "3dpw": BODIES,
    "emdb": BODIES,
    "bedlam": BODIES,
    "h36m": {*IN_IMAGE, ELSEWHERE},
    ("mpi_inf_3dhp", "train"): {*IN_IMAGE, FAR, ELSEWHERE, MISPLACED},
    ("mpi_inf_3dhp", "test"): {*IN_IMAGE, FAR},
}


@functools.cache
def body_of(name, embedded):
    dataset = datasets.get(name)
    return dataset.load_body(embedded.body) if dataset.labels.uses_body else None


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_every_reader_asks_each_of_its_tracks_and_right_labels_do_not_contradict(
    name, split, embedded, monkeypatch
):
    spoke, asked = Counter(), []
    measure = contradictions.measure

    def counted(track, *stated):
        numbers = measure(track, *stated)
        asked.append(track.name)
        spoke.update({check: int(np.isfinite(values).sum()) for check, values in numbers.items()})
        return numbers

    monkeypatch.setattr(contradictions, "measure", counted)
    raw = embedded.raw(name)
    reader = datasets.get(name).detect_layout(raw, split)
    names, n_rows = [], 0
    for video in reader.videos(raw, split):
        tracks, account = reader.read_accounted(raw, split, video, body_of(name, embedded))
        assert account.contradictions == {}
        names += [track.name for track in tracks]
        n_rows += sum(len(track.frame_index) for track in tracks)
    assert asked == names
    usual = ASKED.get(name, IN_IMAGE)
    for check in ASKED.get((name, split), usual):
        assert spoke[check] == n_rows, check
    said = {check.text for check, n in spoke.items() if n}
    shown = {text for text, names in asked_datasets().items() if name in names}
    assert said <= shown, "run benchmarks/contradictions.py, then tests/docs/test_tables.py"


NOTED = {
    ("penn_action", "coordinates of a crop"): {OUTSIDE},
    ("amass", "betas times 100"): {SHAPE},
    ("3dpw", "trans in cm"): {FAR, MISPLACED},
    ("3dpw", "poses negated"): {ELSEWHERE},
    ("3dpw", "2D joints at half size"): {MISPLACED},
    ("emdb", "boxes at half size"): {OUTSIDE},
    ("emdb", "root orientation in degrees"): {ELSEWHERE},
    ("bedlam", "scale in px"): {LARGE},
    ("bedlam", "trans_cam in mm"): {FAR, MISPLACED},
    ("mpi_inf_3dhp", "2D joints at half size"): {MISPLACED},
    ("mpi_inf_3dhp", "3D joints in the world"): {ELSEWHERE},
    ("posetrack", "boxes at half size"): {OUTSIDE},
}


@pytest.fixture(scope="module")
def right(embedded, demo_data, tmp_path_factory):
    """A folder with the layout of each dataset in NOTED."""
    folder = tmp_path_factory.mktemp("right")
    for name in {name for name, _ in NOTED} - {"mpi_inf_3dhp"}:
        (folder / name).symlink_to(embedded.raw(name))
    # the embedded one has too few rows that are labelled
    demo_data.dataset("mpi_inf_3dhp", folder / "mpi_inf_3dhp", n_videos=1, n_frames=16)
    return folder


@pytest.mark.parametrize(
    "mistake",
    [mistake for mistake in GIVEN if mistake[:2] in NOTED],
    ids=lambda mistake: f"{mistake.dataset}: {mistake.what}",
)
def test_a_mistake_of_a_repacked_copy_is_noted_and_its_rows_are_kept(
    mistake, right, embedded, tmp_path
):
    outcome = read_mistake(mistake, right, embedded.body, tmp_path)
    expected = {check.text for check in NOTED[mistake[:2]]}
    assert expected <= {*outcome.contradictions}
    assert outcome.rejected == []


def test_convert_status_and_doctor_count_the_videos_and_name_the_worst(
    embedded, tmp_path, types, types_json, luigi_cfg
):
    raw = embedded.copy("emdb", tmp_path / "raw/emdb")
    (tmp_path / "body").symlink_to(embedded.body)
    luigi_cfg("emdb")
    files = sorted(raw.glob("P*/*/*.pkl"))
    right = [file.read_bytes() for file in files]
    n_good = {}  # in emdb1: sequence -> good frames with a box
    for file in files:
        edit_labels(file, _move_to_cm)
        labels = load_labels(file)
        if labels["emdb1"]:
            is_good = labels["good_frames_mask"].copy()
            is_good[labels["bboxes"]["invalid_idxs"]] = False
            n_good[file.parent.relative_to(raw).as_posix()] = int(is_good.sum())
    assert len({*n_good.values()}) == len(n_good) == 2, "one is the worst"

    n_frames = sum(n_good.values())
    far = f"{FAR.text} in {n_frames} frames of 2 videos, most in {max(n_good, key=n_good.get)}"
    types("convert emdb/emdb1 --raw RAW/emdb --body TMP/body --cache CACHE", far)
    types(
        "status --cache CACHE", f"emdb/emdb1: {far}", f"emdb/emdb1: {MISPLACED.text} in {n_frames}"
    )
    types("status --all --cache CACHE", f"{min(n_good)}: ", FAR.text)
    (state,) = types_json("status --cache CACHE")
    noted = {one["name"]: one["contradictions"] for one in state["videos"] if one["kept"]}
    assert noted == {name: {FAR.text: n, MISPLACED.text: n} for name, n in n_good.items()}
    types("doctor", f"emdb/emdb1: {far}")
    types("doctor --raw RAW --body TMP/body emdb")

    for file, content in zip(files, right, strict=True):
        file.write_bytes(content)
    assert "m from the camera" not in types("convert emdb/emdb1 --cache CACHE")
    for command in ("status --all --cache CACHE", "doctor"):
        assert "m from the camera" not in types(command)


def _move_to_cm(labels):
    labels["smpl"]["trans"] = 100 * labels["smpl"]["trans"]


FILMED = stage(Shot("right", "train", "a", 0, 0, N, 30.0, n_people=3))


def seen_by(rng, height, distance, elevation, focal, noise=0.02):
    """A person of a height in m, before a camera at a distance in m whose focal length is a
    multiple of the image's width. 2D joints are off by `noise` of the person's size, a quarter is
    hidden, and in a third of the frames three are off by 50 times as much.
    """
    actor = FILMED.actors[rng.integers(3)]
    points = actor.spin49 * height / np.ptp(actor.spin49[..., 1], axis=1).max()
    middle = points.mean(axis=1)
    angle = np.radians([elevation, rng.uniform(0, 360)])
    direction = np.array([np.cos(angle[0]) * np.sin(angle[1]), np.sin(angle[0]),
                          np.cos(angle[0]) * np.cos(angle[1])])  # fmt: skip
    intrinsics = np.array([[1280 * focal, 0, 640], [0, 1280 * focal, 360], [0, 0, 1]])
    aside = rng.uniform(-0.2, 0.2, 3) * distance
    roll = rng.uniform(-0.3, 0.3, N)
    camera = Camera.aim(
        (1280, 720), intrinsics, middle + distance * direction, middle + aside, roll
    )
    joints = camera.to_camera(points)
    pixels = camera.project(points)
    size = np.ptp(pixels, axis=1).max(axis=1)[:, None, None]
    pixels = pixels + rng.normal(0, noise, pixels.shape) * size
    pixels[::3, 4:7] += 50 * noise * size[::3]
    confidence = rng.random((N, 49)) < 0.75
    kp_2d = np.where(confidence[..., None], add_confidence(pixels), 0)
    root = joints[:, HIP]
    track = Track(
        dataset="right", split="train", name="a/0", video="a", fps=30.0, frame_index=np.arange(N),
        bbox=tight_boxes(kp_2d, 1.2)[0], kp_2d=kp_2d.astype(np.float32),
        kp_3d=add_confidence(joints - root[:, None]).astype(np.float32),
        has_3d=np.ones(N, bool), intrinsics=intrinsics.astype(np.float32),
    )  # fmt: skip
    return track, root


def contradictions_of(track, **stated):
    account = VideoAccount("a")
    note_contradictions(track, account, **stated)
    return dict(account.contradictions)


RNG = np.random.default_rng(7)
CAMERAS = [
    (height, distance, elevation, focal)
    for height in (0.7, 1.1, 1.75, 2.2)
    for distance in (1.5, 3, 10, 45)
    for elevation in (-60, -20, 0, 30, 80)
    for focal in (0.4, 1, 4)
]
FROM_THE_SIDE = [camera for camera in CAMERAS if abs(camera[2]) <= 30]


def test_right_people_of_any_size_before_any_camera_do_not_contradict():
    for camera in CAMERAS:
        track, root = seen_by(RNG, *camera)
        assert contradictions_of(track, root=root) == {}, camera
        numbers = contradictions.measure(track, root)
        assert {*numbers} == {*IN_IMAGE, FAR, ELSEWHERE, MISPLACED}
        assert all(np.isfinite(values).all() for values in numbers.values())


def test_the_same_people_at_another_place_in_other_axes_or_at_another_scale_contradict():
    for camera in FROM_THE_SIDE:
        track, root = seen_by(RNG, *camera)
        assert contradictions_of(track, root=0.6 * root).keys() == {MISPLACED.text}, camera
        turned = track.kp_3d * np.float32([1, -1, 1, 1])
        half = track.kp_2d * np.float32([0.5, 0.5, 1])
        assert ELSEWHERE.text in contradictions_of(replace(track, kp_3d=turned)), camera
        assert MISPLACED.text in contradictions_of(replace(track, kp_2d=half), root=root), camera


def test_what_is_not_known_says_nothing_and_every_row_is_looked_at():
    track, root = seen_by(RNG, 1.75, 4, 10, 1, noise=0)
    few = track.kp_2d.copy()
    few[:, 5:] = 0  # five joints
    unknown = {
        "few joints": (replace(track, kp_2d=few), 2 * root, {FAR}),
        "no camera": (replace(track, intrinsics=None), 2 * root, {*IN_IMAGE, FAR}),
        "no 3D": (replace(track, has_3d=np.zeros(N, bool)), 2 * root, {*IN_IMAGE, FAR}),
        "no place": (track, 0 * root, {*IN_IMAGE, ELSEWHERE}),
    }
    for what, (labels, place, asked) in unknown.items():
        numbers = contradictions.measure(labels, place)
        assert {check for check, v in numbers.items() if np.isfinite(v).any()} == asked, what
        assert contradictions_of(labels, root=place) == {}, what

    half = N // 2
    moved = np.where(np.arange(N)[:, None] < half, root, 2 * root)
    assert contradictions_of(track, root=moved) == {}, "half of the rows"
    moved[half - 1] *= 2
    assert contradictions_of(track, root=moved) == {MISPLACED.text: half + 1}
    short = replace(track, **{name: array[:7] for name, array in track.columns.items()})
    assert contradictions_of(short, root=2 * root[:7]) == {}, "seven rows prove nothing"


def test_what_is_said_has_the_limit():
    for check in BODIES:
        assert {f"{check.limit:g}", f"{check.limit:.0%}"} & {*check.text.split()}, check
