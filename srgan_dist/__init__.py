"""srgan-dist: distributed training of super-resolution GANs.

``from srgan_dist import SRGenerator`` is the way to use trained weights from Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srgan_dist.inference.generator import SRGenerator

__all__ = ["SRGenerator"]


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds; the configuration and --help must not wait for it.
    if name == "SRGenerator":
        from srgan_dist.inference.generator import SRGenerator

        return SRGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
