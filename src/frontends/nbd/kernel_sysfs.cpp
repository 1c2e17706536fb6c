#include "frontends/nbd/kernel_sysfs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "nvme/text.h"

namespace nvmf::nbd {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// A line of sysfs; nothing if there is no such file.
std::optional<std::string> line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line)) return std::nullopt;
  return line;
}

template <typename T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

template <typename T>
T number_of(const std::string& path) {
  return number<T>(line_of(path).value_or("")).value_or(T{});
}

/// The names in a folder; none if it cannot be read.
std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  return names;
}

std::string link_of(const std::string& path) {
  std::error_code error;
  return fs::read_symlink(path, error).string();
}

/// mountinfo writes a space as \040.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      int value = 0;
      const auto [end, error] = std::from_chars(text.data() + i + 1, text.data() + i + 4, value, 8);
      if (error == std::errc() && end == text.data() + i + 4) {
        out += static_cast<char>(value);
        i += 3;
        continue;
      }
    }
    out += text[i];
  }
  return out;
}

/// A device and its partitions, by name and by number.
struct Parts {
  std::string name;               // "nbd0"
  std::set<std::string> numbers;  // "43:0"

  [[nodiscard]] bool is_path(std::string_view path) const {
    const std::string prefix = "/dev/" + name;
    if (!path.starts_with(prefix)) return false;
    path.remove_prefix(prefix.size());
    if (path.empty() || path == " (deleted)") return true;
    return path.front() == 'p';
  }
};

void add_mounts(const Parts& parts, const std::string& mountinfo, std::set<std::string>& found) {
  std::ifstream file(mountinfo);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string id, parent, device, root, where;
    if (!(words >> id >> parent >> device >> root >> where)) continue;
    bool ours = parts.numbers.contains(device);
    // btrfs has a number of its own; then the source says it, the second word after the dash.
    if (const auto dash = line.find(" - "); !ours && dash != std::string::npos) {
      std::istringstream rest(line.substr(dash + 3));
      std::string type, source;
      ours = static_cast<bool>(rest >> type >> source) && parts.is_path(source);
    }
    if (ours) found.insert("the file system at " + nvme::printable(unescape(where)));
  }
}

bool has_open(const Parts& parts, const std::string& process) {
  return std::ranges::any_of(names_in(process + "/fd"), [&](const std::string& fd) {
    return parts.is_path(link_of(process + "/fd/" + fd));
  });
}

}  // namespace

std::string KernelSysfs::folder(std::uint32_t index) const {
  return fmt::format("{}/block/nbd{}", sys_, index);
}

std::vector<std::uint32_t> KernelSysfs::indices() const {
  std::vector<std::uint32_t> all;
  for (const std::string& name : names_in(sys_ + "/block")) {
    if (!name.starts_with("nbd")) continue;
    if (const auto index = number<std::uint32_t>(std::string_view(name).substr(3))) {
      all.push_back(*index);
    }
  }
  std::ranges::sort(all);
  return all;
}

std::optional<KernelDeviceFacts> KernelSysfs::look(std::uint32_t index) const {
  const std::string at = folder(index);
  if (!line_of(at + "/size")) return std::nullopt;
  KernelDeviceFacts f;
  f.index = index;
  const auto pid = line_of(at + "/pid");
  f.configured = pid.has_value();
  f.pid = number<std::uint32_t>(pid.value_or("")).value_or(0);
  f.backend = line_of(at + "/backend").value_or("");
  f.size_bytes = number_of<std::uint64_t>(at + "/size") * 512;  // always of 512 bytes
  f.block_bytes = number_of<std::uint32_t>(at + "/queue/logical_block_size");
  f.read_only = number_of<int>(at + "/ro") != 0;
  return f;
}

std::string KernelSysfs::who(std::uint32_t pid) const {
  const auto name = line_of(fmt::format("{}/{}/comm", proc_, pid));
  if (!name) return fmt::format("process {}", pid);
  return fmt::format("process {} ({})", pid, nvme::printable(*name));
}

Result<io::UniqueFd> KernelSysfs::lock(std::uint32_t index) const {
  const std::string at = folder(index);
  io::UniqueFd fd(::open(at.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return fail(fmt::format("cannot open {}: {}", at, std::strerror(errno)), errno);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno == EWOULDBLOCK) {
    return fail(fmt::format("/dev/nbd{} is served by another process", index), errno);
  }
  return fail(fmt::format("cannot lock {}: {}", at, std::strerror(errno)), errno);
}

std::vector<std::string> KernelSysfs::holders(std::uint32_t index,
                                              std::chrono::milliseconds limit) const {
  const Clock::time_point until = Clock::now() + limit;
  Parts parts{.name = fmt::format("nbd{}", index), .numbers = {}};
  std::set<std::string> found;
  const auto part = [&](const std::string& at) {
    if (const auto device = line_of(at + "/dev")) parts.numbers.insert(*device);
    for (const std::string& name : names_in(at + "/holders")) found.insert(name);
  };
  part(folder(index));
  for (const std::string& name : names_in(folder(index))) {
    if (name.starts_with(parts.name + "p")) part(folder(index) + "/" + name);
  }
  std::ifstream swaps(proc_ + "/swaps");
  for (std::string line; std::getline(swaps, line);) {
    if (parts.is_path(line.substr(0, line.find_first_of(" \t")))) found.insert("swap");
  }
  std::set<std::string> seen;  // namespaces of mounts
  const std::string self = std::to_string(::getpid());
  for (const std::string& name : names_in(proc_)) {
    const auto pid = number<std::uint32_t>(name);
    if (!pid) continue;
    if (Clock::now() > until) break;
    const std::string process = proc_ + "/" + name;
    const std::string mounts = link_of(process + "/ns/mnt");
    if (mounts.empty() || seen.insert(mounts).second) {
      add_mounts(parts, process + "/mountinfo", found);
    }
    if (name != self && has_open(parts, process)) found.insert(who(*pid));
  }
  return {found.begin(), found.end()};
}

Result<void> KernelSysfs::set_read_only(std::uint32_t index, bool read_only) const {
  const std::string path = fmt::format("{}/nbd{}", dev_, index);
  const io::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const int value = read_only ? 1 : 0;
  if (!fd.valid() || ::ioctl(fd.get(), BLKROSET, &value) != 0) {
    return fail(fmt::format("cannot make {} {}: {}", path, read_only ? "read-only" : "writable",
                            std::strerror(errno)),
                errno);
  }
  return {};
}

std::string enumerate(const std::vector<std::string>& phrases) {
  const std::size_t named = std::min(phrases.size(), kHoldersNamed);
  std::string out;
  for (std::size_t i = 0; i < named; ++i) {
    const bool last = i + 1 == named && named == phrases.size();
    if (i > 0) out += last ? " and " : ", ";
    out += phrases[i];
  }
  if (named < phrases.size()) out += fmt::format(" and {} more", phrases.size() - named);
  return out;
}

}  // namespace nvmf::nbd
