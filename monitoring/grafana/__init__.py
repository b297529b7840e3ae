"""The Grafana dashboards, as code. `python -m monitoring.grafana` writes them as JSON into `dashboards/`, which is what
Grafana reads; each of the other modules is one dashboard.
"""
