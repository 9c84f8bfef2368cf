// The float64 sums that define ranks, and how far the sums of a fast pass may be from them.
//
// A sum is taken over 8 partial sums, of the dimensions d = 0 .. 7 modulo 8, and these are added pairwise: the same
// bits on every machine (nothing here may be contracted to fused multiply-adds). CUDA kernels share these functions.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define TERCET_EXACT __host__ __device__ inline
#else
#define TERCET_EXACT inline
#endif

namespace tercet {

// The vector that entities are compared to: anchor + relation for tails, anchor - relation for heads; for inner
// products of heads the anchor alone, since what the relation adds is the same for every head.
enum class Query { kSum = 0, kDifference = 1, kAnchor = 2 };

template <class T>
TERCET_EXACT T query_value(Query kind, T anchor, T relation) {
  return kind == Query::kSum ? anchor + relation : kind == Query::kDifference ? anchor - relation : anchor;
}

// norm: 0 sum |q - e|, 1 sum (q - e)^2, 2 sum q e.
TERCET_EXACT double exact_term(int norm, double query, double entity) {
  if (norm == 2) return query * entity;
  const double difference = query - entity;
  return norm == 1 ? difference * difference : difference < 0 ? -difference : difference;
}

template <class T>
TERCET_EXACT double exact_sum(int norm, Query kind, const T* anchor, const T* relation, const T* entity, int64_t dim) {
  double part[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  int64_t d = 0;
  for (; d + 8 <= dim; d += 8) {
    for (int i = 0; i < 8; ++i) {
      const double query = query_value<double>(kind, anchor[d + i], relation[d + i]);
      part[i] += exact_term(norm, query, entity[d + i]);
    }
  }
  for (int i = 0; d < dim; ++d, ++i)
    part[i] += exact_term(norm, query_value<double>(kind, anchor[d], relation[d]), entity[d]);
  return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

// A rival's fast sum below `lower` means that its exact sum is below the target's, above `upper` that it is above;
// between, the exact sums decide.
struct Band {
  double lower, upper;
};

// u: the unit roundoff of the fast pass, which rounds q once and adds every term to at most `chain` others.
// query_norm, entity_norm: l2 lengths of the query and of the longest entity (for dot), or upper bounds of them.
//   l1:  |fast - exact| <= (chain + 2) u exact + u sum |q|,                        sum |q| <= sqrt(dim) |q|
//   l2:  |fast - exact| <= (chain + 3) u exact + 2 u |q| sqrt(exact) + u^2 |q|^2
//                       <= (chain + 3 + 64) u exact + u |q|^2 / 32                 as 2 a b <= 64 a^2 + b^2 / 64
//   dot: |fast - exact| <= (chain + 2) u |q| |e|
// The exact sums themselves are off by (dim / 8 + 8) 2^-53, and what underflows by dim times the smallest normal
// number; the bounds are doubled for terms of higher order.
TERCET_EXACT Band band(int norm, double target, double u, double smallest, int64_t chain, int64_t dim,
                       double query_norm, double entity_norm, double root_of_dim) {
  const double own = static_cast<double>(dim / 8 + 8) * 1.2e-16;
  const double links = static_cast<double>(chain);
  double relative = own, absolute = static_cast<double>(dim) * smallest;
  if (norm == 0) {
    relative += (links + 2) * u;
    absolute += u * root_of_dim * query_norm;
  } else if (norm == 1) {
    relative += (links + 67) * u;
    absolute += u * query_norm * query_norm / 32;
  } else {
    absolute += ((links + 2) * u + own) * query_norm * entity_norm;
    relative = 0;
  }
  const double slack = 2 * (relative * (target < 0 ? -target : target) + absolute);
  return {target - slack, target + slack};
}

}  // namespace tercet
