// The steps of training over a Device (steps.h); translation_training.h says what each function gives.
#pragma once

#include "translation_steps.h"
#include "translation_training.h"

namespace tercet::cuda {

// A batch of positives with their own negatives: pair 1 + k of a positive is its negative k, pair 0 itself.
template <class N, class T>
struct OwnRows {
  Tables<T> tables;
  const int32_t *triples, *negatives, *num_tails;  // of the batch
  int64_t num_pairs;                               // of a positive
  int64_t count, dim;                              // of all pairs

  OwnRows(const Tables<T>& tables, const Batches& batches, int64_t batch)
      : tables(tables),
        triples(batches.triples + batch * batches.size * 3),
        negatives(batches.negatives + batch * batches.size * batches.num_negatives),
        num_tails(batches.num_tails + batch * batches.size),
        num_pairs(1 + batches.num_negatives),
        count(batches.size * num_pairs),
        dim(tables.dim) {}

  TERCET_HOST_DEVICE T head(int64_t p, int64_t d) const { return tables.entities[triples[3 * p] * dim + d]; }
  TERCET_HOST_DEVICE T relation(int64_t p, int64_t d) const { return tables.relations[triples[3 * p + 1] * dim + d]; }
  TERCET_HOST_DEVICE T tail(int64_t p, int64_t d) const { return tables.entities[triples[3 * p + 2] * dim + d]; }
  TERCET_HOST_DEVICE T negative(int64_t p, int64_t k, int64_t d) const {
    return tables.entities[negatives[p * (num_pairs - 1) + k] * dim + d];
  }

  // What tails (side 0) or heads (side 1) are compared to.
  TERCET_HOST_DEVICE T query_of(int64_t p, int side, int64_t d) const {
    if (side == 0) return head(p, d) + relation(p, d);
    return std::is_same_v<N, Dot> ? tail(p, d) : tail(p, d) - relation(p, d);
  }

  TERCET_HOST_DEVICE T query(int64_t pair, int64_t d) const {
    const int64_t p = pair / num_pairs, k = pair % num_pairs - 1;
    return query_of(p, k >= num_tails[p], d);  // of the positive itself, k = -1, the tail is scored
  }
  TERCET_HOST_DEVICE T entity(int64_t pair, int64_t d) const {
    const int64_t p = pair / num_pairs, k = pair % num_pairs - 1;
    return k < 0 ? tail(p, d) : negative(p, k, d);
  }
};

template <class N, class T, class Device>
void own_scores_by(const Device& device, const OwnRows<N, T>& rows, T* queries, T* scores) {
  const int64_t num_values = rows.count / rows.num_pairs * 2 * rows.dim;
  device.for_each("batch_gradients, queries", num_values, [=] TERCET_DEVICE(int64_t i) {
    queries[i] = rows.query_of(i / rows.dim / 2, static_cast<int>(i / rows.dim % 2), i % rows.dim);
  });
  const PairScores<N, T, OwnRows<N, T>> work{rows, scores, 0};
  device.for_each_block("batch_gradients, scores", WarpSums<T>::num_blocks(rows.count), work);
}

template <class T, class Device>
void own_scores_steps(const Device& device, Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch,
                      T* queries, T* scores) {
  with_norm(norm,
            [&](auto n) { own_scores_by(device, OwnRows<decltype(n), T>(tables, batches, batch), queries, scores); });
}

// One dimension of the gradients to a positive's head, relation and tail.
template <class N, class T>
TERCET_HOST_DEVICE inline void positive_gradients(const OwnRows<N, T>& rows, int64_t p, int64_t d, const T* weights,
                                                  T* positives) {
  const T query[2] = {rows.query_of(p, 0, d), rows.query_of(p, 1, d)}, relation = rows.relation(p, d);
  const T tail = rows.tail(p, d), own = weights[p * rows.num_pairs];
  T to_tails_query = 0, to_heads_query = 0, shift = 0;
  for (int64_t k = 0; k + 1 < rows.num_pairs; ++k) {
    const T weight = weights[p * rows.num_pairs + 1 + k], negative = rows.negative(p, k, d);
    if (k < rows.num_tails[p]) {
      to_tails_query = N::pull(to_tails_query, weight, query[0], negative);
    } else {
      to_heads_query = N::pull(to_heads_query, weight, query[1], negative);
      shift += weight;
    }
  }
  const T to_head = N::pull(to_tails_query, own, query[0], tail),
          to_tail = N::pull(to_heads_query, own, tail, query[0]);
  // With dot a replaced head's score also holds <r, t>.
  constexpr bool kDot = std::is_same_v<N, Dot>;
  T* out = positives + 3 * p * rows.dim + d;
  out[0] = to_head;
  out[rows.dim] = kDot ? to_head + shift * tail : to_head - to_heads_query;
  out[2 * rows.dim] = kDot ? to_tail + shift * relation : to_tail;
}

template <class N, class T, class Device>
void own_gradients_by(const Device& device, const OwnRows<N, T>& rows, const T* weights, T* positives) {
  device.for_each("batch_gradients, positives", rows.count / rows.num_pairs * rows.dim, [=] TERCET_DEVICE(int64_t i) {
    positive_gradients(rows, i / rows.dim, i % rows.dim, weights, positives);
  });
}

template <class T, class Device>
void own_gradients_steps(const Device& device, Norm norm, const Tables<T>& tables, const Batches& batches,
                         int64_t batch, const T* weights, T* positives) {
  with_norm(norm, [&](auto n) {
    own_gradients_by(device, OwnRows<decltype(n), T>(tables, batches, batch), weights, positives);
  });
}

// Entries of one batch, and the gradients that they stand for; see Batches in ops/translation_training.py.
template <class T>
struct Entries {
  const int64_t* entries;  // [count]
  int64_t count;
  bool of_entities, own_negatives;
  const int32_t* num_tails;
  int64_t size, num_negatives, dim;
  BatchGradients<T> gradients;

  Entries(const Batches& batches, int64_t batch, bool of_entities, const BatchGradients<T>& gradients, int64_t dim)
      : entries(of_entities ? batches.entity_entries + batch * batches.num_entries()
                            : batches.relation_entries + batch * batches.size),
        count(of_entities ? batches.num_entries() : batches.size),
        of_entities(of_entities),
        own_negatives(batches.chunk_size == 1),
        num_tails(batches.num_tails + batch * batches.num_chunks()),
        size(batches.size),
        num_negatives(batches.num_negatives),
        dim(dim),
        gradients(gradients) {}

  TERCET_HOST_DEVICE int64_t row(int64_t place) const { return entries[place] >> 32; }
  TERCET_HOST_DEVICE bool starts_row(int64_t place) const {
    return place < count && (place == 0 || row(place) != row(place - 1));
  }

  // Adds what an entry stands for to one dimension of its row's gradient.
  template <class N>
  TERCET_HOST_DEVICE T add(T total, int64_t place, int64_t d, T value) const {
    const int64_t i = entries[place] & 0xFFFFFFFF;
    if (!of_entities) return total + gradients.positives[(3 * i + 1) * dim + d];
    if (i < size) return total + gradients.positives[3 * i * dim + d];
    if (i < 2 * size) return total + gradients.positives[(3 * (i - size) + 2) * dim + d];
    const int64_t negative = i - 2 * size;
    if (!own_negatives) return total + gradients.negatives[negative * dim + d];
    const int64_t p = negative / num_negatives, side = negative % num_negatives >= num_tails[p];
    return N::pull(total, gradients.negatives[negative], value, gradients.queries[(2 * p + side) * dim + d]);
  }
};

// A warp moves the row whose first entry is its own; the other warps have nothing to do.
template <class N, class T>
struct RowUpdates {
  struct Shared {
    WarpSums<T> gradients, values;  // squares
  };
  struct Own {};

  Entries<T> entries;
  T* table;  // [rows, dim]
  int64_t dim;
  Update<T> update;
  T mean_scale, square_scale;  // adam
  int64_t num_steps;

  RowUpdates(const Entries<T>& entries, T* table, int64_t dim, const Update<T>& update)
      : entries(entries),
        table(table),
        dim(dim),
        update(update),
        mean_scale(static_cast<T>(1 / (1 - std::pow(update.beta1, static_cast<double>(update.step))))),
        square_scale(static_cast<T>(1 / (1 - std::pow(update.beta2, static_cast<double>(update.step))))),
        num_steps(0) {}

  // The mean square that row-wise adagrad adds.
  TERCET_HOST_DEVICE void start(int64_t block, int thread, Shared& shared, Own&) const {
    const int64_t place = shared.values.item_of(block, thread);
    T squares = 0;
    if (update.rule == Rule::kRowwiseAdagrad && entries.starts_row(place)) {
      for (int64_t d = shared.values.lane_of(thread); d < dim; d += WarpSums<T>::kLanes) {
        const T g = gradient(place, d);
        squares = std::fma(g, g, squares);
      }
    }
    shared.gradients.put(thread, squares);
  }

  TERCET_HOST_DEVICE void step(int64_t, int64_t, int, Shared&, Own&) const {}

  TERCET_HOST_DEVICE void finish(int64_t block, int thread, Shared& shared, Own&) const {
    const int64_t place = shared.values.item_of(block, thread);
    T squares = 0;
    if (entries.starts_row(place)) {
      const int64_t row = entries.row(place);
      const T rate = static_cast<T>(update.learning_rate), epsilon = static_cast<T>(update.epsilon);
      const T size =
          update.rule == Rule::kRowwiseAdagrad ? rate / (std::sqrt(state(row, thread, shared)) + epsilon) : rate;
      for (int64_t d = shared.values.lane_of(thread); d < dim; d += WarpSums<T>::kLanes) {
        const int64_t at = row * dim + d;
        const T g = gradient(place, d);
        const T move = update.rule == Rule::kAdam      ? adam(at, g, rate, epsilon)
                       : update.rule == Rule::kAdagrad ? adagrad(at, g, rate, epsilon)
                                                       : size * g;
        const T moved = table[at] - move;
        table[at] = moved;
        squares = std::fma(moved, moved, squares);
      }
    }
    shared.values.put(thread, squares);
  }

  TERCET_HOST_DEVICE void settle(int64_t block, int thread, Shared& shared, Own&) const {
    const int64_t place = shared.values.item_of(block, thread);
    if (!entries.starts_row(place)) return;
    const int64_t row = entries.row(place);
    const int lane = shared.values.lane_of(thread);
    if (update.rule == Rule::kRowwiseAdagrad && lane == 0) update.first[row] = state(row, thread, shared);
    if (!update.unit_ball) return;
    const T length = std::sqrt(shared.values.sum(thread));
    if (!(length > 1)) return;
    for (int64_t d = lane; d < dim; d += WarpSums<T>::kLanes) table[row * dim + d] /= length;
  }

 private:
  TERCET_HOST_DEVICE T gradient(int64_t place, int64_t d) const {
    const int64_t row = entries.row(place);
    const T value = table[row * dim + d];
    T total = 0;
    for (; place < entries.count && entries.row(place) == row; ++place) {
      total = entries.template add<N>(total, place, d, value);
    }
    return total;
  }

  // Row-wise adagrad's state after this step; all threads of a warp compute it before one of them writes it.
  TERCET_HOST_DEVICE T state(int64_t row, int thread, const Shared& shared) const {
    return update.first[row] + shared.gradients.sum(thread) / static_cast<T>(dim);
  }

  TERCET_HOST_DEVICE T adagrad(int64_t at, T g, T rate, T epsilon) const {
    const T squares = update.first[at] = update.first[at] + g * g;
    return rate * g / (std::sqrt(squares) + epsilon);
  }

  TERCET_HOST_DEVICE T adam(int64_t at, T g, T rate, T epsilon) const {
    const T beta1 = static_cast<T>(update.beta1), beta2 = static_cast<T>(update.beta2);
    const T mean = update.first[at] = beta1 * update.first[at] + (1 - beta1) * g;
    const T square = update.second[at] = beta2 * update.second[at] + (1 - beta2) * g * g;
    return rate * mean * mean_scale / (std::sqrt(square * square_scale) + epsilon);
  }
};

template <class T, class Device>
void apply_steps(const Device& device, Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch,
                 const BatchGradients<T>& gradients, const Update<T>& entities, const Update<T>& relations) {
  with_norm(norm, [&](auto n) {
    const int64_t dim = tables.dim;
    for (const bool of_entities : {true, false}) {
      const Entries<T> entries(batches, batch, of_entities, gradients, dim);
      const RowUpdates<decltype(n), T> work(entries, of_entities ? tables.entities : tables.relations, dim,
                                            of_entities ? entities : relations);
      device.for_each_block("apply_gradients", WarpSums<T>::num_blocks(entries.count), work);
    }
  });
}

}  // namespace tercet::cuda
