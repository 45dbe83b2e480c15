"""Checks the options that say how images are cut into tiles."""

from __future__ import annotations

from srgan_dist.data.packing.tiles import TileOptions
from srgan_dist.data.shard_format.encodings import ENCODINGS
from srgan_dist.errors import UserError

_MAX_SCALE = 8  # more would need a larger padding in downscale, and is not in use
_MAX_TILE = {"raw": 65528, "png": 65528, "webp": 16376}  # the index has 16 bits; the WebP format allows 16383
_TILE = 480


def make_tile_options(
    *, scale: int, encoding: str, tile: int | None, stride: int | None, min_detail: float
) -> TileOptions:
    """Check the options of tiles, and fill in the defaults.

    Args:
        scale: HR pixels per LR pixel, 1 to 8.
        encoding: One of `encodings.ENCODINGS`.
        tile: Maximum side of a tile in HR pixels, a multiple of `scale`; None takes about 480, or whole images for
            jpeg, which allows nothing else.
        stride: HR pixels from tile to tile, a multiple of `scale` up to `tile`; None splits without overlap.
        min_detail: Tiles with less `detail` are left out; 0 to 255 levels.

    Returns:
        The options.

    Raises:
        UserError: A value is not allowed.
    """
    known = next((name for name in ENCODINGS if name == encoding), None)
    if known is None:
        raise UserError(f"encoding is {encoding!r}, allowed are {', '.join(ENCODINGS)}")
    if not 1 <= scale <= _MAX_SCALE:
        raise UserError(f"scale is {scale}, allowed are 1 to {_MAX_SCALE}")
    if not 0 <= min_detail <= 255:
        raise UserError(f"min_detail is {min_detail}, allowed are 0 to 255 levels")
    if known == "jpeg":
        if tile is not None or stride is not None:
            raise UserError("jpeg keeps images whole, as their own files: leave out --tile and --stride")
        return TileOptions(scale=scale, tile=None, stride=None, min_detail=min_detail, encoding=known)
    tile = _TILE // scale * scale if tile is None else tile
    largest = _MAX_TILE[known]
    if not scale <= tile <= largest or tile % scale:
        below = max(scale, min(tile, largest) // scale * scale)
        raise UserError(
            f"tile is {tile}, allowed are multiples of scale {scale} up to {largest}: take {below}, for example"
        )
    if stride is not None and (not scale <= stride <= tile or stride % scale):
        raise UserError(f"stride is {stride}, allowed are multiples of scale {scale} up to the tile, {tile}")
    return TileOptions(scale=scale, tile=tile, stride=stride, min_detail=min_detail, encoding=known)
