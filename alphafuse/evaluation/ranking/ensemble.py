"""Combines several trained models into one: the score of an item is the sum of their scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from alphafuse.errors import AlphafuseError
from alphafuse.evaluation.scorer import Scorer


class Ensemble:
    """A `Scorer` that sums the scores of its members; to be ranked by the similarity `dot`.

    It concatenates the vectors and states of the members, so that its dot product is the sum of the members' dot
    products. Vectors and states of a member that scores by the cosine are scaled to unit length first. All cosines have
    the same scale; dot products have not, so that the member with the larger spread of dot products decides most of the
    ranking, as with any plain sum of scores.

    Args:
        members: models of the same catalog, on the same ranks.
        similarities: "cosine" or "dot", for each member.

    Raises:
        AlphafuseError: the members have catalogs of different size.
    """

    def __init__(self, members: Sequence[Scorer], similarities: Sequence[str]) -> None:
        if len({(member.num_items, member.first_row) for member in members}) > 1:
            sizes = ", ".join(str(member.num_items) for member in members)
            raise AlphafuseError(
                f"the models of an ensemble must have the same items; their numbers of items are {sizes}"
            )
        self.num_items = members[0].num_items
        self.first_row = members[0].first_row
        self.history_length = max(member.history_length for member in members)
        self._members = members
        self._similarities = similarities

    def item_vectors(self) -> torch.Tensor:
        """Concatenated vectors of this rank's items: [rows of this rank, sum of the members' dims]."""
        return self._joined([member.item_vectors() for member in self._members])

    def hidden_states(self, histories: torch.Tensor) -> torch.Tensor:
        """Concatenated states: [queries, sum of the members' dims]. Each member gets as many items of a history as it
        takes. A collective."""
        return self._joined(
            [member.hidden_states(latest_items(histories, member.history_length)) for member in self._members]
        )

    def _joined(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        scaled = [
            functional.normalize(part.float(), dim=1) if similarity == "cosine" else part.float()
            for part, similarity in zip(parts, self._similarities, strict=True)
        ]
        return torch.cat(scaled, dim=1)


def latest_items(histories: torch.Tensor, length: int) -> torch.Tensor:
    """Last items of histories [queries, any length]: [queries, ≤ length]. Both are padded with −1 at the end."""
    kept = (histories >= 0).sum(dim=1, keepdim=True)  # [queries, 1]
    offsets = torch.arange(min(length, histories.shape[1]), device=histories.device)
    index = (kept - length).clamp(min=0) + offsets
    return torch.where(index < kept, histories.gather(1, index.clamp(max=histories.shape[1] - 1)), -1)
