"""The stage decompose: how far, and what came out?"""

from monitoring.grafana.board_builder import Board, Panel, Query, Row

DECOMPOSITION = Board(
    "decomposition",
    "AlphaFuse: decomposition",
    (
        Row(
            "How far?",
            (
                Panel(
                    "Rows read",
                    (
                        Query('alphafuse_stage_done{run=~"$run", stage="decompose"}', "{{run}} done"),
                        Query('alphafuse_stage_expected{run=~"$run", stage="decompose"}', "{{run}} to do"),
                    ),
                    "Rows of all passes, including the pass that writes the features.",
                ),
                Panel(
                    "Rows per second",
                    (Query('deriv(alphafuse_stage_done{run=~"$run", stage="decompose"}[1m])', "{{run}}"),),
                    "Speed of reading and multiplying.",
                ),
                Panel(
                    "Machines",
                    (Query("ray_node_cpu_utilization", "{{instance}}"),),
                    "Share of the CPUs in use. With spare ones, raise decompose.workers.",
                    unit="percent",
                ),
            ),
        ),
        Row(
            "What came out?",
            (
                Panel(
                    "Rows",
                    (Query('alphafuse_decompose_rows{run=~"$run"}', "{{run}}"),),
                    "Number of items.",
                    kind="numbers",
                ),
                Panel(
                    "Passes",
                    (Query('alphafuse_decompose_passes{run=~"$run"}', "{{run}}"),),
                    "Passes over the embeddings: one for gram, up to decompose.power_passes + 2 for randomized.",
                    kind="numbers",
                ),
                Panel(
                    "Residual",
                    (Query('alphafuse_decompose_residual_ratio{run=~"$run"}', "{{run}}"),),
                    "Largest |Cu - lu| of the kept directions over the largest eigenvalue. Above 0.01, more "
                    "decompose.power_passes make the directions sharper.",
                    kind="numbers",
                ),
                Panel(
                    "Retained energy",
                    (Query('alphafuse_decompose_retained_energy_ratio{run=~"$run"}', "{{run}}"),),
                    "Share of the variance of the embeddings in the kept directions.",
                    unit="percentunit",
                    kind="numbers",
                ),
                Panel(
                    "Dimensions",
                    (
                        Query('alphafuse_decompose_row_dimensions{run=~"$run"}', "{{run}} row space"),
                        Query('alphafuse_decompose_null_dimensions{run=~"$run"}', "{{run}} null space"),
                    ),
                    "Directions that stay frozen, and directions in which ID embeddings are trained (nullity).",
                    kind="numbers",
                ),
                Panel(
                    "Clamped",
                    (Query('alphafuse_decompose_clamped_dimensions{run=~"$run"}', "{{run}}"),),
                    "Directions too weak to be whitened by their own eigenvalue.",
                    kind="numbers",
                ),
            ),
        ),
    ),
)
