"""`copy --share`: a copy for others has no text of folders, machines or users, and is as good as any
other.
"""

import socket
from unittest.mock import Mock

import numpy as np
import pytest

import cache
from cache.format.extra import ExtraColumn
from cache.write import base
from tests.made_splits import track_of, write_split
from tests.trees import contents

PRIVATE = b"/home/", b"unusual_user", b"gpu-17", b"C:\\Users"
HOME = "/home/unusual_user"
# options by clips, whose slashes begin no folder of a machine
PATTERNS = {"fps": "*/a.mp4=30, lab[12]/?/b=25", "table_columns": 'x:"left edge"'}
SHARE = "copy --share --cache CACHE --to TMP/shared"


@pytest.fixture(autouse=True)
def host(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-17.lab")


def private(folder):
    """Files with one of the private texts; tables are read in their archives, too."""
    texts = {}
    for name, data in contents(folder).items():
        texts[name] = data
        if name.endswith(".npz"):
            with np.load(folder / name) as arrays:
                texts[name] += b"".join(array.tobytes() for array in arrays.values())
    return sorted(name for name, data in texts.items() if any(text in data for text in PRIVATE))


def planted(root):
    """Private texts in every place that has texts, and public ones that look similar."""
    columns = {"frame_index": np.arange(3), "bbox": np.ones((3, 4), np.float32)}
    action = ExtraColumn(name="action", about=f"see {HOME}/actions.txt", dtype="int16")
    track = track_of("a/0", columns, extra={"action": np.arange(3, dtype=np.int16)})
    account = {
        "message": f"{HOME}/raw/a.mat: no and/or 1/2",
        "notes": [
            f"{HOME}/old raw/b.mat: damaged",
            f"{HOME[6:]}/raw/c.mat: damaged",
            "see https://site.org/a",
            "from C:\\Users\\x",
        ],
        "files": {f"{HOME}/poses.pkl": 1},
    }
    video = cache.VideoEntry(name="a", source=f"../{HOME}/a.mp4", account=account)
    note = {"raw": f"{HOME}/raw", "body": f"{HOME}/body", "leave_out": f"{HOME}/left_out.txt"}
    reader = {"parameters": {"weights": f"file:{HOME}/x.pt", **PATTERNS}}
    recorded = {"stand_in": False, "reader": reader}
    split = write_split(
        root, "made/train", [(video, [track])], recorded, extra=[action], provenance=note
    )
    form = cache.StreamForm(2, "float32")
    note = {"weights_file": f"{HOME}/x.pt", "computed_with": {"torch": "2"}}
    with cache.StreamWriter(root, split.name, "few", form, plan="test", provenance=note) as writer:
        writer.write(0, np.ones((3, 2)), np.ones(3), np.ones((3, 2), np.uint64))
        writer.commit({"backbone": {"source": f"{HOME}/x.pt", "licence": "MIT", "weights": "x"}})
    return cache.open(root)[split.name]


def test_no_file_of_a_copy_for_others_has_a_folder_a_machine_or_a_user(tmp_path, types):
    split = planted(tmp_path / "cache")
    types("copy --cache CACHE --to TMP/plain")
    assert len(private(tmp_path / "plain")) > 5, "the texts would be found"
    line = "For yourself or a private repository, unless the terms of made (licence not known)"
    types(SHARE, line)
    assert private(tmp_path / "shared") == []
    copied = cache.open(tmp_path / "shared")[split.name]
    for stream in (None, "few"):
        assert cache.content_digest(copied, stream) == cache.content_digest(split, stream)
    (video,) = copied.videos
    assert video.account["message"] == "a.mat: no and/or 1/2"
    assert video.account["notes"][1:3] == ["c.mat: damaged", "see https://site.org/a"]
    assert copied.manifest["reader"]["parameters"].items() > PATTERNS.items()
    card = (tmp_path / "shared/README.md").read_text()
    assert card.startswith(f"> {line}")
    assert all(f"{name} = {value}" in card for name, value in PATTERNS.items())
    assert "- weights of few: licence MIT" in card and "| `action` | 1 |" in card
    types("verify --cache TMP/shared", "intact")
    types("gc --cache TMP/shared", "0 paths removed")
    types(SHARE, "made/train: up to date")


def test_it_is_not_mixed_with_what_is_private(tmp_path, types, monkeypatch):
    planted(tmp_path / "cache")
    types("copy --cache CACHE --to TMP/plain")
    refused = "made/train was not written by `copy --share`"
    types("copy --share --cache CACHE --to TMP/plain", refused, code=2)
    (tmp_path / "plain/made/train/provenance.json").unlink()  # messages are in other files
    types("copy --share --cache CACHE --to TMP/plain", refused, code=2)
    types(f"{SHARE} --streams ''")
    types("copy --cache CACHE --to TMP/shared")  # the stream alone, with its note
    types(SHARE, refused, code=2)
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(base, "publish", Mock(side_effect=KeyboardInterrupt))
        cache.copy_split(tmp_path / "cache", "made/train", tmp_path / "killed")
    assert private(tmp_path / "killed"), "staged work has the texts"
    types("copy --share --cache CACHE --to TMP/killed")
    assert private(tmp_path / "killed") == []


def test_others_go_on_with_it_where_their_raw_files_are(penn, network, tmp_path, types):
    penn.spoil("0003")
    penn.convert()
    types("extract penn_action/train --cache CACHE --precision exact")
    types(SHARE)
    network.batches.clear()
    (tmp_path / "cache").rename(tmp_path / "gone")
    raw = penn.elsewhere(tmp_path / "theirs").raw
    (tmp_path / "raw").rename(tmp_path / "raw-gone")
    card = (tmp_path / "shared/README.md").read_text()
    assert card.startswith("# penn_action/train") and "demo data" in card
    types("status --all --cache TMP/shared", "0003: bad_label_file: labels/0003.mat: 'x': expected")
    for command in ("convert", "show --out TMP/page"):
        unknown = "raw folder is not recorded in provenance.json"
        types(f"{command} penn_action/train --cache TMP/shared", unknown, code=2)
    types(f"convert penn_action/train --raw {raw} --cache TMP/shared", "up to date")
    command = f"extract penn_action/train --raw {raw} --cache TMP/shared --precision exact"
    types(command, "resnet50 is up to date")
    assert network.batches == []
