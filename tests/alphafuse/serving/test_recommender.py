"""A loaded export against the stages that rank the workspace's model, for every encoder and backbone."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from support.processes.gloo_workers import without_ray
from support.workspaces.exported_model import DIFFUSION, DREAMREC, exported
from support.workspaces.tiny_workspace import EMBEDDING_DIM, NUM_ITEMS, tiny_sequences

import alphafuse
from alphafuse.config import Config
from alphafuse.distributed.communicator import Communicator
from alphafuse.errors import DataError
from alphafuse.evaluation.ranking.catalog_ranking import CatalogRanking, Queries
from alphafuse.evaluation.ranking.vector_blocks import VectorBlocks
from alphafuse.events import ignore
from alphafuse.serving.recommender import Recommender, load
from alphafuse.storage.workspace import Workspace
from alphafuse.training.checkpoints.trained_model import load_trained
from jobs.stages import recommend

MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alphafuse": ({}, {}),
    "alphafuse dot": ({}, {"loss": {"similarity": "dot", "num_negatives": 6}}),
    "id gru4rec": ({"encoder": {"name": "id"}, "backbone": {"name": "gru4rec"}}, {}),
    "morec hstu": ({"encoder": {"name": "morec"}, "backbone": {"name": "hstu"}}, {}),
    "whitenrec": ({"encoder": {"name": "whitenrec"}, "hidden_dim": 6}, {}),
    "unisrec": ({"encoder": {"name": "unisrec"}}, {}),
    "llminit": ({"encoder": {"name": "llminit"}}, {}),
    "rlmrec_con": ({"encoder": {"name": "rlmrec_con"}}, {}),
    "rlmrec_gen": ({"encoder": {"name": "rlmrec_gen"}}, {}),
    "llm_esr hstu": ({"encoder": {"name": "llm_esr"}, "backbone": {"name": "hstu"}}, {}),
    "all euclidean": (
        {"encoder": {"id_space": "euclidean", "injection_space": "euclidean"}, "hidden_dim": EMBEDDING_DIM},
        {},
    ),
    "idreamrec dreamrec": ({"encoder": {"name": "idreamrec"}, "backbone": DREAMREC}, DIFFUSION),
    "llm_esr dreamrec": ({"encoder": {"name": "llm_esr"}, "backbone": DREAMREC}, DIFFUSION),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return exported(tmp_path_factory.mktemp("exported") / "run", workers=1)


@pytest.fixture(scope="module")
def recommender(config: Config) -> Recommender:
    return load(config.workspace)


def _ids(history: list[int]) -> list[str]:
    return [f"item {item}" for item in history]


def _stage_lists(config: Config) -> dict[str, dict[str, Any]]:
    """The lists of the stage `recommend`, by user."""
    workspace = Workspace(config.workspace)
    with without_ray():
        recommend.run(config, workspace, ignore)
    artifact = workspace.artifact("recommendations")
    rows = [row for file in artifact.require().files for row in artifact.read_table(file).to_pylist()]
    return {row.pop("user_id"): row for row in rows}


@pytest.mark.parametrize("name", MODELS)
def test_the_lists_are_those_of_the_stage(tmp_path: Path, name: str) -> None:
    model, train = MODELS[name]
    config = exported(tmp_path, model, **train)
    wanted = _stage_lists(config)
    users = [int(user.split()[1]) for user in wanted]
    found = load(tmp_path / "export").recommend([_ids(tiny_sequences()[user]) for user in users])
    for user, items in zip(wanted, found, strict=True):
        assert [item.item_id for item in items] == wanted[user]["item_ids"]
        assert [item.title for item in items] == wanted[user]["titles"]
        np.testing.assert_allclose([item.score for item in items], wanted[user]["scores"], rtol=1e-4, atol=1e-5)


@pytest.mark.distributed
def test_ranks_export_what_one_process_does(tmp_path: Path, recommender: Recommender) -> None:
    other = load(exported(tmp_path, workers=3).workspace)
    histories = [_ids(history) for history in tiny_sequences()]
    assert other.item_ids.equals(recommender.item_ids)
    np.testing.assert_allclose(other.score(histories, _ids([4, 5])), recommender.score(histories, _ids([4, 5])))


def test_equal_scores_are_ordered_by_the_item_index(tmp_path: Path) -> None:
    """All items without a text have one vector, with no trainable row: they tie, across files and tiles."""
    config = exported(tmp_path, {"encoder": {"name": "idreamrec"}})
    recommender = load(config.workspace)
    vectors = recommender.item_vectors(_ids(list(range(NUM_ITEMS))))
    same = np.repeat(vectors[:1], NUM_ITEMS, axis=0)
    blocks = VectorBlocks([torch.from_numpy(part.copy()) for part in np.split(same, [5, 5, 19])])
    catalog = CatalogRanking(blocks, 0, "dot", Communicator(), tile=(2, 64))
    items = catalog.rank(Queries(torch.from_numpy(vectors[1:4])), 6).items
    assert items.tolist() == [[0, 1, 2, 3, 4, 5]] * 3


def test_vectors_and_scores(config: Config, recommender: Recommender) -> None:
    model = load_trained(config, Workspace(config.workspace), Communicator())
    vectors = torch.nn.functional.normalize(model.item_vectors(), dim=1)
    history, asked = tiny_sequences()[3], [29, 0, 7, 7]
    state = model.hidden_states(torch.tensor([history[-4:]]))
    np.testing.assert_allclose(recommender.item_vectors(_ids(asked)), vectors[asked], atol=1e-6)
    wanted = torch.nn.functional.cosine_similarity(vectors[asked], state)
    np.testing.assert_allclose(recommender.score([_ids(history)], _ids(asked))[0], wanted, atol=1e-6)
    product = recommender.history_vectors([_ids(history)]) @ recommender.item_vectors(_ids(asked)).T
    np.testing.assert_allclose(product[0], wanted, atol=1e-6)

    similar = recommender.similar_items(["item 7"], k=NUM_ITEMS)[0]
    order = (vectors @ vectors[7]).argsort(descending=True).tolist()
    assert [item.item_id for item in similar] == _ids([item for item in order if item != 7])


def test_seen_unknown_and_long_histories(recommender: Recommender) -> None:
    long = _ids([1, 2, 3, 4, 5, 6])  # two more than the model reads
    everything = recommender.recommend([long], k=10**12)[0]
    assert {item.item_id for item in everything} == {*_ids(list(range(NUM_ITEMS)))} - {*long}
    with_seen = recommender.recommend([long, long[2:]], k=100, exclude_seen=False)
    assert len(with_seen[0]) == NUM_ITEMS
    assert with_seen[0] == with_seen[1]
    with pytest.warns(UserWarning, match="3 of 5 items of the histories are not in the catalog and were left out"):
        found = recommender.recommend([["item 4", "stranger", None], [], ["nobody", "item 2"]], k=3)
    alone = [recommender.recommend([[item]], 3)[0] for item in ("item 4", "item 2")]
    shown = [[item.item_id for item in items] for items in [found[0], found[2], *alone]]
    assert shown[:2] == shown[2:]
    assert found[1] == []
    with pytest.warns(UserWarning, match="1 of 1"):
        assert np.isnan(recommender.score([["nobody"]], ["item 1"])).all()
    assert recommender.recommend([]) == []
    assert "item 4" in recommender
    assert "stranger" not in recommender


def test_histories_of_any_kind(recommender: Recommender) -> None:
    histories = [_ids([4, 2]), _ids([9])]
    lists = recommender.recommend(histories, 2)
    column = pa.array(histories)
    for same in (tuple(map(tuple, histories)), column, pa.chunked_array([column]), pd.Series(histories)):
        assert recommender.recommend(same, 2) == lists
    table = pa.table({"user_id": [7, 8], "history": histories})
    found = recommender.recommend(table, 2)
    assert found.to_pylist() == [
        {
            "user_id": str(user),
            "item_ids": [item.item_id for item in items],
            "titles": [item.title for item in items],
            "scores": [item.score for item in items],
        }
        for user, items in zip((7, 8), lists, strict=True)
    ]
    frame = recommender.recommend(table.to_pandas(), 2)
    assert isinstance(frame, pd.DataFrame)
    assert frame["item_ids"].map(list).tolist() == found["item_ids"].to_pylist()


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        (["item 4", "item 2"], "must be lists of item ids, found str 'item 4'"),
        ("item 4", "must be lists of item ids, found str"),
        (4, "must be lists of item ids, found int"),
        ([["item 4", 2]], "all strings or all integers"),
        ([[4.5]], "4.5"),
        (pd.DataFrame({"user": [1]}), "has no column 'user_id'"),
        (pd.DataFrame({"user_id": [1], "history": ["item 4"]}), "must hold lists of item ids"),
    ],
)
def test_other_values_are_refused(recommender: Recommender, histories: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        recommender.recommend(histories)


def test_unknown_items_and_numbers_are_refused(recommender: Recommender) -> None:
    for ask in (recommender.item_vectors, recommender.similar_items, lambda ids: recommender.score([["item 1"]], ids)):
        with pytest.raises(DataError, match="the catalog has no item 'stranger'"):
            ask(["item 1", "stranger"])
    for k in (0, -1, 2.5):
        with pytest.raises(DataError, match="k, the number of items of a list"):
            recommender.recommend([["item 1"]], k=k)  # type: ignore[arg-type]


def test_threads_get_the_answers_of_one(recommender: Recommender) -> None:
    histories = [[_ids(history)] for history in tiny_sequences()]
    wanted = [recommender.recommend(history) for history in histories]
    found: dict[int, list[Any]] = {}

    def ask(thread: int) -> None:
        found[thread] = [recommender.recommend(history) for history in histories]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == [wanted] * 4


@pytest.mark.engine
def test_loading_imports_neither_ray_nor_its_like(config: Config) -> None:
    code = """
import sys, alphafuse
assert "torch" not in sys.modules and "pydantic" not in sys.modules
alphafuse.load(sys.argv[1]).recommend([["item 1"]])
print({"ray", "deepspeed", "datasets", "vllm", "transformers"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code, config.workspace], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_the_package_offers_what_it_names() -> None:
    assert alphafuse.load is load
    assert {"load", "Recommender"} <= {*dir(alphafuse)}
    with pytest.raises(AttributeError, match="module 'alphafuse' has no attribute 'lode'"):
        _ = alphafuse.lode  # type: ignore[attr-defined]
