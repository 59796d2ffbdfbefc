"""Part-based 3D dynamics with uncertainty (after Lee and Lee, ICCV 2021): a decoder split by body regions."""
