import pytest

from tasks.result_tables import table_of
from tasks.results import ResultRow
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
    text = describe_directions(METRICS.values())
    lower, higher, as_labels = text.removesuffix(".").split(". ")
    assert lower == "Lower is better: PA-MPJPE, MPJPE, PVE, PVE unposed, accel error"
    assert higher == "Higher is better: PCK, AUC, PCK 2D, PCK aligned"
    assert as_labels == "It should be close to that of the labels: accel"
