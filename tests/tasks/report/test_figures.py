"""Plots: their texts and colours, and a table of the same numbers."""

import base64
import math
import re
import xml.etree.ElementTree as ET

import numpy as np

from tasks.report.page import lines

SVG = "{http://www.w3.org/2000/svg}"


def some_lines(name):
    x = np.arange(1, 101)
    series = {"loss": (x, 1 / x), "gap": ([1, 2, 3], [0.5, math.nan, 0.1]), "alone": ([7], [0.2])}
    return lines(name, "Loss", "Of training.", series, x_label="epoch", y_label="loss", log_y=True)


def texts(plot):
    return ["".join(text.itertext()) for text in ET.fromstring(plot.svg).iter(f"{SVG}text")]


def test_a_plot_is_reproducible_and_an_image_of_its_own():
    plot = some_lines("a")
    assert plot == some_lines("a")
    assert {"loss", "epoch", "gap"} <= set(texts(plot))
    assert not [text for text in texts(plot) if "$" in text or "\\" in text], "a formula on an axis"
    assert {"#1a6fe8", "#c2410c", "#15803d"} <= set(re.findall(r"stroke: (#[0-9a-f]{6})", plot.svg))
    form, _, content = plot.url.partition(",")
    assert (form, base64.b64decode(content).decode()) == ("data:image/svg+xml;base64", plot.svg)


def test_names_that_look_like_formulas_or_markup_are_shown_as_they_are():
    plot = lines("a", "T", "C", {"$x^2$ <b>&": ([1, 2], [3, 4])}, x_label="x", y_label="px")
    assert "$x^2$ <b>&" in texts(plot)


def test_the_table_of_lines_goes_from_the_first_to_the_last_in_few_rows():
    plot = some_lines("a")
    assert plot.header == ("epoch", "loss", "gap", "alone")
    assert plot.rows[0] == ("1", 1.0, 0.5, None)
    assert plot.rows[-1] == ("100", 0.01, None, None)
    assert len(plot.rows) == 24
    epochs = lines("a", "T", "C", {"a": ([1, 2, 3], [3, 4, 5])}, x_label="x", y_label="y")
    assert {"1", "2", "3"} <= set(texts(epochs)), "epochs are whole numbers"
    assert not {"1.5", "2.5"} & set(texts(epochs))
