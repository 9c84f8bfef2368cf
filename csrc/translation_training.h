// One step of training TransE tables: negatives and a schedule of row updates, gradients of a loss, the update.
//
// The layout of batches and gradients, the losses and the optimizers are those of
// python/tercet/ops/translation_training.py. A row's gradients are summed in the order of its entries, and every entry
// is computed by one thread, so the result is the same for any number of threads.
#pragma once

#include "core.h"
#include "translation.h"

namespace tercet {

enum class Loss { kMargin = 0, kSoftmax = 1, kSelfAdversarial = 2 };
enum class Rule { kSgd = 0, kRowwiseAdagrad = 1, kAdam = 2, kAdagrad = 3 };

// The known triples by head and by tail (row_offsets null: none): see FilterIndex.
struct Known {
  Graph by_head, by_tail;
};

// Several batches of one size.
struct Batches {
  const int32_t* triples;     // [num_batches, size, 3]
  int32_t* negatives;         // [num_batches, num_chunks, num_negatives]
  int32_t* num_tails;         // [num_batches, num_chunks]
  int64_t* entity_entries;    // [num_batches, 2 size + num_chunks num_negatives]
  int64_t* relation_entries;  // [num_batches, size]
  int64_t num_batches, size, chunk_size, num_negatives;

  int64_t num_chunks() const { return (size + chunk_size - 1) / chunk_size; }
  int64_t num_entries() const { return 2 * size + num_chunks() * num_negatives; }
};

// How negatives are drawn: bits(position, slot, attempt) = mix(mix(key + position) + slot 64 + attempt), where position
// is the place of the chunk in the epoch. The high half of the bits of slot k picks an entity: high num_entities /
// 2^32; with chunk_size 1 it picks among the others than the true one. The low half of the bits of slot K decides
// whether the odd negative replaces a tail: it does if low < 2^31. With tail_probability slot k is one of the num_tails
// if the low half of its bits (attempt 0) is below tail_probability 2^32; only how many there are matters.
struct Sampling {
  uint64_t key;            // mix(mix(seed) + epoch)
  int64_t first_position;  // of the first chunk of the first batch
  int64_t num_entities;
  const double* tail_probability;  // [num_relations], or null: half of the negatives replace the tail
  const Known* known;              // with chunk_size 1 a known triple is drawn again, kAttempts draws in all; or null
};
constexpr int kAttempts = 32;

// Fills negatives, num_tails and entries. scratch: num_threads x num_entries x 8 bytes.
void sample_batches(const Batches& batches, const Sampling& sampling, void* scratch, int num_threads);

template <class T>
struct Tables {
  T* entities;   // [num_entities, dim]
  T* relations;  // [num_relations, dim]
  int64_t dim;
};

template <class T>
struct BatchGradients {
  double* loss;  // [size]
  T* queries;    // [size, 2, dim]
  T* positives;  // [size, 3, dim]
  T* negatives;  // [size, num_negatives], or [num_chunks, num_negatives, dim]
};

struct LossOptions {
  Loss kind;
  double margin, temperature;
};

// out: fills all. known: with chunk_size above 1 negatives that make a known triple count as absent (those that equal
// the true entity always do); or null. scratch: num_threads x batch_gradients_bytes, aligned to 64.
template <class T>
int64_t batch_gradients_bytes(const Batches& batches, int64_t dim);
template <class T>
void batch_gradients(Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch, const LossOptions& loss,
                     const Known* known, const BatchGradients<T>& out, void* scratch, int num_threads);

template <class T>
struct Update {
  Rule rule;
  double learning_rate, beta1, beta2, epsilon;
  int64_t step;    // counted from 1
  T* first;        // row-wise adagrad: [rows]; adagrad: [rows, dim]; adam: m [rows, dim]
  T* second;       // adam: v [rows, dim]
  bool unit_ball;  // rows longer than 1 (l2) are scaled to length 1
};

// Values of scratch for a thread: whole pairs of cache lines, so that no two threads write to one.
template <class T>
constexpr int64_t apply_gradients_scratch(int64_t dim) {
  constexpr int64_t kPair = 128 / sizeof(T);
  return (dim + kPair - 1) / kPair * kPair;
}
// scratch: num_threads x apply_gradients_scratch(dim), aligned to 64.
template <class T>
void apply_gradients(Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch,
                     const BatchGradients<T>& gradients, const Update<T>& entities, const Update<T>& relations,
                     T* scratch, int num_threads);

}  // namespace tercet
