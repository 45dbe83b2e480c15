"""Builds the generator that a weights file belongs to, by its metadata or by the shapes of its tensors."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from srgan_dist.checkpointing.tensors import UnusableTensors, check_shapes, without_counts
from srgan_dist.checkpointing.weights import load_into, load_weights
from srgan_dist.config.compatibility import former_generator
from srgan_dist.config.models import (
    CompactConfig,
    GeneratorConfig,
    MSRResNetConfig,
    OwnGeneratorConfig,
    RRDBConfig,
    SPANConfig,
)
from srgan_dist.errors import UserError
from srgan_dist.models.build import build_generator, generator_metadata, generator_outline
from srgan_dist.models.classes import Unbuildable

log = logging.getLogger("srgan_dist")


def load_generator(path: Path, *, allow_class: str | None = None) -> tuple[nn.Module, int, dict[str, str]]:
    """Rebuild a generator from its weights alone.

    Args:
        path: The file of weights, see `srgan_dist.checkpointing.weights.load_weights`.
        allow_class: The class, as ``module:Class``, that may be imported if the file names it.

    Returns:
        The network, its scale, and metadata, which describe the architecture also where the file's do not.

    Raises:
        UserError: The file is missing, is not one of weights, or does not say which network it belongs to; a weight is
            not finite; or the network is of a class that was not allowed.
    """
    weights, metadata = load_weights(path)
    if "generator" in metadata:
        config, scale = _claimed_network(path, metadata)
        _refuse_code(path, config, allow_class)
        problem = "weights and metadata do not fit"
    else:
        config, scale = _network_of_shapes(path, weights)
        metadata = {**generator_metadata(config, scale=scale), **metadata}
        problem = f"weights that are almost those of {config.name}, but not of any that srgan-dist has"
        sizes = ", ".join(f"{key} {value}" for key, value in config.model_dump().items() if isinstance(value, int))
        log.info("%s: no metadata; by its shapes %s x%d: %s", path, config.name, scale, sizes)
    try:
        # A few bytes may claim a network of any size, so none is built before the tensors are there for it.
        if not isinstance(config, OwnGeneratorConfig):  # whose author may not have thought of such tensors
            outline = generator_outline(config, scale=scale, num_tensors=len(weights))
            shapes = {name: tensor.shape for name, tensor in weights.items()}
            check_shapes(without_counts(shapes), without_counts(outline))
        network = build_generator(config, scale=scale, merged=True)
    except (ValueError, RuntimeError, UnusableTensors, Unbuildable) as error:
        raise UserError(f"{path}: {problem} ({str(error).splitlines()[0]})") from None
    try:
        load_into(network, weights)
    except UnusableTensors as error:
        raise UserError(f"{path}: weights that cannot be used ({error})") from None
    return network, scale, metadata


def _refuse_code(path: Path, config: GeneratorConfig, allow_class: str | None) -> None:
    """Refuse a class that a file names, unless who loads it names it too: importing runs code."""
    if isinstance(config, OwnGeneratorConfig) and config.name != allow_class:
        other = f", and {allow_class} is allowed" if allow_class else ""
        raise UserError(
            f"{path}: its network is the class {config.name}, which would have to be imported and run{other}; if it is "
            f"yours, allow it by --allow-class={config.name} (in Python: allow_class)"
        )


def _claimed_network(path: Path, metadata: Mapping[str, str]) -> tuple[GeneratorConfig, int]:
    """The generator, and its scale, that a weights file says it belongs to."""
    try:
        claimed = json.loads(metadata["generator"])
        config: GeneratorConfig = TypeAdapter(GeneratorConfig).validate_python(former_generator(claimed))
        if (scale := int(metadata["scale"])) not in config.scales:
            *others, last = config.scales
            raise ValueError(f"scale is {scale}, allowed are {', '.join(map(str, others))} and {last}")
        return config, scale
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"generator.{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except KeyError:
        reason = "scale is missing"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise UserError(f"{path}: weights and metadata do not fit ({' '.join(reason.split())[:300]})")


def _network_of_shapes(path: Path, weights: Mapping[str, Tensor]) -> tuple[GeneratorConfig, int]:
    """The generator, and its scale, that tensors without metadata belong to; other tensors than those read may differ.

    Raises:
        UserError: They are of no network that shapes describe.
    """
    first, last = (_shape(weights, f"conv_{name}.weight") for name in ("first", "last"))
    dense, residual = (_shape(weights, f"body.0.{name}.weight") for name in ("rdb1.conv1", "conv1"))
    numbers = (int(match[1]) for name in weights if (match := re.match(r"body\.(\d{1,6})\.", name)))
    blocks = 1 + max(numbers, default=-1)
    with contextlib.suppress(ValidationError):  # of sizes that no network has
        if first and last and dense:
            fold = {3: 1, 12: 2, 48: 4}.get(first[1], 1)
            return RRDBConfig(channels=first[0], blocks=blocks, growth=dense[0]), 4 // fold
        if first and last and residual and (enlarging := _shape(weights, "upconv1.weight")):
            scale = 4 if "upconv2.weight" in weights else math.isqrt(enlarging[0] // max(enlarging[1], 1))
            return MSRResNetConfig(channels=first[0], blocks=blocks), scale
        if found := _compact_of_shapes(weights) or _span_of_shapes(weights):
            return found
    if _shape(weights, "head.0.weight") and _shape(weights, "body_end.0.weight"):
        raise UserError(
            f"{path}: weights of srresnet without srgan-dist's metadata, and no shape tells its generator.skip; use "
            "weights/generator.safetensors of the run, or run.init_from"
        )
    name = next(iter(weights))
    raise UserError(
        f"{path}: weights without srgan-dist's metadata, and by their shapes none of rrdb (ESRGAN), compact, "
        f"span and msrresnet; the first is {' '.join(name.split())[:100]!r} {list(weights[name].shape)[:8]}"
    )


def _compact_of_shapes(weights: Mapping[str, Tensor]) -> tuple[GeneratorConfig, int] | None:
    first, slopes = _shape(weights, "body.0.weight"), weights.get("body.1.weight")
    if first is None or slopes is None or slopes.ndim != 1:
        return None
    end = max(int(match[1]) for name in weights if (match := re.match(r"body\.(\d{1,6})\.", name)))
    last = _shape(weights, f"body.{end}.weight")
    return (CompactConfig(channels=first[0], convs=end // 2 - 1), math.isqrt(last[0] // 3)) if last else None


def _span_of_shapes(weights: Mapping[str, Tensor]) -> tuple[GeneratorConfig, int] | None:
    first, last = _shape(weights, "conv_1.sk.weight"), _shape(weights, "upsampler.0.weight")
    if first is None or last is None:
        return None
    return SPANConfig(channels=first[0], input_norm="no_norm" not in weights), math.isqrt(last[0] // 3)


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    """The four sides of a convolution's kernel, if there is one of that name."""
    kernel = weights.get(name)
    return tuple(kernel.shape) if kernel is not None and kernel.ndim == 4 else None
