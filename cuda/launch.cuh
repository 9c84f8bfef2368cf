// How every CUDA kernel starts: one grid-stride loop, one load-balanced loop, one loop over blocks whose threads share
// memory, and cub's scan and sort, all on one stream.
//
// Indices are 64-bit everywhere. Nothing is allocated: scratch comes from the caller. Nothing waits for the device but
// read().
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <stdexcept>
#include <string>

#include "steps.h"

namespace tercet::cuda {

constexpr int64_t kTile = 8 * kBlock;     // items for which a block narrows its search once
constexpr int64_t kMaxBlocks = 8 * 1024;  // several for each place on the largest devices; beyond, threads loop

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();  // the error is reported here, not by the next call as well
  throw std::runtime_error(std::string("tercet: CUDA: ") + what + ": " + cudaGetErrorString(error));
}

// To cub a null pointer means that only the size of its scratch is asked for.
inline void check(Temp temp) {
  if (!temp.memory) throw std::invalid_argument("tercet: CUDA: scratch must not be null");
}

// Makes a device current and the previous one again afterwards.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&previous_), "cudaGetDevice");
    check(cudaSetDevice(device), "cudaSetDevice");
  }
  ~DeviceGuard() { (void)cudaSetDevice(previous_); }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
};

template <class Body>
__global__ void __launch_bounds__(kBlock) for_each_kernel(int64_t count, Body body) {
  int64_t stride = static_cast<int64_t>(gridDim.x) * kBlock;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; i < count; i += stride) body(i);
}

// A block takes tiles of items, finds the segments of the tile's first and last item, and each thread searches between
// these: long segments are spread over many blocks, short ones cost a search of few steps.
template <class Body>
__global__ void __launch_bounds__(kBlock)
    expand_kernel(const int64_t* starts, int64_t num_segments, int64_t begin, int64_t end, Body body) {
  __shared__ int64_t first_segment, last_segment;
  end = smaller(end, starts[num_segments]);
  int64_t stride = static_cast<int64_t>(gridDim.x) * kTile;
  for (int64_t tile = begin + static_cast<int64_t>(blockIdx.x) * kTile; tile < end; tile += stride) {
    int64_t tile_end = smaller(tile + kTile, end);
    if (threadIdx.x == 0) first_segment = segment_of(starts, 0, num_segments, tile);
    if (threadIdx.x == 32) last_segment = segment_of(starts, 0, num_segments, tile_end - 1) + 1;
    __syncthreads();
    for (int64_t item = tile + threadIdx.x; item < tile_end; item += kBlock) {
      body(item, segment_of(starts, first_segment, last_segment, item));
    }
    __syncthreads();  // the next tile overwrites the segments
  }
}

// At least two blocks share a processor, so that one computes while the other starts or settles.
template <class Work>
__global__ void __launch_bounds__(kBlock, 2) for_each_block_kernel(int64_t count, Work work) {
  __shared__ typename Work::Shared shared;
  const int thread = static_cast<int>(threadIdx.x);
  for (int64_t block = blockIdx.x; block < count; block += gridDim.x) {
    typename Work::Own own;
    work.start(block, thread, shared, own);
    __syncthreads();
    const int64_t num_steps = num_steps_of(work, shared);
    for (int64_t step = 0; step < num_steps; ++step) {
      work.step(block, step, thread, shared, own);
      __syncthreads();
    }
    work.finish(block, thread, shared, own);
    __syncthreads();
    work.settle(block, thread, shared, own);
    __syncthreads();
  }
}

// The Device of steps.h: a stream of a device, which is current as long as the object lives.
class Stream {
 public:
  explicit Stream(const Queue& queue) : guard_(queue.device), stream_(reinterpret_cast<cudaStream_t>(queue.stream)) {}

  template <class Body>
  void for_each(const char* name, int64_t count, const Body& body) const {
    if (count <= 0) return;
    for_each_kernel<<<num_blocks(count, kBlock), kBlock, 0, stream_>>>(count, body);
    check(cudaGetLastError(), name);
  }

  template <class Body>
  void expand(const char* name, const int64_t* starts, int64_t num_segments, int64_t begin, int64_t end,
              const Body& body) const {
    if (end <= begin) return;
    expand_kernel<<<num_blocks(end - begin, kTile), kBlock, 0, stream_>>>(starts, num_segments, begin, end, body);
    check(cudaGetLastError(), name);
  }

  template <class Work>
  void for_each_block(const char* name, int64_t count, const Work& work) const {
    if (count <= 0) return;
    for_each_block_kernel<<<num_blocks(count, 1), kBlock, 0, stream_>>>(count, work);
    check(cudaGetLastError(), name);
  }

  int64_t scan_bytes(int64_t count) const {
    size_t bytes = 0;
    int64_t* none = nullptr;
    check(cub::DeviceScan::ExclusiveSum(nullptr, bytes, none, none, count, stream_), "size of a scan's scratch");
    return static_cast<int64_t>(bytes);
  }

  void scan(int64_t* values, int64_t count, Temp temp) const {
    if (count <= 0) return;
    check(temp);
    size_t bytes = static_cast<size_t>(temp.bytes);
    check(cub::DeviceScan::ExclusiveSum(temp.memory, bytes, values, values, count, stream_), "scan");
  }

  template <class T>
  int64_t sort_bytes(int64_t count, int end_bit) const {
    size_t bytes = 0;
    const uint64_t* keys_in = nullptr;
    const T* values_in = nullptr;
    uint64_t* keys = nullptr;
    T* values = nullptr;
    check(cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys_in, keys, values_in, values, count, 0, end_bit, stream_),
          "size of a sort's scratch");
    return static_cast<int64_t>(bytes);
  }

  template <class T>
  void sort(const uint64_t* keys_in, uint64_t* keys, const T* values_in, T* values, int64_t count, int end_bit,
            Temp temp) const {
    if (count <= 0) return;
    check(temp);
    size_t bytes = static_cast<size_t>(temp.bytes);
    check(cub::DeviceRadixSort::SortPairs(temp.memory, bytes, keys_in, keys, values_in, values, count, 0, end_bit,
                                          stream_),
          "sort");
  }

  int64_t read(const int64_t* on_device) const {
    int64_t value = 0;
    check(cudaMemcpyAsync(&value, on_device, sizeof(value), cudaMemcpyDeviceToHost, stream_), "copy to the host");
    check(cudaStreamSynchronize(stream_), "a kernel");
    return value;
  }

 private:
  static unsigned int num_blocks(int64_t count, int64_t of_a_block) {
    return static_cast<unsigned int>(smaller((count + of_a_block - 1) / of_a_block, kMaxBlocks));
  }

  DeviceGuard guard_;
  cudaStream_t stream_;
};

}  // namespace tercet::cuda
