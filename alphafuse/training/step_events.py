"""What the events `step` and `worker` of a training hold beside their numbers: seconds of phases, and counts."""

PHASES = ("data", "lookup", "forward", "backward", "exchange", "optimizer")
"""What a step consists of; the values are `PHASE_seconds`. `exchange` is all that waits for other ranks, but for the
averaging of the dense gradients, which the engine does in its backward pass."""

OWN_PHASES = ("data", "lookup", "forward", "optimizer")
"""Those in which a rank waits for no other."""

COUNTS = ("rows_requested", "rows_distinct", "rows_served", "rows_touched", "bytes_sent")
"""What is counted in a step: item indices looked up, different ones among them, rows of this rank that all ranks asked
for, rows of this rank that were updated, bytes for other ranks."""
