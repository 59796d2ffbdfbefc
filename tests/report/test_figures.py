"""Plots: texts that can be searched, colours of the page, ids of their own, and a table of the same numbers."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
import pytest

from report.figures import Plot, histogram, lines

SVG = "{http://www.w3.org/2000/svg}"


def a_histogram(name: str) -> Plot:
    samples = {"one": np.arange(1.0, 102.0), "none": np.empty(0), "same": np.full(5, 7.0)}
    return histogram(name, "Length", "Of tracks.", samples, unit="frames", log=True)


def some_lines(name: str) -> Plot:
    x = np.arange(1, 101)
    series = {"loss": (x, 1 / x), "gap": ([1, 2, 3], [0.5, math.nan, 0.1]), "alone": ([7], [0.2])}
    return lines(name, "Loss", "Of training.", series, x_label="epoch", y_label="loss", log_y=True)


DRAWN = [a_histogram, some_lines]
every = pytest.mark.parametrize("draw", DRAWN)
Draw = Callable[[str], Plot]


def texts(plot: Plot) -> list[str]:
    return ["".join(text.itertext()) for text in ET.fromstring(plot.svg).iter(f"{SVG}text")]


@every
def test_the_same_numbers_give_the_same_bytes(draw: Draw) -> None:
    assert draw("a") == draw("a")


@every
def test_two_plots_of_one_page_share_no_id_and_each_finds_its_own(draw: Draw) -> None:
    ids = []
    for name in ("a", "b"):
        svg = draw(name).svg
        own = re.findall(r' id="([^"]+)"', svg)
        referred = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg))
        assert {one or other for one, other in referred} == set(own)
        ids += own
    assert ids
    assert len(set(ids)) == len(ids)


@every
def test_every_colour_is_the_pages_own(draw: Draw) -> None:
    svg = draw("a").svg
    colours = set(re.findall(r"\b(?:fill|stroke): ?([^;\"]+)", svg))
    assert {colour for colour in colours if not re.fullmatch(r"none|currentColor|var\(--[a-z0-9-]+\)", colour)} == set()
    for text in ET.fromstring(svg).iter(f"{SVG}text"):  # without one it would be black, on black where it is dark
        assert "fill: " in text.attrib["style"]


@every
def test_nothing_in_a_plot_holds_for_the_whole_page(draw: Draw) -> None:
    svg = draw("a").svg
    assert "<style" not in svg
    assert "<metadata" not in svg
    assert "http" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (a_histogram, {"one", "none", "frames"}),
        (some_lines, {"loss", "epoch", "gap"}),
    ],
)
def test_texts_stay_texts(draw: Draw, words: set[str]) -> None:
    assert words <= set(texts(draw("a")))


@every
def test_no_number_on_an_axis_is_a_formula(draw: Draw) -> None:
    assert not [text for text in texts(draw("a")) if "$" in text or "\\" in text]


def test_names_that_look_like_formulas_or_markup_are_told_as_they_are() -> None:
    plot = histogram("a", "T", "C", {"$x^2$ <b>&": np.arange(3.0)}, unit="px")
    assert "$x^2$ <b>&" in texts(plot)


def test_a_histogram_tells_how_many_and_the_quantiles() -> None:
    plot = a_histogram("a")
    assert plot.header == ("of", "values", "5 %", "25 %", "median", "75 %", "95 %")
    assert plot.rows == [
        ("one", 101, 6.0, 26.0, 51.0, 76.0, 96.0),
        ("none", 0, None, None, None, None, None),
        ("same", 5, 7.0, 7.0, 7.0, 7.0, 7.0),
    ]


def test_a_histogram_of_nothing_is_drawn_all_the_same() -> None:
    assert histogram("a", "T", "C", {}, unit="px").rows == []


def test_the_table_of_lines_goes_from_the_first_to_the_last_in_few_rows() -> None:
    plot = some_lines("a")
    assert plot.header == ("epoch", "loss", "gap", "alone")
    assert plot.rows[0] == ("1", 1.0, 0.5, None)
    assert plot.rows[-1] == ("100", 0.01, None, None)
    assert len(plot.rows) == 24


def test_epochs_are_whole_numbers_on_the_axis_too() -> None:
    series = {"a": ([1, 2, 3], [70.0, 60.0, 65.0])}
    shown = texts(lines("a", "T", "C", series, x_label="epoch", y_label="mm"))
    assert {"1", "2", "3"} <= set(shown)
    assert not {"1.5", "2.5"} & set(shown)


def test_curves_that_lie_upon_each_other_are_one_with_both_names() -> None:
    x = [1, 2]
    plot = lines("a", "T", "C", {"a": (x, [3, 4]), "b": (x, [3, 4]), "c": (x, [3, 5])}, x_label="x", y_label="y")
    assert plot.header == ("x", "a = b", "c")
