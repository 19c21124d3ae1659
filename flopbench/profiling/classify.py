"""Which group an operator or kernel belongs to, by its name. The rules, first match counts:

1. What a compiler generated (`…cpp_fused_…`, `triton_…_fused_…`) is named after what it fuses. A template
   (`triton_tem`) is a product or attention. Else a softmax makes it attention, a norm or its reciprocal root
   normalisation, any arithmetic elementwise, and nothing but copies layout. The largest thing in a
   fused kernel names it: a residual addition fused into a norm counts as normalisation.
2. Fused attention and the softmax of unfused attention are attention, the latter's products are not.
3. Products and convolutions, from aten, oneDNN, MKL, cuBLAS, cuDNN, CUTLASS, are matrix products.
4. Norms by name are normalisation; so is, where layers are known (eager), all elementwise work and
   every copy within a norm layer.
5. What moves data unchanged (copies, cat, transposes, fills) is layout.
6. Views, allocations and the host's own work are other; whatever else computes is elementwise.
"""

import re

from flopbench.flops.elementwise import ELEMENTWISE
from flopbench.results import Group

_GENERATED = re.compile(r"(?:(triton_tem)|triton_[a-z]+|cpp(?:_CppMicroGemm\w*)?)_fused_(.*)", re.IGNORECASE)
_ARITHMETIC = ELEMENTWISE | {"addmm", "hadamard", "prod"}
_ATTENTION = re.compile(r"scaled_dot_product|flash|fmha|sdpa|attention|softmax", re.IGNORECASE)
_PRODUCT = re.compile(
    r"(?<![a-z])(?:addmm|mm|bmm|baddbmm|addbmm|matmul|mv|addmv|dot|einsum|grouped_mm|linear)(?![a-z])"
    r"|_linear_pointwise|_mkl_linear|mkldnn_linear|conv|gemm|gemv|nvjet|cutlass|xmma|splitk|winograd"
    r"|fprop|dgrad|wgrad|depthwise",
    re.IGNORECASE,
)
_KERNEL = re.compile(r"^void |kernel|gemm|nvjet|xmma|cutlass|cudnn|flash|fmha|mem(?:cpy|set)", re.IGNORECASE)
# Calls of the driver and the runtime, such as cudaLaunchKernel and cuLaunchKernel.
_HOST = re.compile(r"(?:cuda|cu|hip)[A-Z]")
_NORM = re.compile(r"layer_?norm|batch_?norm|rms_?norm|group_?norm|rowwisemoments|gammabeta", re.IGNORECASE)
_LAYOUT = re.compile(
    r"(?:^|::|_)(?:copy|clone|cat|stack|flip|fill|zero|zeros|ones|contiguous|roll|gather|index_select|index"
    r"|repeat|constant_pad_nd|pad|pixel_\w+|to_mkldnn|slice_backward|select_backward|mkldnn_reorder\w*)"
    r"_?(?:$|_kernel)"
    r"|copy|CatArray|memcpy|memset|transpose_kernel|nchwToNhwc|nhwcToNchw|FillFunctor|flip_kernel|indexSelect",
    re.IGNORECASE,
)
_OTHER = frozenset(
    """view reshape _reshape_alias _unsafe_view permute transpose t expand expand_as slice select narrow
    split split_with_sizes chunk unbind flatten unflatten squeeze unsqueeze as_strided alias detach
    detach_ empty empty_like empty_strided new_empty new_empty_strided resize_ set_ to _to_copy
    result_type resolve_conj resolve_neg lift_fresh item _local_scalar_dense is_nonzero view_as numpy_t
    zeros_like ones_like new_zeros new_ones full_like full arange is_same_size
    _has_same_storage_numel""".split()  # noqa: SIM905
)


def group_of(name: str, *, within_norm: bool = False, kernel: bool = False) -> Group:
    """The group of an operator or kernel.

    Args:
        name: as the profiler has it, e.g. `aten::addmm`, `graph_0_cpp_fused_native_layer_norm_0`.
        within_norm: it ran inside a layer that normalises.
        kernel: it ran on a GPU, so it computes or moves something, whatever it is called.
    """
    generated = _GENERATED.search(name)
    if generated is None:
        group = _single(name, kernel=kernel)
    else:
        group = _fused(generated[2], template=bool(generated[1]))
    return "normalisation" if within_norm and group in ("elementwise", "layout") else group


def _fused(names: str, *, template: bool) -> Group:
    if template:
        return "attention" if _ATTENTION.search(names) else "matrix products"
    words = set(names.split("_"))
    if "softmax" in words:
        return "attention"
    if "rsqrt" in words or _NORM.search(names):
        return "normalisation"
    return "elementwise" if words & _ARITHMETIC else "layout"


def is_host_call(name: str) -> bool:
    """Whether a name is that of a call of the runtime or the driver, e.g. `cudaLaunchKernel`."""
    return _HOST.match(name) is not None


def _single(name: str, *, kernel: bool) -> Group:
    space, _, bare = name.rpartition("::")
    operator = space in ("aten", "mkl", "mkldnn", "onednn", "flopbench", "quantized", "prims")
    if not operator and not kernel and (not _KERNEL.search(name) or is_host_call(name)):
        return "other"
    if operator and bare in _OTHER:
        return "other"
    for pattern, group in _LADDER:
        if pattern.search(bare if operator else name):
            return group
    return "elementwise"


_LADDER: tuple[tuple[re.Pattern[str], Group], ...] = (
    (_ATTENTION, "attention"),
    (_NORM, "normalisation"),
    (_PRODUCT, "matrix products"),
    (_LAYOUT, "layout"),
)
