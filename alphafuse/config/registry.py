"""Encoders and backbones by name: those of this project, one line each, and any importable class of a user's own.

A class says what its settings are (`settings_class`). The module of a user's class is imported when a configuration
chooses it; that of a class of this project when it is built, since its settings stand apart. This module knows neither
torch nor any of the classes.
"""

from __future__ import annotations

import importlib
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from alphafuse.config.base import Section

UNKNOWN_NAME = "unknown_name"
"""Type of the validation error of a `name` that chooses nothing."""
OWN_CLASS = "a class of your own"
"""Title of the schema of settings that this project does not know."""
IMPORT_PATH = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*"
"""Pattern of `package.module:Class`."""


@dataclass(frozen=True)
class BuiltIn:
    """A class of this project.

    Attributes:
        path: its import path.
        settings: import path of its `settings_class`, in a module that does not import torch.
    """

    path: str
    settings: str


@dataclass(frozen=True, eq=False)
class Registry:
    """Classes that one section of the configuration chooses from by its key `name`.

    As the metadata of a field (`Annotated[Base, registry]`) it checks the section's settings by the class that they
    choose, and describes the section in the JSON schema as one of those of this project or any of a user's own.

    Attributes:
        kind: what messages call one of the classes.
        base: import path of the classes' base.
        settings_base: import path of the base of their settings.
        default: name that a section without `name` chooses.
        built_in: the classes of this project by their names.
    """

    kind: str
    base: str
    settings_base: str
    default: str
    built_in: Mapping[str, BuiltIn]

    def find(self, name: object) -> Any:
        """Return the class that a name chooses: one of `built_in`, or an import path `package.module:Class`.

        Raises:
            ValueError: the name is neither, or what it names cannot be imported (whatever its code raises) or is no
                class of this kind.
        """
        known = self._known(name)
        path = name if known is None else known.path
        if not isinstance(path, str) or not re.fullmatch(IMPORT_PATH, path):
            names = ", ".join(repr(known) for known in self.built_in)
            raise ValueError(
                f"must be one of {names}, or the path of a class of your own, mypackage.module:Class (found {name!r})"
            )
        try:
            found = _import(path)
        except ImportError as error:
            raise ValueError(
                f"cannot import {path!r} ({error}{_place(error)}); its package must be installed, or on PYTHONPATH, "
                "here and on every machine of the run"
            ) from error
        except AttributeError as error:
            raise ValueError(f"cannot import {path!r}: {error}{_place(error)}") from error
        except (Exception, SystemExit) as error:  # whatever the code of a user raises as it is imported
            cause = f"{type(error).__name__}: {_message(error)}{_place(error)}"
            raise ValueError(f"cannot import {path!r}, since its code fails: {cause}") from error
        if not _derives(found, self.base):
            raise ValueError(f"{path!r} is no {self.kind}: it must be a subclass of {self.base.replace(':', '.')}")
        if not _derives(getattr(found, "settings_class", None), self.settings_base):
            raise ValueError(
                f"{path!r} does not say what its settings are: set `settings_class` in it to a subclass of "
                f"{self.settings_base.replace(':', '.')} (docs/methods.md has an example)"
            )
        if missing := [name for name in dir(found) if getattr(getattr(found, name), "__isabstractmethod__", False)]:
            raise ValueError(f"{path!r} lacks {' and '.join(missing)}, which every {self.kind} has (docs/methods.md)")
        return found

    def _known(self, name: object) -> BuiltIn | None:
        return self.built_in.get(name) if isinstance(name, str) else None

    def settings_class(self, tree: object) -> type[Section] | None:
        """The settings class that the plain values of a section choose; None where their `name` chooses nothing."""
        try:
            return self._settings_class(tree) if isinstance(tree, Mapping) else self._settings_class({})
        except ValueError:
            return None

    def default_settings(self) -> Any:
        """The settings of a section that is left out."""
        return self._settings_class({})()

    def built_in_settings(self) -> Iterator[type[Section]]:
        """The settings classes of all classes of this project."""
        for each in self.built_in.values():
            yield _import(each.settings)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._parse, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        options = [handler(settings.__pydantic_core_schema__) for settings in self.built_in_settings()]
        # Without a name, a section is that of the default and of no other.
        named = [
            option if option["properties"]["name"]["const"] == self.default else {**option, "required": ["name"]}
            for option in options
        ]
        own = {"properties": {"name": {"type": "string", "pattern": f"^{IMPORT_PATH}$"}}, "required": ["name"]}
        return {"oneOf": [*named, {"title": OWN_CLASS, **own}], "default": {"name": self.default}}

    def _parse(self, value: Any) -> Any:
        """Settings as they are; plain values by the class that they choose."""
        if not isinstance(value, Mapping):
            return value
        try:
            settings_class = self._settings_class(value)
        except ValueError as error:
            raise PydanticCustomError(UNKNOWN_NAME, "{reason}", {"reason": str(error)}) from error
        return settings_class.model_validate(value)

    def _settings_class(self, tree: Mapping[str, Any]) -> type[Section]:
        name = tree.get("name", self.default)
        known = self._known(name)
        settings_class: type[Section] = self.find(name).settings_class if known is None else _import(known.settings)
        return settings_class


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _message(error: BaseException) -> str:
    """Text of an error; for wrong syntax without the place, which `_place` gives."""
    return (error.msg if isinstance(error, SyntaxError) else str(error)) or "without a message"


def _place(error: BaseException) -> str:
    """File and line of a user's code in which an import failed; nothing if no such code was reached."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if frame.filename != importlib.__file__ and not frame.filename.startswith("<")]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _derives(found: object, base: str) -> bool:
    return isinstance(found, type) and issubclass(found, _import(base))


ENCODERS = Registry(
    kind="item encoder",
    base="alphafuse.items.encoders.base:ItemEncoder",
    settings_base="alphafuse.config:EncoderConfig",
    default="alphafuse",
    built_in={
        "alphafuse": BuiltIn(
            "alphafuse.items.encoders.alphafuse:AlphaFuseEncoder", "alphafuse.items.encoders.settings:AlphaFuseConfig"
        ),
        "id": BuiltIn("alphafuse.items.encoders.id:IdEncoder", "alphafuse.items.encoders.settings:IdConfig"),
        "morec": BuiltIn(
            "alphafuse.items.encoders.morec:MoRecEncoder", "alphafuse.items.encoders.settings:MoRecConfig"
        ),
        "whitenrec": BuiltIn(
            "alphafuse.items.encoders.whitenrec:WhitenRecEncoder", "alphafuse.items.encoders.settings:WhitenRecConfig"
        ),
        "idreamrec": BuiltIn(
            "alphafuse.items.encoders.idreamrec:IDreamRecEncoder", "alphafuse.items.encoders.settings:IDreamRecConfig"
        ),
        "unisrec": BuiltIn(
            "alphafuse.items.encoders.unisrec:UniSRecEncoder", "alphafuse.items.encoders.settings:UniSRecConfig"
        ),
        "llminit": BuiltIn(
            "alphafuse.items.encoders.llminit:LLMInitEncoder", "alphafuse.items.encoders.settings:LLMInitConfig"
        ),
        "rlmrec_con": BuiltIn(
            "alphafuse.items.encoders.rlmrec_con:RLMRecContrastiveEncoder",
            "alphafuse.items.encoders.settings:RLMRecContrastiveConfig",
        ),
        "rlmrec_gen": BuiltIn(
            "alphafuse.items.encoders.rlmrec_gen:RLMRecGenerativeEncoder",
            "alphafuse.items.encoders.settings:RLMRecGenerativeConfig",
        ),
        "llm_esr": BuiltIn(
            "alphafuse.items.encoders.llm_esr:LLMESREncoder", "alphafuse.items.encoders.settings:LLMESRConfig"
        ),
    },
)

BACKBONES = Registry(
    kind="backbone",
    base="alphafuse.recommenders.base:Backbone",
    settings_base="alphafuse.config:BackboneConfig",
    default="sasrec",
    built_in={
        "sasrec": BuiltIn("alphafuse.recommenders.sasrec:SASRec", "alphafuse.recommenders.settings:SASRecConfig"),
        "ligr": BuiltIn("alphafuse.recommenders.ligr:LiGR", "alphafuse.recommenders.settings:LiGRConfig"),
        "gru4rec": BuiltIn("alphafuse.recommenders.gru4rec:GRU4Rec", "alphafuse.recommenders.settings:GRU4RecConfig"),
        "hstu": BuiltIn("alphafuse.recommenders.hstu:HSTU", "alphafuse.recommenders.settings:HSTUConfig"),
        "dreamrec": BuiltIn(
            "alphafuse.recommenders.dreamrec:DreamRec", "alphafuse.recommenders.settings:DreamRecConfig"
        ),
    },
)
