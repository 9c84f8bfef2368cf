// What the steps of every CUDA kernel share; plain C++, so that tests run the same steps on the host.
//
// An algorithm is a sequence of steps over a Device: Stream (launch.cuh) runs them on a GPU, and a loop in
// tests/cpp/driver_cuda_steps.cpp runs them under sanitizers. A Device offers
//   for_each(name, count, body)                    body(i) for 0 <= i < count, in any order
//   expand(name, starts, num_segments, begin, end, body)
//                                                  body(item, segment) for begin <= item < min(end,
//                                                  starts[num_segments]), where starts[segment] <= item <
//                                                  starts[segment + 1], in any order
//   scan_bytes, scan(values, count, temp)          exclusive sums in place
//   sort_bytes, sort(keys in, out, values in, out, count, end_bit, temp)    stable, by the bits below end_bit
//   read(pointer)                                  one number to the host: waits for the device
//   for_each_block(name, count, work)              for 0 <= block < count, in any order: work.start, work.step for
//                                                  0 <= step < work.num_steps, work.finish, work.settle. Each is called
//                                                  for kBlock threads, in any order, all of them before the next. A
//                                                  block has one Work::Shared, and each thread of it one Work::Own.
//                                                  Where blocks differ in their steps, start leaves in Shared what
//                                                  work.num_steps(shared) computes their number from.
// Steps run one after another; within a step a body writes only what no other body of it reads or writes.
#pragma once

#include <cstdint>

#include "core.h"

// Loops over a thread's own arrays are unrolled, so that these stay in registers.
#ifdef __CUDA_ARCH__
#define TERCET_UNROLL _Pragma("unroll")
#else
#define TERCET_UNROLL
#endif

#ifdef __CUDACC__
#define TERCET_DEVICE __device__
#define TERCET_HOST_DEVICE __host__ __device__
#else
#define TERCET_DEVICE
#define TERCET_HOST_DEVICE
#endif

namespace tercet::cuda {

constexpr int kBlock = 256;  // threads

// Where kernels run: a device's index and a cudaStream_t of it.
struct Queue {
  int device;
  uintptr_t stream;
};

// Scratch of cub, on the device.
struct Temp {
  unsigned char* memory;
  int64_t bytes;
};

// Cuts arrays out of one block. Over nullptr it only counts, so that one description of the arrays gives their places
// and their size.
class Carver {
 public:
  explicit Carver(unsigned char* memory) : memory_(memory) {}

  template <class T>
  T* take(int64_t count) {
    T* taken = memory_ ? reinterpret_cast<T*>(memory_ + bytes_) : nullptr;
    bytes_ += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return taken;
  }

  Temp take_temp(int64_t bytes) { return {take<unsigned char>(bytes), bytes}; }

  int64_t bytes() const { return bytes_; }

 private:
  static constexpr int64_t kAlignment = 256;  // what cudaMalloc promises, so more than any type or cub needs
  unsigned char* memory_;
  int64_t bytes_ = 0;
};

template <class T>
TERCET_HOST_DEVICE inline T smaller(T a, T b) {
  return b < a ? b : a;
}

template <class T>
TERCET_HOST_DEVICE inline T larger(T a, T b) {
  return a < b ? b : a;
}

TERCET_HOST_DEVICE inline int64_t ceil_div(int64_t count, int64_t size) { return (count + size - 1) / size; }

// The first position of first .. last whose value is not below `value`, or last.
template <class T>
TERCET_HOST_DEVICE inline int64_t lower_bound(const T* values, int64_t first, int64_t last, T value) {
  while (first < last) {
    int64_t middle = first + (last - first) / 2;
    if (values[middle] < value) {
      first = middle + 1;
    } else {
      last = middle;
    }
  }
  return first;
}

// The last segment of first .. last that starts at or before `item`; starts[first] <= item must hold. So the segment
// that holds the item, since empty segments start where the next one does.
TERCET_HOST_DEVICE inline int64_t segment_of(const int64_t* starts, int64_t first, int64_t last, int64_t item) {
  return lower_bound(starts, first, last, item + 1) - 1;
}

// How many steps a block of a Work takes, once it has started.
template <class Work>
TERCET_HOST_DEVICE inline int64_t num_steps_of(const Work& work, const typename Work::Shared& shared) {
  if constexpr (requires { work.num_steps(shared); }) {
    return work.num_steps(shared);
  } else {
    return work.num_steps;
  }
}

// Where an entity stands, or would stand, in a row of sets.
TERCET_HOST_DEVICE inline int64_t place_of(const Sets& sets, int64_t row, int32_t entity) {
  return lower_bound(sets.entities, sets.offsets[row], sets.offsets[row + 1], entity);
}

// Where an entity stands in a row of sets; -1 if it is no member.
TERCET_HOST_DEVICE inline int64_t find(const Sets& sets, int64_t row, int32_t entity) {
  int64_t place = place_of(sets, row, entity);
  return place < sets.offsets[row + 1] && sets.entities[place] == entity ? place : -1;
}

// Integer counts that several bodies add to: the sum does not depend on their order.
TERCET_HOST_DEVICE inline void add_to(int64_t* count, int64_t more) {
#ifdef __CUDA_ARCH__
  atomicAdd(reinterpret_cast<unsigned long long*>(count), static_cast<unsigned long long>(more));
#else
  *count += more;
#endif
}

// The next free place of a list that several bodies write to, in any order.
TERCET_HOST_DEVICE inline int take_place(int* size) {
#ifdef __CUDA_ARCH__
  return atomicAdd(size, 1);
#else
  return (*size)++;
#endif
}

// Raises a maximum that several bodies compute. Numbers that are not negative are ordered as their bits are.
TERCET_HOST_DEVICE inline void raise_to(double* largest, double value) {
#ifdef __CUDA_ARCH__
  atomicMax(reinterpret_cast<unsigned long long*>(largest),
            static_cast<unsigned long long>(__double_as_longlong(value)));
#else
  if (*largest < value) *largest = value;
#endif
}

// The bits that hold every key up to `largest`; at least 1.
inline int bits_of(uint64_t largest) {
  int bits = 1;
  while (bits < 64 && largest >> bits) ++bits;
  return bits;
}

}  // namespace tercet::cuda
