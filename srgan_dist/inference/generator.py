"""Rebuilds a trained generator from its weights file, and upscales images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from srgan_dist.checkpointing.tensors import UnusableTensors, check_shapes, without_counts
from srgan_dist.checkpointing.weights import load_into, load_weights, read_claims
from srgan_dist.config.models import GeneratorConfig
from srgan_dist.errors import UserError
from srgan_dist.imaging.listing import list_images
from srgan_dist.imaging.pixels import image_array, image_tensor, to_uint8
from srgan_dist.imaging.read import read_image
from srgan_dist.imaging.resize import upscale_bicubic
from srgan_dist.imaging.tiling import upscale_tiled
from srgan_dist.models.build import build_generator, generator_outline
from srgan_dist.utils.files import whole_file
from srgan_dist.utils.names import expand_home

DEFAULT_TILE = 256


class SRGenerator(nn.Module):
    """A trained generator.

    Example:
        >>> generator = SRGenerator.from_pretrained("runs/demo/weights/generator.safetensors")
        >>> generator.upscale(Image.open("small.png")).save("large.png")

    Attributes:
        network: The generator itself, [N, 3, h, w] in [0, 1] to [N, 3, h * scale, w * scale].
        scale: Factor between LR and SR.
        metadata: The metadata of the weights file.
    """

    def __init__(self, network: nn.Module, *, scale: int, metadata: Mapping[str, str]) -> None:
        super().__init__()
        self.network, self.scale, self.metadata = network, scale, dict(metadata)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str | torch.device | None = None) -> SRGenerator:
        """Rebuild a generator from its weights alone.

        Args:
            path: A safetensors file that srgan-dist wrote.
            device: Its device; None for the GPU if there is one, else the CPU.

        Returns:
            The generator, in eval mode.

        Raises:
            UserError: The file is missing, is not safetensors, or does not say which network it belongs to.
        """
        path = expand_home(path)
        shapes, metadata = read_claims(path)
        config, scale = _claimed_network(path, metadata)
        try:
            # A few bytes may claim a network of any size, so none is built before the tensors are there for it.
            outline = generator_outline(config, scale=scale, num_tensors=len(shapes))
            check_shapes(without_counts(shapes), without_counts(outline))
            network = build_generator(config, scale=scale)
            load_into(network, load_weights(path)[0])
        except (ValueError, RuntimeError, UnusableTensors) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: weights and metadata do not fit ({reason})") from None
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        network = network.to(memory_format=torch.channels_last)
        return cls(network, scale=scale, metadata=metadata).to(device).eval()

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch [N, 3, h, w] in [0, 1]; the result is not clamped."""
        sr: Tensor = self.network(lr)
        return sr

    def upscale_tensor(
        self, lr: Tensor, *, tile: int = DEFAULT_TILE, on_tile: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """Upscale one image with bounded memory.

        Args:
            lr: uint8 [1, 3, h, w].
            tile: Largest side of a tile, in LR pixels.
            on_tile: Called with (number of finished tiles, number of tiles).

        Returns:
            uint8 [1, 3, h * scale, w * scale], on the generator's device.
        """
        device = next(self.parameters()).device
        image = lr.to(device, memory_format=torch.channels_last).float() / 255
        with torch.inference_mode():
            return to_uint8(upscale_tiled(self, image, scale=self.scale, tile=tile, on_tile=on_tile))

    def upscale(
        self,
        image: Image.Image,
        *,
        tile: int = DEFAULT_TILE,
        on_tile: Callable[[int, int], None] | None = None,
    ) -> Image.Image:
        """Upscale an image; grey images stay grey, and an alpha channel is enlarged bicubically.

        Args:
            image: 8 bits a channel.
            tile: Largest side of a tile, in LR pixels.
            on_tile: Called with (number of finished tiles, number of tiles).

        Returns:
            The image, ``scale`` times as large; modes L, RGB and RGBA.
        """
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # converted to RGB at once, Pillow warns
        lr = image_tensor(np.array(image.convert("RGB")))
        sr = Image.fromarray(image_array(self.upscale_tensor(lr, tile=tile, on_tile=on_tile)))
        if image.mode in ("1", "L"):
            return sr.convert("L")
        if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
            alpha = np.array(image.convert("RGBA").getchannel("A"))[..., None]
            sr.putalpha(Image.fromarray(upscale_bicubic(alpha, self.scale)[..., 0]))
        return sr


def _claimed_network(path: Path, metadata: Mapping[str, str]) -> tuple[GeneratorConfig, int]:
    """The generator, and its scale, that a weights file says it belongs to."""
    try:
        claimed = json.loads(metadata["generator"])
        config: GeneratorConfig = TypeAdapter(GeneratorConfig).validate_python(claimed)
        return config, int(metadata["scale"])
    except KeyError:
        raise UserError(
            f"{path}: weights without srgan-dist's metadata; build the network and use load_state_dict instead"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"generator.{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise UserError(f"{path}: weights and metadata do not fit ({' '.join(reason.split())[:300]})")


def upscale_jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """List the images to upscale and their results, before any is upscaled.

    Args:
        source: An image, or a folder of them.
        target: An image, or a folder for PNG files of the same relative names.

    Returns:
        (image, result) for each image.

    Raises:
        UserError: The source does not exist, or a target has an unknown format or would overwrite an image.
    """
    if source.is_dir():
        images = list_images(source)
        jobs = [(image, target / image.relative_to(source).with_suffix(".png")) for image in images]
    elif source.is_file():
        jobs = [(source, target)]
    else:
        raise UserError(f"{source}: there is no such image or folder")
    claimed: dict[Path, Path] = {}
    originals = {image.resolve() for image, _ in jobs}
    for image, result in jobs:
        if result.suffix.lower() not in Image.registered_extensions():
            raise UserError(f"{result}: cannot be written as an image; end its name in .png, .jpg or .webp")
        if result.resolve() in originals:
            raise UserError(f"{result}: would overwrite an image that is to be upscaled; choose another output")
        other = claimed.setdefault(result, image)
        if other is not image:
            raise UserError(f"{result}: would be the result of both {other} and {image}; rename one")
    return jobs


def upscale_file(
    generator: SRGenerator, source: Path, target: Path, *, tile: int, on_tile: Callable[[int, int], None] | None = None
) -> None:
    """Upscale an image file; the target is written atomically.

    Raises:
        UserError: The source is unreadable or not 8-bit, or the target cannot be written.
    """
    sr = generator.upscale(read_image(source), tile=tile, on_tile=on_tile)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as temporary:
            sr.save(temporary, format=Image.registered_extensions()[target.suffix.lower()])
    except KeyError:
        raise UserError(f"{target}: cannot be written (unknown file extension: {target.suffix})") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{target}: cannot be written ({error})") from None
