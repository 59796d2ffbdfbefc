"""An export appears when it is whole, and in place of nothing that no export wrote."""

import hashlib
import json

import pytest

from cache.storage import durable
from pipeline import table
from pipeline.extras.exchange import formats
from tests.raising import pipeline_refuses
from tests.trees import contents


@pytest.fixture
def write(tmp_path):
    """An export of one file of this text, into a folder."""

    def write(text, name="out"):
        with formats.new_folder(tmp_path / name) as (folder, provenance):
            (folder / "rows").write_text(text)
            provenance["stand_in"] = True

    return write


def test_a_folder_is_written_once(write, tmp_path):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is as good as none
    write("one")
    provenance = json.loads((out / formats.PROVENANCE).read_text())
    assert provenance["stand_in"] is True
    assert provenance["files"] == {"rows": hashlib.sha256(b"one").hexdigest()}
    with pipeline_refuses("already exists"):
        write("two")
    assert (out / "rows").read_text() == "one"
    with pipeline_refuses("is a file, but this format is a folder"):
        write("three", "out/rows")
    with pipeline_refuses(r"the folder .* does not exist"):
        write("three", "no/out")


def test_an_export_that_ends_early_leaves_nothing(write, tmp_path, monkeypatch):
    def end(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(durable, "sync_tree", end)
        with pytest.raises(KeyboardInterrupt):
            write("one", "new")
    assert contents(tmp_path) == {}
    (tmp_path / ".new.part").mkdir()  # of a run that was killed
    (tmp_path / ".new.part/half").write_text("half")
    write("two", "new")
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["provenance.json", "rows"]


def test_a_file_that_exists_is_kept(tmp_path):
    file, link = tmp_path / "x.pt", tmp_path / "link.pt"
    file.write_text("months of work")
    link.symlink_to("a disk that is not mounted")
    for place in (file, link):
        with pipeline_refuses("already exists"):
            formats.require_new_file(place)
    with pipeline_refuses(r"the folder .* does not exist"):
        formats.require_new_file(tmp_path / "no/x.pt")
    with pytest.raises(ZeroDivisionError):
        formats.publish_with_provenance(file, lambda part: part.touch() or 1 / 0, {})
    assert file.read_text() == "months of work"
    assert not [*tmp_path.glob(".*")]
    formats.publish_with_provenance(file, lambda part: part.write_text("new"), {"stand_in": True})
    provenance = json.loads(formats.provenance_path(file).read_text())
    assert provenance["sha256"] == hashlib.sha256(b"new").hexdigest()
    assert (file.read_text(), provenance["stand_in"]) == ("new", True)


# of demo data; test_gvhmr.py makes the SMPL-X labels that gvhmr needs
WRITING_3DPW = sorted(table.OWN["vibe_pipeline.exports"].keys() - {"gvhmr"})
SUFFIXES = {"wham": ".pth", "rerun": ".rrd"}  # which others do not look at


@pytest.mark.parametrize("name", WRITING_3DPW)
def test_no_format_writes_over_what_is_there(name, exportable, tmp_path):
    export = formats.FORMATS.find(name).function()
    place = exportable("3dpw/train"), "3dpw/train", tmp_path / f"x{SUFFIXES.get(name, '')}"
    assert export(*place).stand_in
    before = contents(tmp_path)
    with pipeline_refuses("already exists"):
        export(*place)
    assert contents(tmp_path) == before
