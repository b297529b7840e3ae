"""Checks that settings hold no credentials: they are shown in the workspace, in Ray's logs and on dashboards.

Keys and tokens whose form gives them away are known to `detect-secrets`. Beside it stand the forms that come from where
a text stands: names of secrets (`DB_PWD: 1234`), parts of URIs, pairs in connection strings and options of commands.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from alphafuse.errors import ConfigError

MASK = "***"
_SECRET_PARTS = {
    "password", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "pat", "authorization", "credential",
    "credentials", "cookie", "bearer", "apikey", "accesskey", "secretkey", "privatekey", "accountkey", "authkey",
    "authtoken", "accesstoken", "connectionstring",
}  # fmt: skip
"""Parts of names: `DB_PWD`, `githubToken` and `x-api-key` have the parts db, pwd, github, token and x, api, key."""
_LAST_PARTS = {"pass", "auth"}
_BEFORE_KEY = {
    "access", "account", "admin", "api", "app", "auth", "aws", "azure", "client", "encryption", "google", "hf",
    "hmac", "master", "openai", "private", "secret", "service", "shared", "signing", "storage", "subscription",
    "wandb",
}  # fmt: skip
_IN_QUERIES = re.compile(r"(.*[_-])?(sig|signature)|key|auth", re.IGNORECASE)
"""Further names of secrets in the query of a URI, such as those of presigned URLs."""
_ABOUT_SECRETS = {
    "arn", "budget", "count", "dim", "dir", "endpoint", "expiry", "file", "length", "limit", "mode", "name",
    "parallelism", "path", "size", "ttl", "type", "uri", "url",
}  # fmt: skip
"""Last parts of names that say something about a secret: `TOKEN_FILE`, `SECRET_NAME`."""
_WORD_PIECES = {"bos", "cls", "end", "eos", "mask", "pad", "sep", "special", "unk"}
_HARMLESS_NAMES = {"GOOGLE_APPLICATION_CREDENTIALS"}  # the path of a file
_HARMLESS_VALUE = re.compile(r"(\$\{\w+\}|[01]|true|false|yes|no|on|off|)", re.IGNORECASE)
"""Switches, and `${NAME}`, which Ray fills in on the machine of the process."""

_PASSWORD_IN_URI = re.compile(r"(?<=://)[^/@:\s]{0,300}:(?!\d+/)[^@\s]{0,600}(?=@)")  # digits up to a slash are a port
# In other schemes the part before the @ is a user, a bucket or a container: abfs://container@account.
_USER_IN_URL = re.compile(r"\b(https?://)[^/@:\s?#]+(?=@)", re.IGNORECASE)
_PARAMETER_OF_URI = re.compile(r"(?<=[?&#])(?P<name>[^=&?#\s]+)=(?P<value>[^&#\s'\")]+)")
_PAIR = re.compile(
    r"(?<![\w.-])(?P<option>-{0,2})(?P<name>[A-Za-z][\w.-]*(?: (?:key|token|password))?)"  # "Shared Access Key"
    r"(?P<sign>[\"']?\s*(?<![<>!~=])=(?!=)\s*|[\"']\s*:\s*|:\s+|\s+(?=[^-\s]))"
    r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s;,&\"'(){}]+)",
    re.IGNORECASE,
)
_OTHER_FORMS = (
    re.compile(r"\b(hf_[A-Za-z0-9]{20,}|github_pat_\w{22,}|AIza[\w-]{35}|ya29\.[\w-]{20,}|dapi[0-9a-f]{32})"),
    re.compile(r"\bsk-[\w-]{20,}"),
    re.compile(r"(?<=\blogin )\S+ password \S+"),  # a line of .netrc
    re.compile(r"(?<=\bbearer )[\w.~+/=-]{8,}|(?<=^basic )[\w+/]{8,}={0,2}$", re.IGNORECASE),
)


def require_no_credentials(tree: Mapping[str, Any]) -> None:
    """Check that no value in a tree of plain values has the name of a secret, or the form of one.

    Raises:
        ConfigError: there is such a value; the message gives its key and not its value.
    """
    for key, names, value in _values("", (), tree):
        if not isinstance(value, str):
            value = str(value)
        elif _mask_in_uris(value) != value:
            raise _refused(key, "holds credentials in its URI")
        elif mask(value) != value:
            raise _refused(key, "holds credentials")
        if any(_is_secret(name) for name in names) and not _HARMLESS_VALUE.fullmatch(value):
            raise _refused(key, "holds credentials by its name")


def mask(text: str) -> str:
    """The text with `***` in place of what looks like a credential, for messages that show a value."""
    text = _PAIR.sub(_masked_pair, _mask_in_uris(text))
    for form in (*_OTHER_FORMS, *_known_forms()):
        text = form.sub(MASK, text)
    return text


def _refused(key: str, what: str) -> ConfigError:
    return ConfigError(
        f"{key} {what}, and would be seen in the workspace, in Ray's logs or on its dashboard. Give credentials to "
        "the machines of the cluster instead (a role, a mounted secret, environment variables of their own such as "
        "AWS_ACCESS_KEY_ID)"
    )


def _values(key: str, names: tuple[str, ...], node: object) -> Iterator[tuple[str, tuple[str, ...], object]]:
    """Yields the dotted key, the names in the key, and the value of every text and number in a tree."""
    if isinstance(node, Mapping):
        for below, value in node.items():
            yield from _values(f"{key}.{below}".lstrip("."), (*names, str(below)), value)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _values(f"{key}.{number}", names, value)
    elif node is not None and not isinstance(node, bool):
        yield key, names, node


def _is_secret(name: str) -> bool:
    """Tell whether a name is that of a secret."""
    parts = [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
    if not parts or parts[-1] in _ABOUT_SECRETS or name in _HARMLESS_NAMES:
        return False
    if parts[-1] == "token" and any(part in _WORD_PIECES for part in parts):  # PAD_TOKEN: [PAD]
        return False
    key_of = any(part == "key" and before in _BEFORE_KEY for before, part in itertools.pairwise(parts))
    secret = any(part in _SECRET_PARTS or "passw" in part for part in parts)
    return secret or key_of or parts[-1] in _LAST_PARTS


def _mask_in_uris(text: str) -> str:
    if "://" not in text:
        return text
    text = _USER_IN_URL.sub(rf"\1{MASK}", _PASSWORD_IN_URI.sub(MASK, text))
    return _PARAMETER_OF_URI.sub(
        lambda found: f"{found['name']}={MASK}" if _is_secret_in_query(found["name"]) else found[0], text
    )


def _is_secret_in_query(name: str) -> bool:
    return _is_secret(name) or _IN_QUERIES.fullmatch(name) is not None


def _masked_pair(found: re.Match[str]) -> str:
    """`name=value`, `"name": "value"` or `--name value`; of a name of one word, `name: value` may be plain language."""
    name, sign, value = found["name"], found["sign"], found["value"]
    before = found.string[: found.start()]
    plain = not sign.strip() and not found["option"]
    spoken = sign.strip() == ":" and name.replace(" ", "").isalpha() and before.rpartition("\n")[2].strip(" -") != ""
    if plain or spoken or MASK in value or not _is_secret(name) or _HARMLESS_VALUE.fullmatch(value.strip("\"'")):
        return found[0]
    return f"{found['option']}{name}{sign}{MASK}"


@functools.cache
def _known_forms() -> tuple[re.Pattern[str], ...]:
    """The patterns of `detect-secrets` that go by the form of a text. Those by entropy would refuse
    hashes in paths; those by a name or a URI have counterparts here, which know what is harmless."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector
    from detect_secrets.plugins.basic_auth import BasicAuthDetector
    from detect_secrets.plugins.ip_public import IPPublicDetector

    others = (BasicAuthDetector, IPPublicDetector)
    kinds: Collection[Any] = get_mapping_from_secret_type_to_class().values()
    by_form = [kind() for kind in kinds if issubclass(kind, RegexBasedDetector) and not issubclass(kind, others)]
    return tuple(form for detector in by_form for form in detector.denylist)
