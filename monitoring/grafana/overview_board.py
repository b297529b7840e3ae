"""At a glance: is it alive, how far is it, is it learning, is something wrong?"""

from monitoring.grafana.board_builder import Board, Panel, Query, Row

OVERVIEW = Board(
    "overview",
    "AlphaFuse: overview",
    (
        Row(
            "Alive?",
            (
                Panel(
                    "Runs that answer",
                    (Query('up{job="alphafuse", role="run", run=~"$run"}', "{{run}}"),),
                    "Whether the process of each run answers. A run that has ended is not listed.",
                    kind="yes_no",
                ),
                Panel(
                    "Workers that answer",
                    (Query('up{job="alphafuse", role="worker", run=~"$run"}', "{{stage}} {{worker}}"),),
                    "The workers of the present stage.",
                    kind="yes_no",
                ),
                Panel(
                    "Running stage",
                    (Query('alphafuse_stage_running{run=~"$run"}', "{{run}} {{stage}}"),),
                    "The stage that each run is in.",
                    kind="yes_no",
                ),
                Panel(
                    "Since the last report",
                    (
                        Query(
                            'time() - max by (run) (alphafuse_stage_last_event_timestamp_seconds{run=~"$run"})',
                            "{{run}}",
                        ),
                    ),
                    "Reports come with every batch, shard or train.log_steps steps. After 15 minutes of silence the "
                    "alert NoProgress fires.",
                    unit="s",
                    kind="numbers",
                ),
            ),
            per_line=4,
        ),
        Row(
            "How far?",
            (
                Panel(
                    "Done of the present part of each stage",
                    (
                        Query(
                            'alphafuse_stage_done{run=~"$run"} / alphafuse_stage_expected{run=~"$run"}',
                            "{{stage}}: {{unit}}",
                        ),
                    ),
                    "A stage may have several parts, which count different things.",
                    unit="percentunit",
                    kind="bars",
                ),
                Panel(
                    "Time left",
                    (Query('alphafuse_stage_remaining_seconds{run=~"$run"}', "{{stage}}"),),
                    "Estimated from the rate so far. Training stops earlier when validation no longer improves.",
                    unit="s",
                    kind="bars",
                ),
                Panel(
                    "Time of each stage",
                    (Query('alphafuse_stage_duration_seconds{run=~"$run"}', "{{stage}}"),),
                    "Stages that have ended in this run.",
                    unit="s",
                    kind="bars",
                ),
                Panel(
                    "Rows made",
                    (Query('alphafuse_artifact_rows{run=~"$run"}', "{{artifact}}"),),
                    "Rows of the finished artefacts.",
                    kind="bars",
                ),
                Panel(
                    "Bytes made",
                    (Query('alphafuse_artifact_bytes{run=~"$run"}', "{{artifact}}"),),
                    "File size of the finished artefacts.",
                    unit="bytes",
                    kind="bars",
                ),
                Panel(
                    "Free space",
                    (Query('alphafuse_workspace_free_bytes{run=~"$run"}', "{{run}}"),),
                    "Free space on the disk of a local workspace.",
                    unit="bytes",
                    kind="numbers",
                ),
            ),
        ),
        Row(
            "Learning?",
            (
                Panel("Loss", (Query('alphafuse_train_loss{run=~"$run"}', "{{run}}"),), "Should fall."),
                Panel(
                    "NDCG in validation",
                    (Query('alphafuse_evaluation_ndcg{run=~"$run", split="validation"}', "{{run}} @{{k}}"),),
                    "Should rise; training stops after train.patience validations without improvement.",
                ),
                Panel(
                    "Throughput",
                    (
                        Query(
                            'sum by (run) (rate(alphafuse_train_samples_total{run=~"$run"}[$__rate_interval]))',
                            "{{run}}: samples/s",
                        ),
                        Query(
                            'sum by (run) (rate(alphafuse_embed_texts_total{run=~"$run"}[$__rate_interval]))',
                            "{{run}}: texts/s",
                        ),
                    ),
                    "Sum over all workers.",
                ),
            ),
        ),
        Row(
            "Wrong?",
            (
                Panel(
                    "Alerts",
                    (Query('ALERTS{alertstate="firing", run=~"$run|"}', "{{alertname}} {{run}}", "fault"),),
                    "Alerts that fire; docs/monitoring.md tells what to do.",
                    kind="numbers",
                ),
                Panel(
                    "Restarts and retries",
                    (
                        Query('alphafuse_restarts_total{run=~"$run"}', "{{stage}}"),
                        Query('sum by (run) (alphafuse_storage_retries_total{run=~"$run"})', "storage"),
                    ),
                    "Restarts of workers that died, and repeated requests to storage that failed for a moment.",
                    kind="numbers",
                ),
                Panel(
                    "Warnings",
                    (Query('alphafuse_stage_warnings_total{run=~"$run"}', "{{stage}}"),),
                    "Number of warnings; their texts are on the console and on the local dashboard.",
                    kind="numbers",
                ),
                Panel(
                    "Failures",
                    (Query('alphafuse_stage_failures_total{run=~"$run"}', "{{stage}}"),),
                    "Stages that ended by an error.",
                    kind="numbers",
                ),
            ),
            per_line=4,
        ),
    ),
)
