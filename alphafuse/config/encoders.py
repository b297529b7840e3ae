"""The sections that `model.encoder` chooses from: one for every method of making item vectors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alphafuse.config.base import Count, Positive, Section

Artifact = Literal["features", "embeddings", "nullspace"]


class EncoderSection(Section):
    """Base of the encoders' sections."""

    @property
    def reads(self) -> tuple[Artifact, ...]:
        """Artefacts of the texts that the method needs."""
        return ("features",)

    @property
    def width_of_features(self) -> bool:
        """Whether features are as wide as the model: item vectors are made of them, or begin as them."""
        return False


class AlphaFuseConfig(EncoderSection):
    """Frozen whitened text features, trainable ID embeddings in their null space (AlphaFuse §3.2)."""

    name: Literal["alphafuse"] = "alphafuse"
    fusion: Literal["add", "replace"] = "add"
    """`add`: IDs are added to the null-space coordinates; `replace`: they take their place."""
    initialization: Literal["zeros", "normal"] = "zeros"
    """Of the ID embeddings; normal has unit variance, as the whitened features, and is what items without a text begin
    with in any case."""
    id_space: Literal["singular", "euclidean"] = "singular"
    """Where IDs are learnt: as coordinates of the null space, or in the space of the language embeddings, from where
    they are projected onto the null space (an ablation of the paper)."""
    injection_space: Literal["singular", "euclidean"] = "singular"
    """Where text and ID meet: in the kept directions, or in the space of the language embeddings, neither whitened nor
    clipped, whose dimension is then that of the model (an ablation of the paper)."""
    frozen: bool = True
    """false: the text features are trained too (an ablation of the paper)."""

    @property
    def euclidean(self) -> bool:
        """Whether item vectors are computed with the basis of the null space."""
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


class IdConfig(EncoderSection):
    """Trainable ID embeddings alone, no text."""

    name: Literal["id"] = "id"
    initialization: Literal["zeros", "normal"] = "normal"
    """Of the ID embeddings; normal has unit variance."""

    @property
    def reads(self) -> tuple[Artifact, ...]:
        return ()


class EmbeddingsSection(EncoderSection):
    """Base of the methods that read what the language model gave, times `decompose.scale`, and nothing else."""

    @property
    def reads(self) -> tuple[Artifact, ...]:
        return ("embeddings",)


class AlignedSection(EmbeddingsSection):
    """Base of the methods that align the text and the ID of an item by a second loss."""

    alignment_weight: Positive = 0.1
    """Of that loss, beside the one of the recommendation. It compares with the negatives of `train.loss`, or with
    `num_negatives` that are drawn for the batch where the recommendation looks none up (`softmax`, `shard_local`,
    `diffusion`)."""


class MoRecConfig(EmbeddingsSection):
    """Language embeddings through a dense layer, no IDs (Yuan et al. 2023)."""

    name: Literal["morec"] = "morec"


class WhitenRecConfig(EncoderSection):
    """Whitened features in all kept directions (`decompose.directions`) through a dense layer, no IDs (Zhang et al.
    2024)."""

    name: Literal["whitenrec"] = "whitenrec"


class IDreamRecConfig(EncoderSection):
    """Whitened features as they are, no IDs (Hu et al. 2024)."""

    name: Literal["idreamrec"] = "idreamrec"

    @property
    def width_of_features(self) -> bool:
        return True


class UniSRecConfig(EmbeddingsSection):
    """Language embeddings through a mixture of whitening experts, no IDs (Hou et al. 2022)."""

    name: Literal["unisrec"] = "unisrec"
    num_experts: Count = 8
    """Maps that a gate mixes."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """On the language embeddings."""


class LLMInitConfig(EncoderSection):
    """Trainable embeddings that begin as the whitened features (Harte et al. 2023)."""

    name: Literal["llminit"] = "llminit"

    @property
    def width_of_features(self) -> bool:
        return True


class RLMRecContrastiveConfig(AlignedSection):
    """Trainable ID embeddings, with the text mapped to them and contrasted (RLMRec-Con, Ren et al. 2024)."""

    name: Literal["rlmrec_con"] = "rlmrec_con"


class RLMRecGenerativeConfig(AlignedSection):
    """Trainable ID embeddings, from which the text is reconstructed (RLMRec-Gen, Ren et al. 2024)."""

    name: Literal["rlmrec_gen"] = "rlmrec_gen"
    mask_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the components of an ID that are masked before the reconstruction."""


class LLMESRConfig(AlignedSection):
    """An ID view and a text view of every item, with cross attention between their histories (Liu et al. 2024)."""

    name: Literal["llm_esr"] = "llm_esr"

    @property
    def reads(self) -> tuple[Artifact, ...]:
        return ("features", "embeddings")

    @property
    def width_of_features(self) -> bool:
        return True
