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
    stability = None
    if config.update.parent is not None:
        known = None if made is None else made.details.get("stability")
        stability = _stability(workspace.other(config.update.parent), workspace, config.evaluate.exclude_seen) or known
    page = render(gather(config.model_dump(mode="json"), workspace, stability), environment())
    artifact = workspace.successor("report")
    artifact.write_file(PAGE, page.encode(), fingerprint(inputs))
    artifact.commit(inputs, None if stability is None else {"stability": stability})
    return {"page": f"{workspace.folder.uri}/{artifact.name}/{PAGE}"}  # where it is when the run has ended


def _stability(parent: Workspace, workspace: Workspace, exclude_seen: bool) -> dict[str, float] | None:
    """How far the lists of an update have moved from those of its parent; None where one of them has no export, as of a
    parent that was deleted since, and where there are no test targets."""
    exports = [each.artifact("export") for each in (parent, workspace)]
    if not workspace.artifact("sequences").require().details["targets"]["test"] or any(
        export.manifest() is None for export in exports
    ):
        return None
    from alphafuse.serving.recommender import load  # imports torch, which the page of another run does not need
    from alphafuse.version_comparison import STABILITY_QUERIES, measure_stability, read_targets

    queries = read_targets(workspace, STABILITY_QUERIES)
    before, after = (load(export.folder.uri) for export in exports)
    return measure_stability(before, after, queries, exclude_seen).summary()
