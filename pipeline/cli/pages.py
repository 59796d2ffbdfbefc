"""Pages of the documentation that messages name, with the heading that answers.

If a page moves, its constant changes, and no message. tests/docs/test_pages.py looks for each
heading.
"""

from __future__ import annotations

from typing import Final

ADDING_A_DETECTOR: Final = "docs/adding-a-detector.md"
ARRAYS: Final = "docs/features.md#import-an-array"
CACHE_FORMAT: Final = "docs/cache-format.md"
DASK: Final = "docs/clusters.md#dask-several-machines"
DIGESTS: Final = "docs/digests.md"
EXIT_CODES: Final = "docs/terminal.md#exit-codes"
H36M_FILES: Final = "docs/datasets/h36m.md#layout"
JOINTS_BY_NUMBER: Final = "docs/datasets/kinetics.md"
JOINT_ORDERS: Final = "docs/joint-orders.md"
KEYPOINT_FILES: Final = "docs/clips/keypoint-files.md"
ONNX: Final = "docs/features.md#onnx-graphs"
REMOVE_A_PERSON: Final = "docs/remove-a-person.md"
RESULTS: Final = "docs/results.md"
RTMPOSE: Final = "docs/clips/detecting.md#rtmpose"
SAM_3D_BODY: Final = "docs/results.md#sam-3d-body"
SETTINGS: Final = "docs/settings.md"
