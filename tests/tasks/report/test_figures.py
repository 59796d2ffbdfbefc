"""Plots: their texts, colours and gaps."""

import math
import xml.etree.ElementTree as ET

from tasks.report.curves import _Plot, _Series

SVG = "{http://www.w3.org/2000/svg}"


def plot(series, **options):
    curves = {label: _Series(*curve) for label, curve in series.items()}
    words = {"title": "Loss", "caption": "Of training.", "x_label": "epoch", "y_label": "loss"}
    return _Plot(name="a", series=curves, **words | options)


def texts(svg):
    return ["".join(text.itertext()) for text in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_plot_is_reproducible_and_an_image_with_whole_epochs_and_names_as_they_are():
    epochs = range(1, 101)
    shown = plot(
        {
            "loss": (epochs, [1 / x for x in epochs]),
            "gap": ([1, 2, 3], [math.nan, 0.5, 0.0]),
            "$x^2$ <b>&": ([7], [0.2]),
        },
        log_y=True,
    )
    svg = shown.svg()
    assert svg == shown.svg()
    assert {"loss", "epoch", "gap", "$x^2$ <b>&"} <= set(texts(svg))
    assert not [text for text in texts(svg) if "\\" in text], "a formula on an axis"
    numbers = set(texts(plot({"a": ([1, 2, 3], [3, 4, 5])}).svg()))
    assert "1.5" not in numbers, "whole epochs"
    zero, gap = ({"a": ([1, 2, 3], [0.5, 0.1, y])} for y in (0.0, math.nan))
    assert plot(zero, log_y=True).svg() == plot(gap, log_y=True).svg()
