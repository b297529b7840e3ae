"""Experiment tracking: what a training reports, in the tools that teams keep their experiments in."""
