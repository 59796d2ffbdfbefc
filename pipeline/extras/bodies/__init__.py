"""Bodies without SMPL: those of Anny, fitted to joints (docs/bodies.md)."""
