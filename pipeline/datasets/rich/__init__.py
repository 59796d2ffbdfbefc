"""RICH: its reader, its label files, and its bodies as a camera sees them."""
