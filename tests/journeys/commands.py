"""Runs commands as a shell does, each in a fresh process, without importing torch for each of them.

python commands.py: a line of JSON for each command comes in (argv, folder, site, env, out), and its
exit code goes out. The process imports what the commands import, runs nothing of it, and forks for
each command; and once more for the server of the command's supervised processes, which would import
it again. Not among the imports are Luigi and `tasks`, which read luigi.cfg when they are imported,
and `vibe_model.sections`, which looks for models of packages.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import sys
import traceback
from unittest import mock

import av  # noqa: F401
import matplotlib.backends.backend_svg  # noqa: F401
import torch._dynamo  # noqa: F401
import torchvision  # noqa: F401

import cache
import pipeline.__main__
import vibe_model
from pipeline.processes import server

for package in (cache, pipeline, vibe_model):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        # Settings and Luigi's tasks are read in the folder that a command runs in.
        if module.name != "vibe_model.sections":
            importlib.import_module(module.name)

WITHOUT_POOL = ("config", "copy", "gc", "init", "plan", "show", "status")


def run(argv):
    """The exit code of one command."""
    sys.argv = argv
    match argv[0]:
        case "pipeline":
            return pipeline.__main__.main(argv[1:])
        case "tasks":
            import tasks.__main__

            return tasks.__main__.main(argv[1:])
        case "luigi":
            from luigi.cmdline import luigi_run

            luigi_run(argv[1:])
            return 0
        case "python":
            sys.argv = argv[1:]
            runpy.run_path(argv[1], run_name="__main__")
            return 0
    raise ValueError(argv)


class ForkedServer:
    """What subprocess.Popen would start: the server of this process's supervised ones."""

    def __init__(self, args, *, process_group, stdin, env):
        self.returncode: int | None = None
        self._number = os.fork()
        if not self._number:
            os.setpgid(0, process_group)
            os.dup2(stdin, 0)
            os.environ.update(env)
            sys.argv = ["-c", args[-1]]
            server.serve()
            os._exit(0)

    def kill(self):
        os.kill(self._number, signal.SIGKILL)

    def wait(self):
        os.waitpid(self._number, 0)


def child(argv, folder, site, env, out):
    """What runs in the forked process, with the packages of the folder `site` installed."""
    os.environ.update(env)
    os.chdir(folder)
    sys.path[:1] = ["", site]  # as `python -m` has it
    to = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(to, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if argv[1] not in WITHOUT_POOL:
        with mock.patch("subprocess.Popen", ForkedServer):
            # now: later, this process may have several threads
            server._close()
            server._server = server._Server()
    try:
        return run(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def serve():
    """A process for each line, one after the other."""
    gc.freeze()  # a collection in a fork would write to every page
    for line in sys.stdin:
        request = json.loads(line)
        number = os.fork()
        if not number:
            os.setsid()
            os._exit(child(**request))
        _, status = os.waitpid(number, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
