"""What the workspace of a run tells of it, while it lives and afterwards: its state, and what it has reported."""
