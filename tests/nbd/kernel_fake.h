// The kernel's NBD driver as these tests are it: it keeps sockets, replaces dead ones, says
// goodbye, and shows itself in a folder as sysfs does.
#pragma once

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "frontends/nbd/kernel_netlink.h"
#include "frontends/nbd/kernel_sysfs.h"
#include "frontends/nbd/protocol.h"
#include "io/unique_fd.h"

namespace nvmf::nbd::test {

namespace fs = std::filesystem;

/// Whether all of it came. MSG_WAITALL alone may give less in a thread that has made an io_uring
/// reactor: the kernel's work for the ring interrupts it as a signal does.
inline bool receive(int fd, std::byte* to, std::size_t bytes) {
  for (std::size_t got = 0; got < bytes;) {
    const ssize_t n = ::recv(fd, to + got, bytes - got, MSG_WAITALL);
    if (n == 0 || (n < 0 && errno != EINTR)) return false;
    if (n > 0) got += static_cast<std::size_t>(n);
  }
  return true;
}

class FakeKernel {
 public:
  struct Device {
    KernelConfig told;
    std::vector<io::UniqueFd> sockets;
    std::vector<bool> dead;
    bool configured = false;
  };

  FakeKernel() {
    std::string name = "/tmp/nvmf-kernel-XXXXXX";
    root = ::mkdtemp(name.data());
    fs::create_directories(root + "/sys/block");
    fs::create_directories(root + "/proc");
    fs::create_directories(root + "/dev");
  }
  ~FakeKernel() { fs::remove_all(root); }
  FakeKernel(const FakeKernel&) = delete;
  FakeKernel& operator=(const FakeKernel&) = delete;

  [[nodiscard]] KernelSysfs sysfs() const {
    return KernelSysfs(root + "/sys", root + "/proc", root + "/dev");
  }
  [[nodiscard]] std::string folder(std::uint32_t index) const {
    return root + "/sys/block/nbd" + std::to_string(index);
  }
  void write(const std::string& path, const std::string& text) const {
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path) << text << '\n';
  }
  /// What sysfs shows.
  void show(std::uint32_t index) {
    const Device& d = devices[index];
    const std::string at = folder(index);
    write(at + "/size", std::to_string(d.told.size_bytes.value_or(0) / 512));
    write(at + "/ro", "0");
    write(at + "/dev", "43:" + std::to_string(index * 16));
    write(at + "/queue/logical_block_size", std::to_string(d.told.block_bytes.value_or(512)));
    if (d.configured) {
      write(at + "/pid", std::to_string(::getpid()));
      write(at + "/backend", d.told.backend);
    } else {
      fs::remove(at + "/pid");
      fs::remove(at + "/backend");
    }
  }
  /// What a process leaves that was killed.
  void leave_behind(std::uint32_t index, const std::string& backend, std::uint64_t bytes,
                    std::size_t connections) {
    const std::lock_guard lock(mutex);
    Device& d = devices[index];
    d.told = {.size_bytes = bytes, .block_bytes = 512, .backend = backend};
    d.configured = true;
    d.sockets.resize(connections);
    d.dead.assign(connections, true);
    show(index);
  }
  /// The kernel gives a connection up.
  void give_up(std::uint32_t index, std::size_t connection) {
    const std::lock_guard lock(mutex);
    ::shutdown(devices[index].sockets[connection].get(), SHUT_RDWR);
    devices[index].dead[connection] = true;
  }

  [[nodiscard]] std::size_t alive(std::uint32_t index) {
    const std::lock_guard lock(mutex);
    std::size_t n = 0;
    for (const bool dead : devices[index].dead) n += dead ? 0 : 1;
    return n;
  }
  [[nodiscard]] bool configured(std::uint32_t index) {
    const std::lock_guard lock(mutex);
    return devices[index].configured;
  }
  [[nodiscard]] KernelConfig told(std::uint32_t index) {
    const std::lock_guard lock(mutex);
    return devices[index].told;
  }

  /// Asks for something on a connection; the reply's error, and its data. 9999: there came none.
  std::uint32_t ask(std::uint32_t index, std::size_t connection, const RequestHeader& header,
                    std::vector<std::byte>& data) {
    int fd = -1;
    {
      const std::lock_guard lock(mutex);
      fd = devices[index].sockets.at(connection).get();
    }
    std::vector<std::byte> out(RequestHeader::kBytes);
    header.encode(out.data());
    if (header.command == Command::write) out.insert(out.end(), data.begin(), data.end());
    if (::send(fd, out.data(), out.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(out.size())) {
      return 9999;
    }
    std::byte reply[SimpleReply::kBytes];
    pollfd p{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&p, 1, 60'000) != 1 || !receive(fd, reply, sizeof reply)) {
      return 9999;
    }
    const auto simple = SimpleReply::decode(reply);
    if (!simple || simple->cookie != header.cookie) return 9998;
    if (simple->error == WireError::ok && header.command == Command::read) {
      data.resize(header.length);
      if (!receive(fd, data.data(), data.size())) return 9999;
    }
    return static_cast<std::uint32_t>(simple->error);
  }

  // What netlink asks.
  Result<std::uint32_t> connect(const KernelConfig& config) {
    const std::lock_guard lock(mutex);
    ++connects;
    if (refuse != 0) return fail("refused", refuse);
    std::uint32_t index = config.index.value_or(0);
    while (!config.index && devices[index].configured) ++index;
    Device& d = devices[index];
    if (d.configured) return fail("busy", EBUSY);
    d = Device{};
    d.told = config;
    d.configured = true;
    for (const int fd : config.sockets) {
      d.sockets.emplace_back(::dup(fd));
      d.dead.push_back(false);
    }
    show(index);
    return index;
  }
  Result<void> reconfigure(const KernelConfig& config) {
    const std::lock_guard lock(mutex);
    Device& d = devices[*config.index];
    if (!d.configured || d.told.backend != config.backend) return fail("no such device", EINVAL);
    if (config.size_bytes) d.told.size_bytes = config.size_bytes;
    if (config.timeout_s) d.told.timeout_s = config.timeout_s;
    if (config.dead_conn_timeout_s) d.told.dead_conn_timeout_s = config.dead_conn_timeout_s;
    for (const int fd : config.sockets) {
      for (std::size_t i = 0; i < d.dead.size(); ++i) {
        if (!d.dead[i]) continue;
        d.sockets[i] = io::UniqueFd(::dup(fd));
        d.dead[i] = false;
        break;
      }
    }
    show(*config.index);
    return {};
  }
  Result<void> disconnect(std::uint32_t index) {
    const std::lock_guard lock(mutex);
    Device& d = devices[index];
    std::byte bye[RequestHeader::kBytes];
    RequestHeader{.command = Command::disconnect}.encode(bye);
    for (const io::UniqueFd& fd : d.sockets) {
      ::send(fd.get(), bye, sizeof bye, MSG_NOSIGNAL);
      ::shutdown(fd.get(), SHUT_RDWR);
    }
    d.configured = false;
    d.told = {};
    d.dead.assign(d.dead.size(), true);
    show(index);
    return {};
  }

  std::string root;
  std::mutex mutex;
  std::map<std::uint32_t, Device> devices;
  int refuse = 0;  // the errno of connecting
  int connects = 0;
};

class FakeNbd final : public KernelNbd {
 public:
  explicit FakeNbd(FakeKernel& kernel) : kernel_(kernel) {}
  Result<std::uint32_t> connect(const KernelConfig& config) override {
    return kernel_.connect(config);
  }
  Result<void> reconfigure(const KernelConfig& config) override {
    return kernel_.reconfigure(config);
  }
  Result<void> disconnect(std::uint32_t index) override { return kernel_.disconnect(index); }

 private:
  FakeKernel& kernel_;
};

}  // namespace nvmf::nbd::test
