"""Luigi tasks and typed configuration: what depends on what. `luigi --module tasks Data|TrainVIBE|Report|...`

Tasks are short: they name inputs and call the function that does the work. Importing them imports no torch.
"""

from tasks import before_luigi, defaults, events, terminal
from tasks.ablation import Ablation
from tasks.data import Convert, Data, Extract, Synthesize
from tasks.mposer import TrainMPoser
from tasks.report import Report
from tasks.training import EvaluateVIBE, TrainVIBE

__all__ = [
    "Ablation",
    "Convert",
    "Data",
    "EvaluateVIBE",
    "Extract",
    "Report",
    "Synthesize",
    "TrainMPoser",
    "TrainVIBE",
    "before_luigi",
    "defaults",
    "events",
]

defaults.set_defaults()
terminal.speak_instead_of_luigi()
