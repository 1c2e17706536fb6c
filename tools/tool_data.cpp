#include "tool_data.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace nvmf::tools {

namespace {

constexpr mode_t kFileMode = 0644;  // as nvme-cli makes them, less what umask takes away

std::string reason(const std::string& what) {
  return fmt::format("{}: {}", what, std::strerror(errno));
}

/// As many as there are, `out.size()` at most.
Result<std::size_t> read_up_to(int fd, std::span<std::byte> out, const std::string& name) {
  std::size_t have = 0;
  while (have < out.size()) {
    const ssize_t n = ::read(fd, out.data() + have, out.size() - have);
    if (n == 0) break;
    if (n > 0) {
      have += static_cast<std::size_t>(n);
    } else if (errno != EINTR) {
      return fail(reason("cannot read " + name), EINVAL);
    }
  }
  return have;
}

}  // namespace

Result<void> read_data(const std::string& path, std::span<std::byte> out,
                       std::optional<std::byte> rest) {
  io::UniqueFd file;
  if (!path.empty()) {
    file.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.valid()) return fail(reason("cannot open " + path), EINVAL);
  }
  const std::string name = path.empty() ? "stdin" : path;
  const auto have = read_up_to(path.empty() ? STDIN_FILENO : file.get(), out, name);
  if (!have) return std::unexpected(have.error());
  if (*have == out.size()) return {};
  if (!rest) {
    return fail(fmt::format("{} has {} bytes, and the command is to send {}: nothing was sent",
                            name, *have, out.size()),
                EINVAL);
  }
  std::ranges::fill(out.subspan(*have), *rest);
  return {};
}

Result<DataSink> DataSink::open(const std::string& path) {
  DataSink sink;
  if (path.empty()) return sink;
  sink.path_ = path;
  sink.file_.reset(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, kFileMode));
  if (!sink.file_.valid()) return fail(reason("cannot open " + path), EINVAL);
  return sink;
}

Result<void> DataSink::write(std::span<const std::byte> data) {
  if (is_stdout()) {
    if (std::fwrite(data.data(), 1, data.size(), stdout) == data.size()) return {};
    return fail(reason("cannot write to stdout"), EIO);
  }
  // EINVAL: a pipe or a device, which has no length to set.
  if (::ftruncate(file_.get(), 0) != 0 && errno != EINVAL) {
    return fail(reason("cannot write to " + path_), EIO);
  }
  while (!data.empty()) {
    const ssize_t n = ::write(file_.get(), data.data(), data.size());
    if (n >= 0) {
      data = data.subspan(static_cast<std::size_t>(n));
    } else if (errno != EINTR) {
      return fail(reason("cannot write to " + path_), EIO);
    }
  }
  return {};
}

}  // namespace nvmf::tools
