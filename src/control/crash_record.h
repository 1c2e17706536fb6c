// What a connection leaves for its successors in case that it is killed: NAME.crash in the runtime
// directory says which subsystem it writes to, and for how long what it had sent may still be
// executed there after its end.
//
// A process knows what it has sent and not got answered; the next one does not. So writes to a
// subsystem wait, once a connection to it has ended uncleanly, until nothing of that connection can
// be executed any more. Reads need not.
//
//   start   take_over(): every record of a connection to the same subsystem that has ended becomes
//           part of the new connection's own record, which is there before the others are removed:
//           another crash at any moment loses nothing. What it says is how long writes must wait.
//   live    went_live(), before the first write is possible; again when the numbers have changed
//   end     ended(): the record goes, or stays with the time until when something may still happen
//
// A file is replaced by rename(), so that it is never half written, and can be read after kill -9.
// Its times are CLOCK_BOOTTIME's, with the boot that they belong to. The functions without a class
// are pure.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/runtime_dir.h"
#include "host/fence_time.h"
#include "nvme/result.h"
#include "transport/timer.h"

namespace nvmf::control {

/// Instead of a time that never comes.
inline constexpr Duration kForEver = Duration::max();

/// A moment that all processes of this machine understand, as long as it is not started anew.
struct BootTime {
  std::string boot_id;  // empty if the system does not tell
  Duration since_boot{};
};
BootTime boot_time();

struct CrashRecord {
  std::string subnqn;
  std::string address;  // of the target, for people
  pid_t pid = 0;
  /// The numbers behind `bound`, for people.
  host::SilenceFacts facts;
  /// From its unclean end on, for so long what it sent may be executed; zero while it has sent
  /// nothing; kForEver if that cannot be known.
  Duration bound{};
  /// It has ended and said until when: `bound` counts no longer.
  bool clean = false;
  /// Since boot: before this no write is safe, whoever runs. Zero: no such time. kForEver.
  Duration until{};
  BootTime updated;

  [[nodiscard]] std::string to_json() const;
  static Result<CrashRecord> parse(std::string_view json);
};

/// How long from `now` on writes to that subsystem must wait because of this record. One of an
/// unclean end counts its whole bound: nobody knows when that end was, unless the machine has been
/// started since. `owner_runs`: it looks after what it has sent itself.
Duration still_held(const CrashRecord& record, const BootTime& now, bool owner_runs);

/// What somebody who connects to a subsystem has to know of those before.
struct Inheritance {
  Duration hold{};      // writes wait for so long; kForEver
  std::string owner;    // the connection because of which that is
  bool killed = false;  // or: it had ended and left the time
  /// Records that cannot be understood, a sentence each.
  std::vector<std::string> complaints;
};

/// The record of one connection, whose name is claimed. Blocks for the time of a small file's
/// write. After a failure the file is as it was before.
class OwnCrashRecord {
 public:
  OwnCrashRecord(const RuntimeDir& runtime, std::string subnqn, std::string address)
      : directory_(runtime.path()) {
    record_.subnqn = std::move(subnqn);
    record_.address = std::move(address);
  }

  /// Once, with the directory locked (RuntimeDir::claim() with its `on_claimed`).
  Result<Inheritance> take_over(const RuntimeDir& runtime, const std::string& name);
  /// By the user's word, what was inherited is forgotten as soon as commands are sent.
  void waive() { waived_ = true; }
  /// Commands may be sent from now on. Does nothing if that is what the file says. A bound never
  /// becomes shorter: something of the association before may be fenced.
  Result<void> went_live(const host::SilenceFacts& facts, std::optional<Duration> bound);
  /// Nothing is sent any more; `still` is how long something may be executed, nullopt for ever.
  Result<void> ended(std::optional<Duration> still);

 private:
  Result<void> write();
  [[nodiscard]] std::string path() const;

  std::string directory_;
  std::string name_;
  CrashRecord record_;
  bool waived_ = false;
  bool written_ = false;  // by went_live()
};

}  // namespace nvmf::control
