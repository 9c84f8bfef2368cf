// Sums over one row, in an order that depends on its length alone: layer normalisation and inner products.
#pragma once

#include <cmath>
#include <cstdint>

#include "simd.h"

namespace tercet {

struct LayerNorm {
  const void* weight;  // [dim], of the rows' dtype; null: rows are taken as they are
  const void* bias;    // [dim] or null
  double epsilon;
};

// Calls body(read, i) for every vector of a row, read(pointer + i) being the vector there, 0 beyond the row's end.
template <class T, class Body>
inline void each_vector(int64_t dim, const Body& body) {
  const int64_t whole = dim / kLanes<T> * kLanes<T>, rest = dim - whole;
  for (int64_t i = 0; i < whole; i += kLanes<T>) body([](const T* at) { return load(at); }, i);
  if (rest > 0) body([rest](const T* at) { return load_first(at, rest); }, whole);
}

template <class T>
inline T dot(const T* a, const T* b, int64_t dim) {
  Lanes<T> total = {};
  each_vector<T>(dim, [&](auto read, int64_t i) { total = multiply_add<T>(read(a + i), read(b + i), total); });
  return sum<T>(total);
}

// What layer normalisation makes of a row: ((row - mean) * scale) * weight + bias. The row stays in the first cache
// between the passes.
template <class T>
class Normalised {
 public:
  Normalised(const T* row, LayerNorm norm, int64_t dim)
      : row_(row), weight_(static_cast<const T*>(norm.weight)), bias_(static_cast<const T*>(norm.bias)) {
    if (weight_ == nullptr) return;
    Lanes<T> total = {};
    each_vector<T>(dim, [&](auto read, int64_t i) { total += read(row + i); });
    mean_ = sum<T>(total) / static_cast<T>(dim);
    const int64_t whole = dim / kLanes<T> * kLanes<T>;
    Lanes<T> squares = {};
    for (int64_t i = 0; i < whole; i += kLanes<T>) {
      const Lanes<T> centred = load(row + i) - all(mean_);
      squares += centred * centred;
    }
    T variance = sum<T>(squares);
    for (int64_t i = whole; i < dim; ++i) variance += (row[i] - mean_) * (row[i] - mean_);
    scale_ = 1 / std::sqrt(variance / static_cast<T>(dim) + static_cast<T>(norm.epsilon));
  }

  template <class Read>
  Lanes<T> at(const Read& read, int64_t i) const {
    Lanes<T> value = read(row_ + i);
    if (weight_ == nullptr) return value;
    value = (value - all(mean_)) * all(scale_) * read(weight_ + i);
    return bias_ == nullptr ? value : value + read(bias_ + i);
  }

 private:
  const T *row_, *weight_, *bias_;
  T mean_ = 0, scale_ = 1;
};

template <class T>
inline void normalise(const T* row, LayerNorm norm, T* out, int64_t dim) {
  const Normalised<T> normalised(row, norm, dim);
  const int64_t whole = dim / kLanes<T> * kLanes<T>;
  each_vector<T>(dim, [&](auto read, int64_t i) {
    if (i < whole) {
      store(out + i, normalised.at(read, i));
    } else {
      store_first(out + i, normalised.at(read, i), dim - whole);
    }
  });
}

}  // namespace tercet
