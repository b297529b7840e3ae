"""Settings of embedding that depend on the device."""

from __future__ import annotations

from alphafuse.config import EmbedConfig


def test_a_gpu_gets_larger_batches_where_none_is_set() -> None:
    assert EmbedConfig().texts_per_batch == 512
    on_a_gpu = {"gpus": 0.5}
    assert EmbedConfig(resources=on_a_gpu).texts_per_batch == 8192  # type: ignore[arg-type]
    assert EmbedConfig(resources=on_a_gpu, batch_size=7).texts_per_batch == 7  # type: ignore[arg-type]
