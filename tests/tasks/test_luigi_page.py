"""With Luigi's central scheduler: what its web page shows of a task's progress."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LUIGID = Path(sys.executable).with_name("luigid")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """The address of a scheduler that this test starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["--address", "127.0.0.1", "--port", str(port), "--state-path", str(tmp_path / "state")]
    # Otherwise the scheduler runs no task again within 10 s.
    (tmp_path / "luigid.cfg").write_text("[scheduler]\nstable_done_cooldown_secs = 0\n")
    environment = {**os.environ, "LUIGI_CONFIG_PATH": str(tmp_path / "luigid.cfg")}
    with (tmp_path / "luigid.log").open("w") as log:
        process = subprocess.Popen([LUIGID, *where], stdout=log, stderr=log, cwd=tmp_path, env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                ask(address, "DONE")
            except urllib.error.URLError:
                assert process.poll() is None, (tmp_path / "luigid.log").read_text()
                time.sleep(0.1)
            else:
                break
        yield address
    finally:
        process.terminate()
        process.wait()


def ask(address: str, status: str) -> dict[str, Any]:
    query = urllib.parse.urlencode({"data": json.dumps({"status": status, "upstream_status": ""})})
    with urllib.request.urlopen(f"{address}/api/task_list?{query}", timeout=10) as answer:
        tasks: dict[str, Any] = json.load(answer)["response"]
    return tasks


@pytest.mark.slow
def test_progress_messages_and_failures_reach_luigis_page(project, page) -> None:
    shutil.rmtree(project.folder / "cache/amass")
    central = ("--scheduler-url", page)
    ran = project.luigi("Data", scheduler=central)
    assert ran.code == 0, ran.shown
    assert ran.done == ["convert amass/train", "data 2 datasets"]
    done = ask(page, "DONE").values()
    converted = next(t for t in done if t["name"] == "Convert" and t["params"]["dataset"] == "amass")
    assert converted["progress_percentage"] == 100
    assert converted["status_message"].startswith("2 of 2  ")

    # A task that is done for the scheduler runs again when its inputs have changed; a failure is shown by its message.
    (project.folder / "raw/amass").rename(project.folder / "away")
    project.configure({"embedded": {"enabled": "false"}})
    assert project.luigi("Data", scheduler=central).code == 30
    failed = ask(page, "FAILED")
    assert [task["name"] for task in failed.values()] == ["Convert"]
    query = urllib.parse.urlencode({"data": json.dumps({"task_id": next(iter(failed))})})
    with urllib.request.urlopen(f"{page}/api/fetch_error?{query}", timeout=10) as answer:
        error = json.loads(json.load(answer)["response"]["error"])
    assert str(project.folder / "raw/amass") in error
    assert "Traceback" not in error

    (project.folder / "away").rename(project.folder / "raw/amass")
    shutil.rmtree(project.folder / "cache/amass")
    assert project.luigi("Data", scheduler=central).code == 0
    assert ask(page, "FAILED") == {}
