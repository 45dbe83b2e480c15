"""State dicts of other trainers: found within what they save, and brought to our names.

Only names change here, never a value; whether the tensors fit a network is for others to find out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from srgan_dist.checkpointing.tensors import UnusableTensors, plain_tensors

Role = Literal["generator", "discriminator"]
"""Whose weights are wanted of a file that may hold several networks'."""

_DEEPEST = 8  # dictionaries within dictionaries; a pickled one may hold itself
_AVERAGED = ("params_ema", "generator_ema", "g_ema", "netG_ema", "model_ema", "ema_model", "ema_state_dict", "ema")
_OWN: dict[Role, tuple[str, ...]] = {
    "generator": (*_AVERAGED, "generator", "generator_state_dict", "netG", "netG_state_dict", "net_g", "G"),
    "discriminator": ("discriminator", "discriminator_state_dict", "netD", "netD_state_dict", "net_d", "D"),
}
_ANY = ("params", "model_state_dict", "state_dict", "model", "network", "net", "module")
# Inside a name, where a layer was compiled, sharded or checkpointed by itself.
_INNER = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_COUNTERS = {"n_averaged", "steps", "initted", "step"}  # of moving averages, beside their network

_GENERATOR = (
    (re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\.(conv[1-5]\.\w+)"), r"body.\1.rdb\2.\3"),
    (re.compile(r"1\.sub\.(\d+)\.RDB([123])\.(conv[1-5])\.0\.(\w+)"), r"body.\1.rdb\2.\3.\4"),
    (re.compile(r"recon_trunk\.(\d+)\.(conv[12]\.\w+)"), r"body.\1.\2"),
    (re.compile(r"trunk_conv\.(\w+)"), r"conv_body.\1"),
    (re.compile(r"HRconv\.(\w+)"), r"conv_hr.\1"),
    (re.compile(r"upsample([12])\.upsample_conv\.(\w+)"), r"upconv\1.\2"),
)
_DISCRIMINATOR = (
    (re.compile(r"(.+)\.weight_orig"), r"\1.parametrizations.weight.original"),
    (re.compile(r"(.+)\.weight(_[uv])"), r"\1.parametrizations.weight.0.\2"),
)
_BASICSR_LAYER = re.compile(r"(conv|bn)([0-4])_([01])\.(\w+)|linear([12])\.(\w+)")


class Found(NamedTuple):
    """A state dict.

    Attributes:
        tensors: By our names.
        where: Keys and prefixes under which it was found, from the outside, as in ``params_ema.module``.
        others: Keys and prefixes beside it that could have been meant.
    """

    tensors: dict[str, Tensor]
    where: str
    others: tuple[str, ...]


def find_state_dict(content: object, role: Role) -> Found:
    """Find one network's weights in what a trainer saved.

    Args:
        content: What the file holds: a state dict, or dictionaries around it.
        role: Which network's.

    Raises:
        UnusableTensors: There is none.
    """
    where: list[str] = []
    others: list[str] = []
    wanted = (*_OWN[role], *_ANY)
    for _ in range(_DEEPEST):
        keys = _containers(content, wanted)
        if not keys or not isinstance(content, Mapping):
            break
        content = content[keys[0]]
        where.append(keys[0])
        others += keys[1:]
    try:
        tensors = plain_tensors(content)
        if not tensors:
            raise UnusableTensors("it is empty")
    except UnusableTensors as error:
        place = f" in {'.'.join(where)}" if where else ""
        known = f"; looked for in {', '.join(wanted)}" if isinstance(content, Mapping) and content else ""
        raise UnusableTensors(f"holds no state dict of tensors{place} ({error}{known})") from None
    tensors, prefixes, beside = _without_prefixes(tensors, wanted)
    return Found(_our_names(tensors, role), ".".join(where + prefixes), tuple(others + beside))


def _containers(content: object, wanted: tuple[str, ...]) -> list[str]:
    if not isinstance(content, Mapping):
        return []
    return [key for key in wanted if isinstance(content.get(key), Mapping) and content[key]]


def _without_prefixes(
    tensors: dict[str, Tensor], wanted: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Strip what wrappers put before every name; of several networks in one dictionary, keep the wanted one."""
    taken: list[str] = []
    beside: list[str] = []
    names = {_INNER.sub("", name): value for name, value in tensors.items() if name not in _COUNTERS}
    while prefixes := [key for key in wanted if any(name.startswith(f"{key}.") for name in names)]:
        first, *rest = prefixes
        taken.append(first)
        beside += rest
        own = {name.removeprefix(f"{first}."): value for name, value in names.items() if name.startswith(f"{first}.")}
        others = dict.fromkeys(name.partition(".")[0] for name in names if not name.startswith(f"{first}."))
        beside += [name for name in others if name not in rest]
        names = {name: value for name, value in own.items() if name not in _COUNTERS}
    return names, taken, beside


def _our_names(tensors: dict[str, Tensor], role: Role) -> dict[str, Tensor]:
    if role == "discriminator":
        return _renamed(_vgg_of_basicsr(tensors), _DISCRIMINATOR)
    if any(name.startswith("RRDB_trunk.") for name in tensors):  # elsewhere upconv1 is the name of ours
        tensors = {re.sub(r"^upconv([12])\.", r"conv_up\1.", name): value for name, value in tensors.items()}
    if any(_GENERATOR[1][0].fullmatch(name) for name in tensors):
        tensors = _numbered_esrgan(tensors)
    return _renamed(tensors, _GENERATOR)


def _renamed(tensors: Mapping[str, Tensor], rules: tuple[tuple[re.Pattern[str], str], ...]) -> dict[str, Tensor]:
    def renamed(name: str) -> str:
        for pattern, ours in rules:
            if match := pattern.fullmatch(name):
                return match.expand(ours)
        return name

    return {renamed(name): value for name, value in tensors.items()}


def _numbered_esrgan(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the convolutions of the first ESRGAN release, whose layers were numbered (``model.0``, ``model.3``, ...)."""
    trunk = max(
        (name for name in tensors if re.fullmatch(r"1\.sub\.\d{1,6}\.(weight|bias)", name)),
        key=lambda name: int(name.split(".")[2]),
        default="",
    ).rpartition(".")[0]
    layers = {int(match[1]) for name in tensors if (match := re.fullmatch(r"(\d{1,6})\.(weight|bias)", name))}
    later = sorted(layers - {0, 1})
    names = {"0": "conv_first", trunk: "conv_body"}
    names |= {f"{layer}": f"conv_up{index}" for index, layer in enumerate(later[:-2], start=1)}
    names |= dict(zip(map(str, later[-2:]), ("conv_hr", "conv_last"), strict=False))

    def named(name: str) -> str:
        layer, _, what = name.rpartition(".")
        return f"{names[layer]}.{what}" if layer in names else name

    return {named(name): value for name, value in tensors.items()}


def _vgg_of_basicsr(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Number the layers of BasicSR's VGGStyleDiscriminator as ours are; its running statistics are never used."""
    if not {"conv0_0.weight", "linear1.weight"} <= tensors.keys():
        return dict(tensors)
    ours: dict[str, Tensor] = {}
    for name, value in tensors.items():
        match = _BASICSR_LAYER.fullmatch(name)
        if match is None:
            ours[name] = value
        elif match[5]:
            ours[f"classifier.{2 * int(match[5]) - 2}.{match[6]}"] = value
        elif not match[4].startswith(("running_", "num_")):
            index = 2 * int(match[2]) + int(match[3])  # 0: a convolution and its activation, then triples with a norm
            layer = 3 * index - 1 + (match[1] == "bn") if index else 0
            ours[f"features.{layer}.{match[4]}"] = value
    return ours
