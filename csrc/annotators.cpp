// See annotators.h.
#include "annotators.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core.h"
#include "prefetch.h"

namespace tercet {

namespace {

// Items are split into shares, each with its table: fewer where tables outweigh the labels, to save memory.
constexpr int64_t kMostShares = 16;
constexpr int64_t kFewestShares = 4;

int64_t table_size(const Labels& labels) {
  return labels.num_annotators * labels.num_classes * labels.num_classes + labels.num_classes;
}

int64_t num_shares(const Labels& labels) {
  return std::clamp(labels.offsets[labels.num_items] / table_size(labels), kFewestShares, kMostShares);
}

// Adds an item's posterior to a table.
void count_item(const Labels& labels, int64_t item, const double* posterior, double* table) {
  const int64_t classes = labels.num_classes;
  for (int64_t j = labels.offsets[item]; j < labels.offsets[item + 1]; ++j) {
    double* row = table + labels.rows[j] * classes;
    for (int64_t k = 0; k < classes; ++k) row[k] += posterior[k];
  }
  double* sums = table + labels.num_annotators * classes * classes;
  for (int64_t k = 0; k < classes; ++k) sums[k] += posterior[k];
}

// Calls body(item, table, scratch) for every item and returns the largest result; then the tables are added to the
// first, in order.
template <class Body>
double count_items(const Labels& labels, const double* before, double* workspace, int num_threads, const Body& body) {
  const int64_t size = table_size(labels), stride = size + labels.num_classes, shares = num_shares(labels);
  double largest[kMostShares] = {};
  parallel_for(shares, num_threads, [&](int64_t share, int) {
    double* table = workspace + share * stride;
    share == 0 ? std::copy_n(before, size, table) : std::fill_n(table, size, 0.0);
    const int64_t end = labels.num_items * (share + 1) / shares;
    double result = 0;
    for (int64_t item = labels.num_items * share / shares; item < end; ++item) {
      result = std::max(result, body(item, table, table + size));
    }
    largest[share] = result;
  });
  constexpr int64_t kRun = 4096;
  parallel_for((size + kRun - 1) / kRun, num_threads, [&](int64_t run, int) {
    const int64_t end = std::min(size, (run + 1) * kRun);
    for (int64_t share = 1; share < shares; ++share) {
      for (int64_t i = run * kRun; i < end; ++i) workspace[i] += workspace[share * stride + i];
    }
  });
  return *std::max_element(largest, largest + shares);
}

// The shares of `size` counts that lie `stride` apart, and their logarithms.
void divide(const double* counts, int64_t size, int64_t stride, double smoothing, double* model, double* logarithms) {
  double total = 0;
  for (int64_t l = 0; l < size; ++l) total += counts[l * stride] + smoothing;
  for (int64_t l = 0; l < size; ++l) {
    const double share = total > 0 ? (counts[l * stride] + smoothing) / total : 1 / static_cast<double>(size);
    model[l * stride] = share;
    logarithms[l * stride] = std::log(share);
  }
}

// The softmax of logits in place, of which one at least must be finite.
void normalise(double* logits, int64_t classes) {
  const double highest = *std::max_element(logits, logits + classes);
  double total = 0;
  for (int64_t k = 0; k < classes; ++k) total += logits[k] = std::exp(logits[k] - highest);
  for (int64_t k = 0; k < classes; ++k) logits[k] /= total;
}

}  // namespace

int64_t workspace_size(const Labels& labels) { return num_shares(labels) * (table_size(labels) + labels.num_classes); }

void count_labels(const Labels& labels, const double* before, const double* posteriors, double* workspace,
                  int num_threads) {
  count_items(labels, before, workspace, num_threads, [&](int64_t item, double* table, double*) {
    count_item(labels, item, posteriors + item * labels.num_classes, table);
    return 0.0;
  });
}

void maximise(const Labels& labels, const double* counts, double smoothing, double* model, double* logarithms,
              int num_threads) {
  const int64_t num_annotators = labels.num_annotators, num_classes = labels.num_classes;
  constexpr int64_t kRun = 64;
  parallel_for((num_annotators + kRun - 1) / kRun, num_threads, [&](int64_t run, int) {
    for (int64_t a = run * kRun; a < std::min(num_annotators, (run + 1) * kRun); ++a) {
      for (int64_t k = 0; k < num_classes; ++k) {
        const int64_t at = a * num_classes * num_classes + k;
        divide(counts + at, num_classes, num_classes, smoothing, model + at, logarithms + at);
      }
    }
  });
  const int64_t at = num_annotators * num_classes * num_classes;
  divide(counts + at, num_classes, 1, 0, model + at, logarithms + at);
}

double expect(const Labels& labels, const double* logarithms, const double* evidence, const double* before,
              double* posteriors, double* workspace, int num_threads) {
  constexpr int64_t kAhead = 16;  // labels from here, whose rows are asked for
  const int64_t classes = labels.num_classes, last = labels.offsets[labels.num_items] - 1;
  const double* log_prior = logarithms + labels.num_annotators * classes * classes;
  return count_items(labels, before, workspace, num_threads, [&](int64_t item, double* table, double* logits) {
    std::copy_n(log_prior, classes, logits);
    if (evidence != nullptr) {
      for (int64_t k = 0; k < classes; ++k) logits[k] += std::log(evidence[item * classes + k]);
    }
    for (int64_t j = labels.offsets[item]; j < labels.offsets[item + 1]; ++j) {
      const int64_t ahead = labels.rows[std::min(j + kAhead, last)] * classes;
      for (const double* later : {logarithms + ahead, static_cast<const double*>(table) + ahead}) {
        prefetch(later);
        prefetch(later + classes - 1);  // rows may lie in two cache lines
      }
      const double* row = logarithms + labels.rows[j] * classes;
      for (int64_t k = 0; k < classes; ++k) logits[k] += row[k];
    }
    normalise(logits, classes);
    double change = 0;
    for (int64_t k = 0; k < classes; ++k) {
      change = std::max(change, std::fabs(std::exchange(posteriors[item * classes + k], logits[k]) - logits[k]));
    }
    count_item(labels, item, logits, table);
    return change;
  });
}

}  // namespace tercet
