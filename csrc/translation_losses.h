// The losses of one positive, and their gradients to its scores; see ops/translation_training.py for the formulas.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "elementary.h"
#include "translation_training.h"

namespace tercet {

// The scores of one side of a positive; absent ones are -inf. They are replaced by the loss's gradients to them.
template <class T>
struct Side {
  T* scores;
  int64_t count;

  int64_t present() const {
    return std::count_if(scores, scores + count, [](T score) { return score != -std::numeric_limits<T>::infinity(); });
  }
};

// -log sigmoid(-x) and its derivative, sigmoid(x).
template <class T>
struct Softplus {
  explicit Softplus(T x) {
    const T e = exponential(x < 0 ? x : -x);
    value = (x > 0 ? x : T{0}) + log_one_plus(e);
    slope = (x < 0 ? e : T{1}) / (1 + e);
  }
  T value, slope;
};

template <class T>
double margin_loss(T margin, T positive, Side<T>* sides, T scale, T* to_positive) {
  const int64_t present = sides[0].present() + sides[1].present();
  double loss = 0;
  int64_t violations = 0;
  for (int s = 0; s < 2; ++s) {
    for (int64_t k = 0; k < sides[s].count; ++k) {
      T& score = sides[s].scores[k];
      const T violation = margin - positive + score;
      violations += violation > 0;
      loss += violation > 0 ? violation : 0;
      score = violation > 0 ? scale / present : 0;
    }
  }
  if (!present) return 0;
  *to_positive = -scale * violations / present;
  return loss / present;
}

template <class T>
double softmax_loss(T positive, const Side<T>& side, T scale, T* to_positive) {
  T* scores = side.scores;
  T largest = positive;
#pragma omp simd reduction(max : largest)
  for (int64_t k = 0; k < side.count; ++k) largest = std::max(largest, scores[k]);
  const T own = exponential(positive - largest);
  T total = own;
#pragma omp simd reduction(+ : total)
  for (int64_t k = 0; k < side.count; ++k) total += scores[k] = exponential(scores[k] - largest);
  const T share = scale / total;
  for (int64_t k = 0; k < side.count; ++k) scores[k] *= share;
  *to_positive += scale * (own / total - 1);
  return std::log(static_cast<double>(total)) + largest - positive;
}

// weights: [count] scratch.
template <class T>
double self_adversarial_loss(T margin, T temperature, T positive, const Side<T>& side, T scale, T* weights,
                             T* to_positive) {
  T* scores = side.scores;
  constexpr T kAbsent = -std::numeric_limits<T>::infinity();
  T largest = kAbsent, total = 0, wrong = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t k = 0; k < side.count; ++k) {
    weights[k] = scores[k] == kAbsent ? kAbsent : temperature * scores[k];  // temperature may be 0
    largest = std::max(largest, weights[k]);
  }
#pragma omp simd reduction(+ : total)
  for (int64_t k = 0; k < side.count; ++k) total += weights[k] = exponential(weights[k] - largest);
  const T share = scale / (2 * total);
#pragma omp simd reduction(+ : wrong)
  for (int64_t k = 0; k < side.count; ++k) {
    // An absent negative weighs 0; any finite score keeps 0 times infinity out of the sum.
    const Softplus<T> softplus(margin + (weights[k] > 0 ? scores[k] : T{0}));
    wrong += weights[k] * softplus.value;
    scores[k] = share * weights[k] * softplus.slope;
  }
  const Softplus<T> own(-margin - positive);
  *to_positive -= scale / 2 * own.slope;
  return (static_cast<double>(own.value) + wrong / total) / 2;
}

// The loss of a positive with its two sides; its gradients, times `scale`, replace the scores. weights: [largest count]
// scratch.
template <class T>
double positive_loss(const LossOptions& options, T positive, Side<T>* sides, T scale, T* weights, T* to_positive) {
  const T margin = static_cast<T>(options.margin);
  *to_positive = 0;
  if (options.kind == Loss::kMargin) return margin_loss(margin, positive, sides, scale, to_positive);
  double loss = 0;
  const bool has[2] = {sides[0].present() > 0, sides[1].present() > 0};
  const T share = static_cast<T>(has[0] && has[1] ? 0.5 : 1);
  for (int s = 0; s < 2; ++s) {
    if (!has[s]) {
      std::fill(sides[s].scores, sides[s].scores + sides[s].count, T{0});
    } else if (options.kind == Loss::kSoftmax) {
      loss += share * softmax_loss(positive, sides[s], scale * share, to_positive);
    } else {
      loss += share * self_adversarial_loss(margin, static_cast<T>(options.temperature), positive, sides[s],
                                            scale * share, weights, to_positive);
    }
  }
  return loss;
}

}  // namespace tercet
