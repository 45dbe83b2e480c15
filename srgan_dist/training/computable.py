"""Which patches and micro-batches the networks can compute, found by running these very networks without data.

A layer of BatchNorm cannot normalise a single value, and a pooling or a convolution leaves nothing of a map that is
smaller than its kernel. Both show only in the deepest layers, of the discriminator in the adversarial phase.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, get_args

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from srgan_dist.config.models import NotRecomputed
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError
from srgan_dist.models.build import build_discriminator, build_features, build_generator, build_learned_distance
from srgan_dist.models.classes import raised
from srgan_dist.training.without_memory import NEEDS_VALUES, without_memory

_MAX_PATCH_SIZE = 1024  # up to which one is looked for that would do


def check_computable(config: Config, *, micro_batch: int, per_rank_batch: int, batchnorm_ranks: int) -> None:
    """Refuse a patch size with which the networks cannot compute a micro-batch.

    Args:
        config: The configuration; its own micro-batch is ignored.
        micro_batch: Patches in one forward pass on one rank.
        per_rank_batch: Patches of a rank in a global batch.
        batchnorm_ranks: Ranks whose patches are normalised together.

    Raises:
        UserError: Names the network, what it lacks, and what would do.
    """
    with without_memory():
        networks = _Networks(config)
        if fault := networks.fault(patch_size=config.data.patch_size, num_patches=micro_batch * batchnorm_ranks):
            raise _refusal(networks, fault, micro_batch, per_rank_batch, batchnorm_ranks)


def smallest_micro_batch(config: Config, *, per_rank_batch: int, batchnorm_ranks: int) -> int:
    """Find the fewest patches that the networks can compute at a time; a divisor of ``per_rank_batch``.

    Args:
        config: The configuration; its own micro-batch is ignored.
        per_rank_batch: Patches of a rank in a global batch.
        batchnorm_ranks: Ranks whose patches are normalised together.

    Raises:
        UserError: They cannot compute even all of them at a time.
    """
    with without_memory():
        networks = _Networks(config)
        if size := networks.smallest(per_rank_batch, batchnorm_ranks):
            return size
        fault = networks.fault(patch_size=config.data.patch_size, num_patches=per_rank_batch * batchnorm_ranks)
        assert fault
        raise _refusal(networks, fault, per_rank_batch, per_rank_batch, batchnorm_ranks)


class _Fault(NamedTuple):
    """What a network cannot compute.

    Attributes:
        section: Of the network in the configuration.
        name: The key that chooses it, and its value.
        error: What was raised.
    """

    section: str
    name: str
    error: Exception


class _Networks:
    """The networks that the patches of a run go through."""

    def __init__(self, config: Config) -> None:
        self.config = config
        generator = build_generator(config.generator, scale=config.data.scale).train()
        self._parts: dict[tuple[str, str], tuple[Callable[[Tensor], object], int]] = {
            ("generator", f"generator.name={config.generator.name}"): (generator, config.data.scale)
        }
        if config.adversarial_steps:
            name = f"discriminator.name={config.discriminator.name}"
            # Its BatchNorm has no running statistics, so that it computes in this mode as in the other.
            self._parts["discriminator", name] = build_discriminator(config.discriminator).eval(), 1
        loss = config.loss.untrained()
        if config.adversarial_steps and loss.perceptual.weight:
            name = f"loss.perceptual.network={loss.perceptual.network}"
            self._parts["loss.perceptual", name] = build_features(loss.perceptual), 1
        for section in loss.learned if config.adversarial_steps else []:
            distance = build_learned_distance(section)
            name = f"{section.kind} in loss.additional"
            self._parts["loss.additional", name] = partial(_of_equal_images, distance), 1

    def is_of_others(self, section: str) -> bool:
        """Whether the network of a section is of a class that is not ours, and may raise anything."""
        return section == "generator" and isinstance(self.config.generator, NotRecomputed)

    @torch.no_grad()
    def fault(self, *, patch_size: int, num_patches: int) -> _Fault | None:
        """The first network that cannot compute so many patches of this size; None if all can."""
        for (section, name), (network, scale) in self._parts.items():
            side = patch_size // scale
            try:
                outputs = tree_leaves(network(torch.zeros(num_patches, 3, side, side)))
            except NEEDS_VALUES:  # what it computes depends on the values of an image: only training will show
                continue
            except (ValueError, RuntimeError) as error:
                return _Fault(section, name, error)
            except Exception as error:
                if not self.is_of_others(section):
                    raise
                return _Fault(section, name, error)
            if section == "generator":
                _check_size(name, outputs, (num_patches, 3, scale * side, scale * side), side=side)
            if any(output.numel() == 0 for output in outputs):
                return _Fault(section, name, ValueError("nothing is left of the patch in its last layer"))
        return None

    def smallest(self, per_rank_batch: int, batchnorm_ranks: int) -> int | None:
        """The smallest divisor of ``per_rank_batch`` that is a micro-batch they can compute; None if there is none."""
        sizes = (size for size in range(1, per_rank_batch + 1) if per_rank_batch % size == 0)
        side = self.config.data.patch_size
        return next((n for n in sizes if not self.fault(patch_size=side, num_patches=n * batchnorm_ranks)), None)


def _of_equal_images(distance: nn.Module, images: Tensor) -> object:
    return distance(images, images)


def _check_size(name: str, outputs: list[Any], expected: tuple[int, ...], *, side: int) -> None:
    """Refuse a generator that does not enlarge by data.scale.

    Raises:
        UserError: Says what it makes of a patch.
    """
    made = tuple(outputs[0].shape) if len(outputs) == 1 and isinstance(outputs[0], torch.Tensor) else None
    if made != expected:
        what = f"a tensor {list(made)}" if made else f"{len(outputs)} tensors"
        raise UserError(
            f"{name} makes {what} of [{expected[0]}, 3, {side}, {side}], and data.scale needs {list(expected)}: set "
            "what enlarges, such as an upsampler, by generator.parameters"
        )


def _refusal(
    networks: _Networks, fault: _Fault, micro_batch: int, per_rank_batch: int, batchnorm_ranks: int
) -> Exception:
    """What to say of a fault; what was raised itself, if no other size helps, for then the sizes are not its reason."""
    config, num_patches = networks.config, micro_batch * batchnorm_ranks
    remedies = []
    of_others = networks.is_of_others(fault.section)
    most = config.data.patch_size if of_others else _MAX_PATCH_SIZE  # theirs are slow, and fail for other reasons, too
    sides = range(config.data.patch_size, most + 1, config.data.scale)
    allowed = (side for side in sides[1:] if _is_allowed(config, side))
    if side := next((s for s in allowed if not networks.fault(patch_size=s, num_patches=num_patches)), None):
        remedies.append(f"data.patch_size from {side}")
    if size := networks.smallest(per_rank_batch, batchnorm_ranks):
        remedies.append(f"data.micro_batch from {size}")
    elif not networks.fault(patch_size=config.data.patch_size, num_patches=2 * num_patches):
        remedies.append("a larger data.batch_size")
    if not remedies:
        return UserError(f"{fault.name} cannot compute patches ({raised(fault.error)})") if of_others else fault.error
    if fault.section in ("generator", "discriminator"):
        norm = _other_norm(config, fault.section, num_patches=num_patches)
        remedies += [f"{fault.section}.norm={norm}"] if norm else []
    why = str(fault.error).splitlines()[0]
    patches = "1 patch" if micro_batch == 1 else f"{micro_batch} patches"
    return UserError(
        f"data.patch_size is {config.data.patch_size}, with {patches} at a time on a rank: {fault.name} cannot compute "
        f"that ({why[0].lower()}{why[1:].rstrip('.')}); allowed are {' or '.join(remedies)}"
    )


def _is_allowed(config: Config, patch_size: int) -> bool:
    """Whether the configuration allows another patch size."""
    content = config.model_dump(by_alias=True)
    content["data"]["patch_size"] = patch_size
    try:
        Config.model_validate(content)
    except ValidationError:
        return False
    return True


def _other_norm(config: Config, section: str, *, num_patches: int) -> str | None:
    """A normalisation with which a network that has BatchNorm can compute so many patches; None if none does."""
    network = vars(config)[section]
    field = type(network).model_fields.get("norm")
    if field is None or network.norm != "batch":
        return None
    for norm in ("spectral", "group", "none"):
        if norm in get_args(field.annotation):
            other = config.model_copy(update={section: network.model_copy(update={"norm": norm})})
            fault = _Networks(other).fault(patch_size=config.data.patch_size, num_patches=num_patches)
            if not fault:
                return norm
    return None
