"""Losses: how far a prediction is from a target, as one number to descend."""
