"""A split as a database file: what existing code finds in it, and that it comes back the same."""

import itertools
import json
import resource

import h5py
import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cache
from pipeline.errors import PipelineError
from pipeline.extras.exchange.rows import Segments, names_of
from pipeline.extras.exchange.vibe_db.database import DatabaseLayout
from pipeline.extras.exchange.vibe_db.export import export
from pipeline.extras.exchange.vibe_db.importing import import_database
from pipeline.extras.exchange.vibe_db.tracks import _source_of
from pipeline.people.skeletons import JOINTS, joint_names
from tests.pipeline.extras.exchange.made_streams import add_features, add_video
from tests.raising import pipeline_refuses

SHAPES = {
    "bbox": (4,),
    "features": (2048,),
    "shape": (10,),
    "pose": (72,),
    "theta": (82,),
    "valid_i": (1,),
}
SPLITS = {}  # split -> the name of its file, numbers of joints in 2D and 3D, its fields
for line in """
penn_action/train pennaction_train_db.pt 13 0 vid_name img_name joints2D bbox features
posetrack/train posetrack_train_db.pt 49 0 vid_name img_name joints2D bbox features
insta_variety/train insta_train_db.h5 25 0 vid_name frame_id joints2D features
kinetics/val kinetics_val_db.pt 49 0 vid_name frame_id img_name joints2D bbox features
mpi_inf_3dhp/train mpii3d_train_db.pt 49 49 vid_name frame_id img_name joints2D joints3D bbox features
mpi_inf_3dhp/test mpii3d_val_db.pt 49 49 vid_name frame_id img_name joints2D joints3D bbox features valid_i
h36m/train h36m_train_db.pt 49 49 vid_name frame_id img_name joints2D joints3D shape pose bbox features valid
3dpw/train 3dpw_train_db.pt 14 49 vid_name frame_id img_name joints2D joints3D shape pose bbox features valid
3dpw/validation 3dpw_val_db.pt 14 14 vid_name frame_id img_name joints2D joints3D shape pose bbox features valid
amass/train amass_db.pt 0 0 theta vid_name
""".strip().splitlines():
    split, file, n_2d, n_3d, *fields = line.split()
    SPLITS[split] = (file, int(n_2d), int(n_3d), set(fields))
# a file of each kind; the others are as these are
QUICK = ("insta_variety/train", "3dpw/validation", "amass/train")


def loaded(file):
    if file.suffix == ".h5":
        with h5py.File(file) as stored:
            return {name: stored[name][:] for name in stored}
    return joblib.load(file)


def rows_of(root, name):
    split = cache.open(root)[name]
    return split, np.concatenate([np.arange(track.start, track.stop) for track in split.tracks])


# ---------------------------------------------------------------------------------------------- all
# demo datasets


@pytest.mark.parametrize("name", sorted(SPLITS.keys() - {"kinetics/val"}))
def test_a_dataset_s_file_has_the_name_and_the_fields_that_existing_code_knows(name):
    dataset, _, split = name.partition("/")
    layout = DatabaseLayout.find(dataset, split, ())
    file, n_2d, n_3d, fields = SPLITS[name]
    assert (layout.usual_name(dataset, split), set(layout.fields)) == (file, fields)
    assert "joints2D" not in fields or len(joint_names(layout.joints_2d)) == n_2d
    assert "joints3D" not in fields or len(joint_names(layout.joints_3d)) == n_3d


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in SPLITS]
)
def test_existing_code_finds_its_fields_and_an_import_gives_training_and_exports_the_same(
    name, exportable, tmp_path
):
    done = export(exportable(name), name, tmp_path)
    file_name, n_2d, n_3d, fields = SPLITS[name]
    assert done.file == tmp_path / file_name
    held = loaded(done.file)
    assert set(held) == fields
    shapes = SHAPES | {"joints2D": (n_2d, 3), "joints3D": (n_3d, 3)}
    text = "bytes" if done.file.suffix == ".h5" else "str"
    types = {"frame_id": "int64", "valid": "uint8", "vid_name": text, "img_name": text}
    for field, values in held.items():
        assert values.shape == (done.rows, *shapes.get(field, ())), field
        assert values.dtype.name.startswith(types.get(field, "float32")), field
    imported = import_database(done.file, tmp_path / "cache", name)
    assert imported.is_demo and cache.verify(tmp_path / "cache").ok
    # h36m's rows without SMPL parameters are left out
    if name not in ("amass/train", "h36m/train"):
        splits = cache.open(exportable(name))[name], cache.open(tmp_path / "cache")[name]
        batches = [split.read(split.windows(4, 4, "resnet50"), "resnet50") for split in splits]
        # InstaVariety's pixels are scaled
        rtol = 1e-5 if name.startswith("insta") else 0
        for field, values in batches[0].items():
            assert_allclose(batches[1][field], values, rtol, rtol / 1000, err_msg=field)
        manifest = splits[1].open_stream("resnet50").manifest
        assert manifest["stand_in"] is True and manifest["backbone"]["stand_in"] is True
        assert manifest["identity"]["weights"]["weights"] == {"kind": "untrained", "argument": "0"}
    (tmp_path / "again").mkdir()
    again = export(tmp_path / "cache", name, tmp_path / "again")
    assert done.file.read_bytes() == again.file.read_bytes()


# ------------------------------------------------------------------------------------------------
# what is in them


def test_penn_action_s_joints_are_in_its_own_order_and_provenance_is_beside_the_file(
    exportable, tmp_path
):
    root = exportable("penn_action/train")
    split, rows = rows_of(root, "penn_action/train")
    done = export(root, "penn_action/train", tmp_path / "mine.pt")
    held = loaded(done.file)
    kp_2d = split.rows("kp_2d", 0, int(rows[-1]) + 1)[rows]
    order = "headtop lshoulder rshoulder lelbow relbow lwrist rwrist lhip rhip lknee rknee lankle rankle"
    places = [JOINTS["spin49"].index(joint) for joint in order.split()]
    assert_array_equal(held["joints2D"], kp_2d[:, places])
    assert held["img_name"][0] == "frames/0001/000001.jpg"
    assert_array_equal(held["features"][:, 0], rows / 8)
    provenance = json.loads((tmp_path / "mine.pt.provenance.json").read_text())
    assert provenance["split_digest"] == split.manifest["digest"]
    assert provenance["stream"]["identity"]["weights"] == {"kind": "untrained", "argument": "0"}
    assert provenance["weights"]["resnet50"]["licence"] == "MIT"


def test_insta_variety_s_joints_are_in_pixels_of_a_picture_of_224(tmp_path):
    """Existing code divides them by 224, whatever the picture's size was."""
    kp_2d = np.zeros((2, 49, 3), np.float32)
    kp_2d[:, JOINTS["spin49"].index("OP Nose")] = (150, 75, 1)
    small_cache(
        tmp_path / "c",
        "insta_variety/train",
        {"kp_2d": kp_2d, "bbox": np.tile([150, 150, 300, 300], (2, 1))},
    )
    held = loaded(export(tmp_path / "c", "insta_variety/train", tmp_path).file)
    assert held["joints2D"][0, JOINTS["insta_variety"].index("OP Nose")] == pytest.approx(
        [112, 56, 1]
    )
    assert held["joints2D"][0, 0].tolist() == [0, 0, 0]  # what is not there does not move


# ------------------------------------------------------------------------------------------------
# gaps, lost rows


def small_cache(root, name, columns, *, lost=(), step=1):
    add_video(root, name, columns, step)
    add_features(root, name, lost)


def test_each_run_of_frames_that_have_what_is_needed_has_its_own_name_and_comes_back_the_same(
    monkeypatch, tmp_path
):
    """Whatever the batches are in which rows are read. Existing code cuts windows by names
    alone.
    """
    rng = np.random.default_rng(5)
    frames = 2 * np.cumsum(rng.integers(1, 3, 200))
    lost = tuple(np.flatnonzero(rng.random(200) < 0.2).tolist())
    small_cache(tmp_path / "c", "posetrack/train", {"frame_index": frames}, lost=lost, step=2)
    kept = np.setdiff1d(np.arange(200), lost)
    cuts = np.flatnonzero((np.diff(kept) != 1) | (np.diff(frames[kept]) != 2)) + 1
    files = []
    for batch in (3, 64, 8192):
        monkeypatch.setattr("pipeline.extras.exchange.rows.BATCH", batch)
        done = export(tmp_path / "c", "posetrack/train", tmp_path / f"{batch}.pt")
        assert (done.rows, done.left_out) == (len(kept), {"no features": len(lost)})
        assert len(np.unique(loaded(done.file)["vid_name"])) == len(cuts) + 1
        files.append(done.file.read_bytes())
    held = loaded(done.file)
    assert held["features"][:, 0].tolist() == (kept / 8).tolist()
    assert [int(name[2:6]) for name in held["img_name"]] == frames[kept].tolist()
    runs = [(name, len(list(rows))) for name, rows in itertools.groupby(held["vid_name"].tolist())]
    assert runs == [(f"v/0_seg{k}", len(run)) for k, run in enumerate(np.split(kept, cuts))]
    import_database(done.file, tmp_path / "d", "posetrack/train")
    again = export(tmp_path / "d", "posetrack/train", tmp_path / "again.pt").file.read_bytes()
    assert files == [again] * 3


def test_rows_whose_labels_existing_code_would_take_for_known_are_left_out(tmp_path):
    kp_3d = np.ones((6, 49, 4), np.float32)
    kp_3d[:, 39, :3] = 0
    kp_3d[2, 30, 3] = 0  # one of the 14 joints that losses compare
    has_3d = np.array([1, 1, 1, 1, 0, 1], np.uint8)
    small_cache(tmp_path / "c", "mpi_inf_3dhp/train", {"kp_3d": kp_3d, "has_3d": has_3d})
    done = export(tmp_path / "c", "mpi_inf_3dhp/train", tmp_path)
    assert loaded(done.file)["frame_id"].tolist() == [0, 1, 3, 5]
    assert done.left_out == {"no 3D joints": 2}


def test_a_label_that_no_row_has_is_absent(tmp_path):
    kp_3d = np.ones((4, 49, 4), np.float32)
    kp_3d[:, 39, :3] = 0
    labels = {"kp_3d": kp_3d, "has_3d": np.ones(4, np.uint8), "has_smpl": np.zeros(4, np.uint8)}
    unknown = {"pose": np.full((4, 72), np.nan), "betas": np.full((4, 10), np.nan)}
    small_cache(tmp_path / "c", "h36m/train", labels | unknown)
    done = export(tmp_path / "c", "h36m/train", tmp_path)
    assert set(done.absent) == {"pose", "shape"}
    held = loaded(done.file)
    assert not {"pose", "shape"} & held.keys()
    assert held["valid"].tolist() == [1, 1, 1, 1]  # no row of h36m is not valid


# ------------------------------------------------------------------------------------------------
# files, messages


def test_hdf5_that_the_disk_does_not_take_is_no_defect_and_leaves_no_file(exportable, tmp_path):
    root, soft = exportable("insta_variety/train"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, soft[1]))
    try:
        with pytest.raises((PipelineError, OSError), match="File too large"):
            export(root, "insta_variety/train", tmp_path / "x.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert not [*tmp_path.iterdir()]


def test_nothing_is_exported_into_the_cache_where_gc_would_remove_it(tmp_path, types, monkeypatch):
    small_cache(tmp_path / "c", "posetrack/train", {"frame_index": np.arange(4)})
    (tmp_path / "link").symlink_to("c")
    monkeypatch.chdir(tmp_path)
    for out in ("c/posetrack", "c/x.pt", "link/x.pt", "c"):
        types(f"export posetrack/train --cache c --format vibe --out {out}", "gc", code=2)
    assert not [*tmp_path.rglob("*.pt")]


def test_a_stream_that_is_not_there_or_lags_behind_is_refused(tmp_path):
    small_cache(tmp_path / "c", "posetrack/train", {"frame_index": np.arange(4)})
    with pipeline_refuses(r"stream 'other' is missing .existing streams: resnet50"):
        export(tmp_path / "c", "posetrack/train", tmp_path, stream="other")
    add_video(tmp_path / "c", "posetrack/train", {"frame_index": np.arange(2)}, video="w")
    with pipeline_refuses("older than the tracks"):
        export(tmp_path / "c", "posetrack/train", tmp_path)


SOURCES = """
frames/0001/000001.jpg frames/0001/000091.jpg | 0 90 | pictures:frames/0001/{:06d}.jpg+1
a/b7/x8_c.png a/b7/x1234_c.png | 8 1234 | pictures:a/b7/x{:01d}_c.png+0
train/a_clip.mp4#000012 train/a_clip.mp4#000102 | 12 102 | video:train/a_clip.mp4
../000001.jpg | 1 |
a/000001.jpg b/000002.jpg | 1 2 |
a/000001.jpg a/000009.jpg | 1 2 |
a/000001.jpg | 3 |
a/{:06d}/000001.jpg | 1 |
a/{b}/000001.jpg | 1 |
a/{}/000001.jpg a/000009.jpg | 1 2 |
"""


@pytest.mark.parametrize("line", SOURCES.strip().splitlines())
def test_names_of_pictures_lead_back_to_their_source(line):
    names, numbers, source = (part.strip() for part in line.split("|"))
    frames = [int(number) for number in numbers.split()]
    assert _source_of(names.split(), np.array(frames)) == (source or None)
    if source:
        name_of = names_of(source)
        assert [name_of(frame) for frame in frames] == names.split()


def test_real_data_with_features_of_random_weights_is_no_demo_data(tmp_path, types):
    add_video(tmp_path / "c", "posetrack/train", {"frame_index": np.arange(8)}, stand_in=False)
    add_features(tmp_path / "c", "posetrack/train", lost=(2,))
    for command, rows in (
        ("export posetrack/train --format vibe --cache TMP/c --out TMP", "1 row not exported: no"),
        ("import TMP/posetrack_train_db.pt posetrack/train --cache TMP/d", "7 rows in 2 tracks"),
    ):
        assert "DEMO DATA" not in types(command, "RANDOM WEIGHTS", rows)
    imported = cache.open(tmp_path / "d")["posetrack/train"]
    assert imported.manifest["stand_in"] is False
    assert imported.open_stream("resnet50").manifest["stand_in"] is True


def test_rows_that_are_left_out_in_two_steps_for_one_reason_are_all_counted():
    numbers = np.arange(3)
    segments = Segments(10 * numbers, 10 * numbers + 5, numbers, numbers, {"no pose": 1})
    once = segments.only(numbers > 0, "no pose")
    assert once.only(once.track > 1, "no pose").left_out == {"no pose": 11}
