// A stack of gated blocks, one frame of each stream at a time: matrix-vector products that a closed gate leaves out.
//
// For every block: logit = <arbiter, normalised(x)> (+ <acoustic part, acoustic>) + bias; where it lies above its
// threshold, x += output(attention(projection(normalised(x)))) over the kept frames t - left .. t of the stream, and x
// += linear2(activation(linear1(normalised(x)))) likewise (norm_first; else x = norm(x + ...) and arbitrators read x).
// A block leaves a stream's frame as it is where its values are not all finite, and where an arbitrator's logit is not.
// At most 64 streams.
//
// Costs the weights' bytes, read once for all streams whose gate is open. Every number is summed in an order that
// depends on its own stream alone: not on threads, nor on the other streams.
#pragma once

#include <cstdint>

#include "gating.h"

namespace tercet {

enum class Activation { kRelu, kGelu };

template <class T>
struct StreamLinear {
  const T* weight;  // [outputs, inputs]
  const T* bias;    // [outputs] or null
};

template <class T>
struct StreamArbiter {
  const T* own;        // [dim] or null: does not read the block's input
  const T* acoustic;   // [acoustic_dim] or null
  const T* bias;       // [1]
  const T* threshold;  // [1]
};

template <class T>
struct StreamBlock {
  LayerNorm attention_norm, feed_forward_norm;
  StreamArbiter<T> attention_arbiter, feed_forward_arbiter;
  StreamLinear<T> projection;  // [3 dim, dim]: queries, keys, values
  StreamLinear<T> output;      // [dim, dim]
  StreamLinear<T> linear1;     // [feed_forward_dim, dim]
  StreamLinear<T> linear2;     // [dim, feed_forward_dim]
};

struct StreamSizes {
  int64_t num_blocks, num_streams, dim, num_heads, feed_forward_dim, acoustic_dim;
  int64_t window;  // frames that a query sees, its own included: the last `window` frames have a slot each
  bool norm_first, all_keys;
  Activation activation;
};

// Frame f of a stream lies in slot f % window; `frames` says which frame a slot holds, so one that was off is not
// there.
template <class T>
struct StreamState {
  T* keys;             // [num_blocks, num_streams, window, dim]
  T* values;           // the same
  int64_t* frames;     // [num_blocks, num_streams, window]
  int64_t* positions;  // [num_streams]: frames seen so far; counted on
};

// Values of scratch for one step.
int64_t stream_scratch(const StreamSizes& sizes);

template <class T>
void stream_step(const StreamBlock<T>* blocks,  // [num_blocks]
                 const StreamSizes& sizes, StreamState<T> state,
                 T* frames,          // [num_streams, dim]: input, then output
                 const T* acoustic,  // [num_streams, acoustic_dim] or null
                 uint8_t* gates,     // [num_blocks, 2, num_streams]: what ran
                 T* scratch, int num_threads);

}  // namespace tercet
