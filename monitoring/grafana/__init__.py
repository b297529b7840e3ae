"""Grafana's dashboards as code, one module each; `python -m monitoring.grafana FOLDER` writes them as JSON."""
