"""The errors that a user can cause and cure.

Every message says what is wrong, where, and what to do. The command line prints them without a traceback;
anything else that escapes is a bug and keeps its traceback.
"""

import re

LONGEST_WORD = 300
LONGEST_MESSAGE = 3000
"""Characters of a message at most: values of users' files stand in it, whatever their length."""


def shortened(message: str) -> str:
    """The message with long words cut at their end, and then cut in its middle where it is still too long."""
    message = re.sub(
        rf"\S{{{LONGEST_WORD + 1},}}", lambda word: f"{word[0][:80]}… ({len(word[0]):,} characters)", message
    )
    if len(message) <= LONGEST_MESSAGE:
        return message
    return f"{message[: LONGEST_MESSAGE * 2 // 3]} […] {message[-LONGEST_MESSAGE // 4 :]}"


class AlphafuseError(Exception):
    """Base of all errors whose cause lies in the input, the configuration or the environment."""

    def __str__(self) -> str:
        return shortened(" ".join(str(part) for part in self.args if part))


class ConfigError(AlphafuseError):
    """The configuration has an unknown key, an ill-typed value or values that contradict each other."""


class DataError(AlphafuseError):
    """A catalog, interaction log or embedding file cannot be used as it is."""


class WorkspaceError(AlphafuseError):
    """The workspace lacks an artefact, or holds one that is damaged or was made from other inputs.

    Args:
        fault: what is wrong, and where.
        remedy: what to do, where `fault` does not say it; a comparison replaces the remedy by its own.
    """

    def __init__(self, fault: str, remedy: str = "") -> None:
        super().__init__(fault, remedy)
        self.fault = fault


class StaleError(WorkspaceError):
    """An artefact was made from other inputs than the configuration gives: a stage refuses it."""


class UnfinishedError(WorkspaceError):
    """A stage whose artefact is needed has not finished."""


class OwnershipError(WorkspaceError):
    """Another process works in the workspace."""


class ResourceError(AlphafuseError):
    """The machine or the cluster cannot give what the configuration asks for."""


class ClusterError(AlphafuseError):
    """A cluster or one of its jobs cannot be started, reached or stopped from here."""
