#include "control/runtime_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "io/unique_fd.h"
#include "nvme/text.h"

namespace nvmf::control {

using io::UniqueFd;
using nlohmann::json;

namespace {

constexpr std::string_view kLockEnding = ".lock";
constexpr std::size_t kDescriptionBytesMax = 4096;
/// Of sockaddr_un's 108 bytes one is the NUL.
constexpr std::size_t kSocketPathBytesMax = 107;

std::unexpected<Error> cannot(std::string_view what, const std::string& path, int code) {
  return fail(fmt::format("cannot {} {}: {}", what, path, std::strerror(code)), code);
}

/// Open file description locks: they belong to the open file, as flock()'s do, survive fork() and
/// end with the last process that has it; and F_OFD_GETLK asks about them without taking them.
struct ::flock whole_file(short type) {
  struct ::flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

bool try_lock(int fd) {
  struct ::flock lock = whole_file(F_WRLCK);
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool held_by_another(int fd) {
  struct ::flock lock = whole_file(F_WRLCK);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/// Locks the directory; unlocked when the descriptor goes.
Result<UniqueFd> lock_directory(const std::string& directory) {
  const std::string path = directory + "/.lock";
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) return cannot("open", path, errno);
  const auto give_up = std::chrono::steady_clock::now() + kDirectoryLockPatience;
  while (!try_lock(fd.get())) {
    if (errno != EAGAIN && errno != EACCES && errno != EINTR) return cannot("lock", path, errno);
    if (std::chrono::steady_clock::now() > give_up) {
      return fail(fmt::format("{} stays locked: another nvmf-connect is stopped while it starts or "
                              "ends",
                              path),
                  EBUSY);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return fd;
}

std::string describe(const Connection& c) {
  const json document = {{"version", 1},         {"name", c.name}, {"pid", ::getpid()},
                         {"address", c.address}, {"port", c.port}, {"subnqn", c.subnqn},
                         {"hostnqn", c.hostnqn}};
  return document.dump(-1, ' ', false, json::error_handler_t::replace) + '\n';
}

/// What the lock file says. It may be empty for a moment after it was claimed.
Connection read_description(int fd, std::string name) {
  Connection c;
  c.name = std::move(name);
  std::array<char, kDescriptionBytesMax> text{};
  const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
  if (n <= 0) return c;
  const json document = json::parse(text.data(), text.data() + n, nullptr, false);
  if (!document.is_object()) return c;
  const auto string_of = [&](const char* key) {
    const auto found = document.find(key);
    return found != document.end() && found->is_string() ? found->get<std::string>()
                                                         : std::string();
  };
  const auto number_of = [&](const char* key) {
    const auto found = document.find(key);
    return found != document.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
  };
  c.pid = static_cast<pid_t>(number_of("pid"));
  c.address = string_of("address");
  c.port = static_cast<std::uint16_t>(number_of("port"));
  c.subnqn = string_of("subnqn");
  c.hostnqn = string_of("hostnqn");
  return c;
}

/// Names that have a lock file, held or not.
std::vector<std::string> lock_names(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string file = entry->path().filename().string();
    if (!file.ends_with(kLockEnding)) continue;
    std::string name = file.substr(0, file.size() - kLockEnding.size());
    if (check_name(name)) names.push_back(std::move(name));
  }
  return names;
}

/// nvmf2 before nvmf10: runs of digits count as numbers.
bool natural_less(std::string_view a, std::string_view b) {
  const auto digits = [](std::string_view s) {
    const std::size_t n = s.find_first_not_of("0123456789");
    return n == std::string_view::npos ? s.size() : n;
  };
  while (!a.empty() && !b.empty()) {
    const std::size_t da = digits(a);
    const std::size_t db = digits(b);
    const std::string_view x = a.substr(0, std::max<std::size_t>(da, 1));
    const std::string_view y = b.substr(0, std::max<std::size_t>(db, 1));
    if (da != 0 && db != 0 && da != db) return da < db;
    if (x != y) return x < y;
    a.remove_prefix(x.size());
    b.remove_prefix(y.size());
  }
  return a.size() < b.size();
}

}  // namespace

Result<void> check_name(std::string_view name) {
  const auto word = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  const bool good = !name.empty() && name.size() <= kNameBytesMax && word(name.front()) &&
                    std::ranges::all_of(
                        name, [&](char c) { return word(c) || c == '.' || c == '_' || c == '-'; });
  if (name.ends_with(".nbd")) {
    // Its control socket would be the NBD socket of the connection without that ending.
    return fail(fmt::format("\"{}\" cannot be a connection's name: it must not end in .nbd",
                            nvme::printable(name)),
                EINVAL);
  }
  if (good) return {};
  return fail(fmt::format("\"{}\" cannot be a connection's name: use 1 to {} letters, digits, "
                          "'.', '_' and '-', a letter or a digit first",
                          nvme::printable(name), kNameBytesMax),
              EINVAL);
}

Result<RuntimeDir> RuntimeDir::open() {
  if (const char* given = std::getenv("NVMF_RUNTIME_DIR"); given != nullptr && *given != '\0') {
    return open(given);
  }
  if (::geteuid() == 0) return open("/run/nvmf");
  if (const char* xdg = std::getenv("XDG_RUNTIME_DIR"); xdg != nullptr && *xdg != '\0') {
    return open(std::string(xdg) + "/nvmf");
  }
  return fail(
      "there is no runtime directory: set NVMF_RUNTIME_DIR to a directory of your own, for example "
      "by export NVMF_RUNTIME_DIR=$HOME/.nvmf (XDG_RUNTIME_DIR is not set either)",
      ENOENT);
}

Result<RuntimeDir> RuntimeDir::open(const std::string& path) {
  std::error_code error;
  const std::string absolute = std::filesystem::absolute(path, error).lexically_normal().string();
  if (error) return cannot("use", path, error.value());
  if (::mkdir(absolute.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail(fmt::format("cannot make the runtime directory {}: {}; set NVMF_RUNTIME_DIR to a "
                            "directory of your own",
                            absolute, std::strerror(errno)),
                errno);
  }
  struct stat st{};
  if (::stat(absolute.c_str(), &st) != 0) {
    return cannot("use the runtime directory", absolute, errno);
  }
  if (!S_ISDIR(st.st_mode)) {
    return fail(fmt::format("the runtime directory {} is no directory: set NVMF_RUNTIME_DIR to "
                            "another path",
                            absolute),
                ENOTDIR);
  }
  // Whoever can write here could put a socket of his own in the place of ours.
  if (st.st_uid != ::geteuid()) {
    return fail(fmt::format("the runtime directory {} belongs to another user ({}): set "
                            "NVMF_RUNTIME_DIR to a directory of your own",
                            absolute, st.st_uid),
                EPERM);
  }
  if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fail(fmt::format("other users may write to the runtime directory {}: give it mode 0700, "
                            "or set NVMF_RUNTIME_DIR to another",
                            absolute),
                EPERM);
  }
  return RuntimeDir(absolute.size() > 1 && absolute.ends_with('/')
                        ? absolute.substr(0, absolute.size() - 1)
                        : absolute);
}

std::string RuntimeDir::file(std::string_view name, std::string_view ending) const {
  return fmt::format("{}/{}{}", path_, name, ending);
}
std::string RuntimeDir::control_socket(std::string_view name) const {
  return file(name, ".sock");
}
std::string RuntimeDir::nbd_socket(std::string_view name) const {
  return file(name, ".nbd.sock");
}
std::string RuntimeDir::log_file(std::string_view name) const {
  return file(name, ".log");
}

/// With the directory locked: removes what processes that are gone left.
void RuntimeDir::sweep() const {
  for (const std::string& name : lock_names(path_)) {
    const std::string lock = file(name, kLockEnding);
    const UniqueFd fd(::open(lock.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    if (fd.get() < 0 || held_by_another(fd.get())) continue;
    ::unlink(control_socket(name).c_str());
    ::unlink(nbd_socket(name).c_str());
    ::unlink(lock.c_str());
  }
}

Result<void> RuntimeDir::clean() const {
  const Result<UniqueFd> directory = lock_directory(path_);
  if (!directory) return std::unexpected(directory.error());
  sweep();
  return {};
}

Result<Claim> RuntimeDir::claim(
    const Connection& wanted, const std::function<Result<void>(const Connection&)>& admit,
    const std::function<Result<void>(const std::string&)>& on_claimed) const {
  if (!wanted.name.empty()) {
    if (auto good = check_name(wanted.name); !good) return std::unexpected(good.error());
  }
  const Result<UniqueFd> directory = lock_directory(path_);
  if (!directory) return std::unexpected(directory.error());
  const auto existing = connections();
  if (!existing) return std::unexpected(existing.error());
  const auto taken = [&](const std::string& name) {
    return std::ranges::find(*existing, name, &Connection::name);
  };

  Connection self = wanted;
  for (unsigned i = 0; self.name.empty() && i < kDefaultNamesMax; ++i) {
    std::string candidate = fmt::format("nvmf{}", i);
    if (taken(candidate) == existing->end()) self.name = std::move(candidate);
  }
  if (self.name.empty()) return fail("all default names are taken: give --name", EBUSY);
  if (const auto other = taken(self.name); other != existing->end()) {
    return fail(fmt::format("the name {} is taken by process {}, connected to {}: choose another "
                            "--name, or end that one with `nvmf disconnect {}`",
                            self.name, other->pid, other->subnqn, self.name),
                EBUSY);
  }
  if (admit) {
    for (const Connection& c : *existing) {
      if (auto admitted = admit(c); !admitted) return std::unexpected(admitted.error());
    }
  }

  if (const std::string longest = nbd_socket(self.name); longest.size() > kSocketPathBytesMax) {
    return fail(
        fmt::format("the socket {} would have a path of {} bytes, but the system allows {}: "
                    "give a shorter --name, or set NVMF_RUNTIME_DIR to a shorter path",
                    longest, longest.size(), kSocketPathBytesMax),
        ENAMETOOLONG);
  }
  sweep();
  const std::string lock = file(self.name, kLockEnding);
  UniqueFd fd(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) return cannot("make", lock, errno);
  if (!try_lock(fd.get())) return cannot("lock", lock, errno);
  const std::string text = describe(self);
  if (text.size() > kDescriptionBytesMax || ::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    const int code = errno;
    ::unlink(lock.c_str());
    return cannot("write", lock, code);
  }
  if (on_claimed) {
    if (auto done = on_claimed(self.name); !done) {
      ::unlink(lock.c_str());
      return std::unexpected(done.error());
    }
  }
  return Claim(path_, self.name, std::move(fd));
}

Claim::~Claim() {
  if (!fd_.valid()) return;
  // With the directory locked, so that nobody claims the file that we are about to remove. Without
  // that lock the file is left to the next sweep.
  const Result<UniqueFd> directory = lock_directory(directory_);
  if (directory) ::unlink(fmt::format("{}/{}{}", directory_, name_, kLockEnding).c_str());
}

Result<std::vector<Connection>> RuntimeDir::connections() const {
  std::vector<Connection> found;
  for (std::string& name : lock_names(path_)) {
    if (auto c = find(name)) found.push_back(std::move(*c));
  }
  std::ranges::sort(found, natural_less, &Connection::name);
  return found;
}

std::optional<Connection> RuntimeDir::find(std::string_view name) const {
  if (!check_name(name)) return std::nullopt;
  const UniqueFd fd(::open(file(name, kLockEnding).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (fd.get() < 0 || !held_by_another(fd.get())) return std::nullopt;
  return read_description(fd.get(), std::string(name));
}

}  // namespace nvmf::control
