#include "launch.cuh"
#include "translation_training.h"
#include "translation_training_steps.h"

namespace tercet::cuda {

template <class T>
void own_scores(const Queue& queue, Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch,
                T* queries, T* scores) {
  own_scores_steps(Stream(queue), norm, tables, batches, batch, queries, scores);
}

template <class T>
void own_gradients(const Queue& queue, Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch,
                   const T* weights, T* positives) {
  own_gradients_steps(Stream(queue), norm, tables, batches, batch, weights, positives);
}

template <class T>
void apply_gradients(const Queue& queue, Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch,
                     const BatchGradients<T>& gradients, const Update<T>& entities, const Update<T>& relations) {
  apply_steps(Stream(queue), norm, tables, batches, batch, gradients, entities, relations);
}

#define TERCET_INSTANTIATE(T)                                                                                  \
  template void own_scores<T>(const Queue&, Norm, const Tables<T>&, const Batches&, int64_t, T*, T*);          \
  template void own_gradients<T>(const Queue&, Norm, const Tables<T>&, const Batches&, int64_t, const T*, T*); \
  template void apply_gradients<T>(const Queue&, Norm, const Tables<T>&, const Batches&, int64_t,              \
                                   const BatchGradients<T>&, const Update<T>&, const Update<T>&);
TERCET_INSTANTIATE(float)
TERCET_INSTANTIATE(double)
#undef TERCET_INSTANTIATE

}  // namespace tercet::cuda
