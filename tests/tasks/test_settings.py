"""luigi.cfg as a whole: what arrives in the tasks, and that each mistake is reported with its
line.
"""

from pathlib import Path

import pytest

from cache import CropPolicy, Jitter
from pipeline.__main__ import main as pipeline
from pipeline.errors import ConfigError
from pipeline.extras.demo.writing import LAYOUTS
from pipeline.features import streams
from pipeline.features.streams.base import Machine
from pipeline.features.streams.network import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.steps.recipe import Recipe
from tests.tasks.conftest import GOOD, load


def test_rows_of_real_data_stay_also_where_demo_data_are_enabled(tmp_path):
    """Demo data of another version replace each other."""
    loaded = load(tmp_path, f"{GOOD}[embedded]\nenabled = true\n")
    folder = loaded.raw("penn_action")

    def drops():
        return Recipe.from_settings(loaded, "penn_action", "train").drop_removed

    assert drops()  # demo data are made first
    folder.mkdir(parents=True)
    assert not drops()
    (folder / "STAND_IN.json").write_text("{}")
    assert drops()


def test_demo_stands_for_the_datasets_with_demo_data_beside_others_and_none_is_there_twice(
    tmp_path,
):
    def listed(names):
        return load(tmp_path, GOOD.replace("penn_action amass", names)).data.datasets

    demo = listed("demo")
    assert demo == tuple(LAYOUTS)
    assert listed("bedlam2 demo") == ("bedlam2", *demo)
    with pytest.raises(ConfigError, match=r"each once, found .* amass videos amass$"):
        listed("demo amass")


def test_values_arrive_in_their_types_and_paths_below_the_files_folder(tmp_path):
    loaded = load(tmp_path, GOOD)
    assert (loaded.paths.cache, loaded.paths.body) == (tmp_path / "cache", Path("/somewhere/smpl"))
    assert (loaded.convert.workers, loaded.convert.strict, loaded.dask.scheduler) == (
        3,
        False,
        None,
    )
    assert loaded.dataset("amass").parameters() == {"resampling": "decimate"}
    own = "[features]\ndevice = cuda\nbatch_size = 64\nworkers = 5\ntimeout = 9\n"
    loaded = load(tmp_path, GOOD + own + "[dask]\nscheduler = tcp://node:8786\n")
    assert loaded.features.machine() == Machine("cuda", 64)
    assert (loaded.features.decoders(), loaded.features.timeout) == (5, 9)
    assert loaded.dask.scheduler == "tcp://node:8786"
    own = "[features]\nstreams = resnet50 homography j1\n[resnet50]\nweights = untrained:2\n"
    own += "[homography]\ncrop = size:256\n[j1]\nkind = resnet50\ncrop = jitter:1 seed:4\n"
    loaded = load(tmp_path, GOOD + own)
    _, pairs, jittered = loaded.streams
    assert (pairs.name, pairs.stream) == (
        "homography",
        streams.get("homography", crop=CropPolicy(size=256)),
    )
    crop = CropPolicy(jitter=Jitter(copy=1, seed=4))
    assert (jittered.name, jittered.stream) == (
        "j1",
        ResNet50(weights=WeightsSpec("untrained", "2"), crop=crop),
    )
    loaded = load(tmp_path, GOOD.replace("cache = cache", "cache = s3://bucket/cache"))
    assert loaded.paths.cache == "s3://bucket/cache"
    loaded = load(tmp_path, GOOD + "[resnet50]\nweights = file:w/r50.pt\n")
    assert str(loaded.stream.stream.weights) == f"file:{tmp_path}/w/r50.pt"


def test_a_section_may_name_its_own_kind_whatever_other_streams_are_of_that_kind(tmp_path):
    own = "[homography]\nkind = homography\ncrop = size:256\n"
    small = "[small]\nkind = homography\n"
    for names, more in {"homography": "", "homography small": small, "small": small}.items():
        loaded = load(tmp_path, GOOD + f"[features]\nstreams = {names}\n" + own + more)
        assert {spec.stream.crop.size for spec in loaded.streams} == {256}


VIBE = "preset = embedded"  # line 14 of GOOD
TWO_STREAMS = "[features]\nstreams = resnet50 j1\n[j1]\nkind = resnet50\n"
ON_DASK = "[dask]\nscheduler = tcp://a:1\n"
EACH_ITS_GPU = r"with \[dask\] scheduler, each worker has its own GPU"


@pytest.mark.parametrize(
    ("before", "after", "message"),  # without `before`, the rest is added from line 17 on
    [
        ("cache = cache", "cahce = cache", r"line 5 \[paths\] cahce: unknown key; did you mean 'cache'\?"),
        ("runs = runs", "", r"line 2 \[paths\]: 'runs' is missing"),
        ("workers = 3", "workers = three", r"line 10 \[convert\] workers = three: expected a whole number"),
        ("workers = 3", "strict = perhaps", r"line 10 \[convert\] strict = perhaps: expected true or false"),
        ("[convert]", "[conversion]", r"line 9 \[conversion\]: unknown section; did you mean 'convert'\?.* install"),
        (" amass", " amas", r"line 8 \[data\] datasets: no dataset is called 'amas'; did you mean 'amass'"),
        ("penn_action amass", "", r"\[data\] datasets: expected one or more of .*, found none"),
        ("penn_action amass", "amass amass", r"\[data\] datasets: .*, found amass amass"),
        ("resampling = decimate", "resample = x", r"line 12 \[amass\] resample: unknown key; did you mean"),
        ("cache = cache", "cache =", r".*\[paths\] cache = : expected a value"),
        ("runs = runs", "runs = cache/runs", r"line 6 \[paths\] runs: .*cache/runs .* in the cache"),
        ("raw = raw", "raw = cache", r"line 3 \[paths\] raw: .* in the cache"),
        (VIBE, VIBE + "\ndevice = cuda:1\nprocesses = 2", r"line 16 \[vibe\] processes = 2: device is cuda:1, but"),
        (VIBE, VIBE + "\nstrides = a/trian:4", r"line 15 \[vibe\] strides: there is no split a/trian; .*known: .*3dpw"),
        (VIBE, VIBE + "\nepoch = 3", r"line 15 \[vibe\] epoch: unknown key; did you mean 'epochs'\?$"),
        (VIBE, VIBE + "\nvariant = concatt", r"line 15 \[vibe\] variant: expected one of per-f.* found 'concatt'"),
        (VIBE, VIBE + "\nbatch_size = 4\nprocesses = 5", r"line 16 \[vibe\] processes: expected at most batch_size, 4"),
        (VIBE, VIBE + "\nstream = x", r"line 15 \[vibe\] stream: is set in \[paths\], \[data\] or \[features\], not here"),
        (VIBE, VIBE + "\nlr_generator = nan", r"line 15 \[vibe\] lr_generator = nan: expected more than 0"),
        (VIBE, VIBE + "\nstrides = 3dpw/train", r".*strides = 3dpw/train: expected name:value pairs"),
        (VIBE, VIBE + "\nstrides = a/b:1 a/b:2", r".*expected name:value pairs with spaces between, each name once"),
        (VIBE, VIBE + "\nmotion =", r".*motion: expected splits of real motion .* Or: prior = none"),
        (VIBE, "preset = mine", r"line 14 \[vibe\] preset = mine: expected one of published, paper, embedded"),
        ("", "[embedded]\nsize = huge\n", r"line 18 \[embedded\] size = huge: expected 'tiny', 'default' or 'large'"),
        ("", "[features]\nstreams = resnet5\n", r"line 18 .* streams: no stream is called 'resnet5'; did you mean"),
        ("", "[features]\nweights = untrained:2\n", r"line 18 \[features\] weights: unknown key"),
        ("", "[features]\nstreams = ../x\n", r"line 18 \[features\] streams: '\.\./x' is no stream's name"),
        ("", "[features]\nstreams = resnet50 resnet50\n", r"line 18 .*different names of streams, found resnet50 res"),
        ("", "[features]\nstreams = resnet50 colours\n", r"line 18 .*'colours'.* Name its kind.* in a section"),
        ("", TWO_STREAMS + "crop = jitter:0\n", r"line 21 \[j1\] crop = jitter:0: jitter 0.*expected a copy from 1"),
        ("", "[resnet50]\nweights = spin\n", r"line 18 \[resnet50\] weights = spin: .*expected SPIN's checkpoint"),
        ("", "[features]\ndevice = gpu\n", r"line 18 \[features\] device = gpu: expected auto, cpu"),
        ("", "[features]\ndevices = gpu\n", r"line 18 \[features\] devices: devices gpu: expected numbers of GPUs"),
        ("", "[features]\ndevice = cpu\ndevices = 0,1\n", r"line 19 .* devices 0,1: device cpu is set, too"),
        ("", "[features]\ndevice = cuda:1\n" + ON_DASK, rf"line 18 \[features\] device = cuda:1: {EACH_ITS_GPU}"),
        ("", "[features]\ndevices = 0,1\n" + ON_DASK, rf"line 18 \[features\] devices = 0,1: {EACH_ITS_GPU}"),
        ("raw = raw", 'raw = "data/raw"', 'line 3 .* raw = "data/raw": .* without quotes'),
        ("", "[retcode]\ntask_failed = failed\n", "line 18 .*task_failed = failed: expected a whole number"),
        ("", "[j1]\nkind = resnet50\n", r".*\[j1\]: unknown section"),
        ("", "[hmmr]\nwidth = 40\n", r"line 18 \[hmmr\] width: expected a multiple of 32"),
        ("resampling = decimate", "resampling = x", r"line 12 \[amass\] resampling is 'x'; it can be slerp or"),
        ("", "[mposer]\nseqlen = 3\n", r"line 18 \[mposer\] seqlen: is set in \[vibe\], \[paths\] or \[data\], not here"),
        ("", "[detect]\ndetector = demos\n", "line 18 .*known: blaze_pose, demo, rtmpose"),
        ("", "[detect]\ndatasets = video\n", "line 18 .*'videos'"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_line_and_what_was_expected(
    tmp_path, before, after, message
):
    with pytest.raises(ConfigError, match=rf"luigi\.cfg.*{message}"):
        load(tmp_path, GOOD.replace(before, after) if before else GOOD + after)


@pytest.mark.parametrize(
    ("own", "warned"),
    [
        (
            "[cliffy]\nhidden_size = 3",
            "[cliffy]: unknown section. If a package adds it, install the package",
        ),
        ("[data]\ndatasets = 3dpw dances", "[data] datasets: no dataset is called 'dances'"),
    ],
)
def test_what_a_missing_package_adds_stops_only_commands_that_need_it(
    bare, tasks_command, build, capsys, own, warned
):
    bare.configure(own)
    code, shown = tasks_command(bare, "report", "--out", "page.html")
    assert (code, warned in " ".join(shown.split())) == (0, True), shown
    pipeline(["plan"])
    assert warned in " ".join(capsys.readouterr().err.split())
    assert pipeline(["config", "--check"]) == 2
    assert tasks_command(bare, "report", "--set", "cliffy.hidden=3")[0] == 2, (
        "what is typed is meant"
    )
    assert build(bare, "Report").code != 0
