"""All dashboards."""

from monitoring.grafana.cluster_board import CLUSTER
from monitoring.grafana.decomposition_board import DECOMPOSITION
from monitoring.grafana.embedding_board import EMBEDDING
from monitoring.grafana.models_board import MODELS
from monitoring.grafana.overview_board import OVERVIEW
from monitoring.grafana.serving_board import SERVING
from monitoring.grafana.training_board import TRAINING

BOARDS = (OVERVIEW, EMBEDDING, DECOMPOSITION, TRAINING, CLUSTER, MODELS, SERVING)
