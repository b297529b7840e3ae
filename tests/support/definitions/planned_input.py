"""Inputs of the dense part of a model made by hand, without a table: the rows are all items of a small catalog."""

from __future__ import annotations

from typing import Any

import torch

from alphafuse.items.item_table import Rows
from alphafuse.items.lookup_plan import LookupPlan
from alphafuse.items.row_sums import Gathering, RowSums
from alphafuse.training.objectives.step_input import StepInput, plan_input


def planned_input(
    histories: torch.Tensor, targets: torch.Tensor, negatives: torch.Tensor, text: torch.Tensor, ids: torch.Tensor
) -> tuple[StepInput[Any], Rows]:
    """Input of a micro-batch and its rows: features `text` and trainable `ids` of items 0, 1, …, [items, dim] each."""
    given, items = plan_input(histories.numpy(), targets.numpy(), negatives.numpy(), 0.0, None, one_each=False)
    order, starts = [], []
    for row in range(len(ids)):
        starts.append(len(order))
        order += [place for place, item in enumerate(items) if item == row]
    places = torch.from_numpy(items).clamp(min=0)
    gathering = Gathering(places, RowSums(torch.tensor(order), torch.tensor(starts)))
    return given, Rows(text, ids, LookupPlan(torch.arange(len(ids)), gathering, [len(ids)], [len(ids)]))
