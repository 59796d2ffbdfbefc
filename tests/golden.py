"""Records: tests/golden/COMMAND.txt holds what a command prints, case by case, with its exit codes;
tests/golden/KIND/NAME.json what one dataset, stream, detector or model gives.

`pytest --rewrite-golden FILE` writes what differs; what has changed is reviewed in the diff.
"""

import json
import re
import shlex
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

from pipeline.cli.text import python
from pipeline.commands.init import tool

FOLDER = Path(__file__).parent / "golden"
VARYING = (  # what differs from run to run, and what stands for it
    (r"\((at \w+\.py):\d+\)", r"(\1:N)"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)?", "TIME"),
    (r"\bin [\d,.]+ (s|min)\b", "in N s"),
    (r"\b[\d,.]+ s and some seconds\b", "N s and some seconds"),
    (r"\b[\d,.]+ (rows|videos|frames)/s\b", r"N \1/s"),
)


class Transcript:
    """Commands and what they print, on the way to one golden file."""

    def __init__(
        self,
        main,
        capsys,
        places,
        varying,
    ):
        """places: paths and other texts of this run, and the words that stand for them."""
        self._main, self._capsys, self._varying = main, capsys, (*VARYING, *varying)
        # The interpreter may be below one of the places: it goes first.
        known = {
            python(): "python",
            sys.executable: "python",
            tool("luigi"): "luigi",
            tool("vibe-pipeline"): "vibe-pipeline",
            socket.gethostname(): "HOST",
        }
        self._places = known | {str(place): name for place, name in places.items()}
        self.text = ""

    def __call__(self, title, *words):
        """Run a command; its words, standard output, standard error and exit code are the next part
        of the file.
        """
        arguments = [str(word) for word in words]
        self._capsys.readouterr()
        try:
            code = self._main(arguments)
        except SystemExit as ended:  # from argparse
            code = int(ended.code or 0)
        shown = self._capsys.readouterr()
        lines = [f"# {title}", f"$ {shlex.join(arguments)}", *shown.out.splitlines()]
        lines += [f"2> {line}" for line in shown.err.splitlines()]
        self.add("\n".join([*lines, f"[{code}]", "", ""]))

    def add(self, text):
        """A part of the file that is no command's."""
        self.text += self._plain(text)

    def _plain(self, text):
        """Without what differs from run to run."""
        for place, name in sorted(self._places.items(), key=lambda item: -len(item[0])):
            text = text.replace(place, name)
        for pattern, name in self._varying:
            text = re.sub(pattern, name, text)
        return text


@contextmanager
def recorded(name, made, *, rewrite):
    """A transcript that must be what tests/golden/NAME.txt says; if `rewrite`, it becomes that."""
    yield made
    file = FOLDER / f"{name}.txt"
    if rewrite:
        FOLDER.mkdir(exist_ok=True)
        file.write_text(made.text)
    expected = file.read_text() if file.is_file() else ""
    assert made.text.splitlines() == expected.splitlines(), (
        f"{file}: pytest --rewrite-golden, then look at the diff"
    )


class Record:
    """A part of tests/golden/NAME.json, NAME being as "datasets/penn_action"."""

    def __init__(self, name, part, *, rewrite):
        self.file, self.part, self.rewrite = FOLDER / f"{name}.json", part, rewrite

    @property
    def value(self):
        """What is recorded; None if nothing is."""
        return self._parts().get(self.part)

    def write(self, value):
        """Record it beside the other parts of the file."""
        self.file.parent.mkdir(exist_ok=True)
        text = json.dumps({**self._parts(), self.part: value}, indent=1)
        lists = re.compile(r"\[[^{}]*?\](?=,?\n *[\"}])")
        self.file.write_text(lists.sub(_in_a_line, text) + "\n")

    def check(self, made):
        """Assert that JSON values are those of the record."""
        made = json.loads(json.dumps(made))
        if self.rewrite and made != self.value:
            self.write(made)
        assert made == self.value, f"{self}"

    def _parts(self):
        return json.loads(self.file.read_text()) if self.file.is_file() else {}

    def __str__(self):
        return f"{self.part} in {self.file}: pytest --rewrite-golden, then look at the diff"


def _in_a_line(found):
    return re.sub(r"\n *", "", re.sub(r",\n *", ", ", found[0]))
