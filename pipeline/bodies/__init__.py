"""Uses pipeline.show. Bodies without SMPL: Anny's, fitted to joints in metres. docs/bodies.md"""
