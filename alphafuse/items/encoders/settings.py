"""Settings of the item encoders. They stand apart from the encoders, so that a configuration is read without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from alphafuse.config.base import Count, Positive
from alphafuse.config.sections.model import Artifact, EncoderConfig
from alphafuse.errors import ConfigError

if TYPE_CHECKING:
    from alphafuse.config import Config


class EmbeddingsConfig(EncoderConfig):
    """Base of the settings of methods that read the language embeddings, times `decompose.scale`, and nothing else."""

    @property
    def reads(self) -> tuple[Artifact, ...]:
        return ("embeddings",)


class AlignedConfig(EmbeddingsConfig):
    """Base of the settings of methods that align the text and the ID of an item by a second loss."""

    alignment_weight: Positive = 0.1
    """Weight of the loss that aligns text and ID, beside the recommendation loss. Its negatives are those of
    `train.loss`; where the recommendation loss looks none up (`softmax`, `shard_local`, `diffusion`), `num_negatives`
    items are drawn for the batch."""


class AlphaFuseConfig(EncoderConfig):
    """Frozen whitened text features, trainable ID embeddings in their null space (AlphaFuse §3.2)."""

    name: Literal["alphafuse"] = "alphafuse"
    fusion: Literal["add", "replace"] = "add"
    """`add`: IDs are added to the null-space coordinates; `replace`: they take their place."""
    initialization: Literal["zeros", "normal"] = "zeros"
    """Initial values of the ID embeddings; `normal` has unit variance, as the whitened features. Items without a text
    begin with `normal` in any case."""
    id_space: Literal["singular", "euclidean"] = "singular"
    """Space in which IDs are learnt. `singular`: they are coordinates of the null space; `euclidean`: they lie in the
    space of the language embeddings and are projected onto the null space (an ablation of the paper)."""
    injection_space: Literal["singular", "euclidean"] = "singular"
    """Space in which text and ID are fused. `singular`: the kept directions; `euclidean`: the space of the language
    embeddings, neither whitened nor clipped, which must be as wide as the model (an ablation of the paper)."""
    frozen: bool = True
    """Keep the text features as they are; false: train them too (an ablation of the paper)."""

    @property
    def euclidean(self) -> bool:
        """Tell whether item vectors are computed with the basis of the null space."""
        return "euclidean" in (self.id_space, self.injection_space)

    @property
    def reads(self) -> tuple[Artifact, ...]:
        text: Artifact = "embeddings" if self.injection_space == "euclidean" else "features"
        return (text, "nullspace") if self.euclidean else (text,)

    @property
    def width_of_features(self) -> bool:
        return self.injection_space == "singular"

    @model_validator(mode="after")
    def _check(self) -> AlphaFuseConfig:
        if not self.frozen and (self.euclidean or self.fusion != "add" or self.initialization != "zeros"):
            raise ValueError(
                "frozen: false trains the features themselves, from where they are: it goes with fusion: add, "
                "initialization: zeros and both spaces singular"
            )
        return self

    def check(self, config: Config) -> None:
        if self.euclidean and config.train.deepspeed.bf16:
            raise ValueError(
                "train.deepspeed.bf16 would round the basis of the null space, which a euclidean id_space or "
                "injection_space projects with; set it to false"
            )

    def check_embeddings(self, hidden_dim: int, embedding_dim: int) -> None:
        if self.injection_space == "euclidean" and hidden_dim != embedding_dim:
            raise ConfigError(
                f"model.encoder.injection_space: euclidean makes item vectors as wide as the language embeddings, so "
                f"model.hidden_dim ({hidden_dim}) must be {embedding_dim}"
            )


class IdConfig(EncoderConfig):
    """Trainable ID embeddings alone, no text."""

    name: Literal["id"] = "id"
    initialization: Literal["zeros", "normal"] = "normal"
    """Initial values of the ID embeddings; `normal` has unit variance."""

    @property
    def reads(self) -> tuple[Artifact, ...]:
        return ()

    def check(self, config: Config) -> None:
        undirected = config.train.loss.similarity == "cosine" or config.model.backbone.generates
        if self.initialization == "zeros" and undirected:
            raise ValueError(
                "the encoder 'id' cannot learn from zeros with cosines, since they have no direction, nor with the "
                "backbone `dreamrec`, whose error is zero when all vectors are alike; take initialization: normal"
            )


class IDreamRecConfig(EncoderConfig):
    """Whitened features as they are, no IDs (Hu et al. 2024)."""

    name: Literal["idreamrec"] = "idreamrec"

    @property
    def width_of_features(self) -> bool:
        return True


class LLMESRConfig(AlignedConfig):
    """An ID view and a text view of every item, with cross attention between their histories (Liu et al. 2024)."""

    name: Literal["llm_esr"] = "llm_esr"

    @property
    def reads(self) -> tuple[Artifact, ...]:
        return ("features", "embeddings")

    @property
    def width_of_features(self) -> bool:
        return True


class LLMInitConfig(EncoderConfig):
    """Trainable embeddings that begin as the whitened features (Harte et al. 2023)."""

    name: Literal["llminit"] = "llminit"

    @property
    def width_of_features(self) -> bool:
        return True


class MoRecConfig(EmbeddingsConfig):
    """Language embeddings through a dense layer, no IDs (Yuan et al. 2023)."""

    name: Literal["morec"] = "morec"


class RLMRecContrastiveConfig(AlignedConfig):
    """Trainable ID embeddings, with the text mapped to them and contrasted (RLMRec-Con, Ren et al. 2024)."""

    name: Literal["rlmrec_con"] = "rlmrec_con"


class RLMRecGenerativeConfig(AlignedConfig):
    """Trainable ID embeddings, from which the text is reconstructed (RLMRec-Gen, Ren et al. 2024)."""

    name: Literal["rlmrec_gen"] = "rlmrec_gen"
    mask_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the components of an ID that are masked before the reconstruction."""


class UniSRecConfig(EmbeddingsConfig):
    """Language embeddings through a mixture of whitening experts, no IDs (Hou et al. 2022)."""

    name: Literal["unisrec"] = "unisrec"
    num_experts: Count = 8
    """Number of experts that the gate mixes."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the components of a language embedding that training drops."""


class WhitenRecConfig(EncoderConfig):
    """Whitened features in all kept directions (`decompose.directions`) through a dense layer, no IDs (Zhang et al.
    2024)."""

    name: Literal["whitenrec"] = "whitenrec"
