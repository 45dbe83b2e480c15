"""The validator, on one rank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from srgan_dist.distributed.runtime import Runtime
from srgan_dist.evaluation.test_sets import read_pairs
from srgan_dist.evaluation.validator import Validator
from tests.conftest import photo


def test_cudnn_searches_for_patches_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (48, 64):
        Image.fromarray(photo(side, side)).save(tmp_path / f"{side}.png")
    runtime = Runtime()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)  # as on a GPU
    validator = Validator(list(read_pairs(tmp_path, scale=4)), scale=4, runtime=runtime, measures={})
    searches = []

    def network(lr: Tensor) -> Tensor:
        searches.append(torch.backends.cudnn.benchmark)
        return validator.bicubic(lr)

    validator.measure(network)
    validator.crops(network)
    assert searches == [False] * 4
    assert torch.backends.cudnn.benchmark
