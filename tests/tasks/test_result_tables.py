import io

import pytest
from rich.cells import cell_len
from rich.text import Text

from pipeline.cli import console
from tasks.result_tables import table_of
from tasks.results import ResultRow
from vibe_model.evaluation.protocols import PROTOCOLS
from vibe_model.metrics import METRICS, describe_directions


def titles(*names):
    row = ResultRow("made/test", "default", "ours", dict.fromkeys(names, 1.0), 10)
    _, *shown, frames = (column.header for column in table_of("", [row]).columns)
    assert frames == "frames"
    return shown


@pytest.mark.parametrize(
    ("measured", "shown"),
    [
        (["pa_mpjpe", "mpjpe", "pve", "pck", "auc", "pck_2d"], ["PA-MPJPE", "MPJPE", "PVE"]),
        (["pa_mpjpe", "mpjpe", "pck", "auc", "pck_2d"], ["PA-MPJPE", "MPJPE", "PCK", "AUC"]),
        (["pck_2d"], ["PCK 2D"]),
        (["pve", "accel_error_m_s2"], ["PVE", "accel error, m/s²"]),
    ],
    ids=["meshes", "joints alone", "2D alone", "EMDB"],
)
def test_the_terminal_shows_shares_only_where_no_error_in_mm_takes_their_place(measured, shown):
    assert titles(*measured) == shown


def test_each_metric_says_on_the_page_which_numbers_are_better():
    some = [METRICS[name] for name in ("pa_mpjpe", "accel", "pck", "accel_error")]
    assert describe_directions(some) == (
        "Lower is better: PA-MPJPE, accel error. Higher is better: PCK. "
        "It should be close to that of the labels: accel."
    )
    sentences = describe_directions(METRICS.values()).removesuffix(".").split(". ")
    told = [title for sentence in sentences for title in sentence.partition(": ")[2].split(", ")]
    assert sorted(told) == sorted(metric.title for metric in METRICS.values())


@pytest.fixture
def print_at_80(monkeypatch):
    """Print a table on a terminal of 80 columns; its lines."""

    def print_at_80(table):
        sent = io.StringIO()
        terminal = type(console.out)(file=sent, force_terminal=True, width=80, soft_wrap=True)
        monkeypatch.setattr(console, "out", terminal)
        console.print_table(table)
        return [line.rstrip() for line in Text.from_ansi(sent.getvalue()).plain.splitlines()]

    return print_at_80


def rows_of(protocol, model):
    errors = dict.fromkeys(PROTOCOLS[protocol].metrics, 1234.5)
    return [ResultRow("made/test", protocol, model, errors, 103_000)]


@pytest.mark.parametrize("protocol", ["default", "published", "emdb", "rich"])
def test_a_table_by_one_protocol_fits_80_columns(protocol, print_at_80):
    lines = print_at_80(table_of("made/test", rows_of(protocol, "VIBE, paper, no 3DPW train")))
    assert max(map(cell_len, lines)) <= 80, "give a metric a shorter title, or `gives_way_to`"
    assert "1234.5" in lines[1]


def test_no_number_is_cut_where_the_columns_of_all_protocols_do_not_fit(print_at_80):
    rows = [row for protocol in PROTOCOLS for row in rows_of(protocol, "VIBE, smoothed")]
    shown = {name for row in rows for name in row.errors}
    heading, *lines = print_at_80(table_of("made/test", rows, protocols=True))
    titles = {
        METRICS[name].title for name in shown & METRICS.keys() if not METRICS[name].gives_way_to
    }
    assert [title for title in titles if title not in heading] == []
    for row, line in zip(rows, lines, strict=True):
        assert line.startswith("VIBE, smoothed"), "where a line is too long, nothing is folded"
        n_numbers = sum(
            not PROTOCOLS[row.protocol].metrics[name].gives_way_to for name in row.errors
        )
        assert line.count("1234.5") == n_numbers
        assert line.endswith("103,000")
