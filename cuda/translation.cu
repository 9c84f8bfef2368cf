#include "launch.cuh"
#include "translation.h"
#include "translation_steps.h"

namespace tercet::cuda {

template <class T>
void transe_score(const Queue& queue, Norm norm, const T* heads, const T* relations, const T* tails, int64_t batch,
                  int64_t dim, T* scores) {
  score_steps(Stream(queue), norm, heads, relations, tails, batch, dim, scores);
}

template <class T>
void transe_score_backward(const Queue& queue, Norm norm, const T* grad, const T* heads, const T* relations,
                           const T* tails, int64_t batch, int64_t dim, T* to_query, T* to_tails) {
  score_backward_steps(Stream(queue), norm, grad, heads, relations, tails, batch, dim, to_query, to_tails);
}

template <class T>
void transe_scores(const Queue& queue, Norm norm, const T* queries, int64_t num_queries, const T* entities,
                   int64_t num_entities, int64_t dim, T* scores) {
  scores_steps(Stream(queue), norm, queries, num_queries, entities, num_entities, dim, scores);
}

template <class T>
int64_t transe_scores_backward_workspace(int64_t num_rows, int64_t num_partners, int64_t dim) {
  Carver carver(nullptr);
  PullMemory<T>(carver, num_rows, num_partners, dim);
  return carver.bytes();
}

template <class T>
void transe_scores_backward(const Queue& queue, Norm norm, const T* rows, int64_t num_rows, const T* partners,
                            int64_t num_partners, int64_t dim, const Weights<T>& weights, T* out,
                            unsigned char* scratch) {
  Carver carver(scratch);
  const PullMemory<T> memory(carver, num_rows, num_partners, dim);
  scores_backward_steps(Stream(queue), norm, rows, num_rows, partners, num_partners, dim, weights, out, memory);
}

#define TERCET_INSTANTIATE(T)                                                                                          \
  template void transe_score<T>(const Queue&, Norm, const T*, const T*, const T*, int64_t, int64_t, T*);               \
  template void transe_score_backward<T>(const Queue&, Norm, const T*, const T*, const T*, const T*, int64_t, int64_t, \
                                         T*, T*);                                                                      \
  template void transe_scores<T>(const Queue&, Norm, const T*, int64_t, const T*, int64_t, int64_t, T*);               \
  template int64_t transe_scores_backward_workspace<T>(int64_t, int64_t, int64_t);                                     \
  template void transe_scores_backward<T>(const Queue&, Norm, const T*, int64_t, const T*, int64_t, int64_t,           \
                                          const Weights<T>&, T*, unsigned char*);
TERCET_INSTANTIATE(float)
TERCET_INSTANTIATE(double)
#undef TERCET_INSTANTIATE

}  // namespace tercet::cuda
