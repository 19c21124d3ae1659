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
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace {

using Tensors = std::vector<Tensor>;

auto linear = KERNEL(linear, linear_parts);
auto linear_weights = KERNEL(weight_gradient, linear_weight_gradient);
auto gelu = KERNEL(gelu, gelu_parts);
auto gelu_backward = KERNEL(gelu, gelu_parts_backward);
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

// As `tensors`, with so many channels.
Tensors like(TensorList tensors, int64_t channels) {
  Tensors result;
  for (const Tensor& x : tensors) result.push_back(at::empty(with_channels(x, channels), x.options()));
  return result;
}

Tensors joined(std::initializer_list<TensorList> lists) {
  Tensors result;
  for (const TensorList& tensors : lists) result.insert(result.end(), tensors.begin(), tensors.end());
  return result;
}

int64_t channels(const Tensor& x) { return x.size(-1); }
int64_t rows(const Tensor& x) { return x.numel() / channels(x); }
int64_t count(TensorList tensors) { return tensors.size(); }

// How many there are, which is known where a compiler traces sizes as symbols too.
void check_linear_numbers(TensorList x, TensorList weight, IntArrayRef biased) {
  const int64_t parts = count(x), weights = count(weight);
  TORCH_CHECK(parts > 0 && weights > 0 && parts % weights == 0,
              "a weight for each part or for every so many, got ", weights, " for ", parts);
  std::vector<bool> seen(parts);
  for (const int64_t p : biased) {
    TORCH_CHECK(0 <= p && p < parts && !seen[p], "biases of different parts of ", parts, ", got ", biased);
    seen[p] = true;
  }
}

void check_linear(TensorList x, TensorList weight, IntArrayRef biased) {
  check_linear_numbers(x, weight, biased);
  TORCH_CHECK(weight[0].dim() == 2 && x[0].dim() > 0, "weights [out, in] and parts [..., in], got ",
              weight[0].sizes(), " and ", x[0].sizes());
  const int64_t out = weight[0].size(0), in = weight[0].size(1);
  TORCH_CHECK(out > 0 && in > 0 && out % CHANNELS == 0, "a multiple of ", CHANNELS, " channels out of some, got ", out,
              " out of ", in);
  check_shapes("weights", weight, weight.size(), {out, in});
  check_shapes("parts", x, x.size(), with_channels(x[0], in));
}

// For each part its bias, undefined for one without.
Tensors of_parts(int64_t parts, TensorList biases, IntArrayRef biased) {
  Tensors result(parts);
  for (size_t b = 0; b < biases.size(); ++b) result[biased[b]] = biases[b];
  return result;
}

void multiply(const Tensors& x, const Tensors& weight, const Tensors& bias, const Tensors& y, bool transposed,
              bool gelu) {
  Tensors weights;
  for (size_t p = 0; p < x.size(); ++p) weights.push_back(weight[p * weight.size() / x.size()]);
  linear(x[0], count(x), rows(x[0]), channels(y[0]), channels(x[0]), transposed, gelu, at::get_num_threads(), x,
         weights, bias, y);
}

Tensors linear_parts(TensorList x, TensorList weight, TensorList bias, IntArrayRef biased, bool gelu) {
  check_tensors({x, weight, bias});
  check_linear(x, weight, biased);
  check_shapes("biases", bias, biased.size(), {weight[0].size(0)});
  if (gelu) check_mirrored(x.size());
  const Tensors parts = dense(x), weights = dense(weight), biases = dense(bias);
  const Tensors y = like(parts, weights[0].size(0));
  multiply(parts, weights, of_parts(count(parts), biases, biased), y, false, gelu);
  return y;
}

Tensors linear_parts_backward(TensorList grads, TensorList x, TensorList weight, IntArrayRef biased, bool features) {
  check_tensors({x, grads, weight});
  check_linear(x, weight, biased);
  const int64_t out = weight[0].size(0), in = weight[0].size(1);
  check_shapes("gradients", grads, x.size(), with_channels(x[0], out));
  TORCH_CHECK(in % CHANNELS == 0, "a multiple of ", CHANNELS, " channels in, for gradients, got ", in);
  const Tensors g = dense(grads), parts = dense(x), weights = dense(weight), grad_weight = like(weights);
  Tensors grad_bias, grad_x;
  for (size_t b = 0; b < biased.size(); ++b) grad_bias.push_back(at::empty({out}, g[0].options()));
  if (features) {
    grad_x = like(g, in);
    multiply(g, weights, Tensors(g.size()), grad_x, true, false);
  }
  const Tensors result = joined({grad_x, grad_weight, grad_bias});
  if (rows(parts[0]) > 0)
    linear_weights(g[0], count(parts), count(weights), rows(parts[0]), out, in, at::get_num_threads(), g, parts,
                   grad_weight, of_parts(count(g), grad_bias, biased));
  else
    for (const Tensor& sum : result) sum.zero_();
  return result;
}

Tensors gelu_parts(TensorList x) {
  check_tensors({x});
  check_mirrored(x.size());
  check_shapes("parts", x, x.size(), x[0].sizes());
  const Tensors parts = dense(x), y = like(parts);
  gelu(parts[0], count(parts), parts[0].numel(), at::get_num_threads(), parts, y);
  return y;
}

Tensors gelu_parts_backward(TensorList x, TensorList grads) {
  check_tensors({x, grads});
  check_mirrored(x.size());
  check_shapes("parts", x, x.size(), x[0].sizes());
  check_shapes("gradients", grads, x.size(), x[0].sizes());
  const Tensors parts = dense(x), g = dense(grads), y = like(parts);
  gelu_backward(parts[0], count(parts), parts[0].numel(), at::get_num_threads(), parts, g, y);
  return y;
}

void check_attention(TensorList qkv, int64_t heads) {
  TORCH_CHECK(heads > 0, "at least one head, got ", heads);
  TORCH_CHECK(qkv[0].dim() == 3, "parts [batch, tokens, channels], got ", qkv[0].sizes());
  for (const Tensor& x : qkv) {
    check_shape("parts", x, with_channels(qkv[0], channels(x)));
    const int64_t width = channels(x) / 3;
    TORCH_CHECK(width > 0 && channels(x) % 3 == 0 && width % heads == 0, "q, k and v of ", heads,
                " heads side by side, got ", channels(x), " channels");
  }
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
  check_attention(qkv, heads);
  const int64_t batch = qkv[0].size(0), tokens = qkv[0].size(1);
  check_shape("the normaliser", normaliser, {batch, heads, tokens});
  check_number("gradients", grads.size(), qkv.size());
  check_number("mixed parts", mixed.size(), qkv.size());
  for (size_t p = 0; p < qkv.size(); ++p) {
    const auto shape = with_channels(qkv[p], channels(qkv[p]) / 3);
    check_shape("gradients", grads[p], shape);
    check_shape("mixed parts", mixed[p], shape);
  }
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
    using Signature = Tensors(TensorList, TensorList, TensorList, IntArrayRef, bool);
    static const auto op = named<Signature>("flopbench::linear_parts");
    return op;
  }
  static Tensors forward(AutogradContext* context, TensorList x, TensorList weight, TensorList bias, IntArrayRef biased,
                         bool gelu) {
    TORCH_CHECK(!gelu, "linear_parts has no gradient with the GELU");
    check_linear_numbers(x, weight, biased);
    context->save_for_backward(joined({x, weight}));
    context->saved_data["parts"] = count(x);
    context->saved_data["biased"] = biased.vec();
    return below(op(), x, weight, bias, biased, gelu);
  }
  static Tensors backward(AutogradContext* context, Tensors grads) {
    const Tensors saved = context->get_saved_variables();
    const int64_t parts = context->saved_data["parts"].toInt();
    const TensorList all = saved, x = all.slice(0, parts), weight = all.slice(parts);
    // The sizes may be a compiler's symbols.
    const auto up_to = [&](int64_t most) {
      return weight[0].sym_numel().sym_le(most).guard_bool(__FILE__, __LINE__);
    };
    const bool features = up_to(MOST_FOR_FEATURES), weights = up_to(MOST_ELEMENTS);
    const std::vector<int64_t> biased = context->saved_data["biased"].toIntVector();
    Tensors result =
        joined({features ? Tensors() : of_features(grads, weight),
                weights ? fused(grads, x, weight, biased, features) : of_weights(grads, x, weight, biased)});
    result.resize(result.size() + 2);  // Of what is no tensor.
    return result;
  }
  static Tensors fused(TensorList grads, TensorList x, TensorList weight, IntArrayRef biased, bool features) {
    using Signature = Tensors(TensorList, TensorList, TensorList, IntArrayRef, bool);
    static const auto op = named<Signature>("flopbench::linear_parts_backward");
    return op.call(grads, x, weight, biased, features);
  }
  static Tensors of_features(TensorList grads, TensorList weight) {
    Tensors result;
    for (size_t p = 0; p < grads.size(); ++p)
      result.push_back(grads[p].matmul(weight[p * weight.size() / grads.size()]));
    return result;
  }
  static Tensors of_weights(TensorList grads, TensorList x, TensorList weight, IntArrayRef biased) {
    Tensors result(weight.size());
    for (size_t p = 0; p < x.size(); ++p) {
      Tensor& sum = result[p * weight.size() / x.size()];
      const Tensor product = grads[p].flatten(0, -2).t().mm(x[p].flatten(0, -2));
      sum = sum.defined() ? sum + product : product;
    }
    for (const int64_t p : biased) result.push_back(grads[p].flatten(0, -2).sum(0));
    return result;
  }
};

Tensors linear_parts_differentiable(TensorList x, TensorList weight, TensorList bias, IntArrayRef biased, bool gelu) {
  if (differentiated({x, weight, bias})) return LinearGradient::apply(x, weight, bias, biased, gelu);
  return below(LinearGradient::op(), x, weight, bias, biased, gelu);
}

struct GeluGradient : Function<GeluGradient> {
  static auto op() {
    static const auto op = named<Tensors(TensorList)>("flopbench::gelu_parts");
    return op;
  }
  static Tensors forward(AutogradContext* context, TensorList x) {
    context->save_for_backward(x.vec());
    return below(op(), x);
  }
  static Tensors backward(AutogradContext* context, Tensors grads) {
    static const auto op = named<Tensors(TensorList, TensorList)>("flopbench::gelu_parts_backward");
    return op.call(context->get_saved_variables(), grads);
  }
};

Tensors gelu_parts_differentiable(TensorList x) {
  return differentiated({x}) ? GeluGradient::apply(x) : below(GeluGradient::op(), x);
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

extern "C" void forget_kernels() {
  for (Symbol* symbol : Symbol::all()) symbol->forget();
}
