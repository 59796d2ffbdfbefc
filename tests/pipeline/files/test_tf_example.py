"""tf.train.Example by protobuf: TensorFlow's own bytes, what the demo data's writer writes, and
what is refused.
"""

import numpy as np

from pipeline.files.formats.tfrecords import feature_values, parse_example

# As TensorFlow's own tutorial prints it: feature0 False, feature1 4, feature2 b"goat", feature3
# 0.9876
TUTORIAL = (
    b"\nR\n\x14\n\x08feature3\x12\x08\x12\x06\n\x04[\xd3|?\n\x11\n\x08feature0\x12\x05\x1a\x03\n\x01\x00"
    b"\n\x14\n\x08feature2\x12\x08\n\x06\n\x04goat\n\x11\n\x08feature1\x12\x05\x1a\x03\n\x01\x04"
)


def test_tensorflow_s_own_bytes_mean_what_its_tutorial_says():
    parsed = parse_example(TUTORIAL)
    assert sorted(parsed) == ["feature0", "feature1", "feature2", "feature3"]
    assert feature_values(parsed, "feature0", "int64_list", 1) == [0]
    assert feature_values(parsed, "feature1", "int64_list", 1) == [4]
    assert feature_values(parsed, "feature2", "bytes_list", 1) == [b"goat"]
    assert feature_values(parsed, "feature3", "float_list", 1) == [float(np.float32(0.9876))]
