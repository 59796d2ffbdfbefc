"""Mistakes with downloads: what `doctor`, `convert` and `prepare` say of each, and their exit
codes.

Each mistake is planted in a copy of demo data without its mark. A message must name the place and
the cause; the exit code is 0 if all else could be used, 1 if a part is missing or nothing could be
used, 2 if nothing was tried.
"""

import shutil

import pytest

from tests.pipeline.datasets.made_h36m_json import write_scene

# A command, run with --raw and, to convert, --cache. | The demo data in the raw folder: those that it
# names, "-" for none, json for Human3.6M in 3DMPPE's layout, "-> FOLDER" for another folder's name. |
# What is done to the dataset's folder, by the functions below; without data, to the raw folder. | The
# exit code. | What is printed.
MISTAKES = """
doctor posetrack | -> PoseTrack21 | | 1 | not in RAW/posetrack but in RAW/PoseTrack21. + rename it: mv RAW/PoseTrack21 RAW/posetrack.
doctor posetrack | -> PoseTrack2018 | | 1 | not in RAW/posetrack but in RAW/PoseTrack2018.
doctor posetrack | -> posetrack18 | | 1 | not in RAW/posetrack but in RAW/posetrack18.
doctor posetrack | -> posetrack/PoseTrack21 | | 1 | but in RAW/posetrack/PoseTrack21. + Move the contents of RAW/posetrack/PoseTrack21 to RAW/posetrack.
doctor h36m | -> Human36M | | 1 | not in RAW/h36m but in RAW/Human36M. + rename it: mv RAW/Human36M RAW/h36m.
doctor h36m | -> human3.6m | | 1 | not in RAW/h36m but in RAW/human3.6m.
doctor h36m | -> Human3.6M | | 1 | not in RAW/h36m but in RAW/Human3.6M.
doctor h36m | -> H36M | | 1 | not in RAW/h36m but in RAW/H36M.
doctor h36m | -> h36m/Human36M | | 1 | not in RAW/h36m but in RAW/h36m/Human36M. + Move the contents of RAW/h36m/Human36M to RAW/h36m.
doctor penn_action | -> Penn_Action | | 1 | not in RAW/penn_action but in RAW/Penn_Action. + rename it: mv RAW/Penn_Action RAW/penn_action.
doctor penn_action | -> penn_action/Penn_Action | | 1 | Move the contents of RAW/penn_action/Penn_Action to RAW/penn_action.
doctor h36m | json | nest images | 1 | RAW/h36m/images/images is a folder in one of the same name
doctor penn_action --raw RAW/penn_action | | | 1 | Name the folder above: --raw RAW.
convert penn_action/train --raw RAW | | | 2 | Did you mean --raw RAW/penn_action?
convert penn_action/train | -> penn_action/download | | 2 | not in RAW/penn_action but in RAW/penn_action/download. Move the contents of RAW/penn_action/download to RAW/penn_action.
convert posetrack/val | -> posetrack/download | | 2 | not in RAW/posetrack but in RAW/posetrack/download. Move the contents of RAW/posetrack/download to RAW/posetrack.
convert h36m/train | -> h36m/download | | 2 | not in RAW/h36m but in RAW/h36m/download. Move the contents of RAW/h36m/download to RAW/h36m.
convert kinetics/val | -> kinetics/download | | 2 | not in RAW/kinetics but in RAW/kinetics/download. Move the contents of RAW/kinetics/download to RAW/kinetics.
convert insta_variety/train | -> insta_variety/download | | 2 | not in RAW/insta_variety but in RAW/insta_variety/download. Move the contents of RAW/insta_variety/download to RAW/insta_variety.
convert mpi_inf_3dhp/test | -> mpi_inf_3dhp/download | | 2 | not in RAW/mpi_inf_3dhp but in RAW/mpi_inf_3dhp/download. Move the contents of RAW/mpi_inf_3dhp/download to RAW/mpi_inf_3dhp.
convert emdb/emdb1 | -> emdb/download | | 2 | not in RAW/emdb but in RAW/emdb/download. Move the contents of RAW/emdb/download to RAW/emdb.
convert bedlam/train | -> bedlam/download | | 2 | not in RAW/bedlam but in RAW/bedlam/download. Move the contents of RAW/bedlam/download to RAW/bedlam.
prepare penn_action | -> penn_action/Penn_Action | | 2 | not in RAW/penn_action but in RAW/penn_action/Penn_Action. Move the contents
convert penn_action/train | | rename frames Frames | 2 | videos with images: RAW/penn_action/Frames/0001/000001.jpg differs in capitals from frames/<0001>/000001.jpg
convert 3dpw/train | | move sequenceFiles/train sequenceFiles | 2 | sequences of train: not in RAW/3dpw/sequenceFiles/train but in RAW/3dpw/sequenceFiles.
convert posetrack/train | -> PoseTrack21 | | 2 | not in RAW/posetrack but in RAW/PoseTrack21. + rename it: mv RAW/PoseTrack21 RAW/posetrack.
doctor penn_action | - | touch penn_action | 1 | RAW/penn_action is a file. Unpack it
convert penn_action/train | - | touch penn_action | 2 | --raw RAW/penn_action: is a file. Unpack it
doctor penn_action | - | link penn_action /gone/disk | 1 | is a link to /gone/disk, which does not exist
doctor penn_action | - | link penn_action penn_action | 1 | is a link to penn_action, which leads in a circle
doctor penn_action | | link frames /gone/disk | 1 | penn_action/frames is a link to /gone/disk
doctor h36m | - | touch h36m/S1/MyPoseFeatures/D3_Positions/a | 1 | is in the world's axes and not
doctor posetrack | - | touch posetrack/posetrack18_images.tar.aa | 1 | posetrack18_images.tar.aa is still packed + Join its pieces first: cat RAW/posetrack/posetrack18_images.tar.*
doctor h36m | - | touch h36m/images.tar.gzaa | 1 | images.tar.gzaa is still packed + Join its pieces first: cat RAW/h36m/images.tar.gz*
doctor mpi_inf_3dhp | - | touch mpi_inf_3dhp/S1/Seq1/imageSequence/vnect_cameras.zip | 1 | vnect_cameras.zip is still packed + Unpack it in its own folder
doctor h36m | - | touch h36m/S1/MyPoseFeatures.tgz | 1 | RAW/h36m/S1/MyPoseFeatures.tgz is still packed. Unpack in RAW/h36m
doctor penn_action | - | touch penn_action/x.tar.gz | 1 | RAW/penn_action/x.tar.gz is still packed. Unpack in RAW/penn_action
doctor penn_action | - | touch penn_action/x.7z | 1 | x.7z is still packed
doctor penn_action | - | touch penn_action/x.RAR | 1 | x.RAR is still packed
doctor penn_action | - | touch penn_action/x.tar.gz.001 | 1 | x.tar.gz.001 is still packed
doctor posetrack | - | touch posetrack/images/bonn_mpii_test_v2_5sec/a/1.jpg | 1 | RAW/posetrack/images/bonn_mpii_test_v2_5sec is of PoseTrack 2017
doctor 3dpw | - | touch 3dpw/sequenceFiles/a.pkl | 1 | RAW/3dpw/sequenceFiles/a.pkl is in no split
doctor 3dpw | - | touch 3dpw/imageFiles/imageFiles/a/image_00000.jpg | 1 | sequences' images: not in RAW/3dpw but in RAW/3dpw/imageFiles
doctor insta_variety | - | touch insta_variety/train/insta_variety_00.h5 | 1 | insta_variety_00.h5 is one of VIBE's converted files
doctor mpi_inf_3dhp | - | touch mpi_inf_3dhp/TS1/annot_data.mat | 1 | RAW/mpi_inf_3dhp/TS1 is a test sequence outside the test set's folder
doctor amass | | touch SFU.tar.bz2 | 0 | RAW/amass/SFU.tar.bz2 has no folder of its name. If it is still packed, unpack it in RAW/amass.
doctor emdb | | touch P7.zip | 0 | RAW/emdb/P7.zip has no folder of its name. If
doctor bedlam | | touch training_images/20221024_3-10_100_batch01handhair_png.tar | 0 | batch01handhair_png.tar has no folder of its name.
doctor amass | - | touch amass/amass/SFU/0005/0005_Jogging001_poses.npz | 0 | 0005_Jogging001_poses.npz is one folder too deep
doctor amass | - | touch amass/SOMA/subject1/run.pkl | 1 | RAW/amass/SOMA/subject1/run.pkl is a pickle
doctor amass | - | touch amass/SOMA/run.pkl | 1 | RAW/amass/SOMA/run.pkl is a pickle
doctor kinetics | - | touch kinetics/replacement/replacement_for_corrupted_k400/a.mp4 | 1 | is one of the clips that replace those of train
doctor bedlam | - | touch bedlam/bedlam-labels-v2-format/a.npz | 1 | RAW/bedlam/bedlam-labels-v2-format has labels in a layout that is skipped
doctor posetrack | | halve images/train/* 0.5 | 1 | ! RAW/posetrack/ + images. Unpack the images again
doctor h36m | json | halve images/* 0.5 | 1 | ! RAW/h36m/images/s_01 + 8 of 16 images. Unpack the images
doctor mpi_inf_3dhp | | halve S*/Seq*/imageFrames/* 0 | 1 | ! RAW/mpi_inf_3dhp/ + images. Unpack the images again
doctor penn_action | | halve frames/* 0.5 | 1 | ! RAW/penn_action/ + images. Unpack the images again
doctor penn_action | | drop frames/0001/* | 1 | frames/0001 has 0 of 8 images
doctor posetrack | | drop posetrack_data | 1 | missing: training annotations, validation ann
doctor penn_action | | drop labels/* | 1 | missing: label files + get Penn_Action.tar.gz
convert penn_action/train | | drop labels | 2 | labels: expected a folder with <0001>.mat label
convert posetrack/train | | drop images | 2 | images/train: expected a folder with <seq>/
convert 3dpw/train | | drop imageFiles | 1 | no_picture + expected 10 images, found none
convert kinetics/train | | drop keypoints | 1 | no keypoints in RAW/kinetics/keypoints: run
doctor penn_action | | rename labels/* {stem}.MAT | 1 | 0001.MAT differs in cap
doctor penn_action | | rename frames/*/* {stem}.JPG | 1 | 001.JPG differs in cap
doctor posetrack | | rename images/train Train | 1 | images/Train/ + in capitals
convert posetrack/train | | rename images/*/*/* x{name} | 1 | such as x000000.jpg
convert posetrack/train | | rename images/*/*/* {stem}.png | 1 | as 000000.png
convert penn_action/train | | rename frames/* {short} | 1 | no_picture + no_label
convert h36m/train | | rename S*/*/D3* D3_Positions | 1 | found 2D alone. Unpack
convert penn_action/train | | touch labels/0001.mat:Zone.Identifier | 0 | 3 kept of 3
convert penn_action/train | | touch __MACOSX/._a labels/._0001.mat | 0 | 3 kept of 3
doctor 3dpw | | move sequenceFiles/train sequenceFiles/training | 1 | sequences of train: not in RAW/3dpw/sequenceFiles/train but in RAW/3dpw/sequenceFiles/training.
doctor 3dpw | | move sequenceFiles/train sequenceFiles | 1 | sequences of train: not in RAW/3dpw/sequenceFiles/train but in RAW/3dpw/sequenceFiles.
doctor posetrack | | move images/train images/training | 1 | training pictures: not in RAW/posetrack/images/train but in RAW/posetrack/images/training.
doctor posetrack | | move images/train images | 1 | training pictures: not in RAW/posetrack/images/train but in RAW/posetrack/images.
doctor kinetics | | move keypoints/train keypoints | 1 | clips of train with keypoints: not in RAW/kinetics/keypoints/train but in RAW/kinetics/keypoints.
doctor kinetics | | move train clips | 1 | clips of train: not in RAW/kinetics/train but in RAW/kinetics/clips.
doctor mpi_inf_3dhp | | move mpi_inf_3dhp_test_set test_set | 1 | test labels, test images: not in RAW/mpi_inf_3dhp/mpi_inf_3dhp_test_set but in RAW/mpi_inf_3dhp/test_set.
doctor 3dpw | | fill sequenceFiles/train | 1 | sequences of train: the official download has 24, found 31. Are two releases or splits mixed
doctor videos --raw RAW/clips | - | touch clips/a.mp4 keypoints/a.json | 0 | RAW/keypoints is beside RAW/clips. Move it there
"""
H36M = "h36m"


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def fill(folder, name):
    """30 files of labels."""
    touch(folder, *(f"{name}/{number}.pkl" for number in range(30)))


def drop(folder, glob):
    """Remove files and folders."""
    for path in sorted(folder.glob(glob)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def halve(folder, glob, start):
    """Remove half of the images in the first folder, from a part of them on."""
    images = sorted(min(folder.glob(glob)).iterdir())
    first = int(float(start) * len(images))
    for image in images[first : first + (len(images) + 1) // 2]:
        image.unlink()


def nest(folder, name):
    """Put a folder into one of the same name."""
    (folder / name).rename(folder / "moved")
    (folder / name).mkdir()
    (folder / "moved").rename(folder / name / name)


def rename(folder, glob, new):
    for path in sorted(folder.glob(glob)):
        names = {"name": path.name, "stem": path.stem, "short": path.name[1:]}
        path.rename(path.with_name(new.format(**names)))


def move(folder, old, new):
    """A folder's content one level higher, where `new` is the folder above."""
    (folder / old).rename(folder / "moved")
    if (folder / new).exists():
        for path in (folder / "moved").iterdir():
            path.rename(folder / new / path.name)
    else:
        (folder / "moved").rename(folder / new)


def link(folder, name, target):
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).symlink_to(target)


PLANTS = (touch, fill, drop, halve, nest, rename, move, link)


def test_files_of_a_project_are_no_download_of_its_own(tmp_path, types):
    touch(tmp_path, "demo/body/J_regressor_extra.npy")  # AMASS has files of such names
    (tmp_path / "raw").mkdir()
    shown = types("doctor amass --raw RAW", "no files found", code=1)
    assert "but in" not in shown


def write(embedded, name, data, raw):
    """The demo data of a mistake in `raw`. Returns the folder of the mistake."""
    if data == "-":
        return raw
    place = raw / (data.removeprefix("-> ") if "->" in data else name)
    if data == "json":
        for take in embedded.takes(H36M)[:2]:
            write_scene(take, place, is_place=False, fits="smpl_param")
    else:
        embedded.copy(name, place)
        (place / "STAND_IN.json").unlink()
    return place


@pytest.mark.parametrize("mistake", MISTAKES.strip().splitlines())
def test_a_mistake_with_a_download_is_named_with_its_place_cause_and_cure(
    mistake, embedded, tmp_path, types
):
    command, data, plant, code, texts = (part.strip() for part in mistake.split("|"))
    verb, name, *given = command.split()
    name = name.partition("/")[0]
    raw = tmp_path / "raw"
    raw.mkdir()
    folder = write(embedded, name, data, raw)
    if plant:
        function, *arguments = plant.split()
        {one.__name__: one for one in PLANTS}[function](folder, *arguments)
    if not given:
        command += " --raw RAW" if verb == "doctor" else f" --raw RAW/{name}"
    if verb != "doctor":
        command += " --cache CACHE"
    if verb == "convert":
        command += " --workers 1"
    if verb == "prepare":
        command += " --weights untrained:0"
    said = [text.strip().replace("RAW", str(raw)) for text in texts.split(" + ")]
    assert "Traceback" not in types(command, *said, code=int(code))
