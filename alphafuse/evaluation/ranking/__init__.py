"""Exact ranking of the whole catalog."""
