"""A release is of a commit alone, with a date, and with all that has changed; what its files hold
and what its README says, is for whoever has no clone.
"""

import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

import release
from tests.environments import git

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
HOME = "https://example.org/vibe-pipeline"


def commit(clone):
    git(clone, "add", "--all")
    git(clone, "commit", "-qm", "A commit")


@pytest.fixture
def clone(tmp_path):
    """A small project with two changes and no CHANGELOG.md."""
    for name in ("README.md", "CITATION.cff", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "changes").mkdir()
    (tmp_path / "changes/show.py").write_text("")
    (tmp_path / "changes/b.fix").write_text("B is right.\n")
    (tmp_path / "changes/a.new").write_text("A is new.\n")
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


@pytest.fixture
def prepared(clone):
    release.prepare(clone, "2027-02-03")
    commit(clone)
    return clone


def test_a_prepared_clone_has_the_version_the_day_and_all_changes_and_may_be_released(prepared):
    assert (prepared / "CHANGELOG.md").read_text() == (
        f"# Changes\n\n## {VERSION} (2027-02-03)\n\n"
        "### New\n\n- A is new.\n\n### Fixed\n\n- B is right.\n"
    )
    assert [file.name for file in (prepared / "changes").iterdir()] == ["show.py"]
    citation = (prepared / "CITATION.cff").read_text()
    assert f"\nversion: {VERSION}\ndate-released: 2027-02-03\n" in citation
    assert f"year = {{2027}}, version = {{{VERSION}}}" in (prepared / "README.md").read_text()
    assert release.require_prepared(prepared) == f"v{VERSION}"


def test_what_changes_after_it_was_prepared_joins_the_same_version(prepared):
    (prepared / "changes/c.fix").write_text("C is right.\n")
    commit(prepared)
    release.prepare(prepared, "2027-02-04")
    commit(prepared)
    assert (prepared / "CHANGELOG.md").read_text() == (
        f"# Changes\n\n## {VERSION} (2027-02-04)\n\n### Fixed\n\n- C is right.\n\n"
        "### New\n\n- A is new.\n\n### Fixed\n\n- B is right.\n"
    )
    assert release.require_prepared(prepared) == f"v{VERSION}"


def test_the_next_release_stands_above_the_last_one(prepared):
    git(prepared, "tag", f"v{VERSION}")
    with pytest.raises(release.Refused, match=f"the tag v{VERSION} exists: raise"):
        release.require_prepared(prepared)
    config = prepared / "pyproject.toml"
    config.write_text(config.read_text().replace(f'version = "{VERSION}"', 'version = "9.1.0"'))
    (prepared / "changes/c.data").write_text("C is read again.\n")
    commit(prepared)
    with pytest.raises(release.Refused, match=r"changes/c\.data is not in CHANGELOG\.md"):
        release.require_prepared(prepared)
    release.prepare(prepared, "2027-03-04")
    commit(prepared)
    assert release.require_prepared(prepared) == "v9.1.0"
    headings = re.findall("(?m)^##? .*$", (prepared / "CHANGELOG.md").read_text())
    assert headings == ["# Changes", "## 9.1.0 (2027-03-04)", f"## {VERSION} (2027-02-03)"]
    assert "date-released: 2027-03-04\n" in (prepared / "CITATION.cff").read_text()


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("CHANGELOG.md", "- B is right.\n", "", r"lacks the line of changes/b\.fix: B is right"),
        ("CHANGELOG.md", VERSION, "0.0.9", rf"has no '## {VERSION} \(DAY\)'"),
        ("CITATION.cff", "2027-02-03", "2027-02-04", "CITATION.cff has another version or date"),
        ("README.md", "year = {2027}", "year = {2026}", "README.md has another version or date"),
    ],
)
def test_a_clone_that_says_something_else_is_refused(prepared, name, old, new, told):
    edit(prepared / name, old, new)
    with pytest.raises(release.Refused, match=f"commit these files(.|\n)*{name}"):
        release.require_prepared(prepared)
    commit(prepared)
    with pytest.raises(release.Refused, match=told):
        release.require_prepared(prepared)


def test_a_users_data_in_the_clone_are_refused_where_git_has_them_and_else_stay_out(
    prepared, tmp_path_factory
):
    (prepared / "cache-real").mkdir()
    (prepared / "cache-real/videos.npz").write_text("secret")
    assert release.require_prepared(prepared) == f"v{VERSION}"
    release.sources(prepared, folder := tmp_path_factory.mktemp("sources"), "v1", HOME)
    assert not (folder / "cache-real").exists()
    git(prepared, "add", "--force", "cache-real/videos.npz")
    git(prepared, "commit", "-qm", "A mistake")
    with pytest.raises(
        release.Refused, match=r"\.gitignore keeps out(.|\n)*cache-real/videos\.npz"
    ):
        release.require_prepared(prepared)


@pytest.mark.parametrize("home", [HOME, ""])
def test_the_readme_of_the_files_is_for_whoever_has_no_clone(home):
    text = release.readme_of_files((ROOT / "README.md").read_text(), "v9", home)
    first_screen = "\n".join(text.splitlines()[:15])
    assert "pip install 'vibe-pipeline[clips]'" in first_screen
    assert "vibe-pipeline try" in first_screen and "non-commercial" in first_screen
    for of_a_clone in (".venv", "make try", "make report", "git clone", "player.webp"):
        assert of_a_clone not in text, of_a_clone
    targets = re.findall(r"\]\(([^)#]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    assert all(target.startswith("https://") for target in targets)
    own = [target for target in targets if target.startswith(HOME)]
    assert bool(own) == bool(home)
    for target in own:
        kind, tag, path = target.removeprefix(f"{HOME}/").split("/", 2)
        assert kind in ("blob", "raw") and tag == "v9" and (ROOT / path).is_file(), target


def test_a_wheel_that_differs_from_git_is_refused(clone, tmp_path):
    """With a file too many, one too few, and tests in the sdist: each is named."""
    (clone / "cache").mkdir()
    (clone / "cache/one.py").write_text("")
    commit(clone)
    wheel, sdist = tmp_path / "a.whl", tmp_path / "a.tar.gz"

    def require(*names, tests=()):
        with zipfile.ZipFile(wheel, "w") as file:
            for name in (*names, "a.dist-info/RECORD"):
                file.writestr(name, "")
        shutil.rmtree(tmp_path / "sdist", ignore_errors=True)
        for name in ("cache/one.py", *tests):
            (tmp_path / "sdist/a-1" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "sdist/a-1" / name).touch()
        subprocess.run(["tar", "czf", sdist, "-C", tmp_path / "sdist", "a-1"], check=True)
        release.require_files(clone, wheel, sdist)

    require("cache/one.py")
    with pytest.raises(release.Refused, match=r"differ in cache/two\.py"):
        require("cache/one.py", "cache/two.py")
    with pytest.raises(release.Refused, match=r"differ in cache/one\.py"):
        require()
    with pytest.raises(release.Refused, match=r"tests/test_a\.py"):
        require("cache/one.py", tests=["tests/test_a.py"])


def test_constraints_name_the_python_where_versions_differ():
    text = release.constraints(
        [
            ("3.13", {"numpy": "2.5.5", "rich": "15.0", "new": "1.0"}),
            ("3.11", {"numpy": "2.4.6", "rich": "15.0", "old": "2.0"}),
        ]
    )
    assert text.splitlines()[1:] == [
        'new==1.0; python_version > "3.11"',
        'numpy==2.4.6; python_version <= "3.11"',
        'numpy==2.5.5; python_version > "3.11"',
        'old==2.0; python_version <= "3.11"',
        "rich==15.0",
    ]
