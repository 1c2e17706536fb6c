// What a discovery controller knows: its log, read whole and in one generation, and the way through
// the referrals in it. NVMe Base 2.1 §5.1.12.3.1 (log page), §3.1.3.3 and §8.3.2.1 (discovery).
//
// A log is what a peer says, and every record of it stands for something that we might connect to:
// only records whose every word can be used as it is are believed. The others are left out, with a
// sentence each.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "host/subsystem.h"
#include "host/task.h"
#include "nvme/log_pages.h"
#include "nvme/result.h"

namespace nvmf::host {

/// 64 MiB of log, all in memory at once. The largest that we have heard of have some thousand.
inline constexpr std::uint64_t kDiscoveryRecordsMax = 65'536;
/// Readings that end in another generation than they began in, before that is called hopeless; as
/// many as nvme-cli makes.
inline constexpr unsigned kDiscoveryReadsMax = 10;
/// All readings together: a controller that answers each piece just in time must not hold anybody
/// for hours.
inline constexpr Duration kDiscoveryReadTimeMax = std::chrono::seconds(60);
/// Sentences kept about records that were left out; the rest is only counted.
inline constexpr std::size_t kDiscoveryRefusedToldMax = 16;
/// The keep-alive timeout of a discovery connection that stays, Linux's NVMF_DEF_DISC_TMO. One that
/// is only asked has none: Base 2.1 §3.9 lets a discovery controller do without.
inline constexpr std::uint32_t kDiscoveryKeepAliveMs = 30'000;

struct DiscoveryLog {
  nvme::DiscoveryHeader header;
  std::vector<nvme::DiscoveryEntry> entries;  // those that can be used, in the log's order
  std::vector<std::string> refused;           // why others cannot, at most kDiscoveryRefusedToldMax
  std::size_t refused_count = 0;
  std::vector<std::byte> bytes;  // header and all records as they came
};

/// Why a record cannot be used; part of a sentence, fit to be shown. Records of transports that we
/// do not have are only checked for what they have in common with ours.
Result<void> check_discovery_entry(const nvme::DiscoveryEntry& entry);

/// `bytes` are the header and exactly the records that it announces. EPROTO if they are not, or if
/// the log has a format that we do not know (RECFMT).
Result<DiscoveryLog> decode_discovery_log(std::vector<std::byte> bytes);

/// Whether that is a discovery controller, as far as it says so: before NVMe 1.4 none did.
Result<void> check_is_discovery(const nvme::IdentifyController& id);

/// Reads the log of a live discovery controller: the header, the records in pieces, the header
/// again; all over if the generation (GENCTR) has changed meanwhile. The event that tells of
/// changes is cleared by the last read only. `loop` is the control loop of `controller`, which must
/// live until the task is done. EINVAL: that is no
/// discovery controller; EAGAIN: it changed kDiscoveryReadsMax times; EFBIG: more than
/// kDiscoveryRecordsMax records; ETIMEDOUT, EPROTO, and the errors of log_page().
Task<Result<DiscoveryLog>> read_discovery_log(transport::Loop& loop, RemoteSubsystem& controller);

/// A connection to a discovery controller that is made for one look at its log. All on its loop,
/// which must run until run() is done.
class DiscoveryVisit final : SubsystemEvents {
 public:
  /// `params` are validated; the numbers of queues, keep-alive and loss policy are what is needed
  /// for this, whatever they say.
  DiscoveryVisit(ConnectParams params, transport::Loop& loop);

  /// Once: connects, reads, and leaves. The error names the controller.
  Task<Result<DiscoveryLog>> run();
  /// Makes run() end soon, with an error.
  void stop();

 private:
  void on_live() override { spawn(ask()); }
  void on_ended(const Error& reason) override;
  Task<void> ask();

  transport::Loop& loop_;
  RemoteSubsystem subsystem_;
  Signal ended_;
  Result<DiscoveryLog> log_ = fail("nothing was asked");
  bool answered_ = false;
};

/// Where a subsystem is reached over TCP. Numeric addresses in the one spelling that inet_ntop has,
/// so that two of the same place are equal.
struct DiscoveryPlace {
  std::string traddr;
  std::uint16_t port = 0;
  std::string subnqn;

  /// "SUBNQN at ADDRESS:PORT".
  [[nodiscard]] std::string to_string() const;
  friend auto operator<=>(const DiscoveryPlace&, const DiscoveryPlace&) = default;
};

/// The same address in one spelling: "::1" for "0:0::1", lower case for names.
std::string same_spelling(const std::string& traddr);

/// Referrals of referrals followed from the controller that was asked first. Networks have one or
/// two; whoever needs more goes in circles.
inline constexpr unsigned kReferralDepthMax = 8;
/// Discovery controllers asked in all, each of which may keep us waiting for half a minute.
inline constexpr std::size_t kReferralsMax = 64;

/// Breadth-first through discovery controllers: who is to be asked next, and what was found. Asks
/// nobody itself. Every place is named once, whatever circles the referrals make.
class DiscoveryWalk {
 public:
  struct Referral {
    DiscoveryPlace at;
    unsigned depth = 0;       // 0: the one that was asked first
    bool persistent = false;  // EPCSD: it wants connections that stay
    friend bool operator==(const Referral&, const Referral&) = default;
  };
  struct Found {
    DiscoveryPlace at;
    nvme::DiscoveryEntry entry;
  };

  /// Begins with `first`, as the user named it.
  explicit DiscoveryWalk(DiscoveryPlace first);

  /// The next to ask; nothing when all have been asked.
  std::optional<Referral> next();
  /// What `asked` answered. Its subsystems and referrals join those known, if they are new and can
  /// be reached over TCP without TLS; otherwise a note says why not.
  void take(const Referral& asked, const DiscoveryLog& log);

  /// Subsystems, each place once, in the order in which they were found.
  [[nodiscard]] const std::vector<Found>& found() const { return found_; }
  /// What was skipped and why, in sentences, since the last call.
  std::vector<std::string> take_notes();

 private:
  void take_entry(const Referral& asked, const nvme::DiscoveryEntry& entry);
  void take_referral(const Referral& asked, Referral referral);

  std::deque<Referral> waiting_;
  std::set<DiscoveryPlace> known_;
  std::size_t referrals_ = 1;
  bool limit_told_ = false;
  std::vector<Found> found_;
  std::vector<std::string> notes_;
};

}  // namespace nvmf::host
