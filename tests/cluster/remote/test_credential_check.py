"""Credentials in settings: found by form and by name, not repeated in messages, rarely seen where there are none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from alphafuse.config import Config
from alphafuse.config.messages import dotted_keys
from alphafuse.errors import ConfigError
from cluster.remote.credential_check import MASK, mask, require_no_credentials

ROOT = Path(__file__).parents[3]
# Put together here, so that no scanner takes this file for a leak.
AWS_KEY = "AKIA" + "QWERTYUIOPASDFGH"
GITHUB = "ghp_" + "a1B2" * 9
HUGGING_FACE = "hf_" + "aB3dE" * 7
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
AZURE = "DefaultEndpointsProtocol=https;AccountName=shop;AccountKey=" + "hush" * 21 + "hu==" + ";EndpointSuffix=x"

URIS = [
    "s3://KEY:hush@bucket/run",
    "s3://KEY:hu/sh@bucket/run",
    "https://me:hush@example.com/users.parquet",
    "https://hush@example.com/users.parquet",
    "git+https://hush@github.com/shop/models.git",
    "postgresql+psycopg://me:hush@db:5432/shop",
    "redis://:hush@cache:6379/0",
    "s3://bucket/run?access_key=me&secret_key=hush",
    "s3://bucket/run?region=eu&secret_key=hush",
    "https://b.s3.amazonaws.com/x.parquet?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=9&X-Amz-Signature=hush",
    "https://storage.googleapis.com/b/x?GoogleAccessId=me&Expires=1&Signature=hush",
    "https://shop.blob.core.windows.net/c/x.parquet?sv=2024&se=2027-01-01&sig=hush",
    "https://maps.example.com/x?key=hush",
    "https://example.com/x#access_token=hush",
    "--index-url=https://me:hush@example.com/simple",
]
FORMS = [
    AWS_KEY, GITHUB, HUGGING_FACE, JWT, AZURE, "github_pat_" + "a1" * 20, "sk-" + "aB3dE" * 9, "AIza" + "aB3dE" * 7,
    "xoxb-" + "1234567890-" * 2 + "aB3dEaB3dEaB3dEaB3dEaB3d", "glpat-" + "aB3dE" * 4, "dapi" + "0a" * 16,
    "-----BEGIN RSA PRIVATE KEY-----\nhush", "Bearer hushhush", "Authorization: Basic aHVzaDpodXNo",
    "Server=db;User Id=me;Password=hush;", "host=db user=me password=hush dbname=shop", "--token hush",
    "--db-password=hush", '{"user": "me", "password": "hush"}', "machine example.com login me password hush",
    "X-Api-Key: hush", "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=root;SharedAccessKey=hush",
]  # fmt: skip
NAMES = [
    "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "HF_TOKEN", "RAY_AUTH_TOKEN", "OPENAI_API_KEY",
    "PGPASSWORD", "MLFLOW_TRACKING_PASSWORD", "AZURE_STORAGE_KEY", "api-key", "Secret", "GITHUB_PAT", "DB_PWD",
    "SMTP_PASS", "AUTHORIZATION", "authorization", "clientSecret", "secretAccessKey", "APIKEY", "BASIC_AUTH",
    "AZURE_CREDENTIALS", "SSH_PASSPHRASE", "SESSION_COOKIE", "WANDB_KEY", "password", "token",
]  # fmt: skip


@pytest.mark.parametrize("uri", URIS)
def test_uris_with_credentials_are_refused(uri: str) -> None:
    _refuses({"data": {"catalog": {"path": uri}}}, "data.catalog.path holds credentials")


@pytest.mark.parametrize("text", FORMS)
def test_known_forms_are_refused_wherever_they_stand(text: str) -> None:
    _refuses({"runtime_env": {"pip": ["numpy", text]}}, "runtime_env.pip.1 holds credentials")
    _refuses({"resources": {"environment": {"X": text}}}, "resources.environment.X holds credentials")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["hush", 1234, 12.5, ["hush"], {"value": "hush"}])
def test_values_with_the_name_of_a_secret_are_refused(name: str, value: Any) -> None:
    _refuses({"runtime_env": {"env_vars": {name: value}}}, f"runtime_env.env_vars.{name}")


def _refuses(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        require_no_credentials(tree)
    assert str(error.value).startswith(message)
    assert not any(secret in str(error.value) for secret in ("hush", "hu/sh", "1234", AWS_KEY, GITHUB))


@pytest.mark.parametrize(
    "value",
    [
        "http://host:5000/a@b", "gs://anonymous@bucket/run", "s3://bucket/run?region=eu", "hf://a/b@main",
        "abfs://container@account.dfs.core.windows.net/runs/shop", "sftp://me@host/folder", "ray://127.0.0.1:10001",
        "https://example.com/items.parquet?page=2&sort_key=price", "package://recbole/ml-100k.item", "memory://x/y",
        "runs/3f0c9a7be21d4f0e8d1b2c3a4f5e6d7c8b9a0f1e/shard-*.parquet", "BAAI/bge-m3", "{a}: {b} @home",
        "Instruct: Given a password manager review, find the secret token: it is a game.\nQuery: {text}",
        "Basic mathematics for everyone", "{title}. Token: {genres}", "tokenizers==0.22", "token-bucket>=0.3",
        "secretstorage==3.3.3", "git+https://github.com/shop/models.git@v1.2", "2024-05-06 10:11:12 UTC", "a;b=c,d",
        "intfloat/multilingual-e5-large-instruct", "/home/me/data/passwords-and-secrets/items.csv", "192.0.2.7:6379",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "O'Reilly: Secret Agent", "user_id",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_may_travel(value: str) -> None:
    require_no_credentials({"workspace": value, "data": {"catalog": {"text": value}}, "list": [value]})
    assert mask(value) == value


def test_names_that_only_sound_like_it_may_travel() -> None:
    names = (
        "TOKENIZERS_PARALLELISM", "AWS_WEB_IDENTITY_TOKEN_FILE", "RAY_AUTH_TOKEN_PATH", "AWS_REGION", "OMP_NUM_THREADS",
        "GOOGLE_APPLICATION_CREDENTIALS", "PYTHONHASHSEED", "sort_key", "MAX_TOKENS", "RAY_AUTH_MODE", "PAD_TOKEN",
        "SSH_AUTH_SOCK", "pin_memory", "partition_key", "SECRET_NAME", "GIT_ASKPASS", "PATH", "MONKEY", "author",
    )  # fmt: skip
    require_no_credentials({"runtime_env": {"env_vars": dict.fromkeys(names, "some value")}})
    harmless = {
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_TOKEN": "${HF_TOKEN}",
        "PASSWORD": "",
        "TOKEN": None,
        "PWD": True,
    }
    require_no_credentials({"runtime_env": {"env_vars": harmless}})


def test_no_setting_and_no_shipped_configuration_is_refused() -> None:
    tree: dict[str, Any] = {}
    for key in dotted_keys(Config):
        *above, last = key.split(".")
        node = tree
        for name in above:
            node[name] = node[name] if isinstance(node.get(name), dict) else {}
            node = node[name]
        node.setdefault(last, "some value")
    require_no_credentials(tree)
    files = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "tests").rglob("*.yaml")]
    assert len(files) > 8
    for file in files:
        for document in yaml.safe_load_all(file.read_text()):
            require_no_credentials(document)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("cannot read https://me:hush@host/x: 404", f"cannot read https://{MASK}@host/x: 404"),
        ("cannot read 'https://h/x?sig=hush&a=1'", f"cannot read 'https://h/x?sig={MASK}&a=1'"),
        ("expected a text (found {'DB_PWD': 'hush'})", f"expected a text (found {{'DB_PWD': {MASK}}})"),
        ("line 2:\n  HF_TOKEN: hush\n  ^", f"line 2:\n  HF_TOKEN: {MASK}\n  ^"),
        (f"unknown key {GITHUB}", f"unknown key {MASK}"),
        ("there is no token: put it into ~/.ray/auth_token", "there is no token: put it into ~/.ray/auth_token"),
    ],
)
def test_messages_are_shown_without_the_credential(message: str, shown: str) -> None:
    assert mask(message) == shown


def test_long_texts_take_no_long_time() -> None:
    started = time.process_time()
    for piece in ("a", "a-", "://", "?a=", "token ", "token=", "'", "a:b@"):
        mask(piece * 5_000)
    assert time.process_time() - started < 5.0
