"""The page of a split without a browser: its order, pictures, figures, histograms and files."""

import shutil

import cv2
import numpy as np
import pytest

import cache
from pipeline.files.outputs import OutputRule
from pipeline.grades.words import MEASURES, Grade
from pipeline.show.drawing import NAMES
from pipeline.show.split import tracks as split_tracks
from pipeline.show.split.histograms import make_histograms
from pipeline.show.split.page import SplitPage
from pipeline.show.tracks import from_cache
from tests.html_pages import Page
from tests.pipeline.show.made_tracks import numbers, write_clips
from tests.pipeline.show.split.made_page import EVIL, SPLIT, made_split, person, written

LEG = ("knee", "ankle")


def names_on(page):
    return [card.all("h2")[0].text for card in page.main.of_class("card")]


def test_a_folder_gets_the_page_with_players_of_the_worst_videos(types, tmp_path):
    write_clips(tmp_path / "raw", a_good=0, b_bad=30)
    types("convert videos/train --raw RAW --cache CACHE")
    types("show videos/train --cache CACHE --out TMP/page", "2 tracks: ", "page/index.html")
    page = Page((tmp_path / "page/index.html").read_text())
    assert names_on(page) == ["b_bad.mp4/0", "a_good.mp4/0"]
    for number, name in enumerate(("b_bad.mp4", "a_good.mp4")):
        player = Page((tmp_path / f"page/players/{number}.html").read_text())
        assert player.root.all("title")[0].text == f"videos/train/{name}"
    assert len([*(tmp_path / "page/pictures").iterdir()]) == 2
    for wrong in ("--raw RAW", "--cache CACHE --video a_good.mp4"):
        types(f"show videos/train {wrong} --out TMP/page", "--out video.html", code=2)


def test_the_worst_are_first_each_in_the_middle_of_its_rows_with_its_joints(tmp_path):
    no_legs = person()
    no_legs["kp_2d"][:, [NAMES.index(f"{side}{joint}") for side in "lr" for joint in LEG], 2] = 0
    made_split(tmp_path, {"a": person(), "b": person(shake=50), "c": no_legs})
    page, data, _ = written(tmp_path)
    assert names_on(page) == ["b/0", "c/0", "a/0"]
    assert data["videos"] == ["b", "c", "a"]
    assert numbers(data["video_of"], "<u2").tolist() == [0, 1, 2]
    assert [data["words"][int(word)] for word in data["word_of"]] == ["bad", "doubtful", "good"]
    verdicts = [card.all("p")[0].text for card in page.main.of_class("card")]
    reasons = [[data["phrases"][number] for number in of_track] for of_track in data["reasons"]]
    assert [": ".join(filter(None, ("bad", ", ".join(reasons[0])))), "good"] == verdicts[::2]

    picture = cv2.imread(str(tmp_path / "page/pictures/2.jpg"))[..., ::-1].astype(int)
    assert picture.shape == (160, 160, 3)
    assert np.median(picture) == pytest.approx(30, abs=3)  # frame 6
    px = 160 / 110  # the picture's side is 1.1 times the box's
    left, right = (
        picture[round(80 - 20 * px), round(80 + side * 10 * px)] for side in (1, -1)
    )  # upper arms
    assert left[2] > left[0] + 50
    assert right[0] > right[2] + 50

    figure = numbers(data["figures"], "u1").reshape(3, 13, 2)[2]
    assert figure[2] == pytest.approx([127 - 10 * 254 / 110, 127 - 30 * 254 / 110], abs=1)


def test_a_limb_unlike_the_others_puts_a_good_track_first(tmp_path):
    people = {f"v{number}": person(arm=1 + 0.02 * number) for number in range(6)}
    made_split(tmp_path, people | {"odd": person(arm=2.5)})
    page, data, _ = written(tmp_path)
    assert set(data["word_of"]) == {"2"}
    unlike = [names_on(page)[place] for place in numbers(data["unlike"], "<u2")]
    assert unlike[0] == "odd/0"
    assert sorted(unlike) == sorted(names_on(page))
    # the usual forearm is the fourth of seven, of 20 px and 2 % more from one to the next
    long, usual = (20 * arm / np.hypot(20, 90) for arm in (2.5, 1.06))
    ratio = (long + 0.02) / (usual + 0.02)
    assert data["limbs"][0] == f"relbow to rwrist: {ratio:.2g} times the others'"


def test_joints_that_are_not_seen_or_outside_have_no_place_in_a_figure(tmp_path):
    hidden = person()
    hidden["kp_2d"][:, NAMES.index("lwrist"), 2] = 0
    hidden["kp_2d"][:, NAMES.index("rwrist"), :2] = (500, 200)
    made_split(tmp_path, {"a": hidden, "b": {**person(), "kp_2d": 0 * person()["kp_2d"]}})
    _, data, _ = written(tmp_path)
    hidden, empty = numbers(data["figures"], "u1").reshape(2, 13, 2)
    assert (hidden == 255).all(axis=1).nonzero()[0].tolist() == [5, 6]
    assert (empty == 255).all()
    assert numbers(data["unlike"], "<u2").tolist() == [0]


def test_people_who_are_not_seen_as_a_whole_are_not_compared(tmp_path):
    """Of the upper body of somebody like all others, the limbs would be large shares."""
    upper = person()
    upper["kp_2d"][:, [NAMES.index(f"{side}{joint}") for side in "lr" for joint in LEG], 2] = 0
    one_leg = person()
    one_leg["kp_2d"][:, [NAMES.index(f"l{joint}") for joint in LEG], 2] = 0
    made_split(tmp_path, {"a": person(), "b": upper, "c": one_leg, "d": person()})
    page, data, _ = written(tmp_path)
    compared = {names_on(page)[place] for place in numbers(data["unlike"], "<u2")}
    assert compared == {"a/0", "c/0", "d/0"}


def test_a_moved_raw_folder_gives_figures_and_rejected_videos_are_listed(embedded, into, tmp_path):
    raw, root = embedded.copy("penn_action", tmp_path / "raw"), tmp_path / "cache"
    (raw / "labels/0003.mat").write_bytes(b"<b>no label</b>")
    into.convert(root, raw)
    raw.rename(tmp_path / "moved")

    def page(name, raw=None):
        shown = from_cache(root, "penn_action/train", n_tracks=0, raw=raw)
        SplitPage(shown, cache.open(root)["penn_action/train"]).write(
            tmp_path / name, OutputRule("show")
        )
        pictures = [cv2.imread(str(file)) for file in (tmp_path / name / "pictures").iterdir()]
        return Page((tmp_path / name / "index.html").read_text()), pictures

    lost, figures = page("lost")
    assert f"The raw folder {raw} does not exist" in lost.root.of_class("warning")[-1].text
    assert len(figures) == 2 and all(np.median(figure) == 40 for figure in figures)
    found, pictures = page("found", tmp_path / "moved")
    assert "does not exist" not in found.header.text
    assert len(pictures) == 2 and not any(np.median(picture) == 40 for picture in pictures)
    rows = [[cell.text for cell in row.all("th", "td")] for row in found.root.all("tr")]
    assert rows[1] == ["videos", "3", "2", "1 bad_label_file"]
    assert "0003: bad_label_file: " in found.main.all("details")[-1].text


def test_a_video_whose_player_cannot_be_made_has_a_line_and_the_others_players(tmp_path):
    made_split(tmp_path, {"a": person(), "b": person(shake=50)})
    shutil.rmtree(tmp_path / "raw/f")
    page, data, left_out = written(tmp_path, n_players=2)
    assert data["players"] == []
    assert [line.partition(" has no player")[0] for line in left_out] == ["b", "a"]
    assert left_out[0] in page.header.text


def test_of_a_larger_split_the_worst_are_listed_and_all_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(split_tracks, "LISTED", 2)
    made_split(tmp_path, {"a": person(), "b": person(shake=50), "c": person()})
    page, data, _ = written(tmp_path)
    assert len(data["names"]) == 2
    assert "3 tracks: 2 good, 1 bad" in page.header.text
    assert "Of 3 tracks, the worst 2 are listed." in page.header.text


def test_a_second_page_keeps_no_file_of_the_first_and_foreign_files_stay(tmp_path, types):
    made_split(tmp_path, {"a": person(), "b": person()})
    written(tmp_path, n_players=2)
    (tmp_path / "page/notes.txt").write_text("mine")
    shutil.rmtree(tmp_path / "cache")
    made_split_of_one = {"a": person()}
    shutil.rmtree(tmp_path / "raw")
    made_split(tmp_path, made_split_of_one)
    written(tmp_path)
    kept = {
        file.relative_to(tmp_path / "page").as_posix() for file in (tmp_path / "page").rglob("*.*")
    }
    assert kept == {"index.html", "about.json", "notes.txt", "pictures/0.jpg"}
    (tmp_path / "page/about.json").unlink()
    types(f"show {SPLIT} --cache CACHE --out TMP/page", "found something else", code=2)


def test_untrusted_names_stay_text(tmp_path):
    made_split(tmp_path, {EVIL: person(shake=50), "b": person()})
    page, data, _ = written(tmp_path)
    assert names_on(page)[0] == f"{EVIL}/0"
    assert data["videos"][0] == EVIL
    assert len(page.root.all("script")) == 2
    assert len(page.root.all("img")) == 2
    assert all("onerror" not in element.attributes for element in page.root.all())
    (policy,) = [meta for meta in page.root.all("meta") if "http-equiv" in meta.attributes]
    assert "unsafe-inline" not in policy.attributes["content"]


def test_histograms_count_all_tracks_show_limits_and_tell_the_bins_of_those_chosen():
    values = np.array([0, 0.3, 0.6, 1.3, 2.4, np.nan])
    grades = [Grade(90, jitter_2d_percent=value, same_person=value) for value in values]
    chosen = np.array([5, 4, 0])
    (histogram,) = make_histograms(np.array([grade.numbers for grade in grades]), chosen)
    # from the least to the limit of bad tracks, 4: that of doubtful ones, 1.2, is in between
    low, high = np.percentile(values[:5], 0.5), MEASURES["jitter_2d_percent"].bad
    places = [float(place) for place in histogram.limits.replace(" 0V10", "").split("M")[1:]]
    assert places == pytest.approx([12 * (1.2 - low) / (high - low), 12], abs=0.01)
    assert [text.rpartition(": ")[2] for _, text in histogram.bins] == [
        "2 tracks",
        *["1 track"] * 3,
    ]
    bins = [int(12 * (value - low) / (high - low)) for value in values[[4, 0]]]
    assert histogram.of_tracks.tolist() == [255, *bins]
    assert histogram.label == "the worst joint shakes by … % of the box"


def test_motions_have_stick_figures_if_there_is_a_body(embedded, root, tmp_path):
    for name, body in (("with", embedded.body), ("without", None)):
        shown = from_cache(root, "amass/train", n_tracks=0, body=body)
        page = SplitPage(shown, cache.open(root)["amass/train"])
        page.write(tmp_path / name, OutputRule("show"), n_players=1)
        picture = cv2.imread(str(tmp_path / name / "pictures/0.jpg"))
        assert (picture.max() > 150) == (name == "with")
        assert (tmp_path / name / "players/0.html").is_file()


def test_prepare_writes_the_page_once(penn, types):
    penn.without_marker()
    folder = penn.root.with_name(f"{penn.root.name}-penn_action-train")
    prepare = "prepare penn_action --raw RAW/penn_action --cache CACHE"
    for n_pages in 2, 0:
        assert types(prepare).count("✓ show") == n_pages
    page = Page((folder / "index.html").read_text())
    assert len(names_on(page)) == len(cache.open(penn.root)["penn_action/train"].tracks)
    assert [*(folder / "players").iterdir()] == []
    (folder / "index.html").unlink()
    assert types(prepare).count("✓ show") == 1
