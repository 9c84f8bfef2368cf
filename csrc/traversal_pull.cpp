// follow, dense pull: a block of rows is the vector dimension, each object gathers from all edges that enter it.
//
// Scratch of a block: x [num_entities, lanes] and a bit for each lane in `in` and `out` [num_entities]; then each chunk
// of objects counts its members, the counts are summed, and the chunk computes and writes them where they belong.
#include <algorithm>
#include <bit>
#include <cstring>

#include "prefetch.h"
#include "traversal.h"

namespace tercet {
namespace {

constexpr int64_t kChunk = 2048;  // objects that one task works on
constexpr int64_t kMaxLanes = 16;

int64_t num_chunks(int64_t num_entities) { return (num_entities + kChunk - 1) / kChunk; }

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

template <class T>
struct Block {
  Block(unsigned char* scratch, int64_t num_entities, int64_t num_relations, int64_t lanes) {
    auto take = [&scratch](int64_t bytes) {
      unsigned char* memory = scratch;
      scratch += aligned(bytes);
      return memory;
    };
    x = reinterpret_cast<T*>(take(num_entities * lanes * static_cast<int64_t>(sizeof(T))));
    relation_weights = reinterpret_cast<T*>(take(num_relations * lanes * static_cast<int64_t>(sizeof(T))));
    in = reinterpret_cast<uint16_t*>(take(num_entities * 2));
    out = reinterpret_cast<uint16_t*>(take(num_entities * 2));
    counts = reinterpret_cast<int64_t*>(take(num_chunks(num_entities) * lanes * 8));
  }

  T* x;                 // [num_entities, lanes]
  T* relation_weights;  // [num_relations, lanes]
  uint16_t* in;         // [num_entities]: lanes whose frontier holds the entity
  uint16_t* out;        // [num_entities]: lanes whose result holds it
  int64_t* counts;      // [num_chunks, lanes]: members, then where they start
};

struct Range {
  int64_t first, last;
};

// The part of a sorted row that lies in a range of entities, as positions.
Range part_of(const Sets& sets, int64_t row, Range range) {
  const int32_t* begin = sets.entities + sets.offsets[row];
  const int32_t* end = sets.entities + sets.offsets[row + 1];
  return {std::lower_bound(begin, end, range.first) - sets.entities,
          std::lower_bound(begin, end, range.last) - sets.entities};
}

template <class T, int kLanes>
class Pull {
 public:
  Pull(const Graph& graph, const Incoming& incoming, const Sets& sets, const FollowWeights<T>& weights,
       const Sets& exclude, Range rows, unsigned char* scratch)
      : graph_(graph),
        incoming_(incoming),
        sets_(sets),
        weights_(weights),
        exclude_(exclude),
        rows_(rows),
        block_(scratch, graph.num_entities, graph.num_relations, kLanes),
        num_edges_(incoming.offsets[graph.num_entities]) {}

  void run(const FollowOutput<T>& output, int64_t chunk_first_row, int num_threads) {
    int64_t chunks = num_chunks(graph_.num_entities);
    load_relation_weights();
    parallel_for(chunks, num_threads, [&](int64_t chunk, int) { load(objects(chunk)); });
    parallel_for(chunks, num_threads,
                 [&](int64_t chunk, int) { mark(objects(chunk), block_.counts + chunk * kLanes); });
    for (int64_t lane = 0; lane < rows_.last - rows_.first; ++lane) {
      int64_t start = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        int64_t count = block_.counts[chunk * kLanes + lane];
        block_.counts[chunk * kLanes + lane] = start;
        start += count;
      }
      output.offsets[rows_.first + lane + 1] = start;
    }
    int64_t room = output.bounds[chunk_first_row];
    parallel_for(chunks, num_threads, [&](int64_t chunk, int) {
      int64_t target[kLanes] = {};
      for (int64_t lane = 0; lane < rows_.last - rows_.first; ++lane) {
        target[lane] = output.bounds[rows_.first + lane] - room + block_.counts[chunk * kLanes + lane];
      }
      write(objects(chunk), target, output.entities, output.weights);
    });
  }

 private:
  Range objects(int64_t chunk) const { return {chunk * kChunk, std::min((chunk + 1) * kChunk, graph_.num_entities)}; }

  void load_relation_weights() {
    for (int64_t relation = 0; relation < graph_.num_relations; ++relation) {
      T* of_relation = block_.relation_weights + relation * kLanes;
      std::fill(of_relation, of_relation + kLanes, T(0));
      for (int64_t row = rows_.first; row < rows_.last; ++row) {
        of_relation[row - rows_.first] = weights_.relations[row * graph_.num_relations + relation];
      }
    }
  }

  void load(Range entities) {
    std::fill(block_.x + entities.first * kLanes, block_.x + entities.last * kLanes, T(0));
    std::memset(block_.in + entities.first, 0, (entities.last - entities.first) * 2);
    for (int64_t row = rows_.first; row < rows_.last; ++row) {
      Range members = part_of(sets_, row, entities);
      for (int64_t member = members.first; member < members.last; ++member) {
        block_.x[sets_.entities[member] * kLanes + row - rows_.first] = weights_.members[member];
        block_.in[sets_.entities[member]] |= static_cast<uint16_t>(1u << (row - rows_.first));
      }
    }
  }

  void mark(Range objects, int64_t* counts) {
    for (int64_t object = objects.first; object < objects.last; ++object) {
      uint16_t reached = 0;
      for (int64_t i = incoming_.offsets[object]; i < incoming_.offsets[object + 1]; ++i) {
        reached |= block_.in[incoming_.subjects[i]];
      }
      block_.out[object] = reached;
    }
    for (int64_t row = rows_.first; exclude_.offsets && row < rows_.last; ++row) {
      Range excluded = part_of(exclude_, row, objects);
      for (int64_t i = excluded.first; i < excluded.last; ++i) {
        block_.out[exclude_.entities[i]] &= static_cast<uint16_t>(~(1u << (row - rows_.first)));
      }
    }
    uint32_t members[kLanes] = {};
    for (int64_t object = objects.first; object < objects.last; ++object) {
      uint32_t reached = block_.out[object];
      if (!reached) continue;
#pragma omp simd
      for (uint32_t lane = 0; lane < kLanes; ++lane) members[lane] += reached >> lane & 1;
    }
    std::copy_n(members, kLanes, counts);
  }

  void write(Range objects, int64_t* target, int32_t* entities, T* values) const {
    for (int64_t object = objects.first; object < objects.last; ++object) {
      uint32_t reached = block_.out[object];
      if (!reached) continue;
      alignas(64) T sums[kLanes] = {};
      for (int64_t i = incoming_.offsets[object], end = incoming_.offsets[object + 1]; i < end; ++i) {
        prefetch_member(i + 12);
        int64_t subject = incoming_.subjects[i];
        if (!block_.in[subject]) continue;
        const T* __restrict x = block_.x + subject * kLanes;
        const T* __restrict w = block_.relation_weights + incoming_.relations[i] * static_cast<int64_t>(kLanes);
        if (weights_.edges) {
          T c = weights_.edges[incoming_.edges[i]];
#pragma omp simd
          for (int lane = 0; lane < kLanes; ++lane) sums[lane] += x[lane] * w[lane] * c;
        } else {
#pragma omp simd
          for (int lane = 0; lane < kLanes; ++lane) sums[lane] += x[lane] * w[lane];
        }
      }
      for (; reached; reached &= reached - 1) {
        int lane = std::countr_zero(reached);
        entities[target[lane]] = static_cast<int32_t>(object);
        values[target[lane]++] = sums[lane];
      }
    }
  }

  void prefetch_member(int64_t i) const {
    if (i < num_edges_) prefetch(block_.x + incoming_.subjects[i] * static_cast<int64_t>(kLanes));
  }

  const Graph& graph_;
  const Incoming& incoming_;
  const Sets& sets_;
  const FollowWeights<T>& weights_;
  const Sets& exclude_;
  Range rows_;
  Block<T> block_;
  int64_t num_edges_;
};

}  // namespace

int64_t follow_pull_bytes(int64_t num_entities, int64_t num_relations, int64_t lanes, int64_t value_bytes) {
  return aligned(num_entities * lanes * value_bytes) + aligned(num_relations * lanes * value_bytes) +
         2 * aligned(num_entities * 2) + aligned(num_chunks(num_entities) * lanes * 8);
}

template <class T>
int64_t follow_pull(const Graph& graph, const Incoming& incoming, const Sets& sets, const FollowWeights<T>& weights,
                    const Sets& exclude, int64_t first, int64_t last, int64_t lanes, const FollowOutput<T>& output,
                    unsigned char* scratch, int num_threads) {
  for (int64_t row = first; row < last; row += lanes) {
    Range rows{row, std::min(row + lanes, last)};
    if (lanes == kMaxLanes) {
      Pull<T, kMaxLanes>(graph, incoming, sets, weights, exclude, rows, scratch).run(output, first, num_threads);
    } else {
      Pull<T, 4>(graph, incoming, sets, weights, exclude, rows, scratch).run(output, first, num_threads);
    }
  }
  return follow_offsets(output.offsets, first, last);
}

#define TERCET_INSTANTIATE(T)                                                                                       \
  template int64_t follow_pull<T>(const Graph&, const Incoming&, const Sets&, const FollowWeights<T>&, const Sets&, \
                                  int64_t, int64_t, int64_t, const FollowOutput<T>&, unsigned char*, int);
TERCET_INSTANTIATE(float)
TERCET_INSTANTIATE(double)
#undef TERCET_INSTANTIATE

}  // namespace tercet
