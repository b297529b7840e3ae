"""Variables that are set for a while, and what they were before."""

from __future__ import annotations

import os

import pytest

from jobs.execution.variables import variables


def _fail_inside() -> None:
    with variables({"ALPHAFUSE_TEST_GIVEN": "1", "ALPHAFUSE_TEST_MISSING": "2"}):
        assert (os.environ["ALPHAFUSE_TEST_GIVEN"], os.environ["ALPHAFUSE_TEST_MISSING"]) == ("1", "2")
        raise ValueError("inside")


def test_values_of_before_come_back_after_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHAFUSE_TEST_GIVEN", "before")
    monkeypatch.delenv("ALPHAFUSE_TEST_MISSING", raising=False)
    with pytest.raises(ValueError, match="inside"):
        _fail_inside()
    assert os.environ["ALPHAFUSE_TEST_GIVEN"] == "before"
    assert "ALPHAFUSE_TEST_MISSING" not in os.environ
