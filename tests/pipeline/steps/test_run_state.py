"""The file with the state of a command's last runs, beside the cache."""

import json
import re
import shutil
import time
from datetime import datetime

import pytest

CONVERT = "convert penn_action/train --raw RAW/penn_action --cache CACHE"
EXTRACT = "extract penn_action/train --cache CACHE --weights untrained:0"


@pytest.fixture
def state(penn):
    """Reads the state of a command; its folder is CACHE.state."""
    folder = penn.root.with_name(f"{penn.root.name}.state")
    return lambda command: json.loads((folder / command / "penn_action/train.json").read_text())


def moment(run):
    return datetime.fromisoformat(run["time"]).timestamp()


def test_the_last_run_and_the_last_success_are_told_apart(penn, types, state):
    began = time.time()
    types(CONVERT)
    first = state("convert")
    assert first["last_run"] == first["last_success"]
    files = [file for file in (penn.root / "penn_action/train").rglob("*") if file.is_file()]
    run = first["last_run"]
    assert began - 1 <= moment(run) <= time.time()
    assert (run["exit_code"], run["rejected"], run["staged"]) == (0, 0, 0)
    assert run["rows"] == len(penn.split.column("frame_index")[:])
    assert (run["files"], run["bytes"]) == (len(files), sum(file.stat().st_size for file in files))
    assert "vibe-pipeline" in run["version"]

    penn.remove("0005")
    types(CONVERT, code=1)
    failed = state("convert")
    assert failed["last_run"]["exit_code"] == 1
    assert failed["last_success"] == run

    types(f"{CONVERT} --drop-removed")
    types(CONVERT, "up to date")  # a run with nothing to do
    last = state("convert")
    assert last["last_run"] == last["last_success"] != run
    assert last["last_run"]["rows"] < run["rows"]


def test_shares_of_a_job_and_busy_runs_write_none(penn, types, monkeypatch):
    folder = penn.root.with_name(f"{penn.root.name}.state")
    types(f"{CONVERT} --part 1/2")
    assert not folder.exists()
    types(CONVERT)
    file = folder / "convert/penn_action/train.json"
    before = file.read_text()
    penn.remove("0005")
    with penn.split.store.lock("penn_action/train/.writing"):
        types(f"{CONVERT} --drop-removed", code=75)
    assert file.read_text() == before


def test_a_folder_that_cannot_be_written_is_a_line(penn, types):
    folder = penn.root.with_name(f"{penn.root.name}.state")
    folder.write_text("a file")
    types(CONVERT, f"! the state of this run is not written: {folder}")
    assert folder.read_text() == "a file"


def test_a_cache_that_is_the_current_folder_has_its_state_beside_it(
    penn, types, types_json, state, monkeypatch
):
    types(CONVERT)
    folder = penn.root.with_name(f"{penn.root.name}.state")
    shutil.rmtree(folder)
    monkeypatch.chdir(penn.root)
    types(CONVERT.replace("CACHE", "."))
    (split,) = types_json("status --cache .")
    assert split["runs"] == [state("convert")]


def test_a_run_without_a_cache_makes_no_folder(penn, types, tmp_path):
    types("convert penn_action/train --raw RAW/nothing --cache CACHE", code=2)
    assert not list(tmp_path.glob("*.state"))


def test_the_setting_names_the_folder_of_the_cache_of_luigi_cfg(penn, types, luigi_cfg, tmp_path):
    file = luigi_cfg()
    file.write_text(file.read_text().replace("[data]", f"state = {tmp_path / 'elsewhere'}\n[data]"))
    types(CONVERT)
    elsewhere = tmp_path / "elsewhere"
    assert [*elsewhere.rglob("*.json")] == [elsewhere / "convert/penn_action/train.json"]


def test_status_has_the_states_as_json_and_for_prometheus(
    penn, types, types_json, state, network, tmp_path
):
    types(CONVERT)
    types(EXTRACT)
    (split,) = types_json("status --cache CACHE")
    assert split["runs"] == [state("convert"), state("extract")]

    types(f"status --cache CACHE --prometheus {tmp_path / 'runs.prom'}")
    samples = {}
    for line in (tmp_path / "runs.prom").read_text().splitlines():
        sample = re.fullmatch(r'(\w+)\{command="(\w+)",name="([^"]+)"\} (\S+)', line)
        assert sample or re.fullmatch(r"# TYPE \w+ gauge", line)
        if sample:
            samples[sample[1], sample[2]] = float(sample[4])
    for command in ("convert", "extract"):
        run = state(command)["last_success"]
        start = "vibe_pipeline_last_success"
        assert samples[f"{start}_timestamp_seconds", command] == moment(run)
        assert samples[f"{start}_rows", command] == run["rows"] > 0
        assert samples["vibe_pipeline_last_run_exit_code", command] == 0
