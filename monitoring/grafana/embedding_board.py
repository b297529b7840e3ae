"""The stage embed: how fast, are the engines fed, what is put aside?"""

from monitoring.grafana.board_builder import Board, Panel, Query, Row

RATE = "[$__rate_interval]"


def vllm(metric: str) -> str:
    """Selects a metric of vLLM under both of its names: Prometheus 2 turns the colon into an underscore."""
    return f'{{__name__=~"vllm[:_]{metric}", run=~"$run"}}'


EMBEDDING = Board(
    "embedding",
    "AlphaFuse: embedding",
    (
        Row(
            "Speed",
            (
                Panel(
                    "Texts per second",
                    (Query(f'rate(alphafuse_embed_texts_total{{run=~"$run"}}{RATE})', "engine {{worker}}"),),
                    "Speed of each engine.",
                    kind="stacked",
                ),
                Panel(
                    "Tokens per second",
                    (Query(f'rate(alphafuse_embed_tokens_total{{run=~"$run"}}{RATE})', "engine {{worker}}"),),
                    "Tokens that each engine reads; a text costs time in proportion to its length.",
                    kind="stacked",
                ),
                Panel(
                    "Time of a batch",
                    tuple(
                        Query(
                            f"histogram_quantile({quantile}, sum by (le) "
                            f'(rate(alphafuse_embed_batch_seconds_bucket{{run=~"$run"}}{RATE})))',
                            f"{quantile:.0%}",
                        )
                        for quantile in (0.5, 0.95)
                    ),
                    "Time to embed and write a batch: median and 95th percentile.",
                    unit="s",
                ),
            ),
        ),
        Row(
            "Are the engines fed?",
            (
                Panel(
                    "Batch fill",
                    (Query('alphafuse_embed_batch_fill_ratio{run=~"$run"}', "engine {{worker}}"),),
                    "Texts of the latest batch over embed.batch_size; the last batch is smaller.",
                    unit="percentunit",
                ),
                Panel(
                    "Engine queue",
                    (
                        Query(vllm("num_requests_waiting"), "engine {{worker}} waiting", "vllm"),
                        Query(vllm("num_requests_running"), "engine {{worker}} running", "vllm"),
                    ),
                    "Texts inside vLLM. Where none wait, larger batches may help.",
                ),
                Panel(
                    "Tokens per engine step",
                    (
                        Query(
                            f"rate({vllm('iteration_tokens_total_sum')}{RATE}) "
                            f"/ rate({vllm('iteration_tokens_total_count')}{RATE})",
                            "engine {{worker}}",
                            "vllm",
                        ),
                    ),
                    "How full vLLM's own batches are.",
                ),
                Panel(
                    "CPUs in use",
                    (
                        Query(
                            f'rate(process_cpu_seconds_total{{run=~"$run", stage="embed"}}{RATE})', "engine {{worker}}"
                        ),
                    ),
                    "Cores that each engine keeps busy.",
                ),
                Panel(
                    "GPUs in use",
                    (Query("ray_node_gpus_utilization", "{{instance}} GPU {{GpuIndex}}", "gpu"),),
                    "Utilization of each GPU of the cluster.",
                    unit="percent",
                ),
                Panel(
                    "Memory",
                    (Query('process_resident_memory_bytes{run=~"$run", stage="embed"}', "engine {{worker}}"),),
                    "Resident memory of each engine's process.",
                    unit="bytes",
                ),
            ),
        ),
        Row(
            "Put aside and repeated",
            (
                Panel(
                    "Quarantined texts",
                    (Query('alphafuse_stage_quarantined_rows{run=~"$run", stage="embed"}', "{{run}}"),),
                    "Texts without an embedding; embeddings/quarantine-*.parquet tells which.",
                    kind="numbers",
                ),
                Panel(
                    "Reasons",
                    (
                        Query(
                            'sum by (reason) (alphafuse_embed_failed_texts_total{run=~"$run"})', "{{reason}}", "fault"
                        ),
                    ),
                    "Why texts have no embedding.",
                    kind="numbers",
                ),
                Panel(
                    "Repeated parts of batches",
                    (Query('sum by (run) (alphafuse_embed_retries_total{run=~"$run"})', "{{run}}"),),
                    "A batch that an engine refuses is split in halves until the bad texts are isolated.",
                    kind="numbers",
                ),
            ),
        ),
    ),
)
