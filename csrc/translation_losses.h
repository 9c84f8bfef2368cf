// The losses of one positive, and their gradients to its scores; see ops/translation_training.py for the formulas.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

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

template <class T>
T log_sigmoid(T x) {
  return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x));
}

template <class T>
T sigmoid(T x) {
  return 1 / (1 + std::exp(-x));
}

template <class T>
double margin_loss(T margin, T positive, Side<T>* sides, T scale, T* to_positive) {
  const int64_t present = sides[0].present() + sides[1].present();
  if (!present) return 0;
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
  *to_positive = -scale * violations / present;
  return loss / present;
}

template <class T>
double softmax_loss(T positive, const Side<T>& side, T scale, T* to_positive) {
  T largest = positive, total = 0;
  for (int64_t k = 0; k < side.count; ++k) largest = std::max(largest, side.scores[k]);
  for (int64_t k = 0; k < side.count; ++k) total += side.scores[k] = std::exp(side.scores[k] - largest);
  const T own = std::exp(positive - largest);
  total += own;
  for (int64_t k = 0; k < side.count; ++k) side.scores[k] *= scale / total;
  *to_positive += scale * (own / total - 1);
  return std::log(static_cast<double>(total)) + largest - positive;
}

template <class T>
double self_adversarial_loss(T margin, T temperature, T positive, const Side<T>& side, T scale, T* to_positive) {
  T largest = -std::numeric_limits<T>::infinity(), total = 0;
  for (int64_t k = 0; k < side.count; ++k) largest = std::max(largest, temperature * side.scores[k]);
  const auto weight = [&](T score) { return std::exp(temperature * score - largest); };
  for (int64_t k = 0; k < side.count; ++k) total += weight(side.scores[k]);
  double loss = -log_sigmoid(margin + positive);
  for (int64_t k = 0; k < side.count; ++k) {
    T& score = side.scores[k];
    const T p = weight(score) / total;
    if (p > 0) loss -= static_cast<double>(p) * log_sigmoid(-margin - score);
    score = p > 0 ? scale / 2 * p * sigmoid(margin + score) : 0;
  }
  *to_positive -= scale / 2 * sigmoid(-margin - positive);
  return loss / 2;
}

// The loss of a positive with its two sides; its gradients, times `scale`, replace the scores.
template <class T>
double positive_loss(const LossOptions& options, T positive, Side<T>* sides, T scale, T* to_positive) {
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
                                            scale * share, to_positive);
    }
  }
  return loss;
}

}  // namespace tercet
