"""The stage `report`: one self-contained HTML page about the run, made again whenever what it shows changes."""

from __future__ import annotations

from alphafuse.config import Config
from alphafuse.events import Listener, Summary
from alphafuse.stages import ARTIFACTS, REPORT
from alphafuse.storage.manifest import fingerprint
from alphafuse.storage.workspace import Workspace
from monitoring.report.environment import environment
from monitoring.report.report_page import render
from monitoring.report.run_facts import gather

PAGE = "index.html"


def run(config: Config, workspace: Workspace, listen: Listener) -> Summary | None:
    """Write the artefact `report`; stages that have not run are named as such on the page. Returns where the page is,
    None where it shows everything already."""
    earlier = [name for name, stage in ARTIFACTS.items() if stage is not REPORT]
    manifests = {name: workspace.artifact(name).manifest() for name in earlier}
    inputs = {
        **REPORT.settings(config),
        "artifacts": {name: None if manifest is None else manifest.fingerprint for name, manifest in manifests.items()},
    }
    made = workspace.artifact("report").manifest()
    if made is not None and made.fingerprint == fingerprint(inputs):
        return None
    page = render(gather(config.model_dump(mode="json"), workspace), environment())
    artifact = workspace.successor("report")
    artifact.write_file(PAGE, page.encode(), fingerprint(inputs))
    artifact.commit(inputs)
    return {"page": f"{workspace.folder.uri}/{artifact.name}/{PAGE}"}  # where it is when the run has ended
