"""Items that are hidden from a step: how many, which, and that they do not depend on how the batch is divided."""

from __future__ import annotations

import numpy as np
import pytest

from alphafuse.data.sampling.batches import Batch
from alphafuse.data.sampling.item_mask import mask_items, masked_steps
from alphafuse.data.sampling.negative_draws import shared_negatives
from alphafuse.data.sampling.samples import PADDING

LENGTH, SAMPLES = 6, 400


def _batch(samples: int = SAMPLES, first_sample: int = 0) -> Batch:
    histories = np.arange(first_sample, first_sample + samples)[:, None] * LENGTH + np.arange(LENGTH)
    return Batch(histories, histories + 1, first_sample)


def _hidden(batch: Batch, step: int = 3, share: float = 0.3, seed: int = 7) -> np.ndarray:
    masked = mask_items(batch, seed, step, share)
    hidden: np.ndarray = masked.histories == PADDING
    assert np.array_equal(masked.histories[~hidden], batch.histories[~hidden])
    assert masked.targets is batch.targets
    return hidden


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_share_of_all_places_is_hidden(share: float) -> None:
    hidden = _hidden(_batch(), share=share)
    deviation = (share * (1 - share) / hidden.size) ** 0.5
    assert hidden.mean() == pytest.approx(share, abs=4 * deviation)
    assert hidden.mean(axis=0) == pytest.approx(np.full(LENGTH, share), abs=4 * deviation * LENGTH**0.5)


def test_a_part_of_the_batch_hides_its_part() -> None:
    whole = _hidden(_batch())
    parts = [_hidden(_batch(stop - start, start)) for start, stop in ((0, 7), (7, 8), (8, SAMPLES))]
    assert np.array_equal(np.concatenate(parts), whole)


def test_each_step_and_each_seed_hides_others() -> None:
    found = [_hidden(_batch(), step, seed=seed) for step, seed in ((3, 7), (4, 7), (3, 8))]
    for number, hidden in enumerate(found):
        for other in found[:number]:
            assert (hidden & other).mean() == pytest.approx(0.09, abs=0.03)  # as of independent draws


def test_steps_are_numbered_from_the_first_one_on() -> None:
    steps = masked_steps([[_batch(4)], [_batch(4), _batch(3, 4)]], seed=7, first=3, share=0.3)
    found = [[batch.histories == PADDING for batch in batches] for batches in steps]
    assert np.array_equal(found[0][0], _hidden(_batch(4), step=3))
    assert np.array_equal(found[1][1], _hidden(_batch(3, 4), step=4))


def test_what_is_hidden_does_not_follow_the_negatives() -> None:
    """Both are drawn by counters from the seed and the step, but not from the same words."""
    hidden = _hidden(_batch(), share=0.5).ravel()
    negatives = shared_negatives(7, 3, SAMPLES * 8, 2).reshape(SAMPLES, 8)[:, :LENGTH].ravel()
    assert np.corrcoef(hidden, negatives)[0, 1] == pytest.approx(0, abs=0.1)
