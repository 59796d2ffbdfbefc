"""The page of a split in a real browser: filters, orders, pages of cards, and what it weighs."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.files.raw.corrections import quote
from pipeline.show.split import page as split_page
from tests.browser import NEEDED
from tests.pipeline.show.split.made_page import EVIL, made_split, person, written

pytestmark = NEEDED


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of 60 people, two of whom are bad, and of one of them there is a player. Only to be
    read.
    """
    folder = tmp_path_factory.mktemp("page")
    people = {f"v{number:02d}": person(arm=1 + 0.01 * number) for number in range(58)}
    people |= {EVIL: person(shake=50), "odd": person(shake=60, arm=2.5)}
    made_split(folder, people)
    written(folder, n_players=1)
    return folder / "page/index.html"


def cards(tab):
    # not their inner texts, which a card has only once it is painted
    return tab.locator(".card h2").all_text_contents()


def test_tracks_are_filtered_by_words_and_bars_and_sorted(tab_of, page):
    tab = tab_of(page.as_uri())
    assert len(cards(tab)) == 48
    assert cards(tab)[:2] == [f"{EVIL}/0", "odd/0"]
    tab.select_option("#sort", "unlike")
    assert cards(tab)[0] == "odd/0"
    assert " times the others'; bad: " in tab.locator(".card p").first.text_content()
    tab.uncheck("#filters input[value=bad]")
    assert tab.inner_text("#state") == "58 of 60 tracks"
    tab.click("#all")
    assert tab.inner_text("#state") == "60 of 60 tracks"
    bars = tab.locator("#histograms svg").first.locator("rect")
    bars.last.focus()
    tab.keyboard.press("Enter")
    assert tab.inner_text("#state") == "2 of 60 tracks"
    assert bars.last.get_attribute("aria-pressed") == "true"
    bars.first.click()  # another bar of the same measure replaces it
    assert tab.inner_text("#state") == "58 of 60 tracks"
    bars.first.click()
    assert tab.inner_text("#state") == "60 of 60 tracks"
    assert tab.said == []


def test_a_card_plays_its_video_or_has_the_command_and_the_line_that_leaves_it_out(tab_of, page):
    tab = tab_of(page.as_uri())
    played, other = tab.locator(".card").all()[:2]
    assert played.locator("a").get_attribute("href") == "players/0.html#track=0"
    assert other.locator("a").get_attribute("href") is None
    other.locator("summary").click()
    command, line = other.locator("code").text_content().split("\n\n")
    assert command.endswith("--out video.html --video odd")
    assert line.startswith("leave_out videos/train/odd/0  # bad: ")
    played.locator("summary").click()
    line = played.locator("code").text_content().partition("\n\n")[2]
    assert line.startswith(f"leave_out {quote(f'videos/train/{EVIL}/0')}  # ")
    assert (
        played.locator("code").text_content().startswith(f"{command.removesuffix('odd')}'<script>")
    )
    with tab.expect_navigation():
        played.locator("a").click()
    assert tab.title() == f"videos/train/{EVIL}"


def test_pages_have_all_tracks_and_those_without_a_picture_a_figure(
    tab_of, page, monkeypatch, tmp_path
):
    tab = tab_of(page.as_uri())
    first = cards(tab)
    assert tab.is_disabled("#back")
    tab.click("#next")
    assert tab.inner_text("#page") == "2 of 2"
    assert len({*first, *cards(tab)}) == 60
    assert tab.is_disabled("#next")
    monkeypatch.setattr(split_page, "PICTURES", 48)
    shutil.copytree(page.parents[1], tmp_path, dirs_exist_ok=True)
    written(tmp_path)
    tab = tab_of((tmp_path / "page/index.html").as_uri())
    assert tab.locator(".card canvas").count() == 0
    tab.click("#next")
    drawn = """(canvas) => canvas.getContext("2d").getImageData(0, 0, 160, 160).data
        .filter((level, place) => place % 4 === 3 && level).length"""
    assert [tab.locator(".card canvas").nth(n).evaluate(drawn) > 100 for n in range(12)] == [
        True
    ] * 12


def test_without_scripts_the_worst_are_shown(tab_of, page):
    tab = tab_of(page.as_uri(), java_script_enabled=False)
    assert cards(tab)[:2] == [f"{EVIL}/0", "odd/0"]
    assert len(cards(tab)) == 48
    assert not tab.is_visible("#filters")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_on_a_telephone_and_nothing_asked_of_a_network(tab_of, page, scheme):
    tab = tab_of(
        page.as_uri(), viewport={"width": 390, "height": 844}, is_mobile=True, color_scheme=scheme
    )
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert all(url.startswith(page.parent.as_uri()) for url in tab.asked)
    assert tab.said == []


@pytest.mark.slow
def test_ten_thousand_tracks_are_a_light_page_and_those_planted_are_on_it(tmp_path, browser):
    sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks"))
    benchmark = importlib.import_module("split_page")
    planted = benchmark.make(tmp_path, 10_000, 20, benchmark.PLANTED)
    seen = benchmark.look(benchmark.write_page(tmp_path), browser)
    assert seen["bytes of the first page"] < 1_200_000
    assert seen["elements"] < 700
    assert {*planted} <= {*seen["names"]}
