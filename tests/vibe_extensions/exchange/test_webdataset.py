"""Windows as tar files: what the webdataset library reads is what `Split.read` gives, with the crops of training."""

import re
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cache
from pipeline import crops
from pipeline.files.pixels import sources
from vibe_extensions.exchange.webdataset import WindowOptions, export

wds = pytest.importorskip("webdataset")
pytestmark = [  # the library leaves its shards to be closed by Python
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PAGE = Path(__file__).parents[3] / "docs/exports.md"
LABELS = ["kp_2d", "kp_3d", "theta", "w_3d", "w_smpl", "valid"]


def read(folder: Path) -> list[dict[str, Any]]:
    """All samples, decoded by the library's own decoders."""
    shards = [str(file) for file in sorted(folder.glob("*.tar"))]
    return [*wds.WebDataset(shards, shardshuffle=False, empty_check=False).decode("rgb8")]


def of_pixels(split: cache.Split, raw: Path, row: int) -> np.ndarray:
    """The crop of a row, by the public functions."""
    track = split.tracks[int(split.track_of(np.array([row]))[0])]
    (entry,) = (video for video in split.videos if video.name == track.video)
    (frame,) = sources.parse(raw, entry.source).read(split.rows("frame_index", row, row + 1).tolist())
    assert frame.image is not None
    return np.asarray(crops.crop_person(frame.image, split.rows("bbox", row, row + 1)[0], track.crop_scale))


@pytest.mark.parametrize("encoding", ["jpg", "png"])
def test_samples_are_the_windows_that_training_reads(encoding: str, root: Path, embedded: Any, tmp_path: Path) -> None:
    split, options = cache.open(root)["3dpw/train"], WindowOptions(seqlen=4, stride=3, encoding=encoding)  # type: ignore[arg-type]
    done = export(root, "3dpw/train", tmp_path / "out", options=options)
    samples, windows = read(tmp_path / "out"), split.windows(4, 3)
    assert [sample["json"]["rows"] for sample in samples] == windows.tolist() and len(samples) == 3
    assert len({sample["__key__"] for sample in samples}) == 3 and done.stand_in
    assert (done.rows, done.left_out) == (10, {})  # each row once, in however many windows it is
    batch = split.read(windows, stream=None)
    for i, sample in enumerate(samples):
        for name in LABELS:
            np.testing.assert_array_equal(sample[f"{name}.npy"], batch[name][i], name)
        start, stop = windows[i]
        shown = np.stack([sample[f"{number:03d}.{encoding}"] for number in range(4)])
        expected = np.stack([of_pixels(split, embedded.raw("3dpw"), row) for row in range(start, stop)])
        if encoding == "png":
            np.testing.assert_array_equal(shown, expected)
        else:
            assert 0 < np.abs(shown.astype(float) - expected).mean() < 3
        about = sample["json"]
        assert about["frames"] == split.rows("frame_index", start, stop).tolist() and about["stand_in"] is True
        assert (about["track"], about["fps"]) == (split.tracks[0].name, split.tracks[0].fps)
        np.testing.assert_array_equal(sample["bbox.npy"], split.rows("bbox", start, stop))
        np.testing.assert_array_equal(sample["extrinsics.npy"], split.rows("extrinsics", start, stop))


def test_the_page_s_loader_reads_batches(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = (block for block in re.findall(r"```python not run\n(.*?)```", PAGE.read_text(), re.S) if "wds" in block)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crops").mkdir()
    export(root, "3dpw/train", tmp_path / "crops/3dpw_train", options=WindowOptions(seqlen=4, stride=1))
    names: dict[str, Any] = {}
    exec(code, names)
    pictures, joints, theta = next(iter(names["data"]))
    assert (pictures.shape, joints.shape, theta.shape) == ((4, 4, 224, 224, 3), (4, 4, 49, 3), (4, 4, 85))


def test_overlapping_windows_of_several_people_hold_the_right_crops(embedded: Any, into: Any, tmp_path: Path) -> None:
    into.convert(tmp_path / "cache", embedded.raw("posetrack"), "posetrack")
    split = cache.open(tmp_path / "cache")["posetrack/train"]
    options = WindowOptions(seqlen=3, stride=2, encoding="png", shard_mb=1)
    export(tmp_path / "cache", "posetrack/train", tmp_path / "out", options=options)
    samples = read(tmp_path / "out")
    windows = {tuple(sample["json"]["rows"]): sample for sample in samples}
    assert sorted(map(list, windows)) == split.windows(3, 2).tolist() and len(windows) == len(samples)
    assert len({sample["json"]["track"] for sample in samples}) > 2
    for (start, stop), sample in windows.items():
        for number, row in enumerate(range(start, stop)):
            expected = of_pixels(split, embedded.raw("posetrack"), row)
            np.testing.assert_array_equal(sample[f"{number:03d}.png"], expected)
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert [file.name for file in shards] == [f"posetrack-train-{i:06d}.tar" for i in range(len(shards))]
    assert len(shards) > 1 and max(file.stat().st_size for file in shards) < 1.6e6
    first = [file.read_bytes() for file in shards]
    export(tmp_path / "cache", "posetrack/train", tmp_path / "out", options=options, replace=True)
    assert [file.read_bytes() for file in shards] == first


def test_windows_with_a_picture_that_cannot_be_decoded_are_left_out_and_counted(penn, tmp_path, ran):
    penn.converted()
    picture = penn.frames("0003") / "000002.jpg"
    ran("convert", penn.name, "--raw", penn.raw, "--cache", penn.root)
    size = picture.stat()
    picture.write_bytes(b"\xff\xd8" + bytes(size.st_size - 2))  # of the same size: no new digest of the pixels
    done = export(penn.root, penn.name, tmp_path / "out", options=WindowOptions(seqlen=4, stride=4))
    rows = {row for sample in read(tmp_path / "out") for row in range(*sample["json"]["rows"])}
    lost = next(track for track in penn.split.tracks if track.video == "0003").start
    assert rows == set(range(24)) - set(range(lost, lost + 4)) and done.rows == 20
    assert done.left_out == {"a frame that cannot be decoded": 1, "no full window of 4": 3}


def test_pictures_that_are_not_those_of_the_conversion_are_refused(penn: Any, tmp_path: Path, ran: Any) -> None:
    penn.converted()
    (penn.frames("0001") / "000001.jpg").write_bytes((penn.frames("0003") / "000001.jpg").read_bytes())
    words = ("export", penn.name, "--cache", penn.root, "--format", "webdataset", "--set", "seqlen=4")
    assert "0001" in ran(*words, "--out", tmp_path / "out", code=2).err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "option", "reason"),
    [
        ("amass/train", (), "no images"),
        ("3dpw/train", ("--set", "seqlen=11"), "longest run has 10"),
        ("3dpw/train", ("--raw", "/nowhere"), "--raw"),
        ("3dpw/train", ("--set", "quality=0"), "quality"),
        ("3dpw/train", ("--stream", "moved"), "no features"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_words(name, option, reason, root, tmp_path, ran):
    words = ("export", name, "--cache", root, "--format", "webdataset", "--out", tmp_path / "out", *option)
    assert reason in " ".join(ran(*words, code=2).err.split())
    assert [*tmp_path.iterdir()] == []


def made(folder: Path, n_frames: int) -> Path:
    """A cache with one video of one person and strange names; each frame is the same noise, 64 px wide."""
    columns = {"frame_index": np.arange(n_frames), "bbox": np.full((n_frames, 4), 32, np.float32)}
    (folder / "raw/f").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    cv2.imwrite(str(folder / "raw/f/000000.jpg"), noise)
    for number in range(1, n_frames):
        (folder / f"raw/f/{number:06d}.jpg").hardlink_to(folder / "raw/f/000000.jpg")
    track = cache.TrackRows(name="a.b/ü 1/0", video="a.b/ü 1", step=1, fps=np.nan, crop_scale=1.2, columns=columns)
    writer = cache.SplitWriter(
        *(folder / "cache", "my.data/train.v2"), columns=columns, plan="test", provenance={"raw": str(folder / "raw")}
    )
    with writer:
        writer.begin()
        writer.append(cache.VideoEntry(name="a.b/ü 1", source="pictures:f/{:06d}.jpg+0", width=64, height=64), [track])
        writer.commit({})
    return folder / "cache"


def test_names_of_any_kind_come_back_under_keys_without_a_dot(tmp_path: Path) -> None:
    root = made(tmp_path, 12)
    export(root, "my.data/train.v2", tmp_path / "out", options=WindowOptions(seqlen=4, stride=2))
    samples = read(tmp_path / "out")
    assert [sample["__key__"] for sample in samples] == [f"my_data-train_v2-{row:010d}" for row in range(0, 10, 2)]
    assert {(sample["json"]["track"], sample["json"]["fps"]) for sample in samples} == {("a.b/ü 1/0", None)}
    assert samples[0]["003.jpg"].shape == (224, 224, 3) and not samples[0]["kp_2d.npy"].any()


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak(n_frames: int) -> int:
        root = made(tmp_path / str(n_frames), n_frames)
        tracemalloc.start()
        try:
            export(root, "my.data/train.v2", tmp_path / f"{n_frames}.out", options=WindowOptions(seqlen=4, stride=3))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # imports
    few, many = peak(40), peak(200)  # 160 crops of noise are 5 MB as JPEG, 24 MB as pixels
    assert many - few < 1_000_000
