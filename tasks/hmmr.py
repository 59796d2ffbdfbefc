"""HMMR's training and evaluation, as Luigi tasks."""

from tasks.evaluation import Evaluate
from tasks.training import Train


class TrainHMMR(Train):
    """Train HMMR's generator and pose discriminator on the cached features."""

    model = "hmmr"


class EvaluateHMMR(Evaluate):
    """Print and store the errors of HMMR and its baselines on every evaluation split."""

    model = "hmmr"
