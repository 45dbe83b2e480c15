"""torch.compile: what it needs, and how many graphs it may make."""

from __future__ import annotations

from srgan_dist.errors import UserError


def prepare_compiler(*, on_gpu: bool) -> None:
    """Get ready for compiled networks.

    Args:
        on_gpu: whether they will run on a GPU, for which torch brings its own compiler.

    Raises:
        UserError: there is no C++ compiler for networks on a CPU.
    """
    # Slow to import, and only needed where networks are compiled.
    import torch._dynamo as dynamo
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    # In mixed precision all networks go through one function of Accelerate's, and beyond the limit, by default 8 graphs
    # of a function, a network would silently not be compiled.
    dynamo.config.recompile_limit = 64
    if on_gpu:
        return
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UserError(
            "train.compile needs a C++ compiler on a CPU, and there is none: install g++ or leave it out"
        ) from None
