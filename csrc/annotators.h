// Dawid-Skene: the true class of items from the labels of annotators who err, each in a way of their own.
//
// With T[i, k] the probability that item i is of class k, an iteration of expectation-maximisation is
//   counts[a, l, k] = sum of T[i, k] over the labels (i, a, l);  sums[k] = sum of T[i, k] over the items
//   confusion[a, l, k] = counts[a, l, k] / sum_l counts[a, l, k];  prior[k] = sums[k] / sum_k sums[k]
//   T[i, k] = softmax_k(log prior[k] + log evidence[i, k] + sum over the labels (i, a, l) of log confusion[a, l, k])
// It costs two reads of the labels, with num_classes additions at a place of the tables each, and one write of T. Items
// are split into shares whose counts are summed apart and then in order, so that results do not depend on threads.
//
// A table is a matrix [label, true class] for each annotator, one after another, and then a row of classes: counts and
// sums, or confusion and prior, or their logarithms.
#pragma once

#include <cstdint>

namespace tercet {

// Labels by item: those of item i are offsets[i] .. offsets[i + 1].
struct Labels {
  const int64_t* offsets;  // [num_items + 1]
  const int32_t* rows;     // [num_labels], annotator * num_classes + label: the row of a table that is meant
  int64_t num_items;
  int64_t num_annotators;
  int64_t num_classes;
};

// The number of doubles that counting needs; its table comes first. It depends on the sizes alone.
int64_t workspace_size(const Labels& labels);

// The table of counts and sums for given T, added to the table `before`.
void count_labels(const Labels& labels, const double* before,
                  const double* posteriors,  // [num_items, num_classes]
                  double* workspace, int num_threads);

// The table of confusion and prior, and its logarithms. `smoothing` is added to every count; what has no count at all
// is uniform.
void maximise(const Labels& labels, const double* counts, double smoothing, double* model, double* logarithms,
              int num_threads);

// T, and then its table of counts and sums as count_labels gives it; returns the largest change of T. Each item needs a
// class that neither its evidence nor its labels exclude: where counts come from the T that was there before, the class
// which is likeliest there is one, unless the evidence excludes it.
double expect(const Labels& labels, const double* logarithms,
              const double* evidence,  // [num_items, num_classes], the likelihood of earlier labels; null: all alike
              const double* before,
              double* posteriors,  // [num_items, num_classes]
              double* workspace, int num_threads);

}  // namespace tercet
