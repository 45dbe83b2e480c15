"""Rebuilds a trained generator from its weights file, and upscales images with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from srgan_dist.errors import UserError
from srgan_dist.imaging.alpha import fill_transparent
from srgan_dist.imaging.picture import Picture, from_pillow, to_pillow
from srgan_dist.imaging.pixels import rgb_to_grey
from srgan_dist.imaging.resize import upscale_bicubic_tensor
from srgan_dist.imaging.tiling import upscale_tiled
from srgan_dist.inference.build import load_generator
from srgan_dist.inference.default import Variant, default_weights, interpolate
from srgan_dist.utils.memory_format import usable_format
from srgan_dist.utils.names import expand_home

DEFAULT_TILE = 256
_ALPHA_TILE = 512  # LR pixels; any that takes little memory


class NotFinite(UserError):
    """A network made infinite values or NaN of an image."""


class SRGenerator(nn.Module):
    """A trained generator.

    Example:
        >>> generator = SRGenerator.from_pretrained("runs/demo/weights/generator.safetensors")
        >>> generator.upscale(Image.open("small.png")).save("large.png")
        >>> SRGenerator.default().upscale(Image.open("small.png")).save("large.png")  # the model in the package

    Attributes:
        network: The generator itself, [N, 3, h, w] in [0, 1] to [N, 3, h * scale, w * scale].
        scale: Factor between LR and SR.
        metadata: The metadata of the weights file.
    """

    def __init__(self, network: nn.Module, *, scale: int, metadata: Mapping[str, str]) -> None:
        super().__init__()
        self.network, self.scale, self.metadata = network, scale, dict(metadata)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str | torch.device | None = None, allow_class: str | None = None
    ) -> SRGenerator:
        """Rebuild a generator from its weights alone.

        Args:
            path: A file of weights: srgan-dist's, or another trainer's if its shapes say which network it belongs to
                (see docs/runs.md).
            device: Its device; None for the GPU if there is one, else the CPU.
            allow_class: The class of your own, as ``module:Class``, that is imported if the file names it: of a run
                with ``generator.name=module:Class``. No other code that a file names is ever run.

        Returns:
            The generator, in eval mode.

        Raises:
            UserError: The file is missing, is not one of weights, or does not say which network it belongs to; a weight
                is not finite; or the network is of a class that was not allowed.
        """
        network, scale, metadata = load_generator(expand_home(path), allow_class=allow_class)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        network = network.to(memory_format=usable_format(network, torch.channels_last))
        return cls(network, scale=scale, metadata=metadata).to(device).eval()

    @classmethod
    def default(cls, variant: Variant = "gan", *, device: str | torch.device | None = None) -> SRGenerator:
        """Load the model that comes with the package; it enlarges four times (docs/default-model.md).

        Args:
            variant: ``gan`` for crisp images, ``psnr`` for smooth ones without an invented detail.
            device: As for `from_pretrained`.

        Raises:
            UserError: There is no such variant, or this installation has no weights of it.
        """
        return cls.from_pretrained(default_weights(variant), device=device)

    def blended(self, other: SRGenerator, alpha: float) -> SRGenerator:
        """Interpolate between another generator and this one, such as the default model's two variants.

        Two networks that are trained apart have nothing in common; one of these has begun with the other's weights.

        Args:
            other: What the result is at alpha = 0; of the same architecture.
            alpha: How far the result is on the way to this one, from 0 to 1.

        Returns:
            The generator in between, on this one's device.

        Raises:
            UserError: Alpha is not from 0 to 1, or the networks differ in more than their values.

        Source:
            Network interpolation: ESRGAN (Wang et al. 2018), section 3.4.
        """
        if not 0 <= alpha <= 1:
            raise UserError(f"alpha is {alpha}, allowed are numbers from 0 to 1")
        try:
            if type(self.network) is not type(other.network) or self.scale != other.scale:
                described = [f"{type(one.network).__name__} x{one.scale}" for one in (other, self)]
                raise ValueError(" and ".join(described))
            weights = interpolate(other.network.state_dict(), self.network.state_dict(), alpha)
        except ValueError as error:
            raise UserError(f"these two networks cannot be blended, as they differ ({error})") from None
        between = copy.deepcopy(self)
        between.network.load_state_dict(weights)
        return between

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
        return self._upscale_levels(lr.to(self.device), tile=tile, on_tile=on_tile)

    def upscale(
        self,
        image: Image.Image,
        *,
        tile: int = DEFAULT_TILE,
        on_tile: Callable[[int, int], None] | None = None,
    ) -> Image.Image:
        """Upscale an image, as the command does: upright, with its alpha, its depth, and its profile, dpi and EXIF.

        Args:
            image: A single frame of mode 1, L, LA, P, PA, RGB, RGBA, CMYK or I;16.
            tile: Largest side of a tile, in LR pixels.
            on_tile: Called with (number of finished tiles, number of tiles).

        Returns:
            The image, ``scale`` times as large, of mode L, LA, RGB, RGBA or I;16; its ``info`` has ``icc_profile``,
            ``dpi`` and ``exif``, where there are any.

        Raises:
            UserError: The image is animated, of another mode, or has 16 bits a channel where Pillow would read 8.
            NotFinite: The network's output has infinite values or NaN.
        """
        return to_pillow(self.upscale_picture(from_pillow(image), tile=tile, on_tile=on_tile))

    def upscale_picture(
        self, picture: Picture, *, tile: int = DEFAULT_TILE, on_tile: Callable[[int, int], None] | None = None
    ) -> Picture:
        """Upscale a picture with what belongs to it; alpha is enlarged bicubically, and what it hides does not bleed.

        Args:
            picture: Of 8 or 16 bits a channel.
            tile: Largest side of a tile, in LR pixels.
            on_tile: Called with (number of finished tiles, number of tiles).

        Returns:
            The picture, ``scale`` times as large.

        Raises:
            NotFinite: The network's output has infinite values or NaN.
        """
        pixels, alpha = picture.pixels, picture.alpha
        if alpha is not None:
            pixels = fill_transparent(pixels, alpha)
            sr_alpha = upscale_tiled(
                lambda lr: upscale_bicubic_tensor(lr, self.scale),
                torch.from_numpy(alpha)[None, None],
                scale=self.scale,
                tile=_ALPHA_TILE,
            )
            alpha = sr_alpha[0, 0].numpy()
        lr = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        sr = self._upscale_levels(lr, tile=tile, on_tile=on_tile)[0].permute(1, 2, 0).numpy()
        return replace(picture, pixels=sr, alpha=alpha)

    def _upscale_levels(self, lr: Tensor, *, tile: int, on_tile: Callable[[int, int], None] | None) -> Tensor:
        """uint8 or uint16 [1, 1 or 3, h, w] to [1, 1 or 3, h * scale, w * scale], where it is."""

        def upscale(tile: Tensor) -> Tensor:
            sr = self._finite(tile.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))
            return sr if tile.shape[1] == 3 else rgb_to_grey(sr)

        with torch.inference_mode():
            return upscale_tiled(upscale, lr, scale=self.scale, tile=tile, device=self.device, on_tile=on_tile)

    def _finite(self, lr: Tensor) -> Tensor:
        sr: Tensor = self(lr)
        if sr.shape[-2:] != (self.scale * lr.shape[-2], self.scale * lr.shape[-1]):
            raise UserError(f"the network does not enlarge {self.scale} times, as its file says")
        if not sr.isfinite().all():
            cure = "weights of an earlier step" if sr.dtype == torch.float32 else "fp32"
            raise NotFinite(
                f"the network's output is not finite, though its weights are: it overflows {sr.dtype}; use {cure}"
            )
        return sr

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device
