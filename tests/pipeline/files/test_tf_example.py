"""tf.train.Example by protobuf: TensorFlow's own bytes, what the demo data's writer writes, and
what is refused.
"""

import numpy as np
import pytest

from pipeline.demo.files import tf_example as example
from pipeline.files.formats.tfrecords import feature_values, parse_example

# As TensorFlow's own tutorial prints it: feature0 False, feature1 4, feature2 b"goat", feature3
# 0.9876
TUTORIAL = (
    b"\nR\n\x14\n\x08feature3\x12\x08\x12\x06\n\x04[\xd3|?\n\x11\n\x08feature0\x12\x05\x1a\x03\n\x01\x00"
    b"\n\x14\n\x08feature2\x12\x08\n\x06\n\x04goat\n\x11\n\x08feature1\x12\x05\x1a\x03\n\x01\x04"
)
STORED = {
    "pictures": [b"one", b""],
    "floats": np.float32([1.5, -2.5, 3]),
    "integers": np.array([7, -7]),
}
FULL = example(STORED)
KINDS = {"pictures": "bytes_list", "floats": "float_list", "integers": "int64_list"}


def read(parsed, key, most=1000):
    return feature_values(parsed, key, KINDS[key], most)


def test_tensorflow_s_own_bytes_mean_what_its_tutorial_says():
    parsed = parse_example(TUTORIAL)
    assert sorted(parsed) == ["feature0", "feature1", "feature2", "feature3"]
    assert feature_values(parsed, "feature0", "int64_list", 1) == [0]
    assert feature_values(parsed, "feature1", "int64_list", 1) == [4]
    assert feature_values(parsed, "feature2", "bytes_list", 1) == [b"goat"]
    assert feature_values(parsed, "feature3", "float_list", 1) == [float(np.float32(0.9876))]


@pytest.mark.parametrize("key", STORED)
def test_a_list_of_another_kind_and_one_with_too_many_values_are_refused(key):
    parsed = parse_example(FULL)
    assert len(read(parsed, key, len(STORED[key]))) == len(STORED[key])
    with pytest.raises(ValueError, match=f"'{key}' has {len(STORED[key])} values"):
        read(parsed, key, len(STORED[key]) - 1)
    for other in STORED.keys() - {key}:
        renamed = parse_example(
            FULL.replace(key.encode(), b"x" * len(key)).replace(other.encode(), b"y" * len(other))
        )
        with pytest.raises(ValueError, match="expected"):
            feature_values(renamed, "y" * len(other), KINDS[key], 1000)
