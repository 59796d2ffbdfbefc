"""`python -m tasks slurm`: a job script for SLURM that does all of luigi.cfg, over as many jobs as it takes."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path
from string import Template
from typing import Final

from pipeline.cli.console import show_text
from pipeline.cli.options import SET, whole
from pipeline.commands.settings.file import settings_file
from pipeline.commands.settings.sections import Settings
from pipeline.errors import ConfigError
from tasks.data import enabled_splits
from tasks.settings import settings
from vibe_model import models

HELP: Final = "Print a job script for SLURM: all datasets, then training; queued again at its time limit."
MARGIN: Final = 300  # s before the time limit at which the work is ended, in an orderly way

SCRIPT: Final = Template("""\
#!/bin/bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=1
$of_gpus#SBATCH --cpus-per-task=$cpus
#SBATCH --time=$time
#SBATCH --signal=B:USR1@$margin
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=$name-%j.log
$mem# Further lines as your cluster asks for them: --partition, --account.

cd $folder || exit 2
export LUIGI_CONFIG_PATH=$config
export $set_variable=$set
export SRUN_CPUS_PER_TASK=$$SLURM_CPUS_PER_TASK  # srun does not take it from the job by itself
luigi=($luigi)
python=($python)

# Every line of the log has its time. The job ends when its last one is written, 10 s later at the most.
exec > >(trap '' TERM; while IFS= read -r line || [ -n "$$line" ]; do printf '%(%F %T)T %s\\n' -1 "$$line"; done) 2>&1
log=$$!
trap 'exec >&- 2>&-; timeout 10 tail --pid="$$log" -f /dev/null' EXIT

# At USR1, $margin s before the time limit, what runs is ended and keeps what is finished; the job is queued again.
requeue() {
    trap '' USR1
    [ -n "$$child" ] && kill -TERM "$$child" && wait "$$child"
    if [ "$${SLURM_RESTART_COUNT:-0}" -ge $restarts ]; then
        echo "time limit, after $restarts restarts (--restarts): sbatch this script once more, it continues"
        exit 1
    fi
    scontrol requeue "$$SLURM_JOB_ID" && echo "time limit: queued again" && exit 0
    echo "time limit, and SLURM refuses to queue it again: sbatch this script once more, it continues"
    exit 1
}
trap requeue USR1
trap '[ -n "$$child" ] && kill -TERM "$$child" && wait "$$child"; exit 143' TERM  # scancel, preemption

step() {  # waits such that a signal is served at once; a failure ends the job with its exit code
    "$$@" & child=$$!
    wait "$$child"
    code=$$?
    child=
    [ "$$code" = 0 ] || { echo "exit code $$code: $$*"; exit "$$code"; }
}

$steps
""")
DATA: Final = 'step "${luigi[@]}" --module tasks Data'
CONVERT: Final = Template("""\
for split in $splits; do
    step "$${luigi[@]}" --module tasks Convert --dataset "$${split%/*}" --split "$${split#*/}"
done
""")
TRAIN: Final = 'step "${luigi[@]}" --module tasks '
# In two steps: the launcher of each node joins the others at the first node's port.
OVER_NODES: Final = Template("""\
port=$$((20000 + SLURM_JOB_ID % 10000))
head=$$(scontrol show hostnames "$$SLURM_JOB_NODELIST" | head -n 1)
step srun "$${python[@]}" -m torch.distributed.run --nnodes $nodes --nproc-per-node $gpus --rdzv-id "$$SLURM_JOB_ID" \\
    --rdzv-backend c10d --rdzv-endpoint "$$head:$$port" -m tasks train --model $model
""")


def options(sub: argparse.ArgumentParser) -> None:
    """What the job asks for."""
    add = sub.add_argument
    add("--model", choices=models.names(), default=models.names()[0], help="default: %(default)s")
    add("--nodes", type=whole(1), default=1, help="of training; all before it is done on the first (default 1)")
    add("--gpus", type=whole(1), help="on each node (default 1; none with --only convert)")
    add("--cpus", type=whole(1), help="on each node, for decoding (default 16 for each GPU)")
    add("--mem", type=_memory, help="of each node, as 128G; default: your cluster's")
    only = (
        "convert: conversion, without a GPU; data: conversion and features (only features where all is converted); "
        "train: training and evaluation"
    )
    add("--only", choices=("convert", "data", "train"), help=only)
    add("--restarts", type=whole(0), default=20, help="how often the job is queued again at most (default 20)")
    add("--time", type=_time, default="12:00:00", help="time limit of each job (default 12:00:00)")


def run(args: argparse.Namespace) -> int:
    """Print the script. Raises ConfigError for nodes and GPUs that would do nothing."""
    s, several, model = settings(), args.nodes > 1, models.find(args.model)
    gpus = args.gpus or 1
    if args.only in ("convert", "data") and several:
        raise ConfigError(f"--nodes {args.nodes}: --only {args.only} uses one node; several, by Dask: docs/cluster.md")
    if args.only == "convert" and args.gpus:
        raise ConfigError(f"--gpus {gpus}: conversion uses none; leave it out")
    if not model.several_processes and (several or (args.only == "train" and gpus > 1)):
        raise ConfigError(
            f"--model {args.model}: {model.title} trains in one process: --nodes 1, with --only train --gpus 1"
        )
    parallel = args.nodes * gpus > 1 and model.several_processes
    places = {"luigi": Path(sys.executable).with_name("luigi"), "python": sys.executable}
    places |= {"folder": Path.cwd(), "config": settings_file().resolve(), "set": _set(s, gpus)}
    quoted = {key: shlex.quote(str(place)) for key, place in places.items()}
    cpus = args.cpus or 16 * gpus
    asked: dict[str, object] = {
        "nodes": args.nodes,
        "gpus": gpus,
        "cpus": cpus,
        "time": args.time,
        "margin": MARGIN,
        "restarts": args.restarts,
    }
    # On several nodes training is done before its task, which only looks at it then.
    over_nodes = [OVER_NODES.substitute(asked, model=args.model).rstrip()] if several else []
    processes = f" --set {model.section}.processes={gpus}" if parallel and not several else ""
    name = re.sub(r"\W+", "-", s.paths.runs.resolve().parent.name) or "vibe"
    steps = {"data": [DATA], "train": [*over_nodes, f"{TRAIN}Evaluate --model {args.model}{processes}"]}
    chosen = [step for part in steps if args.only in (None, part) for step in steps[part]]
    if args.only == "convert":
        splits = shlex.join(f"{dataset}/{split}" for dataset, split, _ in enabled_splits())
        chosen = [CONVERT.substitute(splits=splits).rstrip()]
    asked |= {"mem": f"#SBATCH --mem={args.mem}\n" if args.mem else "", "set_variable": SET, "name": name}
    asked |= {"of_gpus": "" if args.only == "convert" else f"#SBATCH --gpus-per-node={gpus}\n"}
    show_text(SCRIPT.substitute(quoted, **asked, steps="\n".join(chosen)))
    return 0


def _set(s: Settings, gpus: int) -> str:
    """What `--set` sets here holds in the job, too. Extraction takes all GPUs of a node, unless others are set."""
    given = os.environ.get(SET, "")
    free = s.features.devices is None and s.features.device == "auto" and s.dask.scheduler is None
    devices = f"features.devices={','.join(map(str, range(gpus)))}" if gpus > 1 and free else ""
    return "\n".join(filter(None, [given, devices]))


def _memory(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[KMGT]", text):
        raise argparse.ArgumentTypeError(f"expected a size with its unit (K, M, G, T), as 128G; found {text!r}")
    return text


def _time(text: str) -> str:
    if not (found := re.fullmatch(r"(?:(\d+)-)?(\d{1,2}):(\d\d)(?::(\d\d))?", text)):
        raise argparse.ArgumentTypeError(f"expected HH:MM:SS or D-HH:MM:SS, found {text!r}")
    days, *parts = (int(part or 0) for part in found.groups())
    of_minutes = found[1] is None and found[4] is None  # MM:SS
    seconds = sum(n * of for n, of in zip(parts, (60, 1, 0) if of_minutes else (3600, 60, 1), strict=True))
    if days * 86400 + seconds <= 2 * MARGIN:
        raise argparse.ArgumentTypeError(f"expected more than {2 * MARGIN // 60} minutes, found {text!r}")
    return text
