"""A run on many ranks, played in one process: the project's own plans, and a model of what they cost."""
