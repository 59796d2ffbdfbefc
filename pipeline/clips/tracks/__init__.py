"""Detections of people in clips, linked to tracks."""
