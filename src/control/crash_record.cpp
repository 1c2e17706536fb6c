#include "control/crash_record.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/unique_fd.h"
#include "nvme/text.h"

namespace nvmf::control {

using io::UniqueFd;
using nlohmann::json;
using std::chrono::milliseconds;

namespace {

constexpr std::string_view kEnding = ".crash";
constexpr const char* kNever = "never";
constexpr std::size_t kRecordBytesMax = 8192;
/// What is longer than this is for ever, as far as anybody waits.
constexpr std::chrono::hours kLongest{24 * 3650};
/// Records of other subsystems under our own name are put aside: so many at most.
constexpr unsigned kAsideMax = 4096;

std::unexpected<Error> cannot(std::string_view what, const std::string& path, int code) {
  return fail(fmt::format("cannot {} {}: {}", what, path, std::strerror(code)), code);
}

json time_to_json(Duration d) {
  if (d == kForEver) return kNever;
  // Rounded up: never shorter than what it stands for.
  return std::chrono::ceil<milliseconds>(d).count();
}

std::optional<Duration> time_of(const json& document, const char* key) {
  const auto found = document.find(key);
  if (found == document.end()) return std::nullopt;
  if (*found == kNever) return kForEver;
  if (!found->is_number_unsigned()) return std::nullopt;
  const auto ms = found->get<std::uint64_t>();
  const auto most = static_cast<std::uint64_t>(milliseconds(kLongest).count());
  return ms > most ? kForEver : Duration(milliseconds(ms));
}

std::string string_of(const json& document, const char* key) {
  const auto found = document.find(key);
  return found != document.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::uint64_t number_of(const json& document, const char* key) {
  const auto found = document.find(key);
  return found != document.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

Duration later(Duration moment, Duration by) {
  return moment == kForEver || by == kForEver ? kForEver : moment + by;
}

/// Up to `size` bytes of a small file.
Result<std::string> read_file(const std::string& path, std::size_t size) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (fd.get() < 0) return cannot("read", path, errno);
  std::string text(size, '\0');
  std::size_t have = 0;
  while (have < size) {
    const ssize_t n = ::read(fd.get(), text.data() + have, size - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return cannot("read", path, errno);
    if (n == 0) break;
    have += static_cast<std::size_t>(n);
  }
  text.resize(have);
  return text;
}

Result<void> write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return cannot("write", path, errno);
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  // The name must not come to stand for an empty file when the machine loses its power.
  if (::fsync(fd) != 0) return cannot("write", path, errno);
  return {};
}

/// All or nothing.
Result<void> replace_file(const std::string& path, std::string_view text) {
  const std::string fresh = path + ".new";
  ::unlink(fresh.c_str());
  const UniqueFd fd(
      ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) return cannot("make", fresh, errno);
  auto written = write_all(fd.get(), text, fresh);
  if (written && ::rename(fresh.c_str(), path.c_str()) != 0) {
    written = cannot("rename a new file to", path, errno);
  }
  if (!written) ::unlink(fresh.c_str());
  return written;
}

/// Names that have a record.
std::vector<std::string> record_names(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string file = entry->path().filename().string();
    if (file.ends_with(kEnding)) names.push_back(file.substr(0, file.size() - kEnding.size()));
  }
  std::ranges::sort(names);
  return names;
}

std::string path_of(const std::string& directory, std::string_view name) {
  return fmt::format("{}/{}{}", directory, name, kEnding);
}

/// A place for another subsystem's record that stands where ours will be. No connection can be
/// called so: '~' is in no name.
Result<std::string> place_aside(const std::string& directory, std::string_view name) {
  for (unsigned i = 1; i <= kAsideMax; ++i) {
    std::string path = path_of(directory, fmt::format("{}~{}", name, i));
    if (::access(path.c_str(), F_OK) != 0) return path;
  }
  return fail(fmt::format("{} is full of records of connections that were killed: remove {}/{}~*{} "
                          "when you know that nothing of them is executed any more",
                          directory, directory, name, kEnding),
              EBUSY);
}

/// A record of another subsystem whose connection has ended: its time runs from the moment at which
/// that was seen, and it goes when that has passed. `name` is needed by another record.
Result<void> keep_foreign(const std::string& directory, const std::string& name, CrashRecord record,
                          const BootTime& now, bool name_needed) {
  const std::string path = path_of(directory, name);
  const Duration held = still_held(record, now, false);
  if (held > Duration::zero() && (name_needed || !record.clean)) {
    std::string place = path;
    if (name_needed) {
      auto aside = place_aside(directory, name);
      if (!aside) return std::unexpected(aside.error());
      place = std::move(*aside);
    }
    record.until = later(now.since_boot, held);
    record.clean = true;
    record.updated = now;
    if (auto kept = replace_file(place, record.to_json()); !kept) return kept;
    if (!name_needed) return {};
  }
  if (held == Duration::zero() || name_needed) ::unlink(path.c_str());
  return {};
}

}  // namespace

BootTime boot_time() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  BootTime now;
  now.since_boot = std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
  if (auto id = read_file("/proc/sys/kernel/random/boot_id", 64)) {
    now.boot_id = id->substr(0, id->find('\n'));
  }
  return now;
}

std::string CrashRecord::to_json() const {
  const json document = {{"version", 1},
                         {"subnqn", subnqn},
                         {"address", address},
                         {"pid", pid},
                         {"katt_ms", facts.katt_ms},
                         {"traffic_based", facts.traffic_based},
                         {"cqt_ms", facts.cqt_ms},
                         {"bound_ms", time_to_json(bound)},
                         {"clean", clean},
                         {"until_ms", time_to_json(until)},
                         {"boot_id", updated.boot_id},
                         {"updated_ms", time_to_json(updated.since_boot)}};
  return document.dump(-1, ' ', false, json::error_handler_t::replace) + '\n';
}

Result<CrashRecord> CrashRecord::parse(std::string_view text) {
  const json document = json::parse(text, nullptr, false);
  if (!document.is_object()) return fail("it is not a JSON object", EBADMSG);
  if (number_of(document, "version") != 1) {
    return fail("it is of another release of nvmf-connect", EPROTONOSUPPORT);
  }
  CrashRecord r;
  r.subnqn = string_of(document, "subnqn");
  if (r.subnqn.empty()) return fail("it names no subsystem", EBADMSG);
  r.address = string_of(document, "address");
  r.pid = static_cast<pid_t>(number_of(document, "pid"));
  r.facts.katt_ms = static_cast<std::uint32_t>(number_of(document, "katt_ms"));
  r.facts.traffic_based = document.value("traffic_based", json()) == true;
  r.facts.cqt_ms = static_cast<std::uint16_t>(number_of(document, "cqt_ms"));
  r.clean = document.value("clean", json()) == true;
  const auto bound = time_of(document, "bound_ms");
  const auto until = time_of(document, "until_ms");
  const auto updated = time_of(document, "updated_ms");
  if (!bound || !until || !updated) return fail("it has no times", EBADMSG);
  r.bound = *bound;
  r.until = *until;
  r.updated = {string_of(document, "boot_id"), *updated};
  return r;
}

Duration still_held(const CrashRecord& record, const BootTime& now, bool owner_runs) {
  const bool told = !record.updated.boot_id.empty() && !now.boot_id.empty();
  const bool rebooted = told && record.updated.boot_id != now.boot_id;
  const auto left_of = [](Duration whole, Duration passed) {
    return whole == kForEver ? kForEver : std::max(whole - passed, Duration::zero());
  };
  // A boot is later than whatever happened before it. Where boots cannot be told apart, a time
  // since one of them says only how long there was to go when it was written.
  const Duration at_update = left_of(record.until, record.updated.since_boot);
  const Duration until = rebooted ? left_of(at_update, now.since_boot)
                         : told   ? left_of(record.until, now.since_boot)
                                  : at_update;
  if (record.clean || owner_runs) return until;
  return std::max(until, left_of(record.bound, rebooted ? now.since_boot : Duration::zero()));
}

Result<Inheritance> OwnCrashRecord::take_over(const RuntimeDir& runtime, const std::string& name) {
  name_ = name;
  const BootTime now = boot_time();
  Inheritance inheritance;
  std::vector<std::string> spent;  // part of ours from here on
  for (const std::string& other : record_names(directory_)) {
    const std::string file = path_of(directory_, other);
    const auto text = read_file(file, kRecordBytesMax);
    const auto found = text ? CrashRecord::parse(*text) : std::unexpected(text.error());
    if (!found) {
      inheritance.complaints.push_back(fmt::format(
          "{} cannot be understood ({}), so writes do not wait for the connection that left it; "
          "remove it when you know that nothing of that is executed any more",
          file, found.error().message));
      continue;
    }
    const bool runs = other != name && runtime.find(other).has_value();
    if (found->subnqn != record_.subnqn) {
      if (runs) continue;
      auto kept = keep_foreign(directory_, other, *found, now, other == name);
      if (!kept) return std::unexpected(kept.error());
      continue;
    }
    const Duration held = still_held(*found, now, runs);
    if (held > inheritance.hold) {
      inheritance.hold = held;
      inheritance.owner = other.substr(0, other.find('~'));
      inheritance.killed = !runs && !found->clean;
    }
    if (!runs) spent.push_back(file);
  }
  record_.pid = ::getpid();
  if (inheritance.hold > Duration::zero()) {
    record_.until = later(now.since_boot, inheritance.hold);
    if (auto written = write(); !written) return std::unexpected(written.error());
  }
  for (const std::string& file : spent) {
    if (file != path() || inheritance.hold == Duration::zero()) ::unlink(file.c_str());
  }
  return inheritance;
}

Result<void> OwnCrashRecord::went_live(const host::SilenceFacts& facts,
                                       std::optional<Duration> bound) {
  CrashRecord fresh = record_;
  fresh.facts = facts;
  fresh.bound = std::max(record_.bound, bound.value_or(kForEver));
  if (waived_) fresh.until = Duration::zero();
  if (written_ && fresh.to_json() == record_.to_json()) return {};
  std::swap(record_, fresh);
  auto written = write();
  written_ = written_ || written;
  if (!written) std::swap(record_, fresh);
  return written;
}

Result<void> OwnCrashRecord::ended(std::optional<Duration> still) {
  const BootTime now = boot_time();
  const Duration own = later(now.since_boot, still.value_or(kForEver));
  record_.until = std::max(record_.until, own);
  record_.clean = true;
  if (record_.until > now.since_boot) return write();
  if (::unlink(path().c_str()) != 0 && errno != ENOENT) return cannot("remove", path(), errno);
  return {};
}

Result<void> OwnCrashRecord::write() {
  record_.updated = boot_time();
  return replace_file(path(), record_.to_json());
}

std::string OwnCrashRecord::path() const {
  return path_of(directory_, name_);
}

}  // namespace nvmf::control
