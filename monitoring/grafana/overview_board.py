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
                    "What the run is at.",
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
                    "alert NoProgress goes off.",
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
                    "At the rate so far. Training may stop earlier, when validation does not improve any more.",
                    unit="s",
                    kind="bars",
                ),
                Panel(
                    "Time of each stage",
                    (Query('alphafuse_stage_duration_seconds{run=~"$run"}', "{{stage}}"),),
                    "Of those that have ended in this run.",
                    unit="s",
                    kind="bars",
                ),
                Panel(
                    "Rows made",
                    (Query('alphafuse_artifact_rows{run=~"$run"}', "{{artifact}}"),),
                    "Of the artefacts that are finished.",
                    kind="bars",
                ),
                Panel(
                    "Bytes made",
                    (Query('alphafuse_artifact_bytes{run=~"$run"}', "{{artifact}}"),),
                    "Of the artefacts that are finished.",
                    unit="bytes",
                    kind="bars",
                ),
                Panel(
                    "Free space",
                    (Query('alphafuse_workspace_free_bytes{run=~"$run"}', "{{run}}"),),
                    "Of the disk of a local workspace.",
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
                    "Should rise; once it does not in train.patience validations, training stops.",
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
                    "Of all workers together.",
                ),
            ),
        ),
        Row(
            "Wrong?",
            (
                Panel(
                    "Alerts",
                    (Query('ALERTS{alertstate="firing", run=~"$run|"}', "{{alertname}} {{run}}", "fault"),),
                    "What goes off; docs/monitoring.md tells what to do.",
                    kind="numbers",
                ),
                Panel(
                    "Restarts and retries",
                    (
                        Query('alphafuse_restarts_total{run=~"$run"}', "{{stage}}"),
                        Query('sum by (run) (alphafuse_storage_retries_total{run=~"$run"})', "storage"),
                    ),
                    "Of workers that died, and of storage that failed for a moment.",
                    kind="numbers",
                ),
                Panel(
                    "Warnings",
                    (Query('alphafuse_stage_warnings_total{run=~"$run"}', "{{stage}}"),),
                    "Their texts are on the console and in the report.",
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
