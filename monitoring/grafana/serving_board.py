"""The web service: does it answer, how fast, and with which model?"""

from monitoring.grafana.board_builder import Board, Panel, Query, Row

RATE = "[$__rate_interval]"


def serve(expression: str, legend: str) -> Query:
    """A query that has data only where a service runs."""
    return Query(expression, legend, "serve")


def quantiles(metric: str) -> tuple[Query, ...]:
    """Median, 95th and 99th percentile of a histogram over all replicas."""
    return tuple(
        serve(f"histogram_quantile({each}, sum by (run, le) (rate({metric}_bucket{RATE})))", f"{{{{run}}}} {each:.0%}")
        for each in (0.5, 0.95, 0.99)
    )


SERVING = Board(
    "serving",
    "AlphaFuse: serving",
    (
        Row(
            "Does it answer?",
            (
                Panel(
                    "Requests per second",
                    (serve(f"sum by (run, code) (rate(alphafuse_serve_requests_total{RATE}))", "{{run}} {{code}}"),),
                    "Answers by status: 200 is an answer, 4.. a refusal that the client has caused, 5.. a failure.",
                    kind="stacked",
                ),
                Panel(
                    "Time of a request",
                    quantiles("alphafuse_serve_request_seconds"),
                    "Time in the replica, waiting included; the way there and back comes on top.",
                    unit="s",
                ),
                Panel(
                    "CPUs in use",
                    (serve(f'rate(process_cpu_seconds_total{{role="serve"}}{RATE})', "{{run}} {{replica}}"),),
                    "Cores that each replica keeps busy. Near to serve.cpus, requests wait: more replicas help.",
                ),
            ),
        ),
        Row(
            "What takes time?",
            (
                Panel(
                    "Time of a batch",
                    quantiles("alphafuse_serve_ranking_seconds"),
                    "Time to rank the requests of a batch. Large catalogs: serve.search: approximate.",
                    unit="s",
                ),
                Panel(
                    "Requests in a batch",
                    (
                        serve(
                            f"sum by (run) (rate(alphafuse_serve_request_seconds_count{RATE})) "
                            f"/ sum by (run) (rate(alphafuse_serve_batches_total{RATE}))",
                            "{{run}}",
                        ),
                    ),
                    "Requests that are ranked together, in the mean: those that came during the batch before.",
                ),
                Panel(
                    "Memory",
                    (serve('process_resident_memory_bytes{role="serve"}', "{{run}} {{replica}}"),),
                    "Resident memory of each replica, the mapped files of its model included; during a swap of two.",
                    unit="bytes",
                ),
            ),
        ),
        Row(
            "Which model?",
            (
                Panel(
                    "Versions",
                    (
                        serve(
                            "count by (run, version) (alphafuse_serve_model_loaded_timestamp_seconds)",
                            "{{run}} {{version}}",
                        ),
                    ),
                    "Replicas that serve each version; two versions stand here while a new one is taken over.",
                    kind="stacked",
                ),
                Panel(
                    "Items",
                    (serve("max by (run) (alphafuse_serve_model_items)", "{{run}}"),),
                    "Items in the catalog of the model.",
                    kind="numbers",
                ),
                Panel(
                    "Swaps",
                    (serve("sum by (run, outcome) (alphafuse_serve_reloads_total)", "{{run}} {{outcome}}"),),
                    "Models that were taken over, and attempts that were refused since they were damaged or failed.",
                    kind="numbers",
                ),
                Panel(
                    "Outdated replicas",
                    (serve("sum by (run) (alphafuse_serve_outdated)", "{{run}}"),),
                    "Replicas that serve another model than the wanted one.",
                    kind="numbers",
                ),
                Panel(
                    "Unknown items",
                    (
                        serve(
                            f"sum by (run) (rate(alphafuse_serve_unknown_items_total{RATE})) "
                            f"/ sum by (run) (rate(alphafuse_serve_history_items_total{RATE}))",
                            "{{run}}",
                        ),
                    ),
                    "Share of items in histories that the model does not know: it grows as the model gets old.",
                    unit="percentunit",
                ),
            ),
        ),
    ),
)
