import pytest

from flopbench.profiling.classify import group_of


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::mm", "matrix products"),
        ("aten::mkldnn_convolution", "matrix products"),
        ("mkldnn::_linear_pointwise", "matrix products"),
        ("aten::convolution_backward", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::_softmax", "attention"),
        ("flopbench::attention_parts_backward", "attention"),
        ("flopbench::depthwise_weight_gradient", "matrix products"),
        ("aten::native_layer_norm", "normalisation"),
        ("aten::native_layer_norm_backward", "normalisation"),
        ("flopbench::linear_parts", "matrix products"),
        ("flopbench::linear_parts_backward", "matrix products"),
        ("flopbench::layer_norm_parts", "normalisation"),
        ("flopbench::gelu", "elementwise"),
        ("aten::gelu", "elementwise"),
        ("aten::addcmul", "elementwise"),
        ("aten::sum", "elementwise"),
        ("aten::_fused_adamw_", "elementwise"),
        ("aten::copy_", "layout"),
        ("aten::cat", "layout"),
        ("aten::flip", "layout"),
        ("aten::fill_", "layout"),
        ("aten::view", "other"),
        ("aten::as_strided", "other"),
        ("aten::empty_strided", "other"),
        ("autograd::engine::evaluate_function: AddmmBackward0", "other"),
        ("TorchDynamo Cache Lookup", "other"),
        ("cudaLaunchKernel", "other"),
    ],
)
def test_operators(name: str, group: str):
    assert group_of(name) == group


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("graph_0_cpp_fused_native_layer_norm_0", "normalisation"),
        ("graph_0_cpp_fused__unsafe_view_add_addcmul_div_mean_mul_pow_rsqrt_sub_view_4", "normalisation"),
        ("graph_1_cpp_fused_gelu_view_2", "elementwise"),
        ("graph_1_cpp_fused__unsafe_view_cat_view_1", "layout"),
        ("triton_poi_fused_gelu_0", "elementwise"),
        # The bias of a product, added apart from it.
        ("triton_poi_fused_addmm_3", "elementwise"),
        ("triton_per_fused_add_addcmul_native_layer_norm_1", "normalisation"),
        ("triton_poi_fused_clone_2", "layout"),
        ("triton_tem_fused_addmm_5", "matrix products"),
        ("triton_per_fused__softmax_4", "attention"),
    ],
)
def test_generated_kernels_are_named_by_what_they_fuse(name: str, group: str):
    assert group_of(name) == group


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_TNT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_cublas", "matrix products"),
        (
            "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_128x64_tn>()",
            "matrix products",
        ),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64>>()", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float>()", "normalisation"),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>()",
            "elementwise",
        ),
        ("void at::native::elementwise_kernel<128, 4, direct_copy_kernel_cuda(...)>()", "layout"),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<float>()", "layout"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>()", "layout"),
        ("Memcpy DtoD (Device -> Device)", "layout"),
    ],
)
def test_cuda_kernels(name: str, group: str):
    assert group_of(name) == group
    assert group_of(name, kernel=True) == group


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("nvjet_tst_128x64_64x8_2x1_v_bz_splitK_TNN", "matrix products"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, __nv_bfloat16>()", "matrix products"),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention)", "attention"),
        ("triton_tem_fused_addmm_gelu_7", "matrix products"),
        ("triton_red_fused_native_layer_norm_native_layer_norm_backward_5", "normalisation"),
        ("cuComputeGradInput", "elementwise"),
        # flopbench's own.
        ("linear_parts_kernel", "matrix products"),
        ("attention_kernel", "attention"),
        ("attention_query_gradient_kernel", "attention"),
        ("layer_norm_backward_kernel", "normalisation"),
        ("gelu_kernel", "elementwise"),
        ("whatever_it_is_called", "elementwise"),
    ],
)
def test_what_runs_on_a_gpu_is_never_the_hosts(name: str, group: str):
    assert group_of(name, kernel=True) == group


def test_within_a_norm_layer_all_but_products_normalises():
    assert group_of("aten::mul", within_norm=True) == "normalisation"
    assert group_of("aten::copy_", within_norm=True) == "normalisation"
    assert group_of("aten::mm", within_norm=True) == "matrix products"
    assert group_of("aten::view", within_norm=True) == "other"
