"""Make a release: an sdist, a wheel, and a tag. Nothing is uploaded.

    .venv/bin/python release.py --prepare        # writes version and date, to be committed
    .venv/bin/python release.py --home URL       # two files in dist/, and a tag in this clone
    .venv/bin/python release.py --constraints FOLDER...    # of environments that passed the tests

The version is that of pyproject.toml. `--prepare` writes it into CITATION.cff, README.md and
CHANGELOG.md, which takes the lines of `changes/`; their files go. Without it, no file of git is
changed. The two files are made of the commit alone. The wheel is installed in a new environment,
where a clip is tried, demo data are converted, and the caches of all releases are opened.
`--constraints` writes constraints.txt: the versions that are installed there.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parent
PACKAGES: Final = ("cache", "pipeline", "tasks", "vibe_model")
KINDS: Final = {".new": "New", ".fix": "Fixed", ".data": "Computed again"}
# README.md of the clone -> README.md of the two files; each text is there once.
FOR_INSTALLED: Final = (
    (
        "    git clone <URL of this repository> vibe-pipeline && cd vibe-pipeline\n    make try   ",
        "    pip install 'vibe-pipeline[clips]'    # smplx, which comes with it, is for "
        "non-commercial research only\n    vibe-pipeline try   ",
    ),
    (
        "The first `make` installs\neverything into `.venv`: 6.7 GB in 1 to 8 minutes, most of it "
        "CUDA's libraries. If uv is installed and there is no NVIDIA\ndriver, it is 1.7 GB in a "
        "minute. [Installing](docs/installing.md) has other ways, such as\n"
        "`pip install ./FILE.whl`.",
        "Most of what pip\ninstalls is CUDA's libraries. [Installing](docs/installing.md) has "
        "other ways.",
    ),
    ("    make report    #", "    vibe-pipeline init && luigi --module tasks Report    #"),
    ("Three seconds of the player on the page that `make try` writes", "A page as `try` writes it"),
    ("`make report` or `make data` writes", "`luigi --module tasks Data` writes"),
)
COMMANDS: Final = (
    (".venv/bin/python -m pipeline", "vibe-pipeline"),
    (".venv/bin/python -m tasks", "vibe-tasks"),
    ("../.venv/bin/", ""),
    (".venv/bin/", ""),
)
STILL: Final = "docs/pictures/detecting.jpg"
WITHOUT: Final = {"torch", "torchvision", "vibe-pipeline"}  # of constraints.txt: builds differ


class Refused(Exception):
    """What is to be done before a release."""


def run(*words: str | Path, folder: Path = ROOT) -> str:
    """What a command prints.

    Raises:
        Refused: it fails; with its output.
    """
    done = subprocess.run([*map(str, words)], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Refused(
            f"{' '.join(map(str, words))}: exit code {done.returncode}\n"
            f"{(done.stdout + done.stderr)[-3000:]}"
        )
    return done.stdout


def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


# --------------------------------------------------------------------------------------------------
# version and date


def dated(root: Path, day: str) -> dict[str, str]:
    """The texts of CITATION.cff and README.md with the version and the day, by file."""
    version = project(root)["project"]["version"]
    citation = re.sub(r"(?m)^date-released: .*\n", "", (root / "CITATION.cff").read_text())
    citation = re.sub(
        r"(?m)^version: .*\n", f"version: {version}\ndate-released: {day}\n", citation
    )
    cited = f"year = {{{day[:4]}}}, version = {{{version}}}"
    readme = (root / "README.md").read_text()
    readme = re.sub(r"year = \{\d+\}, version = \{[^}]*\}", cited, readme)
    return {"CITATION.cff": citation, "README.md": readme}


def changelog_lines(changes: dict[str, str]) -> Iterator[str]:
    """changes: name of a file of `changes/` -> its line."""
    for suffix, kind in KINDS.items():
        of_kind = [text.strip() for name, text in sorted(changes.items()) if name.endswith(suffix)]
        if of_kind:
            yield from ("", f"### {kind}", "", *(f"- {text}" for text in of_kind))


def change_files(root: Path) -> list[Path]:
    return [file for file in sorted((root / "changes").iterdir()) if file.suffix in KINDS]


def prepare(root: Path, day: str) -> None:
    """Write the version and the day, and move the lines of `changes/` into CHANGELOG.md: below the
    version's heading, which may be there already with an earlier day.
    """
    for name, text in dated(root, day).items():
        (root / name).write_text(text)
    files = change_files(root)
    version = project(root)["project"]["version"]
    lines = [
        f"## {version} ({day})",
        *changelog_lines({file.name: file.read_text() for file in files}),
        "",
    ]
    changelog = root / "CHANGELOG.md"
    earlier = changelog.read_text().removeprefix("# Changes\n") if changelog.exists() else ""
    earlier = re.sub(rf"\n## {re.escape(version)} \(.*\)\n", "", earlier)
    changelog.write_text("# Changes\n\n" + "\n".join(lines) + earlier)
    for file in files:
        file.unlink()


def require_prepared(root: Path) -> str:
    """The tag of a clone that can be released.

    Raises:
        Refused: it has files that no commit has, or that .gitignore keeps out; the tag exists; or
            `--prepare` would write something else.
    """
    if uncommitted := run("git", "status", "--porcelain", folder=root):
        raise Refused(f"commit these files, or move them away:\n{uncommitted}")
    if kept_out := run("git", "ls-files", "-ci", "--exclude-standard", folder=root):
        raise Refused(f"git has files that .gitignore keeps out: git rm --cached\n{kept_out}")
    version = project(root)["project"]["version"]
    if run("git", "tag", "--list", f"v{version}", folder=root):
        raise Refused(f"the tag v{version} exists: raise `version` in pyproject.toml")
    if files := change_files(root):
        raise Refused(f"changes/{files[0].name} is not in CHANGELOG.md: --prepare moves it there")
    changelog = (root / "CHANGELOG.md").read_text()
    heading = re.search(rf"(?m)^## {re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)$", changelog)
    if not heading:
        raise Refused(f"CHANGELOG.md has no '## {version} (DAY)': --prepare writes it")
    for name, text in dated(root, heading[1]).items():
        if (root / name).read_text() != text:
            raise Refused(f"{name} has another version or date: --prepare writes them")
    # The commit after which the files of changes/ were gone: its parent has what they said.
    words = ["log", "-1", "--diff-filter=D", "--format=%H", "--", "changes"]
    commit = run("git", *words, folder=root).strip()
    names = run("git", "ls-tree", "--name-only", f"{commit}^:changes", folder=root).split("\n")
    for name in names:
        if Path(name).suffix in KINDS:
            line = run("git", "show", f"{commit}^:changes/{name}", folder=root).strip()
            if f"- {line}\n" not in changelog:
                raise Refused(f"CHANGELOG.md lacks the line of changes/{name}: {line}")
    return f"v{version}"


# --------------------------------------------------------------------------------------------------
# the two files


def readme_of_files(text: str, tag: str, home: str) -> str:
    """README.md for whoever has no clone; its links lead to the tag at `home`, or are plain text.

    Raises:
        Refused: README.md has a text no more, or twice, that this would replace.
    """
    for old, new in FOR_INSTALLED:
        if text.count(old) != 1:
            raise Refused(
                f"README.md has {text.count(old)} times what release.py replaces: {old!r}"
            )
        text = text.replace(old, new)
    for old, new in COMMANDS:
        text = text.replace(old, new)
    seen = "Two people walk, with bounding boxes and joints."
    picture = f'<img src="{home}/raw/{tag}/{STILL}" width="640" alt="{seen}">'
    text = re.sub(r"(?s)<picture>.*?</picture>", lambda _: picture if home else "", text)
    text = re.sub(r'<a href="([^"]+)">(.*?)</a>', r"[\2](\1)", text)

    def link(match: re.Match[str]) -> str:
        words, target = match.groups()
        if re.match(r"https?://|#", target):
            return match[0]
        return f"[{words}]({home}/blob/{tag}/{target})" if home else words

    return re.sub(r"\[([^]]*)\]\(([^)]+)\)", link, text)


def unpack_commit(root: Path, folder: Path, *paths: str) -> None:
    """Write the files of HEAD into a folder: all, or those of some paths."""
    archive = subprocess.check_output(["git", "archive", "HEAD", *paths], cwd=root)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def sources(root: Path, folder: Path, tag: str, home: str) -> None:
    """Write the files of the commit into an empty folder, with the README of installed packages."""
    unpack_commit(root, folder)
    readme = folder / "README.md"
    readme.write_text(readme_of_files(readme.read_text(), tag, home))
    if home:
        config = folder / "pyproject.toml"
        urls = (
            f'[project.urls]\nHomepage = "{home}"\nChangelog = "{home}/blob/{tag}/CHANGELOG.md"\n\n'
        )
        config.write_text(
            config.read_text().replace("[project.scripts]", f"{urls}[project.scripts]")
        )


def require_files(root: Path, wheel: Path, sdist: Path) -> None:
    """Raises Refused if the wheel has other files than git's four packages, or the sdist tests."""
    committed = {*run("git", "ls-files", "--", *PACKAGES, folder=root).split("\n")} - {""}
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if differing := inside ^ committed:
        raise Refused(f"the wheel and git differ in {', '.join(sorted(differing)[:5])}")
    with tarfile.open(sdist) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    if foreign := [name for name in names if name.startswith("tests/")]:
        raise Refused(f"the sdist has some of the tests: {foreign[0]}")


def build(root: Path, tag: str, home: str, into: Path) -> tuple[Path, Path]:
    """Write the sdist, and the wheel that is made of it, into a folder. Returns (wheel, sdist)."""
    with TemporaryDirectory() as folder:
        sources(root, Path(folder), tag, home)
        run(sys.executable, "-m", "build", "--outdir", into, folder)
    (wheel,) = into.glob(f"*-{tag[1:]}-*.whl")
    (sdist,) = into.glob(f"*-{tag[1:]}.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    require_files(root, wheel, sdist)
    return wheel, sdist


# --------------------------------------------------------------------------------------------------
# as a user has them


def use(root: Path, wheel: Path, folder: Path) -> None:
    """Install the wheel, and do in an empty folder what a user does first."""
    tools = folder / "environment"
    work = folder / "work"
    venv.create(tools, with_pip=True)
    pip = (tools / "bin/pip", "install", "--quiet", "--disable-pip-version-check")
    print("installing the wheel in a new environment: minutes")
    of_tests = "hypothesis"  # what tests/conftest.py imports
    run(*pip, "--constraint", root / "constraints.txt", f"{wheel}[clips,contracts]", of_tests)
    print("try: people, joints and bodies in a real clip")
    run(tools / "bin/vibe-pipeline", "try", "--out", folder / "try", folder=folder)
    print("Data of one split of demo data")
    run(tools / "bin/vibe-pipeline", "init", work, folder=folder)
    config = work / "luigi.cfg"
    text = re.sub(r"(?m)^size = .*$", "size = tiny", config.read_text())
    config.write_text(re.sub(r"(?m)^datasets = .*$", "datasets = penn_action", text))
    run(tools / "bin/luigi", "--module", "tasks", "Data", "--local-scheduler", folder=work)
    print("the caches of all releases")
    unpack_commit(root, folder / "tests_alone", "tests", "pyproject.toml")
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/stored")
    run(tools / "bin/python", *words, folder=folder / "tests_alone")


def release(root: Path, home: str) -> None:
    tag = require_prepared(root)
    print(f"building {tag} of {run('git', 'rev-parse', '--short', 'HEAD', folder=root).strip()}")
    wheel, sdist = build(root, tag, home, root / "dist")
    with TemporaryDirectory() as folder:
        use(root, wheel, Path(folder))
    run("git", "tag", "--annotate", tag, "--message", f"vibe-pipeline {tag[1:]}", folder=root)
    print(f"{sdist}\n{wheel}\ntagged {tag}, in this clone alone")
    if not home:
        print("These files are not for an index: without --home, their README has no links.")
    print("Before you publish: reserve the name vibe-pipeline on the index; another may have it.")


# --------------------------------------------------------------------------------------------------
# constraints.txt


def installed_versions(environment: Path) -> tuple[str, dict[str, str]]:
    """The Python of an environment (as "3.13"), and the version of each package in it that the
    project needs without torch and torchvision.
    """
    report = json.loads(run(environment / "bin/python", "-m", "pip", "inspect"))
    packages = {
        canonicalize_name(one["metadata"]["name"]): one["metadata"] for one in report["installed"]
    }
    config = project(ROOT)
    parts = [
        config["project"]["dependencies"],
        *config["project"]["optional-dependencies"].values(),
        *config["dependency-groups"].values(),
    ]
    waiting = [Requirement(text) for part in parts for text in part]
    found: dict[str, str] = {}
    seen = set()
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        key = (name, *sorted(needed.extras))
        if name in WITHOUT or name not in packages or key in seen:
            continue
        seen.add(key)
        found[name] = Version(packages[name]["version"]).public
        for text in packages[name].get("requires_dist", ()):
            own = Requirement(text)
            of = [{**report["environment"], "extra": extra} for extra in ("", *needed.extras)]
            if own.marker is None or any(own.marker.evaluate(one) for one in of):
                waiting.append(own)
    return str(report["environment"]["python_version"]), found


def constraints(found: Sequence[tuple[str, dict[str, str]]]) -> str:
    """The lines of constraints.txt. found: (Python, versions by package), of any number of them.

    The versions of a Python also hold for those between it and the next older one that is here.
    """
    ordered = sorted(found, key=lambda one: Version(one[0]))
    lines = ["# What the tests passed with: CONTRIBUTING.md, A new constraints.txt."]
    for name in sorted({name for _, versions in ordered for name in versions}):
        held = [versions.get(name) for _, versions in ordered]
        if len({*held}) == 1:
            lines.append(f"{name}=={held[0]}")
            continue
        for place, version in enumerate(held):
            above = [f'python_version > "{ordered[place - 1][0]}"'] if place else []
            last = place == len(held) - 1
            below = [] if last else [f'python_version <= "{ordered[place][0]}"']
            if version:
                lines.append(f"{name}=={version}; {' and '.join(above + below)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make an sdist, a wheel and a tag. Uploads nothing."
    )
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--prepare", action="store_true", help="write version and date into files")
    ways.add_argument("--home", default="", metavar="URL", help="page of the repository, for links")
    ways.add_argument("--constraints", nargs="+", type=Path, metavar="ENVIRONMENT")
    given = parser.parse_args()
    try:
        if given.prepare:
            prepare(ROOT, date.today().isoformat())
            print("read what has changed (git diff), and commit it; then: release.py --home URL")
        elif given.constraints:
            text = constraints([installed_versions(place) for place in given.constraints])
            (ROOT / "constraints.txt").write_text(text)
        else:
            release(ROOT, given.home.rstrip("/"))
    except Refused as refused:
        sys.exit(f"error: {refused}")


if __name__ == "__main__":
    main()
