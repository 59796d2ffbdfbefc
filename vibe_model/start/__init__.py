"""The start of the programs, from the package whose name no other one has: Python may find another
`cache`, `pipeline` or `tasks` in the working folder or in PYTHONPATH. Imports nothing of ours.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

HOME: Final = Path(__file__).parents[2]


def require_one_folder() -> None:
    """Exit with 2 and a line if Python finds one of our packages elsewhere than this one."""
    for name in ("cache", "pipeline", "tasks"):
        spec = find_spec(name)
        if spec is not None and spec.origin != str(HOME / name / "__init__.py"):
            sys.stderr.write(
                f"error: Python imports {name} from {spec.origin}, not from {HOME / name}. "
                "Rename the former, or use another working folder and PYTHONPATH.\n"
            )
            raise SystemExit(2)


def pipeline() -> Any:
    """Run `vibe-pipeline`, and return its exit code."""
    require_one_folder()
    return import_module("pipeline.__main__").main()


def tasks() -> Any:
    """Run `vibe-tasks`, and return its exit code."""
    require_one_folder()
    return import_module("tasks.__main__").main()
