from collections import Counter

import pytest

from pipeline.accounting import (
    Accounting,
    Totals,
    VideoAccount,
    assumption_lines,
    unread_lines,
)


@pytest.mark.promise("counted")
def test_found_equals_kept_plus_dropped_or_the_check_fails():
    account = VideoAccount("0001", found=34)
    account.keep_track(7)
    account.drop("no_visible_joint", 3)
    account.drop_track("track_too_short", 24)
    account.check()
    assert account.tracks_dropped == Counter({"track_too_short": 1})
    assert account.dropped == Counter({"no_visible_joint": 3, "track_too_short": 24})
    account.found = 35
    with pytest.raises(AssertionError, match="found 35 person-frames, but kept 7"):
        account.check()


def test_totals_add_up_over_videos():
    accounting = Accounting()
    first, second, third = (accounting.video(name) for name in "abc")
    first.found, second.found = 35, 4
    first.keep_track(5)
    first.drop_track("track_too_short", 20)
    first.drop_track("no_detection", 10)
    second.drop("no_picture", 4)
    third.reject("bad_label_file", "c.mat is cut off")
    assert accounting.totals(Totals(videos=1258)) == {
        "frames": {
            "found": 39,
            "kept": 5,
            "dropped": {"no_detection": 10, "no_picture": 4, "track_too_short": 20},
        },
        "tracks": {"found": 3, "kept": 1, "dropped": {"no_detection": 1, "track_too_short": 1}},
        "videos": {"found": 3, "kept": 1, "set_aside": {"bad_label_file": 1}, "without_tracks": 1},
        "known": {"videos": 1258},
    }


def test_a_video_of_another_split_is_not_found_in_this_one_unless_it_failed_before_that_was_known():
    accounting = Accounting()
    accounting.video("a").keep_track(0)
    for name in "bc":
        accounting.video(name).other_split = True
    accounting.video("c").reject("bad_label_file", "c.mat is cut off")
    videos = accounting.totals()["videos"]
    assert videos == {
        "found": 2,
        "kept": 1,
        "set_aside": {"bad_label_file": 1},
        "without_tracks": 0,
    }


def test_what_was_assumed_is_told_in_one_line_for_all_videos_but_those_that_were_rejected():
    order = "joints in COCO's order"
    accounts = [VideoAccount(f"{name}.mp4") for name in "abcdefgh"]
    for account in accounts[:7]:
        account.assume(order, setting="[videos] joints")
    accounts[1].reject("keypoints_outside", "most joints are outside the image")
    accounts[7].assume("25 frames a second", setting="[videos] fps")
    stored = [VideoAccount.from_dict(account.as_dict()) for account in accounts]
    assert stored == accounts
    assert assumption_lines(stored) == [
        "assumed 25 frames a second for 1 video (h.mp4): [videos] fps states it",
        f"assumed {order} for 6 videos (a.mp4, c.mp4, d.mp4, e.mp4, f.mp4, ...): [videos] joints "
        "states it",
    ]
    assert "assumed" not in VideoAccount("i.mp4").as_dict()


def test_what_nobody_reads_is_told_in_one_line_a_kind_for_all_videos_but_rejected_ones():
    accounts = [VideoAccount(f"{name}.mp4") for name in "abcd"]
    for account, names in zip(
        accounts, ({"Hip": 3, "Neck": 3}, {"Hip": 40}, {"Hip": 9}), strict=False
    ):
        account.unread = {"joints not read": names}
    accounts[2].reject("keypoints_outside", "most joints are outside the image")
    accounts[1].unread["boxes alone: no joint"] = {}
    stored = [VideoAccount.from_dict(account.as_dict()) for account in accounts]
    assert stored == accounts
    assert unread_lines(stored) == [
        "boxes alone: no joint in 1 video (b.mp4)",
        "joints not read in 2 videos (a.mp4, b.mp4): Hip (43), Neck (3)",
    ]
    assert "unread" not in accounts[3].as_dict()
