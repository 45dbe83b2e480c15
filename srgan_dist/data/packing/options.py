"""How images are cut: checking what people ask for."""

from __future__ import annotations

from srgan_dist.data.packing.tiles import Cutting
from srgan_dist.data.shard_format.encodings import ENCODINGS
from srgan_dist.errors import UserError

_MAX_SCALE = 8  # beyond it the padding of downscale would have to grow, and nobody trains it
_MAX_TILE = {"raw": 65528, "png": 65528, "webp": 16376}  # 16-bit in the index; WebP's format ends at 16383
_TILE = 480


def make_cutting(*, scale: int, encoding: str, tile: int | None, stride: int | None, min_detail: float) -> Cutting:
    """Check how images are to be cut, and fill in what follows from it.

    Args:
        scale: HR pixels per LR pixel, 1 to 8.
        encoding: one of `codec.ENCODINGS`.
        tile: greatest side of a tile in HR pixels, a multiple of `scale`; None takes about 480, or whole images for
            jpeg, which allows nothing else.
        stride: HR pixels from tile to tile, a multiple of `scale` up to `tile`; None splits without overlap.
        min_detail: 0 to 255 levels.

    Returns:
        How to cut.

    Raises:
        UserError: a value is not allowed.
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
        return Cutting(scale=scale, tile=None, stride=None, min_detail=min_detail, encoding=known)
    tile = _TILE // scale * scale if tile is None else tile
    largest = _MAX_TILE[known]
    if not scale <= tile <= largest or tile % scale:
        below = max(scale, min(tile, largest) // scale * scale)
        raise UserError(
            f"tile is {tile}, allowed are multiples of scale {scale} up to {largest}: take {below}, for example"
        )
    if stride is not None and (not scale <= stride <= tile or stride % scale):
        raise UserError(f"stride is {stride}, allowed are multiples of scale {scale} up to the tile, {tile}")
    return Cutting(scale=scale, tile=tile, stride=stride, min_detail=min_detail, encoding=known)
