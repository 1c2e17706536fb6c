#include "host/discovery.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "nvme/address.h"
#include "nvme/explain.h"
#include "nvme/text.h"

namespace nvmf::host {

namespace {

/// Records are read in pieces of as many bytes, and memory grows with what has really come.
constexpr std::size_t kPieceBytes = 64u * 1024;
/// Notes of one walk that are kept: a page for people.
constexpr std::size_t kNotesMax = 64;

bool address_character(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
         c == ':' || c == '-' || c == '_' || c == '%';
}

/// A numeric address or a name: nothing that could be taken for an option or steer a terminal.
bool usable_address(std::string_view traddr) {
  return !traddr.empty() && traddr.front() != '-' && std::ranges::all_of(traddr, address_character);
}

std::optional<std::uint16_t> port_of(std::string_view trsvcid) {
  std::uint16_t port = 0;
  const char* end = trsvcid.data() + trsvcid.size();
  const auto parsed = std::from_chars(trsvcid.data(), end, port);
  if (parsed.ec != std::errc() || parsed.ptr != end || port == 0) return std::nullopt;
  return port;
}

bool plain_text(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; });
}

bool known_type(nvme::SubsystemType type) {
  return type == nvme::SubsystemType::referral || type == nvme::SubsystemType::nvme ||
         type == nvme::SubsystemType::current_discovery;
}

bool any_address(const std::string& traddr) {
  return traddr == "0.0.0.0" || traddr == "::";
}

/// "record 3 of 10".
std::string record_name(std::size_t index, std::uint64_t all) {
  return fmt::format("record {} of {} in the discovery log", index, all);
}

Error refused(nvme::Status status) {
  return {fmt::format("the discovery controller refused to show its log: {}",
                      nvme::explain(status, nvme::StatusContext::admin)),
          EREMOTEIO};
}

/// One reading after the other of one controller's log.
class LogReader {
 public:
  LogReader(transport::Loop& loop, RemoteSubsystem& controller)
      : loop_(loop), controller_(controller), until_(loop.now() + kDiscoveryReadTimeMax) {}

  Task<Result<DiscoveryLog>> run() {
    for (unsigned i = 0; i < kDiscoveryReadsMax; ++i) {
      auto read = co_await read_once();
      if (!read) co_return std::unexpected(read.error());
      if (*read) co_return decode_discovery_log(std::move(bytes_));
    }
    co_return fail(
        fmt::format("the discovery log changed while it was read, {} times in a row: try again "
                    "when the target has settled",
                    kDiscoveryReadsMax),
        EAGAIN);
  }

 private:
  /// The next part of the log, to the end of bytes_. EREMOTEIO: the controller has none there.
  Task<Result<void>> append(std::size_t bytes) {
    if (loop_.now() >= until_) {
      co_return fail(fmt::format("the discovery controller took longer than {} s to tell its log",
                                 kDiscoveryReadTimeMax / std::chrono::seconds(1)),
                     ETIMEDOUT);
    }
    const std::size_t offset = bytes_.size();
    bytes_.resize(offset + bytes);
    auto outcome = co_await log_page(offset, std::span(bytes_).subspan(offset), false);
    if (!outcome) co_return std::unexpected(outcome.error());
    if (!outcome->cqe.status.ok()) {
      co_return std::unexpected(refused(outcome->cqe.status));
    }
    co_return Result<void>{};
  }

  Task<Result<CommandOutcome>> log_page(std::size_t offset, std::span<std::byte> out, bool last) {
    return controller_.log_page(
        {.page = nvme::LogPage::discovery, .offset_bytes = offset, .retain_event = !last}, out);
  }

  /// As it is now. Clears the event.
  Task<Result<nvme::DiscoveryHeader>> header() {
    std::vector<std::byte> page(nvme::kDiscoveryHeaderBytes);
    auto outcome = co_await log_page(0, page, true);
    if (!outcome) co_return std::unexpected(outcome.error());
    if (!outcome->cqe.status.ok()) co_return std::unexpected(refused(outcome->cqe.status));
    co_return nvme::DiscoveryHeader::decode(page);
  }

  /// False if the log changed meanwhile.
  Task<Result<bool>> read_once() {
    bytes_.clear();
    auto head = co_await append(nvme::kDiscoveryHeaderBytes);
    if (!head) co_return std::unexpected(head.error());
    const auto before = nvme::DiscoveryHeader::decode(bytes_);
    if (before.numrec > kDiscoveryRecordsMax) {
      co_return fail(fmt::format("the discovery log has {} records, and at most {} are read",
                                 before.numrec, kDiscoveryRecordsMax),
                     EFBIG);
    }
    const std::size_t all =
        nvme::kDiscoveryHeaderBytes + before.numrec * nvme::kDiscoveryEntryBytes;
    std::optional<Error> ended;
    while (!ended && bytes_.size() < all) {
      auto piece = co_await append(std::min(kPieceBytes, all - bytes_.size()));
      if (piece) continue;
      // It may have become shorter meanwhile: that is a change like any other.
      if (piece.error().code != EREMOTEIO) co_return std::unexpected(piece.error());
      ended = piece.error();
    }
    auto after = co_await header();
    if (!after) co_return std::unexpected(after.error());
    if (after->genctr != before.genctr || after->numrec != before.numrec) co_return false;
    if (ended) {
      co_return fail(fmt::format("the discovery log is shorter than the {} records that it "
                                 "announces: {}",
                                 before.numrec, ended->message),
                     EPROTO);
    }
    co_return true;
  }

  transport::Loop& loop_;
  RemoteSubsystem& controller_;
  Instant until_;
  std::vector<std::byte> bytes_;
};

/// Base 2.1 §3.9: a discovery controller that is left at once needs no Keep Alive.
ConnectParams for_a_visit(ConnectParams params) {
  params.nr_io_queues = 0;
  params.keep_alive_ms = 0;
  params.loss.ctrl_loss = Duration::zero();  // whoever asks may ask again
  return params;
}

}  // namespace

Result<void> check_is_discovery(const nvme::IdentifyController& id) {
  if (id.cntrltype == nvme::ControllerType::discovery ||
      id.cntrltype == nvme::ControllerType::not_reported) {
    return {};
  }
  return fail(fmt::format("this is not a discovery controller (CNTRLTYPE is {}): give the address "
                          "of one, or leave the subsystem's NQN out",
                          static_cast<int>(id.cntrltype)),
              EINVAL);
}

Result<void> check_discovery_entry(const nvme::DiscoveryEntry& entry) {
  if (!known_type(entry.subtype)) {
    return fail(fmt::format("has the unknown subsystem type {}", static_cast<int>(entry.subtype)),
                EPROTO);
  }
  if (!nvme::usable_nqn(entry.subnqn)) {
    return fail(fmt::format("has a subsystem NQN that cannot be one, \"{}\"",
                            nvme::printable(entry.subnqn)),
                EPROTO);
  }
  const bool tcp = entry.trtype == nvme::TransportType::tcp;
  if (tcp ? !usable_address(entry.traddr) : !plain_text(entry.traddr)) {
    return fail(
        fmt::format("has an address that cannot be one, \"{}\"", nvme::printable(entry.traddr)),
        EPROTO);
  }
  if (tcp ? !port_of(entry.trsvcid) : !plain_text(entry.trsvcid)) {
    return fail(
        fmt::format("has a port that cannot be one, \"{}\"", nvme::printable(entry.trsvcid)),
        EPROTO);
  }
  return {};
}

Result<DiscoveryLog> decode_discovery_log(std::vector<std::byte> bytes) {
  if (bytes.size() < nvme::kDiscoveryHeaderBytes) {
    return fail("the discovery log ends within its header", EPROTO);
  }
  DiscoveryLog log;
  log.header = nvme::DiscoveryHeader::decode(bytes);
  if (log.header.recfmt != 0) {
    return fail(fmt::format("the discovery log has the record format {}, and only 0 is known",
                            log.header.recfmt),
                EPROTO);
  }
  const std::size_t records =
      (bytes.size() - nvme::kDiscoveryHeaderBytes) / nvme::kDiscoveryEntryBytes;
  if (bytes.size() % nvme::kDiscoveryEntryBytes != 0 || records != log.header.numrec) {
    return fail(fmt::format("the discovery log announces {} records and has {} bytes",
                            log.header.numrec, bytes.size()),
                EPROTO);
  }
  for (std::size_t i = 0; i < records; ++i) {
    auto entry = nvme::DiscoveryEntry::decode(std::span(bytes).subspan(
        nvme::kDiscoveryHeaderBytes + i * nvme::kDiscoveryEntryBytes, nvme::kDiscoveryEntryBytes));
    if (auto usable = check_discovery_entry(entry); usable) {
      log.entries.push_back(std::move(entry));
    } else if (++log.refused_count <= kDiscoveryRefusedToldMax) {
      log.refused.push_back(fmt::format("{} {} and is left out", record_name(i, log.header.numrec),
                                        usable.error().message));
    }
  }
  log.bytes = std::move(bytes);
  return log;
}

Task<Result<DiscoveryLog>> read_discovery_log(transport::Loop& loop, RemoteSubsystem& controller) {
  if (const AssociationInfo* info = controller.info()) {
    if (auto good = check_is_discovery(info->controller); !good)
      co_return std::unexpected(good.error());
  }
  LogReader reader(loop, controller);
  co_return co_await reader.run();
}

DiscoveryVisit::DiscoveryVisit(ConnectParams params, transport::Loop& loop)
    : loop_(loop), subsystem_(for_a_visit(std::move(params)), {&loop}, *this), ended_(loop) {}

Task<Result<DiscoveryLog>> DiscoveryVisit::run() {
  subsystem_.start();
  co_await ended_;
  co_return std::move(log_);
}

void DiscoveryVisit::stop() {
  subsystem_.stop(true);
}

void DiscoveryVisit::on_ended(const Error& reason) {
  if (!answered_) log_ = std::unexpected(reason);
  ended_.fire();
}

Task<void> DiscoveryVisit::ask() {
  log_ = co_await read_discovery_log(loop_, subsystem_);
  answered_ = true;
  if (!log_) {
    log_.error().message = fmt::format("{} at {}: {}", subsystem_.params().subnqn,
                                       subsystem_.params().address(), log_.error().message);
  }
  subsystem_.stop();
}

std::string DiscoveryPlace::to_string() const {
  return fmt::format("{} at {}", subnqn, transport::Endpoint{traddr, port, {}}.to_string());
}

std::string same_spelling(const std::string& traddr) {
  std::array<std::byte, sizeof(in6_addr)> address{};
  std::array<char, INET6_ADDRSTRLEN> text{};
  for (const int family : {AF_INET, AF_INET6}) {
    if (::inet_pton(family, traddr.c_str(), address.data()) == 1 &&
        ::inet_ntop(family, address.data(), text.data(), text.size()) != nullptr) {
      return text.data();
    }
  }
  std::string lower = traddr;
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

// Referrals.

DiscoveryWalk::DiscoveryWalk(DiscoveryPlace first) {
  first.traddr = same_spelling(first.traddr);
  known_.insert(first);
  waiting_.push_back({.at = std::move(first)});
}

std::optional<DiscoveryWalk::Referral> DiscoveryWalk::next() {
  if (waiting_.empty()) return std::nullopt;
  Referral first = std::move(waiting_.front());
  waiting_.pop_front();
  return first;
}

void DiscoveryWalk::take(const Referral& asked, const DiscoveryLog& log) {
  for (const std::string& sentence : log.refused) {
    notes_.push_back(fmt::format("{}: {}", asked.at.to_string(), sentence));
  }
  if (log.refused_count > log.refused.size()) {
    notes_.push_back(fmt::format("{}: {} more records cannot be used and are left out",
                                 asked.at.to_string(), log.refused_count - log.refused.size()));
  }
  for (const nvme::DiscoveryEntry& entry : log.entries) take_entry(asked, entry);
}

void DiscoveryWalk::take_entry(const Referral& asked, const nvme::DiscoveryEntry& entry) {
  // That is the controller which we have just asked, or another way to it.
  if (entry.subtype == nvme::SubsystemType::current_discovery) return;
  const auto skip = [&](const std::string& why) {
    if (notes_.size() < kNotesMax) {
      notes_.push_back(fmt::format("{} ({} at {} {}) is skipped: {}", entry.subnqn,
                                   nvme::transport_name(entry.trtype), entry.traddr, entry.trsvcid,
                                   why));
    }
  };
  if (entry.trtype != nvme::TransportType::tcp) return skip("only TCP can be used here");
  if ((entry.treq & nvme::kTreqSecureMask) == nvme::kTreqSecureRequired) {
    return skip("it requires TLS, which there is not yet");
  }
  const auto port = port_of(entry.trsvcid);
  if (!port) return;  // check_discovery_entry() has seen to that
  DiscoveryPlace at{same_spelling(entry.traddr), *port, entry.subnqn};
  // It listens on all its addresses, and the one that has worked for us is one of them.
  if (any_address(at.traddr)) at.traddr = asked.at.traddr;
  if (entry.subtype == nvme::SubsystemType::referral) {
    return take_referral(asked, {.at = std::move(at),
                                 .depth = asked.depth + 1,
                                 .persistent = (entry.eflags & nvme::kEflagsPersistent) != 0});
  }
  if (!known_.insert(at).second) return;
  found_.push_back({std::move(at), entry});
}

void DiscoveryWalk::take_referral(const Referral& asked, Referral referral) {
  if (known_.contains(referral.at)) return;
  if (referral.depth <= kReferralDepthMax && referrals_ < kReferralsMax) {
    ++referrals_;
    known_.insert(referral.at);
    waiting_.push_back(std::move(referral));
    return;
  }
  if (std::exchange(limit_told_, true)) return;
  notes_.push_back(
      fmt::format("{} refers to {}, which is not asked: referrals are followed {} deep and to {} "
                  "discovery controllers in all",
                  asked.at.to_string(), referral.at.to_string(), kReferralDepthMax, kReferralsMax));
}

std::vector<std::string> DiscoveryWalk::take_notes() {
  return std::exchange(notes_, {});
}

}  // namespace nvmf::host
