// Every test of the reactor runs on both backends.
#pragma once

#include <dirent.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "io/reactor.h"
#include "sim/byte_user.h"

namespace nvmf::io {

using sim::ByteUser;
using sim::pattern;

/// Runs `reactor` on this thread until `done` holds; false after `most` of real time.
inline bool run_until(Reactor& reactor, const std::function<bool()>& done,
                      Duration most = std::chrono::seconds(20)) {
  bool held = false;
  int rounds = static_cast<int>(most / std::chrono::milliseconds(1));
  std::unique_ptr<transport::Timer> ask;
  ask = std::make_unique<transport::Timer>(reactor.timers(), [&] {
    held = done();
    if (held || --rounds < 0) return reactor.stop();
    ask->arm(reactor.now() + std::chrono::milliseconds(1));
  });
  ask->arm(reactor.now());
  reactor.run();
  return held;
}

inline void run_for(Reactor& reactor, Duration d) {
  run_until(reactor, [] { return false; }, d);
}

/// How many file descriptors the process has open.
inline std::size_t open_fds() {
  std::size_t n = 0;
  DIR* dir = ::opendir("/proc/self/fd");
  while (::readdir(dir) != nullptr) ++n;
  ::closedir(dir);
  return n;
}

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "nvmf-io-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

class ReactorTest : public testing::TestWithParam<BackendKind> {
 protected:
  static std::unique_ptr<Reactor> make() {
    auto reactor = make_reactor({.backend = GetParam()});
    EXPECT_TRUE(reactor.has_value()) << reactor.error().message;
    return std::move(*reactor);
  }
  static transport::Endpoint loopback(std::uint16_t port = 0) {
    return {.host = "127.0.0.1", .port = port, .unix_path = {}};
  }
  static transport::Endpoint unix_at(const std::string& path) {
    return {.host = {}, .port = 0, .unix_path = path};
  }
  bool until(const std::function<bool()>& done, Duration most = std::chrono::seconds(20)) {
    return run_until(*reactor_, done, most);
  }

  TempDir dir_;
  std::unique_ptr<Reactor> reactor_ = make();
};

inline std::string backend_label(const testing::TestParamInfo<BackendKind>& info) {
  return info.param == BackendKind::epoll ? "epoll" : "io_uring";
}

#define NVMF_BOTH_BACKENDS(suite) \
  INSTANTIATE_TEST_SUITE_P(       \
      Backends, suite, testing::Values(BackendKind::epoll, BackendKind::io_uring), backend_label)

}  // namespace nvmf::io
