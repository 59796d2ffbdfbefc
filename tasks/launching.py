"""Training in this process, or in several by torch's launcher.  windows -> [training]"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.command_line import Terminated
from pipeline.errors import ConfigError
from tasks.training_view import progress_callback
from vibe_model import runs
from vibe_model.settings import VideoConfig

if TYPE_CHECKING:
    from pipeline.cli.progress import Progress


def train(config: VideoConfig, variant: str, progress: Progress, what: str) -> Path:
    """Train in this process, or in several processes if the settings ask for them.

    Returns the run's folder. variant: Of the model, as the command `train` takes it. what: Name of
    the training for progress lines.
    """
    from vibe_model import training  # imports torch
    from vibe_model.training.trainer import ProcessGroup

    n = ProcessGroup.planned_size(config)
    if n == 1:
        return training.run(config, progress=progress_callback(progress, what))
    progress(0, config.epochs * config.iterations, f"{n} processes")
    _launch(
        "--standalone",
        "--nproc-per-node",
        str(n),
        "-m",
        "tasks",
        "train",
        f"--model={config.MODEL}",
        f"--variant={variant}",
        f"--seed={config.seed}",
    )
    return runs.run_folder(config)


def _launch(*words: str) -> None:
    """Run `torchrun WORDS` in this process. Raises ConfigError if a child fails."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # the processes print their errors themselves
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's own default, without its warning
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        run.main(list(words))
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        raise ConfigError(
            f"training in several processes ended with exit code {code}, see above"
        ) from error
    except SignalException as error:
        if error.sigval == signal.SIGTERM:
            raise Terminated from error
        raise KeyboardInterrupt from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
