"""Rebuilds a trained generator from its weights file, and upscales images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from srgan_dist.errors import UserError
from srgan_dist.imaging.pixels import image_array, image_tensor, to_uint8
from srgan_dist.imaging.read import list_images, read_image
from srgan_dist.imaging.resize import upscale_bicubic
from srgan_dist.imaging.tiling import upscale_tiled
from srgan_dist.inference.build import load_generator
from srgan_dist.utils.files import whole_file

DEFAULT_TILE = 256


class NotFinite(UserError):
    """A network made infinite values or NaN of an image."""


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
            path: A file of weights: srgan-dist's, or another trainer's if its shapes say which network it belongs to
                (see docs/runs.md).
            device: Its device; None for the GPU if there is one, else the CPU.

        Returns:
            The generator, in eval mode.

        Raises:
            UserError: The file is missing, is not one of weights, or does not say which network it belongs to; or a
                weight is not finite.
        """
        network, scale, metadata = load_generator(Path(path))
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

        Raises:
            NotFinite: The network's output has infinite values or NaN.
        """
        device = next(self.parameters()).device
        image = lr.to(device, memory_format=torch.channels_last).float() / 255
        with torch.inference_mode():
            return to_uint8(upscale_tiled(self._finite, image, scale=self.scale, tile=tile, on_tile=on_tile))

    def _finite(self, lr: Tensor) -> Tensor:
        sr: Tensor = self(lr)
        if not sr.isfinite().all():
            cure = "weights of an earlier step" if sr.dtype == torch.float32 else "fp32"
            raise NotFinite(
                f"the network's output is not finite, though its weights are: it overflows {sr.dtype}; use {cure}"
            )
        return sr

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
        UserError: The source is unreadable or not 8-bit, the network's output is not finite, or the target cannot be
            written.
    """
    try:
        sr = generator.upscale(read_image(source), tile=tile, on_tile=on_tile)
    except NotFinite as error:
        raise NotFinite(f"{source}: {error}") from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as temporary:
            sr.save(temporary, format=Image.registered_extensions()[target.suffix.lower()])
    except KeyError:
        raise UserError(f"{target}: cannot be written (unknown file extension: {target.suffix})") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{target}: cannot be written ({error})") from None
