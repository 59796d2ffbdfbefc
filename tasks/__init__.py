"""Luigi tasks: `luigi --module tasks Data|TrainVIBE|Report|...`. Importing them imports no
torch.
"""

import sys
from itertools import pairwise
from pathlib import Path

import pipeline  # noqa: F401 - says if packages are missing, before another one is imported
from vibe_model.start import require_one_folder

require_one_folder()  # Luigi starts here, which knows none of our other packages

# our own program imports the command that it runs, and no task for its --help
if ("-m", "tasks") not in pairwise(sys.orig_argv) and Path(sys.argv[0]).name != "vibe-tasks":
    from tasks import settings as settings  # first: it refuses what Luigi could not read
    from tasks.ablation import Ablation
    from tasks.data import Convert, Data, Extract, Synthesize
    from tasks.evaluation import Evaluate, EvaluateHMMR, EvaluatePartDynamics, EvaluateVIBE
    from tasks.luigi_command import prepare
    from tasks.report.task import Report
    from tasks.training import (
        ExtractBeside,
        Train,
        TrainHMMR,
        TrainMPoser,
        TrainPartDynamics,
        TrainPrVIPE,
        TrainVIBE,
    )

    prepare()

__all__ = ["Convert", "Data", "Extract", "ExtractBeside", "Synthesize"]
__all__ += ["Ablation", "Evaluate", "EvaluateVIBE", "Report", "Train", "TrainMPoser", "TrainVIBE"]
__all__ += ["EvaluateHMMR", "EvaluatePartDynamics", "TrainHMMR", "TrainPartDynamics", "TrainPrVIPE"]
