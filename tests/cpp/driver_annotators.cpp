// Dawid-Skene against plain loops over items, annotators and classes.
#include <cmath>
#include <vector>

#include "annotators.h"
#include "inputs.h"

namespace {

using namespace tercet;
using Values = std::vector<double>;

// Few sizes are none at all or one; sometimes there are enough labels for every share to have items.
struct LabelProblem {
  int64_t num_items, num_annotators, num_classes;
  std::vector<int64_t> offsets{0};
  std::vector<int32_t> rows;

  explicit LabelProblem(Random& random)
      : num_items(random.chance(0.1)   ? 0
                  : random.chance(0.2) ? random.between(300, 900)
                                       : random.between(1, 20)),
        num_annotators(random.between(random.chance(0.1) ? 0 : 1, random.chance(0.2) ? 130 : 6)),
        num_classes(random.chance(0.2) ? 1 : random.between(2, 7)) {
    const bool none = num_annotators == 0 || random.chance(0.1);
    const int64_t most = none ? 0 : random.chance(0.1) ? 400 : 6;
    const int64_t used = std::max<int64_t>(num_annotators - random.between(0, 1), 1);  // by any label
    for (int64_t i = 0; i < num_items; ++i) {
      const int64_t truth = random.below(num_classes), count = random.chance(0.2) ? 0 : random.between(0, most);
      for (int64_t j = 0; j < count; ++j) {
        const int64_t annotator = random.below(used), label = random.chance(0.7) ? truth : random.below(num_classes);
        rows.push_back(static_cast<int32_t>(annotator * num_classes + label));
      }
      offsets.push_back(static_cast<int64_t>(rows.size()));
    }
    offsets = exact(offsets), rows = exact(rows);
  }

  Labels view() const { return {offsets.data(), rows.data(), num_items, num_annotators, num_classes}; }
  int64_t table() const { return (num_annotators * num_classes + 1) * num_classes; }
  int64_t at(int64_t j, int64_t k) const { return rows[j] * num_classes + k; }
};

// The share of each label among an item's; equal shares without.
Values votes(const LabelProblem& p) {
  Values posteriors(p.num_items * p.num_classes, 0);
  for (int64_t i = 0; i < p.num_items; ++i) {
    const double count = static_cast<double>(p.offsets[i + 1] - p.offsets[i]);
    for (int64_t j = p.offsets[i]; j < p.offsets[i + 1]; ++j) {
      posteriors[i * p.num_classes + p.rows[j] % p.num_classes] += 1 / count;
    }
    for (int64_t k = 0; count == 0 && k < p.num_classes; ++k) {
      posteriors[i * p.num_classes + k] = 1 / static_cast<double>(p.num_classes);
    }
  }
  return posteriors;
}

Values count_plainly(const LabelProblem& p, const Values& posteriors, const Values& before) {
  Values table = before;
  for (int64_t i = 0; i < p.num_items; ++i) {
    for (int64_t k = 0; k < p.num_classes; ++k) {
      const double share = posteriors[i * p.num_classes + k];
      for (int64_t j = p.offsets[i]; j < p.offsets[i + 1]; ++j) table[p.at(j, k)] += share;
      table[p.table() - p.num_classes + k] += share;
    }
  }
  return table;
}

Values divide_plainly(const LabelProblem& p, const Values& counts, double smoothing) {
  Values model(p.table());
  const int64_t classes = p.num_classes;
  for (int64_t a = 0; a <= p.num_annotators; ++a) {
    const bool prior = a == p.num_annotators;  // a single row
    for (int64_t k = 0; k < (prior ? 1 : classes); ++k) {
      const auto place = [&](int64_t l) { return a * classes * classes + (prior ? l : l * classes + k); };
      const double added = prior ? 0 : smoothing;
      double total = 0;
      for (int64_t l = 0; l < classes; ++l) total += counts[place(l)] + added;
      for (int64_t l = 0; l < classes; ++l) {
        model[place(l)] = total > 0 ? (counts[place(l)] + added) / total : 1 / static_cast<double>(classes);
      }
    }
  }
  return model;
}

Values expect_plainly(const LabelProblem& p, const Values& model, const Values& evidence) {
  Values posteriors(p.num_items * p.num_classes);
  for (int64_t i = 0; i < p.num_items; ++i) {
    double* row = posteriors.data() + i * p.num_classes;
    double highest = -INFINITY, total = 0;
    for (int64_t k = 0; k < p.num_classes; ++k) {
      row[k] = std::log(model[p.table() - p.num_classes + k]);
      if (!evidence.empty()) row[k] += std::log(evidence[i * p.num_classes + k]);
      for (int64_t j = p.offsets[i]; j < p.offsets[i + 1]; ++j) row[k] += std::log(model[p.at(j, k)]);
      highest = std::max(highest, row[k]);
    }
    for (int64_t k = 0; k < p.num_classes; ++k) total += std::exp(row[k] - highest);
    for (int64_t k = 0; k < p.num_classes; ++k) row[k] = std::exp(row[k] - highest) / total;
  }
  return posteriors;
}

void check_close(const Values& got, const Values& want) {
  CHECK(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i) CHECK(std::fabs(got[i] - want[i]) <= 1e-9 * std::max(1.0, want[i]));
}

struct Step {
  Values counts, model, logarithms, posteriors, after;
  double change;
};

Step step_with(const LabelProblem& p, const Values& before, const Values& start, const Values& evidence,
               double smoothing, int threads) {
  Step step{{}, Values(p.table()), Values(p.table()), start, {}, 0};
  Values workspace(workspace_size(p.view()), NAN);
  const auto front = [&] { return Values(workspace.begin(), workspace.begin() + p.table()); };
  count_labels(p.view(), before.data(), start.data(), workspace.data(), threads);
  step.counts = front();
  maximise(p.view(), workspace.data(), smoothing, step.model.data(), step.logarithms.data(), threads);
  step.change = expect(p.view(), step.logarithms.data(), evidence.empty() ? nullptr : evidence.data(), before.data(),
                       step.posteriors.data(), workspace.data(), threads);
  step.after = front();
  return step;
}

}  // namespace

void check_annotators_kernels(uint64_t seed) {
  Random random(seed);
  const LabelProblem problem(random);
  const double smoothing = random.chance(0.5) ? 0 : random.uniform();
  const bool extends = random.chance(0.5);
  const Values before = extends ? draw_values<double>(random, problem.table(), 0, 9, false) : Values(problem.table());
  Values evidence = draw_values<double>(random, extends ? problem.num_items * problem.num_classes : 0, 0.01, 2, false);
  for (size_t i = 1; i < evidence.size(); ++i) {
    if (static_cast<int64_t>(i) % problem.num_classes != 0 && random.chance(0.2)) evidence[i] = 0;
  }
  const Values start = votes(problem);
  const Step first = step_with(problem, before, start, evidence, smoothing, kThreadCounts[0]);
  check_close(first.counts, count_plainly(problem, start, before));
  check_close(first.model, divide_plainly(problem, first.counts, smoothing));
  for (size_t i = 0; i < first.model.size(); ++i) CHECK(first.logarithms[i] == std::log(first.model[i]));
  check_close(first.posteriors, expect_plainly(problem, first.model, evidence));
  check_close(first.after, count_plainly(problem, first.posteriors, before));
  double change = 0;
  for (size_t i = 0; i < start.size(); ++i) change = std::max(change, std::fabs(first.posteriors[i] - start[i]));
  CHECK(first.change == change);
  for (const int threads : kThreadCounts) {
    const Step again = step_with(problem, before, start, evidence, smoothing, threads);
    CHECK(same_bits(again.counts, first.counts) && same_bits(again.model, first.model));
    CHECK(same_bits(again.posteriors, first.posteriors) && same_bits(again.after, first.after));
    CHECK(again.change == first.change);
  }
}
