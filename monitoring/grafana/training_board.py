"""The stage train: is it learning, what is slow, is a worker sick?"""

from alphafuse.events import OWN_SPANS
from monitoring.grafana.board_builder import Board, Panel, Query, Row

RATE = "[$__rate_interval]"


def per_step(counter: str) -> str:
    """Mean of a counter per step, of each worker."""
    return f'rate({counter}{{run=~"$run"}}{RATE}) / rate(alphafuse_train_steps_total{{run=~"$run"}}{RATE})'


def quantiles(histogram: str, by: str, legend: str) -> tuple[Query, ...]:
    buckets = f'sum by ({by}) (rate({histogram}_bucket{{run=~"$run"}}{RATE}))'
    return tuple(
        Query(f"histogram_quantile({quantile}, {buckets})", f"{legend} {quantile:.0%}") for quantile in (0.5, 0.95)
    )


def phases(by: str, which: str = ".*") -> str:
    """Mean time that a step spends in each phase."""
    of = f'{{run=~"$run", phase=~"{which}"}}{RATE}'
    total, count = (f"sum by ({by}) (rate(alphafuse_train_phase_seconds_{part}{of}))" for part in ("sum", "count"))
    return f"{total} / {count}"


OWN = "|".join(OWN_SPANS)

TRAINING = Board(
    "training",
    "AlphaFuse: training",
    (
        Row(
            "Is it learning?",
            (
                Panel("Loss", (Query('alphafuse_train_loss{run=~"$run"}', "{{run}}"),), "Mean over all workers."),
                Panel(
                    "Validation",
                    tuple(
                        Query(f'alphafuse_evaluation_{name}{{run=~"$run", split="validation"}}', f"{name} @{{{{k}}}}")
                        for name in ("ndcg", "hit_rate", "mrr")
                    ),
                    "Over the whole catalog.",
                ),
                Panel(
                    "Gradient norm",
                    (Query('alphafuse_train_gradient_norm{run=~"$run"}', "{{run}} {{part}}"),),
                    "Before clipping. Peaks that come again and again ask for train.max_grad_norm.",
                ),
                Panel(
                    "Learning rate",
                    (Query('alphafuse_train_learning_rate{run=~"$run"}', "{{run}} {{part}}"),),
                    "Learning rate that the schedule gives.",
                ),
                Panel(
                    "Epoch", (Query('alphafuse_train_epoch{run=~"$run"}', "{{run}}"),), "Current epoch, counted from 1."
                ),
                Panel(
                    "Test",
                    tuple(
                        Query(f'alphafuse_evaluation_{name}{{run=~"$run", split="test"}}', f"{name} @{{{{k}}}}")
                        for name in ("ndcg", "hit_rate", "mrr")
                    ),
                    "Metrics of the best weights, once the stage evaluate has ended.",
                    kind="numbers",
                ),
                Panel(
                    "Time of the evaluation",
                    (Query('alphafuse_evaluation_phase_seconds{run=~"$run"}', "{{phase}}"),),
                    "Where the stage evaluate has spent its time, in the mean over its workers.",
                    kind="numbers",
                    unit="s",
                ),
            ),
        ),
        Row(
            "What is slow?",
            (
                Panel(
                    "Samples per second",
                    (Query(f'rate(alphafuse_train_samples_total{{run=~"$run"}}{RATE})', "worker {{worker}}"),),
                    "Speed of each worker. Gaps are validations.",
                    kind="stacked",
                ),
                Panel(
                    "Time of a step",
                    quantiles("alphafuse_train_step_seconds", "le", "all workers"),
                    "Median and 95th percentile of the time of a step.",
                    unit="s",
                ),
                Panel(
                    "Spans of a step",
                    (Query(phases("phase"), "{{phase}}"),),
                    "data: drawing batches and negatives; lookup: rows of the own shard; exchange: waiting for other "
                    "workers; backward: with the averaging of the dense gradients.",
                    unit="s",
                    kind="stacked",
                ),
                Panel(
                    "Slowest steps by phase",
                    (
                        Query(
                            "histogram_quantile(0.95, sum by (le, phase) "
                            f'(rate(alphafuse_train_phase_seconds_bucket{{run=~"$run"}}{RATE})))',
                            "{{phase}}",
                        ),
                    ),
                    "95th percentile of the time of each phase.",
                    unit="s",
                ),
                Panel(
                    "Bytes exchanged per step",
                    (Query(per_step("alphafuse_exchange_sent_bytes_total"), "worker {{worker}}"),),
                    "Bytes that a worker sends to the others. Grows with the batch, not with the catalog.",
                    unit="bytes",
                ),
                Panel(
                    "Different rows among those looked up",
                    (
                        Query(
                            f'rate(alphafuse_table_rows_distinct_total{{run=~"$run"}}{RATE}) '
                            f'/ rate(alphafuse_table_rows_requested_total{{run=~"$run"}}{RATE})',
                            "worker {{worker}}",
                        ),
                    ),
                    "Share of distinct rows; repeats are not sent again (de-duplication).",
                    unit="percentunit",
                ),
            ),
        ),
        Row(
            "Is a worker sick?",
            (
                Panel(
                    "Time of its own in a step",
                    (
                        Query(
                            f"sum by (run, worker) ({phases('run, worker, phase', OWN)})",
                            "worker {{worker}}",
                        ),
                    ),
                    "Time of a step without waiting for other workers. It should be equal for all; a worker above the "
                    "others slows all down (alert StragglerRank).",
                    unit="s",
                ),
                Panel(
                    "Time waiting for others in a step",
                    (
                        Query(
                            phases("run, worker", "exchange"),
                            "worker {{worker}}",
                        ),
                    ),
                    "The worker that waits least is the slowest.",
                    unit="s",
                ),
                Panel(
                    "Load of each shard",
                    (Query(per_step("alphafuse_table_rows_served_total"), "worker {{worker}}"),),
                    "Rows that a shard of the item table gives out in a step (alert ShardImbalance).",
                ),
                Panel(
                    "Rows updated per step",
                    (Query(per_step("alphafuse_table_rows_touched_total"), "worker {{worker}}"),),
                    "Rows of each shard that the optimizer updates.",
                ),
                Panel(
                    "Memory",
                    (Query('process_resident_memory_bytes{run=~"$run", stage="train"}', "worker {{worker}}"),),
                    "Resident memory of each worker's process.",
                    unit="bytes",
                ),
                Panel(
                    "GPU memory",
                    (Query('alphafuse_device_memory_bytes{run=~"$run"}', "worker {{worker}}", "gpu"),),
                    "GPU memory that tensors take.",
                    unit="bytes",
                ),
            ),
        ),
        Row(
            "Checkpoints and restarts",
            (
                Panel(
                    "Age of the latest checkpoint",
                    (Query('time() - alphafuse_checkpoint_timestamp_seconds{run=~"$run"}', "{{run}}"),),
                    "Work that is lost if a worker dies now.",
                    unit="s",
                ),
                Panel(
                    "Time to write it",
                    (Query('alphafuse_checkpoint_duration_seconds{run=~"$run"}', "{{run}}"),),
                    "Training goes on meanwhile; the next checkpoint waits for it.",
                    unit="s",
                ),
                Panel(
                    "Share of time that training stands still for it",
                    (Query('rate(alphafuse_checkpoint_wait_seconds_total{run=~"$run"}[10m])', "{{run}}"),),
                    "High: the storage is slower than `train.checkpoint_steps` asks for.",
                    unit="percentunit",
                ),
                Panel(
                    "Its size",
                    (Query('alphafuse_checkpoint_size_bytes{run=~"$run"}', "{{run}}"),),
                    "Sum over all workers.",
                    unit="bytes",
                ),
                Panel(
                    "Checkpoints written",
                    (Query('alphafuse_checkpoints_total{run=~"$run"}', "{{run}}"),),
                    "Checkpoints written in this run.",
                    kind="numbers",
                ),
                Panel(
                    "Restarts",
                    (Query('alphafuse_restarts_total{run=~"$run", stage="train"}', "{{run}}"),),
                    "Restarts of all workers after one of them died.",
                    kind="numbers",
                ),
            ),
        ),
    ),
)
