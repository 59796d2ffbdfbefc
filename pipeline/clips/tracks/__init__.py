"""Detections linked to people over time, left and right put right, switches found."""
