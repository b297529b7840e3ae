"""Prometheus metrics of runs and workers, and the lists that tell Prometheus where they are served."""
