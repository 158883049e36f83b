"""DNSMOS: the network of speechmos without its package."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import ModelError, RunError
from pipelines.generation import opinion
from pipelines.generation.audio import Sound
from tests.unit.generation.test_speakers import buzz


def test_windows_are_those_of_speechmos() -> None:
    assert opinion.PART == 144_160
    short = opinion.windows(np.arange(100_000, dtype=np.float32) / 100_000)
    assert [len(one) for one in short] == [144_160] * 3  # it is doubled: 12.5 seconds
    assert short[0][100_000] == 0
    assert short[0][:100_000] == pytest.approx(np.arange(100_000) / 100_000)
    long = opinion.windows(np.zeros(12 * 16_000, np.float32))  # 9.01 seconds from 0, 1 and 2; not from 3
    assert [len(one) for one in long] == [144_160] * 3
    assert [len(one) for one in opinion.windows(np.zeros(0, np.float32))] == [144_160]
    assert opinion.windows(np.array([3.0, -3.0]))[0].max() == 1


def test_noise_is_rated_worse_than_a_clear_voice() -> None:
    clear, noise = buzz(120, 0), Sound(0.2 * np.random.default_rng(0).standard_normal(16_000).astype("f"), 16_000)
    found = opinion.dnsmos()([clear, noise])
    assert set(found) == {"dnsmos", "dnsmos_signal", "dnsmos_background"}
    assert all(1 <= value <= 5 for values in found.values() for value in values)
    assert found["dnsmos"][0] > found["dnsmos"][1]
    assert found["dnsmos_background"][0] > found["dnsmos_background"][1] + 0.5
    # the polynomials of speechmos map a raw 1 to about these values
    assert np.polyval(opinion.OVERALL, 1.0) == pytest.approx(1.0938, abs=1e-4)


def test_what_is_missing_or_damaged_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"x\.onnx: not DNSMOS's network"):
        opinion.dnsmos(tmp_path / "x.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match="pip install speechmos onnxruntime"):
        opinion.dnsmos()


def test_onnxruntime_reports_nothing(tmp_path: Path) -> None:
    """It keeps the state of its telemetry in the folder for temporary files as soon as it is imported."""
    own = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = "import pipelines, onnxruntime; print(onnxruntime.__version__)"
    command = [sys.executable, "-c", code]
    subprocess.run(command, env={**own, "TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []
