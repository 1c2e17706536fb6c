#include "frontends/fuse/mount_point.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>

#include "frontends/fuse/limits.h"

namespace nvmf::fuse {

namespace {

constexpr const char* kDevice = "/dev/fuse";
constexpr const char* kHelper = "fusermount3";

/// Spaces, tabs, line ends and backslashes are "\040" and the like.
std::string unescape(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '7' ? text[at] - '0' : -1;
    };
    if (text[i] == '\\' && digit(i + 1) >= 0 && digit(i + 2) >= 0 && digit(i + 3) >= 0) {
      plain += static_cast<char>(digit(i + 1) * 64 + digit(i + 2) * 8 + digit(i + 3));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t end = std::min(line.find(' ', at), line.size());
    if (end > at) words.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

/// The directory's parents resolved, and not the directory itself: a dead mount cannot be looked
/// at.
Result<std::string> resolve(const std::string& path) {
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.ends_with('/')) trimmed.pop_back();
  const std::unique_ptr<char, void (*)(void*)> whole(::realpath(trimmed.c_str(), nullptr),
                                                     std::free);
  if (whole) return std::string(whole.get());
  const int code = errno;
  const std::size_t slash = trimmed.rfind('/');
  if (code == ENOTCONN && slash != std::string::npos) {
    const std::string parent = slash == 0 ? "/" : trimmed.substr(0, slash);
    const std::unique_ptr<char, void (*)(void*)> above(::realpath(parent.c_str(), nullptr),
                                                       std::free);
    if (above) {
      const std::string prefix = above.get();
      return (prefix == "/" ? "" : prefix) + trimmed.substr(slash);
    }
  }
  if (code == ENOENT) {
    return fail(fmt::format("the directory {} to mount on does not exist: make it first", path),
                ENOENT);
  }
  return fail(fmt::format("cannot mount on {}: {}", path, std::strerror(code)), code);
}

Result<void> check_empty(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
  if (!directory) {
    const int code = errno;
    if (code == ENOTDIR) {
      return fail(fmt::format("{} is not a directory: give one, and every namespace is a file in "
                              "it",
                              path),
                  code);
    }
    return fail(fmt::format("cannot look into {} to mount on it: {}", path, std::strerror(code)),
                code);
  }
  while (const dirent* entry = ::readdir(directory.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    return fail(fmt::format("the directory {} is not empty ({} is in it), and would be hidden: "
                            "give an empty one",
                            path, name),
                ENOTEMPTY);
  }
  return {};
}

/// Runs the helper to its end. What it says goes to our stderr.
Result<void> run_helper(const std::string& path) {
  std::string program = kHelper;
  std::string options = "-uz";
  std::string ends_options = "--";
  std::string argument = path;
  std::array<char*, 5> arguments = {program.data(), options.data(), ends_options.data(),
                                    argument.data(), nullptr};
  pid_t child = 0;
  if (const int code = ::posix_spawnp(&child, kHelper, nullptr, nullptr, arguments.data(), environ);
      code != 0) {
    return fail(fmt::format("cannot unmount {}: {} could not be started: {}; install fuse3", path,
                            kHelper, std::strerror(code)),
                code);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return fail(fmt::format("cannot unmount {}: {} failed", path, kHelper), EIO);
}

}  // namespace

std::vector<Mount> parse_mountinfo(std::string_view text) {
  std::vector<Mount> mounts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const auto words = words_of(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    // 36 35 98:0 /root /path rw,noatime master:1 ... - ext4 /dev/root rw
    std::size_t dash = 6;
    while (dash < words.size() && words[dash] != "-") ++dash;
    if (dash + 2 >= words.size()) continue;
    mounts.push_back({.device = std::string(words[2]),
                      .path = unescape(words[4]),
                      .type = unescape(words[dash + 1]),
                      .source = unescape(words[dash + 2])});
  }
  return mounts;
}

std::vector<Mount> mounts_on(const std::string& path) {
  std::ifstream file("/proc/self/mountinfo");
  std::ostringstream text;
  text << file.rdbuf();
  std::vector<Mount> here;
  for (Mount& mount : parse_mountinfo(std::move(text).str())) {
    if (mount.path == path) here.push_back(std::move(mount));
  }
  return here;
}

Result<std::string> prepare_mount_point(const std::string& path) {
  for (int stale = 0;; ++stale) {
    auto resolved = resolve(path);
    if (!resolved) return resolved;
    const std::vector<Mount> here = mounts_on(*resolved);
    if (here.empty()) {
      if (auto empty = check_empty(*resolved); !empty) return std::unexpected(empty.error());
      return resolved;
    }
    struct stat st{};
    const bool dead = ::stat(resolved->c_str(), &st) != 0 && errno == ENOTCONN;
    if (!dead && here.back().type == kFileSystemType) {
      return fail(fmt::format("{} has the namespaces of {} mounted on it: end that connection, or "
                              "give another directory",
                              *resolved, here.back().source),
                  EBUSY);
    }
    if (!dead) {
      // The root of a file system may be as empty as any directory.
      if (auto empty = check_empty(*resolved); !empty) return std::unexpected(empty.error());
      return resolved;
    }
    if (here.back().type != kFileSystemType || stale == kStaleMountsMax) {
      return fail(fmt::format("a file system of the type {} is mounted on {} whose process has "
                              "gone: unmount it with fusermount3 -uz",
                              here.back().type, *resolved),
                  ENOTCONN);
    }
    if (auto off = unmount_lazily(*resolved); !off) return std::unexpected(off.error());
  }
}

Result<void> check_fuse() {
  const int fd = ::open(kDevice, O_RDWR | O_CLOEXEC);
  const int code = errno;
  if (fd >= 0) {
    ::close(fd);
  } else if (code == ENOENT || code == ENODEV || code == ENXIO) {
    return fail(fmt::format("there is no {} here: load the module with `modprobe fuse`; in a "
                            "container, start it with --device /dev/fuse, or use --nbd instead",
                            kDevice),
                code);
  } else if (code != EACCES || ::geteuid() == 0) {
    return fail(fmt::format("{} may not be used here ({}): a container has to be started with "
                            "--device /dev/fuse; or use --nbd instead",
                            kDevice, std::strerror(code)),
                code);
  } else {
    return fail(fmt::format("{} is closed to this user ({}): its mode is 0666 where everybody may "
                            "mount (chmod it, as root); or use --nbd instead",
                            kDevice, std::strerror(code)),
                code);
  }
  return {};
}

Result<void> unmount_lazily(const std::string& path) {
  if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return {};
  const int code = errno;
  if (code != EPERM) {
    return fail(fmt::format("cannot unmount {}: {}", path, std::strerror(code)), code);
  }
  return run_helper(path);
}

}  // namespace nvmf::fuse
