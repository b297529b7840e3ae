"""Checkpoints and trained models: written by a training, and read by a resume, an update or a ranking."""
