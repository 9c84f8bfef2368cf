// follow on CUDA: the functions of csrc/traversal.h with the same members. Weights are the same bits where no object
// has more than 256 visits in a row, and gradients to edges always are; longer sums and other gradients differ by
// rounding.
//
// The frontier is expanded edge by edge (a visit), the visits are sorted by (row, object), stably, and summed: in order
// up to 256 visits of one object, then by pieces of 256. No atomics: runs agree bit for bit. Costs: a few passes over
// the frontier's edges; scratch follows the visits of a part, a range of rows that the caller chooses.
//
// Every array lies on the queue's device, scratch is aligned to 256 bytes, and every call but follow_count returns
// before the device is done. A call that fails raises std::runtime_error with the step and CUDA's message.
#pragma once

#include "../csrc/traversal.h"
#include "steps.h"

namespace tercet::cuda {

// The members of all rows, and where their visits start: member m makes the visits first_visits[m] .. [m + 1].
struct Frontier {
  int64_t* rows;          // [num_members]
  int64_t* first_visits;  // [num_members + 1]
  int64_t num_members;
};

// The rows first_row .. last_row of a batch, with their members and visits.
struct Part {
  int64_t first_row, last_row;
  int64_t first_member, last_member;
  int64_t first_visit, last_visit;

  TERCET_HOST_DEVICE int64_t rows() const { return last_row - first_row; }
  TERCET_HOST_DEVICE int64_t members() const { return last_member - first_member; }
  TERCET_HOST_DEVICE int64_t visits() const { return last_visit - first_visit; }
};

// About how many bytes of scratch a visit takes; the backward takes 16 more for each of a part's relation weights.
int64_t follow_visit_bytes(int64_t value_bytes);

// Fills the frontier.
int64_t follow_visits_workspace(const Queue& queue, int64_t num_members);
void follow_visits(const Queue& queue, const Graph& graph, const Sets& sets, const Frontier& frontier,
                   unsigned char* scratch);

// Expands, sorts and counts a part. Writes offsets[first_row .. last_row] (both included), which start at
// `members_before`, and returns the members of the part; the only function that waits for the device. The scratch keeps
// what follow_fill needs.
template <class T>
int64_t follow_workspace(const Queue& queue, const Graph& graph, const Part& part);
template <class T>
int64_t follow_count(const Queue& queue, const Graph& graph, const Sets& sets, const FollowWeights<T>& weights,
                     const Sets& exclude, const Frontier& frontier, const Part& part, int64_t members_before,
                     int64_t* offsets, unsigned char* scratch);

// entities, weights: [num_members of the result's part], as follow_count returned it.
template <class T>
void follow_fill(const Queue& queue, const Graph& graph, const Part& part, int64_t num_members, int32_t* entities,
                 T* weights, unsigned char* scratch);

// Writes the part's gradients: to its members in grad_members [num_members of all rows] and to its rows of
// grad_relations [batch, num_relations]. `result` holds the members of all rows of y, `grad` the gradient to their
// weights.
template <class T>
int64_t follow_backward_workspace(const Queue& queue, const Graph& graph, const Part& part);
template <class T>
void follow_backward(const Queue& queue, const Graph& graph, const Sets& sets, const FollowWeights<T>& weights,
                     const Sets& result, const T* grad, const Frontier& frontier, const Part& part, T* grad_members,
                     T* grad_relations, unsigned char* scratch);

// Adds the part's gradients to grad_edges [num_edges]; parts in ascending order give the same bits as one.
template <class T>
int64_t follow_backward_edges_workspace(const Queue& queue, int64_t num_edges, const Part& part);
template <class T>
void follow_backward_edges(const Queue& queue, const Graph& graph, int64_t num_edges, const Sets& sets,
                           const FollowWeights<T>& weights, const Sets& result, const T* grad, const Frontier& frontier,
                           const Part& part, T* grad_edges, unsigned char* scratch);

}  // namespace tercet::cuda
