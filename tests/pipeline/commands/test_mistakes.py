"""What people type wrong: the command ends with the right exit code, the cause, and what to do."""

import re

import pytest

from tests.pipeline.commands.lab import SETTINGS

CONVERT = "convert penn_action train --raw raw/penn_action --cache cache"
EXTRACT = "extract penn_action/train --stream homography"
TO_CACHE = "convert penn_action test --raw raw/penn_action --cache"
PLAN = "prepare penn_action --plan --raw raw/penn_action --cache"

# command -> what it prints, all with exit code 2
OPTIONS = {
    "statsu": r"invalid choice: 'statsu'; did you mean 'status'\?",
    "status --cahce cache": r"unrecognized arguments: --cahce; did you mean '--cache'\?",
    "status -cache cache": r"unrecognized arguments: -cache; did you mean '--cache'\?",
    "status \N{EN DASH}\N{EN DASH}cache cache": r"long dash.* Type - or --",
    "status \N{EN DASH}all": r"long dash",
    "status penn_acton": r"no split 'penn_acton' in the cache; did you mean 'penn_action",
    "status penn_action/trian": r"no split 'penn_action/trian' in the cache; did you mean 'penn_action/train'",
    "status --cache cahce": r"cahce: .*no such folder; did you mean 'cache'\?",
    "status --cache cache/penn_action": r"cache/penn_action: .*Open the whole",
    "status --cache luigi.cfg": r"luigi\.cfg: expected a feature cache, found a file",
    "status --cache raw": r"raw: expected a feature cache, found no zarr\.json",
    "status --cache $HOME/cache": r"--cache: expected a path without environment variables",
    "status --cache ${CACHE}": r"--cache: expected a path without environment variables",
    "status --cache https://lab/cache": r"--cache: expected .*a URL that starts with one of s3",
    "status --cache s3:/bucket/cache": r"--cache: .*two slashes: s3://bucket/prefix",
    "status --cache file:///cache": r"--cache: expected a path, without file:",
    r"status --cache D:\cache": r"--cache: expected a path of this system \(in WSL",
    r"status --cache C:/cache": r"--cache: expected a path of this system \(in WSL",
    "status --cache ~nobody-here/cache": r"--cache: .*there is no home folder of ~nobody-here",
    "status --cache 'cache'": r"--cache: expected a path without quotes",
    "status --max-rejected 0.02": r"expected a percentage such as 2%",
    "status --max-rejected many": r"expected a percentage such as 2%",
    "status --csv --json": r"--json excludes --csv, --tracks and --digest",
    "status --tracks --json": r"--json excludes --csv, --tracks and --digest",
    "status --digest --json": r"--json excludes --csv, --tracks and --digest",
    "status --csv --sizes": r"--sizes: not allowed with argument --csv",
    "verify --digest digets.txt": r"digets\.txt",
    "verify --digest luigi.cfg": r"luigi\.cfg, line 1: expected SHA-256, split and content",
    "gc --older-than 1h": r"expected a whole number of at least 0, found '1h'",
    "copy --to cache": r"--to cache: this is the cache itself",
    "copy --to cache/copy": r"cache/copy: it is in the cache .*Name that one, or a folder beside it",
    "copy --to s3:/bucket": r"--to: .*two slashes",
    "copy --to copy --streams resnet50": r"--streams resnet50: these splits have no streams",
    "copy": r"the following arguments are required: --to",
    "convert": r"required: dataset, split",
    "convert penn_action --raw raw/penn_action --cache cache": r"required: split",
    "convert penn_acton train --raw raw/penn_action --cache cache": r"did you mean 'penn_action'\?",
    "convert penn_action trian --raw raw/penn_action --cache cache": r"no split 'trian'; .*train",
    "convert penn_action/train train --raw raw/penn_action --cache cache": r"penn_action/train already names the split",
    "convert penn_action train --raw raw/pen_action --cache cache": r"no such folder; did you mean 'penn_action'\?",
    "convert penn_action train --raw raw/pen_action --cache new": r"no such folder; did you mean 'penn_action'\?",
    "convert penn_action train --raw raw --cache cache": r"Did you mean --raw raw/penn_action\?",
    "convert penn_action train --raw raw/penn_action/frames --cache cache": r"Did you mean --raw raw/penn_action\?",
    "convert penn_action train --raw luigi.cfg --cache cache": r"luigi\.cfg: .*(a file|this is a file)",
    "convert penn_action train --raw $RAW/penn_action --cache cache": r"--raw: expected a path without environment",
    "convert penn_action train --raw http://x/y --cache cache": r"--raw: expected a path of this system, which",
    "convert 3dpw train --raw raw/penn_action --cache cache": r"raw/penn_action/sequenceFiles/train: expected",
    f"{CONVERT} --part 0/4": r"--part: expected K/N with K from 1 to N.*found '0/4'",
    f"{CONVERT} --part 5/4": r"--part: expected K/N with K from 1 to N.*found '5/4'",
    f"{CONVERT} --part 2": r"--part: expected K/N",
    f"{CONVERT} --part 1/2 --drop-removed": r"not allowed with",
    f"{CONVERT} --set convert.wrokers=2": r"--set \[convert\] wrokers: unknown key; did you mean 'workers'\?",
    f"{CONVERT} --set workers=2": r"expected SECTION\.KEY=VALUE",
    f"{CONVERT} --set convert.workers": r"expected SECTION\.KEY=VALUE",
    f"{CONVERT} --set convert.workers=two": r"\[convert\] workers = two: expected a whole number",
    f"{CONVERT} --set convert.strict=maybe": r"\[convert\] strict = maybe: expected true or false",
    f"{CONVERT} --set vibe.epochs=5": r"--set vibe\.epochs: `convert` does not read it",
    f"{CONVERT} --set convert.removed=delete": r"\[convert\] removed = delete: expected .*keep.*drop",
    f"{CONVERT} --workers two": r"--workers: expected a whole number.*'two'",
    f"{CONVERT} --workers -1": r"--workers: expected .*-1",
    "extract penn_action train --stream resnet": r"resnet.*did you mean 'resnet50'\?",
    f"{EXTRACT} --device gpu": r"--device: expected .*cuda.*found 'gpu'",
    f"{EXTRACT} --part 3/2": r"--part: expected K/N",
    f"{EXTRACT} --replace --part 1/2": r"not allowed with",
    "extract penn_action/trian --stream homography": r"no committed split 'penn_action/trian'; there are: penn_act",
    "extract penn_action train --stream resnet50 --weights spin": r"weights 'spin': .*spin:FILE",
    "extract penn_action train --stream resnet50 --weights spin:nowhere.pt": r"nowhere\.pt",
    "extract penn_action train --stream resnet50 --precision half": r"--precision: .*'half'; known: exact, fast",
    "prepare penn_action --cache cache": r"required: --raw",
    "prepare penn_action --raw raw/pen_action --cache cache": r"no such folder; did you mean 'penn_action'\?",
    "detect raw --out keypoints --detector rtmpos": r"did you mean 'rtmpose'\?",
    "config pahts": r"pahts.*did you mean 'paths'\?",
    "show penn_action/train --cache cache --out nowhere/": r"nowhere",
    "export penn_action train --cache cache --format vib --out x": r"did you mean 'vibe'\?",
    "bodies penn_action train --age 30": r"--age: expected Anny's age from 0 to 1",
    "bodies penn_action train": r"blaze_joints",
    "detect nowhere --out keypoints": r"nowhere: .*no such (file or )?folder",
    "plan --raw raw": r"unrecognized arguments: --raw\. To set a key of luigi\.cfg: --set",
    "doctor --raw raw --cache cache": r"unrecognized arguments: --cache\. To set a key",
    "gc cache": r"unrecognized arguments: cache\. Expected no further name",
    f"{CONVERT} --workers 1 2": r"unrecognized arguments: 2\. Expected no further name",
    "prepare penn_action train --raw raw/penn_action --cache cache": r"arguments: train\. Expected no",
    f"{TO_CACHE} cache/penn_action": r"cache/penn_action: it is in the cache .*cache, which must hold",
    f"{TO_CACHE} cache/penn_action/train": r"train: it is in the cache .*cache, which must hold",
    f"{TO_CACHE} cache/new": r"cache/new: it is in the cache .*Name that one, or a folder beside it",
    f"{TO_CACHE} /proc/x/cache": r"/proc/x/cache: nothing can be written in /proc .*Name another",
    f"{PLAN} /proc/x/cache": r"/proc/x/cache: nothing can be written in /proc",
    f"{PLAN} new --stream resnet50 --weights spin:luigi.cfg": r"luigi\.cfg: expected tensors",
    f"{PLAN} new --stream resnet50 --weights spin:raw": r"raw: this is a folder, where a file is needed",
    f"{PLAN} new --stream resnet50 --weights untrained:0 --device cuda:99": r"device 'cuda:99': ",
    "convert 3dpw val --raw raw/3dpw --cache cache": r"no split 'val'; it has train, validation, test",
    "convert 3DPW train --raw raw/3dpw --cache cache": r"did you mean '3dpw'\?",
    "convert penn-action train --raw raw/penn_action --cache cache": r"did you mean 'penn_action'\?",
    "export penn_action train --cache cache --format rerun --out x.txt": r"(ends in \.rrd|needs the package)",
    "show penn_action/val --out p.html --cache cache": r"no committed split 'penn_action/val'; there are",
    "prepare videos --raw raw/penn_action/frames/0001 --cache new": r"no clips in this folder \(8 images;",
}
# lines of luigi.cfg -> what `config --check` prints, with exit code 2
FILE = {
    "raw = $HOME/raw": r"line 2 \[paths\] raw = \$HOME/raw: expected a path without environment variables",
    "raw = https://lab/raw": r"line 2 \[paths\] raw = .*: expected a path of this system",
    "raw = s3://lab/raw": r"line 2 \[paths\] raw = .*: expected a path of this system",
    r"raw = D:\raw": r"line 2 \[paths\] raw = .*: expected a path of this system \(in WSL",
    'raw = "raw"': r"line 2 \[paths\] raw = .*: expected a path without quotes",
    "raw = ~nobody-here/raw": r"line 2 \[paths\] raw = .*no home folder of ~nobody-here",
    "raw = file:///raw": r"line 2 \[paths\] raw = .*without file:",
    "raw =": r"line 2 \[paths\] raw = : expected a value",
    "rwa = raw": r"\[paths\] rwa: unknown key; did you mean 'raw'\?",
    "cache = s3:/bucket": r"line 4 \[paths\] cache = .*two slashes: s3://bucket/prefix",
    "cache = ftp://lab/cache": r"line 4 \[paths\] cache = .*starts with one of s3",
    "cache = raw": r"\[paths\] raw: .* is in the cache",
    "runs = cache": r"\[paths\] runs: .* is in the cache",
    "runs = raw": r"\[paths\] runs: .* is also raw",
    "datasets = penn_acton": r"line 7 \[data\] datasets: .*did you mean 'penn_action'\?",
    "datasets = penn_action, amass": r"line 7 \[data\] datasets: .*'penn_action,'",
    "datasets =": r"line 7 \[data\] datasets: expected one or more of",
    "[dta]": r"\[dta\]: unknown section; did you mean 'data'\?",
    "streams = homograpy": r"line 9 \[features\] streams: .*did you mean 'homography'\?",
    "streams = homography homography": r"line 9 \[features\] streams: expected different names",
    "streams homography": r"line 9: expected key = value",
    "\N{BOM}[paths]": r"line 1: .*byte order mark",
    "new_cache = maybe": r"\[paths\] new_cache = maybe: expected 'yes', 'no' or 'once'",
    "[videos]\nval = 0.2": r"\[videos\] val = 0\.2: expected per cent: 20 for 0\.2",
    "[videos]\nval = 120": r"\[videos\] .*expected percentages",
    "[features]\nstreams = homography\n[features]": r"duplicate line",
    "[convert]\nworkers = -1": r"\[convert\] workers = -1: expected 0 or more",
    "[convert]\nstrict = ja": r"\[convert\] strict = ja: expected true or false",
    "[retcode]\ntask_failed = x": r"\[retcode\] task_failed = x: expected a whole number",
    "[embedded]\nenabled = true\nsize = huge": r"\[embedded\] size = huge: expected 'tiny', 'default' or 'large'",
    "[vibe]\nepoch = 3": r"\[vibe\] epoch: unknown key; did you mean 'epochs'\?",
    "[vibe]\nepochs = 0": r"\[vibe\] epochs = 0: expected more than 0",
    "streams = resnet50\n[resnet50]\nweights = spin": r"\[resnet50\] weights = spin: .*spin:FILE",
    "raw = raw  # downloads": r"line 2 \[paths\] raw = .*'# downloads' is part of the value here\. Put",
    "raw = %(home)s/raw": r"line 2 \[paths\] raw = .*: expected a path without %\(\.\.\.\)s",
    "runs = runs\n  cache = cache": r"line 5 \[paths\] runs = .*indented line of 'cache' is part of this",
    "Raw = raw": r"\[paths\] Raw: unknown key; did you mean 'raw'\?",
    "datasets = penn_action ; 3dpw": r"line 7 \[data\] datasets = .*'; 3dpw' is part of the value here",
    "datasets = Penn_Action": r"line 7 \[data\] datasets: .*did you mean 'penn_action'\?",
    "streams = homography,resnet50": r"line 9 \[features\] streams: 'homography,resnet50' is no stream",
    "streams = resnet50\n[resnet50]\nweights = SPIN:x.pt": r"\[resnet50\] weights = .*spin:FILE",
    "[convert]\nworkers = 50%": r"\[convert\] workers = 50%: expected a whole number",
    "[detect]\ndatasets = penn_acton": r"\[detect\] datasets: .*did you mean 'penn_action'\?",
    "[detect]\ndetector = rtmpos": r"\[detect\] detector: .*did you mean 'rtmpose'\?",
    "[penn_action]\nfoo = 1": r"\[penn_action\] foo: (unknown key|.*no settings)",
}


@pytest.mark.parametrize("words", OPTIONS)
def test_a_mistake_on_the_command_line(words, types):
    shown = types(f"pipeline {words}")
    assert re.match(rf"2: (.*\n)*error: .*{OPTIONS[words]}", shown), shown
    assert "Traceback" not in shown and "bug in this program" not in shown


@pytest.mark.parametrize("line", FILE)
def test_a_mistake_in_luigi_cfg(line, lab, types):
    key = line.partition(" ")[0]
    text = re.sub(rf"^{re.escape(key)} .*$", lambda _: line, SETTINGS, flags=re.MULTILINE)
    if line.startswith("\N{BOM}"):
        text = f"\N{BOM}{SETTINGS}"
    elif text == SETTINGS:
        text = (
            f"{SETTINGS}{line}\n"
            if line.startswith("[")
            else SETTINGS.replace("runs = runs", f"runs = runs\n{line}")
        )
    (lab / "luigi.cfg").write_text(text)
    try:
        shown = types("pipeline config --check")
    finally:
        (lab / "luigi.cfg").write_text(SETTINGS)
    assert re.match(rf"2: error: .*{FILE[line]}", shown), shown
    assert len(shown.splitlines()) == 1
