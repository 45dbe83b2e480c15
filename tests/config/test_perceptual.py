"""Which layers are compared: presets and what wins over them, the old way of saying it, and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from srgan_dist.config.compatibility import config_fingerprint, refuse_changes
from srgan_dist.config.load import load_config
from srgan_dist.config.perceptual import PRESETS, EfficientNetLite0Config, VGG16Config, VGG19Config
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError
from srgan_dist.models.build import build_features
from srgan_dist.models.features import vgg_layers

ROOT = Path(__file__).resolve().parents[2]


def load(*overrides: str, folder: Path | None = None, **keys: Any) -> Any:
    """The section, from a file with these keys and from the command line."""
    file = None
    if folder:
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump({"loss": {"perceptual": keys}}))
    return load_config(file, [f"--loss.perceptual.{text}" for text in overrides]).loss.perceptual


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_spells_out_what_it_stands_for_and_its_network_can_be_built(preset: str, tmp_path: Path) -> None:
    config = load(f"preset={preset}")
    assert config == load(preset=preset, folder=tmp_path)
    assert config == Config.model_validate({"loss": {"perceptual": {"preset": preset}}}).loss.perceptual
    assert config.model_dump(include=set(PRESETS[preset])) == PRESETS[preset]
    written = Config(loss={"perceptual": config}).to_yaml()
    (tmp_path / "resolved.yaml").write_text(written)
    assert load_config(tmp_path / "resolved.yaml").loss.perceptual == config
    network = build_features(config.model_copy(update={"weights": "random"}))
    with torch.no_grad():
        assert len(network(torch.rand(1, 3, 16, 16))) == len(config.layer_weights) == len(PRESETS[preset]["layers"])


def test_the_defaults_are_presets() -> None:
    for config, preset in ((VGG19Config(), "esrgan"), (VGG16Config(), "lpips")):
        assert config.model_dump(include=set(PRESETS[preset])) == PRESETS[preset]


def test_keys_beside_a_preset_win_over_it_and_a_later_preset_over_earlier_keys(tmp_path: Path) -> None:
    beside = load(preset="srgan", criterion="l1", layers={"conv1_1": 2}, folder=tmp_path)
    assert (beside.criterion, beside.layers, beside.feature_scale) == ("l1", {"conv1_1": 2}, 0.0784314)
    later = load("preset=lpips", "criterion=l1", network="vgg19", layers={"conv1_1": 2}, weight=3, folder=tmp_path)
    assert (later.network, later.layers, later.criterion) == ("vgg16", PRESETS["lpips"]["layers"], "l1")
    assert later.weight == 3


def test_layers_are_replaced_as_a_whole_and_stand_in_the_networks_order(tmp_path: Path) -> None:
    config = load("layers={relu3_1: 1, conv1_2: 0.5}", layers={"conv5_4": 1}, folder=tmp_path)
    assert list(config.layers.items()) == [("conv1_2", 0.5), ("relu3_1", 1.0)]
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    files[0].write_text("loss: {perceptual: {layers: {conv5_4: 1}}}")
    files[1].write_text("loss: {perceptual: {layers: {relu2_2: 1}}}")
    assert load_config(files).loss.perceptual.layers == {"relu2_2": 1.0}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("file", "overrides", "layers"),
    [
        ({"layer": "conv2_2", "activation": "before"}, [], {"conv2_2": 1}),
        ({"layer": "conv5_4", "activation": "after"}, [], {"relu5_4": 1}),
        ({"activation": "after"}, [], {"relu5_4": 1}),
        ({"layer": "conv5_4", "activation": "after"}, ["layer=conv2_2"], {"relu2_2": 1}),
        ({"layer": "conv2_2"}, ["activation=after"], {"relu2_2": 1}),
        ({"layers": {"relu1_2": 2, "relu5_4": 3}}, ["activation=before"], {"conv1_2": 2, "conv5_4": 3}),
        ({"layer": "conv5_4", "activation": "after"}, ["layers={conv1_1: 4}"], {"conv1_1": 4}),
        ({"preset": "srgan"}, ["layer=conv2_2"], {"relu2_2": 1}),
        ({}, ["layer=conv2_2", "activation=after"], {"relu2_2": 1}),
    ],
)
def test_the_old_keys_are_read_as_layers(
    file: dict[str, Any], overrides: list[str], layers: dict[str, float], tmp_path: Path
) -> None:
    assert load(*overrides, folder=tmp_path, **file).layers == layers


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["layers={relu9_1: 1}"], "loss.perceptual.layers: vgg19 has no 'relu9_1'; its layers are conv1_1, relu1_1"),
        (["preset=srgan", "network=vgg16"], "vgg16 has no 'relu5_4'"),
        (["layers={conv1_1: 0}"], "conv1_1 has the weight 0; allowed are numbers above 0"),
        (["layers={conv1_1: x}"], "loss.perceptual.layers.conv1_1 is 'x': input should be a valid number"),
        (["layers={conv1_1: .inf}"], "loss.perceptual.layers.conv1_1 is inf"),
        (["layers=conv1_1"], "expected layers with weights, such as {relu2_2: 0.5, relu3_3: 1}"),
        (["layers={}"], "expected layers with weights"),
        (["layers={conv1_1"], "expected layers with weights"),
        (["layers=null"], "expected layers with weights"),
        (["weights=hed"], "hed's weights are those of loss.perceptual.network=vgg16"),
        (["preset=vgg"], "loss.perceptual.preset is 'vgg': input should be 'srgan', 'esrgan'"),
        (["preset=lpips", "network=efficientnet_lite0"], "it belongs to another loss.perceptual.network"),
        (["activation=between"], "unknown key loss.perceptual.activation"),
        (["layer=conv2_2", "layers={conv1_1: 1}"], "unknown key loss.perceptual.layer; did you mean"),
    ],
)
def test_a_mistake_is_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(*overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [VGG16Config(), VGG19Config()], ids=["vgg16", "vgg19"])
def test_the_configuration_knows_the_networks_layers(config: VGG16Config | VGG19Config) -> None:
    layers = vgg_layers(config.network)
    same = type(config).model_validate({"layers": dict.fromkeys(reversed(layers), 1.0)})
    assert list(same.layers) == list(layers)


def fingerprint(*overrides: str) -> tuple[Config, dict[str, Any]]:
    config = load_config(None, ["--data.train=x", *(f"--loss.perceptual.{text}" for text in overrides)])
    return config, config_fingerprint(config, shards="0" * 64)


def test_a_checkpoint_with_the_old_keys_resumes_and_other_layers_are_a_change() -> None:
    config, old = fingerprint("layers={relu2_2: 1}")
    perceptual = old["configuration"]["loss"]["perceptual"]
    for key in ("layers", "normalise", "preset"):
        del perceptual[key]
    perceptual |= {"layer": "conv2_2", "activation": "after"}
    refuse_changes(old, config, shards="0" * 64, step=0)
    for layers in ("{conv2_2: 1}", "{relu2_2: 1, relu1_1: 1}", "{relu2_2: 2}"):
        other, _ = fingerprint(f"layers={layers}")
        with pytest.raises(UserError, match=r"loss\.perceptual\.layers: \{'relu2_2': 1.0\} -> "):
            refuse_changes(old, other, shards="0" * 64, step=0)


def test_a_layer_less_is_a_change_and_the_name_of_a_preset_is_none() -> None:
    config, old = fingerprint("preset=realesrgan")
    fewer, _ = fingerprint("preset=realesrgan", "layers={conv5_4: 1}")
    with pytest.raises(UserError, match=r"not the configuration of the checkpoint: loss\.perceptual\.layers"):
        refuse_changes(old, fewer, shards="0" * 64, step=0)
    spelt, _ = fingerprint("layers={conv1_2: 0.1, conv2_2: 0.1, conv3_4: 1, conv4_4: 1, conv5_4: 1}")
    refuse_changes(old, spelt, shards="0" * 64, step=0)
    assert spelt != config


def test_the_shipped_recipes_are_what_they_were_in_the_old_keys(tmp_path: Path) -> None:
    was: dict[str, dict[str, Any]] = {
        "srgan_x4": {"layer": "conv5_4", "activation": "after", "criterion": "mse", "feature_scale": 0.0784314},
        "notebook": {"layer": "conv5_4", "activation": "after", "criterion": "mse", "feature_scale": 0.0784314},
        "esrgan_x4": {"layer": "conv5_4", "activation": "before", "criterion": "l1"},
        "basicsr_x4": {"layer": "conv5_4", "activation": "before", "criterion": "l1"},
    }
    for name, keys in was.items():
        now = load_config(ROOT / "configs" / f"{name}.yaml").loss.perceptual
        then = load(folder=tmp_path, network="vgg19", weight=1.0, **keys)
        assert now.model_copy(update={"preset": None}) == then, name


@pytest.mark.parametrize("recipe", ["srgan_x4", "esrgan_x4", "realesrgan_x4"])
def test_a_network_chosen_over_a_recipe_leaves_its_preset(recipe: str) -> None:
    file = ROOT / "configs" / f"{recipe}.yaml"
    weight = load_config(file).loss.perceptual.weight
    chosen = [load_config(file, [f"--loss.perceptual.network={name}"]) for name in ("vgg16", "efficientnet_lite0")]
    assert chosen[0].loss.perceptual == VGG16Config(weight=weight)
    assert chosen[1].loss.perceptual == EfficientNetLite0Config(weight=weight)
    same = load_config(file, ["--loss.perceptual.network=vgg19"])
    assert same == load_config(file)


def test_activation_beside_a_preset_is_that_of_the_presets_layers() -> None:
    config = load("preset=realesrgan", "activation=after")
    assert config.layers == {name.replace("conv", "relu"): w for name, w in PRESETS["realesrgan"]["layers"].items()}


def test_old_keys_may_be_allowed_to_change() -> None:
    before = load_config(None, ["--loss.perceptual.layers={conv2_2: 1}"])
    now = load_config(None, ["--run.allow_changes=loss.perceptual.layer"])
    refuse_changes(config_fingerprint(before, shards="a"), now, shards="a", step=1)
    with pytest.raises(UserError, match=r"loss\.perceptual\.layers"):
        refuse_changes(config_fingerprint(before, shards="a"), load_config(None, []), shards="a", step=1)
