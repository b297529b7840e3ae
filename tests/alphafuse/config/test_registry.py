"""Encoders and backbones by name: settings as earlier versions wrote them, and classes of a user's own package."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.workspaces.own_package import OWN_MODEL, write_own_package

from alphafuse.config import BackboneConfig, Config, EncoderConfig, parse_config
from alphafuse.config.registry import BACKBONES, ENCODERS, Registry
from alphafuse.errors import ConfigError
from alphafuse.items.encoders.base import ItemEncoder
from alphafuse.recommenders.base import Backbone
from alphafuse.storage.manifest import fingerprint

DIFFUSION = {"name": "diffusion", "similarity": "dot"}

# Fingerprints of trained models contain these settings: with a changed one, a model would be trained again.
FINGERPRINTS: list[tuple[dict[str, Any], str]] = [
    ({}, "706c92673744aa636f38ac3dc7cceed7b6d9d60544d1ca904b1a17835bae1c8a"),
    ({"encoder": {"name": "alphafuse"}}, "706c92673744aa636f38ac3dc7cceed7b6d9d60544d1ca904b1a17835bae1c8a"),
    ({"encoder": {"name": "id"}}, "5d557c1b116ddb5ad57fd1bf56f5e4b087a2f12b83578e012e05d4085a8cdd13"),
    ({"encoder": {"name": "morec"}}, "5874fae3c77474ceede85eff8fa81e94ce226f6f7cddcdcd15dc9d0f92759ed0"),
    ({"encoder": {"name": "whitenrec"}}, "71286b99759861127efc4ea046f6bb49aec660827f4a8b5c3dc5fa1c073dd206"),
    ({"encoder": {"name": "idreamrec"}}, "92e24c42974a0bc419032e33e1a93cb1fbc539497944a16682a03e6e1b32fcc0"),
    ({"encoder": {"name": "unisrec"}}, "97ef549493705e2a22868a86530ae348c26ceb489aa58de4239a48d53182e8e2"),
    ({"encoder": {"name": "llminit"}}, "248b9b934732a5bf61139804d0780f3e5b5d5e321c1f572149c49d6a1c571d46"),
    ({"encoder": {"name": "rlmrec_con"}}, "7ada9f9b6775f808648bb4abcef790220f9ccfd1f6a78b8f433b93982f299ccb"),
    ({"encoder": {"name": "rlmrec_gen"}}, "6e3f407300632f45e8cb241f5a38609a6d79e0c93e74997750c62d9b637f090f"),
    ({"encoder": {"name": "llm_esr"}}, "d2b0734b5828b283e1d719503dc4a9fd284a2362ffea987951d529f9b8b06473"),
    ({"backbone": {"name": "sasrec"}}, "706c92673744aa636f38ac3dc7cceed7b6d9d60544d1ca904b1a17835bae1c8a"),
    ({"backbone": {"name": "gru4rec"}}, "4ccbf268e9e0de9d5aae6ee2b8a35196f3d3501614cf4bf6ddf6206de8317f7e"),
    ({"backbone": {"name": "hstu"}}, "5ef0130202520b1e03a30f41a4785f525d6df7e8bfc0652bc99f142a10cfd494"),
    ({"backbone": {"name": "dreamrec"}}, "95add34e548786e8d580081533e30e7f0fb536418d9a619df3f8564cbe76b638"),
    (
        {"encoder": {"fusion": "replace", "initialization": "normal", "id_space": "euclidean"}},
        "30a2be54b6de7eb201b25ad9f90aad950a0252b079a1b840238ec3f29cff5024",
    ),
    ({"encoder": {"frozen": False}}, "1f9acff83f5a2f650dfd3d87148f8c5c8a4f7756e6f52010928cae1706253e53"),
    (
        {"encoder": {"name": "unisrec", "num_experts": 4, "dropout": 0}},
        "65e3efdf85a7856880725a2d215a6d7b19ec3f5773442ffd11f4af8351f5259b",
    ),
    (
        {"encoder": {"name": "rlmrec_gen", "alignment_weight": 1, "mask_ratio": 0}},
        "df40140ea0f9ab13fcb39b1d522d55be8ba201b4165b175e902aa5576b9f69c8",
    ),
    (
        {"backbone": {"name": "gru4rec", "state_dim": 64, "num_layers": 2}},
        "f03e304dc76e848dd1bba7e82dc847e03e62ca5bff47549d3fc681a55d0a337b",
    ),
    ({"backbone": {"num_heads": 4, "dropout": 0}}, "fa56fc3b1dff420560fc8278ff0822488530fa6152742c00066397a5673fa8cf"),
    (
        {
            "hidden_dim": 32,
            "encoder": {"name": "id"},
            "backbone": {"name": "dreamrec", "timesteps": 500, "guidance": 2, "beta_range": [0.001, 0.1]},
        },
        "ea299d0e9d1fdf67ee4c0669681efb9cf92a071daa12c3259b56a949da0d3e4a",
    ),
]


def _parse(**model: Any) -> Config:
    loss = DIFFUSION if model.get("backbone", {}).get("name") == "dreamrec" else {}
    data = {"catalog": {"path": "items.parquet"}, "interactions": {"path": "log.parquet"}}
    return parse_config({"workspace": "runs/x", "data": data, "model": model, "train": {"loss": loss}})


@pytest.mark.parametrize(("model", "expected"), FINGERPRINTS, ids=lambda value: json.dumps(value)[:60])
def test_settings_have_the_fingerprint_that_they_always_had(model: dict[str, Any], expected: str) -> None:
    """With the defaults of before written out."""
    backbone = {"dropout": 0.1, **model.get("backbone", {})}
    config = _parse(**{"hidden_dim": 128, **model, "backbone": backbone})
    assert fingerprint(config.model.model_dump(mode="json")) == expected


def test_settings_are_written_whole() -> None:
    assert _parse(encoder={"name": "unisrec", "dropout": 0}, backbone={"num_heads": 4}).model.model_dump() == {
        "hidden_dim": 192,
        "history_length": 10,
        "encoder": {"name": "unisrec", "num_experts": 8, "dropout": 0.0},
        "backbone": {"name": "sasrec", "num_layers": 1, "num_heads": 4, "dropout": None},
    }


@pytest.mark.parametrize(
    ("registry", "name"), [(registry, name) for registry in (ENCODERS, BACKBONES) for name in registry.built_in]
)
def test_settings_without_values_choose_their_own_class(registry: Registry, name: str) -> None:
    settings = registry.find(name).settings_class()
    assert settings.name == name
    assert registry.find(name).settings_class is type(settings)


def test_a_configuration_is_read_without_torch() -> None:
    """With every encoder and backbone; a message about a wrong key asks all of them."""
    tree = {"workspace": "x", "data": {"catalog": {"path": "a"}, "interactions": {"path": "b"}}}
    code = f"""
import sys
from alphafuse.config import parse_config
from alphafuse.config.registry import BACKBONES, ENCODERS
from alphafuse.errors import ConfigError

parse_config({tree})
for section, registry in (("encoder", ENCODERS), ("backbone", BACKBONES)):
    for name in registry.built_in:
        for settings in ({{"name": name}}, {{"name": name, "wrong": 1}}):
            try:
                parse_config({tree} | {{"model": {{section: settings}}}})
            except ConfigError:
                pass
print("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import math\n1 / 0\n", "ZeroDivisionError: division by zero"),
        ("x = 1\ndef broken(:\n", "SyntaxError: invalid syntax"),
        ("x = 1\nraise RuntimeError\n", "RuntimeError: without a message"),
        ("import json\nopen('/does/not/exist')\n", "FileNotFoundError"),
        ("x = 1\nx.nothing\n", "'int' object has no attribute 'nothing'"),
        ("x = 1\nimport does_not_exist\n", "No module named 'does_not_exist'"),
        ("x = 1\nexit('bye')\n", "SystemExit: bye"),
    ],
)
def test_code_that_fails_as_it_is_imported_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    """The message names the module, the error, the file and the line (all of these fail in line 2)."""
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / f"broken_{abs(hash(code))}.py"
    file.write_text(code)
    with pytest.raises(ConfigError) as error:
        _parse(encoder={"name": f"{file.stem}:Encoder"})
    message = str(error.value)
    assert f"model.encoder.name: cannot import '{file.stem}:Encoder'" in message
    assert said in message
    assert f"({file}, line 2)" in message


class NoSettings(ItemEncoder):
    """A class without `settings_class`."""


class OtherSettings(ItemEncoder):
    settings_class = Config  # type: ignore[assignment]


class Unfinished(Backbone):
    """A class without `build` and `forward`."""

    settings_class = BackboneConfig


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own_package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("shop", "shop.encoders", "shop.backbones"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("own_package")
def test_settings_of_a_class_of_ones_own_are_checked_written_and_read_again() -> None:
    config = _parse(**OWN_MODEL)
    assert config.model.encoder.reads == ("embeddings",)
    written = config.model_dump(mode="json")
    assert written["model"]["encoder"] == {"name": "shop.encoders:TextPlusId", "initialization": "normal"}
    assert written["model"]["backbone"] == {"name": "shop.backbones:RecentMean", "decay": 0.5}
    assert parse_config(written) == config == pickle.loads(pickle.dumps(config))
    assert _parse(backbone={"name": "shop.backbones:RecentMean"}).model.model_dump()["backbone"]["decay"] == 0.7


@pytest.mark.usefixtures("own_package")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"encoder": {"name": "shop.encoders:TextPlusId", "initialisation": "zeros"}},
            "model.encoder.initialisation: unknown key; did you mean 'model.encoder.initialization'?",
        ),
        (
            {"backbone": {"name": "shop.backbones:RecentMean", "heads": 2}},
            "model.backbone.heads: unknown key; ",
        ),
        (
            {"backbone": {"name": "shop.backbones:RecentMean", "decay": 2}},
            "model.backbone.decay: input should be less than 1 (found 2)",
        ),
        (
            {"encoder": {"name": "shop.encoders:TextPlus"}},
            "model.encoder.name: cannot import 'shop.encoders:TextPlus': module 'shop.encoders' has no attribute "
            "'TextPlus'",
        ),
        (
            {"encoder": {"name": "shopp.encoders:TextPlusId"}},
            "model.encoder.name: cannot import 'shopp.encoders:TextPlusId' (No module named 'shopp'); its package must",
        ),
        (
            {"encoder": {"name": "shop.backbones:RecentMean"}},
            "model.encoder.name: 'shop.backbones:RecentMean' is no item encoder: it must be a subclass of "
            "alphafuse.items.encoders.base.ItemEncoder",
        ),
        (
            {"backbone": {"name": "test_registry:Unfinished"}},
            "model.backbone.name: 'test_registry:Unfinished' lacks build and forward, which every backbone "
            "has (docs/methods.md)",
        ),
        (
            {"backbone": {"name": "pathlib:Path"}},
            "model.backbone.name: 'pathlib:Path' is no backbone: it must be a subclass of "
            "alphafuse.recommenders.base.Backbone",
        ),
        (
            {"encoder": {"name": f"{__name__}:NoSettings"}},
            f"model.encoder.name: '{__name__}:NoSettings' does not say what its settings are: set `settings_class` in "
            "it to a subclass of alphafuse.config.EncoderConfig",
        ),
        (
            {"encoder": {"name": f"{__name__}:OtherSettings"}},
            f"model.encoder.name: '{__name__}:OtherSettings' does not say what its settings are",
        ),
        ({"encoder": {"name": 3}}, "model.encoder.name: must be one of 'alphafuse', "),
        ({"encoder": {"name": ".encoders:TextPlusId"}}, "model.encoder.name: must be one of 'alphafuse', "),
        ({"encoder": {"name": "shop.encoders:"}}, "model.encoder.name: must be one of 'alphafuse', "),
        (
            {"backbone": {"name": "shop.backbones"}},
            "model.backbone.name: must be one of 'sasrec', 'ligr', 'gru4rec', 'hstu', 'dreamrec', or the path of a "
            "class of your own, mypackage.module:Class (found 'shop.backbones')",
        ),
    ],
)
def test_what_is_wrong_with_a_class_of_ones_own_is_said(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        _parse(**model)
    assert str(error.value).startswith(message)


def test_all_errors_are_named_beside_an_unknown_class() -> None:
    with pytest.raises(ConfigError) as error:
        _parse(encoder={"name": "nothing:Here"}, backbone={"num_layers": 0}, hidden_dim=0)
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == [
        "model.hidden_dim",
        "model.encoder.name",
        "model.backbone.num_layers",
    ]


def test_settings_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="EncoderConfig"):
        type(_parse().model)(encoder=_parse().model.backbone)
    assert isinstance(_parse().model.encoder, EncoderConfig)
