"""`leaks`: what training and test splits share, of releases whose overlaps are known."""

import shutil
from collections.abc import Mapping

import numpy as np
import pytest

import cache
from pipeline.commands.leaks import compare_splits
from tests.made_splits import track_of, write_split
from tests.pipeline.datasets.label_files import edit_labels
from vibe_model.vibe.config import TrainConfig

# Names as the releases have them: 3DPW's of training and validation, of the others a few.
TRAIN = """courtyard_arguing_00 courtyard_backpack_00 courtyard_basketball_00 courtyard_bodyScannerMotions_00
    courtyard_box_00 courtyard_capoeira_00 courtyard_captureSelfies_00 courtyard_dancing_01
    courtyard_giveDirections_00
    courtyard_golf_00 courtyard_goodNews_00 courtyard_jacket_00 courtyard_laceShoe_00
    courtyard_rangeOfMotions_00
    courtyard_relaxOnBench_00 courtyard_relaxOnBench_01 courtyard_shakeHands_00
    courtyard_warmWelcome_00
    outdoors_climbing_00 outdoors_climbing_01 outdoors_climbing_02 outdoors_freestyle_00
    outdoors_slalom_00
    outdoors_slalom_01"""
VALIDATION = """courtyard_basketball_01 courtyard_dancing_00 courtyard_drinking_00 courtyard_hug_00
    courtyard_jumpBench_01 courtyard_rangeOfMotions_01 downtown_walkDownhill_00
    outdoors_crosscountry_00
    outdoors_freestyle_01 outdoors_golf_00 outdoors_parcours_00 outdoors_parcours_01"""
TEST = (
    "downtown_arguing_00 downtown_runForBus_00 downtown_warmWelcome_00 flat_guitar_01 "
    "outdoors_fencing_01"
)
RELEASES = {
    "3dpw/train": TRAIN.split(),
    "3dpw/validation": VALIDATION.split(),
    "3dpw/test": TEST.split(),
    "h36m/train": [f"S{k}/{take}.1" for k in (1, 5, 6, 7, 8) for take in ("Walking", "Walking 1")],
    "h36m/val": [f"S{k}/{take}.1" for k in (9, 11) for take in ("Walking", "Walking 1")],
    "mpi_inf_3dhp/train": [f"S{k}/Seq{n}/video_0" for k in range(1, 9) for n in (1, 2)],
    "mpi_inf_3dhp/test": [f"TS{k}" for k in range(1, 7)],
    "penn_action/train": ["0001", "0002"],
    "penn_action/test": ["0003"],
    "posetrack/train": ["000001_bonn_train", "010003_mpii_train"],
    "posetrack/val": ["000342_mpii_test"],
    "insta_variety/train": ["train/videos_0/00000", "train/yoga/jB8CPlU9xjA.mp4"],
    "kinetics/train": [
        "train/abseiling/jB8CPlU9xjA_000012_000022", "train/abseiling/-7kbO0v4hag_000107_000117",
    ],
    "kinetics/val": ["val/yoga/0wR5jVB-WPk_000417_000427"],
}  # fmt: skip


def compare(root, splits):
    """What splits of these videos share, by pair and kind. Of one track of four rows a video, or of
    one for each of its people.
    """
    for name, videos in splits.items():
        written = []
        for video in videos:
            people = videos[video] if isinstance(videos, Mapping) else ["0"]
            tracks = [
                track_of(f"{video}/{person}", {"frame_index": np.arange(4)}, video=video)
                for person in people
            ]
            written.append((cache.VideoEntry(name=video), tracks))
        write_split(root, name, written, {})
    opened = cache.open(root)
    found = compare_splits([opened[name] for name in opened.splits])
    return {(one.first, one.second, one.what): one for one in found}


def names(one):
    """Of what two splits share."""
    return [common.name for common in one.common]


@pytest.mark.promise("problems of All datasets")
@pytest.mark.promise("leaks")
def test_of_the_papers_mixture_the_known_overlaps_are_found_and_no_others(tmp_path):
    paper = TrainConfig.paper()
    trained = (*paper.datasets_2d, *paper.datasets_3d)
    tests = (
        "3dpw/validation",
        "3dpw/test",
        "mpi_inf_3dhp/test",
        "h36m/val",
        "posetrack/val",
        "penn_action/test",
    )
    found = compare(tmp_path, {name: RELEASES[name] for name in (*trained, *tests)})
    shared = {key: names(one) for key, one in found.items() if one.common}
    takes = [
        "courtyard_basketball",
        "courtyard_dancing",
        "courtyard_rangeOfMotions",
        "outdoors_freestyle",
    ]
    assert shared == {("3dpw/train", "3dpw/validation", "sequence"): takes}
    freestyle = found["3dpw/train", "3dpw/validation", "sequence"].common[-1]
    assert (freestyle.first, freestyle.second) == (
        ("outdoors_freestyle_00",),
        ("outdoors_freestyle_01",),
    )
    for pair in (("h36m/train", "h36m/val"), ("posetrack/train", "posetrack/val")):
        assert found[*pair, "sequence"].unknown == ""
    assert found["h36m/train", "h36m/val", "subject"].unknown == ""
    assert found["mpi_inf_3dhp/train", "mpi_inf_3dhp/test", "sequence"].unknown == ""
    for first, second, what, where in (
        ("3dpw/train", "3dpw/test", "subject", "3dpw/train and 3dpw/test"),
        ("mpi_inf_3dhp/train", "mpi_inf_3dhp/test", "subject", "mpi_inf_3dhp/test"),
        (
            "penn_action/train",
            "penn_action/test",
            "recording",
            "penn_action/train and penn_action/test",
        ),
    ):
        assert found[first, second, what].unknown == f"not in the names of {where}"
    assert (
        found["h36m/train", "mpi_inf_3dhp/test", "subject"].unknown
        == "names of two releases cannot be compared"
    )


def test_sequences_that_are_in_both_of_emdbs_splits_are_named_and_are_no_leak(tmp_path):
    both = ["P6/49_outdoor_big_stairs_down", "P7/57_outdoor_rock_chair", "P8/64_outdoor_skateboard"]
    emdb = {
        "emdb/emdb1": ["P0/09_outdoor_walk", *both],
        "emdb/emdb2": [*both, "P0/24_outdoor_long_walk"],
    }
    train = {"3dpw/train": RELEASES["3dpw/train"]}
    found = compare(tmp_path, {**emdb, **train})
    shared = found["emdb/emdb1", "emdb/emdb2", "sequence"]
    assert (names(shared), shared.leaks) == (both, False)
    assert {key for key, one in found.items() if one.common} == {
        ("emdb/emdb1", "emdb/emdb2", "sequence")
    }


def test_bodies_that_two_of_bedlams_scenes_share_are_found_in_both_of_its_releases(tmp_path):
    people = {
        "bedlam/train": {
            "a_6fps/seq_000000": ["emma_008", "aaron_001"],
            "a_6fps/seq_000001": ["emma_008"],
        },
        "bedlam2/train": {"b_6fps/seq_000000": ["aaron_001"]},
        "bedlam2/test": {
            "c_30fps/seq_000000": ["emma_008", "rita_003"],
            "c_30fps/seq_000001": ["omar_004"],
        },
        "3dpw/train": {"outdoors_golf_00": ["omar_004"]},
    }
    found = compare(tmp_path, people)
    shared = {key: one for key, one in found.items() if one.common}
    assert [*shared] == [("bedlam/train", "bedlam2/test", "subject")]
    emma = shared["bedlam/train", "bedlam2/test", "subject"].common[0]
    assert emma == ("emma_008", ("a_6fps/seq_000000", "a_6fps/seq_000001"), ("c_30fps/seq_000000",))
    assert (
        found["3dpw/train", "bedlam2/test", "subject"].unknown
        == "names of two releases cannot be compared"
    )


def test_a_published_video_is_found_in_another_dataset_under_another_file_name(tmp_path):
    splits = {
        name: RELEASES[name] for name in ("insta_variety/train", "kinetics/train", "kinetics/val")
    }
    found = compare(tmp_path, {**splits, "videos/test": ["test/jB8CPlU9xjA.MP4", "test/own.mov"]})
    kinetics = found["kinetics/train", "videos/test", "video"]
    assert names(kinetics) == ["jB8CPlU9xjA"]
    assert kinetics.common[0].first == ("train/abseiling/jB8CPlU9xjA_000012_000022",)
    assert (kinetics.leaks, kinetics.unknown) == (True, "")
    insta = found["insta_variety/train", "videos/test", "video"]
    assert len(insta.common) == 1
    assert insta.unknown == "not in the names of insta_variety/train"
    assert not found["kinetics/train", "kinetics/val", "video"].common


def test_a_motion_of_amass_is_one_in_all_releases_and_folders(tmp_path):
    motions = {
        "amass/train": [
            "BMLrub/BioMotionLab_NTroje/rub001/0000_treadmill_norm_poses",  # as its archive unpacks
            "BioMotionLab_NTroje/rub001/0000_treadmill_norm_poses",  # as VIBE names it
            "DFaust_67/50002/50002_running_on_spot_poses",
            "CMU/01/01_01_poses",
            "KIT/10/LeftTurn01_poses",
        ],
        "amass/test": [
            "BMLrub/rub001/0000_treadmill_norm_stageii",  # SMPL-X
            "MPI_mosh/50002/misc_poses",  # the same person, scanned by the MPI, in another subset
            "EKUT/10/LeftTurn01_poses",
            "SFU/01/01_01_poses",
        ],
    }
    found = compare(tmp_path, motions)
    norm = "BMLrub/rub001/0000_treadmill_norm"
    assert [common.name for common in found["amass/train", "amass/test", "motion"].common] == [norm]
    subjects = [common.name for common in found["amass/train", "amass/test", "subject"].common]
    assert subjects == ["BMLrub/rub001", "MPI 50002"]
    twice = found["amass/train", "amass/train", "motion"]
    assert (names(twice), twice.leaks) == ([norm], False)


def test_nothing_is_known_of_a_dataset_without_a_reader_or_names(tmp_path):
    found = compare(tmp_path, {"theirs/train": ["a"], "theirs/test": ["a"]})
    assert len(found) == 2
    for one in found.values():
        assert (one.common, one.unknown) == ((), "not in the names of theirs/train and theirs/test")


def test_a_video_of_one_name_in_two_splits_of_a_dataset_is_found(tmp_path):
    """Also of releases whose names tell neither person nor recording, and beside a train split."""
    splits = {
        "penn_action/train": ["0001", "0002"],
        "penn_action/test": ["0002", "0003"],
        "posetrack/train": ["0002"],
        "videos/train": ["train/a.mp4"],
        "videos/val": ["val/b.mp4"],
        "videos/test": ["test/b.mp4"],
    }
    found = compare(tmp_path, splits)
    shared = {key[:2]: (names(one), one.leaks) for key, one in found.items() if one.common}
    assert shared == {
        ("penn_action/train", "penn_action/test"): (["0002"], True),
        ("videos/test", "videos/val"): (["b"], False),
    }


CONVERT = "convert {} --raw RAW --cache CACHE"
SHORT = f"{CONVERT} --set videos.min_frames=20"  # the embedded clips are short
LEAKS = "leaks --cache CACHE"
NO_EQUAL = "training and test splits share no video of equal content"


def add_clip(embedded, raw, path):
    """The embedded clip of kinetics/train as one's own, with its keypoints."""
    source = embedded.raw("kinetics")
    (clip,) = source.glob("train/*/*.mp4")
    (keypoints,) = source.glob("keypoints/train/*")
    (raw / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip, raw / path)
    shutil.copytree(keypoints, (raw / "keypoints" / path).with_suffix(""))
    shutil.copy(source / "STAND_IN.json", raw)


def append_byte(file):
    """Make another file of it that shows the same."""
    file.write_bytes(file.read_bytes() + b"\0")


@pytest.mark.promise("leaks")
def test_a_clip_that_is_in_train_and_test_under_two_names_is_a_leak(embedded, tmp_path, types):
    raw = tmp_path / "raw"
    for path in ("train/a.mp4", "test/b.mp4"):
        add_clip(embedded, raw, path)
    for split in ("videos/train", "videos/test"):
        types(SHORT.format(split))
    shown = types(LEAKS, "videos/train and videos/test share 1 video: equal content: ", code=1)
    assert "equal content: train/a.mp4 | test/b.mp4" in shown
    assert NO_EQUAL not in shown
    append_byte(raw / "test/b.mp4")
    types(SHORT.format("videos/test"))
    types(LEAKS, NO_EQUAL, "videos/train and videos/test share no video")


def test_a_clip_that_is_twice_in_one_split_is_told_and_no_leak(embedded, tmp_path, types):
    for path in ("train/a.mp4", "train/more/c.mp4"):
        add_clip(embedded, tmp_path / "raw", path)
    types(SHORT.format("videos/train"))
    types(LEAKS, "videos/train has twice 1 video: equal content: train/a.mp4 | train/more/c.mp4")


def test_an_image_folder_in_train_and_test_is_a_leak_and_nothing_says_that_it_is_unknown(
    embedded, tmp_path, types
):
    raw = embedded.copy("penn_action", tmp_path / "raw")
    for kind in ("frames/{}", "labels/{}.mat"):
        old, new = (raw / kind.format(name) for name in ("0001", "0009"))
        (shutil.copytree if old.is_dir() else shutil.copy)(old, new)
    edit_labels(raw / "labels/0009.mat", lambda label: label | {"train": -1})
    for split in ("penn_action/train", "penn_action/test"):
        types(CONVERT.format(split))
    one = "penn_action/train and penn_action/test share 1 recording: equal content: 0001 | 0009"
    shown = types(LEAKS, one, "1 of 2 comparisons by name are impossible", code=1)
    assert "unknown" not in shown
    everything = types(f"{LEAKS} --all", one, "subjects of penn_action/train and", code=1)
    assert "recordings of" not in everything
    (last,) = sorted((raw / "frames/0009").iterdir())[-1:]
    last.unlink()
    types(CONVERT.format("penn_action/test"))
    types(LEAKS, NO_EQUAL, "2 of 2 comparisons by name are impossible")


def motion(name, rows):
    """A motion that is the same in each row of a number."""
    pose = np.random.default_rng(7).random((200, 72), np.float32)[rows]
    columns = {"frame_index": np.arange(len(pose)), "pose": pose, "has_smpl": pose[:, 0] > -1}
    return cache.VideoEntry(name=name), [track_of(f"{name}/0", columns, video=name)]


@pytest.mark.parametrize(
    ("rows", "is_equal"),
    [
        (slice(0, 100), True),
        (slice(0, 99), False),  # cut differently
        (slice(1, 101), False),
        (slice(100, 200), False),
    ],
)
def test_a_motion_in_two_splits_under_two_names_is_found_by_its_rows(tmp_path, rows, is_equal):
    train = [motion("CMU/01/a_poses", slice(0, 100)), motion("CMU/01/b_poses", slice(50, 190))]
    write_split(tmp_path, "amass/train", train)
    write_split(tmp_path, "own/test", [motion("c", slice(100, 160)), motion("d", rows)])
    opened = cache.open(tmp_path)
    *_, recordings = compare_splits([opened[name] for name in opened.splits])
    assert (recordings.first, recordings.second) == ("amass/train", "own/test")
    assert recordings.leaks is is_equal
    expected = [("equal content", ("CMU/01/a_poses",), ("d",))] if is_equal else []
    assert [tuple(one) for one in recordings.common] == expected


def test_what_the_official_lists_share_is_named_once_and_no_leak(embedded, tmp_path, types):
    """It is equal by name and by content."""
    raw = embedded.copy("emdb", tmp_path / "raw")
    for file in raw.glob("P0/*/*.pkl"):
        edit_labels(file, lambda label: label | {"emdb1": True, "emdb2": True})
    for split in ("emdb/emdb1", "emdb/emdb2"):
        types(CONVERT.format(split))
    shown = types(LEAKS, "emdb/emdb1 and emdb/emdb2 share")
    assert "equal content" not in shown
    for sequence in raw.glob("P0/*"):
        assert shown.count(f"P0/{sequence.name}: P0/{sequence.name} | P0/{sequence.name}") == 1


def test_a_pair_of_splits_whose_video_is_found_is_not_said_to_be_impossible_to_compare(
    tmp_path, types
):
    compare(tmp_path / "cache", {"penn_action/train": ["0001"], "penn_action/test": ["0001"]})
    types(LEAKS, "share 1 recording: 0001", "1 of 2 comparisons by name are impossible", code=1)
