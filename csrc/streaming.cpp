// See streaming.h.
#include "streaming.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core.h"
#include "elementary.h"
#include "rows.h"
#include "simd.h"

namespace tercet {

namespace {

constexpr int64_t kMostStreams = 64;      // whose rows one product holds at a time
constexpr int64_t kWorthThreads = 65536;  // multiply-adds below which one thread is faster than waking others

int threads_for(int64_t work, int num_threads) { return work < kWorthThreads ? 1 : num_threads; }

// By the sum, as finite_frames in nn/block.py.
template <class T>
bool all_finite(const T* row, int64_t dim) {
  T total = 0;
  for (int64_t d = 0; d < dim; ++d) total += row[d];
  return total - total == 0;
}

// The rows of the streams that take part in a product.
template <class T>
struct Rows {
  const T* from[kMostStreams];
  T* to[kMostStreams];
  int64_t count = 0;

  void add(const T* input, T* output) {
    from[count] = input;
    to[count++] = output;
  }
};

// kStreams rows times kOutputs rows of weights.
template <int kOutputs, int kStreams, class T>
void multiply(StreamLinear<T> map, const Rows<T>& rows, int64_t stream, int64_t output, int64_t num_inputs) {
  using V = Lanes<T>;
  const T* weights = map.weight + output * num_inputs;
  V totals[kOutputs][kStreams] = {};
  each_vector<T>(num_inputs, [&](auto read, int64_t i) {
    V inputs[kStreams];
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) inputs[s] = read(rows.from[stream + s] + i);
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) {
      const V weight = read(weights + o * num_inputs + i);
#pragma GCC unroll 4
      for (int s = 0; s < kStreams; ++s) totals[o][s] = multiply_add<T>(weight, inputs[s], totals[o][s]);
    }
  });
  for (int o = 0; o < kOutputs; ++o) {
    const T bias = map.bias == nullptr ? T{0} : map.bias[output + o];
    for (int s = 0; s < kStreams; ++s) rows.to[stream + s][output + o] = sum<T>(totals[o][s]) + bias;
  }
}

template <int kOutputs, class T>
void multiply_streams(StreamLinear<T> map, const Rows<T>& rows, int64_t output, int64_t num_inputs) {
  int64_t stream = 0;
  if constexpr (kRegisters == 32) {
    for (; stream + 4 <= rows.count; stream += 4) multiply<kOutputs, 4>(map, rows, stream, output, num_inputs);
  }
  for (; stream + 2 <= rows.count; stream += 2) multiply<kOutputs, 2>(map, rows, stream, output, num_inputs);
  for (; stream < rows.count; ++stream) multiply<kOutputs, 1>(map, rows, stream, output, num_inputs);
}

// Each row's linear map; outputs are shared out among threads.
template <class T>
void apply(StreamLinear<T> map, const Rows<T>& rows, int64_t num_inputs, int64_t num_outputs, int num_threads) {
  if (rows.count == 0) return;
  constexpr int64_t kOutputs = 4;
  const int threads = threads_for(rows.count * num_inputs * num_outputs, num_threads);
  const int64_t share = (num_outputs + threads - 1) / threads;
  parallel_for(threads, threads, [&](int64_t task, int) {
    const int64_t end = std::min(num_outputs, (task + 1) * share);
    int64_t output = task * share;
    for (; output + kOutputs <= end; output += kOutputs) multiply_streams<kOutputs>(map, rows, output, num_inputs);
    for (; output < end; ++output) multiply_streams<1>(map, rows, output, num_inputs);
  });
}

template <class T>
void activate(T* values, int64_t count, Activation activation) {
  if (activation == Activation::kRelu) {
    for (int64_t i = 0; i < count; ++i) values[i] = values[i] < 0 ? T{0} : values[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) values[i] = gelu(values[i]);
  }
}

// One head of one stream: softmax attention to the kept frames in `slots`.
template <class T>
void attend(const T* query, const T* keys, const T* values, const int64_t* slots, int64_t num_slots, T* scores, T* out,
            int64_t head_dim, int64_t dim, T scale) {
  T highest = -std::numeric_limits<T>::infinity();
  for (int64_t i = 0; i < num_slots; ++i) {
    scores[i] = dot(query, keys + slots[i] * dim, head_dim) * scale;
    highest = std::max(highest, scores[i]);
  }
  T total = 0;
  for (int64_t i = 0; i < num_slots; ++i) {
    scores[i] = exponential(scores[i] - highest);
    total += scores[i];
  }
  std::fill(out, out + head_dim, T{0});
  for (int64_t i = 0; i < num_slots; ++i) {
    const T weight = scores[i] / total, *value = values + slots[i] * dim;
#pragma omp simd
    for (int64_t d = 0; d < head_dim; ++d) out[d] += weight * value[d];
  }
}

// Where the parts of a step's scratch lie, each [num_streams, ...].
template <class T>
struct Scratch {
  T *inputs, *projected, *mixed, *hidden, *scores;
  int64_t* slots;

  Scratch(T* space, const StreamSizes& sizes) {
    const int64_t streams = sizes.num_streams, dim = sizes.dim;
    slots = reinterpret_cast<int64_t*>(space);
    inputs = space + (sizeof(int64_t) / sizeof(T)) * sizes.window * streams;
    projected = inputs + streams * dim;
    mixed = projected + streams * 3 * dim;
    hidden = mixed + streams * dim;
    scores = hidden + streams * sizes.feed_forward_dim;
  }
};

// One block for one frame of every stream.
template <class T>
class BlockStep {
 public:
  BlockStep(const StreamBlock<T>& block, const StreamSizes& sizes, StreamState<T> state, T* frames, const T* acoustic,
            T* scratch, int num_threads)
      : block_(block),
        sizes_(sizes),
        state_(state),
        frames_(frames),
        acoustic_(acoustic),
        scratch_(scratch, sizes),
        num_threads_(num_threads) {}

  void attention(const uint8_t* finite, uint8_t* gates) {
    decide(block_.attention_norm, block_.attention_arbiter, finite, gates);
    project(finite, gates);
    mix(gates);
    Rows<T> rows;
    each_open(gates, [&](int64_t s) { rows.add(scratch_.mixed + s * sizes_.dim, scratch_.inputs + s * sizes_.dim); });
    apply(block_.output, rows, sizes_.dim, sizes_.dim, num_threads_);
    add(block_.attention_norm, gates);
  }

  void feed_forward(const uint8_t* finite, uint8_t* gates) {
    decide(block_.feed_forward_norm, block_.feed_forward_arbiter, finite, gates);
    const int64_t dim = sizes_.dim, hidden_dim = sizes_.feed_forward_dim;
    Rows<T> up, down;
    each_open(gates, [&](int64_t s) {
      up.add(scratch_.inputs + s * dim, scratch_.hidden + s * hidden_dim);
      down.add(scratch_.hidden + s * hidden_dim, scratch_.inputs + s * dim);
    });
    apply(block_.linear1, up, dim, hidden_dim, num_threads_);
    each_open(gates, [&](int64_t s) { activate(scratch_.hidden + s * hidden_dim, hidden_dim, sizes_.activation); });
    apply(block_.linear2, down, hidden_dim, dim, num_threads_);
    add(block_.feed_forward_norm, gates);
  }

 private:
  template <class Body>
  void each_open(const uint8_t* gates, const Body& body) {
    for (int64_t s = 0; s < sizes_.num_streams; ++s) {
      if (gates[s]) body(s);
    }
  }

  // The sub-block's inputs, and which streams it runs for.
  void decide(LayerNorm norm, StreamArbiter<T> arbiter, const uint8_t* finite, uint8_t* gates) {
    const int64_t dim = sizes_.dim;
    for (int64_t s = 0; s < sizes_.num_streams; ++s) {
      T* inputs = scratch_.inputs + s * dim;
      if (sizes_.norm_first) {
        normalise(frames_ + s * dim, norm, inputs, dim);
      } else {
        std::copy_n(frames_ + s * dim, dim, inputs);
      }
      T logit = *arbiter.bias;
      if (arbiter.own != nullptr) logit += dot(inputs, arbiter.own, dim);
      if (arbiter.acoustic != nullptr) {
        logit += dot(acoustic_ + s * sizes_.acoustic_dim, arbiter.acoustic, sizes_.acoustic_dim);
      }
      gates[s] = finite[s] && logit > *arbiter.threshold && logit - logit == 0;
    }
  }

  // Queries of open streams; keys and values of those, or of all, go to their slots.
  void project(const uint8_t* finite, const uint8_t* gates) {
    const int64_t dim = sizes_.dim;
    Rows<T> queries, others;
    for (int64_t s = 0; s < sizes_.num_streams; ++s) {
      const T* inputs = scratch_.inputs + s * dim;
      T* projected = scratch_.projected + s * 3 * dim;
      if (gates[s]) queries.add(inputs, projected);
      if (sizes_.all_keys ? finite[s] : gates[s]) others.add(inputs, projected + dim);
    }
    if (sizes_.all_keys) {
      const T* bias = block_.projection.bias;
      apply(block_.projection, queries, dim, dim, num_threads_);
      apply({block_.projection.weight + dim * dim, bias == nullptr ? nullptr : bias + dim}, others, dim, 2 * dim,
            num_threads_);
    } else {
      apply(block_.projection, queries, dim, 3 * dim, num_threads_);
    }
    for (int64_t s = 0; s < sizes_.num_streams; ++s) {
      if (!(sizes_.all_keys ? finite[s] : gates[s])) continue;
      const int64_t frame = state_.positions[s], slot = s * sizes_.window + frame % sizes_.window;
      const T* keys = scratch_.projected + s * 3 * dim + dim;
      std::copy_n(keys, dim, state_.keys + slot * dim);
      std::copy_n(keys + dim, dim, state_.values + slot * dim);
      state_.frames[slot] = frame;
    }
  }

  void mix(const uint8_t* gates) {
    const int64_t dim = sizes_.dim, window = sizes_.window, head_dim = dim / sizes_.num_heads;
    const T scale = static_cast<T>(1 / std::sqrt(static_cast<double>(head_dim)));
    each_open(gates, [&](int64_t s) {
      int64_t *slots = scratch_.slots + s * window, num_slots = 0;
      const int64_t frame = state_.positions[s];
      for (int64_t f = std::max<int64_t>(0, frame - window + 1); f <= frame; ++f) {
        if (state_.frames[s * window + f % window] == f) slots[num_slots++] = f % window;
      }
      const int threads = threads_for(2 * num_slots * dim, num_threads_);
      parallel_for(sizes_.num_heads, threads, [&](int64_t head, int) {
        const int64_t at = s * window * dim + head * head_dim;
        attend(scratch_.projected + s * 3 * dim + head * head_dim, state_.keys + at, state_.values + at, slots,
               num_slots, scratch_.scores + (s * sizes_.num_heads + head) * window,
               scratch_.mixed + s * dim + head * head_dim, head_dim, dim, scale);
      });
    });
  }

  // The residual: what was computed lies in the scratch's inputs.
  void add(LayerNorm norm, const uint8_t* gates) {
    const int64_t dim = sizes_.dim;
    each_open(gates, [&](int64_t s) {
      T *frame = frames_ + s * dim, *update = scratch_.inputs + s * dim;
      for (int64_t d = 0; d < dim; ++d) update[d] += frame[d];
      if (sizes_.norm_first) {
        std::copy_n(update, dim, frame);
      } else {
        normalise(update, norm, frame, dim);
      }
    });
  }

  const StreamBlock<T>& block_;
  const StreamSizes& sizes_;
  StreamState<T> state_;  // of this block
  T* frames_;
  const T* acoustic_;
  Scratch<T> scratch_;
  int num_threads_;
};

}  // namespace

int64_t stream_scratch(const StreamSizes& sizes) {
  const int64_t per_stream = 2 * sizes.window + 5 * sizes.dim + sizes.feed_forward_dim + sizes.num_heads * sizes.window;
  return sizes.num_streams * per_stream;
}

template <class T>
void stream_step(const StreamBlock<T>* blocks, const StreamSizes& sizes, StreamState<T> state, T* frames,
                 const T* acoustic, uint8_t* gates, T* scratch, int num_threads) {
  uint8_t finite[kMostStreams];
  const int64_t streams = sizes.num_streams, slots = streams * sizes.window;
  for (int64_t i = 0; i < sizes.num_blocks; ++i) {
    const StreamState<T> own{state.keys + i * slots * sizes.dim, state.values + i * slots * sizes.dim,
                             state.frames + i * slots, state.positions};
    for (int64_t s = 0; s < streams; ++s) finite[s] = all_finite(frames + s * sizes.dim, sizes.dim);
    BlockStep<T> step(blocks[i], sizes, own, frames, acoustic, scratch, num_threads);
    step.attention(finite, gates + 2 * i * streams);
    step.feed_forward(finite, gates + (2 * i + 1) * streams);
  }
  for (int64_t s = 0; s < streams; ++s) ++state.positions[s];
}

template void stream_step(const StreamBlock<float>*, const StreamSizes&, StreamState<float>, float*, const float*,
                          uint8_t*, float*, int);
template void stream_step(const StreamBlock<double>*, const StreamSizes&, StreamState<double>, double*, const double*,
                          uint8_t*, double*, int);

}  // namespace tercet
