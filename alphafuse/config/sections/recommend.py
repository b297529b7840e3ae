"""The section `recommend`: top items for users or histories."""

from __future__ import annotations

from alphafuse.config.base import Count, Section


class RecommendConfig(Section):
    """Top items for users or histories."""

    top_k: Count = 10
    """Number of items for each user."""
    exclude_seen: bool = True
    """Leave out items that the history holds."""
    users: str | None = None
    """Parquet with the column user_id, or with user_id and history (list of item ids); null: every test user."""
