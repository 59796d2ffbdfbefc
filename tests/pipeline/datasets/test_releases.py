"""The contract of damaged releases, for each reader of image folders."""

import cv2

from pipeline.files.pixels.frames import Video
from tests.pipeline.datasets.contract import (
    ANOTHER_START,
    EXACT,
    HALF,
    N_FRAMES,
    RENUMBERED,
    SHIFTED,
    ImageFolders,
)
from tests.pipeline.datasets.made_h36m_json import write_scene


class TestPennAction(ImageFolders):
    dataset, video, images, first = "penn_action", "0001", "frames/0001", 1
    # may have images after the last label: so one at the start leaves no trace
    refused = frozenset(ANOTHER_START | {RENUMBERED, HALF})
    undecided = frozenset({SHIFTED})


class TestPoseTrack(ImageFolders):
    dataset, video = "posetrack", "000001_mpii_train"
    images = f"images/train/{video}"
    states_size = False  # without people or regions to ignore at the images' edges
    refused = frozenset(ANOTHER_START | EXACT | {RENUMBERED, HALF})


class TestThreeDPW(ImageFolders):
    dataset, video = "3dpw", "courtyard_walking_00"
    images = f"imageFiles/{video}"
    refused = frozenset(ANOTHER_START | EXACT | {RENUMBERED, HALF})


class TestMpiInf3dhpOfImages(ImageFolders):
    """From 0, as the demo has them; `first missing` may be images from 1 that lack the last."""

    dataset, video, images = "mpi_inf_3dhp", "S1/Seq1/video_0", "S1/Seq1/imageFrames/video_0"
    refused = frozenset(EXACT | {"first missing", RENUMBERED, HALF})


class TestMpiInf3dhpFrom1(TestMpiInf3dhpOfImages):
    first = 1
    refused = frozenset(
        EXACT
        | {
            "first missing",
            "last missing",
            "more labels than images",
            "numbers one higher",
            RENUMBERED,
            HALF,
            "one too many in front",
        }
    )

    def write(self, demo, takes, raw):
        super().write(demo, takes, raw)
        for file in sorted((raw / self.images).iterdir(), reverse=True):
            file.rename(file.with_name(f"frame_{int(file.stem[6:]) + 1:06d}.jpg"))


class TestMpiInf3dhpTest(ImageFolders):
    dataset, split, video = "mpi_inf_3dhp", "test", "TS1"
    images, first = "mpi_inf_3dhp_test_set/TS1/imageSequence", 1
    released_size = 2048, 2048
    refused = frozenset(ANOTHER_START | {RENUMBERED, HALF})
    undecided = frozenset({SHIFTED})  # two videos have more images


class TestHuman36M(ImageFolders):
    dataset, video = "h36m", "S1/Walking 1.54138969"
    images = f"S1/images/{video[3:]}"
    released_size = 1000, 1002
    refused = frozenset(
        {
            "first missing",
            "more labels than images",  # under 90 %
            RENUMBERED,
            HALF,
        }
    )
    undecided = frozenset({SHIFTED})  # videos have more frames than poses

    def write(self, demo, takes, raw):
        super().write(demo, takes, raw)
        file = raw / f"S1/Videos/{self.video[3:]}.mp4"
        (raw / self.images).mkdir(parents=True)
        for frame in Video(raw, file.relative_to(raw).as_posix()).read(range(N_FRAMES)):
            name = raw / self.images / f"{frame.index:06d}.png"
            cv2.imwrite(str(name), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        file.unlink()


class TestHuman36MOfJson(ImageFolders):
    dataset, video = "h36m", "S1/Walking 1.54138969"
    images, first = "images/s_01_act_14_subact_01_ca_01", 1
    refused = frozenset(
        ANOTHER_START
        | {
            "more labels than images",  # under 90 %
            RENUMBERED,
            HALF,
        }
    )
    undecided = frozenset({SHIFTED})

    def write(self, demo, takes, raw):
        (take,) = (take for take in takes if take.shot.name == self.video)
        write_scene(take, raw, is_place=False, fits="smpl_param")
        frames = Video(demo, f"S1/Videos/{self.video[3:]}.mp4").read(range(N_FRAMES))
        for file, frame in zip(sorted((raw / self.images).iterdir()), frames, strict=True):
            cv2.imwrite(str(file), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        (raw / "STAND_IN.json").write_bytes((demo / "STAND_IN.json").read_bytes())


class TestEmdb(ImageFolders):
    dataset, split, video = "emdb", "emdb1", "P0/00_outdoor_walk"
    images = f"{video}/images"
    refused = frozenset(ANOTHER_START | EXACT | {RENUMBERED, HALF})


class TestRich(ImageFolders):
    dataset, split, video = "rich", "test", "Gym_010_gym2/cam_02"
    states_size = False  # but for the principal point, which is near the centre of both
    images = f"images/test/{video}"
    refused = frozenset(ANOTHER_START | {RENUMBERED, HALF})
    undecided = frozenset({SHIFTED})  # cameras may run longer than bodies are labelled


class TestBedlam(ImageFolders):
    dataset, n_videos = "bedlam", 3
    video = "20221018_1_1_batch01hand_30fps/seq_000000"
    images = "20221018_1_1_batch01hand_30fps/png/seq_000000"
    refused = frozenset({"numbers one higher", RENUMBERED})
    undecided = frozenset({SHIFTED})
