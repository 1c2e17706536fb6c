// The kernel's end of /dev/fuse, played by the test: messages over a socket that keeps their
// borders, on which the file system is "mounted" as somebody else's /dev/fd/N.
#pragma once

#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace nvmf::fuse::test {

using Bytes = std::vector<std::byte>;

template <class T>
Bytes bytes_of(const T& value) {
  Bytes b(sizeof value);
  std::memcpy(b.data(), &value, sizeof value);
  return b;
}
inline Bytes bytes_of(const std::string& text) {  // with its NUL
  Bytes b(text.size() + 1);
  std::memcpy(b.data(), text.data(), text.size());
  return b;
}
inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

struct Answer {
  int error = 0;  // positive
  Bytes data;

  template <class T>
  [[nodiscard]] T as() const {
    T value{};
    EXPECT_GE(data.size(), sizeof value);
    std::memcpy(&value, data.data(), std::min(data.size(), sizeof value));
    return value;
  }
};

class FakeKernel {
 public:
  explicit FakeKernel(std::uint32_t minor = 38) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    // As much as anybody may have: /dev/fuse never makes a writer wait.
    const int most = 212'992;
    for (const int end : ends) ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &most, sizeof most);
    fd_ = ends[0];
    daemon_fd_ = ends[1];
    fuse_init_in init{};
    init.major = 7;
    init.minor = minor;
    init.max_readahead = 128 * 1024;
    init.flags = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_ASYNC_DIO |
                 FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV |
                 FUSE_AUTO_INVAL_DATA;
    init_ = send(FUSE_INIT, 0, bytes_of(init));
  }
  ~FakeKernel() { unmount(); }

  /// What the file system closes in the end.
  [[nodiscard]] std::string mount_point() const { return "/dev/fd/" + std::to_string(daemon_fd_); }
  [[nodiscard]] std::uint64_t init() const { return init_; }

  void unmount() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  std::uint64_t send(std::uint32_t opcode, std::uint64_t inode, const Bytes& arguments) {
    fuse_in_header head{};
    head.len = static_cast<std::uint32_t>(sizeof head + arguments.size());
    head.opcode = opcode;
    head.unique = next_ += 2;
    head.nodeid = inode;
    head.uid = ::getuid();
    const Bytes all = bytes_of(head) + arguments;
    EXPECT_EQ(::send(fd_, all.data(), all.size(), 0), static_cast<ssize_t>(all.size()));
    return head.unique;
  }
  void interrupt(std::uint64_t unique) {
    fuse_interrupt_in in{};
    in.unique = unique;
    send(FUSE_INTERRUPT, 0, bytes_of(in));
  }

  /// Nothing: it did not come in this time.
  std::optional<Answer> wait(std::uint64_t unique, int timeout_ms = 20'000) {
    while (!answers_.contains(unique)) {
      if (!take(timeout_ms)) return std::nullopt;
    }
    Answer answer = std::move(answers_[unique]);
    answers_.erase(unique);
    return answer;
  }
  Answer ask(std::uint32_t opcode, std::uint64_t inode, const Bytes& arguments) {
    auto answer = wait(send(opcode, inode, arguments));
    EXPECT_TRUE(answer.has_value()) << "no answer to " << opcode;
    return answer.value_or(Answer{.error = ETIMEDOUT});
  }
  /// The inode whose attributes we were told to forget; 0: no such notice came.
  std::uint64_t wait_for_notice(int timeout_ms = 20'000) {
    while (notices_.empty()) {
      if (!take(timeout_ms)) return 0;
    }
    const std::uint64_t inode = notices_.front();
    notices_.erase(notices_.begin());
    return inode;
  }

  // Requests.
  Answer lookup(std::uint64_t parent, const std::string& name) {
    return ask(FUSE_LOOKUP, parent, bytes_of(name));
  }
  Answer getattr(std::uint64_t inode) {
    return ask(FUSE_GETATTR, inode, bytes_of(fuse_getattr_in{}));
  }
  Answer open(std::uint64_t inode, int flags) {
    fuse_open_in in{};
    in.flags = static_cast<std::uint32_t>(flags);
    return ask(FUSE_OPEN, inode, bytes_of(in));
  }
  std::uint64_t send_read(std::uint64_t inode, std::uint64_t offset, std::uint32_t size,
                          std::uint64_t handle = 0) {
    fuse_read_in in{};
    in.fh = handle;
    in.offset = offset;
    in.size = size;
    return send(FUSE_READ, inode, bytes_of(in));
  }
  Answer read(std::uint64_t inode, std::uint64_t offset, std::uint32_t size,
              std::uint64_t handle = 0) {
    return wait(send_read(inode, offset, size, handle)).value_or(Answer{.error = ETIMEDOUT});
  }
  std::uint64_t send_write(std::uint64_t inode, std::uint64_t offset, const Bytes& data,
                           int flags = 0) {
    fuse_write_in in{};
    in.offset = offset;
    in.size = static_cast<std::uint32_t>(data.size());
    in.flags = static_cast<std::uint32_t>(flags);
    return send(FUSE_WRITE, inode, bytes_of(in) + data);
  }
  Answer write(std::uint64_t inode, std::uint64_t offset, const Bytes& data, int flags = 0) {
    return wait(send_write(inode, offset, data, flags)).value_or(Answer{.error = ETIMEDOUT});
  }

 private:
  bool take(int timeout_ms) {
    pollfd ready = {.fd = fd_, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, timeout_ms) <= 0) return false;
    Bytes message(2 << 20);
    const ssize_t got = ::recv(fd_, message.data(), message.size(), 0);
    if (got < static_cast<ssize_t>(sizeof(fuse_out_header))) return false;
    fuse_out_header head{};
    std::memcpy(&head, message.data(), sizeof head);
    EXPECT_EQ(head.len, got);
    Bytes data(message.begin() + sizeof head, message.begin() + got);
    if (head.unique == 0) {
      EXPECT_EQ(head.error, FUSE_NOTIFY_INVAL_INODE);
      fuse_notify_inval_inode_out out{};
      std::memcpy(&out, data.data(), sizeof out);
      EXPECT_LT(out.off, 0) << "only attributes: pages could be locked";
      notices_.push_back(out.ino);
    } else {
      EXPECT_FALSE(answers_.contains(head.unique)) << "answered twice";
      answers_[head.unique] = {-head.error, std::move(data)};
    }
    return true;
  }

  int fd_ = -1;
  int daemon_fd_ = -1;
  std::uint64_t next_ = 0;
  std::uint64_t init_ = 0;
  std::map<std::uint64_t, Answer> answers_;
  std::vector<std::uint64_t> notices_;
};

}  // namespace nvmf::fuse::test
