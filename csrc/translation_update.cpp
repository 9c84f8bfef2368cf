#include <algorithm>
#include <cmath>

#include "prefetch.h"
#include "translation_rows.h"
#include "translation_training.h"

namespace tercet {

namespace {

constexpr int64_t kTasksPerThread = 8;
constexpr int64_t kAhead = 6;     // entries whose vectors are asked for before they are summed
constexpr int64_t kDecoded = 64;  // entries of a row whose vectors are looked up together

// The rows of one table that a batch touches.
template <class N, class T>
class RowUpdate {
 public:
  RowUpdate(const Tables<T>& tables, bool entities, const Batches& batches, int64_t batch,
            const BatchGradients<T>& gradients, const Update<T>& update, T* gradient)
      : table_(entities ? tables.entities : tables.relations),
        dim_(tables.dim),
        entities_(entities),
        b_(batches),
        batch_(batch),
        gradients_(gradients),
        u_(update),
        gradient_(gradient) {}

  // Entries first .. last of one row.
  void run(const int64_t* entries, int64_t first, int64_t last, int64_t count_of_all) {
    for (int64_t i = first + kAhead; i < std::min(last + kAhead, count_of_all); ++i) ask_for(entries[i]);
    const int64_t row = entries[first] >> 32;
    T* values = table_ + row * dim_;
    const T* pulls[kDecoded];
    T weights[kDecoded];
    bool pulled = false;
    const auto start = [&] {  // at the first gradient: of a batch that is nearly learnt most rows have none
      if (!pulled) std::fill(gradient_, gradient_ + dim_, T{0});
      pulled = true;
    };
    while (first < last) {
      int64_t count = 0;
      // Gradients that are stored come before those of a positive's own negatives, which are recomputed.
      for (; first < last && count < kDecoded && stored(entries[first]); ++first)
        pulls[count++] = dense(entries[first]);
      if (count) {
        std::fill(weights, weights + count, T{1});
        start();
        pull_partners<Dot>(gradient_, pulls, weights, count, dim_, gradient_);
        continue;
      }
      for (; first < last && count < kDecoded; ++first) {
        const int64_t i = (entries[first] & 0xFFFFFFFF) - 2 * b_.size;
        if (gradients_.negatives[i] == 0) continue;
        pulls[count] = query_of(i);
        weights[count++] = gradients_.negatives[i];
      }
      if (!count) continue;
      start();
      pull_partners<N>(values, pulls, weights, count, dim_, gradient_);
    }
    if (u_.rule == Rule::kAdam || u_.unit_ball) start();  // they move rows without gradients too
    if (pulled) move(row, values);
  }

 private:
  // What an entry will be computed from.
  void ask_for(int64_t entry) const {
    if (!stored(entry) && gradients_.negatives[(entry & 0xFFFFFFFF) - 2 * b_.size] == 0) return;
    const T* vector = stored(entry) ? dense(entry) : query_of((entry & 0xFFFFFFFF) - 2 * b_.size);
    for (int64_t d = 0; d < dim_; d += 64 / static_cast<int64_t>(sizeof(T))) prefetch(vector + d);
  }
  // The query of a positive's own negative i.
  const T* query_of(int64_t i) const {
    const int64_t p = i / b_.num_negatives;
    const bool tail = i - p * b_.num_negatives < b_.num_tails[batch_ * b_.size + p];
    return gradients_.queries + (2 * p + !tail) * dim_;
  }

  bool stored(int64_t entry) const { return !entities_ || b_.chunk_size > 1 || (entry & 0xFFFFFFFF) < 2 * b_.size; }
  const T* dense(int64_t entry) const {
    const int64_t i = entry & 0xFFFFFFFF;
    if (!entities_) return gradients_.positives + (3 * i + 1) * dim_;
    if (i < b_.size) return gradients_.positives + 3 * i * dim_;
    if (i < 2 * b_.size) return gradients_.positives + (3 * (i - b_.size) + 2) * dim_;
    return gradients_.negatives + (i - 2 * b_.size) * dim_;
  }

  void move(int64_t row, T* values) {
    const T rate = static_cast<T>(u_.learning_rate), epsilon = static_cast<T>(u_.epsilon);
    if (u_.rule == Rule::kAdam) {
      move_adam(values, u_.first + row * dim_, u_.second + row * dim_, rate, epsilon);
    } else if (u_.rule == Rule::kAdagrad) {
      move_adagrad(values, u_.first + row * dim_, rate, epsilon);
    } else {
      T size = rate;
      if (u_.rule == Rule::kRowwiseAdagrad) {
        u_.first[row] += row_sum<Dot>(gradient_, gradient_, dim_) / static_cast<T>(dim_);
        size = rate / (std::sqrt(u_.first[row]) + epsilon);
      }
#pragma omp simd
      for (int64_t d = 0; d < dim_; ++d) values[d] -= size * gradient_[d];
    }
    if (!u_.unit_ball) return;
    const T length = std::sqrt(row_sum<Dot>(values, values, dim_));
    if (length > 1) {
      for (int64_t d = 0; d < dim_; ++d) values[d] /= length;
    }
  }

  void move_adagrad(T* values, T* squares, T rate, T epsilon) const {
#pragma omp simd
    for (int64_t d = 0; d < dim_; ++d) {
      squares[d] += gradient_[d] * gradient_[d];
      values[d] -= rate * gradient_[d] / (std::sqrt(squares[d]) + epsilon);
    }
  }

  void move_adam(T* values, T* mean, T* square, T rate, T epsilon) const {
    const T beta1 = static_cast<T>(u_.beta1), beta2 = static_cast<T>(u_.beta2);
    const T scale1 = static_cast<T>(1 / (1 - std::pow(u_.beta1, static_cast<double>(u_.step))));
    const T scale2 = static_cast<T>(1 / (1 - std::pow(u_.beta2, static_cast<double>(u_.step))));
#pragma omp simd
    for (int64_t d = 0; d < dim_; ++d) {
      const T g = gradient_[d];
      mean[d] = beta1 * mean[d] + (1 - beta1) * g;
      square[d] = beta2 * square[d] + (1 - beta2) * g * g;
      values[d] -= rate * mean[d] * scale1 / (std::sqrt(square[d] * scale2) + epsilon);
    }
  }

  T* table_;
  int64_t dim_;
  bool entities_;
  const Batches& b_;
  int64_t batch_;
  const BatchGradients<T>& gradients_;
  const Update<T>& u_;
  T* gradient_;  // [dim]
};

// The first entry at or after `from` that begins a row.
int64_t row_start(const int64_t* entries, int64_t count, int64_t from) {
  while (from > 0 && from < count && entries[from] >> 32 == entries[from - 1] >> 32) ++from;
  return from;
}

}  // namespace

template <class T>
void apply_gradients(Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch,
                     const BatchGradients<T>& gradients, const Update<T>& entities, const Update<T>& relations,
                     T* scratch, int num_threads) {
  struct Part {
    const int64_t* entries;
    int64_t count, tasks;
    const Update<T>& update;
  };
  const int64_t of_entities = batches.num_entries(), tasks = kTasksPerThread * num_threads;
  const Part parts[2] = {{batches.entity_entries + batch * of_entities, of_entities, tasks, entities},
                         {batches.relation_entries + batch * batches.size, batches.size, tasks, relations}};
  with_norm(norm, [&](auto n) {
    parallel_for(2 * tasks, num_threads, [&](int64_t task, int worker) {
      const Part& part = parts[task / tasks];
      RowUpdate<decltype(n), T> rows(tables, task < tasks, batches, batch, gradients, part.update,
                                     scratch + worker * apply_gradients_scratch<T>(tables.dim));
      const int64_t t = task % tasks, end = row_start(part.entries, part.count, part.count * (t + 1) / tasks);
      for (int64_t first = row_start(part.entries, part.count, part.count * t / tasks); first < end;) {
        int64_t last = first + 1;
        while (last < end && part.entries[last] >> 32 == part.entries[first] >> 32) ++last;
        rows.run(part.entries, first, last, part.count);
        first = last;
      }
    });
  });
}

#define TERCET_INSTANTIATE(T)                                                                                 \
  template void apply_gradients<T>(Norm, const Tables<T>&, const Batches&, int64_t, const BatchGradients<T>&, \
                                   const Update<T>&, const Update<T>&, T*, int);
TERCET_INSTANTIATE(float)
TERCET_INSTANTIATE(double)
#undef TERCET_INSTANTIATE

}  // namespace tercet
