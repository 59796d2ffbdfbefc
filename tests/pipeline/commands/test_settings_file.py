"""luigi.cfg as text: which line says what, and every way in which it can be no such file."""

from configparser import ConfigParser

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.settings import sections
from pipeline.settings.file import SettingsFile

UNHURRIED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def of(tmp_path, text):
    (tmp_path / "luigi.cfg").write_text(text)
    return SettingsFile.read(tmp_path / "luigi.cfg")


@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=UNHURRIED)
@given(
    st.dictionaries(
        st.sampled_from(["paths", "train", "core", "a b"]),
        st.dictionaries(
            st.sampled_from(["raw", "Raw", "epochs", "b-c"]),
            st.text("ab %;=:[]$/", max_size=6).map(str.strip),
            max_size=3,
        ),
    ),
    st.lists(st.sampled_from(["", "# [paths]", "; raw = 1"]), max_size=3),
)
def test_it_reads_what_luigi_does_and_counts_the_lines_between(tmp_path, sections, between):
    lines = []
    at = {}
    for section, keys in sections.items():
        lines += [*between, f"[{section}]"]
        for key, text in keys.items():
            lines += [*between, f"{key} = {text}"]
            at[section, key] = len(lines)
    found = of(tmp_path, "\n".join(lines))
    luigi = ConfigParser(interpolation=None)
    luigi.optionxform = str  # type: ignore[assignment, method-assign]
    luigi.read(found.path)
    assert {name: dict(luigi[name]) for name in luigi.sections()} == found.sections
    assert {
        (name, key): keys.line(key) for name, keys in found.sections.items() for key in keys
    } == at


def test_a_value_of_several_lines_stands_where_its_key_does(tmp_path):
    found = of(tmp_path, "[data]\ndatasets = amass\n  3dpw\nother: 1\n").section("data")
    assert found == {"datasets": "amass\n3dpw", "other": "1"}
    assert [found.line(key) for key in ("", "datasets", "other", "absent")] == [1, 2, 4, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[b]\nx = 0\n[a]\nx = 1\n\nx = 2\n",
            ", line 6: duplicate line, delete one; found 'x = 2'",
        ),
        ("[a]\n[b]\n[a]\n", ", line 3: duplicate line, delete one; found '[a]'"),
        ("x = 1\n", ", line 1: expected key = value, below a [section]; found 'x = 1'"),
        ("[a]\nworkers\n", ", line 2: expected key = value, below a [section]; found 'workers'"),
        ("[a]\nx = 1\n[b\n", ", line 3: expected key = value, below a [section]; found '[b'"),
        ("[a]\n= 1\n", ", line 2: expected key = value, below a [section]; found '= 1'"),
        ("[a]\n# Fuß\nx = \xff\n", ", line 2: expected text in UTF-8, found the byte 0xdf"),
    ],
)
def test_what_is_no_settings_file_is_told_with_its_line(tmp_path, text, message):
    (tmp_path / "luigi.cfg").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as told:
        SettingsFile.read(tmp_path / "luigi.cfg")
    assert str(told.value) == f"{tmp_path / 'luigi.cfg'}{message}"


@hypothesis.settings(max_examples=200, deadline=None, suppress_health_check=UNHURRIED)
@given(st.text("[]ax=:\n #;\t\r\x0b\x85%é", max_size=30).map(str.encode) | st.binary(max_size=20))
def test_whatever_the_file_holds_the_error_is_of_one_line(tmp_path, data):
    (tmp_path / "luigi.cfg").write_bytes(data)
    try:
        SettingsFile.read(tmp_path / "luigi.cfg")
    except ConfigError as error:
        assert "luigi.cfg, line " in str(error)
        assert len(str(error).splitlines()) == 1


def test_an_error_is_put_beside_the_first_of_its_options_that_is_set(tmp_path):
    section = of(tmp_path, "[vibe]\nseed = 1\nbatch_size = 8\nprocesses = 9\n").section("vibe")
    file = f"{tmp_path}/luigi.cfg"
    for options, place in (
        (("prior", "processes", "batch_size"), f"{file}, line 4 [vibe]"),
        (("prior",), f"{file}, line 1 [vibe]"),
        ((), f"{file}, line 1 [vibe]"),
    ):
        assert str(section.locate(ConfigError("expected 8", *options))) == f"{place} expected 8"


def test_an_option_of_a_command_sets_a_key_and_an_error_names_the_option(tmp_path):
    source = of(tmp_path, "[rtmpose]\nevery = 3\n")
    named = source.override("rtmpose", "every", "2", "--every")
    assert sections.detector_of(named, "rtmpose").every == 2
    assert sections.detector_of(source, "rtmpose").every == 3
    assert named.where("rtmpose", "every") == "--every"
    with pytest.raises(ConfigError, match=r"^--every = often: "):
        sections.detector_of(source.override("rtmpose", "every", "often", "--every"), "rtmpose")


@pytest.mark.parametrize(("key", "other"), [("device", "devices"), ("devices", "device")])
def test_an_option_of_one_device_is_in_place_of_the_file_s_devices(tmp_path, key, other):
    values = {"device": "cpu", "devices": "0,1"}
    source = of(tmp_path, f"[features]\n{other} = {values[other]}\n")
    named = source.override("features", key, values[key])
    assert dict(named.section("features")) == {key: values[key]}
    both = named.override("features", other, values[other])  # it is an error to name both
    assert dict(both.section("features")) == values
