"""Reads the validation images that the configuration names, and builds what is measured of them."""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import chain
from typing import Literal

import torch

from srgan_dist.config.data import DataConfig
from srgan_dist.config.training import MEASURE_NAMES
from srgan_dist.degradations.build import build_degradation
from srgan_dist.distributed.collectives import Collectives
from srgan_dist.errors import UserError
from srgan_dist.evaluation.image_measures import ImageMeasure, grid_measure, network_measure
from srgan_dist.evaluation.test_sets import ImagePair, read_pairs
from srgan_dist.evaluation.validator import check_sizes
from srgan_dist.imaging.pixels import to_uint8
from srgan_dist.models.perceptual import DISTS, LPIPS
from srgan_dist.models.pretrained import WeightsUnavailable, vgg16_is_here

Weights = Literal["auto", "hed"]
_NETWORKS: dict[str, tuple[type[LPIPS | DISTS], Weights]] = {
    "lpips": (LPIPS, "auto"),
    "dists": (DISTS, "auto"),
    "lpips_hed": (LPIPS, "hed"),
    "dists_hed": (DISTS, "hed"),
}


def build_validation_images(config: DataConfig) -> list[ImagePair]:
    """Read all images of the validation folders; for a denoiser, add noise, always the same to the same image."""
    folders, scale = config.validation, config.scale
    images = list(chain.from_iterable(read_pairs(folder, scale=scale) for folder in folders))
    if config.degradation.kind == "noise":
        noise = build_degradation(config.degradation, scale=scale, device=torch.device("cpu"))
        assert noise
        noisy = (noise(image.hr / 255, torch.tensor([number]))[0] for number, image in enumerate(images))
        images = [image._replace(lr=to_uint8(lr)) for image, lr in zip(images, noisy, strict=True)]
    problem = check_sizes(images, scale=scale)
    if problem:
        raise UserError(f"data.validation: {problem}")
    return images


def build_measures(
    asked: Literal["auto"] | Sequence[str],
    *,
    key: str,
    scale: int,
    device: torch.device | str,
    ranks: Collectives | None = None,
) -> dict[str, ImageMeasure]:
    """Build what is measured besides PSNR and SSIM.

    Args:
        asked: Names, whose weights are downloaded if they must be; auto: the grid, and LPIPS and DISTS by the first
            VGG16 whose weights are on the machine of every rank. Without upscaling there is no grid to measure.
        key: Where that was asked for, such as ``validate.measures``.
        scale: Factor between LR and HR.
        device: Where the images are.
        ranks: The other ranks, which measure the same; None: there are none.

    Returns:
        The measures by name.

    Raises:
        UserError: A name is none.
        WeightsUnavailable: A name's weights are not here, and could not be downloaded.
    """
    if unknown := [name for name in asked if name not in MEASURE_NAMES] if asked != "auto" else []:
        raise UserError(f"{key} has {unknown[0]!r:.60}; allowed is auto, or a list of {', '.join(MEASURE_NAMES)}")
    names = on_this_machine(ranks) if asked == "auto" else list(asked)
    measures: dict[str, ImageMeasure] = {}
    for name in names:
        if name == "grid":
            measures |= {name: grid_measure(scale)} if scale > 1 else {}
            continue
        network, weights = _NETWORKS[name]
        try:
            with torch.random.fork_rng(devices=()):  # a run's random numbers do not depend on what it measures
                measures[name] = network_measure(network(weights=weights).to(device))
        except WeightsUnavailable as error:
            raise WeightsUnavailable(f"{key} has {name}: {error}") from None
    return measures


def lacking_weights(asked: Literal["auto"] | Sequence[str]) -> dict[str, Weights]:
    """Those of the measures that are asked for whose weights are not on this machine, and which weights that are."""
    needed = {name: weights for name, (_, weights) in _NETWORKS.items() if asked != "auto" and name in asked}
    return {name: weights for name, weights in needed.items() if not vgg16_is_here(weights)}


def describe_auto(measures: Set[str], *, key: str) -> str:
    """What ``auto`` came to, in one line."""
    if measures & _NETWORKS.keys():
        return f"{key}=auto: measures {', '.join(name for name in MEASURE_NAMES if name in measures)}"
    none = "no weights of VGG16 for LPIPS and DISTS are on this machine"
    return f"{key}=auto: measures {'the grid alone' if 'grid' in measures else 'nothing more'}, as {none}"


def on_this_machine(ranks: Collectives | None) -> list[str]:
    """What can be measured without a download, on every rank."""
    for weights in ("auto", "hed"):
        is_here = vgg16_is_here(weights)
        if ranks.all_agree(is_here) if ranks else is_here:
            return ["grid", *(name for name, (_, needed) in _NETWORKS.items() if needed == weights)]
    return ["grid"]
