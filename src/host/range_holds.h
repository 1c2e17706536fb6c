// Ranges of a namespace that are held: by one request for itself (a hold), or against everybody
// after it (a fence). One mechanism, whatever needs it, across all reactors.
//
// Hold. A reactor asks for a range in one of its slots. The hold counts, and on_granted() says so,
// when each reactor has learnt of it and has no request in the way any more that changes data
// there, and when no hold of an overlapping range that was asked for earlier is left. From the
// moment a reactor has learnt of it until it is released, requests that change data in the range
// wait there; the owner's own are not asked. What came to a reactor before the hold goes before
// it, what comes after waits: so nobody starves, and the order of arrival at each reactor together
// with the order in which the coordinator (the first reactor) took the holds leaves no circle to
// wait in. Ranges that do not overlap know nothing of each other. Reads are never held up.
//
// Fence. A reactor says that something of its own may still be written in a range: until it is
// lifted, requests that change data there wait on every reactor, and holds are not granted. What
// comes to another reactor before the post that tells it of the fence finds that it is behind, and
// waits for that post: nothing that follows from what fence() was called for gets past it. A fence
// itself waits for nothing. There is a fixed number of fences; when they are all in use, the
// nearest one becomes larger: more waits than has to, never less.
//
// Cost. Without a hold or fence in force, admit() looks at one flag and links the request into a
// list; nothing is allocated, nobody is told. Asking and releasing post() to the other reactors,
// which may allocate; with one reactor nothing is posted and a hold with nothing in its way is
// granted inside ask().
//
// Life. RangeHolds is shared by the devices of a namespace and by the posts under way, so a post
// may be delivered after the devices have gone. close() is called on each reactor when its devices
// are shut; after that it grants and admits nothing, and answers nothing that others ask. Close all
// or none: those that are left would wait. Nothing is posted once each reactor was closed and every
// request that it had has finished.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "host/block_device.h"
#include "transport/loop.h"

namespace nvmf::host {

/// Holds that a namespace can have at once, shared out among its reactors: each has a record of all
/// of them. A reactor has at most kHoldSlotsMax: more requests than that, reading before they
/// write, are not faster. And two at least, so that one may wait for another
/// reactor's while the next goes on.
inline constexpr std::size_t kHoldsPerNamespace = 64;
inline constexpr std::size_t kHoldSlotsMax = 16;
inline constexpr std::size_t kHoldSlotsMin = 2;
/// Fences of one reactor. After a loss each unanswered write has its own, so far as they last.
inline constexpr std::size_t kFenceSlots = 32;
/// The first of them are for what was lost; the others for requests whose client has gone.
inline constexpr std::size_t kLossFenceSlots = 24;
/// BlockRequest::fence and ::slot of a request that has none.
inline constexpr std::uint8_t kNoSlot = 0xff;

struct ByteRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  [[nodiscard]] bool overlaps(const ByteRange& o) const { return begin < o.end && o.begin < end; }
  [[nodiscard]] bool contains(const ByteRange& o) const { return begin <= o.begin && o.end <= end; }
};

inline ByteRange range_of(const BlockRequest& r) {
  return {r.offset_bytes, r.offset_bytes + r.length_bytes};
}

/// Requests linked by `older` and `newer`: a request is in one such list at most.
class RequestList {
 public:
  [[nodiscard]] BlockRequest* first() const { return first_; }
  void push_back(BlockRequest& r) {
    r.older = last_;
    r.newer = nullptr;
    (last_ != nullptr ? last_->newer : first_) = &r;
    last_ = &r;
  }
  void erase(BlockRequest& r) {
    (r.older != nullptr ? r.older->newer : first_) = r.newer;
    (r.newer != nullptr ? r.newer->older : last_) = r.older;
  }
  BlockRequest* pop_front() {
    BlockRequest* const r = first_;
    if (r != nullptr) erase(*r);
    return r;
  }

 private:
  BlockRequest* first_ = nullptr;
  BlockRequest* last_ = nullptr;
};

/// Who asks on one reactor: a namespace's device. Called on that reactor; also inside ask(),
/// release(), finished(), withdraw() and lift(), so those come last in what one does.
struct HoldUser {
  virtual void on_granted(std::size_t slot) = 0;
  /// A request that admit() kept waiting is admitted now.
  virtual void on_admitted(BlockRequest& request) = 0;

 protected:
  ~HoldUser() = default;
};

class RangeHolds;

/// What one reactor has of a RangeHolds. Its thread only.
class ReactorHolds {
 public:
  ReactorHolds(RangeHolds& all, std::size_t reactor, std::size_t reactors, std::size_t slots);
  ReactorHolds(const ReactorHolds&) = delete;
  ReactorHolds& operator=(const ReactorHolds&) = delete;

  /// Before anything else; may be called elsewhere, before the reactor knows of this object.
  void attach(HoldUser& user) { user_ = &user; }
  /// Holds that this reactor may have at once.
  [[nodiscard]] std::size_t slots() const { return slots_; }

  // Requests that change data and have no hold of their own.
  /// True: it may go, until finished(). False: it waits until on_admitted(), withdraw() or
  /// take_waiting().
  bool admit(BlockRequest& request);
  /// It was admitted, nothing of it has been sent, and it is to wait until nothing that was lost
  /// may be executed in its range: then on_admitted(), as when admit() says false. It keeps its
  /// place before holds that came later.
  void postpone(BlockRequest& request);
  /// Whether something there was lost and may still be executed.
  [[nodiscard]] bool loss_fenced(ByteRange range) const;
  /// It was admitted and has ended: also lifts the fence of abandon().
  void finished(BlockRequest& request);
  /// It waits, and is not to be admitted any more. Also lifts the fence of abandon().
  void withdraw(BlockRequest& request);
  /// It was admitted: a fence around it until it has finished. Once is enough.
  void abandon(BlockRequest& request);

  // Holds.
  /// `slot` is free: never asked for, or released.
  void ask(std::size_t slot, ByteRange range);
  /// Also before it was granted, which is then not said any more. The slot may be asked for again.
  void release(std::size_t slot);

  // Fences for what is no request any more.
  /// Each call counts: a fence is lifted when lift() has taken back as many, of this number.
  enum class Cause : std::uint8_t { lost, abandoned };
  std::uint8_t fence(ByteRange range, Cause cause = Cause::lost);
  void lift(std::uint8_t fence, std::uint32_t times = 1);
  /// What was asked for in `slot`, once this reactor has learnt of it; empty otherwise.
  [[nodiscard]] const ByteRange& held_range(std::size_t slot) const {
    return entries_[hold_id(slot)].range;
  }
  /// What the fence covers now; only between fence() and lift().
  [[nodiscard]] const ByteRange& fenced_range(std::uint8_t fence) const {
    return entries_[fence_id(fence)].range;
  }

  void close() { closed_ = true; }
  /// One that waits, without admitting it; nullptr if none does.
  BlockRequest* take_waiting() {
    BlockRequest* const r = late_.pop_front();
    return r != nullptr ? r : waiting_.pop_front();
  }
  /// Calls each(BlockRequest&) for those that wait; it must not change who does.
  template <class Each>
  void for_each_waiting(Each each) const {
    for (const RequestList* list : {&waiting_, &late_}) {
      for (BlockRequest* r = list->first(); r != nullptr; r = r->newer) each(*r);
    }
  }
  /// Holds and fences, anybody's, that this reactor knows of now.
  [[nodiscard]] std::size_t in_force() const { return in_force_; }

 private:
  friend class RangeHolds;
  enum class State : std::uint8_t { none, draining, drained, fence };
  struct Entry {
    ByteRange range;
    std::uint64_t arrival = 0;  // after those that carry a smaller number
    std::uint32_t serial = 0;   // of a hold: which asking for its slot it is
    State state = State::none;
  };

  bool admit_unless_held(BlockRequest& request);
  void admit_late();
  [[nodiscard]] bool held_up(const BlockRequest& request) const;
  [[nodiscard]] bool something_in_the_way_of(const Entry& entry) const;
  void gone(ByteRange range);
  void drained(std::uint16_t id);
  void enter(std::uint16_t id, ByteRange range, State state);

  // What the others say.
  void on_hold(std::uint16_t id, ByteRange range, std::uint32_t serial);
  void on_hold_granted(std::uint16_t id, std::uint32_t serial);
  void on_fence(std::uint16_t id, ByteRange range);
  void on_removed(std::uint16_t id);

  [[nodiscard]] std::uint16_t hold_id(std::size_t slot) const;
  [[nodiscard]] std::uint16_t fence_id(std::size_t index) const;

  RangeHolds& all_;
  const std::size_t reactor_;
  const std::size_t slots_;
  const std::size_t first_fence_;
  HoldUser* user_ = nullptr;
  bool closed_ = false;
  std::size_t in_force_ = 0;
  std::uint64_t fences_seen_ = 0;       // of those that RangeHolds counts
  std::uint64_t arrivals_ = 0;          // holds and fences that were ever learnt of
  std::vector<std::uint32_t> serials_;  // by own slot: rises when it is asked for and released
  std::vector<Entry> entries_;          // by id: all holds, then all fences
  std::vector<std::uint16_t> active_;   // ids of those in force: the first in_force_
  std::vector<std::uint32_t> fenced_;   // own fences: how many need each
  RequestList in_flight_;               // admitted, in any order
  RequestList waiting_;                 // by arrival
  RequestList late_;                    // came while a fence was on its way here; arrival kLate
};

class RangeHolds : public std::enable_shared_from_this<RangeHolds> {
 public:
  /// One reactor per loop. The first one coordinates. The loops must outlive the posts to them.
  static std::shared_ptr<RangeHolds> make(std::vector<transport::Loop*> loops);

  [[nodiscard]] ReactorHolds& on(std::size_t reactor) { return *reactors_[reactor]; }

 private:
  friend class ReactorHolds;
  struct Asked {
    ByteRange range;
    std::uint32_t serial = 0;
    std::size_t missing = 0;  // reactors that have not drained yet
    bool granted = false;
  };

  explicit RangeHolds(std::vector<transport::Loop*> loops);
  /// Does it at once if both are the same reactor, otherwise posts it.
  template <class Do>
  void tell(std::size_t from, std::size_t to, Do what);

  // On the coordinator.
  void asked(std::uint16_t id, ByteRange range, std::uint32_t serial);
  void drained(std::uint16_t id, std::uint32_t serial);
  void released(std::uint16_t id);
  void grant_what_can_be();
  [[nodiscard]] bool coordinator_closed() const { return reactors_[0]->closed_; }
  [[nodiscard]] std::size_t owner(std::uint16_t id) const;

  const std::vector<transport::Loop*> loops_;
  /// Fences told of, by any reactor, before they are posted.
  alignas(64) std::atomic<std::uint64_t> fences_told_{0};
  alignas(64) std::vector<std::unique_ptr<ReactorHolds>> reactors_;
  std::vector<Asked> asked_;          // by id
  std::vector<std::uint16_t> order_;  // ids asked for and not released, as they came
};

inline bool ReactorHolds::admit(BlockRequest& request) {
  request.arrival = arrivals_;
  if (in_force_ == 0 && fences_seen_ == all_.fences_told_.load(std::memory_order_acquire))
      [[likely]] {
    in_flight_.push_back(request);
    return true;
  }
  return admit_unless_held(request);
}

}  // namespace nvmf::host
