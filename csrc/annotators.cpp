// See annotators.h.
#include "annotators.h"

#include <algorithm>
#include <cmath>

#include "core.h"

namespace tercet {

namespace {

int64_t share_size(const Labels& labels) {
  return labels.num_annotators * labels.num_classes * labels.num_classes + labels.num_classes;
}

// Calls body(share, first item, last item + 1) for every share.
template <class Body>
void each_share(const Labels& labels, int num_threads, const Body& body) {
  parallel_for(kShares, num_threads, [&](int64_t share, int) {
    body(share, labels.num_items * share / kShares, labels.num_items * (share + 1) / kShares);
  });
}

// Adds an item's posterior to the counts of its labels and to the sums.
void count_item(const Labels& labels, int64_t item, const double* posterior, double* counts) {
  const int64_t classes = labels.num_classes;
  for (int64_t j = labels.offsets[item]; j < labels.offsets[item + 1]; ++j) {
    double* row = counts + (int64_t{labels.annotators[j]} * classes + labels.labels[j]) * classes;
    for (int64_t k = 0; k < classes; ++k) row[k] += posterior[k];
  }
  double* sums = counts + labels.num_annotators * classes * classes;
  for (int64_t k = 0; k < classes; ++k) sums[k] += posterior[k];
}

// Shares are added to the first, in order.
void add_shares(double* shares, int64_t size, int num_threads) {
  constexpr int64_t kRun = 4096;
  parallel_for((size + kRun - 1) / kRun, num_threads, [&](int64_t run, int) {
    const int64_t end = std::min(size, (run + 1) * kRun);
    for (int64_t share = 1; share < kShares; ++share) {
      for (int64_t i = run * kRun; i < end; ++i) shares[i] += shares[share * size + i];
    }
  });
}

// The softmax of logits in place; returns the logarithm of the exponentials' sum.
double normalise(double* logits, int64_t classes) {
  const double highest = *std::max_element(logits, logits + classes);
  double total = 0;
  for (int64_t k = 0; k < classes; ++k) total += logits[k] = std::exp(logits[k] - highest);
  for (int64_t k = 0; k < classes; ++k) logits[k] /= total;
  return highest + std::log(total);
}

}  // namespace

void vote(const Labels& labels, double* posteriors, int num_threads) {
  each_share(labels, num_threads, [&](int64_t, int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      double* row = posteriors + i * labels.num_classes;
      const int64_t count = labels.offsets[i + 1] - labels.offsets[i];
      std::fill_n(row, labels.num_classes, count == 0 ? 1.0 / static_cast<double>(labels.num_classes) : 0.0);
      for (int64_t j = labels.offsets[i]; j < labels.offsets[i + 1]; ++j) {
        row[labels.labels[j]] += 1;
      }
      for (int64_t k = 0; count > 0 && k < labels.num_classes; ++k) row[k] /= static_cast<double>(count);
    }
  });
}

void count_errors(const Labels& labels, const double* posteriors, double* shares, int num_threads) {
  const int64_t size = share_size(labels);
  each_share(labels, num_threads, [&](int64_t share, int64_t first, int64_t end) {
    std::fill_n(shares + share * size, size, 0.0);
    for (int64_t i = first; i < end; ++i) {
      count_item(labels, i, posteriors + i * labels.num_classes, shares + share * size);
    }
  });
  add_shares(shares, size, num_threads);
}

void maximise(const double* counts, double smoothing, double* log_confusion, double* log_prior, int64_t num_annotators,
              int64_t num_classes, int num_threads) {
  parallel_for((num_annotators + 63) / 64, num_threads, [&](int64_t task, int) {
    for (int64_t a = task * 64; a < std::min(num_annotators, (task + 1) * 64); ++a) {
      const double* own = counts + a * num_classes * num_classes;
      double* out = log_confusion + a * num_classes * num_classes;
      for (int64_t k = 0; k < num_classes; ++k) {
        double total = 0;
        for (int64_t l = 0; l < num_classes; ++l) total += own[l * num_classes + k] + smoothing;
        for (int64_t l = 0; l < num_classes; ++l) {
          const double share = total > 0 ? (own[l * num_classes + k] + smoothing) / total
                                         : 1 / static_cast<double>(num_classes);
          out[l * num_classes + k] = std::log(share);
        }
      }
    }
  });
  const double* sums = counts + num_annotators * num_classes * num_classes;
  double total = 0;
  for (int64_t k = 0; k < num_classes; ++k) total += sums[k];
  for (int64_t k = 0; k < num_classes; ++k) {
    log_prior[k] = std::log(total > 0 ? sums[k] / total : 1 / static_cast<double>(num_classes));
  }
}

double expect(const Labels& labels, const double* log_confusion, const double* log_prior, double* posteriors,
              double* shares, int num_threads) {
  const int64_t classes = labels.num_classes, size = share_size(labels);
  double likelihoods[kShares] = {};
  each_share(labels, num_threads, [&](int64_t share, int64_t first, int64_t end) {
    if (shares != nullptr) std::fill_n(shares + share * size, size, 0.0);
    double likelihood = 0;
    for (int64_t i = first; i < end; ++i) {
      double* logits = posteriors + i * classes;
      std::copy_n(log_prior, classes, logits);
      for (int64_t j = labels.offsets[i]; j < labels.offsets[i + 1]; ++j) {
        const double* row = log_confusion + (int64_t{labels.annotators[j]} * classes + labels.labels[j]) * classes;
        for (int64_t k = 0; k < classes; ++k) logits[k] += row[k];
      }
      likelihood += normalise(logits, classes);
      if (shares != nullptr) count_item(labels, i, logits, shares + share * size);
    }
    likelihoods[share] = likelihood;
  });
  if (shares != nullptr) add_shares(shares, size, num_threads);
  double total = 0;
  for (const double likelihood : likelihoods) total += likelihood;
  return total;
}

}  // namespace tercet
