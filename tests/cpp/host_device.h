// The Device of cuda/steps.h on the host, and scratch for it. Bodies run in a scattered order.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include "../../cuda/steps.h"
#include "check.h"

// Scratch of cub is overwritten before and after, shared and own memory of blocks before.
class HostDevice {
 public:
  explicit HostDevice(uint64_t seed) : tile_(seed % 3 == 0 ? 1 : 5) {}

  template <class Body>
  void for_each(const char*, int64_t count, const Body& body) const {
    scattered(0, count, body);
  }

  // As expand_kernel: each tile narrows the search for its items.
  template <class Body>
  void expand(const char*, const int64_t* starts, int64_t num_segments, int64_t begin, int64_t end,
              const Body& body) const {
    if (end <= begin) return;
    end = std::min(end, starts[num_segments]);
    scattered(0, std::max<int64_t>((end - begin + tile_ - 1) / tile_, 0), [&](int64_t tile) {
      const int64_t first = begin + tile * tile_, last = std::min(first + tile_, end);
      const int64_t first_segment = tercet::cuda::segment_of(starts, 0, num_segments, first);
      const int64_t last_segment = tercet::cuda::segment_of(starts, 0, num_segments, last - 1) + 1;
      scattered(first, last, [&](int64_t item) {
        const int64_t segment = tercet::cuda::segment_of(starts, first_segment, last_segment, item);
        CHECK(0 <= segment && segment < num_segments && starts[segment] <= item && item < starts[segment + 1]);
        body(item, segment);
      });
    });
  }

  // Every phase of a block ends before the next begins. What threads share and own is full of rubbish at first.
  template <class Work>
  void for_each_block(const char*, int64_t count, const Work& work) const {
    constexpr int kThreads = tercet::cuda::kBlock;
    const auto shared = std::make_unique<typename Work::Shared>();
    std::vector<typename Work::Own> own(kThreads);
    scattered(0, count, [&](int64_t block) {
      std::memset(static_cast<void*>(shared.get()), 0xa5, sizeof(*shared));
      std::memset(static_cast<void*>(own.data()), 0xa5, kThreads * sizeof(own[0]));
      const auto each = [&](const auto& phase) {
        scattered(0, kThreads, [&](int64_t thread) { phase(static_cast<int>(thread), own[thread]); });
      };
      each([&](int thread, auto& mine) { work.start(block, thread, *shared, mine); });
      const int64_t num_steps = tercet::cuda::num_steps_of(work, *shared);
      for (int64_t step = 0; step < num_steps; ++step) {
        each([&](int thread, auto& mine) { work.step(block, step, thread, *shared, mine); });
      }
      each([&](int thread, auto& mine) { work.finish(block, thread, *shared, mine); });
      each([&](int thread, auto& mine) { work.settle(block, thread, *shared, mine); });
    });
  }

  int64_t scan_bytes(int64_t count) const { return count + 1; }

  void scan(int64_t* values, int64_t count, tercet::cuda::Temp temp) const {
    use(temp, scan_bytes(count));
    std::exclusive_scan(values, values + count, values, int64_t{0});
    use(temp, 0);
  }

  template <class T>
  int64_t sort_bytes(int64_t count, int end_bit) const {
    return count * static_cast<int64_t>(8 + sizeof(T)) + end_bit;
  }

  template <class T>
  void sort(const uint64_t* keys_in, uint64_t* keys, const T* values_in, T* values, int64_t count, int end_bit,
            tercet::cuda::Temp temp) const {
    use(temp, sort_bytes<T>(count, end_bit));
    const uint64_t mask = end_bit == 64 ? ~uint64_t{0} : (uint64_t{1} << end_bit) - 1;
    std::vector<int64_t> order(count);
    for (int64_t i = 0; i < count; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t i, int64_t j) { return (keys_in[i] & mask) < (keys_in[j] & mask); });
    for (int64_t i = 0; i < count; ++i) keys[i] = keys_in[order[i]], values[i] = values_in[order[i]];
    use(temp, 0);
  }

  int64_t read(const int64_t* value) const { return *value; }

 private:
  template <class Body>
  static void scattered(int64_t first, int64_t last, const Body& body) {
    const int64_t count = last - first, stride = count % 7919 == 0 ? 1 : 7919;  // a prime, so every index comes once
    for (int64_t i = 0; i < count; ++i) body(last - 1 - i * stride % count);
  }

  // Before and after, so that nothing else can live there unnoticed.
  static void use(tercet::cuda::Temp temp, int64_t needed) {
    CHECK(temp.bytes >= needed);
    std::memset(temp.memory, 0xcd, temp.bytes);
  }

  int64_t tile_;
};

// A block of exactly the promised size, aligned as the device's allocator aligns and full of rubbish.
class Scratch {
 public:
  explicit Scratch(int64_t bytes) : memory_(static_cast<unsigned char*>(::operator new(bytes, kAlignment))) {
    std::memset(memory_, 0xa5, bytes);
  }
  ~Scratch() { ::operator delete(memory_, kAlignment); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  unsigned char* data() const { return memory_; }

 private:
  static constexpr std::align_val_t kAlignment{256};
  unsigned char* memory_;
};

// Memory is a description of scratch; sizes it with a counting carver, then gives it to run over a real block.
template <class Memory, class Run, class... Args>
auto with_memory(const HostDevice& device, const Run& run, const Args&... args) {
  tercet::cuda::Carver counting(nullptr);
  Memory(device, counting, args...);
  const Scratch scratch(counting.bytes());
  tercet::cuda::Carver carver(scratch.data());
  return run(Memory(device, carver, args...));
}
