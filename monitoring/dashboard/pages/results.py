"""The parts of a run's page that its artefacts fill: the space, results, recommendations, data, configuration."""

from __future__ import annotations

from typing import Any

from dash import html

from monitoring.dashboard import charts as figures
from monitoring.dashboard.parts import Part, figure, section, soft, table
from monitoring.report.run_facts import Content, Fact

TEXT_LENGTH = 160
"""Of an item's text in the preview."""


def results(content: Content) -> Part:
    """One section for each thing that is there; what has not run is left out."""
    return [
        part
        for part in (
            _metrics(content),
            _recommendations(content),
            _spaces(content),
            _made_from(content),
        )
        if part is not None
    ]


def _metrics(content: Content) -> Part:
    evaluation = content.evaluation
    if evaluation is None:
        return None
    cutoffs = content.cutoffs
    rows = [
        [name.upper(), *(_metric(evaluation["overall"], name, k) for k in cutoffs)] for name in ("hr", "ndcg", "mrr")
    ]
    slices = [
        [f"{name} {kind}".replace("_", " "), f"{metrics['queries']:,}", *(_metric(metrics, "ndcg", k) for k in cutoffs)]
        for kind, members in evaluation["slices"].items()
        for name, metrics in members.items()
    ]
    seen = "left out" if evaluation["exclude_seen"] else "not left out"
    return section(
        "Results on the test split",
        "results",
        soft(
            f"{evaluation['queries']:,} targets, each ranked among all {evaluation['num_items']:,} items by "
            f"{evaluation['similarity']}; items a user has seen before are {seen}."
        ),
        table(["", *(f"@{k}" for k in cutoffs)], rows, "Metrics"),
        html.Details(
            [html.Summary("By slices (NDCG)"), table(["", "targets", *(f"@{k}" for k in cutoffs)], slices, "Slices")]
        ),
    )


def _metric(metrics: dict[str, Any], name: str, cutoff: int) -> str:
    value = metrics[f"{name}@{cutoff}"]
    return "–" if value is None else f"{value:.4f}"


def _recommendations(content: Content) -> Part:
    if not content.examples:
        return None
    cards = [
        html.Div(
            [
                html.H3(f"User {example['user_id']}: latest items"),
                html.Ol([html.Li(title) for title in example["history"]]),
                html.H3("Recommended"),
                html.Ol([_item(item) for item in example["recommended"]]),
            ],
            className="card",
        )
        for example in content.examples
    ]
    return section("Recommendations", "recommendations", html.Div(cards, className="examples"))


def _item(item: dict[str, Any]) -> Part:
    text = item["text"] if len(item["text"]) <= TEXT_LENGTH else item["text"][: TEXT_LENGTH - 1] + "…"
    return html.Li([item["title"], html.Span(f"{item['score']:.3f} · {text}", className="soft")])


def _spaces(content: Content) -> Part:
    space = content.nullspace
    if space is None or content.spectrum is None:
        return None
    said = (
        f"{space['embedding_dim']} dimensions of the language model, {space['hidden_dim']} kept: "
        f"{space['row_dim']} row space, {space['null_dim']} null space ({space['method']}, "
        f"{space['retained_energy']:.1%} of the variance kept)"
    )
    drawing = figures.spectrum(content.spectrum, space["row_dim"], space["hidden_dim"])
    return section(
        "Row space and null space", "spaces", figure("spectrum", "Spectrum of the embeddings", drawing, said)
    )


def _made_from(content: Content) -> Part:
    """Data, embeddings and settings, folded: who looks for them finds them."""
    reasons = [Fact(reason, f"{count:,}", concern=True) for reason, count in content.quarantined.items()]
    facts = {"Data": content.data, "Language embeddings": content.embedding, "Quarantined items by reason": reasons}
    folded = [
        html.Details([html.Summary(f"{title} ({len(told)} facts)"), _facts(title, told)])
        for title, told in facts.items()
        if told
    ]
    settings = html.Details([html.Summary("Configuration"), html.Pre(content.configuration, tabIndex="0")])
    return section("What it is made from", "made-from", *folded, settings)


def _facts(title: str, facts: list[Fact]) -> Part:
    rows = [[("⚠ " if fact.concern else "") + fact.name, fact.value] for fact in facts]
    return table([], rows, title, [place for place, fact in enumerate(facts) if fact.concern])
