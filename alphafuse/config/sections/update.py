"""The section `update`: a run that continues the model of another workspace with new data."""

from __future__ import annotations

from alphafuse.config.base import Count, Positive, Section


class UpdateConfig(Section):
    """Update of a model: the parent's workspace, when its null space is kept, and how long it is trained further."""

    parent: str | None = None
    """Folder or URI of the workspace whose model is continued (`alphafuse update --from`); null: train from scratch."""
    max_lost_energy: Positive = 5e-3
    """Largest share of the variance which the best directions would hold and the kept ones do not (1 − ρ/ρ*). Beyond it
    the null space is made again and aligned with the old one."""
    max_distortion: Positive = 0.12
    """Largest root mean square by which the covariance of the whitened features differs from that of the parent
    (‖W − I‖_F / √k). Beyond it the null space is made again and aligned with the old one."""
    max_change: Positive = 0.1
    """Largest relative square by which aligned null-space features may differ from the old ones. Beyond it the model is
    trained from scratch."""
    max_epochs: Count = 10
    """Passes over the training samples at most, in the place of a larger `train.max_epochs`."""
    patience: Count = 3
    """Validations without improvement before training stops, in the place of a larger `train.patience`."""
