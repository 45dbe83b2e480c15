"""The section ``data``: what is trained on, and in which pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ByteSize, NonNegativeInt, PositiveInt

from srgan_dist.config.base import CountOrAuto, Paths, Section, as_number
from srgan_dist.config.degradation import DegradationConfig, StoredConfig


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
    """Folders of HR images, or of sets as others publish them, such as HR/ with LRx<scale>/; never trained on."""
    scale: Annotated[Literal[1, 2, 3, 4, 8], BeforeValidator(as_number)] = 4
    """Factor between LR and HR; that of the shards, unless data.degradation makes the LR images. 1 is for denoisers."""
    degradation: DegradationConfig = StoredConfig()
    """Where LR images come from: stored in the shards, or made on the device."""
    patch_size: PositiveInt = 96
    """Side of the square training patches, in HR pixels; a multiple of data.scale."""
    batch_size: PositiveInt = 16
    """Patches in one generator update, over all ranks; a multiple of data.micro_batch x ranks."""
    micro_batch: CountOrAuto | None = None
    """Patches in one forward on one rank; their gradients add up to data.batch_size. None: the rank's whole part; auto:
    as many as fit: predicted on a CPU, and halved whenever a rank runs out of memory."""
    workers: NonNegativeInt | None = None
    """Loader processes per rank; 0 reads in the training process. None: 2 with a GPU, 0 on a CPU."""
