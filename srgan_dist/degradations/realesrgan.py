"""Real-ESRGAN's second-order degradation, on the device."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from srgan_dist.degradations.jpeg import jpeg, jpeg_constants
from srgan_dist.degradations.kernels import filter_image, sharpen, usm_kernel
from srgan_dist.degradations.noise import add_gaussian, add_poisson, noise_tables
from srgan_dist.degradations.pixels import to_levels
from srgan_dist.degradations.ranges import StageRanges, check_probability
from srgan_dist.degradations.recipe import DegradationPlan, StagePlan, draw_plan

_Tensors = TypeVar("_Tensors", bound=NamedTuple)


class RealESRGAN:
    """Blur, resize, noise and JPEG, twice, with a ringing filter at the end, drawn for each sample separately.

    Samples are degraded one after another. Their sizes differ after the first resize, so that a batch would have to
    be padded to the largest (3.3 times the pixels), and the bits of a transform or a resize could depend on the
    batch size. One at a time, a sample's result is the same in any micro-batch by construction.

    There is no training-pair pool (the published code's queue of 180 pairs), because its reasons do not apply
    here. There, a whole batch has the same resize factor, noise and order of the final steps, and the pool mixes
    batches to compensate; here all of them are drawn for each sample. The pool also shuffles samples, but they are
    shuffled already, over an epoch or a window of shards. A pool that resumes exactly and is the same on any number
    of ranks would be another permutation; with one that keeps pairs, a step's data would no longer be a function of
    (seed, epoch, sample).

    Args:
        scale: HR pixels per LR pixel.
        margin: HR pixels, a multiple of `scale`, by which the degraded images are higher and wider than the resulting
            pairs, which are cut from them at random, so that they rarely contain mirrored borders.
        first: Ranges of the first stage.
        second: Ranges of the second stage.
        ringing_probability: Probability of the final sinc filter.
        sharpen: Sharpen the HR image before it is degraded, and as the target ("Real-ESRGAN+"). In the published code
            the discriminator sees the unsharpened image; here it sees the same target as the other losses.
        device: Device of the images.

    Attributes:
        margin: The given margin.

    Raises:
        ValueError: A value is outside its limits.

    Source:
        Wang et al., "Real-ESRGAN: Training real-world blind super-resolution with pure synthetic data", 2021, section 3
        and the published training options. Unlike there, images are rounded to 8 bits before JPEG, whose quality is
        a whole number, as in a file.
    """

    def __init__(
        self,
        *,
        scale: int,
        margin: int,
        first: StageRanges,
        second: StageRanges,
        ringing_probability: float,
        sharpen: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if scale < 1 or margin < 0 or margin % scale:
            raise ValueError(f"margin must be a multiple of the scale, got {margin} and {scale}")
        check_probability("ringing_probability", ringing_probability)
        self.margin = margin
        self._scale, self._ringing_probability = scale, ringing_probability
        self._first, self._second = first, second
        self._noise, self._jpeg = noise_tables(device), jpeg_constants(device)
        self._usm = usm_kernel().to(device) if sharpen else None

    @torch.no_grad()
    def __call__(self, hr: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Degrade a batch; see `Degradation`."""
        height, width = hr.shape[-2:]
        if height % self._scale or width % self._scale or min(height, width) <= self.margin:
            raise ValueError(
                f"images of {height}x{width} must be multiples of the scale {self._scale} and exceed "
                f"the margin of {self.margin}"
            )
        plan = draw_plan(
            key.cpu().numpy(),
            height=height,
            width=width,
            scale=self._scale,
            first=self._first,
            second=self._second,
            ringing_probability=self._ringing_probability,
        )
        plan = _moved(plan, hr.device)._replace(
            first=_moved(plan.first, hr.device), second=_moved(plan.second, hr.device)
        )
        pairs = [self._degrade(image, plan, number) for number, image in enumerate(hr.float().unbind(0))]
        return torch.cat([lr for lr, _ in pairs]), torch.cat([target for _, target in pairs])

    def _degrade(self, image: Tensor, plan: DegradationPlan, number: int) -> tuple[Tensor, Tensor]:
        target = image[None].contiguous()
        if self._usm is not None:
            target = sharpen(target, self._usm)
        first, second = plan.first, plan.second
        lr = self._compress(self._stage(target, first, number), first, number)
        lr = self._stage(lr, second, number)
        height, width = (side // self._scale for side in target.shape[-2:])
        if not plan.jpeg_last[number]:
            lr = self._compress(lr, second, number)
        lr = _resized(lr, (height, width), plan.modes[number])
        if plan.ringing[number]:
            lr = filter_image(lr, plan.kernels[number])
        lr = self._compress(lr, second, number) if plan.jpeg_last[number] else to_levels(lr) / 255
        return self._cut(lr, target, plan, number)

    def _stage(self, image: Tensor, plan: StagePlan, number: int) -> Tensor:
        if plan.blurred[number]:
            image = filter_image(image, plan.kernels[number])
        image = _resized(image, plan.sizes[number], plan.modes[number])
        one = slice(number, number + 1)
        keys, strength, grey = plan.noise_keys[one], plan.strength[one], plan.grey[one]
        if plan.gaussian[number]:
            image = add_gaussian(image, self._noise, keys=keys, sigma=strength, grey=grey)
        else:
            image = add_poisson(image, self._noise, keys=keys, scale=strength, grey=grey)
        return image.clamp_(0, 1)

    def _compress(self, image: Tensor, plan: StagePlan, number: int) -> Tensor:
        return jpeg(image, plan.quality[number : number + 1], self._jpeg)

    def _cut(self, lr: Tensor, target: Tensor, plan: DegradationPlan, number: int) -> tuple[Tensor, Tensor]:
        scale, spare = self._scale, self.margin // self._scale
        top, left = (int(unit * (spare + 1)) for unit in (plan.unit_top[number], plan.unit_left[number]))
        height, width = lr.shape[-2] - spare, lr.shape[-1] - spare
        small = lr[..., top : top + height, left : left + width]
        top, left = top * scale, left * scale
        return small, target[..., top : top + height * scale, left : left + width * scale]


def _resized(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if image.shape[-2:] == size:
        return image
    # Without antialiasing, as in the published code: aliasing is one of the degradations.
    return F.interpolate(image, size=size, mode=mode, align_corners=None if mode == "area" else False)


def _moved(values: _Tensors, device: torch.device) -> _Tensors:
    # Non-blocking: a blocking copy from pageable memory would wait for all queued work of the GPU.
    return type(values)._make(v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for v in values)
