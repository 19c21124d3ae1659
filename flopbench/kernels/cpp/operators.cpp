// The operators: tensors in, tensors out. What they compute is in the kernels' own files, each a library that is loaded
// when a function of it is first needed.
//
// They are here, and not in Python, for what lies between two kernels: there, ViT-S at batch 8 spent 0.16 ms, and its
// equivariant version 0.3 ms, 60 times in one forward pass. Python's code has left the caches by then, and where its
// stack of frames passes from one piece of memory to the next, calls of functions map that piece anew.

#include "checks.h"
#include "kernel.h"
#include "signatures.h"

#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

namespace {

using Tensors = std::vector<Tensor>;

auto linear = KERNEL(linear, linear_parts);
auto linear_weights = KERNEL(weight_gradient, linear_weight_gradient);
auto gelu = KERNEL(gelu, gelu_parts);
auto gelu_backward = KERNEL(gelu, gelu_parts_backward);
auto layer_norm = KERNEL(layer_norm, layer_norm_rows);
auto attention = KERNEL(attention, attention_parts);
auto attention_backward = KERNEL(attention, attention_parts_backward);
auto depthwise_weights = KERNEL(depthwise, depthwise_weight_gradient);

Tensors dense(TensorList tensors) {
  Tensors result;
  for (const Tensor& x : tensors) result.push_back(x.contiguous());
  return result;
}

Tensors like(TensorList tensors) {
  Tensors result;
  for (const Tensor& x : tensors) result.push_back(at::empty(x.sizes(), x.options()));
  return result;
}

// As `tensors`, with so many channels each.
Tensors like(TensorList tensors, IntArrayRef channels) {
  Tensors result;
  for (size_t n = 0; n < tensors.size(); ++n)
    result.push_back(at::empty(with_channels(tensors[n], channels[n]), tensors[n].options()));
  return result;
}

Tensors joined(std::initializer_list<TensorList> lists) {
  Tensors result;
  for (const TensorList& tensors : lists) result.insert(result.end(), tensors.begin(), tensors.end());
  return result;
}

std::vector<int64_t> channels_of(TensorList tensors) {
  std::vector<int64_t> result;
  for (const Tensor& x : tensors) result.push_back(channels(x));
  return result;
}

Tensors picked(TensorList tensors, IntArrayRef indices) {
  Tensors result;
  for (const int64_t n : indices) result.push_back(tensors[n]);
  return result;
}

// For each part its bias, undefined for one without.
Tensors of_parts(int64_t parts, TensorList biases, IntArrayRef biased) {
  Tensors result(parts);
  for (size_t b = 0; b < biases.size(); ++b) result[biased[b]] = biases[b];
  return result;
}

// All of every part; those with one weight side by side.
std::vector<Slice> by_weight(IntArrayRef channels, IntArrayRef of) {
  std::vector<Slice> result;
  for (size_t p = 0; p < of.size(); ++p) result.push_back({int64_t(p), 0, channels[p], 1});
  std::stable_sort(result.begin(), result.end(), [&](Slice a, Slice b) { return of[a.part] < of[b.part]; });
  return result;
}

void multiply(const std::vector<Slice>& slices, const Tensors& x, const Tensors& weight, const Tensors& bias,
              const Tensors& y, bool transposed, bool gelu) {
  linear(x[0], slices.size(), slices, rows(x[0]), transposed, gelu, channels_of(x), channels_of(y),
         at::get_num_threads(), x, weight, bias, y);
}

Tensors linear_parts(TensorList x, TensorList weight, IntArrayRef of, TensorList bias, IntArrayRef biased,
                     IntArrayRef slices, IntArrayRef order, IntArrayRef signs) {
  check_tensors({x, weight, bias});
  check_linear(x, weight, of, biased);
  check_number("biases", bias.size(), biased.size());
  std::vector<int64_t> out;
  for (const int64_t w : of) out.push_back(weight[w].size(0));
  for (size_t b = 0; b < bias.size(); ++b) check_shape("biases", bias[b], {out[biased[b]]});
  const Transform transform{slices, order, signs};
  const bool gelu = !order.empty();
  if (gelu) transform.check(x.size());
  const auto all = gelu ? transform.points(out) : by_weight(out, of);
  TORCH_CHECK(all[0].width % CHANNELS == 0, "points of a multiple of ", CHANNELS, " channels, got ", all[0].width);
  const Tensors parts = dense(x), weights = picked(dense(weight), of), biases = dense(bias), y = like(parts, out);
  multiply(all, parts, weights, of_parts(count(parts), biases, biased), y, false, gelu);
  return y;
}

Tensors linear_parts_backward(TensorList grads, TensorList x, TensorList weight, IntArrayRef of, IntArrayRef biased,
                              bool features) {
  check_tensors({x, grads, weight});
  check_linear(x, weight, of, biased);
  const auto in = channels_of(x);
  std::vector<int64_t> out;
  check_number("gradients", grads.size(), x.size());
  for (size_t p = 0; p < x.size(); ++p) {
    out.push_back(weight[of[p]].size(0));
    check_shape("gradients", grads[p], with_channels(x[p], out[p]));
    TORCH_CHECK(in[p] % CHANNELS == 0, "a multiple of ", CHANNELS, " channels in, for gradients, got ", in[p]);
  }
  const Tensors g = dense(grads), parts = dense(x), weights = dense(weight), grad_weight = like(weights);
  Tensors grad_bias, grad_x;
  for (const int64_t p : biased) grad_bias.push_back(at::empty({out[p]}, g[p].options()));
  if (features) {
    grad_x = like(g, in);
    multiply(by_weight(in, of), g, picked(weights, of), Tensors(g.size()), grad_x, true, false);
  }
  const Tensors result = joined({grad_x, grad_weight, grad_bias});
  if (rows(parts[0]) > 0)
    linear_weights(g[0], count(parts), count(weights), rows(parts[0]), of, in, out, at::get_num_threads(), g, parts,
                   grad_weight, of_parts(count(g), grad_bias, biased));
  else
    for (const Tensor& sum : result) sum.zero_();
  return result;
}

std::vector<Slice> points(TensorList x, const Transform& transform) {
  transform.check(x.size());
  check_rows("parts", x);
  return transform.points(channels_of(x));
}

Tensors gelu_parts(TensorList x, IntArrayRef slices, IntArrayRef order, IntArrayRef signs) {
  check_tensors({x});
  const auto all = points(x, {slices, order, signs});
  const Tensors parts = dense(x), y = like(parts);
  gelu(parts[0], all.size(), all, rows(parts[0]), channels_of(parts), at::get_num_threads(), parts, y);
  return y;
}

Tensors gelu_parts_backward(TensorList x, TensorList grads, IntArrayRef slices, IntArrayRef order, IntArrayRef signs) {
  check_tensors({x, grads});
  const auto all = points(x, {slices, order, signs});
  check_like("gradients", grads, x);
  const Tensors parts = dense(x), g = dense(grads), y = like(parts);
  gelu_backward(parts[0], all.size(), all, rows(parts[0]), channels_of(parts), at::get_num_threads(), parts, g, y);
  return y;
}

Tensors layer_norm_rows(TensorList x, TensorList branch, TensorList gamma, TensorList affine, IntArrayRef dimensions,
                         double eps) {
  check_tensors({x, branch, gamma, affine});
  const auto irreps = irreps_of(dimensions);
  check_layer_norm(x, branch, gamma, affine, dimensions, irreps);
  const Tensors parts = dense(x), more = dense(branch), scales = dense(gamma), gains = dense(affine);
  const Tensors y = like(parts), sums = branch.empty() ? Tensors() : like(parts);
  layer_norm(parts[0], count(parts), rows(parts[0]), channels_of(parts), irreps, dimensions, eps, !sums.empty(),
             !scales.empty(), at::get_num_threads(), parts, more, scales, gains, gains.back(), sums, y);
  return joined({sums, y});
}

std::vector<int64_t> widths(const Tensors& qkv, int64_t heads) {
  std::vector<int64_t> result;
  for (const Tensor& x : qkv) result.push_back(channels(x) / 3 / heads);
  return result;
}

Tensors attention_parts(TensorList qkv, int64_t heads) {
  check_tensors({qkv});
  check_attention(qkv, heads);
  const Tensors parts = dense(qkv);
  const int64_t batch = parts[0].size(0), tokens = parts[0].size(1);
  Tensors mixed;
  for (const Tensor& x : parts) mixed.push_back(at::empty({batch, tokens, channels(x) / 3}, x.options()));
  const Tensor normaliser = at::empty({batch, heads, tokens}, parts[0].options());
  if (tokens > 0)
    attention(parts[0], count(parts), batch, tokens, heads, widths(parts, heads), at::get_num_threads(), parts, mixed,
              normaliser);
  mixed.push_back(normaliser);
  return mixed;
}

Tensors attention_parts_backward(TensorList grads, TensorList qkv, TensorList mixed, const Tensor& normaliser,
                                 int64_t heads) {
  check_tensors({qkv, grads, mixed, normaliser});
  check_attention_gradient(grads, qkv, mixed, normaliser, heads);
  const int64_t batch = qkv[0].size(0), tokens = qkv[0].size(1);
  const Tensors g = dense(grads), parts = dense(qkv), m = dense(mixed), y = like(parts);
  if (tokens > 0)
    attention_backward(parts[0], count(parts), batch, tokens, heads, widths(parts, heads), at::get_num_threads(), g,
                       parts, m, normaliser.contiguous(), y);
  return y;
}

Tensor depthwise_weight_gradient(const Tensor& x, const Tensor& grad, int64_t size) {
  check_tensors({x, grad});
  TORCH_CHECK(x.dim() == 4, "features [batch, rows, columns, channels], got ", x.sizes());
  check_shape("gradients", grad, x.sizes());
  TORCH_CHECK(size > 0 && size % 2 == 1, "an odd size of the kernel, got ", size);
  const Tensor input = x.contiguous(), g = grad.contiguous();
  const Tensor weight = at::empty({x.size(3), 1, size, size}, x.options());
  depthwise_weights(x, x.size(0), x.size(1), x.size(2), x.size(3), size, at::get_num_threads(), input, g, weight);
  return weight;
}

// Gradients, in operators again, which a compiler sees when it traces them.

using torch::autograd::AutogradContext;
using torch::autograd::Function;

template <typename Signature>
auto named(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Call what lies below the gradients.
template <typename Operator, typename... Arguments>
auto below(const Operator& op, const Arguments&... arguments) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(arguments...);
}

bool differentiated(std::initializer_list<TensorList> lists) {
  if (at::GradMode::is_enabled())
    for (const TensorList& tensors : lists)
      for (const Tensor& x : tensors)
        if (x.requires_grad()) return true;
  return false;
}

// Of a weight whose gradient is computed here, 4 MiB in fp32, and of one whose features' gradient is too, 1 MiB. On an
// Intel Xeon, for the first product of an MLP (tests/benchmarks/test_kernels.py, the quietest of three runs), gradients
// of weights are 1.05 times as fast as MKL's for ViT-S and 1.06 times for halves of ViT-B, 1.00 times for ViT-B; with
// the features', 1.14 times for halves of ViT-S, but in networks of larger weights nothing is left of what these gain.
constexpr int64_t MOST_ELEMENTS = 1 << 20, MOST_FOR_FEATURES = 1 << 18;

struct LinearGradient : Function<LinearGradient> {
  static auto op() {
    using Signature = Tensors(TensorList, TensorList, IntArrayRef, TensorList, IntArrayRef, IntArrayRef, IntArrayRef,
                              IntArrayRef);
    static const auto op = named<Signature>("flopbench::linear_parts");
    return op;
  }
  static Tensors forward(AutogradContext* context, TensorList x, TensorList weight, IntArrayRef of, TensorList bias,
                         IntArrayRef biased) {
    check_linear_numbers(x, weight, of, biased);
    context->save_for_backward(joined({x, weight}));
    context->saved_data["of"] = of.vec();
    context->saved_data["biased"] = biased.vec();
    return below(op(), x, weight, of, bias, biased, IntArrayRef(), IntArrayRef(), IntArrayRef());
  }
  static Tensors backward(AutogradContext* context, Tensors grads) {
    const Tensors saved = context->get_saved_variables();
    const std::vector<int64_t> of = context->saved_data["of"].toIntVector();
    const std::vector<int64_t> biased = context->saved_data["biased"].toIntVector();
    const TensorList all = saved, x = all.slice(0, of.size()), weight = all.slice(of.size());
    const auto up_to = [&](int64_t most) {
      for (const Tensor& w : weight)
        // The sizes may be a compiler's symbols.
        if (!w.sym_numel().sym_le(most).guard_bool(__FILE__, __LINE__)) return false;
      return true;
    };
    const bool features = up_to(MOST_FOR_FEATURES), weights = up_to(MOST_ELEMENTS);
    const Tensors computed =
        joined({features ? Tensors() : of_features(grads, weight, of),
                weights ? fused(grads, x, weight, of, biased, features) : of_weights(grads, x, weight, of, biased)});
    // Undefined are those of what is no tensor, in the places of the arguments.
    const TensorList result = computed;
    const size_t inputs = x.size() + weight.size();
    return joined({result.slice(0, inputs), Tensors(1), result.slice(inputs), Tensors(1)});
  }
  static Tensors fused(TensorList grads, TensorList x, TensorList weight, IntArrayRef of, IntArrayRef biased,
                       bool features) {
    using Signature = Tensors(TensorList, TensorList, TensorList, IntArrayRef, IntArrayRef, bool);
    static const auto op = named<Signature>("flopbench::linear_parts_backward");
    return op.call(grads, x, weight, of, biased, features);
  }
  static Tensors of_features(TensorList grads, TensorList weight, IntArrayRef of) {
    Tensors result;
    for (size_t p = 0; p < grads.size(); ++p) result.push_back(grads[p].matmul(weight[of[p]]));
    return result;
  }
  static Tensors of_weights(TensorList grads, TensorList x, TensorList weight, IntArrayRef of, IntArrayRef biased) {
    Tensors result(weight.size());
    for (size_t p = 0; p < x.size(); ++p) {
      Tensor& sum = result[of[p]];
      const Tensor product = grads[p].flatten(0, -2).t().mm(x[p].flatten(0, -2));
      sum = sum.defined() ? sum + product : product;
    }
    for (const int64_t p : biased) result.push_back(grads[p].flatten(0, -2).sum(0));
    return result;
  }
};

Tensors linear_parts_differentiable(TensorList x, TensorList weight, IntArrayRef of, TensorList bias,
                                    IntArrayRef biased, IntArrayRef slices, IntArrayRef order, IntArrayRef signs) {
  if (!differentiated({x, weight, bias}))
    return below(LinearGradient::op(), x, weight, of, bias, biased, slices, order, signs);
  TORCH_CHECK(order.empty(), "linear_parts has no gradient with the GELU");
  return LinearGradient::apply(x, weight, of, bias, biased);
}

struct GeluGradient : Function<GeluGradient> {
  static auto op() {
    static const auto op =
        named<Tensors(TensorList, IntArrayRef, IntArrayRef, IntArrayRef)>("flopbench::gelu_parts");
    return op;
  }
  static Tensors forward(AutogradContext* context, TensorList x, IntArrayRef slices, IntArrayRef order,
                         IntArrayRef signs) {
    context->save_for_backward(x.vec());
    context->saved_data["slices"] = slices.vec();
    context->saved_data["order"] = order.vec();
    context->saved_data["signs"] = signs.vec();
    return below(op(), x, slices, order, signs);
  }
  static Tensors backward(AutogradContext* context, Tensors grads) {
    using Signature = Tensors(TensorList, TensorList, IntArrayRef, IntArrayRef, IntArrayRef);
    static const auto op = named<Signature>("flopbench::gelu_parts_backward");
    const auto saved = [&](const char* name) { return context->saved_data[name].toIntVector(); };
    Tensors result = op.call(context->get_saved_variables(), grads, saved("slices"), saved("order"), saved("signs"));
    result.resize(result.size() + 3);  // Of what is no tensor.
    return result;
  }
};

Tensors gelu_parts_differentiable(TensorList x, IntArrayRef slices, IntArrayRef order, IntArrayRef signs) {
  return differentiated({x}) ? GeluGradient::apply(x, slices, order, signs)
                             : below(GeluGradient::op(), x, slices, order, signs);
}

struct AttentionGradient : Function<AttentionGradient> {
  static auto op() {
    static const auto op = named<Tensors(TensorList, int64_t)>("flopbench::attention_parts");
    return op;
  }
  static Tensors forward(AutogradContext* context, TensorList qkv, int64_t heads) {
    const Tensors result = below(op(), qkv, heads);
    context->save_for_backward(joined({qkv, result}));
    context->saved_data["heads"] = heads;
    context->mark_non_differentiable({result.back()});
    return result;
  }
  static Tensors backward(AutogradContext* context, Tensors grads) {
    using Signature = Tensors(TensorList, TensorList, TensorList, const Tensor&, int64_t);
    static const auto op = named<Signature>("flopbench::attention_parts_backward");
    const Tensors saved = context->get_saved_variables();
    const size_t parts = grads.size() - 1;
    const TensorList all = saved;
    Tensors result = op.call(TensorList(grads).slice(0, parts), all.slice(0, parts), all.slice(parts, parts),
                             saved.back(), context->saved_data["heads"].toInt());
    result.emplace_back();  // Of what is no tensor.
    return result;
  }
};

Tensors attention_parts_differentiable(TensorList qkv, int64_t heads) {
  return differentiated({qkv}) ? AttentionGradient::apply(qkv, heads) : below(AttentionGradient::op(), qkv, heads);
}

TORCH_LIBRARY_IMPL(flopbench, CPU, library) {
  library.impl("linear_parts", &linear_parts);
  library.impl("linear_parts_backward", &linear_parts_backward);
  library.impl("gelu_parts", &gelu_parts);
  library.impl("gelu_parts_backward", &gelu_parts_backward);
  library.impl("layer_norm_rows", &layer_norm_rows);
  library.impl("attention_parts", &attention_parts);
  library.impl("attention_parts_backward", &attention_parts_backward);
  library.impl("depthwise_weight_gradient", &depthwise_weight_gradient);
}

TORCH_LIBRARY_IMPL(flopbench, Autograd, library) {
  library.impl("linear_parts", &linear_parts_differentiable);
  library.impl("gelu_parts", &gelu_parts_differentiable);
  library.impl("attention_parts", &attention_parts_differentiable);
}

}  // namespace

extern "C" void find_kernels_by(Find function) { find = function; }

// Let glibc keep what is freed, up to 64 MiB. What lies free at the heap's end it gives back to the system beyond twice
// the largest block, of up to 32 MiB, that it had a mapping for and was freed. A feature in parts has no large blocks, and
// every forward pass would fault its pages in anew, while the baseline keeps its own. This block is never touched.
extern "C" void keep_freed_memory() { c10::GetCPUAllocator()->allocate((32 << 20) - (64 << 10)); }

extern "C" void forget_kernels() {
  for (Symbol* symbol : Symbol::all()) symbol->forget();
}
