"""The adversarial loss of one global batch, for generator and discriminator, exact however it is split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from srgan_dist.data.loading.loader import Patches
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.losses import functional as losses
from srgan_dist.losses.content import Terms

Noise = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class AdversarialSettings:
    """The adversarial loss of a run: what stays the same from batch to batch.

    Attributes:
        kind: Kind of the adversarial loss.
        weight: Its weight in the generator's loss.
        label_smoothing: Real images are labelled 1 minus this.
        noise: Adds noise to images [N, 3, H, W], given keys [N] and a standard deviation; None adds none.
        r1_weight: Gamma of the R1 penalty; 0 leaves it out.
        r1_every: One discriminator update in this many has the penalty, multiplied by this number.
    """

    kind: losses.AdversarialKind
    weight: float
    label_smoothing: float = 0.0
    noise: Noise | None = None
    r1_weight: float = 0.0
    r1_every: int = 1


class RealOrFakeBatch(NamedTuple):
    """The real or the generated images of one micro-batch; a discriminator update sums over all of them.

    Attributes:
        images: [N, 3, H, W].
        keys: int64 [N], keys of the noise.
        is_real: Whether the images are real; otherwise they are generated.
        logit_grad: The gradient of the global batch's loss with respect to their logits if the loss compares images,
            else None.
        value: The value of that loss, or None.
    """

    images: Tensor
    keys: Tensor
    is_real: bool
    logit_grad: Tensor | None = None
    value: Tensor | None = None


class AdversarialObjective:
    """The adversarial terms of one global batch; this rank holds its part of it, split into micro-batches.

    A loss that compares each image with the mean of all others (relativistic average) cannot be split into
    micro-batches. Its logits can: they are computed first, the loss of the whole batch over all ranks is
    differentiated with respect to them, and each micro-batch then backpropagates its part of that gradient. The sum
    equals the gradient of the whole batch.

    Args:
        settings: The adversarial loss.
        discriminator: The plain network, without its DDP wrapper.
        batch: This rank's micro-batches, all of the same size.
        runtime: The ranks.
        factor: Multiplies the generator's adversarial loss at this step.
        noise: Standard deviation of the noise on every image that the discriminator sees, in units of the image range.

    Attributes:
        batch: The micro-batches.
        generated: The generated images of each micro-batch, detached; complete after the generator's update.
        judged: The logits of the discriminator's update, detached, of ``real`` and of ``fake`` images.

    Source:
        Jolicoeur-Martineau 2018, section 4.2; Gao et al. 2021 (GradCache), section 3, for the order of passes.
    """

    def __init__(
        self,
        settings: AdversarialSettings,
        discriminator: nn.Module,
        batch: Sequence[Patches],
        *,
        runtime: Runtime,
        factor: float = 1.0,
        noise: float = 0.0,
    ) -> None:
        self.settings, self.batch, self.runtime = settings, list(batch), runtime
        self.weight, self._noise = settings.weight * factor, noise
        self._discriminator = discriminator
        self._compares = losses.compares_images(settings.kind)
        self.generated: list[Tensor] = []
        self._real: list[Tensor] = []
        self._fake: list[Tensor] = []
        self.judged: dict[str, list[Tensor]] = {"real": [], "fake": []}
        self._precomputed: tuple[Tensor, list[Tensor]] | None = None

    def precompute_logits(self, generator: nn.Module) -> None:
        """Compute the logits of the whole batch before the generator's update, if the loss needs them.

        Args:
            generator: The plain network; its buffers do not change.
        """
        if not self._compares:
            return
        with torch.no_grad():
            self._real = [self._logits(self._discriminator, patches.hr, patches.key) for patches in self.batch]
            if len(self.batch) == 1:  # the only micro-batch's own graph holds all logits
                return
            fake = []
            for patches in self.batch:
                buffers = {name: buffer.clone() for name, buffer in generator.named_buffers()}
                sr = functional_call(generator, buffers, (patches.lr,))
                fake.append(self._logits(self._discriminator, sr, ~patches.key))
        real = torch.cat(self._real)
        value, (logit_grad,) = self._gradients(lambda logits: self._generator_loss(logits, real), fake)
        self._precomputed = (value, logit_grad)

    def generator_loss(self, sr: Tensor, index: int) -> Tensor:
        """Compute the adversarial loss of one micro-batch; gradients flow through the discriminator, not into it.

        Args:
            sr: [N, 3, H, W], generated from the micro-batch.
            index: The micro-batch's index in the batch, from 0; call this once for each, in order.

        Returns:
            Weighted scalar; the mean over the micro-batches is the batch's loss.
        """
        logits = self._logits(self._discriminator, sr, ~self.batch[index].key)
        self.generated.append(sr.detach())
        self._fake.append(logits.detach())
        if self._precomputed:
            value, logit_grads = self._precomputed
            return self.weight * _with_gradient(losses.full(logits), logit_grads[index], value)
        return self.weight * self._generator_loss(logits, self._real[index] if self._compares else None)

    def real_and_fake_batches(self) -> list[RealOrFakeBatch]:
        """The inputs of the discriminator's update: of every micro-batch the real images, then the generated ones."""
        self.judged = {"real": [], "fake": []}  # an attempt that ran out of memory may have left some
        real = [RealOrFakeBatch(patches.hr, patches.key, is_real=True) for patches in self.batch]
        fake = [
            RealOrFakeBatch(sr, ~patches.key, is_real=False)
            for patches, sr in zip(self.batch, self.generated, strict=True)
        ]
        if self._compares:
            # The discriminator has not changed since it scored them for the generator.
            values, logit_grads = self._discriminator_logit_grads()
            real = [b._replace(logit_grad=grad, value=values[0]) for b, grad in zip(real, logit_grads[0], strict=True)]
            fake = [b._replace(logit_grad=grad, value=values[1]) for b, grad in zip(fake, logit_grads[1], strict=True)]
        return [images for pair in zip(real, fake, strict=True) for images in pair]

    def discriminator_terms(self, part: RealOrFakeBatch, discriminator: nn.Module, *, r1_is_due: bool) -> Terms:
        """Compute the discriminator's loss on the real or on the generated images of one micro-batch.

        Args:
            part: One of `real_and_fake_batches`.
            discriminator: The network wrapped for distributed training.
            r1_is_due: Whether this update includes the R1 penalty, if it is configured.

        Returns:
            ``d/loss`` and, without a gradient, the mean score, the accuracy, and the penalty.

        Source:
            Mescheder et al. 2018, eq. 9 (R1), on real images; its factor compensates for the updates without it, as in
            Karras et al. 2020 (StyleGAN2), section 3.1.
        """
        penalised = r1_is_due and part.is_real and self.settings.r1_weight > 0
        images = part.images.detach().requires_grad_(penalised)
        logits = self._logits(discriminator, images, part.keys)
        if part.logit_grad is not None and part.value is not None:
            loss = _with_gradient(losses.full(logits), part.logit_grad, part.value)
        else:
            smoothing = self.settings.label_smoothing
            loss = losses.real_or_fake_loss(self.settings.kind, logits, is_real=part.is_real, label_smoothing=smoothing)
        name = "real" if part.is_real else "fake"
        self.judged[name].append(logits.detach())
        terms = {
            "d/loss": loss,
            f"d/{name}_score": logits.detach().float().sigmoid().mean(),
            f"d/{name}_accuracy": self._accuracy(logits.detach(), is_real=part.is_real),
        }
        if penalised:
            (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
            penalty = gradient.square().flatten(1).sum(1).mean()
            terms["d/loss"] = loss + 0.5 * self.settings.r1_weight * self.settings.r1_every * penalty
            terms["d/r1"] = penalty.detach()
        return terms

    def fooling_rate(self) -> Tensor:
        """Fraction of the generated images' logits that the discriminator got wrong, a scalar without a gradient."""
        return 1 - self._accuracy(torch.cat(self._fake), is_real=False)

    def split(self, size: int) -> None:
        """Continue in smaller micro-batches.

        Args:
            size: Largest number of images in a micro-batch.
        """
        self.batch = split_micro_batches(self.batch, size)
        self.generated, self._real, self._fake = (
            [piece for part in parts for piece in _split(part, size)]
            for parts in (self.generated, self._real, self._fake)
        )

    def _logits(self, discriminator: nn.Module, images: Tensor, keys: Tensor) -> Tensor:
        if self.settings.noise and self._noise:
            images = self.settings.noise(images, keys, self._noise)
        logits: Tensor = discriminator(images)
        return logits

    def _generator_loss(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return losses.adversarial_generator_loss(self.settings.kind, fake, real, average=self._average)

    def _average(self, logits: Tensor) -> Tensor:
        return self.runtime.mean_over_ranks(logits.mean())

    def _gradients(self, loss: Callable[..., Tensor], *parts: list[Tensor]) -> tuple[Tensor, list[list[Tensor]]]:
        """A loss of all logits and its gradient, split like them; times k, as the parts are averaged afterwards."""
        leaves = [losses.full(torch.cat(logits)).requires_grad_() for logits in parts]
        value = loss(*leaves)
        gradients = torch.autograd.grad(value, leaves)
        k = len(self.batch)
        sizes = [len(logits) for logits in parts[0]]
        return value.detach(), [list(_split(gradient * k, sizes)) for gradient in gradients]

    def _discriminator_logit_grads(self) -> tuple[list[Tensor], list[list[Tensor]]]:
        values: list[Tensor] = []

        def loss(real: Tensor, fake: Tensor) -> Tensor:
            terms = losses.adversarial_discriminator_loss(
                self.settings.kind, real, fake, label_smoothing=self.settings.label_smoothing, average=self._average
            )
            values.extend(term.detach() for term in terms)
            return sum(terms, start=real.new_zeros(()))

        _, logit_grads = self._gradients(loss, self._real, self._fake)
        return values, logit_grads

    def _accuracy(self, logits: Tensor, *, is_real: bool) -> Tensor:
        above, below = self._thresholds
        right = logits > above if is_real else logits < below
        return right.float().mean()

    @cached_property
    def _thresholds(self) -> tuple[Tensor | float, Tensor | float]:
        """The values that logits of real images should exceed, and those of generated ones stay below."""
        if self._compares:
            return self._average(torch.cat(self._fake)), self._average(torch.cat(self._real))
        middle = 0.5 if self.settings.kind == "lsgan" else 0.0  # its labels are 0 and 1
        return middle, middle


def split_micro_batches(batch: Sequence[Patches], size: int) -> list[Patches]:
    """Split micro-batches into smaller ones. The results are views, in the same order.

    Args:
        batch: Micro-batches.
        size: Largest number of images in a resulting micro-batch.
    """
    return [Patches(*parts) for pair in batch for parts in zip(*(_split(tensor, size) for tensor in pair), strict=True)]


def _split(tensor: Tensor, size: int | list[int]) -> tuple[Tensor, ...]:
    return torch.split(tensor, size)


def _with_gradient(logits: Tensor, logit_grad: Tensor, value: Tensor) -> Tensor:
    """A scalar with a given value and a given gradient with respect to the logits."""
    product = (logits * logit_grad).sum()
    return value + product - product.detach()
