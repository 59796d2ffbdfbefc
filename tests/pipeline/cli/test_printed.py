"""What commands print, and their exit codes, on demo data of a few frames: tests/golden/COMMAND.txt
has the cases.
"""

import shutil

import numpy as np
import pytest

import cache
from pipeline.__main__ import main
from pipeline.accounting import Accounting, Totals, VideoAccount
from pipeline.files.raw import MARKER
from tests.made_splits import track_of, write_split

TABLES = [(r"(tables, manifests +)[\d.]+ KiB", r"\1N KiB"), (r"(?m)^(all +)[\d.]+ KiB", r"\1N KiB")]
DIGESTS = [(r"\b[0-9a-f]{64}\b", "SHA-256"), (r"# vibe-pipeline .*", "# vibe-pipeline VERSION")]
# texts that several commands print -> the transcript that shows them
SHOWN_IN = {
    r"(?m)^split .* next run(?:\n\S+(?: \([\w ]+\))?  .*)+"
    r"(?:\n· \S+: (?:[\d,]+ tracks?: .*|grades not stored yet))*": "status_table",
    r"(?<=; the rows are kept: ).*": "convert",
    r"(?<=rows left )\(.*?\)": "convert",
    r"(?<=\d\.mat: ).*?again\.": "convert",
    r"(?<=in JSON, found something else ).*": "status",
}


@pytest.fixture
def show(golden, penn):
    """`with show("plan") as ran`: a transcript with the names of Penn Action's folders."""
    places = {penn.raw: "RAW/penn_action", penn.raw.parent: "RAW", penn.root: "CACHE"}

    def opened(name, varying=()):
        others = [(text, f"(in {where}.txt)") for text, where in SHOWN_IN.items() if where != name]
        return golden(name, main, places, [*varying, *others])

    return opened


def spoil(file):
    """Flip a bit."""
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 3] ^= 4
    file.write_bytes(changed)


def test_convert(penn, show, embedded, tmp_path, reads):
    words = ("convert", penn.name, *penn.places)
    with show("convert") as ran:
        ran("a first time", *words)
        ran("nothing to do", *words)
        penn.add("0007", "0009")
        penn.edit("0003")
        penn.spoil("0005", "0009")
        penn.frames("0005").joinpath("000002.jpg").write_bytes(b"")
        (penn.frames("0001") / "000003.jpg").unlink()
        ran("new videos, a changed one, damaged ones", *words)
        ran("what was rejected is named", *words)
        ran("--strict refuses", *words, "--strict")
        ran("--retry fails again", "convert", penn.name, "--cache", penn.root, "--retry")
        penn.remove("0007")
        ran("a video is gone", *words)
        ran("and stays", *words)
        ran("until it is dropped", *words, "--drop-removed")
        reads.fail("0008", ZeroDivisionError("division by zero"))
        penn.add("0008")
        for number in range(1, 7):
            penn.label(f"{number:04d}").write_bytes(b"broken")
        ran("nothing can be used: defects come first", *words[:-1], tmp_path / "broken")
        ran("and the exit code stays", *words[:-1], tmp_path / "broken")
        amass = embedded.copy("amass", tmp_path / "amass")
        ran(
            "motion without pictures",
            "convert",
            "amass/train",
            "--raw",
            amass,
            "--cache",
            tmp_path / "motion",
        )
        ran("which has no features", "extract", "amass/train", "--cache", tmp_path / "motion")
        (amass / MARKER).unlink()
        ran(
            "real data into a cache of demo data",
            "convert",
            "amass/train",
            "--raw",
            amass,
            "--cache",
            penn.root,
        )


def test_the_table_of_splits(penn, show, network, luigi_cfg):
    """Each form of each cell: a new column changes this transcript alone."""
    penn.converted("fast")
    penn.convert("test")
    penn.add("0007", "0009")
    penn.spoil("0009")
    (penn.frames("0007") / "000002.jpg").unlink()
    penn.convert()
    penn.add("0011")
    rows = {"frame_index": np.arange(1), "bbox": np.full((1, 4), 9.0), "kp_2d": np.ones((1, 49, 3))}
    videos = [(cache.VideoEntry(name="a"), [track_of("a/0", rows)])]
    write_split(penn.root, "other/not-recorded", videos, {})
    accounting = Accounting([VideoAccount("a", found=3, kept=1, tracks_kept=1)])
    wham = {"imported": {"file": "x", "estimates": {"a": {"tool": "WHAM"}}}}
    recorded = {"accounting": accounting.totals(Totals(videos=2, frames=1234)), "reader": wham}
    write_split(penn.root, "other/part-of-a-release", videos, recorded)
    with show("status_table") as ran:
        ran("small splits", "status", "--cache", penn.root)
        penn.remove("0011")
        luigi_cfg("penn_action kinetics")
        ran("splits that are not converted, and a download that is missing", "plan")


def test_status(penn, show, network, into):
    words = ("status", "--cache", penn.root)
    penn.converted("fast")
    penn.convert("test")
    with show("status", [*TABLES, *DIGESTS]) as ran:
        ran("two splits", *words)
        ran("one of them", "status", penn.name, "--cache", penn.root)
        ran("bytes", *words, "--sizes")
        ran("digests", *words, "--digest")
        penn.add("0007")
        penn.spoil("0003", "0007")
        (penn.frames("0001") / "000003.jpg").unlink()
        (penn.frames("0005") / "000002.jpg").write_bytes(b"")
        penn.convert()
        ran("a rejected video, and a stream with missing rows", *words, "--all")
        into.extract(penn.root)
        penn.remove("0005")
        ran("rows without features, and a video that is gone", *words)
        ran(
            "more rejected videos than allowed",
            "status",
            penn.name,
            "--cache",
            penn.root,
            "--max-rejected",
            "2%",
        )
        ran("a line for each video", "status", penn.name, "--cache", penn.root, "--csv")
        manifest = penn.root / "penn_action/test/manifest.json"
        manifest.write_bytes(manifest.read_bytes()[:-20])
        spoil(penn.root / penn.name / "features/resnet50/manifest.json")
        ran("what cannot be read hides nothing else", *words)
        shutil.rmtree(penn.root)
        penn.without_marker()
        penn.convert()
        ran("less than the release has", *words)
        penn.convert("test")
        ran("in both splits", *words)
        shutil.rmtree(penn.root / "penn_action")
        ran("both splits were deleted", *words)
        cache.gc(penn.root)
        ran("nothing is saved", *words)


def test_plan(penn, show, network, into, luigi_cfg):
    words = ("plan", "penn_action/train", "--cache", penn.root)
    with show("plan", [(r"\b\d+ s\b", "N s"), (r"N s to N s", "N s")]) as ran:
        luigi_cfg("penn_action amass", "[resnet50]\nweights = untrained:0")
        ran("nothing is converted", *words)
        penn.converted("fast")
        ran("up to date", *words)
        penn.add("0007", "0010")
        penn.edit("0003")
        penn.label("0004").unlink()
        (penn.frames("0005") / "000008.jpg").unlink()
        penn.remove("0006")
        ran("new, changed and removed videos", *words)
        ran("all of them", *words, "--all")
        penn.convert()
        ran("a stream without some rows", *words)
        ran("another network", *words, "--set", "resnet50.weights=untrained:7")
        into.extract(penn.root)
        into.extract(penn.root, name="small")
        penn.edit("0003")
        penn.convert()
        into.extract(penn.root)
        ran("another stream without some rows", *words)
        luigi_cfg(
            "amass penn_action", "[embedded]\nenabled = true\n[resnet50]\nweights = untrained:0"
        )
        ran("demo data that is not made yet", "plan")
        manifest = penn.root / penn.name / "manifest.json"
        manifest.write_text(manifest.read_text()[:20])
        ran("a damaged split", *words)


def test_doctor(penn, show, embedded, tmp_path, luigi_cfg):
    raw = tmp_path / "new"
    raw.mkdir()
    with show("doctor") as ran:
        ran("demo data", "doctor", "penn_action", "--raw", penn.raw.parent)
        ran("nothing yet", "doctor", "penn_action", "3dpw", "--raw", raw, "--body", raw / "body")
        (raw / "Penn_Action.tar.gz").touch()
        (raw / "3dpw/sequenceFiles").mkdir(parents=True)
        (raw / "3dpw/sequenceFiles/a.pkl").touch()
        ran("still packed; a known mistake", "doctor", "penn_action", "3dpw", "--raw", raw)
        penn.raw.rename(raw / "Penn_Action")
        (raw / "Penn_Action" / MARKER).unlink()
        ran("one folder off", "doctor", "penn_action", "--raw", raw)
        (raw / "Penn_Action").rename(raw / "penn_action")
        ran("less than the release has", "doctor", "penn_action", "--raw", raw)
        luigi_cfg("3dpw amass")
        embedded.copy("amass", tmp_path / "raw/amass")
        embedded.copy("3dpw", tmp_path / "raw/3dpw")
        ran("by luigi.cfg, without a body", "doctor")
        ran("for which it is not needed", "doctor", "amass")
        luigi_cfg("3dpw penn_action", "[embedded]\nenabled = true\n")
        ran("demo data that will be made", "doctor")


def test_verify(penn, show, network, monkeypatch):
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_SHARD", 8)  # one a video
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_CHUNK", 8)
    penn.converted("exact")
    stream = penn.root / penn.name / "features/resnet50"
    with show("verify") as ran:
        ran("intact", "verify", "--cache", penn.root)
        ran(
            "by sizes and indexes, a dataset's splits",
            "verify",
            "penn_action",
            "--fast",
            "--cache",
            penn.root,
        )
        ran("nothing to repair", "verify", "--repair", "--cache", penn.root)
        spoil(stream / "c/1/0")
        spoil(penn.root / penn.name / "kp_2d/c/2/0/0")
        ran("two damaged shards", "verify", "--cache", penn.root)
        ran("repaired", "verify", "--repair", "--cache", penn.root)
        spoil(stream / "c/0/0")
        ran("as JSON", "verify", "--repair", "--json", "--cache", penn.root)
        spoil(penn.root / penn.name / "kp_2d/c/0/0/0")
        penn.remove("0001")
        ran("which cannot be repaired", "verify", "--repair", "--cache", penn.root)


def test_leaks(penn, show, into, embedded, tmp_path):
    amass, threedpw = (
        embedded.copy("amass", tmp_path / "amass"),
        embedded.copy("3dpw", tmp_path / "3dpw"),
    )
    penn.converted()
    with show("leaks") as ran:
        ran("no test", "leaks", "--cache", penn.root)
        penn.convert("test")
        for split in ("train", "validation"):
            into.convert(penn.root, threedpw, "3dpw", split, body=embedded.body)
        into.convert(penn.root, amass, "amass")
        ran("by names", "leaks", "--cache", penn.root)
        ran("with the reasons", "leaks", "--all", "--cache", penn.root)


def test_gc(penn, show):
    penn.converted()
    stray = penn.root / penn.name / "bbox/c/77/0"
    stray.parent.mkdir()
    stray.write_bytes(b"12345")
    with show("gc") as ran:
        ran("only listed", "gc", "--dry-run", "--cache", penn.root)
        ran("unused since now", "gc", "--unused-for", "7", "--cache", penn.root)
        ran("removed", "gc", "--cache", penn.root)
        ran("nothing is left", "gc", "--cache", penn.root)
        ran("as JSON", "gc", "--json", "--cache", penn.root)
    assert cache.verify(penn.root).ok


def test_copy(penn, show, network, tmp_path):
    penn.converted("fast")
    with show("copy") as ran:
        ran("a first time", "copy", "--cache", penn.root, "--to", tmp_path / "to")
        ran("nothing to do", "copy", "--cache", penn.root, "--to", tmp_path / "to")
        penn.add("0007")
        penn.convert()
        ran(
            "another state of the split",
            "copy",
            penn.name,
            "--cache",
            penn.root,
            "--to",
            tmp_path / "to",
        )
        ran(
            "a stream that lags behind",
            "copy",
            "penn_action",
            "--cache",
            penn.root,
            "--to",
            tmp_path / "new",
        )
        ran(
            "no such stream",
            "copy",
            "--cache",
            penn.root,
            "--to",
            tmp_path / "x",
            "--streams",
            "resnet",
        )
