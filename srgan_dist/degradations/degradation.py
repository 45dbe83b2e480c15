"""Degradations that make low-resolution images on the device, instead of reading them from the shards.

A degradation is a function of (image, key), and a key is a hash of (seed, epoch, sample): the same sample gets
the same degradation on any rank, in any micro-batch and at any place in it, and torch's generators are not
used. This holds bit for bit on one kind of device with one number of threads; on another, a value at the border of
two levels may be rounded to the other one, but parameters and noise are the same.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from srgan_dist.degradations.draws import Draws
from srgan_dist.degradations.noise import add_gaussian, add_poisson, noise_tables
from srgan_dist.degradations.pixels import to_levels
from srgan_dist.degradations.ranges import Range, check_probability, check_range
from srgan_dist.imaging.resize import downscale_tensor


class Degradation(Protocol):
    """Makes the LR image of an HR image.

    Attributes:
        margin: HR pixels by which the input images must be higher and wider than the resulting patches.
    """

    @property
    def margin(self) -> int: ...

    def __call__(self, hr: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Degrade a batch.

        Args:
            hr: floating-point [b, 3, H, W] in [0, 1], on the degradation's device; H and W multiples of the scale.
            key: int64 [b] on the CPU (reading it from a GPU would wait for the device), each sample's hash.

        Returns:
            lr: float32 [b, 3, (H - margin) / scale, (W - margin) / scale] in [0, 1], 8-bit levels / 255.
            hr: float32 [b, 3, H - margin, W - margin], the target.

        Raises:
            ValueError: The sides are not multiples of the scale, or too small.
        """
        ...


class Bicubic:
    """The standard LR image, MATLAB-like and rounded to 8 bits, made from the patch alone, with mirrored borders.

    Its interior equals the stored LR image, which was made from the whole photograph.

    Args:
        scale: HR pixels per LR pixel, >= 1.

    Attributes:
        margin: 0.

    Raises:
        ValueError: The scale is below 1.
    """

    margin = 0

    def __init__(self, *, scale: int) -> None:
        if scale < 1:
            raise ValueError(f"scale must be at least 1, got {scale}")
        self._scale = scale

    @torch.no_grad()
    def __call__(self, hr: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - nothing is random
        """Degrade a batch; see `Degradation`."""
        target = hr.float().contiguous()
        # From levels, like the packer: 255 * (level / 255) is not always a whole number.
        lr = torch.floor(downscale_tensor(to_levels(target), self._scale) + 0.5).clamp_(0, 255)
        return lr / 255, target


class Noise:
    """Gaussian or photon noise on an image of the same size: training pairs for a denoiser.

    Args:
        gaussian_probability: Probability of Gaussian noise, otherwise Poisson, 0..1.
        gaussian_sigma: Least and greatest standard deviation in 8-bit levels, 0..255.
        poisson_scale: Least and greatest factor on photon noise, >= 0; see `add_poisson`.
        grey_probability: Probability of the same noise in all channels, 0..1.
        device: Device of the images.

    Attributes:
        margin: 0.

    Raises:
        ValueError: A value is outside its limits.

    Source:
        The default sigmas are those of blind DnCNN; Zhang et al., "Beyond a Gaussian denoiser", 2017.
    """

    margin = 0

    def __init__(
        self,
        *,
        gaussian_probability: float = 1.0,
        gaussian_sigma: Range = (0.0, 55.0),
        poisson_scale: Range = (0.05, 3.0),
        grey_probability: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        check_probability("gaussian_probability", gaussian_probability)
        check_probability("grey_probability", grey_probability)
        check_range("gaussian_sigma", gaussian_sigma, 0, 255)
        check_range("poisson_scale", poisson_scale, 0, 1e3)
        self._probability, self._grey_probability = gaussian_probability, grey_probability
        self._sigma, self._scale = gaussian_sigma, poisson_scale
        self._tables = noise_tables(device)

    @torch.no_grad()
    def __call__(self, hr: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Degrade a batch; see `Degradation`."""
        draws = Draws(key.cpu().numpy())
        gaussian = torch.from_numpy(draws.chance(self._probability))
        sigma, scale = (torch.from_numpy(draws.uniform(*limits)).float() for limits in (self._sigma, self._scale))
        grey, keys = torch.from_numpy(draws.chance(self._grey_probability)), torch.from_numpy(draws.keys())
        target = hr.float().contiguous()

        def moved(values: Tensor) -> Tensor:
            return values.to(hr.device, non_blocking=True)

        noisy = []
        # Decided on the host, so that a batch of one kind does not compute the other.
        if gaussian.any():
            noisy.append(add_gaussian(target, self._tables, keys=moved(keys), sigma=moved(sigma), grey=moved(grey)))
        if not gaussian.all():
            noisy.append(add_poisson(target, self._tables, keys=moved(keys), scale=moved(scale), grey=moved(grey)))
        lr = torch.where(moved(gaussian)[:, None, None, None], noisy[0], noisy[-1])
        return to_levels(lr) / 255, target
