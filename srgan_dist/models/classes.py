"""Generators whose classes are not in this package: spandrel's architectures, and a class of the user's own."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn import functional as F

from srgan_dist.errors import UserError

log = logging.getLogger("srgan_dist")

_SCALE = ("scale", "upscale", "up_scale", "upscale_factor", "upscaling_factor")  # the argument's name, elsewhere
_NOT_THEIRS = (*(str(Path(str(file)).parent) for file in (torch.__file__, importlib.__file__, __file__)), "<")
_NO_SPANDREL = "generator.name=spandrel needs spandrel, which is not installed: pip install 'srgan-dist[spandrel]'"


class Unbuildable(UserError):
    """A class that cannot be imported or built; the message, one line, says which and why."""


def build_spandrel(architecture: str | None, parameters: Mapping[str, Any], *, scale: int) -> nn.Module:
    """Build one of spandrel's networks, freshly initialised, for images of any size.

    Args:
        architecture: Its name there, or that of a class among several of one name, such as RealPLKSR.
        parameters: Arguments of its class, and no others; that of the scale is filled in.
        scale: Factor between LR and SR.

    Raises:
        Unbuildable: Spandrel is not installed or has no such network, or the parameters are not its class's.
    """
    known = _spandrel_classes()
    if architecture not in known:
        given = f"is {architecture!r:.100}" if architecture else "is not given"
        raise Unbuildable(f"generator.architecture {given}; allowed: {', '.join(sorted(known, key=str.lower))}")
    cls, arch = known[architecture]
    name = f"generator.architecture={architecture}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch will ask of them one day
        network = _construct(cls, parameters, scale=scale, name=name)
    if torch.get_default_device().type == "meta":  # only names and shapes are asked
        return network
    network._multiple, network._minimum = _taken_sizes(cls, arch, json.dumps(parameters), scale, name)  # type: ignore[assignment]
    network.__class__ = _any_size(cls)
    return network


@cache
def _any_size(cls: type[nn.Module]) -> type[nn.Module]:
    """The same class for each network of it, by which networks are known to be of one kind."""
    return type(cls.__name__, (_AnySize, cls), {})


@cache
def _taken_sizes(cls: Any, arch: Any, parameters: str, scale: int, name: str) -> tuple[int, int]:
    """Of what a network's sides must be multiples, and their least; what spandrel sees in its weights."""
    with unset_fake_temporarily(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = _construct(cls, json.loads(parameters), scale=scale, name=name).state_dict()
        try:
            needs = arch.load(dict(weights)).size_requirements
        except Exception as error:  # noqa: BLE001 - what it makes of sizes that it never saw may fail in any way
            raise Unbuildable(f"{name}: spandrel cannot load what these parameters make ({raised(error)})") from None
    return needs.multiple_of, needs.minimum


class _AnySize(nn.Module):
    """Before a network's class: pads images to the sizes that the network takes, and crops what it makes of them."""

    _multiple: int
    _minimum: int

    def forward(self, lr: Tensor) -> Tensor:
        sides = [max(side, self._minimum) for side in lr.shape[-2:]]
        below, right = (side + -side % self._multiple - given for side, given in zip(sides, lr.shape[-2:], strict=True))
        if not (below or right):
            return super().forward(lr)  # type: ignore[no-any-return]
        height, width = lr.shape[-2:]
        reflected = min(below, height - 1), min(right, width - 1)  # as far as there is something to reflect
        padded = F.pad(lr, (0, reflected[1], 0, reflected[0]), mode="reflect")
        padded = F.pad(padded, (0, right - reflected[1], 0, below - reflected[0]), mode="replicate")
        sr: Tensor = super().forward(padded)
        scale = sr.shape[-1] // padded.shape[-1]
        return sr[..., : height * scale, : width * scale]


def build_own(reference: str, parameters: Mapping[str, Any], *, scale: int) -> nn.Module:
    """Build a network of the user's own class, which is imported: what its module does, happens.

    Args:
        reference: ``module:Class``; the working folder is searched first.
        parameters: Arguments of the class; ``scale`` is filled in, if it takes one of this name.
        scale: Factor between LR and SR.

    Raises:
        Unbuildable: There is no such module or class, or it cannot be built.
    """
    module_name, _, names = reference.partition(":")
    found: Any = _imported(module_name, reference)
    for name in names.split("."):
        found = getattr(found, name, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        why = "and this is none" if found is not None else f"and {module_name} has no such name"
        raise Unbuildable(f"generator.name is {reference}; expected a class of torch.nn.Module, {why}")
    return _construct(found, parameters, scale=scale, name=f"generator.name={reference}")


def leave_out_unused(network: nn.Module, *, side: int, device: torch.device) -> None:
    """Freeze parameters that never affect the output: DDP would wait for their gradients for ever.

    Args:
        network: On its device.
        side: Of the images that it is tried on, in pixels.
        device: The network's.
    """
    tried = copy.deepcopy(network).train()  # in eval mode some compute by other parameters than they train
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else ()):  # of dropped paths and the like
        tried(torch.zeros(2, 3, side, side, device=device)).sum().backward()
    unused = [name for name, parameter in tried.named_parameters() if parameter.grad is None]
    for name in unused:
        network.get_parameter(name).requires_grad_(False)
    if unused:
        log.info(
            "%d parameters of the generator never affect its output and stay as they are: %s", len(unused), unused[0]
        )


def _imported(name: str, reference: str) -> Any:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        with unset_fake_temporarily():  # or tensors of the module would never have data
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the module is the user's, and may raise anything
        raise Unbuildable(f"generator.name is {reference}: {name} cannot be imported ({raised(error)})") from None
    finally:
        # Last from now on, where no file of the folder hides a library that is imported later.
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _spandrel_classes() -> dict[str, tuple[Any, Any]]:
    """By name, the class of a network and spandrel's description of its architecture."""
    try:
        with unset_fake_temporarily(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            from spandrel import MAIN_REGISTRY
    except ImportError:
        raise Unbuildable(_NO_SPANDREL) from None
    found: dict[str, tuple[Any, Any]] = {}
    for arch in (support.architecture for support in MAIN_REGISTRY.architectures()):
        module = sys.modules[type(arch).__module__]
        exported = [getattr(module, name) for name in module.__all__]
        classes = [one for one in exported if isinstance(one, type) and issubclass(one, nn.Module)]
        for name, cls in [(str(arch.id), classes[0]), *((cls.__name__, cls) for cls in classes[1:])]:
            found.setdefault(name, (cls, arch))
    return found


def _construct(cls: type[nn.Module], parameters: Mapping[str, Any], *, scale: int, name: str) -> nn.Module:
    arguments = inspect.signature(cls).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in arguments.values())
    known = [one.name for one in arguments.values() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    given = {key: scale for key in _SCALE if key in known} | dict(parameters)
    if unknown := [key for key in given if key not in known and not takes_any]:
        raise Unbuildable(
            f"{name}: generator.parameters has {unknown[0]!r:.100}; allowed: {', '.join(known) or 'none'}"
        )
    if missing := [key for key in known if key not in given and arguments[key].default is inspect.Parameter.empty]:
        raise Unbuildable(f"{name}: generator.parameters lacks {', '.join(missing)}")
    try:
        with unset_fake_temporarily() as mode:  # many constructors read the values of some tensors
            network = cls(**given)
    except Exception as error:  # noqa: BLE001 - the class is not ours, and may raise anything
        raise Unbuildable(
            f"{name} cannot be built by generator.parameters {dict(parameters)} ({raised(error)})"
        ) from None
    return _without_data(network) if mode is not None else network


@torch.no_grad()
def _without_data(network: nn.Module) -> nn.Module:
    """Where tensors have a shape alone: the same network, with such parameters and buffers."""
    made: dict[Tensor, Tensor] = {}  # one that has two names stays one
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if tensor not in made:
                    empty = torch.empty_like(tensor)
                    is_trained = isinstance(tensor, nn.Parameter)
                    made[tensor] = nn.Parameter(empty, tensor.requires_grad) if is_trained else empty
                tensors[name] = made[tensor]  # type: ignore[assignment]
    return network


def raised(error: BaseException) -> str:
    """What code that is not ours raised, in one line, and where, since its faults are to be found by it."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)]
    place = f", {Path(theirs[-1].filename).name}:{theirs[-1].lineno}" if theirs else ""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}{f': {first:.200}' if first else ''}{place}"
