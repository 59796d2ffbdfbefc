"""The shape of the project: imports go from higher folders to lower ones, without circles.

`python tests/test_architecture.py` prints the code tokens of each folder, and which it imports.
"""

import ast
import functools
import re
import sys
import tomllib
from collections import Counter, defaultdict

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.features import streams
from tests.environments import run
from tests.source_code import ROOT, code_tokens, modules

# packages, and the folders and modules of each, from low to high: nothing imports what comes after
# it
ORDER = {
    "cache": "arrays errors crop_policy windows storage format read write verification repairs mixture mixture_loader __init__",
    "pipeline": """
        __init__ errors cli accounting table plug_ins processes files people clips grades datasets features
        settings steps show testing commands api __main__ extras
    """,
    "vibe_model": """
        start devices cameras alignment metrics losses files stand_in reading settings runs networks models checkpoints trained
        prediction evaluation training vibe api hmmr part_dynamics sections __init__
    """,
    "tasks": """
        settings options base results result_tables clip_links luigi_command data training_run training_processes training evaluation ablation report
        __init__
        commands __main__
    """,
}
PACKAGES = {  # package -> what it may import of ours
    "cache": {"cache"},
    "pipeline": {"pipeline", "cache"},
    "vibe_model": {"vibe_model", "cache", "pipeline"},
    "tasks": {"tasks", "pipeline", "vibe_model", "cache"},
}
OF_PIPELINE = (  # all that models may know
    *("pipeline.people.body", "pipeline.people.rotations", "pipeline.people.skeletons"),
    *("pipeline.errors", "pipeline.files.formats.checkpoints", "pipeline.plug_ins"),
    *("pipeline.settings.file", "pipeline.settings.sections", "pipeline.people.estimates"),
)
# not of models alone
OF_CACHES = ("vibe_model.part_dynamics.streams", "vibe_model.prediction.")
MOST_FILES = 15  # in one folder, but for __init__ and __main__
# Where the name is another than the package's.
DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "rerun": "rerun-sdk",
    "google": "protobuf",
    "google_crc32c": "google-crc32c",
}
DISTRIBUTIONS |= {"ai_edge_litert": "ai-edge-litert", "annotated_types": "annotated-types"}
NO_TORCH = (  # what imports it only where there is something to compute
    *(
        "cache",
        "pipeline.__main__",
        "pipeline.api",
        "pipeline.datasets",
        "pipeline.features.streams",
    ),
    *("pipeline.steps.recipe", "pipeline.steps.conversion.convert", "tasks", "vibe_model.api"),
    *(
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in sorted((ROOT / "pipeline/datasets").rglob("[a-z0-9]*.py"))
    ),
    "pipeline.extras.demo",
    "pipeline.extras.demo.writing",  # the last one: it alone needs SciPy
)
ASKING = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    for heavy in ("torch", "distributed", "scipy"):  # Dask where a scheduler is named
        if heavy in sys.modules and (name, heavy) != ("pipeline.extras.demo.writing", "scipy"):
            sys.exit(f"{name} imports {heavy}")
from vibe_model import TrainConfig, runs
runs.is_complete(TrainConfig())
sys.exit("torch" in sys.modules)
"""


@functools.cache
def nodes(name):
    """The imports and the constants of a module."""
    kinds = (ast.Import, ast.ImportFrom, ast.Constant)
    return [
        node for node in ast.walk(ast.parse(modules()[name].read_text())) if isinstance(node, kinds)
    ]


@functools.cache
def all_imports():
    """Module -> all that it imports, of ours or not, inside functions and for type checkers,
    too.
    """
    return {name: set(_named_by(name, nodes(name))) for name in modules()}


def _named_by(name, statements):
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            # `from pipeline import body` names the module pipeline.people.body
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (member if member in modules() else str(node.module) for member in members)


@functools.cache
def imports():
    """Module -> the modules of ours that it imports."""
    return {name: (found & modules().keys()) - {name} for name, found in all_imports().items()}


def place(module):
    """(package, folder or module right below it): "pipeline.files.formats.cdf" -> ("pipeline",
    "formats").
    """
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0] or "__init__"


@pytest.mark.promise("imports")
@pytest.mark.parametrize("package", ORDER)
def test_folders_are_imported_from_above_alone(package):
    order = ORDER[package].split()
    own = {module: found for module, found in imports().items() if place(module)[0] == package}
    assert {place(module)[1] for module in own} == set(order)
    for module, found in own.items():
        assert {name for name in found if place(name)[0] not in PACKAGES[package]} == set(), module
        inside = [name for name in found if place(name)[0] == package]
        position = order.index(place(module)[1])
        assert [name for name in inside if order.index(place(name)[1]) > position] == [], module
    for folder in {file.parent for file in (ROOT / package).rglob("*.py")}:
        files = [file for file in folder.glob("*.py") if not file.stem.startswith("__")]
        assert len(files) <= MOST_FILES, f"{folder}: give some of its files a folder, as a dataset"


def test_no_modules_import_one_another_in_a_circle():
    graph = {name: set(found) for name, found in imports().items()}
    # whoever imports nothing that is left
    while free := [name for name, found in graph.items() if not found]:
        for name in free:
            del graph[name]
        for found in graph.values():
            found.difference_update(free)
    assert graph == {}, "each of these is in a circle, or imports one that is"


@pytest.mark.promise("imports")
def test_the_models_know_only_the_body_and_the_skeletons_of_the_pipeline():
    for module, found in imports().items():
        if place(module)[0] == "vibe_model" and not module.startswith(OF_CACHES):
            assert {name for name in found if name.startswith("pipeline")} <= set(OF_PIPELINE), (
                module
            )


def test_luigi_is_known_to_tasks_alone():
    for module, found in all_imports().items():
        assert place(module)[0] == "tasks" or not any(
            name.split(".")[0] == "luigi" for name in found
        ), module


def test_what_is_imported_is_what_pyproject_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = ("s3", "timm", "clips", "contracts", "exchange")
    extras = (project["optional-dependencies"][extra] for extra in names)
    texts = [*project["dependencies"], *(text for extra in extras for text in extra)]
    named = {canonicalize_name(Requirement(text).name) for text in texts}
    named.remove("dask")  # the command that starts a cluster
    named.remove("tensorboard")  # torch writes its files
    named |= {"safetensors"}  # comes with timm
    used = {name.split(".")[0] for found in all_imports().values() for name in found}
    used -= sys.stdlib_module_names | {*ORDER}
    assert {DISTRIBUTIONS.get(name, name) for name in used} == named


@pytest.mark.promise("imports")
def test_importing_what_has_nothing_to_compute_imports_no_torch():
    """One after the other in one process: the first that does is printed."""
    done = run([sys.executable, "-c", ASKING, *NO_TORCH], ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_help_of_all_commands_imports_neither_numpy_nor_pydantic():
    asked = (
        "import sys, pipeline.__main__ as main; main.parser().format_help(); "
        "sys.exit(' '.join({'numpy', 'pydantic'} & sys.modules.keys()) or None)"
    )
    done = run([sys.executable, "-c", asked], ROOT)
    assert done.returncode == 0, f"--help imports {done.stderr}"


def test_no_file_outside_features_knows_a_streams_kind():
    """But for resnet50, the default, crops, which others may be computed from, and what reads
    certain streams.

    (Three are libraries, too, and splits are imported as well as streams.)
    """
    kinds = set(streams.names()) - {"resnet50", "crops", "torchvision", "timm", "onnx", "imported"}
    assert kinds
    reads = (
        "pipeline.extras.",
        "pipeline.features.",
        "pipeline.grades",
        "pipeline.table",
        "vibe_model.part_dynamics.",
        "vibe_model.trained",
    )
    for module in modules():
        if not module.startswith(reads):
            words = {node.value for node in nodes(module) if isinstance(node, ast.Constant)}
            assert not kinds & {word for word in words if isinstance(word, str)}, module


def below(package):
    """Folder of a package -> which other ones it imports, in their order."""
    order = ORDER[package].split()
    found = defaultdict(set)
    for module, names in imports().items():
        if place(module)[0] == package:
            found[place(module)[1]] |= {place(n)[1] for n in names if place(n)[0] == package}
    return {
        folder: [name for name in order if name in found[folder] - {folder}] for folder in order
    }


def test_the_page_of_the_architecture_draws_the_imports_of_pipeline_as_they_are():
    """But for the tokens, which every change changes."""
    lines = (ROOT / "docs/architecture.md").read_text().splitlines()
    drawn = [re.sub(r"[\d,]+", "", line).split() for line in lines]
    for folder, names in below("pipeline").items():
        assert [folder, *names] in drawn, (folder, names)


if __name__ == "__main__":
    for package in ORDER:
        tokens = Counter()
        for module, file in modules().items():
            tokens[place(module)] += code_tokens(file)
        print(package)  # noqa: T201
        for folder, names in below(package).items():
            print(f"{folder:<12}{tokens[package, folder]:>7,}  {' '.join(names)}".rstrip())  # noqa: T201
