"""A frozen network computes in bf16 what autocast would."""

from __future__ import annotations

import sys

from tests.conftest import run

# A process of its own: Accelerate fixes the precision of a whole process.
CODE = """
import torch
from srgan_dist.models.features import EfficientNetLite0Features, VGGFeatures
from srgan_dist.distributed.runtime import Runtime

runtime = Runtime(precision="bf16", threads=1)
for make in (
    lambda: VGGFeatures(network="vgg19", layers=["conv5_4"], weights="random"),
    lambda: EfficientNetLite0Features(weights="random"),
):
    cast, plain = runtime.place(make()), runtime.place(make())
    cast.compute_in(runtime.dtype)
    weights = sum(p.numel() * p.element_size() for p in plain.parameters())
    assert sum(p.numel() * p.element_size() for p in cast.parameters()) < 0.55 * weights
    images = torch.rand(2, 3, 64, 64)
    gradients, outputs = [], []
    for network in (cast, plain):
        leaf = images.clone().requires_grad_()
        with runtime.autocast():
            maps = network(leaf)
        sum(one.float().square().mean() for one in maps).backward()
        gradients.append(leaf.grad)
        outputs.append(maps)
    assert all(torch.equal(one, other) for one, other in zip(*outputs))
    assert torch.equal(*gradients) and gradients[0].abs().sum() > 0
"""


def test_frozen_weights_in_bf16_are_what_autocast_makes_of_them() -> None:
    done = run(sys.executable, "-W", "error", "-c", CODE)
    assert done.code == 0, done.err
