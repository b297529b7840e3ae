"""All dashboards, and where their files are."""

from pathlib import Path

from monitoring.grafana.cluster import CLUSTER
from monitoring.grafana.decomposition import DECOMPOSITION
from monitoring.grafana.embedding import EMBEDDING
from monitoring.grafana.overview import OVERVIEW
from monitoring.grafana.training import TRAINING

BOARDS = (OVERVIEW, EMBEDDING, DECOMPOSITION, TRAINING, CLUSTER)
FOLDER = Path(__file__).parent / "dashboards"
