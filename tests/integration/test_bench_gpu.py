"""`make bench-gpu` on a CPU with tiny models: its tests run, and its table has every line."""

import re
from pathlib import Path

import pytest

from tests.benchmarks import gpu

LINE = re.compile(r"\| (?P<name>[^|]+) \| \d+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+% / [\d.]+% \| [\d,]+ / [\d,]+ \|")


def test_the_command_writes_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--tiny", "--device", "cpu", "--seconds", "0.5", "--table", str(tmp_path / "table.md")])
    table = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out == table
    passed = re.search(r"Tests of the marker `gpu`: (\d+) passed, 1 skipped", table)
    assert passed is not None
    assert int(passed[1]) > 40
    assert [found["name"] for found in map(LINE.fullmatch, table.splitlines()) if found] == [
        "ViT-B/16, 224 px",
        "BERT-base, extractive QA",
        "wav2vec2-base, CTC",
        "U-Net of DDPM, 32 px",
        "Llama of 1.2 B, LoRA of rank 16, blocks of 1,024 tokens",
    ]


def test_without_a_gpu_it_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match=r"no GPU here.*--tiny --device cpu"):
        gpu.main([])
