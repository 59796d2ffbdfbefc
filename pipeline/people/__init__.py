"""What a person is in numbers: joints, boxes and crops, tracks, the body, rotations, cameras."""
