"""An export appears when it is whole, and in place of nothing that no export wrote."""

import hashlib
import json

import pytest

from pipeline.errors import PipelineError
from pipeline.exchange import formats
from tests.trees import contents


@pytest.fixture
def write(tmp_path):
    """An export of one file of this text, into a folder."""

    def write(text, *, replace=False, name="out"):
        with formats.new_folder(tmp_path / name, replace=replace) as (folder, provenance):
            (folder / "rows").write_text(text)
            provenance["stand_in"] = True

    return write


def test_a_folder_is_replaced_only_if_that_is_said_and_it_holds_an_export_alone(write, tmp_path):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is as good as none
    write("one")
    provenance = json.loads((out / formats.PROVENANCE).read_text())
    assert provenance["stand_in"] is True
    assert provenance["files"] == {"rows": hashlib.sha256(b"one").hexdigest()}
    with pytest.raises(PipelineError, match=r"already exists.*--replace"):
        write("two")
    write("two", replace=True)
    assert (out / "rows").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    # also where an earlier export is put while it is replaced
    for place in ("out", "out/inner", ".out.old"):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "mine.txt").write_text("notes")
        with pytest.raises(PipelineError, match=r"mine\.txt, which no export wrote"):
            write("three", replace=True)
        (tmp_path / place / "mine.txt").unlink()
    with pytest.raises(PipelineError, match="is a file, but this format is a folder"):
        write("three", name="out/rows")
    with pytest.raises(PipelineError, match=r"the folder .* does not exist"):
        write("three", name="no/out")


def test_what_was_there_stays_when_an_export_ends_early(write, tmp_path, monkeypatch):
    write("one")
    before = contents(tmp_path)

    def end(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(formats, "sync_folder", end)
        for name in ("out", "new"):
            with pytest.raises(KeyboardInterrupt):
                write("two", replace=True, name=name)
    assert contents(tmp_path) == before
    (tmp_path / ".new.part").mkdir()  # of a run that was killed
    (tmp_path / ".new.part/half").write_text("half")
    write("two", name="new")
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["provenance.json", "rows"]


def test_a_file_that_is_there_is_kept_unless_it_is_to_be_replaced(tmp_path):
    file, link = tmp_path / "x.pt", tmp_path / "link.pt"
    file.write_text("months of work")
    link.symlink_to("a disk that is not mounted")
    for place in (file, link):
        with pytest.raises(PipelineError, match=r"already exists.*--replace"):
            formats.require_new_file(place, replace=False)
        formats.require_new_file(place, replace=True)
    with pytest.raises(PipelineError, match=r"the folder .* does not exist"):
        formats.require_new_file(tmp_path / "no/x.pt", replace=False)
    with pytest.raises(ZeroDivisionError):
        formats.publish_with_provenance(file, lambda part: part.touch() or 1 / 0, {})
    assert file.read_text() == "months of work"
    assert not [*tmp_path.glob(".*")]
    formats.publish_with_provenance(file, lambda part: part.write_text("new"), {"stand_in": True})
    provenance = json.loads(formats.provenance_path(file).read_text())
    assert provenance["sha256"] == hashlib.sha256(b"new").hexdigest()
    assert (file.read_text(), provenance["stand_in"]) == ("new", True)


@pytest.mark.parametrize(
    ("name", "out"), [("vibe", "x.pt"), ("wham", "x.pth"), ("rerun", "x.rrd"), ("parquet", "x")]
)
def test_no_format_writes_over_what_is_there(name, out, exportable, tmp_path):
    export = formats.FORMATS.find(name).function()
    place = exportable("3dpw/train"), "3dpw/train", tmp_path / out
    assert export(*place).stand_in
    before = contents(tmp_path)
    with pytest.raises(PipelineError, match="--replace"):
        export(*place)
    assert contents(tmp_path) == before
    export(*place, replace=True)
    assert contents(tmp_path).keys() == before.keys()
