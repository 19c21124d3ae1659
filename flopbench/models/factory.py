"""From a model's name to the model."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import nn

from flopbench.errors import FlopbenchError, in_one_line, out_of_memory, unknown
from flopbench.kernels import Impl
from flopbench.kernels.dispatch import select
from flopbench.models.averaged import Averaged
from flopbench.models.catalog import parse_name
from flopbench.models.foreign import load_network
from flopbench.models.tasks import LINEAR, TASKS, TaskName
from flopbench.symmetries.registry import load

Module = TypeVar("Module", bound=nn.Module)

# The class of each family, called with the size's configuration.
_FAMILIES = {
    "vit": "flopbench.models.vit:VisionTransformer",
    "resmlp": "flopbench.models.resmlp:ResMLP",
    "convnext": "flopbench.models.convnext:ConvNeXt",
    "layer": "flopbench.models.single:SingleLayer",
}


def create_model(
    name: str,
    image_size: int | tuple[int, int] = 224,
    num_classes: int = 1000,
    *,
    task: TaskName = "classification",
    impl: Impl = "auto",
    **options: Any,
) -> nn.Module:
    """Build a network by its name, freshly initialised, in train mode.

    Args:
        name: `vit_b16`, `vit_b16.flop`, `timm:deit3_base_patch16_224`, `package.module:callable`.
        image_size: pixels, one number for square images or (height, width).
        num_classes: logits, i.e. the output is `[B, num_classes]` for images `[B, 3, H, W]`; of a
            segmentation, those of each pixel.
        task: what one of our own networks gives: "classification" logits, "features" on the grid, or a
            value per pixel, "segmentation", "depth", "normals" (`flopbench.models.tasks`); these have a
            `decoder`, "linear" or "conv".
        impl: which version of its operations our own networks run: "eager", "fused" or "auto", see
            `flopbench.kernels.dispatch`. Nothing in a plain network has a choice.
        options: passed on to the network's class, e.g. `drop_path=0.1`, `head="absolute"`,
            `attention="unfused"`; to timm's `create_model` otherwise, or to the callable, which gets
            nothing else.

    Raises:
        FlopbenchError: an unknown name, an image size that does not suit, an option not known, or
            whatever somebody else's code raises.
    """
    parsed = parse_name(name)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    sides = size if isinstance(size, (tuple, list)) else ()
    if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise FlopbenchError(f"image_size must be pixels, or two of (height, width), got {image_size!r}")
    parsed.check_image_size(size, options)
    _check_choice("impl", impl, get_args(Impl))
    _check_choice("task", task, get_args(TaskName))
    if parsed.spec is None:
        parsed.check_task(task, LINEAR)
    if parsed.spec is not None:
        family = _load(_FAMILIES[parsed.spec.family])
        hints = get_type_hints(family.__init__)
        for option, value in options.items():
            if option not in hints:
                raise unknown(f"option of {name}", option, hints.keys() - {"return", "symmetry"})
            if get_origin(hints[option]) is Literal:
                _check_choice(option, value, get_args(hints[option]))
        parsed.check_task(task, options.get("decoder", LINEAR))
        given = {"image_size": size, "num_classes": num_classes}
        own = {"task": task} if parsed.has_tasks else {}
        build = family
        arguments = {**parsed.spec.config, "symmetry": parsed.version.name, **options, **given, **own}
    elif name.startswith("timm:"):
        build = _import_timm().create_model
        arguments = {**_timm_arguments(parsed.target, size), "num_classes": num_classes, **options}
    else:
        build, arguments = load_network(name), options
    try:
        model = build(**arguments)
    except (Exception, SystemExit) as error:
        # What does not fit is a result, whoever built it.
        if out_of_memory(error):
            raise
        # Our own networks say what is wrong by themselves, another's error may be the bare key of a KeyError.
        reason = str(error) if parsed.spec is not None else in_one_line(error)
        raise FlopbenchError(f"cannot build {name}: {reason}") from error
    if not isinstance(model, nn.Module):
        if not parsed.given or not callable(model):
            raise FlopbenchError(f"{name} returned {type(model).__name__}, not a torch.nn.Module")
        model = Called(model)
    if parsed.spec is not None:
        select(model, impl)
        if parsed.version.averaged:
            model = Averaged(model, load(parsed.version.about), TASKS[task])
    return model


class Called(nn.Module):
    """A function as a network. Its weights, if it has any, are its own affair."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns."""
        return self.function(*args, **kwargs)


def _check_choice(option: str, given: Any, known: tuple[str, ...]) -> None:
    if given not in known:
        raise unknown(option, str(given), known)


def num_parameters(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def perturb(model: Module, seed: int = 0) -> Module:
    """Give every parameter random values of the size that trained ones have, in place.

    Of floating point, that is, or complex: whole numbers, as quantised networks hold, stay as they are.

    At initialisation layer scales near zero and zero biases hide errors of a symmetry; after this
    every term of every layer matters, and activations stay of order 1 through the deepest network.
    The values depend on the seed, on each parameter's place and shape, and on the kind of device.

    Returns:
        The same model.
    """

    def fill(index: int, name: str, parameter: nn.Parameter) -> None:
        mean, deviation = _trained_size(name.rpartition(".")[2], parameter.shape)
        generator = torch.Generator(parameter.device).manual_seed(seed * 1_000_003 + index)
        with torch.no_grad():
            parameter.normal_(mean, deviation, generator=generator)

    drawable = [
        (i, name, parameter)
        for i, (name, parameter) in enumerate(model.named_parameters())
        if parameter.is_floating_point() or parameter.is_complex()
    ]
    # torch draws on one core; every parameter has a generator of its own, so several can be drawn at once.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for drawn in [pool.submit(fill, *indexed) for indexed in drawable]:
            drawn.result()
    return model


def _trained_size(name: str, shape: torch.Size) -> tuple[float, float]:
    """Mean and deviation of a parameter, by its own name (without the module's) and shape."""
    if "bias" in name or "beta" in name:
        return 0.0, 0.2
    if "gamma" in name or re.fullmatch(r"ls\d*", name):
        # Scales of residual branches: dozens of them add up.
        return 0.3, 0.06
    if len(shape) < 2 or "alpha" in name:
        return 1.0, 0.2
    if shape[0] == 1 and len(shape) > 2:
        # One for the whole batch: tokens, embeddings of positions.
        return 0.0, 0.2
    return 0.0, (shape[1:].numel()) ** -0.5


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def _import_timm() -> Any:
    try:
        return import_module("timm")
    except ImportError as error:
        raise FlopbenchError(f"timm models need timm: pip install 'flopbench[timm]' ({error})") from None


def _timm_arguments(target: str, image_size: tuple[int, int]) -> dict[str, Any]:
    """What timm is to be called with: networks that are built for one size of image must be told it."""
    timm = _import_timm()
    name = target.partition(".")[0]
    if not timm.is_model(name):
        raise unknown("timm model", target, timm.list_models())
    config = timm.get_pretrained_cfg(target)
    fixed = config is not None and config.fixed_input_size
    return {"model_name": target, **({"img_size": image_size} if fixed else {})}
