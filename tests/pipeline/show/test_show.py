"""`python -m pipeline show`: the page on which boxes, crops and joint orders are looked at."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import cache
from pipeline import datasets
from pipeline.errors import PipelineError, StandInMixed
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.show.drawing import NAMES
from pipeline.show.page import write_page
from pipeline.show.tracks import Choice, _no_video, from_cache, from_raw
from tests.html_pages import Page
from tests.pipeline.datasets.by_hand import write_video
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
    (section,) = drawn(shown(part, "3 labels too many", frames=3)).main.of_class("track")
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
    assert [card.all("h3")[0].text for card in section.of_class("card")] == [
        "Frame 0",
        "Frame 2",
        "Frame 7",
    ]


def test_frames_that_cannot_be_shown_say_why_and_joints_outside_are_counted(drawn, tmp_path):
    track = made(tmp_path, 4)
    (tmp_path / "f/000000.jpg").unlink()
    (tmp_path / "f/000002.jpg").write_bytes((tmp_path / "f/000001.jpg").read_bytes()[:300])
    track.bbox[3, 2:] = 0
    track.kp_2d[1, NAMES.index("lwrist"), :2] = (639.6, 210)
    track.kp_2d[1, NAMES.index("relbow"), :2] = (639.4, 210)  # still in the last pixel
    read = drawn(shown(track))
    missing, good, cut, no_box = read.main.of_class("card")
    for card, why in (
        (missing, "picture_missing: "),
        (cut, "picture_truncated: "),
        (no_box, "bad_box: "),
    ):
        assert f"No image. {why}" in card.text
    assert good.of_class("problem") == [] and len(pictures(read)) == 2
    assert good.text.endswith("3 joints, 1 outside the image, 2 outside the crop")


def test_moved_and_changed_raw_folders_and_rejected_videos_are_reported(
    embedded, into, tmp_path, types
):
    def page(raw=None):
        shown_tracks = from_cache(root, "penn_action/train", Choice(), raw=raw)
        write_page(shown_tracks, tmp_path / "page.html")
        return Page((tmp_path / "page.html").read_text())

    raw, root = embedded.copy("penn_action", tmp_path / "raw"), tmp_path / "cache"
    (raw / "labels/0003.mat").write_bytes(b"<b>no label</b>")
    into.convert(root, raw)
    moved = raw.rename(tmp_path / "moved")
    types("show penn_action/train --cache CACHE --out TMP/player.html", "--raw DIR", code=2)
    lost = page()
    assert f"The raw folder {raw} does not exist" in lost.root.of_class("warning")[-1].text
    assert len(lost.main.of_class("problem")) == 10
    shutil.copy(moved / "frames/0003/000002.jpg", moved / "frames/0001/000001.jpg")
    found = page(moved)
    assert found.main.of_class("problem", "warning") == []
    # the first image is another video's, so the others of 0001 have another size
    assert len(pictures(found)) == 2 * (1 + 5)
    assert [
        "have changed since conversion" in track.text for track in found.main.of_class("track")
    ] == [True, False]
    rows = [[cell.text for cell in row.all("th", "td")] for row in found.root.all("tr")]
    frames = cache.open(root)["penn_action/train"].manifest["accounting"]["frames"]
    assert rows[1] == ["videos", "3", "2", "1 bad_label_file"]
    assert rows[3][:3] == ["person-frames", str(frames["found"]), str(frames["kept"])]
    assert "0003: bad_label_file: " in found.main.all("details")[-1].text


def test_demo_data_are_marked_and_never_meet_real_data(embedded, page, tmp_path):
    raw = embedded.copy("amass", tmp_path / "raw")
    demo = page("amass/train", "--raw", raw)
    assert "DEMO DATA" in demo.root.of_class("warning")[0].text
    (raw / "STAND_IN.json").unlink()
    assert "demo data" not in page("amass/train", "--raw", raw).source.lower()
    with pytest.raises(StandInMixed):
        from_raw(datasets.get("amass"), "train", raw, Choice(), body=embedded.body)


def test_untrusted_names_and_messages_stay_text(drawn, tmp_path):
    evil = (
        "<script>alert(1)</script>\"'><img src=http://x/ onerror=alert(1)>&amp;{{ 7 * 7 "
        "}}</title></style>caf\udce9"
    )
    track, text = made(tmp_path, name=f"{evil}/0", video=evil), evil.replace("\udce9", r"\udce9")
    reader = {"dataset": evil, "version": evil, "parameters": {evil: evil}, "body": None}
    facts = {
        "name": f"x/{evil}",
        "origin": evil,
        "raw": Path(evil),
        "rejected": (evil,),
        "warnings": (evil,),
    }
    read = drawn(shown(track, f"note {evil}"), reader=reader, totals_of=evil, **facts)
    assert read.root.all("script") == [] and len(read.root.all("img")) == 2
    assert read.main.all("h2")[0].text == f"{text}/0"
    assert f"note {text}" in read.main.text
    assert text in read.header.text and text in read.root.all("title")[0].text
    assert all("onerror" not in element.attributes for element in read.root.all())
    (policy,) = [meta for meta in read.root.all("meta") if "http-equiv" in meta.attributes]
    assert (
        policy.attributes["content"]
        == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    )


def test_raw_tracks_are_spread_over_the_split_or_those_of_a_video(embedded, root):
    dataset, raw = datasets.get("penn_action"), embedded.raw("penn_action")
    names = [track.name for track in cache.open(root)["penn_action/train"].tracks]
    assert len(names) == 3
    spread = from_raw(dataset, "train", raw, Choice(n_tracks=2)).tracks
    assert [track.record.name for track in spread] == names[::2]
    choice = Choice(video="0003")
    of_video = from_raw(dataset, "train", raw, choice).tracks
    cached = from_cache(root, "penn_action/train", choice).tracks
    assert [track.record.name for track in (*of_video, *cached)] == 2 * names[1:2]
    with pytest.raises(PipelineError, match=r"'0002': of another split; others have tracks: 0001"):
        from_cache(root, "penn_action/train", Choice(video="0002"))


def test_from_raw_only_shown_videos_are_read_and_a_failing_reader_costs_its_video(
    embedded, monkeypatch
):
    dataset, raw, read = datasets.get("penn_action"), embedded.raw("penn_action"), []
    original = type(dataset).read

    def watched(reader, raw, split, video, *more):
        read.append(video.name)
        return original(reader, raw, split, video, *more) if video.name != "0001" else {}["joints"]

    monkeypatch.setattr(type(dataset), "read", watched)
    found = from_raw(dataset, "train", raw, Choice(n_tracks=2))
    assert read == ["0001", "0002", "0003", "0004", "0005"]  # even numbers are of the test split
    assert [track.record.video for track in found.tracks] == ["0003", "0005"]
    assert found.totals_of.endswith("5 of 6") and found.totals["videos"]["set_aside"] == {
        "unexpected_error": 1
    }
    assert "failed on video 0001: KeyError: 'joints' (at test_show.py:" in found.warnings[0]


def test_one_track_at_a_time_is_drawn_and_a_failure_leaves_the_old_page(drawn, tmp_path):
    """Pages of any length take the memory of the images of one video, as JPEG: each track is
    written before the next one is drawn.
    """
    sizes = []
    tracks = [shown(made(tmp_path, name=f"f/{i}")) for i in range(12)]

    def watched(done, total, name=""):
        if done < total:
            sizes.append((tmp_path / ".page.html.part").stat().st_size)

    old = drawn(*tracks, progress=watched).source
    assert sizes == sorted(sizes) and sizes[-1] > sizes[0]

    def fails(done, total, name=""):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(*tracks[:3], progress=fails)
    assert (tmp_path / "page.html").read_text() == old and not (
        tmp_path / ".page.html.part"
    ).exists()


def test_each_frame_of_a_video_is_decoded_once_for_all_of_its_tracks(drawn, tmp_path):
    """Two people share frames 2 and 3; the cards are those of pages of each person alone."""
    read = []

    class Counted(Pictures):
        def read(self, indices):
            indices = list(indices)
            read.extend(indices)
            return super().read(indices)

    whole = made(tmp_path, 5)
    for t, level in enumerate((20, 60, 100, 140, 180)):
        picture = np.full((400, 640, 3), level, np.uint8)
        cv2.imwrite(str(tmp_path / f"f/{t:06d}.jpg"), picture)
    both = []
    for person, frames in (("0", [0, 2, 3]), ("1", [1, 2, 3, 4])):
        track = replace(whole, name=f"f/{person}", frames=Counted(tmp_path, "f/{:06d}.jpg"))
        both.append(shown(track.take(np.array(frames), ())))
    alone = [pictures(drawn(track)) for track in both]
    read.clear()
    together = pictures(drawn(*both))
    assert sorted(read) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(
        np.concatenate([[p.mean() for p in of] for of in alone]), [p.mean() for p in together]
    )


def test_a_track_without_2d_joints_shows_its_box_alone(drawn, tmp_path):
    page = drawn(shown(made(tmp_path, kp_2d=None)))
    assert len(pictures(page)) == 2  # the frame and the crop
    assert not page.main.of_class("joint")


def test_a_reason_that_speaks_of_no_such_video_is_not_taken_for_a_misspelt_name():
    error = _no_video("own/train", "b.mp4", "the list has no such video", ["a.mp4", "bb.mp4"])
    assert str(error).endswith("the list has no such video; others have tracks: a.mp4, bb.mp4")


def test_a_page_of_a_long_video_tells_the_frames_that_are_decoded(drawn, tmp_path):
    write_video(tmp_path / "f.mp4", 350, size=(64, 48))
    track = replace(made(tmp_path, 2), frames=Video(tmp_path, "f.mp4"))
    track = replace(track, frame_index=np.array([3, 340]))
    said = []
    page = drawn(
        shown(track),
        progress=lambda done, total, _="", unit="track": said.append((done, total, unit)),
    )
    assert len(pictures(page)) == 4
    of_frames = [(done, total) for done, total, unit in said if unit == "frame"]
    assert of_frames == [(n, 340) for n in (0, 3, 100, 200, 300, 340)]
