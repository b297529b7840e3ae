"""RLMRec's two alignments: the mapped views, masks, and that the item vector is the ID."""

from __future__ import annotations

import torch
from support.definitions.gradients import assert_same

from alphafuse.items.encoders.base import FrozenFeatures
from alphafuse.items.encoders.rlmrec_con import RLMRecContrastiveEncoder
from alphafuse.items.encoders.rlmrec_gen import RLMRecGenerativeEncoder

EMBEDDINGS = FrozenFeatures("embeddings", slice(0, 6), 40.0)


def _rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 6, generator=generator).double(), torch.randn(5, 4, generator=generator).double()


def _perceptron(layers: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    first, first_bias, second, second_bias = layers.parameters()
    assert first.shape[0] == 5  # half way between 6 and 4
    hidden = rows @ first.T + first_bias
    return torch.where(hidden > 0, hidden, 0.01 * hidden) @ second.T + second_bias


def test_contrast_maps_the_text_to_the_id() -> None:
    encoder = RLMRecContrastiveEncoder(EMBEDDINGS, 4, 0.1).double()
    text, ids = _rows()
    anchor, contrasted = encoder.alignment_views(text, ids)
    assert torch.equal(anchor, ids)
    assert_same(contrasted, _perceptron(encoder.text_to_id, text), list(encoder.parameters()))
    assert torch.equal(encoder(text, ids), ids)
    assert (encoder.alignment_weight, encoder.frozen, encoder.trainable_dim) == (0.1, EMBEDDINGS, 4)


def test_reconstruction_maps_the_id_to_the_text() -> None:
    encoder = RLMRecGenerativeEncoder(EMBEDDINGS, 4, 0.1, mask_ratio=0.0).double()
    text, ids = _rows()
    ids.requires_grad_()
    reconstructed, original = encoder.alignment_views(text, ids)
    assert torch.equal(original, text)
    assert_same(reconstructed, _perceptron(encoder.id_to_text, ids), [ids, *encoder.parameters()])
    assert torch.equal(encoder(text, ids), ids)


def test_reconstruction_is_from_masked_ids() -> None:
    encoder = RLMRecGenerativeEncoder(EMBEDDINGS, 4, 0.1, mask_ratio=0.5).double()
    text, ids = _rows()
    ids.requires_grad_()
    torch.manual_seed(1)
    reconstructed, _ = encoder.alignment_views(text, ids)
    torch.manual_seed(1)
    masked = torch.nn.functional.dropout(ids, 0.5)
    assert 0 < (masked == 0).sum() < masked.numel()
    assert_same(reconstructed, _perceptron(encoder.id_to_text, masked), [ids, *encoder.parameters()])
    assert torch.equal(encoder(text, ids), ids)  # recommendations use unmasked vectors
