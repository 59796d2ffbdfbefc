"""Seven groups of the slow tests, one for each day of the week.

    python -m tests.slow_groups 3    prints the test files of the third

`.ci/run` runs one group. A file is in one group with all of its slow tests; groups are made anew
from the seconds, so a new file needs its line alone.
"""

import sys

LIMIT_S = 20 * 60  # for a group, on a quiet machine with 2 cores
# Estimates, which leave each group half of its time; `pytest -m slow --durations=0 FILE` measures.
SECONDS = {
    "tests/cache/read/test_torch_windows.py": 30,
    "tests/cache/storage/test_object_store_writers.py": 60,
    "tests/docs/test_built_site.py": 120,
    "tests/docs/test_commands.py": 400,
    "tests/docs/test_packages.py": 60,
    "tests/pipeline/clips/labels/test_large_files.py": 120,
    "tests/pipeline/clips/test_blaze_pose.py": 20,
    "tests/pipeline/cluster/test_cluster.py": 40,
    "tests/pipeline/cluster/test_map.py": 40,
    "tests/pipeline/cluster/test_ways.py": 100,
    "tests/pipeline/datasets/test_3dpw.py": 20,
    "tests/pipeline/datasets/test_hostile_files.py": 40,
    "tests/pipeline/datasets/test_ordinary_keypoint_files.py": 40,
    "tests/pipeline/extras/bodies/test_bodies.py": 30,
    "tests/pipeline/extras/exchange/test_hub.py": 30,
    "tests/pipeline/extras/exchange/test_vibe_db_export.py": 30,
    "tests/pipeline/features/test_decoders.py": 90,
    "tests/pipeline/features/test_devices.py": 20,
    "tests/pipeline/features/test_extraction_killed.py": 120,
    "tests/pipeline/features/test_named_networks.py": 30,
    "tests/pipeline/files/test_damage_corpus.py": 60,
    "tests/pipeline/files/test_hostile_numbers.py": 60,
    "tests/pipeline/show/split/test_page_in_browser.py": 20,
    "tests/pipeline/show/test_player_browser.py": 80,
    "tests/pipeline/steps/conversion/test_killed_runs.py": 120,
    "tests/pipeline/steps/conversion/test_object_store.py": 60,
    "tests/pipeline/test_growth.py": 60,
    "tests/pipeline/test_long_clips.py": 60,
    "tests/pipeline/test_parts.py": 120,
    "tests/pipeline/test_processes.py": 30,
    "tests/pipeline/testing/test_streams.py": 60,
    "tests/tasks/report/test_browser.py": 40,
    "tests/tasks/test_ablation.py": 40,
    "tests/tasks/test_begun_commands.py": 90,
    "tests/tasks/test_messages.py": 20,
    "tests/tasks/test_what_runs.py": 40,
    "tests/tasks/test_whole_run.py": 480,
    "tests/test_benchmarks.py": 240,
    "tests/test_install.py": 120,
    "tests/test_public_names.py": 60,
    "tests/vibe_model/training/test_own_loop.py": 60,
    "tests/vibe_model/training/test_parallel.py": 60,
    "tests/vibe_model/training/test_training.py": 100,
}


def groups():
    """Files of each group: the longest first, each into the group with the fewest seconds."""
    found = [[] for _ in range(7)]
    for file in sorted(SECONDS, key=SECONDS.get, reverse=True):
        min(found, key=seconds).append(file)
    return found


def seconds(files):
    return sum(map(SECONDS.get, files))


if __name__ == "__main__":
    print(*groups()[int(sys.argv[1]) - 1])  # noqa: T201
