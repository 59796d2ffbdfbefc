"""Mistakes at the keyboard: one readable line, an exit code, and everything else goes on."""

from __future__ import annotations

import errno
import shutil

import pytest
from luigi.rpc import RPCError

from tasks import Data, terminal
from tasks.defaults import lock_folder

SCHEDULING = 35
FAILED = 30


def only_failure(ran, code: int) -> str:
    assert ran.code == code, ran.shown
    assert "Traceback" not in ran.shown
    assert "ERROR" not in ran.shown
    assert len(ran.failures) == 1, ran.shown
    return ran.failures[0]


def test_an_unknown_key_is_told_in_one_line_before_anything_runs(bare) -> None:
    bare.configure({"convert": {"wrokers": "2"}})
    ran = bare.luigi("EvaluateVIBE")
    message = only_failure(ran, SCHEDULING)
    assert message.endswith("[convert] wrokers: unknown key; did you mean 'workers'? known: workers, strict")
    assert ran.shown.splitlines() == [message]
    assert not (bare.folder / "raw").exists()


def test_training_on_a_dataset_that_is_not_enabled_is_told_before_anything_runs(bare) -> None:
    bare.configure({"train": {"datasets_2d": "kinetics/train"}})
    ran = bare.luigi("EvaluateVIBE")
    message = only_failure(ran, SCHEDULING)
    assert "[train] datasets_2d: kinetics/train is to be used, but [data] datasets does not enable it." in message
    assert not (bare.folder / "raw").exists()


def test_without_a_raw_folder_the_other_datasets_go_on(project) -> None:
    shutil.rmtree(project.folder / "raw/3dpw")
    shutil.rmtree(project.folder / "cache")
    project.configure({"embedded": {"enabled": "false"}})
    ran = project.luigi("EvaluateVIBE")
    assert ran.code == FAILED, ran.shown
    assert ran.done == ["convert amass/train"]
    assert sorted(line.split()[2] for line in ran.failures) == ["3dpw/test", "3dpw/train", "3dpw/validation"]
    assert all(str(project.folder / "raw/3dpw") in line for line in ran.failures)
    assert "Traceback" not in ran.shown
    assert "ERROR" not in ran.shown


def test_without_a_body_the_message_says_once_where_it_was_looked_for(project) -> None:
    (project.folder / "body").unlink()
    project.configure({"embedded": {"enabled": "false"}})
    ran = project.luigi("EvaluateVIBE")
    assert ran.code == FAILED, ran.shown
    assert ran.done == []
    first, *others = [line.split(maxsplit=3) for line in ran.failures]
    assert str(project.folder / "body") in first[3]
    assert "SMPL_NEUTRAL" in first[3]
    assert [words[3] for words in others] == ["likewise", "likewise"]
    assert "Traceback" not in ran.shown


def test_without_luigi_cfg_the_message_says_from_where_to_run(bare) -> None:
    bare.cfg.unlink()
    ran = bare.luigi("Data")
    message = only_failure(ran, SCHEDULING)
    assert message.endswith("there is no such file. Run from the project's folder, or set LUIGI_CONFIG_PATH.")


def test_real_data_is_introduced_as_what_it_is(project, within, capsys) -> None:
    (project.folder / "raw/amass/STAND_IN.json").unlink()
    project.configure({"embedded": {"enabled": "false"}})
    within(project)
    from tasks.events import whose_data
    from tasks.settings import settings

    raw = project.folder / "raw"
    assert whose_data(settings()) == f"in {raw}: 3dpw ([yellow]stand-in[/yellow]), amass"


def test_where_nothing_is_embedded_no_stand_in_is_promised(project, within, monkeypatch) -> None:
    from tasks.events import whose_data
    from tasks.settings import settings

    within(project)
    loaded, raw = settings(), project.folder / "raw"
    monkeypatch.setattr("pipeline.datasets.DATASETS", {})  # as if both were of other packages
    expected = f"in {raw}: 3dpw ([yellow]stand-in[/yellow]), amass ([yellow]stand-in[/yellow])"
    assert whose_data(loaded) == expected


def test_what_is_set_aside_is_told_by_the_next_run_too(project, build) -> None:
    motions = sorted((project.folder / "raw/amass").rglob("*_poses.npz"))
    for motion in motions:
        motion.write_bytes(b"broken")
    project.configure({"embedded": {"enabled": "false"}})
    ran = build(project, "Convert", dataset="amass", split="train")
    unread = f"those of {len(motions)} video{'s' * (len(motions) > 1)} that could not be read are not counted"
    assert f"0 of 0 frames kept ({unread})" in " ".join(ran.shown.split())
    assert any(line.startswith("! convert    amass/train") for line in ran.shown.splitlines())
    again = build(project, "Convert", dataset="amass", split="train")
    line = " ".join(next(line for line in again.shown.splitlines() if "amass/train" in line).split())
    noun = "video" if len(motions) == 1 else "videos"
    assert line == f"! convert amass/train up to date ({len(motions)} {noun} set aside: status --all)"


def test_with_strict_what_was_set_aside_before_fails_its_task(project, build) -> None:
    motions = sorted((project.folder / "raw/amass").rglob("*_poses.npz"))
    motions[0].write_bytes(b"broken")
    project.configure({"embedded": {"enabled": "false"}})
    assert build(project, "Convert", dataset="amass", split="train").code == 0
    project.configure({"convert": {"strict": "true"}})
    ran = build(project, "Convert", dataset="amass", split="train")
    message = only_failure(ran, 1)
    assert str(motions[0]) in message
    assert "retry amass/train --failed" in message


def test_a_broken_package_fails_its_own_dataset_and_the_others_go_on(project, tmp_path) -> None:
    site = tmp_path / "site"
    (site / "dances-1.dist-info").mkdir(parents=True)
    (site / "dances-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: dances\nVersion: 1\n")
    entry = "[vibe_pipeline.datasets]\ndances = dances_reader:Dances\n"
    (site / "dances-1.dist-info/entry_points.txt").write_text(entry)
    (site / "dances_reader.py").write_text("def videos(:\n")
    shutil.rmtree(project.folder / "cache/amass")
    project.configure({"data": {"datasets": "dances 3dpw amass"}, "dances": {"fps": "25"}})
    ran = project.luigi("Data", packages=(site,))
    message = only_failure(ran, FAILED)
    assert message.startswith("✗ convert    dances/*")
    assert "dataset 'dances' of package dances cannot be loaded: SyntaxError" in message
    assert ran.done == ["convert amass/train"]


def test_a_conversion_that_keeps_nothing_says_why_on_the_line_below(project, build) -> None:
    motions = sorted((project.folder / "raw/amass").rglob("*_poses.npz"))
    for motion in motions:
        motion.write_bytes(b"broken")
    project.configure({"embedded": {"enabled": "false"}})
    ran = build(project, "Convert", dataset="amass", split="train")
    lines = ran.shown.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("! convert"))
    said = f"  ! amass/train has no rows: of {len(motions)} videos something is wrong with all. The first, "
    assert lines[at + 1].startswith(said)


def test_real_data_beside_stand_ins_are_told_but_not_those_that_the_same_run_makes_anew(project, build) -> None:
    (project.folder / "raw/amass/STAND_IN.json").unlink()
    project.configure({"embedded": {"enabled": "false"}, "data": {"datasets": "amass"}})
    ran = build(project, "Convert", dataset="amass", split="train")
    assert "! cache: will hold both kinds, amass/train from real data and 3dpw/test, " in ran.shown.replace(
        str(project.folder) + "/", ""
    )
    shutil.copy(project.folder / "raw/3dpw/STAND_IN.json", project.folder / "raw/amass")
    project.configure({"data": {"datasets": "amass 3dpw"}})
    ran = build(project, "Convert", dataset="amass", split="train")
    assert "will hold both kinds" not in ran.shown, "all are stand-ins again"


def test_an_error_that_is_no_users_mistake_keeps_its_traceback(project, build, monkeypatch) -> None:
    def broken(*args, **kwargs):
        raise ZeroDivisionError("a bug")

    shutil.rmtree(project.folder / "cache/amass")
    monkeypatch.setattr("pipeline.conversion.convert.convert", broken)
    ran = build(project, "Data")
    assert ran.code == 1
    assert "Traceback" in ran.shown
    assert "ZeroDivisionError: a bug" in ran.shown


def test_a_full_disk_is_told_in_one_line(project, build, monkeypatch) -> None:
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "cache/amass")

    shutil.rmtree(project.folder / "cache/amass")
    monkeypatch.setattr("pipeline.conversion.convert.convert", full)
    ran = build(project, "Data")
    message = only_failure(ran, 1)
    do = "Make room, then run the same command again."
    words = " ".join(message.split())
    assert words == f"✗ convert amass/train cache/amass: no space is left on its disk. {do}"


def test_luigis_own_log_level_brings_the_traceback_back(bare) -> None:
    bare.configure({"convert": {"wrokers": "2"}, "core": {"log_level": "INFO"}})
    ran = bare.luigi("Data")
    assert "Traceback" in ran.shown
    assert len(ran.failures) == 1


def test_the_same_command_in_two_projects_is_not_taken_for_one(tmp_path) -> None:
    one, other = (lock_folder(tmp_path / name / "luigi.cfg") for name in ("one", "other"))
    assert one != other
    assert one == lock_folder(tmp_path / "other" / ".." / "one" / "luigi.cfg")


def test_luigis_page_gets_the_errors_own_words() -> None:
    from pipeline.errors import ConfigError

    assert Data().on_failure(ConfigError("expected this, found that")) == "expected this, found that"


class Told:
    """What a running task hears from Luigi."""

    def __init__(self, reachable: bool = True) -> None:
        self.percent: list[int] = []
        self.words: list[str] = []
        self.reachable = reachable

    def set_progress_percentage(self, percent: int) -> None:
        if not self.reachable:
            self.words.append("asked")
            raise RPCError("refused")
        self.percent.append(percent)

    def set_status_message(self, words: str) -> None:
        self.words.append(words)


def test_luigis_page_is_told_the_first_and_the_last_step_but_not_each_of_a_thousand() -> None:
    page = Told()
    with terminal.working(page, "convert", "amass/train") as progress:
        for step in range(1000):
            progress(step + 1, 1000, "clip")
    assert page.percent[0] == 0
    assert page.percent[-1] == 100
    assert page.words[-1] == "1000 of 1000  clip"
    assert len(page.percent) < 100


def test_work_goes_on_when_luigis_scheduler_cannot_be_reached(capsys, monkeypatch) -> None:
    page = Told(reachable=False)
    with terminal.working(page, "train", "VIBE") as progress:
        for step in range(3):
            progress(step, 3, "")
    assert page.words == ["asked"]


@pytest.mark.parametrize(
    ("why", "shown"),
    [("not converted before", ""), ("not extracted before", ""), ("1 new video", "  [dim]why: 1 new video[/dim]")],
)
def test_a_reason_is_given_for_what_had_been_done_before(why: str, shown: str) -> None:
    assert terminal.because(why) == shown


def test_names_from_elsewhere_are_shown_as_they_are(capsys, monkeypatch) -> None:
    terminal.complain("clip [red]x[/red] of data[0] :smile: \x1b[2J")
    assert capsys.readouterr().err == "✗ clip [red]x[/red] of data[0] :smile: \\x1b[2J\n"
