"""Images of another size within a video's folder, as an interrupted resize leaves them."""

from typing import Any

import cv2

import cache


def test_rows_of_resized_images_get_no_features_and_extract_and_prepare_end_with_1(
    penn: Any, ran: Any, network: Any
) -> None:
    resized = sorted(penn.frames("0003").iterdir())[5:]
    for file in resized:
        halved = cv2.resize(cv2.imread(str(file)), None, fx=0.5, fy=0.5)
        file.unlink()  # it may be a link
        cv2.imwrite(str(file), halved)
    penn.convert()
    place = ("extract", penn.name, "--cache", penn.root, "--weights", "untrained:0")
    shown = ran(*place, code=1).out
    assert f"{len(resized)} rows without features: other_picture_size" in shown
    assert resized[0].name in "".join(shown.split())
    split = cache.open(penn.root)[penn.name]
    ok = split.column("features/resnet50_ok")
    for track in split.tracks:
        expected = [True] * 5 + [False] * 3 if track.video == "0003" else [True] * 8
        assert [bool(value) for value in ok[track.start : track.stop]] == expected
