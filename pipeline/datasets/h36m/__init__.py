"""Human3.6M: its reader, two layouts of its files, and other authors' SMPL fits."""
