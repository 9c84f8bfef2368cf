// Runs every kernel over random and broken shapes under AddressSanitizer and UndefinedBehaviorSanitizer, without
// Python:
//   cmake -S . -B build/sanitize -DTERCET_SANITIZE=ON && cmake --build build/sanitize --target tercet_driver
//   build/sanitize/tercet_driver [SEEDS] [FIRST_SEED]
// driver_<name>.cpp defines check_<name>_kernels and <name> gets its line in CHECKS. A check draws its inputs from the
// seed, runs the kernels on heap blocks of exactly the promised size with each of kThreadCounts, and compares what they
// give with a plain loop.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#define CHECKS(ROW)         \
  ROW(core)                 \
  ROW(entity_sets)          \
  ROW(traversal)            \
  ROW(graph)                \
  ROW(translation)          \
  ROW(ranking)              \
  ROW(translation_training) \
  ROW(cuda_steps) ROW(cuda_translation) ROW(cuda_training) ROW(gating) ROW(streaming) ROW(cuda_gating) ROW(annotators)

#define DECLARE(name) void check_##name##_kernels(uint64_t seed);
CHECKS(DECLARE)

#define ENTRY(name) {#name, check_##name##_kernels},
static constexpr struct {
  const char* name;
  void (*run)(uint64_t seed);
} kChecks[] = {CHECKS(ENTRY)};

int main(int argc, char** argv) {
  const uint64_t seeds = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 200;
  const uint64_t first = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
  if (seeds == 0 || argc > 3) {
    std::fprintf(stderr, "usage: %s [SEEDS >= 1] [FIRST_SEED]\n", argv[0]);
    return 2;
  }
  for (const auto& check : kChecks) {
    std::printf("%s: seeds %llu to %llu ... ", check.name, static_cast<unsigned long long>(first),
                static_cast<unsigned long long>(first + seeds - 1));
    std::fflush(stdout);
    for (uint64_t seed = first; seed < first + seeds; ++seed) check.run(seed);
    std::printf("ok\n");
  }
}
