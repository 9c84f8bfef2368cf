// Dawid-Skene: the true class of items from the labels of annotators who err, each in a way of their own.
//
// With T[i, k] the probability that item i is of class k, one iteration of expectation-maximisation is
//   counts[a, l, k] = sum of T[i, k] over the labels (i, a, l);  prior[k] = mean of T[., k]
//   confusion[a, l, k] = counts[a, l, k] / sum_l counts[a, l, k]
//   T[i, k] = softmax_k(log prior[k] + sum over the labels (i, a, l) of log confusion[a, l, k])
// Costs a read of the labels and num_classes additions and multiply-adds for each label. Items are split into kShares runs
// whose counts are summed apart and then in order, so results do not depend on threads.
#pragma once

#include <cstdint>

namespace tercet {

inline constexpr int64_t kShares = 16;

// Labels by item: those of item i are offsets[i] .. offsets[i + 1].
struct Labels {
  const int64_t* offsets;     // [num_items + 1]
  const int32_t* annotators;  // [num_labels]
  const int32_t* labels;      // [num_labels], 0 .. num_classes - 1
  int64_t num_items;
  int64_t num_annotators;
  int64_t num_classes;
};

// Majority votes as probabilities: the share of each label among an item's, equal shares without labels.
void vote(const Labels& labels,
          double* posteriors,  // [num_items, num_classes]
          int num_threads);

// Counts and sums of T for given posteriors; shares 0 .. kShares - 1 lie one after another, each of
// num_annotators num_classes num_classes counts and num_classes sums, and end up added in the first.
void count_errors(const Labels& labels, const double* posteriors, double* shares, int num_threads);

// Logarithms of what counts make: log_confusion [num_annotators, num_classes (label), num_classes (true)], log_prior
// [num_classes]. `smoothing` is added to every count of a label; without counts and smoothing labels are equally likely.
void maximise(const double* counts,  // as count_errors leaves the first share
              double smoothing, double* log_confusion, double* log_prior, int64_t num_annotators, int64_t num_classes,
              int num_threads);

// Posteriors given the model and, unless `shares` is null, the counts that they make, in one pass; returns the labels'
// log likelihood.
double expect(const Labels& labels, const double* log_confusion, const double* log_prior, double* posteriors,
              double* shares, int num_threads);

}  // namespace tercet
