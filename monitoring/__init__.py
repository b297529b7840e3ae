"""Shows what runs do: metrics, event logs, terminal, dashboard, report, comparison tables and experiment trackers."""
