#include "gating.h"
#include "gating_steps.h"
#include "launch.cuh"

namespace tercet::cuda {

template <class T>
void arbiter_logits(const Queue& queue, const T* rows, LayerNorm norm, const T* weight, const T* bias, Wide<T>* logits,
                    int64_t num_rows, int64_t dim) {
  arbiter_steps(Stream(queue), rows, norm, weight, bias, logits, num_rows, dim);
}

template <class T>
void kept_attention(const Queue& queue, Frames<T> queries, Frames<T> keys, Frames<T> values, KeyRanges ranges, T* out,
                    int64_t num_queries, int64_t num_heads, int64_t head_dim, double scale) {
  kept_attention_steps(Stream(queue), queries, keys, values, ranges, out, num_queries, num_heads, head_dim, scale);
}

#define TERCET_INSTANTIATE(T)                                                                                         \
  template void arbiter_logits<T>(const Queue&, const T*, LayerNorm, const T*, const T*, Wide<T>*, int64_t, int64_t); \
  template void kept_attention<T>(const Queue&, Frames<T>, Frames<T>, Frames<T>, KeyRanges, T*, int64_t, int64_t,     \
                                  int64_t, double);
TERCET_INSTANTIATE(float)
TERCET_INSTANTIATE(double)
TERCET_INSTANTIATE(BFloat16)
TERCET_INSTANTIATE(Float16)
#undef TERCET_INSTANTIATE

}  // namespace tercet::cuda
