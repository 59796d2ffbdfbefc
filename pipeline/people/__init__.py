"""What a person is in numbers: joints, boxes, tracks, the body, rotations, cameras."""
