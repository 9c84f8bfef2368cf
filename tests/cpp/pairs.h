// What the checks of translation, ranking and training share: sizes, scores by plain loops, comparison.
#pragma once

#include <cmath>

#include "exact.h"
#include "inputs.h"
#include "translation.h"

inline constexpr tercet::Norm kNorms[] = {tercet::Norm::kL1, tercet::Norm::kL2, tercet::Norm::kDot};

// Either side of a vector's lanes, of a tile of entities and of the rows that are computed together.
inline int64_t draw_count(Random& random) {
  static constexpr int64_t kSizes[] = {0, 1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130, 257};
  return random.chance(0.6) ? kSizes[random.below(17)] : random.between(1, 100);
}

// Either side of a vector's lanes, of the vectors of a row and of a block of dimensions.
inline int64_t draw_dim(Random& random) {
  static constexpr int64_t kSizes[] = {0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129};
  return random.chance(0.7) ? kSizes[random.below(17)] : random.between(1, 40);
}

template <class T>
std::vector<T> draw_table(Random& random, int64_t rows, int64_t dim, bool coarse) {
  return draw_values<T>(random, rows * dim, -2, 2, coarse);
}

// The score of a query and an entity; of coarse values every sum is exact.
template <class T>
double plain_score(tercet::Norm norm, const T* query, const T* entity, int64_t dim) {
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d) {
    const double q = query[d], e = entity[d];
    sum += norm == tercet::Norm::kDot ? q * e : norm == tercet::Norm::kL1 ? std::abs(q - e) : (q - e) * (q - e);
  }
  return norm == tercet::Norm::kDot ? sum : norm == tercet::Norm::kL1 ? -sum : -std::sqrt(sum);
}

// What a weight of 1 pulls at in one dimension: minus a score's gradient to the entity, but for l2's division by the
// distance.
inline double plain_pull(tercet::Norm norm, double row, double partner) {
  const double difference = partner - row;
  if (norm == tercet::Norm::kL1) return difference > 0 ? 1 : difference < 0 ? -1 : 0;
  return norm == tercet::Norm::kL2 ? difference : partner;
}

// Whether values are near the wanted ones: exactly them where `coarse`, else as their dtype allows for sums of some
// hundred terms.
template <class T>
bool near(const std::vector<T>& got, const std::vector<double>& want, bool coarse) {
  if (got.size() != want.size()) return false;
  for (size_t i = 0; i < got.size(); ++i) {
    const double tolerance = coarse ? 0 : (sizeof(T) == 4 ? 1e-3 : 1e-11) * (1 + std::abs(want[i]));
    if (!(std::abs(got[i] - static_cast<double>(static_cast<T>(want[i]))) <= tolerance)) return false;
  }
  return true;
}
