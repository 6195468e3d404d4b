"""Root-mean-square norms in few steps forward and back; a model's own take a dozen, each through all states."""

import inspect

import torch
from torch import Tensor, nn

from steering.runtime.module_proxy import ModuleProxy


class FrozenNorm(ModuleProxy):
    """Stands in for a root-mean-square norm whose weight has no gradient."""

    def __init__(self, original: nn.Module, epsilon: float) -> None:
        super().__init__(original)
        self._epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        return _Norm.apply(states, self._original.weight, self._epsilon)


@torch.no_grad()
def frozen_norms(network: nn.Module) -> dict[nn.Module, FrozenNorm]:
    """Stand-ins for those float32 norms of a network that they give the same as; for `twins.twin`."""
    found = {}
    for module in network.modules():
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        alone = [name for name, _ in module.named_parameters()] == ["weight"] and not hasattr(module, "_hf_hook")
        if not (alone and isinstance(epsilon, float) and module.weight.dim() == 1):
            continue
        if len(inspect.signature(module.forward).parameters) > 1:  # takes a gate, too
            continue
        if module.weight.dtype == torch.float32 and module.weight.is_cpu:
            own, states = FrozenNorm(module, epsilon), torch.linspace(-1, 2, 2 * len(module.weight)).view(1, 2, -1)
            if torch.allclose(own(states), module(states), rtol=1e-5, atol=1e-6):
                found[module] = own
    return found


class _Norm(torch.autograd.Function):
    """y = w x r with r = 1 / sqrt(mean(x^2) + epsilon); the gradient is r (w g - x r^2 mean(w g x))."""

    @staticmethod
    def forward(ctx, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        squares = torch.linalg.vecdot(states, states)[..., None]
        scale = squares.div_(states.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(states, weight, scale)
        return (states * scale).mul_(weight)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        states, weight, scale = ctx.saved_tensors
        gradient = gradient * weight
        along = torch.linalg.vecdot(gradient, states)[..., None]
        along.mul_(scale.pow(3)).div_(-states.shape[-1])
        return gradient.mul_(scale).addcmul_(states, along), None, None
