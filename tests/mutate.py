"""How many random mutants of the core do its tests kill?  nice .venv/bin/python tests/mutate.py |
tee mutants.tsv

A mutant is one operator, comparison, number or truth value changed in a file of CORE, in a clone of
HEAD. It is killed if a test beside it fails or takes too long. Mutants that change no result, or a
message's number, survive rightly.
"""

import argparse
import ast
import gc
import importlib
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

CORE = """
boxes | pipeline/boxes.py | test_boxes
crops | pipeline/crops.py | test_crops
homography | pipeline/homography.py | test_homography
skeletons | pipeline/skeletons.py | test_skeletons
linking | pipeline/linking.py pipeline/files/pixels/cuts.py | test_linking test_cleaning test_cuts
penn_action | pipeline/datasets/penn_action.py | test_penn_action
windows | cache/windows.py cache/draws.py cache/mixture.py cache/read/*t*s*.py | test_windows test_reading test_sev* test_mixture
posetrack | pipeline/datasets/posetrack.py pipeline/datasets/labels/posetrack.py | test_posetrack
tables | cache/format/tables.py cache/format/records.py cache/format/shard.py | test_writing test_the_doc* cache/*/test_repair
insta_variety | pipeline/datasets/insta_variety.py pipeline/files/formats/tf*.py | test_insta_variety test_tf*
writer | cache/write/*.py | cache/write/test_* cache/test_histories
kinetics | pipeline/datasets/kinetics.py pipeline/*/detected/*.py pipeline/*/*/*/detections.py | test_kinetics
labels | cache/read/labels.py | test_labels
conversion | pipeline/conversion/*.py | pipeline/conversion/test_* test_plan_command journeys/test_extend
mpi_inf_3dhp | pipeline/datasets/mpi*.py pipeline/datasets/labels/mpi*.py pipeline/files/formats/neural_annot.py | test_mpi_inf_3dhp test_neural_annot
losses | vibe_model/losses.py pipeline/rotations.py | test_losses test_rotations test_prediction
h36m | pipeline/datasets/h36m/re*.py pipeline/files/formats/h36m*.py | test_h36m test_cdf
metrics | vibe_model/metrics.py vibe_model/evaluation/*_errors.py | test_metrics test_world_metrics test_evaluation
threedpw | pipeline/datasets/threedpw.py | test_3dpw
emdb | pipeline/datasets/emdb.py pipeline/cameras.py | test_emdb test_cameras
bedlam | pipeline/datasets/bedlam.py pipeline/datasets/labels/bedlam.py | test_bedlam
steps | vibe_model/vibe/training.py vibe_model/vibe/networks.py | test_steps test_[gd]*r
amass | pipeline/datasets/amass.py | test_amass
formats | pipeline/files/formats/[ahp]*.py pipeline/datasets/pixels.py | test_matlab test_pickles test_pixels
evaluation | vibe_model/evaluation/[ep]*.py vibe_model/prediction/[pw]*.py | test_evaluation test_prot* test_prediction
"""  # group | files | tests
SWAPS = (
    "Add-Sub Sub-Add Mult-Div Div-Mult FloorDiv-Mult Mod-Mult And-Or Or-And Lt-LtE LtE-Lt "
    "Gt-GtE GtE-Gt Eq-NotEq "
)
SWAPS += "NotEq-Eq Is-IsNot IsNot-Is In-NotIn NotIn-In"
SWAP = {
    getattr(ast, old): getattr(ast, new) for old, new in (pair.split("-") for pair in SWAPS.split())
}
IMPORTED_ONCE = (
    "pytest hypothesis torch torchvision zarr scipy.io scipy.signal scipy.stats h5py cv2 "
    "cdflib luigi"
)
LIMIT_S = 240  # for the tests of one mutant


def mutable(tree):
    """Operators, comparisons and constants of a file that may be changed."""
    nodes = list(ast.walk(tree))
    kept = {
        part
        for node in nodes
        for top in getattr(node, "decorator_list", ())
        for part in ast.walk(top)
    }
    kept |= {node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "strict"}
    operators = [
        node
        for node in nodes
        if type(getattr(node, "op", None) or getattr(node, "ops", [0])[0]) in SWAP
    ]
    constants = [
        node
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float)
    ]
    return [node for node in operators + constants if node not in kept]


def mutant(source, pick):
    """What is changed, and the source with it."""
    tree = ast.parse(source)
    node = pick.choice(mutable(tree))
    before = ast.unparse(node)
    if isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.Compare):
        node.ops[0] = SWAP[type(node.ops[0])]()
    else:
        node.op = SWAP[type(node.op)]()
    return f"{node.lineno}\t{before}\t{ast.unparse(node)}", ast.unparse(tree)


def passes(clone, tests, *, mutated):
    """Run tests in a process that need not import again what takes long; of a mutant, it keeps no
    bytecode.
    """
    files = [str(file) for name in tests.split() for file in clone.glob(f"tests/**/{name}.py")]
    if not (child := os.fork()):
        os.setsid()
        os.chdir(clone)
        os.environ["PYTHONPATH"] = sys.path[0] = str(clone)
        sys.dont_write_bytecode = mutated
        os.dup2(os.open(os.devnull, os.O_WRONLY) if mutated else 2, 1)
        signal.alarm(LIMIT_S if mutated else 0)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore:Module already imported"]
        os._exit(sys.modules["pytest"].main([*options, *files]))
    code = os.waitpid(child, 0)[1]
    subprocess.run(["pkill", "-9", "-g", str(child)])  # what the tests started
    return code == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=168)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group", help="mutate the files of one group only")
    parser.add_argument(
        "--only",
        type=int,
        nargs="+",
        help="numbers of mutants: to go on, or to run survivors again",
    )
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # as tests/conftest.py has it, before torch is imported
    for name in IMPORTED_ONCE.split():
        importlib.import_module(name)
    gc.freeze()
    groups = [[part.strip() for part in line.split("|")] for line in CORE.strip().splitlines()]
    if args.group:
        groups = [group for group in groups if group[0] == args.group]
    pick, seen = random.Random(args.seed), set()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        subprocess.run(["git", "clone", "-q", ".", str(clone)], check=True)
        for number in range(args.n):
            name, files, tests = groups[number % len(groups)]
            paths = sorted(file for pattern in files.split() for file in clone.glob(pattern))
            file = pick.choice([file for file in paths if mutable(ast.parse(file.read_text()))])
            source = file.read_text()
            change, changed = mutant(source, pick)
            if args.only and number not in args.only:
                continue
            if name not in seen and not passes(clone, tests, mutated=False):
                raise SystemExit(f"{name}: {tests}: tests fail without a mutant")
            seen.add(name)
            file.write_text(changed)
            state = "survived" if passes(clone, tests, mutated=True) else "killed"
            file.write_text(source)
            print(number, state, name, f"{file.relative_to(clone)}:{change}", sep="\t", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
