"""Print the changes of this folder by day, the latest first: `python changes/show.py`.

A change is a file of one line. Its day is that of the commit that added the file; a file without a
commit is of today.
"""

import subprocess
from collections import defaultdict
from datetime import date
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
KINDS = {".new": "New", ".fix": "Fixed", ".data": "Computed again"}


def read_days() -> dict[str, str]:
    """Name of each file that a commit added -> the day of the last such commit, as YYYY-MM-DD."""
    words = ["git", "log", "--reverse", "--no-renames", "--diff-filter=A", "--name-only"]
    log = subprocess.check_output(
        [*words, "--relative", "--format=day %ad", "--date=short", "--", "."], cwd=FOLDER, text=True
    )
    days = {}
    day = ""
    for line in log.splitlines():
        if line.startswith("day "):
            day = line.removeprefix("day ")
        elif line:
            days[line] = day
    return days


def main() -> None:
    days = read_days()
    lines = defaultdict(list)
    for suffix, kind in KINDS.items():
        for file in sorted(FOLDER.glob(f"*{suffix}")):
            day = days.get(file.name, date.today().isoformat())
            lines[day].append(f"- {kind}: {file.read_text().strip()}")
    for day in sorted(lines, reverse=True):
        print(f"## {day}\n")
        print("\n".join(lines[day]), end="\n\n")


if __name__ == "__main__":
    main()
