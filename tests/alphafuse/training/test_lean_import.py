"""Packages that seem not to be installed for a while."""

from __future__ import annotations

import subprocess
import sys

import pytest

from alphafuse.training.lean_import import without


def test_an_import_fails_within_the_context_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with without("wave"), pytest.raises(ModuleNotFoundError):
        import wave
    import wave

    with without("wave"):
        import wave as again
    assert again is wave


@pytest.mark.engine
def test_the_engine_does_not_import_what_only_deepspeeds_autotuner_uses() -> None:
    code = "import sys, alphafuse.training.engine; print('deepspeed' in sys.modules, 'mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "True False", done.stderr
