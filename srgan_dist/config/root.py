"""The configuration as a whole, and what may not be combined. Every field has its name, type, limit, unit and default.

YAML holds only what differs from the defaults; ``--section.key=value`` wins over YAML. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import Field, model_validator

from srgan_dist.config.base import Section
from srgan_dist.config.data import DataConfig
from srgan_dist.config.losses import LossConfig
from srgan_dist.config.models import (
    DiscriminatorConfig,
    GeneratorConfig,
    NotRecomputed,
    SRResNetConfig,
    VGGDiscriminatorConfig,
)
from srgan_dist.config.training import (
    CheckpointConfig,
    LogConfig,
    OptimizerConfig,
    RunConfig,
    StabilityConfig,
    TrackerConfig,
    TrainConfig,
    ValidateConfig,
)
from srgan_dist.utils.measures import DISTANCES, MEASURES
from srgan_dist.utils.secrets import shown_tree


class Config(Section):
    """Everything that a run depends on."""

    run: RunConfig = RunConfig()
    """Where, and from where."""
    data: DataConfig = DataConfig()
    """What is trained on."""
    generator: GeneratorConfig = SRResNetConfig()
    """The network that upscales."""
    discriminator: DiscriminatorConfig = VGGDiscriminatorConfig()
    """The network that tells real images from generated ones."""
    loss: LossConfig = LossConfig()
    """What is minimised."""
    train: TrainConfig = TrainConfig()
    """How long, in which ratio and precision."""
    stability: StabilityConfig = StabilityConfig()
    """What a collapse is, and what follows from it."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW and its learning rates."""
    log: LogConfig = LogConfig()
    """What is written how often."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Checkpoints."""
    validation: ValidateConfig = Field(default=ValidateConfig(), alias="validate")
    """Validation."""
    tracker: TrackerConfig = TrackerConfig()
    """Experiment tracking."""

    @model_validator(mode="after")
    def _check(self) -> Config:
        for problem in _conflicts(self):
            raise ValueError(problem)
        return self

    @property
    def adversarial_steps(self) -> int:
        """Generator updates of the adversarial phase."""
        return self.train.steps - self.train.pretrain_steps

    @property
    def has_perceptual_network(self) -> bool:
        """Whether a perceptual network is used: in the loss, and then in validations too."""
        return self.loss.perceptual.weight > 0 and self.adversarial_steps > 0

    def why_unmeasured(self, measure: str) -> str | None:
        """Why validations have no such measure (of `MEASURES`); None where they have, or may have by measures=auto."""
        if measure in ("psnr_y", "ssim_y") or (measure == "perceptual" and self.has_perceptual_network):
            return None
        if measure == "perceptual":
            return "loss.perceptual.weight is 0" if self.adversarial_steps else "all steps are of pretraining"
        if measure == "grid" and self.data.scale == 1:
            return "data.scale is 1, and without upscaling there is no grid"
        measures = self.validation.measures
        return None if measures == "auto" or measure in measures else f"validate.measures lacks {measure}"

    @property
    def holds_secrets(self) -> bool:
        """Whether a source of data in it has a part that others must not see."""
        return self.shown() != self.model_dump(mode="json", by_alias=True)

    def shown(self) -> dict[str, Any]:
        """The resolved configuration in JSON's types, as trackers, checkpoints and reports get it: without secrets."""
        shown: dict[str, Any] = shown_tree(self.model_dump(mode="json", by_alias=True))
        return shown

    def to_yaml(self) -> str:
        """The resolved configuration, as a file that gives it back, secrets included."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False)


def _conflicts(config: Config) -> Iterator[str]:
    data, train, generator = config.data, config.train, config.generator
    if data.patch_size % data.scale:
        yield f"data.patch_size is {data.patch_size}, not a multiple of data.scale {data.scale}"
    degradation = data.degradation
    if degradation.kind == "realesrgan" and degradation.margin % data.scale:
        yield f"data.degradation.margin is {degradation.margin}, not a multiple of data.scale {data.scale}"
    if (degradation.kind == "noise") != (data.scale == 1):
        pair = f"data.scale is {data.scale} and data.degradation.kind is {degradation.kind}"
        yield f"{pair}: noise goes with scale 1, and scale 1 with noise"
    if isinstance(data.micro_batch, int) and data.batch_size % data.micro_batch:
        yield f"data.batch_size is {data.batch_size}, not a multiple of data.micro_batch {data.micro_batch}"
    if train.pretrain_steps > train.steps:
        yield f"train.pretrain_steps is {train.pretrain_steps}, more than train.steps {train.steps}"
    if config.run.init_discriminator_from and not config.adversarial_steps:
        yield "run.init_discriminator_from is given, but train.pretrain_steps leaves no steps to the discriminator"
    loss, best = config.loss, config.checkpoint.best
    if best != "auto" and not data.validation:
        yield f"checkpoint.best is {best}, but data.validation names no images to validate on: name some, or use auto"
    deciding = {"auto": (), "front": DISTANCES}.get(best, (best.removeprefix("val/"),))
    reasons = [config.why_unmeasured(measure) for measure in deciding]
    if reasons and all(reasons):
        what = "perceptual distance" if best in ("front", "val/perceptual") else MEASURES[deciding[0]].label
        yield f"checkpoint.best is {best}, but no {what} is measured, as {reasons[-1]}: choose val/psnr_y"
    weighted = (loss.pixel, loss.perceptual, loss.adversarial, *loss.additional)
    if config.adversarial_steps and not any(section.weight for section in weighted):
        names = "loss.pixel.weight, loss.perceptual.weight and loss.adversarial.weight"
        yield f"{names}{', and those of loss.additional,' * bool(loss.additional)} are all 0: nothing is learnt"
    for section in loss.additional:
        if section.kind == "ldl" and data.patch_size < 4:
            yield f"loss.additional: ldl needs data.patch_size from 4, which is {data.patch_size}"
        if section.kind == "wavelet" and 2**section.levels > data.patch_size:
            yield f"loss.additional: {section.levels} levels of wavelet need data.patch_size from {2**section.levels}"
    if data.scale not in generator.scales:
        allowed = ", ".join(map(str, generator.scales))
        yield f"data.scale is {data.scale}, but generator.name={generator.name} has scales {allowed}"
    if isinstance(generator, NotRecomputed) and train.recompute in ("generator", "both"):
        use = "none" if train.recompute == "generator" else "perceptual"
        yield f"train.recompute is {train.recompute}, which generator.name={generator.name} does not know: use {use}"
    if train.compile and loss.adversarial.r1_weight:
        yield "loss.adversarial.r1_weight needs second derivatives, which compiled networks lack: train.compile=false"
    if config.adversarial_steps and config.discriminator.name == "unet" and data.patch_size % 8:
        yield f"data.patch_size is {data.patch_size}, but discriminator.name=unet needs a multiple of 8"
