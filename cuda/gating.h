// The functions of csrc/gating.h on CUDA, for halves as well, which are computed in float; results differ from the
// CPU's by rounding.
//
// arbiter_logits: a warp a row. Rows of up to 1,024 values stay in registers, so memory is read once.
// kept_attention: a block takes 64 consecutive queries of a head (fewer where heads are wide) and walks the keys from
// the lowest start to the highest end of their ranges, 32 at a time, through shared memory. Keys are multiplied in
// float or double, not by tensor cores.
//
// Every result is summed in an order that depends on its own row and range alone, and keys outside a query's range
// are never added, not even times 0: a NaN stays with the queries whose range holds it. No atomics.
//
// Rules for arrays and errors as in traversal.h; no function waits for the device.
#pragma once

#include "../csrc/gating.h"
#include "halves.h"
#include "steps.h"

namespace tercet::cuda {

// T is float, double, BFloat16 or Float16 (halves.h), and so are the norm's weight and bias.
template <class T>
void arbiter_logits(const Queue& queue,
                    const T* rows,  // [num_rows, dim]
                    LayerNorm norm,
                    const T* weight,  // [dim]
                    const T* bias,    // [1]
                    Wide<T>* logits,  // [num_rows], float of halves
                    int64_t num_rows, int64_t dim);

constexpr int64_t kMaxHeadDim = 256;

// head_dim at most kMaxHeadDim, else an exception.
template <class T>
void kept_attention(const Queue& queue, Frames<T> queries, Frames<T> keys, Frames<T> values, KeyRanges ranges,
                    T* out,  // [num_queries, num_heads * head_dim]
                    int64_t num_queries, int64_t num_heads, int64_t head_dim, double scale);

}  // namespace tercet::cuda
