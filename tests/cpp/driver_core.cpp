// parallel_for runs each task once with a worker below num_threads; with_dtype refuses what it does not know.
#include <stdexcept>
#include <vector>

#include "check.h"
#include "core.h"

void check_core_kernels(uint64_t seed) {
  Random random(seed);
  const int64_t num_tasks = random.chance(0.1) ? 0 : random.below(300);
  for (const int num_threads : kThreadCounts) {
    std::vector<int32_t> runs(num_tasks);
    std::vector<int64_t> by_worker(num_threads);  // each worker owns its entry, as kernels own their scratch
    tercet::parallel_for(num_tasks, num_threads, [&](int64_t task, int worker) {
      CHECK(worker >= 0 && worker < num_threads);
      runs[task] += 1;
      by_worker[worker] += 1;
    });
    int64_t total = 0;
    for (const int64_t tasks : by_worker) total += tasks;
    CHECK(total == num_tasks);
    for (const int32_t times : runs) CHECK(times == 1);
  }

  size_t bytes = 0;
  const auto measure = [&](auto zero) { bytes = sizeof(zero); };
  tercet::with_dtype(0, measure);
  CHECK(bytes == 4);
  tercet::with_dtype(1, measure);
  CHECK(bytes == 8);
  bool refused = false;
  try {
    tercet::with_dtype(static_cast<int>(random.between(2, 1000)), measure);
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  CHECK(refused);
}
