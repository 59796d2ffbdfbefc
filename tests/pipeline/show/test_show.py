"""`python -m pipeline show` of a video: from raw files and from the cache, motions among them."""

from dataclasses import replace

import numpy as np
import pytest

import cache
from pipeline import datasets
from pipeline.errors import PipelineError, StandInMixed
from pipeline.show.drawing import NAMES
from pipeline.show.tracks import _no_video, from_cache, from_raw
from tests.pipeline.show.made_tracks import made, pictures, shown


@pytest.mark.parametrize("name", ["penn_action", "3dpw", "amass"])
def test_raw_files_and_the_cache_give_one_page(name, embedded, page, root):
    video = cache.open(root)[f"{name}/train"].tracks[-1].video
    options = (
        f"{name}/train",
        "--video",
        video,
        *(["--body", embedded.body] if name == "3dpw" else []),
    )
    read = page(*options, "--cache", root)
    from_raw = page(*options, "--raw", embedded.raw(name))
    mains = [
        shown.source.partition("<main>")[2].partition("</main>")[0] for shown in (read, from_raw)
    ]
    assert mains[0] == mains[1] != ""
    heights = {picture.shape[0] for picture in pictures(read)}
    assert heights == (set() if name == "amass" else {96})


def test_a_track_s_facts(drawn, tmp_path):
    track = made(tmp_path, 20, fps=29.97, crop_scale=1.2)
    kept = np.array([0, 1, 2, 5, 6, 7])
    kp_2d = track.kp_2d[kept].copy()
    kp_2d[0, NAMES.index("lwrist")] = 0
    part = replace(
        track, frame_index=kept, bbox=track.bbox[kept], kp_2d=kp_2d, valid=np.arange(6) < 4
    )
    (section,) = drawn(shown(part, "3 labels too many")).main.of_class("row")
    assert dict(
        zip((e.text for e in section.all("dt")), (e.text for e in section.all("dd")), strict=True)
    ) == {
        "Video": "f",
        "Frames": "6, step 1, 29.97 fps",
        "Gaps": "2 → 5",
        "valid": "4 of 6 frames",
        "Crop scale": "1.2",
        "Source": "pictures:f/{:06d}.jpg+0",
        "Grade": "bad: 24 % of 12 joints visible, knees and ankles are seen in 0 % of the frames "
        "24 % of 12 joints visible; 2D: 0 % of the joints are outside the crop",
        "3D": "no labelled joints",
    }
    assert [note.text for note in section.of_class("notes")] == ["3 labels too many"]


def test_demo_data_are_marked_and_never_meet_real_data(embedded, page, tmp_path):
    raw = embedded.copy("amass", tmp_path / "raw")
    demo = page("amass/train", "--raw", raw)
    assert "DEMO DATA" in demo.root.of_class("warning")[0].text
    (raw / "STAND_IN.json").unlink()
    assert "demo data" not in page("amass/train", "--raw", raw).source.lower()
    with pytest.raises(StandInMixed):
        from_raw(datasets.get("amass"), "train", raw, body=embedded.body)


def test_tracks_are_those_of_a_video_the_first_one_of_raw_files(embedded, root):
    dataset, raw = datasets.get("penn_action"), embedded.raw("penn_action")
    names = [track.name for track in cache.open(root)["penn_action/train"].tracks]
    assert len(names) == 3
    (first,) = from_raw(dataset, "train", raw).tracks
    (of_video,) = from_raw(dataset, "train", raw, "0003").tracks
    (cached,) = from_cache(root, "penn_action/train", "0003").tracks
    assert [track.record.name for track in (first, of_video, cached)] == [*names[:2], names[1]]
    with pytest.raises(PipelineError, match=r"'0002': of another split; others have tracks: 0001"):
        from_cache(root, "penn_action/train", "0002")


def test_from_raw_only_shown_videos_are_read_and_a_failing_reader_costs_its_video(
    embedded, monkeypatch
):
    dataset, raw, read = datasets.get("penn_action"), embedded.raw("penn_action"), []
    original = type(dataset).read

    def watched(reader, raw, split, video, *more):
        read.append(video.name)
        return original(reader, raw, split, video, *more) if video.name != "0001" else {}["joints"]

    monkeypatch.setattr(type(dataset), "read", watched)
    found = from_raw(dataset, "train", raw)
    assert read == ["0001", "0002", "0003"]  # even numbers are of the test split
    assert [track.record.video for track in found.tracks] == ["0003"]
    assert found.totals_of.endswith("3 of 6")
    assert found.totals["videos"]["set_aside"] == {"unexpected_error": 1}
    assert "failed on video 0001: KeyError: 'joints' (at test_show.py:" in found.warnings[0]


def test_a_reason_that_speaks_of_no_such_video_is_not_taken_for_a_misspelt_name():
    error = _no_video("own/train", "b.mp4", "the list has no such video", ["a.mp4", "bb.mp4"])
    assert str(error).endswith("the list has no such video; others have tracks: a.mp4, bb.mp4")
