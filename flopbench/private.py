"""What hangs on torch's private names: one function a need."""

from collections.abc import Callable

from torch import nn


def hooked(module: nn.Module) -> bool:
    """Whether calling `module` runs anything besides its own `forward`; hooks that look on do not count."""
    kinds = (module._forward_pre_hooks, module._forward_hooks)
    backward = module._backward_hooks or module._backward_pre_hooks
    return bool(backward) or any(not _looks_on(hook) for hooks in kinds for hook in hooks.values())


def looking_on(hook: Callable[..., None]) -> Callable[..., None]:
    """Mark a hook as one that changes nothing: what runs is the same with it as without (`hooked`)."""
    hook.looks_on = True  # pyright: ignore[reportFunctionMemberAccess]
    return hook


def _looks_on(hook: Callable[..., object]) -> bool:
    # fvcore's say in which layer a trace is.
    return hasattr(hook, "looks_on") or type(hook).__module__.startswith("fvcore.")
