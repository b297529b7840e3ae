"""Makes the stages that several runs share, one after the other."""

from __future__ import annotations

from collections.abc import Iterable

from alphafuse.config import Config
from alphafuse.errors import StaleError
from alphafuse.events import Listener, StageFailed
from alphafuse.stages import Stage
from alphafuse.storage.filesystem.folder import Folder
from alphafuse.storage.workspace import Workspace
from jobs.comparison.shared_stages import FOLDER, shared_stages
from jobs.comparison.shown_events import SharedStageListener
from jobs.execution.tasks import reason
from jobs.pipeline import run_stages


def make_shared(configs: Iterable[Config], folder: Folder, listen: Listener) -> dict[str, str]:
    """Run the shared stages of all configurations that are not done yet, one after the other.

    Returns:
        Error messages, by the folder of the stage that failed; stages that build upon it are not tried.
    """
    failed: dict[str, str] = {}
    tried: set[str] = set()
    for config in configs:
        for shared in shared_stages(config):
            broken = [name for _, name in shared.before if name in failed]
            if shared.folder in tried or broken:
                continue
            tried.add(shared.folder)
            workspace = Workspace((folder / FOLDER / shared.folder).uri)
            workspace.borrow({name: f"../{owner}" for name, owner in shared.before})
            try:
                _make(config, workspace, shared.stage, listen)
            except Exception as error:
                message = reason(error)
                failed[shared.folder] = f"{shared.stage.name}: {message}"
                listen(StageFailed(shared.stage.name, message))
    return failed


def _make(config: Config, workspace: Workspace, stage: Stage, listen: Listener) -> None:
    try:
        run_stages(config, workspace, [stage], SharedStageListener(listen))
    except StaleError as error:  # the settings are equal, so the files that the stage reads differ
        raise StaleError(error.fault, "Give another `workspace`") from error
