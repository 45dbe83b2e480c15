"""Networks that are trained in another form than their files hold, and what turns the one into the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn


class Reparameterised(nn.Module):
    """A generator whose training form computes the same as the form of its files, by other parameters.

    Trained with branches that add up to a convolution (Ding et al. 2021, RepVGG), and saved as others load it.
    Checkpoints hold the training form, so that a run resumes bit for bit; files of weights hold the saved form.
    """

    @abstractmethod
    def saved_weights(self) -> dict[str, Tensor]:
        """The state dict of the saved form, from that of the training form."""

    @abstractmethod
    def trained_weights(self, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bring tensors of the saved form into the training form.

        Args:
            saved: What a file holds: tensors of this network in part or whole, or of another one, which stay as they
                are.
        """


def weights_to_save(network: nn.Module) -> dict[str, Tensor]:
    """The state dict of a generator as a file of weights holds it."""
    return network.saved_weights() if isinstance(network, Reparameterised) else network.state_dict()


def weights_to_train(network: nn.Module, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file of weights holds, in the form in which the generator is trained."""
    return network.trained_weights(saved) if isinstance(network, Reparameterised) else dict(saved)
