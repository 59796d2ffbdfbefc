"""What is installed is whole: the wheel, the commands that come with it in any folder, the extras,
the image.
"""

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from pipeline import datasets
from pipeline.__main__ import main
from tasks import settings
from tests.environments import PIP, fresh_python, run_apart
from vibe_model.models import find
from vibe_model.sections import ModelSections

ROOT = Path(__file__).parents[1]
PACKAGES = ("cache", "pipeline", "tasks", "vibe_model")
SHOW = f"import {', '.join(PACKAGES)}; print(*(m.__file__ for m in ({', '.join(PACKAGES)})))"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def ran(words, folder, code=0):
    """What a command printed that knows nothing of this checkout."""
    done = run_apart(words, folder)
    assert done.returncode == code, done.stdout
    return done.stdout


# What a clone may hold beside the four packages: a user's data, and what an earlier build left.
NOT_OURS = (
    *("cache-real/videos.npz", "cache-real/tables/__init__.py", "cache_mine/__init__.py"),
    *("pipeline_runs/secrets.py", "tasks/removed_later/notes.npz", "vibe_model_old/__init__.py"),
    *("build/lib/pipeline/of_an_earlier_build.py", "build/lib/tests/__init__.py"),
)


def committed_files():
    """The files of the four packages that git has, or will have with the next commit."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PACKAGES]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("this is no clone: git lists no files")
    return {name for name in listed.splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A clone with a user's data: building writes beside it."""
    folder = tmp_path_factory.mktemp("source")
    for name in (*committed_files(), "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in NOT_OURS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("secret = 1")
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    into = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    ran([*PIP, *build, "--wheel-dir", into, source], into)
    (made,) = into.glob("*.whl")
    return made


# --------------------------------------------------------------------------------------------------
# what is built


@pytest.mark.slow
def test_the_wheel_of_a_clone_with_a_users_data_holds_the_licence_and_the_committed_files_alone(
    source, wheel
):
    files = committed_files()
    pages = {"pipeline/show/templates/split.html", "tasks/report/templates/report.html"}
    assert {"pipeline/py.typed", "pipeline/commands/templates/luigi.cfg", *pages} <= files
    inside = zipfile.ZipFile(wheel)
    assert {name for name in inside.namelist() if ".dist-info/" not in name} == files
    (name,) = [name for name in inside.namelist() if name.endswith("/LICENSE")]
    assert inside.read(name) == (ROOT / "LICENSE").read_bytes()
    assert {name for name in NOT_OURS if not (source / name).exists()} == set()


# --------------------------------------------------------------------------------------------------
# init


def values(text):
    cfg = configparser.ConfigParser(interpolation=None)
    cfg.read_string(text)
    return {
        (section, key): text for section in cfg.sections() for key, text in cfg[section].items()
    }


def test_init_writes_the_luigi_cfg_of_the_repository(tmp_path):
    assert main(["init", str(tmp_path / "work")]) == 0
    written = (tmp_path / "work" / "luigi.cfg").read_text()
    # People change the luigi.cfg of their clone.
    show = ["git", "-C", ROOT, "show", "HEAD:luigi.cfg"]
    committed = subprocess.run(show, capture_output=True, text=True, check=False)
    expected = {(ROOT / "luigi.cfg").read_text(), committed.stdout}
    assert written in expected, "it is what `init` writes, from its template and the table"
    settings.load(tmp_path / "work" / "luigi.cfg")


def test_init_for_real_data_changes_what_says_so_and_takes_folders_from_where_it_is_called(
    tmp_path, monkeypatch, capsys
):
    assert main(["init", str(tmp_path), "--real"]) == 0
    before = values((ROOT / "luigi.cfg").read_text())
    after = values((tmp_path / "luigi.cfg").read_text())
    of_demo = {("embedded", "seed"), ("embedded", "size")}
    assert before.keys() - after.keys() == of_demo
    models = ("vibe", "hmmr", "part_dynamics")
    start = {(model, "pretrained"): "data/model_checkpoint.pt" for model in models}
    assert {key: after[key] for key in after.keys() - before.keys()} == start
    changed = {
        key: after.get(key) for key in before.keys() - of_demo if before[key] != after.get(key)
    }
    assert changed == {
        ("paths", "raw"): "data/raw",
        ("paths", "body"): "data/body",
        ("paths", "cache"): "data/cache",
        ("paths", "runs"): "runs",
        ("paths", "new_cache"): "once",
        ("data", "datasets"): " ".join(datasets.RELEASES),  # all, as no folder is there yet
        ("embedded", "enabled"): "false",
        ("resnet50", "weights"): "spin:data/model_checkpoint.pt",
    }
    assert settings.load(tmp_path / "luigi.cfg").embedded.enabled is False
    assert "demo data" not in (tmp_path / "luigi.cfg").read_text().partition("[paths]")[0]
    monkeypatch.chdir(tmp_path)
    for name in ("amass", "3dpw", "unzipped"):
        (tmp_path / "downloads" / name).mkdir(parents=True)
    (tmp_path / "net.pt").touch()
    words = ["--raw", "work/../downloads", "--body", "/smpl", "--weights", "spin:net.pt"]
    assert main(["init", "work", "--real", *words]) == 1
    missing = capsys.readouterr().err.splitlines()
    assert missing == ["error: --body /smpl: there is no such file or folder"]
    loaded = settings.load(tmp_path / "work" / "luigi.cfg")
    assert (loaded.paths.raw, loaded.paths.body) == (tmp_path / "downloads", Path("/smpl"))
    assert loaded.data.datasets == ("3dpw", "amass"), "those whose folder it finds"
    assert str(loaded.stream.stream.weights) == f"spin:{tmp_path / 'net.pt'}"
    for model in models:
        assert ModelSections(loaded).model(find(model)).pretrained == tmp_path / "net.pt"


def test_init_replaces_nothing_and_takes_no_folder_of_real_data_for_demo_data(tmp_path, capsys):
    assert main(["init", str(tmp_path), "--raw", "downloads"]) == 2
    assert "add --real" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "luigi.cfg").exists()
    (tmp_path / "luigi.cfg").write_text("mine")
    assert main(["init", str(tmp_path), "--real"]) == 2
    assert "luigi.cfg exists. Name another folder" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "luigi.cfg").read_text() == "mine"


# ------------------------------------------------------------------------------------------- away
# from the checkout


def environment(home, *install):
    """The folder of commands of a fresh environment with one installation."""
    pip = [*PIP, "--python", fresh_python(home), "install", "--quiet"]
    ran([*pip, "--no-deps", "--no-index", *install], home)
    return home / "bin"


@pytest.mark.slow
def test_an_editable_installation_comes_before_a_folder_of_a_packages_name(source, tmp_path):
    for name in PACKAGES:
        (tmp_path / "work" / name).mkdir(parents=True)
    tools = environment(tmp_path, "--no-build-isolation", "--editable", source)
    files = [Path(file) for file in ran([tools / "python", "-c", SHOW], tmp_path / "work").split()]
    assert files == [source / name / "__init__.py" for name in PACKAGES]


# Three steps on Penn Action's 2D joints alone.
TRAINING = """
[vibe]
datasets_2d = penn_action/train
datasets_3d =
validation = penn_action/test
evaluation = penn_action/test
epochs = 1
iterations = 3
[hmmr]
report = no
[part_dynamics]
report = no
"""


@pytest.mark.promise("problems of All datasets")
@pytest.mark.slow
def test_with_the_wheel_alone_one_trains_and_reports_and_adds_a_dataset_and_streams(
    wheel, tmp_path
):
    examples = [tmp_path / kind for kind in ("dataset", "stream")]
    for folder in examples:
        shutil.copytree(ROOT / "docs" / f"adding-a-{folder.name}", folder)
    tools = environment(tmp_path / "environment", "--no-build-isolation", wheel, *examples)
    work = tmp_path / "work"
    work.mkdir()
    found = ran([tools / "python", "-c", SHOW], work).split()
    assert all(Path(file).is_relative_to(tools.parent) for file in found) and found
    for name in PROJECT["scripts"]:
        assert "usage:" in ran([tools / name, "--help"], work)
    assert "file not found" in " ".join(ran([tools / "vibe-pipeline", "doctor"], work, 2).split())
    assert "2 datasets" in makes_data(tools, work)
    with (work / "luigi.cfg").open("a") as cfg:
        cfg.write(TRAINING)
    luigi = [tools / "python", "-m", "luigi", "--module", "tasks"]
    ran([*luigi, "TrainVIBE"], work)
    (metrics,) = work.glob("demo/runs/*/metrics.json")
    assert json.loads(metrics.read_text())["stand_in"] is True
    ran([*luigi, "Report"], work)
    (page,) = work.glob("demo/**/report*.html")
    assert "DEMO DATA" in page.read_text().upper()
    program = [tools / "python", "-m", "pipeline"]
    ran([tools / "python", "-m", "lab_recordings_example", work / "recordings"], work)
    split = ("lab_recordings/train", "--cache", work / "own")
    ran([*program, "convert", *split, "--raw", work / "recordings"], work)
    shown = ran([*program, "extract", *split, "--stream", "sharpness"], work)
    assert "sharpness extracted" in shown


def makes_data(tools, folder):
    """What `Data` of two small datasets prints, in a new working folder."""
    ran([tools / "vibe-pipeline", "init"], folder)
    cfg = folder / "luigi.cfg"
    text = cfg.read_text()
    for key, value in (
        ("size", "tiny"),
        ("datasets", "penn_action amass"),
        ("workers", "1"),
    ):
        text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
    cfg.write_text(text)
    words = [tools / "python", "-m", "luigi", "--module", "tasks", "Data", "--local-scheduler"]
    return ran(words, folder)


# --------------------------------------------------------------------------------------------------
# the lowest and the newest versions

PLACE = ROOT / ".venv-versions"  # 6 GB, which a temporary folder in memory has no room for
# `try`'s steps, all readers, all of the cache, clips of all kinds
CHECKED = (
    *("cache", "pipeline/datasets/test_all_readers.py", "pipeline/extras/bodies/test_try.py"),
    *("pipeline/files/test_videos_of_all_kinds.py", "pipeline/files/test_pixels_of_opencv.py"),
    "pipeline/features/test_clips_in_the_cache.py",
)


def interpreter(version):
    """A Python of this version, on the PATH or of pyenv."""
    installed = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    found = [*filter(None, [shutil.which(f"python{version}")]), *map(str, installed)]
    if not found:
        pytest.skip(f"no Python {version} is installed")
    return found[-1]


@pytest.fixture
def environment_with(wheel, tmp_path):
    """Make an environment by uv, with the lowest or newest allowed versions, and print these."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")

    def install(version, resolution):
        ran([uv, "venv", "--quiet", "--seed", "--python", interpreter(version), PLACE], tmp_path)
        pip = [uv, "pip", "install", "--quiet", "--python", PLACE / "bin/python"]
        binary = ["--only-binary", ":all:", "--no-binary", "luigi"]
        needed = ["-r", ROOT / "pyproject.toml", "--extra", "clips", "--extra", "contracts"]
        done = run_apart([*pip, "--resolution", resolution, *binary, *needed], tmp_path)
        if done.returncode == 2:  # 1: there are no such versions
            pytest.skip(f"uv cannot install from an index: {done.stdout[-300:]}")
        assert done.returncode == 0, done.stdout
        ran([*pip, "--no-deps", wheel], tmp_path)
        ran([*pip, "hypothesis"], tmp_path)
        sys.stdout.write(ran([uv, "pip", "freeze", "--python", PLACE / "bin/python"], tmp_path))
        return PLACE / "bin"

    shutil.rmtree(PLACE, ignore_errors=True)
    yield install
    shutil.rmtree(PLACE, ignore_errors=True)


@pytest.mark.bounds
@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_the_lowest_and_the_newest_versions_pass_the_tests_of_readers_the_cache_and_try(
    environment_with, version, resolution, tmp_path
):
    tools = environment_with(version, resolution)
    shown = makes_data(tools, tmp_path)
    assert "2 datasets" in shown
    tests = [ROOT / "tests" / name for name in CHECKED]
    # Other versions have other warnings.
    options = ["-q", "-p", "no:cacheprovider", "-o", "filterwarnings=", "--rootdir", ROOT]
    ran([tools / "python", "-m", "pytest", *options, *tests], ROOT)


# --------------------------------------------------------------------------------------------------
# the image


def instructions():
    """(instruction, the rest) of the Dockerfile."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_image_is_built_from_files_that_are_there_with_a_supported_python_and_not_as_root():
    let_in = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        name.removeprefix("./")
        for word, rest in instructions()
        if word == "COPY"
        for name in rest.split()[:-1]
    }
    assert (
        {
            *PACKAGES,
            "constraints.txt",
            "pyproject.toml",
            "setup.py",
            PROJECT["readme"],
            *PROJECT["license-files"],
        }
        == copied
        == let_in
    )
    assert all((ROOT / name).exists() for name in copied)
    versions = [
        text.split(" :: ")[-1] for text in PROJECT["classifiers"] if " :: Python :: 3." in text
    ]
    assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in versions)
    tried = re.findall(
        r"^\| (3\.\d+)\.\d+ \|", (ROOT / "docs" / "installing.md").read_text(), re.MULTILINE
    )
    assert list(dict.fromkeys(tried)) == versions
    arguments = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")
    assert f"Programming Language :: Python :: {arguments['PYTHON']}" in PROJECT["classifiers"]
    assert {*arguments["EXTRAS"].strip('"').split(",")} <= PROJECT["optional-dependencies"].keys()
    last = dict(instructions())  # of each instruction, the last one
    assert ast.literal_eval(last["ENTRYPOINT"])[0] in PROJECT["scripts"]
    with pytest.raises(SystemExit) as ended:
        main(ast.literal_eval(last["CMD"]))
    assert ended.value.code == 0
    assert last["USER"] not in ("root", "0")
    assert not re.search(r"https?://|[\w-]+\.(com|org|io|net)\b", (ROOT / "Dockerfile").read_text())
