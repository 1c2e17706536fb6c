// What a disk may say after what has been asked of it: the judge of the simulator.
//
// It is told of every request when it is submitted and when it ends, in the order in which that
// happens, and of every loss of power; and it judges every granule that a read brings back. A
// granule is the smallest unit that requests begin and end at; each carries the id of the request
// that wrote it (stamp.h), so a value names its write.
//
// The order that counts. Write a is before write b if a had ended, well or not, or nobody was
// waiting for it any more, when b was submitted. Writes that are not before each other are
// unordered, as on any disk. Of a read that was submitted and has ended:
//   1. A write that has been acknowledged before the read was submitted hides all that are before
//      it. So no acknowledged write is lost, and no ghost (of a write that failed, was retried, or
//      whose owner went away) comes up over a newer one.
//   2. So does a write whose value an earlier read has brought back: no read from the past.
//   3. Values come from writes that were submitted, to that place, before the read ended.
//   4. When power is lost, what is in the volatile cache may be lost: whatever was not written
//      with FUA, and not acknowledged before a flush was submitted that had ended well by then.
//      A host that promises more is held to it: host::Unflushed says what.
//   5. A host that replays writes what was acknowledged over what was not, and was perhaps executed
//      and read: then rule 2 counts for acknowledged writes only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/policy.h"

namespace nvmf::simulator {

/// Of a request; as a value in a granule: of the write that put it there. 0: no request's, zeroes.
using Id = std::uint32_t;

class Checker {
 public:
  enum class What : std::uint8_t { read, write, zeroes, flush };

  /// `granules`: how many each namespace has, all zero.
  explicit Checker(const std::vector<std::size_t>& granules,
                   host::Unflushed promise = host::Unflushed::trust, bool replays = false);

  /// Submitted now. Granules [begin, end) of namespace `ns`; none for a flush.
  Id submitted(What what, std::size_t ns, std::size_t begin, std::size_t end, bool fua);
  /// Ended now. At most once for each id.
  void ended(Id id, bool ok);
  /// A read has ended now with these values, a granule each.
  void ended_with(Id id, std::span<const Id> values);
  /// Nobody waits for it any more; if it has not ended, what is submitted from now on comes after.
  void orphaned(Id id);
  /// With Unflushed::replay, what the process there is has been told is done is written again, and
  /// counts in full, unless the process goes before.
  void power_lost();
  /// The process there is has ended, in whatever way; what is submitted from now on is another's.
  void process_gone();
  /// What the disk itself holds now, all of namespace `ns`.
  void look(std::size_t ns, std::span<const Id> values);

  /// The first thing that must not be, in words.
  [[nodiscard]] const std::optional<std::string>& violation() const { return violation_; }
  /// Granules judged, and how many of them held what a write had put there.
  [[nodiscard]] std::uint64_t judged() const { return judged_; }
  [[nodiscard]] std::uint64_t stamped() const { return stamped_; }

 private:
  using Seq = std::uint64_t;
  static constexpr Seq kOpen = std::numeric_limits<Seq>::max();

  struct Request {
    What what = What::read;
    std::size_t ns = 0;
    std::size_t begin = 0;
    std::size_t end = 0;
    bool fua = false;
    bool ok = false;
    std::uint32_t process = 0;
    Seq submitted = 0;
    Seq ended = kOpen;
    Seq closed = kOpen;  // ended or orphaned: later ones are after it
  };
  struct Power {
    Seq at = 0;
    std::uint32_t process = 0;
    bool replayed = false;
  };
  struct Sight {  // a read that ended has seen this write
    Id id = 0;
    Seq submitted = 0;
    Seq ended = 0;
  };
  struct Granule {
    std::vector<Id> writes;
    std::vector<Sight> sights;
  };
  struct Interval {
    Seq begin = 0;
    Seq end = 0;
  };

  void judge(std::size_t ns, std::size_t granule, Id value, Interval read, const std::string& who);
  [[nodiscard]] std::string hidden(const Granule& at, Id value, Interval read) const;
  [[nodiscard]] bool lost_by_power(const Request& write, Seq from, Seq until) const;
  [[nodiscard]] bool durable_at(const Request& write, const Power& power) const;
  [[nodiscard]] bool warned(const Request& write, const Request& flush) const;
  void see(Granule& at, Id value, Interval read);
  [[nodiscard]] std::string name(Id id) const;
  void violate(std::string sentence);

  Seq now_ = 0;
  std::vector<Request> requests_;  // by id; 0 is the zeroes of the beginning
  std::vector<std::vector<Granule>> disks_;
  std::vector<Id> flushes_;
  std::vector<Power> powers_;
  const host::Unflushed promise_;
  const bool replays_;
  std::uint32_t process_ = 1;
  std::optional<std::string> violation_;
  std::uint64_t judged_ = 0;
  std::uint64_t stamped_ = 0;
};

}  // namespace nvmf::simulator
