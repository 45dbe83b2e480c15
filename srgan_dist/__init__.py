"""srgan-dist: distributed training of super-resolution GANs.

What a program needs stands here; torch is imported by the first name that needs it.

* `Config`: everything that a run depends on. `load_config` reads it from a YAML file and overrides.
* `train`: train, or resume, a run; returns what result.json holds.
* `pack`: a folder of images becomes shards to train on.
* `SRGenerator`: trained weights; upscales images.
* `evaluate`: PSNR, SSIM, LPIPS, DISTS of a generator on folders of images.

A user's mistake is a `UserError`, whose message is one line.

Example:
    >>> from srgan_dist import Config, SRGenerator, evaluate, pack, train
    >>> pack("photographs", "shards/mine", validation_fraction=0.05)
    >>> train(Config(run={"dir": "runs/mine"}, data={"train": "shards/mine"}, train={"steps": 2000}))
    >>> evaluate("runs/mine/weights/generator.safetensors", "shards/mine/validation")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srgan_dist.config.load import load_config
    from srgan_dist.config.root import Config
    from srgan_dist.data.packing.pack import pack
    from srgan_dist.errors import UserError
    from srgan_dist.evaluation.evaluate import evaluate
    from srgan_dist.inference.generator import SRGenerator
    from srgan_dist.training.run import train

    __version__: str
    """Version of the installed package."""

__all__ = ["Config", "SRGenerator", "UserError", "__version__", "evaluate", "load_config", "pack", "train"]

_HOMES = {
    "Config": "srgan_dist.config.root",
    "SRGenerator": "srgan_dist.inference.generator",
    "UserError": "srgan_dist.errors",
    "evaluate": "srgan_dist.evaluation.evaluate",
    "load_config": "srgan_dist.config.load",
    "pack": "srgan_dist.data.packing.pack",
    "train": "srgan_dist.training.run",
}

if not TYPE_CHECKING:  # a type checker that saw this function would take every name for one of the package's

    def __getattr__(name):
        # Importing torch takes seconds; the configuration and --help must not wait for it.
        if name == "__version__":
            from importlib import metadata  # another 40 ms

            value = metadata.version("srgan-dist")
        elif name in _HOMES:
            value = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
