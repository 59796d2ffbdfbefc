"""Predictions of a trained model on the tracks of a split.  features -> windows -> [prediction] -> evaluation"""
