#include "launch.cuh"
#include "ranking.h"
#include "ranking_steps.h"

namespace tercet::cuda {

template <class T>
int64_t rank_workspace(int64_t num_targets, int64_t dim, int64_t queries_at_once) {
  Carver carver(nullptr);
  RankMemory<T>(carver, num_targets, dim, queries_at_once);
  return carver.bytes();
}

template <class T>
void rank_counts(const Queue& queue, Norm norm, const Ranking<T>& ranking, int64_t num_targets, int64_t queries_at_once,
                 int64_t* better, int64_t* equal, int64_t* rivals, unsigned char* scratch) {
  Carver carver(scratch);
  const RankMemory<T> memory(carver, num_targets, ranking.dim, queries_at_once);
  rank_steps(Stream(queue), norm, ranking, num_targets, queries_at_once, Counts{better, equal, rivals}, memory);
}

#define TERCET_INSTANTIATE(T)                                                                                         \
  template int64_t rank_workspace<T>(int64_t, int64_t, int64_t);                                                      \
  template void rank_counts<T>(const Queue&, Norm, const Ranking<T>&, int64_t, int64_t, int64_t*, int64_t*, int64_t*, \
                               unsigned char*);
TERCET_INSTANTIATE(float)
TERCET_INSTANTIATE(double)
#undef TERCET_INSTANTIATE

}  // namespace tercet::cuda
