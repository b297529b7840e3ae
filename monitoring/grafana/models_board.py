"""The versions of a model, as `alphafuse models metrics` serves them: how old, how large, how far from the last one?"""

from monitoring.grafana.board_builder import Board, Panel, Query, Row

LEGEND = "{{instance}} {{alias}}"

MODELS = Board(
    "models",
    "AlphaFuse: versions of models",
    (
        Row(
            "Does the daily job do its work?",
            (
                Panel(
                    "Age",
                    (Query("time() - alphafuse_model_created_timestamp_seconds", LEGEND, "models"),),
                    "Time since the version was exported. It falls when a new version is promoted.",
                    unit="s",
                ),
                Panel(
                    "Cost of the training",
                    (Query("alphafuse_model_training_seconds", LEGEND, "models"),),
                    "Time of the training of the version. A training from scratch takes several times as long as an "
                    "update.",
                    unit="s",
                ),
                Panel(
                    "Items",
                    (
                        Query("alphafuse_model_items", LEGEND, "models"),
                        Query("alphafuse_model_untrained_items", f"{LEGEND} untrained", "models"),
                    ),
                    "Items that can be recommended, and those of them that came after the training.",
                ),
            ),
        ),
        Row(
            "How far has it moved?",
            (
                Panel(
                    "Lost energy",
                    (Query("alphafuse_model_lost_energy_ratio", LEGEND, "models"),),
                    "Beyond update.max_lost_energy the null space is made again and aligned.",
                    unit="percentunit",
                ),
                Panel(
                    "Distortion",
                    (Query("alphafuse_model_distortion_ratio", LEGEND, "models"),),
                    "Beyond update.max_distortion the null space is made again and aligned.",
                    unit="percentunit",
                ),
                Panel(
                    "Overlap with the parent's lists",
                    (Query("alphafuse_model_overlap_ratio", LEGEND, "models"),),
                    "Share of the ten best items that the version before recommends, too.",
                    unit="percentunit",
                ),
            ),
        ),
    ),
)
