"""A program that uses srgan-dist, for `test_typed.py`: a strict type checker must find nothing here."""

from pathlib import Path
from typing import Any

from PIL import Image
from typing_extensions import assert_type

import srgan_dist
from srgan_dist import Config, SRGenerator, evaluate, load_config, pack, train
from srgan_dist.config.training import TrainConfig
from srgan_dist.data.shard_format.manifest import Manifest

assert_type(srgan_dist.__version__, str)

config = load_config("configs/demo.yaml", ["--train.steps=5"])
assert_type(config, Config)
assert_type(config.train.steps, int)
assert_type(Config(train=TrainConfig(steps=3)).train, TrainConfig)
assert_type(Config.model_validate({"train": {"steps": 3}}), Config)

assert_type(pack("photographs", Path("shards/mine"), validation_fraction=0.1), Manifest)
assert_type(train(config), dict[str, Any])

generator = SRGenerator.from_pretrained("generator.safetensors")
assert_type(generator, SRGenerator)
assert_type(generator.scale, int)
assert_type(generator.upscale(Image.new("RGB", (8, 8))), Image.Image)
assert_type(evaluate(generator, "Set5"), list[dict[str, Any]])
evaluate("generator.safetensors", ["Set5", Path("Set14")], on_image=print)
