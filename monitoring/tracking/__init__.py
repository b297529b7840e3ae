"""Experiment tracking: copies the numbers of trainings and evaluations to TensorBoard and MLflow."""
