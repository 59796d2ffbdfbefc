"""Features that are held in memory: where they fit, and the same batches as from disk."""

from pathlib import Path

import pytest
import torch

from pipeline.errors import ConfigError
from tests.vibe_model.training.conftest import assert_same
from vibe_model.training import feature_table
from vibe_model.training.data import TrainingBatches

CPU = torch.device("cpu")


def test_features_in_memory_give_the_same_batches(mixed, on_disk):
    reports, plain = [], TrainingBatches(mixed, on_disk)
    batches = TrainingBatches(
        mixed, on_disk, hold="auto", report=lambda *shown: reports.append(shown)
    )
    table = batches.table
    # a (both parts, every 4 frames of 2): 8 of 9, 4 of 4, 22 of 23; b (stride 4): 4 of 5, 16 of 17;
    # c: 12 of 12.
    n = 8 + 4 + 22 + 4 + 16 + 12
    assert (len(table.table), table.table.dtype) == (n, torch.float16)
    for step in range(15):
        batch = batches[step]
        assert "features" not in batch.labels
        assert_same(batch.on_device(CPU, table), plain[step])
    done = [n_rows for _, n_rows, _ in reports]
    assert done == sorted(done)
    assert reports[-1] == ("held in RAM: 0.0 MB", n, n)


NEEDED = 66 * 6 * 2  # bytes, of the rows above


@pytest.mark.parametrize(
    ("hold", "free", "where"),
    [
        ("none", {}, "read with each batch"),
        ("ram", {"cpu": NEEDED / 0.8}, "held in RAM: 0.0 MB"),
        ("ram", {"cpu": NEEDED}, None),  # all of what is free is more than may be taken
        ("device", {"meta": NEEDED}, None),
        ("auto", {"meta": 10**9, "cpu": 0}, "held in meta: 0.0 MB"),
        ("auto", {"meta": 100, "cpu": 10**9}, "held in RAM: 0.0 MB (meta has 0.0 MB for them)"),
        ("auto", {"meta": 100, "cpu": 0}, "read with each batch: they need 0.0 MB (meta has 0.0 MB for them, RAM"),
    ],
)  # fmt: skip
def test_features_are_held_in_the_first_place_that_they_fit_into(
    mixed, on_disk, hold, free, where, monkeypatch
):
    monkeypatch.setattr(feature_table, "_free_memory", lambda device: free[device.type])
    reports = []
    device = torch.device("meta")
    options = {"hold": hold, "device": device, "report": lambda *shown: reports.append(shown)}
    if where is None:
        with pytest.raises(
            ConfigError, match=rf"hold = {hold}: .*\(66 rows of 6 float16\).*80% of its free memory"
        ):
            TrainingBatches(mixed, on_disk, **options)
        return
    batches = TrainingBatches(mixed, on_disk, **options)  # meta keeps nothing
    assert batches.where.startswith(where)
    assert {place for place, *_ in reports} == (set() if hold == "none" else {batches.where})
    assert (batches.table is None) == where.startswith("read") == ("features" in batches[0].labels)


def test_the_tightest_group_that_a_process_is_in_limits_its_memory(tmp_path):
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < feature_table._free_memory(CPU) <= total
    groups = (
        ("job", "1000", 700, 100),
        ("job/step", "max", 700, 0),
        ("job/step/task", "900", 950, 20),
    )
    for group, limit, used, files in groups:
        (tmp_path / group).mkdir()
        (tmp_path / group / "memory.max").write_text(f"{limit}\n")
        (tmp_path / group / "memory.current").write_text(f"{used}\n")
        (tmp_path / group / "memory.stat").write_text(
            f"anon 5\nactive_file {files // 2}\ninactive_file {files // 2}\n"
        )
    own = tmp_path / "cgroup"
    own.write_text("1:name=systemd:/elsewhere\n0::/job/step/task\n")
    assert feature_table._free_in_cgroups(own, tmp_path) == [0, 400]
    own.write_text("0::/\n")
    assert feature_table._free_in_cgroups(own, tmp_path) == []
    assert feature_table._free_in_cgroups(tmp_path / "none", tmp_path) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_features_in_memory_give_the_same_batches(mixed, on_disk):
    gpu = torch.device("cuda")
    for hold in ("none", "ram", "device"):
        batches = TrainingBatches(mixed, on_disk, hold=hold, device=gpu)
        for step, batch in enumerate(batches.stream(0, device=gpu)):
            assert batch.labels["features"].device.type == "cuda"
            labels = {name: value.cpu() for name, value in batch.labels.items()}
            on_cpu = batch._replace(labels=labels, real_theta=batch.real_theta.cpu())
            assert_same(on_cpu, TrainingBatches(mixed, on_disk)[step])
