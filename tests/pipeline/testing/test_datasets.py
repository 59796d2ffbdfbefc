"""The contract's own test: every promise, once broken, is named."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cache
from cache import ExtraColumn
from pipeline.accounting import Accounting
from pipeline.datasets.base import Dataset, Origin
from pipeline.datasets.shared.checks import LabelRules
from pipeline.datasets.shared.smpl import EXTRINSICS, UP
from pipeline.errors import MissingAssets, RawDataError
from pipeline.extras.demo.files import jpeg
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw import RawVideo
from pipeline.people.body import Body
from pipeline.people.skeletons import JOINTS
from pipeline.people.track import Track
from pipeline.steps.conversion import convert
from pipeline.testing import datasets as contract
from pipeline.testing import labels
from tests.fixtures import planned

COLUMNS = ("frame_index", "bbox", "kp_2d", "kp_3d", "has_3d")
HIP = JOINTS["spin49"].index("hip")


def good(raw):
    """A track against which nothing can be said."""
    rng = np.random.default_rng(0)
    kp_2d = rng.uniform(20, 60, (3, 49, 3)).astype(np.float32)
    kp_2d[..., 2] = 1
    kp_2d[:, ::4] = 0
    kp_3d = np.concatenate(
        [0.3 * rng.normal(size=(3, 49, 3)), np.ones((3, 49, 1))], axis=-1
    ).astype(np.float32)
    kp_3d[:, HIP, :3] = 0
    return Track(
        dataset="dances",
        split="train",
        name="a/0",
        video="a",
        fps=25.0,
        frame_index=np.arange(3),
        bbox=np.tile(np.float32([40, 40, 50, 50]), (3, 1)),
        kp_2d=kp_2d,
        kp_3d=kp_3d,
        has_3d=np.ones(3, np.bool_),
        frames=Pictures(raw, "a/{:06d}.jpg"),
    )


def changed(array, place, value):
    out = array.copy()
    out[place] = value
    return out


BROKEN = {
    "has no kp_2d, which its reader declares": lambda t: replace(t, kp_2d=None),
    "crop_scale": lambda t: replace(t, crop_scale=0.0),
    "fps is 0": lambda t: replace(t, fps=0.0),
    "fps is '30': expected a number": lambda t: replace(t, fps="30"),
    "intrinsics": lambda t: replace(t, intrinsics=np.full((3, 3), np.nan)),
    "bbox is (2, 4), expected (3, 4)": lambda t: replace(t, bbox=t.bbox[:2]),
    "strictly increasing": lambda t: replace(t, frame_index=np.array([0, 2, 2])),
    "has_3d is float32, expected uint8": lambda t: replace(t, has_3d=np.ones(3, np.float32)),
    "gender is 'm', expected one of neutral, male, female": lambda t: replace(t, gender="m"),
    "boxes without images": lambda t: replace(t, frames=None),
    "kp_2d holds NaN": lambda t: replace(t, kp_2d=changed(t.kp_2d, (1, 1, 0), np.nan)),
    "bbox is in the wrong unit: expected square boxes": lambda t: replace(
        t, bbox=changed(t.bbox, (0, slice(2, 4)), 0)
    ),
    "kp_2d is in the wrong unit: expected a confidence": lambda t: replace(
        t, kp_2d=changed(t.kp_2d, (1, 1, 2), 1.5)
    ),
    "kp_2d is in the wrong unit: expected pixels": lambda t: replace(
        t, kp_2d=t.kp_2d / np.float32([90, 80, 1])
    ),
    "kp_3d is in the wrong unit: expected bodies": lambda t: replace(
        t, kp_3d=t.kp_3d * np.float32([1e3, 1e3, 1e3, 1])
    ),
    "without a visible joint": lambda t: replace(t, kp_2d=changed(t.kp_2d, 1, 0)),
    "pelvis": lambda t: replace(t, kp_3d=changed(t.kp_3d, (1, HIP, 0), 0.1)),
    "kp_3d comes without has_3d": lambda t: replace(t, has_3d=None),
    "are not among this split's": lambda t: replace(t, trans=np.ones((3, 3), np.float32)),
    "its labels name": lambda t: replace(t, split="val"),
    "its name is not <video>/<person>": lambda t: replace(t, name="b/0"),
}


CONTACT = ExtraColumn(
    name="contact", about="on the ground", shape=(4,), dtype="uint8", mirror=((0, 2), (1, 3))
)
IN_CONTACT = np.array([[0, 0, 0, 1], [0, 1, 0, 1], [1, 1, 0, 0]], np.uint8)


def boxed(t, x, y, side):
    return replace(t, bbox=np.tile(np.float32([x, y, side, side]), (3, 1)))


BROKEN |= {  # what no person looks like
    "outside the bounding box: in 3 of 3": lambda t: boxed(t, 140, 40, 50),
    # absent joints, taken for seen ones
    "exactly (0, 0) is visible": lambda t: replace(t, kp_2d=changed(t.kp_2d, (1, 0, 2), 1)),
}


def same(track):
    return track


@dataclass(frozen=True)
class Dances(Dataset):
    """A reader whose one track is spoilt in one way."""

    spoil: Callable[[Track], Track] = same
    keeps: int = 3
    found: int = 3
    listed: tuple[RawVideo, ...] = (RawVideo("a", files=(), folders=(Path("a"),)),)

    name = "dances"
    splits = ("train",)
    version = 1

    def columns(self, split, *, body):
        return COLUMNS

    def videos(self, raw, split):
        return self.listed

    def read(self, raw, split, video, account, body):
        account.found = self.found
        account.keep_track(self.keeps)
        return [self.spoil(good(raw))]


@dataclass(frozen=True)
class Versions(Dances):
    version: int = 1


def other(**methods):
    """A reader with these methods and declarations."""
    return type("Other", (Dances,), methods)()


class Own(Dances):
    """With columns of its own."""

    declared: ClassVar[tuple[ExtraColumn, ...]] = (CONTACT, EXTRINSICS, UP)
    changes: ClassVar[dict[str, Any]] = {}  # functions of the columns, or what takes their place

    def parameters(self):
        return {}

    def extra_columns(self, split, *, body):
        return self.declared

    def read(self, raw, split, video, account, body):
        (track,) = super().read(raw, split, video, account, body)
        camera = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
        camera[:, :3, :3] = Rotation.from_rotvec([0, 0, 0.5]).as_matrix()
        camera[:, :3, 3] = np.arange(3)[:, None]
        extra = {"contact": IN_CONTACT, "extrinsics": camera, "up": np.float32([0.6, 0.8, 0])}
        for name, change in self.changes.items():
            extra[name] = change(extra[name]) if callable(change) else change
        given = {name: array for name, array in extra.items() if array is not None}
        return [replace(track, extra=given)]


class Fewer(Own):
    declared = (CONTACT, EXTRINSICS)
    changes: ClassVar[dict[str, Any]] = {"up": None}


class Wider(Own):
    declared = (replace(CONTACT, dtype="int32", fill=None), EXTRINSICS, UP)


class BoxesAlone(Own):
    """Images without 2D joints."""

    declared = (replace(CONTACT, mirror=None), EXTRINSICS, UP)
    labels = LabelRules(
        keypoints_from="none", columns=("frame_index", "bbox"), unmirrored=("contact",)
    )

    def columns(self, split, *, body):
        return self.labels.columns


def own(*others, labels=Own.labels, **changes):
    """Own with other declarations of its columns, and changes of what they hold."""
    declared = {column.name: column for column in (*Own.declared, *others)}
    members = {"declared": (*declared.values(),), "changes": changes, "labels": labels}
    return type("Own", (Own,), members)()


def pictures(pattern, first):
    return Dances(
        spoil=lambda track: replace(track, frames=Pictures(track.frames.root, pattern, first=first))
    )


def listing(*names, folder="a"):
    return Dances(listed=tuple(RawVideo(name, files=(), folders=(Path(folder),)) for name in names))


def refuse(self, raw, *_):
    raise RawDataError(
        raw, "body", expected="a body", found="none", do="Name it.", reason="no_body"
    )


NOTHING = "train: no track was read, so nothing was checked"
RANDOM = np.random.default_rng(0)
READERS = {
    "a: its account has 2 frames in 1 tracks; 3 in 1 were returned": Dances(keeps=2, found=2),
    "found 4 person-frames, but kept 3 + dropped {} = 3": Dances(found=4),
    "a/0: kp_2d differs when read again": Dances(
        spoil=lambda track: replace(track, kp_2d=changed(track.kp_2d, (0, 1, 0), RANDOM.uniform()))
    ),
    "not sorted": listing("b", "a"),
    "lists a name twice": listing("a", "a"),
    "a/0: reads its pixels from a, which videos() does not name": listing("a", folder="b"),
    "a/0: 1 of its frames have no image, the first would be 000003.jpg": pictures(
        "a/{:06d}.jpg", 1
    ),
    "a/0: 3 of its frames have no image, the first would be 000.jpg": pictures("a/{:03d}.jpg", 0),
    "Other.read: expected a list of Track, found None": other(read=lambda *_: None),
    "splits is 'train': expected a tuple of names": other(splits="train"),
    "labels is {'uses_body': True}: expected a LabelRules": other(labels={"uses_body": True}),
    "version is an option: declare it without a type": Versions(),
    "page is a class variable: declare it as release.page": other(page="https://example.org"),
    NOTHING: Dances(listed=()),
    f"{NOTHING}; a: ": other(read=refuse),
    "expected a body, found none. Name it.": other(read=refuse),
    "a: KeyError: 'joints' (at test_datasets.py:": Dances(spoil=lambda _: {}["joints"]),
    "a/0: 2 tracks have this name": other(read=lambda self, raw, *_: [good(raw)] * 2),
    "contact is (3, 3), expected (3, 4)": own(contact=lambda c: c[:, :3]),
    "extrinsics is float64, not float32": own(extrinsics=lambda e: e.astype(np.float64)),
    "has no contact, which its reader declares": own(contact=None),
    "extrinsics differs after mirroring it twice": own(
        replace(EXTRINSICS, mirror=lambda e: np.roll(e, 1, axis=-1))
    ),
    "extrinsics is invalid after mirroring": own(
        replace(EXTRINSICS, mirror=lambda e: e.astype(np.float64))
    ),
    "extrinsics is in the wrong unit: expected rows R t": own(extrinsics=lambda e: 2 * e),
    "expected a camera at most 1,000 m from its world's origin, found 3,0": own(
        extrinsics=lambda e: changed(e, (slice(None), 0, 3), 3000)
    ),
    "up cannot be mirrored: ZeroDivisionError": own(replace(UP, mirror=lambda _: 1 // 0)),
    "a/0: up differs when read again": own(up=lambda up: up + np.float32(RANDOM.uniform())),
    "contact has mirror None: name it in labels.unmirrored": own(replace(CONTACT, mirror=None)),
    "contact has mirror ((0, 2), (1, 3)): name it": own(labels=LabelRules(unmirrored=("contact",))),
    "kp_2d is a column: True; labels.keypoints_from: 'none'": other(
        labels=LabelRules(keypoints_from="none")
    ),
    "kp_2d is a column: False; labels.keypoints_from: 'labels'": other(
        columns=lambda self, split, body: ("frame_index", "bbox")
    ),
    "labels.needs_body is True: override the fixture `body`": other(
        labels=LabelRules(uses_body=True, needs_body=True)
    ),
    "each name once": other(extra_columns=lambda self, split, body: (CONTACT, CONTACT)),
    "a: TypeError": other(origin=lambda self, video: Origin(person="a")),
}


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(3):
        (tmp_path / "a" / f"{i:06d}.jpg").write_bytes(jpeg(np.zeros((80, 90, 3), np.uint8)))
    return tmp_path


def test_a_good_reader_has_no_problems_nor_a_picture_that_cannot_be_decoded(raw):
    assert contract.reader_problems(Dances(), raw, "train") == []
    (raw / "a" / "000000.jpg").write_bytes(b"\xff\xd8 not much of a picture")
    assert contract.reader_problems(Dances(), raw, "train") == []


def test_columns_of_its_own_have_no_problem_and_one_may_be_optional(raw):
    assert contract.reader_problems(own(), raw, "train") == []
    without_up = own(labels=LabelRules(optional_extra=("up",)), up=None)
    assert contract.reader_problems(without_up, raw, "train") == []


def test_images_without_2d_joints_and_columns_without_a_mirror_are_declared(raw):
    reader = BoxesAlone(spoil=lambda t: replace(t, kp_2d=None, kp_3d=None, has_3d=None))
    assert contract.reader_problems(reader, raw, "train") == []


def test_no_video_is_read_without_the_body_that_is_needed(raw, tmp_path):
    reader = other(labels=LabelRules(uses_body=True, needs_body=True))
    for read in (
        lambda: list(reader.tracks(raw, "train", report=Accounting())),
        lambda: planned(reader, "train", raw=raw, root=tmp_path / "cache"),
    ):
        with pytest.raises(MissingAssets, match=r"dances: .* no track without .* --body DIR"):
            read()


def test_another_declaration_reads_all_again_and_the_plan_says_why(raw, tmp_path):
    root = tmp_path / "cache"

    def plan(reader):
        return planned(reader, "train", raw=raw, root=root)

    def converted(reader):
        """Why it was converted."""
        planned = plan(reader)
        convert.convert(planned)
        assert plan(reader).up_to_date
        return planned.why

    converted(Fewer())
    assert converted(Own()).startswith("extra.up was not set, is")
    assert "extra.contact.dtype was uint8, is int32" in converted(Wider())
    split = cache.open(root)["dances/train"]
    track = split.tracks[0]
    batch = split.read([[track.start, track.stop]], None, fields=["contact", "extrinsics", "up"])
    assert batch["contact"][0].tolist() == IN_CONTACT.tolist()
    assert batch["extrinsics"][0, :, 1, 3].tolist() == [0, 1, 2]
    assert track.extra["up"] == pytest.approx([0.6, 0.8, 0])
    assert plan(own(replace(Wider.declared[0], about="other words"))).up_to_date


def test_a_file_that_is_opened_and_not_named_is_reported(raw):
    class Opening(Dances):
        opens: ClassVar[str] = "labels.txt"

        def shared(self, raw):
            return {"calibration": (raw / "calibration.txt").read_text()}

        def read(self, raw, split, video, account, body):
            self.shared(raw)
            (raw / self.opens).open().close()
            return super().read(raw, split, video, account, body)

    for name in ("labels.txt", "calibration.txt", "a/labels.txt"):
        (raw / name).write_text("")
    (problem,) = contract.reader_problems(Opening(), raw, "train")
    assert problem == "a: read() opens labels.txt, which neither videos() nor shared() names"
    listed = (RawVideo("a", (Path("labels.txt"),), (Path("a"),)),)
    assert contract.reader_problems(Opening(listed=listed), raw, "train") == []
    Opening.opens = "a/labels.txt"
    assert contract.reader_problems(Opening(), raw, "train") == [], "of a folder that is named"


@pytest.mark.promise("plug-ins")
@pytest.mark.parametrize("promise", [*BROKEN, *READERS])
def test_a_broken_promise_is_named(promise, raw):
    reader = READERS[promise] if promise in READERS else Dances(spoil=BROKEN[promise])
    problems = contract.reader_problems(reader, raw, "train")
    assert any(promise in problem for problem in problems), problems


def test_a_body_of_a_gender_that_is_not_declared_is_refused(raw):
    reader = other(read=lambda self, raw, split, video, account, body: body.of("male"))
    (problem,) = contract.reader_problems(reader, raw, "train", Body.stand_in())
    assert "body.of('male'): the property `genders` of Other has only neutral" in problem


def test_pictures_of_another_size_than_the_source_says_are_named(raw):
    for number, size in ((1, (40, 40, 3)), (3, (80, 90, 3))):
        (raw / "a" / f"{number:06d}.jpg").write_bytes(jpeg(np.zeros(size, np.uint8)))
    reader = Dances(spoil=lambda track: replace(track, frame_index=np.arange(1, 4)))
    (problem,) = contract.reader_problems(reader, raw, "train")
    assert problem.startswith("a/0: frame 1: ")
    assert "000001.jpg has 40 x 40 px, and the video 90 x 80" in problem


# ------------------------------------------------------------------------------------- what no
# person looks like


def test_a_few_bad_frames_are_no_mistake_of_a_reader(raw):
    box = np.float32([140, 40, 50, 50])
    reader = Dances(spoil=lambda track: replace(track, bbox=changed(track.bbox, 0, box)))
    assert contract.reader_problems(reader, raw, "train") == []


def standing(raw, degrees, *, back):
    """A track of upright people in a world whose z axis points up, before a camera that is tilted
    so much.
    """
    # x right, y forward, z up -> x right, z forward
    level = Rotation.from_matrix([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    to_camera = (
        Rotation.from_rotvec([np.radians(degrees), 0, 0])
        * level
        * Rotation.from_rotvec([0, 0, 0.7])
    )
    root = to_camera * Rotation.from_rotvec([np.pi / 2, 0, 0])  # SMPL's y axis is the world's z
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = (to_camera.inv() if back else to_camera).as_matrix()
    pose = np.zeros((3, 72), np.float32)
    pose[:, :3] = root.as_rotvec()
    extra = {"extrinsics": np.tile(matrix, (3, 1, 1)), "up": np.float32([0, 0, 1])}
    return replace(good(raw), pose=pose, has_smpl=np.array([True, True, False]), extra=extra)


@pytest.mark.parametrize("degrees", [-20, 0, 35])
def test_cameras_that_are_inverted_are_named_where_people_stand_by_the_inverse_alone(degrees, raw):
    for back in (False, True):
        ((_, shows, could),) = labels._check_extrinsics(standing(raw, degrees, back=back))
        assert (shows & could).tolist() == [back, back, False]
    reader = Dances(spoil=lambda _: standing(raw, degrees, back=True))
    object.__setattr__(reader, "columns", lambda split, body: (*COLUMNS, "pose", "has_smpl"))
    object.__setattr__(reader, "extra_columns", lambda split, body: (EXTRINSICS, UP))
    problems = contract.reader_problems(reader, raw, "train")
    assert [problem for problem in problems if labels.INVERTED in problem]


def test_a_video_in_another_unit_is_set_aside_by_column(raw):
    report = Accounting()
    in_mm = Dances(
        spoil=lambda track: replace(track, kp_3d=track.kp_3d * np.float32([1e3, 1e3, 1e3, 1]))
    )
    assert list(in_mm.tracks(raw, "train", report=report)) == []
    (account,) = report
    assert (account.set_aside, account.dropped) == ("other_unit", {"other_unit": 3})
    assert (account.kept, account.tracks_kept) == (0, 0)
    assert "'kp_3d': expected bodies" in account.message
