"""Credentials in settings for a cluster: found by form and by name, and not repeated in the message."""

from __future__ import annotations

from typing import Any

import pytest

from alphafuse.errors import ConfigError
from cluster.remote.credential_check import require_no_credentials


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        ({"workspace": "s3://KEY:hush@bucket/run"}, "workspace"),
        ({"data": {"catalog": {"path": "s3://k:hush@bucket/items/*.parquet"}}}, "data.catalog.path"),
        ({"recommend": {"users": "https://me:hush@example.com/users.parquet"}}, "recommend.users"),
        ({"workspace": "s3://KEY:hu/sh@bucket/run"}, "workspace"),
        ({"workspace": "s3://bucket/run?access_key=me&secret_key=hush"}, "workspace"),
        ({"workspace": "s3://bucket/run?region=eu&secret_key=hush"}, "workspace"),
        ({"pip": ["numpy", "--index-url=https://me:hush@example.com/simple"]}, "pip.1"),
        *(
            ({"runtime_env": {"env_vars": {name: "hush"}}}, f"runtime_env.env_vars.{name}")
            for name in (
                "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "HF_TOKEN", "RAY_AUTH_TOKEN",
                "OPENAI_API_KEY", "PGPASSWORD", "MLFLOW_TRACKING_PASSWORD", "AZURE_STORAGE_KEY", "api-key", "Secret",
            )
        ),
        ({"metadata": {"token": "hush"}}, "metadata.token"),
    ],
)  # fmt: skip
def test_credentials_are_refused_and_not_repeated(tree: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key} holds credentials") as error:
        require_no_credentials(tree)
    assert not any(secret in str(error.value) for secret in ("hush", "hu/sh"))


def test_what_only_looks_like_it_may_travel() -> None:
    require_no_credentials({"data": {"catalog": {"path": "items.parquet", "text": "{a}: {b} @home"}}})
    for uri in ("http://host:5000/a@b", "gs://anonymous@bucket/run", "s3://bucket/run?region=eu", "hf://a/b@main"):
        require_no_credentials({"workspace": uri})
    names = (
        "TOKENIZERS_PARALLELISM", "AWS_WEB_IDENTITY_TOKEN_FILE", "RAY_AUTH_TOKEN_PATH", "AWS_REGION", "OMP_NUM_THREADS",
        "GOOGLE_APPLICATION_CREDENTIALS", "PYTHONHASHSEED", "sort_key", "MAX_TOKENS",
    )  # fmt: skip
    require_no_credentials({"runtime_env": {"env_vars": dict.fromkeys(names, "some value")}})
