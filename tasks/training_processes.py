"""A model's training in this process, or in several processes of torch's launcher.  windows ->
[training]
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.command_line import Terminated
from pipeline.errors import ConfigError
from tasks.training_run import TrainingView, warn_of_doubts
from vibe_model import runs
from vibe_model.settings import VideoConfig

if TYPE_CHECKING:
    from pipeline.cli.progress import Progress


def run_training(config: VideoConfig, variant: str | None, progress: Progress, what: str) -> Path:
    """Train in this process, or in several processes if the settings ask for them.

    Returns the run's folder. variant: The one that replaces that of luigi.cfg. what: Name of the
    training for progress lines.
    """
    from vibe_model import training  # imports torch
    from vibe_model.training.process_group import ProcessGroup

    n = ProcessGroup.planned_size(config)
    if n == 1:
        warn_of_doubts(config)
        return training.run(config, progress=TrainingView(progress, what))
    progress(0, config.epochs * config.iterations, f"{n} processes")
    command = f"--standalone --nproc-per-node {n} -m tasks train --model={config.MODEL}"
    _launch_processes([*command.split(), f"--variant={variant or ''}", f"--seed={config.seed}"])
    return runs.run_folder(config)


def _launch_processes(words: list[str]) -> None:
    """Run `torchrun WORDS` in this process. Raises ConfigError if a child fails."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # the processes print their errors themselves
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's own default, without its warning
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in handled}
    try:
        run.main(words)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        raise ConfigError(
            f"training in several processes ended with exit code {code}, see above"
        ) from error
    except SignalException as error:
        if error.sigval in (signal.SIGTERM, signal.SIGHUP):
            raise Terminated(error.sigval) from error
        raise KeyboardInterrupt from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
