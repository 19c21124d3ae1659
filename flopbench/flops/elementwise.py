"""What operators without products cost, by name: so many operations an element, or none.

What torch itself calls pointwise or a view needs no entry in the lists.
"""

from collections.abc import Sequence
from functools import cache
from math import prod

from flopbench.private import pointwise_and_views

Shape = Sequence[int]

# What an element costs is the convention of the paper's authors: with it, and with their way to write the
# norms, their counts of the plain networks come out to the last operation. Adding a bias is part of the
# product's multiply-adds.


def _each(operations: int, names: str) -> dict[str, int]:
    return dict.fromkeys(names.split(), operations)


# Operations for each element written.
PER_OUTPUT = {
    **_each(
        1,
        """__and__ __iand__ __ior__ __or__ _adaptive_avg_pool2d_backward _index_put_impl _prelu_kernel abs
        absolute adaptive_max_pool2d_backward add addr avg_pool2d_backward avg_pool3d_backward bernoulli
        clamp col2im cumprod cumsum divide elu_backward eq exponential floor_divide ge ger greater
        greater_equal gt hardsigmoid hardsigmoid_backward hardswish hardswish_backward hardtanh_backward
        index_add index_put le leaky_relu leaky_relu_backward less less_equal logcumsumexp lt masked_fill
        max_pool2d_with_indices_backward max_pool3d_with_indices_backward multiply native_dropout ne neg
        negative nll_loss2d_backward nll_loss_backward normal not_equal outer pow prelu rand rand_like
        randint randint_like randn randn_like relu relu6 rsub scatter_add scatter_reduce
        smooth_l1_loss_backward softplus_backward sub subtract threshold_backward uniform where""",
    ),
    **_each(2, "addcmul addcmul_backward glu_backward mse_loss_backward _prelu_kernel_backward"),
    **_each(
        4,
        """acos asin atan atan2 binary_cross_entropy_backward celu cos cosh div elu erfc exp exp2 expm1 fmod
        log log10 log1p log2 log_sigmoid_backward reciprocal remainder rsqrt selu sigmoid sigmoid_backward
        sin sinh sqrt tan tanh tanh_backward""",
    ),
    **_each(6, "addcdiv glu"),
    **_each(
        8, "erf gelu gelu_backward log_sigmoid log_sigmoid_forward mish mish_backward silu silu_backward"
    ),
    **_each(8, "softplus"),
    # A factor for each neighbour, and their sum.
    **_each(3, "upsample_linear1d"),
    **_each(7, "upsample_bilinear2d _upsample_bilinear2d_aa"),
    **_each(15, "upsample_trilinear3d"),
    **_each(31, "upsample_bicubic2d _upsample_bicubic2d_aa"),
    # Where to look, then what is there.
    **_each(15, "grid_sampler grid_sampler_2d"),
    # Four samples, as detectors take them.
    **_each(32, "roi_align ps_roi_align"),
}
# Operations for each element read: a reduction visits each once, and the gradient of what copies or
# interpolates is added up where it came from.
_PER_INPUT = {
    **_each(
        1,
        """_adaptive_avg_pool2d _adaptive_avg_pool3d _embedding_bag _embedding_bag_forward_only _unique2
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
        all amax amin aminmax any argmax argmin argsort avg_pool1d avg_pool2d avg_pool3d bincount bucketize
        count_nonzero cummax cummin embedding_bag embedding_dense_backward isin kthvalue linalg_vector_norm
        logsumexp max max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
        max_pool3d_with_indices mean median min multinomial nanmean nansum nll_loss nll_loss2d
        nll_loss2d_forward nll_loss_forward nll_loss_nd nonzero norm prod reflection_pad1d_backward
        reflection_pad2d_backward replication_pad1d_backward replication_pad2d_backward roi_pool searchsorted
        sort std std_mean sum topk trace unfold_backward unique_consecutive upsample_nearest1d_backward
        upsample_nearest2d_backward var var_mean""",
    ),
    **_each(3, "l1_loss mse_loss"),
    **_each(4, "huber_loss smooth_l1_loss _weight_norm_interface cosine_similarity"),
    # Of the gates, in one kernel.
    **_each(6, "_thnn_fused_gru_cell _thnn_fused_gru_cell_backward"),
    **_each(7, "_thnn_fused_lstm_cell _thnn_fused_lstm_cell_backward_impl"),
    **_each(12, "binary_cross_entropy binary_cross_entropy_with_logits kl_div"),
    **_each(8, "upsample_bilinear2d_backward _upsample_bilinear2d_aa_backward"),
    **_each(32, "upsample_bicubic2d_backward _upsample_bicubic2d_aa_backward"),
    **_each(32, "_roi_align_backward _ps_roi_align_backward"),
}
# Layer norm: two sums, centre, divide, scale (the shift rides on it as a multiply-add). Softmax: maximum,
# subtract, exponential, sum, divide. Batch norm in evaluation: scale and shift.
NORMALISATION = {
    **_each(5, "layer_norm native_layer_norm group_norm native_group_norm _native_batch_norm_legit"),
    **_each(5, "softmax _softmax _safe_softmax _masked_softmax log_softmax _log_softmax cross_entropy_loss"),
    **_each(5, "_softmax_backward_data _log_softmax_backward_data _masked_softmax_backward instance_norm"),
    **_each(8, "native_layer_norm_backward native_group_norm_backward"),
    **_each(4, "rms_norm _fused_rms_norm"),
    **_each(8, "_fused_rms_norm_backward"),
    **_each(2, "batch_norm native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm"),
    **_each(2, "_batch_norm_with_update _batch_norm_no_update"),
    **_each(8, "native_batch_norm_backward cudnn_batch_norm_backward batch_norm_backward"),
}

FREE = frozenset(
    """Bool Float FloatImplicit Int IntImplicit ScalarImplicit _assert_async _assert_tensor_metadata
    _local_scalar_dense _nested_tensor_from_mask_left_aligned _pack_padded_sequence
    _pack_padded_sequence_backward _pad_packed_sequence _record_function_enter_new _record_function_exit
    _reshape_alias _shape_as_tensor _to_copy _unsafe_index _unsafe_index_put _unsafe_view
    _upsample_nearest_exact1d _upsample_nearest_exact2d alias alpha_dropout arange as_strided block_diag
    broadcast_tensors can_cast cat channel_shuffle chunk clone column_stack complex concat concatenate
    constant_pad_nd contiguous copy detach diag diag_embed diagonal diagonal_backward dim dropout embedding
    empty empty_like empty_permuted empty_strided expand expand_as eye feature_alpha_dropout feature_dropout
    fill flatten flip fliplr flipud full full_like gather get_device hstack im2col index index_copy
    index_fill index_select index_select_backward is_complex is_contiguous is_floating_point is_nonzero
    is_same_size item lift lift_fresh linspace mT masked_scatter masked_select meshgrid movedim narrow
    native_channel_shuffle new_empty new_empty_strided new_full new_ones new_zeros numel numpy_T one_hot ones
    ones_like pad pad_sequence permute pixel_shuffle pixel_unshuffle randperm reflection_pad1d
    reflection_pad2d repeat repeat_interleave replication_pad1d replication_pad2d reshape reshape_as resize
    roll rot90 scalar_tensor scatter select select_backward select_scatter size slice slice_backward
    slice_scatter split split_with_sizes squeeze stack storage_offset stride swapaxes sym_numel sym_size t
    take take_along_dim tile to transpose tril tril_indices triu triu_indices type_as unbind unflatten unfold
    unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze upsample_nearest1d upsample_nearest2d
    upsample_nearest3d view view_as vstack zero zeros zeros_like""".split()  # noqa: SIM905
)


def operations(name: str, first: Shape | None, out: Shape | None) -> int | None:
    """Elementwise and normalisation operations of operator `name`; None if it is not known to be such.

    Args:
        name: the operator, e.g. `gelu`.
        first: shape of the first tensor read.
        out: shape of the first tensor written.
    """
    if name == "nms" and first is not None:
        # The overlap of any two boxes: their edges, areas and the quotient.
        return 16 * first[0] ** 2
    per_input = _PER_INPUT.get(name) or NORMALISATION.get(name)
    if per_input and first is not None:
        return per_input * prod(first)
    if name in elementwise_names() and out is not None:
        # A single number, such as a length, is no work worth a count.
        return PER_OUTPUT.get(name, 1) * prod(out) if out else 0
    return None


ELEMENTWISE: frozenset[str] = frozenset({*PER_OUTPUT, *_PER_INPUT, *NORMALISATION, "nms"})


@cache
def elementwise_names() -> frozenset[str]:
    """All that count as elementwise or normalisation; what torch calls pointwise besides is one operation."""
    pointwise, _ = pointwise_and_views()
    return ELEMENTWISE | (pointwise - FREE)


@cache
def free_names() -> frozenset[str]:
    """All that do no arithmetic, views included."""
    _, views = pointwise_and_views()
    return FREE | (views - elementwise_names())
