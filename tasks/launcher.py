"""torch's own launcher, which leaves it to the processes to tell their errors: `python -m tasks.launcher OPTIONS...`

windows -> [training]. `torch.distributed.run` itself would end with a traceback of its own, whatever had happened.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the options say, as `torchrun` does. The exit code is that of the first process that failed."""
    logging.disable(logging.ERROR)  # here, not in the processes: what they say is said once
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # what it would choose itself, with a warning
    try:
        run.main(list(sys.argv[1:] if argv is None else argv))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0


if __name__ == "__main__":
    sys.exit(main())
