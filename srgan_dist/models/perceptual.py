"""LPIPS and DISTS: distances between images that agree with people's judgements, as losses and as measures."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from srgan_dist.losses.functional import full
from srgan_dist.models.features import VGG_CHANNELS, FeatureNetwork, VGGFeatures, unit_length
from srgan_dist.models.pretrained import WeightsUnavailable, read_state_dict

LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")  # of VGG16, in both papers
LPIPS_HEADS = "lpips_models/vgg.pth"
DISTS_HEADS = "dists_models/weights.pt"
STABILITY = 1e-6  # c1 and c2 of Ding et al. 2020, eq. 5 and 6, as in their code


class LPIPS(FeatureNetwork):
    """Learned Perceptual Image Patch Similarity, version 0.1 with VGG16 ("lin").

    The heads come with torchmetrics; they were fitted to torchvision's weights. With others the values are of the same
    kind, but not those of the literature.

    Args:
        weights: Of VGG16, as for `VGGFeatures`: "auto" (torchvision's), "hed", "random" (with equal heads) or a path.
        recompute: Run VGG16 again in the backward pass instead of keeping its activations.

    Raises:
        WeightsUnavailable: The weights are not on this machine, and could not be downloaded.
        UserError: The file is not a state dict of VGG16.

    Source:
        Zhang et al. 2018, eq. 1.
    """

    def __init__(self, *, weights: str | Path, recompute: bool = False) -> None:
        super().__init__()
        self.network = VGGFeatures(network="vgg16", layers=LAYERS, weights=weights, recompute=recompute)
        trained = {} if weights == "random" else _package_file(LPIPS_HEADS)
        for number, channels in enumerate(VGG_CHANNELS):
            head = trained.get(f"lin{number}.model.1.weight", torch.ones(1, channels, 1, 1))
            self.register_buffer(f"head{number}", head)
        self.freeze()

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Compute the distance of each pair of images.

        Args:
            sr: [N, 3, H, W], RGB in [0, 1], sides of 16 pixels or more; the gradient flows to it.
            hr: Same shape; no gradient flows to it.

        Returns:
            [N], at least float32, from 0 (the same features). Swapped images have the same distance.
        """
        with torch.no_grad():
            target = self.network(hr)
        distances = []
        for number, (ours, theirs) in enumerate(zip(self.network(sr), target, strict=True)):
            head = self.get_buffer(f"head{number}")
            difference = (unit_length(ours) - unit_length(theirs)).square()
            distances.append((difference * head).sum(dim=1).mean(dim=(1, 2)))
        return torch.stack(distances).sum(dim=0)


class DISTS(FeatureNetwork):
    """Deep Image Structure and Texture Similarity: compares the means of features, their variances and covariances.

    It forgives texture that differs in place, where LPIPS does not. Its weights alpha and beta come with torchmetrics;
    they were fitted to torchvision's weights of VGG16.

    Args:
        weights: Of VGG16, as for `VGGFeatures`: "auto" (torchvision's), "hed", "random" (with equal alpha and beta) or a
            path.
        recompute: Run VGG16 again in the backward pass instead of keeping its activations.

    Raises:
        WeightsUnavailable: The weights are not on this machine, and could not be downloaded.
        UserError: The file is not a state dict of VGG16.

    Source:
        Ding et al. 2020, eq. 5 to 7, with the pooling of section 3.1.
    """

    alpha: Tensor
    beta: Tensor

    def __init__(self, *, weights: str | Path, recompute: bool = False) -> None:
        super().__init__()
        self.network = VGGFeatures(network="vgg16", layers=LAYERS, weights=weights, pooling="l2", recompute=recompute)
        trained = {} if weights == "random" else _package_file(DISTS_HEADS)
        same = torch.ones(3 + sum(VGG_CHANNELS))
        alpha, beta = trained.get("alpha", same).flatten(), trained.get("beta", same).flatten()
        total = alpha.sum() + beta.sum()
        self.register_buffer("alpha", alpha / total)
        self.register_buffer("beta", beta / total)
        self.freeze()

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Compute the distance of each pair of images.

        Args:
            sr: [N, 3, H, W], RGB in [0, 1]; the gradient flows to it.
            hr: Same shape; no gradient flows to it.

        Returns:
            [N], at least float32, from 0 (the same) to about 1. Swapped images have the same distance.
        """
        with torch.no_grad():
            target = [hr, *self.network(hr)]
        luminance, structure = [], []
        for ours, theirs in zip([sr, *self.network(sr)], target, strict=True):
            x, y = full(ours), full(theirs)
            x_mean, y_mean = x.mean(dim=(2, 3)), y.mean(dim=(2, 3))
            x, y = x - x_mean[..., None, None], y - y_mean[..., None, None]
            variances = x.square().mean(dim=(2, 3)) + y.square().mean(dim=(2, 3))
            covariance = (x * y).mean(dim=(2, 3))
            luminance.append((2 * x_mean * y_mean + STABILITY) / (x_mean.square() + y_mean.square() + STABILITY))
            structure.append((2 * covariance + STABILITY) / (variances + STABILITY))
        similarity = torch.cat(luminance, dim=1) @ self.alpha + torch.cat(structure, dim=1) @ self.beta
        return 1.0 - similarity


def _package_file(name: str) -> dict[str, Tensor]:
    """Read weights that lie in torchmetrics, which takes a second to import and need not be."""
    package = find_spec("torchmetrics")
    path = Path(package.origin).parent / "functional" / "image" / name if package and package.origin else None
    if path is None or not path.is_file():
        raise WeightsUnavailable(f"torchmetrics has no {name}: pip install 'torchmetrics>=1.7'")
    return read_state_dict(path)
