"""Errors of predictions on a split.  features -> windows -> training -> [evaluation]"""
