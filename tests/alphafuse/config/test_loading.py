"""Configuration: defaults, overrides, and errors that name the path and the nearest valid key."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from alphafuse.config import Config, load_config, parse_config
from alphafuse.errors import ConfigError

MINIMAL = "workspace: runs/x\ndata:\n  catalog: {path: items.parquet}\n  interactions: {path: log.parquet}\n"


def _load(tmp_path: Path, text: str, *overrides: str) -> Config:
    (tmp_path / "config.yaml").write_text(text)
    return load_config(tmp_path / "config.yaml", overrides)


def _tree(**sections: Any) -> dict[str, Any]:
    data = {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}}
    return {"workspace": "runs/x", "data": data, **sections}


def test_defaults_and_overrides(tmp_path: Path) -> None:
    overrides = ["train.learning_rate=1e-2", "model.encoder.name=id", "evaluate.cutoffs=[5,20]"]
    config = _load(tmp_path, MINIMAL, *overrides, "data.catalog.text={title}", "train.loss={name: bce}")
    assert (config.data.catalog.text, config.train.loss.name) == ("{title}", "bce")
    assert _load(tmp_path, MINIMAL, "data.catalog.text={title}. {genres}").data.catalog.text == "{title}. {genres}"
    assert config.train.learning_rate == 0.01
    assert config.model.encoder.name == "id"
    assert config.evaluate.cutoffs == (5, 20)
    assert config.data.catalog.path == "items.parquet"
    assert config.train.batch_size == Config.model_validate(_tree()).train.batch_size


def test_ranking_goes_by_what_was_trained_unless_told() -> None:
    assert parse_config(_tree()).similarity == "cosine"
    assert parse_config(_tree(train={"loss": {"similarity": "dot"}})).similarity == "dot"
    assert parse_config(_tree(evaluate={"similarity": "dot"})).similarity == "dot"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tran={}", "tran: unknown key; did you mean 'train'?"),
        ("train.lr=1", "train.lr: unknown key; did you mean 'train.learning_rate'?"),
        ("train.loss.temprature=1", "train.loss.temprature: unknown key; did you mean 'train.loss.temperature'?"),
        ("model.encoder.fusionn=add", "model.encoder.fusionn: unknown key; did you mean 'model.encoder.fusion'?"),
        ("model.encoder={name: id, fusion: add}", "model.encoder.fusion: unknown key; valid keys here: name, init"),
        ("embed.null_dim=3", "embed.null_dim: unknown key; did you mean 'decompose.null_dim'?"),
        ("ray.zzz=3", "ray.zzz: unknown key; valid keys here: address, num_cpus"),
        ("model.encoder.name=alphafuze", "model.encoder.name: must be one of 'alphafuse', 'id', 'morec', "),
        ("model.encoder.fusion=sum", "model.encoder.fusion: input should be 'add' or 'replace' (found 'sum')"),
        ("train.batch_size=many", "train.batch_size: input should be a valid integer"),
        ("train.batch_size=0", "train.batch_size: input should be greater than or equal to 1 (found 0)"),
        ("train=3", "train: this is a section with keys of its own, not a value (found 3)"),
        (
            "model.encoder=id",
            "model.encoder: this is a section with keys of its own, not a value (found 'id')",
        ),
        (
            "model.backbone.num_heads=5",
            "configuration: model.hidden_dim (192) must be a multiple of model.backbone.num_heads (5)",
        ),
        ("workspace=s3://bucket/run?region=eu", "configuration: workspace must not have a query ('?…')"),
        (
            "decompose={row_energy: 0.9, null_dim: 3}",
            "decompose: only one of null_dim, null_threshold, row_energy can cut (set: null_dim, row_energy)",
        ),
        (
            "decompose.null_dim=200",
            "configuration: decompose.null_dim (200) must be smaller than the number of kept directions (192",
        ),
        (
            "decompose.directions=256",
            "configuration: the encoder 'alphafuse' takes the features as they are, so decompose.directions (256) must "
            "be model.hidden_dim (192)",
        ),
        (
            "model.encoder={frozen: false, fusion: replace}",
            "model.encoder: frozen: false trains the features themselves",
        ),
        ("train.monitor=ndcg@7", "configuration: train.monitor 'ndcg@7' is not measured; valid: hr@1"),
        ("train.deepspeed.bf16=true", "train.deepspeed: `bf16` needs zero_stage 1 or 2"),
        (
            "model.backbone.name=bert4rec",
            "model.backbone.name: must be one of 'sasrec', 'ligr', 'gru4rec', 'hstu', 'dreamrec'",
        ),
        (
            "model.backbone={name: hstu, num_heads: 5}",
            "configuration: model.hidden_dim (192) must be a multiple of model.backbone.num_heads (5)",
        ),
        (
            "model.backbone={name: gru4rec, num_heads: 2}",
            "model.backbone.num_heads: unknown key; did you mean 'model.backbone.num_layers'?",
        ),
        (
            "model.backbone={name: dreamrec, timesteps: 50}",
            "model.backbone: sampling_stride (100) must not be greater than timesteps (50)",
        ),
        (
            "model.backbone={name: dreamrec, condition_dropout: 0}",
            "model.backbone: `guidance` needs a condition_dropout above 0",
        ),
        ("model.backbone={name: dreamrec, schedule: square}", "model.backbone.schedule: input should be 'linear', "),
        ("model.backbone={name: dreamrec, beta_range: [0.1, 1]}", "model.backbone.beta_range.1: input should be less"),
        ("train.loss.name=diffusion", "train.loss: `diffusion` generates item vectors, which are ranked by"),
        (
            "model.backbone.name=dreamrec",
            "configuration: model.backbone.name `dreamrec` and train.loss.name `diffusion` go together "
            "(found `dreamrec` and `sampled_softmax`)",
        ),
        (
            "train.loss={name: diffusion, similarity: dot}",
            "configuration: model.backbone.name `dreamrec` and train.loss.name `diffusion` go together "
            "(found `sasrec` and `diffusion`)",
        ),
    ],
)
def test_errors_name_the_path_and_the_remedy(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        _load(tmp_path, MINIMAL, override)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("encoder", ["idreamrec", "llminit", "llm_esr"])
def test_features_that_are_taken_as_they_are_fit_the_model(encoder: str) -> None:
    with pytest.raises(ConfigError, match=f"the encoder '{encoder}' takes the features as they are"):
        parse_config(_tree(model={"encoder": {"name": encoder}}, decompose={"directions": 256}))


@pytest.mark.parametrize("encoder", [{"name": "whitenrec"}, {"name": "morec"}, {"injection_space": "euclidean"}])
def test_other_methods_take_any_number_of_directions(encoder: dict[str, str]) -> None:
    assert parse_config(_tree(model={"encoder": encoder}, decompose={"directions": 256})).directions == 256


def test_a_null_space_is_not_asked_of_methods_that_read_none() -> None:
    small, cut = {"hidden_dim": 32}, {"null_dim": 64}
    for name in ("id", "morec", "unisrec", "rlmrec_con"):
        assert parse_config(_tree(model={**small, "encoder": {"name": name}}, decompose=cut)).model.hidden_dim == 32
    with pytest.raises(ConfigError, match=r"decompose\.null_dim \(64\) must be smaller"):
        parse_config(_tree(model={**small, "encoder": {"name": "llminit"}}, decompose=cut))
    assert parse_config(_tree(model={**small, "encoder": {"name": "llminit"}})).directions == 32


def test_the_basis_of_the_null_space_is_not_rounded() -> None:
    half = {"deepspeed": {"bf16": True, "zero_stage": 1}}
    assert parse_config(_tree(train=half)).train.deepspeed.bf16
    with pytest.raises(ConfigError, match="would round the basis of the null space"):
        parse_config(_tree(train=half, model={"encoder": {"id_space": "euclidean"}}))


def test_generated_item_vectors_are_ranked_by_inner_products() -> None:
    tree = _tree(model={"backbone": {"name": "dreamrec"}}, train={"loss": {"name": "diffusion", "similarity": "dot"}})
    assert parse_config(tree).similarity == "dot"
    with pytest.raises(ConfigError, match=r"evaluate\.similarity must be `trained` or `dot` with .*, not `cosine`"):
        parse_config({**tree, "evaluate": {"similarity": "cosine"}})


def test_ids_that_cannot_learn_are_refused() -> None:
    zeros = {"encoder": {"name": "id", "initialization": "zeros"}}
    dot = {"loss": {"similarity": "dot"}}
    assert parse_config(_tree(model=zeros, train=dot)).model.encoder.name == "id"
    with pytest.raises(ConfigError, match="the encoder 'id' cannot learn from zeros"):
        parse_config(_tree(model=zeros))
    diffusion = {"loss": {"name": "diffusion", "similarity": "dot"}}
    with pytest.raises(ConfigError, match="the encoder 'id' cannot learn from zeros"):
        parse_config(_tree(model={**zeros, "backbone": {"name": "dreamrec"}}, train=diffusion))


@pytest.mark.parametrize(("timesteps", "left"), [(2000, None), (500, None), (200, "13%"), (100, "36%")])
def test_sampling_begins_where_the_noise_has_left_little(timesteps: int, left: str | None) -> None:
    """1 − ∏ (1 − β) for β from 1e-4 to 0.02, by hand: 0.6% is left after 500 steps, 13% after 200, 36% after 100."""
    loss = {"loss": {"name": "diffusion", "similarity": "dot"}}
    tree = _tree(model={"backbone": {"name": "dreamrec", "timesteps": timesteps}}, train=loss)
    if left is None:
        assert parse_config(tree).model.backbone.name == "dreamrec"
        return
    with pytest.raises(ConfigError, match=rf"{timesteps} timesteps beta_range .* leaves {left} of the signal"):
        parse_config(tree)


def test_noise_grows_with_the_steps() -> None:
    with pytest.raises(ConfigError, match="must not fall"):
        parse_config(_tree(model={"backbone": {"name": "dreamrec", "beta_range": [0.5, 0.1]}}))


def test_all_errors_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse_config({"workspace": "x", "data": {"catalog": {}, "interactions": {"path": 3}}, "seed": -1})
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == [
        "seed",
        "data.catalog.path",
        "data.interactions.path",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train", "expected key.path=value"),
        (".x=1", "expected key.path=value"),
        ("workspace.x=1", "workspace is a value, not a section"),
        ("train.loss={", "section with keys of its own"),
        ("train.lr=1", "did you mean 'train.learning_rate'"),
    ],
)
def test_bad_overrides_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _load(tmp_path, MINIMAL, override)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*nothing\.yaml: No such file"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        _load(tmp_path, "a: [")
    with pytest.raises(ConfigError, match="expected keys and values at the top level, found list"):
        _load(tmp_path, "- a")


def test_errors_name_the_line_of_the_file(tmp_path: Path) -> None:
    content = """\
workspace: run
data:
  catalog: {path: items.parquet}
  interactions:
    pth: log.parquet
train: {learning_rate: fast,
        patience: 0}
"""
    places = {
        "data.interactions.path: this key is required": 4,  # the section that lacks it
        "data.interactions.pth: unknown key": 5,
        "train.learning_rate: input should be a valid number": 6,
        "train.patience: input should be greater than or equal to 1": 7,
    }
    with pytest.raises(ConfigError) as error:
        _load(tmp_path, content)
    for line, (message, number) in zip(str(error.value).splitlines(), places.items(), strict=True):
        assert line.startswith(message)
        assert line.endswith(f"(found 'fast') ({tmp_path}/config.yaml, line 6)" if number == 6 else f", line {number})")
    with pytest.raises(ConfigError) as error:
        _load(tmp_path, content, "train.learning_rate=slow")
    assert "(found 'slow')\n" in str(error.value)  # which does not stand in the file


CONFIGURATIONS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda p: p.name)
def test_the_schema_for_editors_agrees(path: Path) -> None:
    check = Draft202012Validator(Config.model_json_schema())
    tree = yaml.safe_load(path.read_text())
    check.validate(tree)
    assert not check.is_valid({**tree, "trian": {}})
    for name, valid in (("unisrec", True), ("shop.encoders:TextPlusId", True), ("unisrek", False)):
        tree["model"] = {"encoder": {"name": name}}
        assert check.is_valid(tree) == valid
    tree["model"] = {"encoder": {"fusion": "replace"}}  # of the default encoder
    check.validate(tree)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda p: p.name)
def test_ready_made_configurations_are_valid(path: Path) -> None:
    assert load_config(path).workspace.startswith("runs/")


@pytest.mark.parametrize("chosen", ["seed=22", "model.encoder.name=llm_esr", "model.backbone.name=hstu"])
def test_a_configuration_that_was_written_is_the_same_when_it_is_read(tmp_path: Path, chosen: str) -> None:
    """To the letter: fingerprints are made from the values of settings, and 8 is not 8.0 in them."""
    written = _load(tmp_path, MINIMAL, chosen).model_dump(mode="json")
    assert json.dumps(_load(tmp_path, yaml.safe_dump(written)).model_dump(mode="json")) == json.dumps(written)


LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in pairwise("abcdefghij")
)
"""Ten lines of aliases that stand for 10^10 values."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(LAUGHS, "stands for 12,345,679,021 values, more than 100,000", id="aliases"),
        pytest.param("a: &a {x: 1}\n" + "".join(
            f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 10)}]}}\n" for before, name in pairwise("abcdefghi")
        ), "values, more than 100,000", id="merged keys"),
        pytest.param("a: &a [*a]", "an alias stands inside of what it names", id="an endless alias"),
        pytest.param("x: " + 200 * "[" + 200 * "]", "is nested deeper than 50 levels", id="depth"),
        pytest.param("x: " + 10**5 * "[", "is (nested deeper|not valid YAML)", id="more depth"),
        pytest.param("# " + 2**20 * "x", "is larger than 1 MiB", id="size"),
        pytest.param("x: !!int y", "is not valid YAML", id="a number that is none"),
        pytest.param("x: !!timestamp y", "is not valid YAML", id="a time that is none"),
        pytest.param("x: 2026-99-99", "is not valid YAML", id="a date that is none"),
        pytest.param("x: " + 5000 * "9", "is not valid YAML", id="a number of too many digits"),
        pytest.param("x: !!python/object/apply:os.getcwd []", "is not valid YAML", id="code"),
        pytest.param("a: 1\n---\nb: 2", "holds 2 documents instead of one", id="two documents"),
        pytest.param("x: \0", "is not valid YAML", id="a control character"),
    ],
)  # fmt: skip
def test_hostile_files_are_refused_at_once(tmp_path: Path, content: str, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError, match=message):
        _load(tmp_path, content)
    assert time.monotonic() - started < 5


def test_aliases_are_read(tmp_path: Path) -> None:
    aliases = MINIMAL.replace("{path: items.parquet}", "&same {path: items.parquet}").replace(
        "{path: log.parquet}", "{<<: *same}"
    )
    assert _load(tmp_path, aliases).data.interactions.path == "items.parquet"


@pytest.mark.parametrize(
    "setting", ["train.resources.gpus=.inf", "train.learning_rate=.nan", "data.split.cold_items=.nan"]
)
def test_numbers_are_finite(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"{setting.split('=')[0]}: input should be a finite number"):
        _load(tmp_path, MINIMAL, setting)
