// libnbd, whose code is nobody's here, against the server on real loops: both backends, both kinds
// of socket, two reactors on threads of their own. libnbd's own checks of what a client may ask
// (strict mode) are off, so that the server's are what is tested.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <libnbd.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <future>
#include <random>
#include <thread>

#include "frontends/nbd/server.h"
#include "frontends/nbd/uri.h"
#include "io/reactor.h"
#include "loop_device.h"
#include "nvme/endian.h"

namespace nvmf::nbd {
namespace {

using namespace std::chrono_literals;
using Bytes = std::vector<std::byte>;

constexpr std::size_t kDiskBytes = 64u << 20;
const nbd_completion_callback kNoCallback{nullptr, nullptr, nullptr};

struct How {
  io::BackendKind backend;
  bool tcp;
};

Bytes random_bytes(std::size_t n, unsigned seed) {
  std::mt19937_64 random(seed);
  Bytes b(n + 8);
  for (std::size_t i = 0; i < n; i += 8) store_le64(b.data() + i, random());
  b.resize(n);
  return b;
}

/// Two reactors with a server on them.
class RunningServer {
 public:
  explicit RunningServer(How how, ServerOptions options = {}, std::uint32_t block_bytes = 512) {
    std::string name = "/tmp/nvmf-nbd-XXXXXX";
    directory_ = ::mkdtemp(name.data());
    ExportList exports;
    Export e{{"nvmf0n1", "1"}, {}};
    std::vector<transport::Loop*> loops;
    for (int i = 0; i < 2; ++i) {
      auto reactor = io::make_reactor({.backend = how.backend});
      if (!reactor) throw std::runtime_error(reactor.error().message);
      reactors_.push_back(std::move(*reactor));
      loops.push_back(reactors_.back().get());
      devices_.push_back(std::make_unique<test::LoopDevice>(*loops.back(), disk, block_bytes));
      e.devices.push_back(devices_.back().get());
    }
    exports.add(std::move(e));
    server_ = std::make_unique<Server>(std::move(loops), std::move(exports), std::move(options));
    for (const auto& r : reactors_) {
      threads_.emplace_back([&r] {
        r->run();
        r->end();
      });
    }
    transport::Endpoint at;
    if (how.tcp) {
      at.host = "127.0.0.1";
    } else {
      at.unix_path = directory_ + "/a socket";
    }
    std::promise<transport::Endpoint> listening;
    reactors_[0]->post([&] {
      auto local = server_->listen(at);
      EXPECT_TRUE(local.has_value());
      listening.set_value(local.value_or(at));
    });
    where_ = listening.get_future().get();
  }

  ~RunningServer() {
    stop();
    for (const auto& r : reactors_) r->stop();
    for (std::thread& t : threads_) t.join();
    server_.reset();
    ::rmdir(directory_.c_str());
  }

  void stop() {
    if (stopped_) return;
    stopped_ = true;
    disk->hang = false;
    std::promise<void> done;
    reactors_[0]->post([&] { server_->stop([&] { done.set_value(); }); });
    EXPECT_EQ(done.get_future().wait_for(60s), std::future_status::ready);
  }
  /// Begins to stop; the returned future is ready when it has.
  std::future<void> begin_stop() {
    stopped_ = true;
    auto done = std::make_shared<std::promise<void>>();
    auto future = done->get_future();
    reactors_[0]->post([this, done] { server_->stop([done] { done->set_value(); }); });
    return future;
  }
  /// Lets what hangs in the devices go on.
  void let_go() {
    disk->hang = false;
    for (std::size_t i = 0; i < 2; ++i) {
      reactors_[i]->post([d = devices_[i].get()] { d->let_go(); });
    }
  }
  [[nodiscard]] std::string uri(const char* name = "nvmf0n1") const {
    return nbd::uri(where_, name);
  }
  [[nodiscard]] std::string unix_path() const { return where_.unix_path; }
  [[nodiscard]] ServerTotals totals() const { return server_->totals(); }

  std::shared_ptr<test::Disk> disk = std::make_shared<test::Disk>(kDiskBytes);

 private:
  std::string directory_;
  std::vector<std::unique_ptr<io::Reactor>> reactors_;
  std::vector<std::unique_ptr<test::LoopDevice>> devices_;
  std::unique_ptr<Server> server_;
  std::vector<std::thread> threads_;
  transport::Endpoint where_;
  bool stopped_ = false;
};

struct CloseHandle {
  void operator()(nbd_handle* h) const { nbd_close(h); }
};
using Handle = std::unique_ptr<nbd_handle, CloseHandle>;

Handle make_handle() {
  Handle h(nbd_create());
  nbd_set_strict_mode(h.get(), 0);
  return h;
}

Handle open_export(const RunningServer& server, bool structured = true,
                   const char* name = "nvmf0n1") {
  Handle h = make_handle();
  nbd_set_request_structured_replies(h.get(), structured);
  EXPECT_EQ(nbd_connect_uri(h.get(), server.uri(name).c_str()), 0) << nbd_get_error();
  return h;
}

class LibNbd : public testing::TestWithParam<How> {};
INSTANTIATE_TEST_SUITE_P(
    Loops, LibNbd,
    testing::Values(How{io::BackendKind::io_uring, false}, How{io::BackendKind::io_uring, true},
                    How{io::BackendKind::epoll, false}, How{io::BackendKind::epoll, true}),
    [](const auto& how) {
      return std::string(how.param.backend == io::BackendKind::epoll ? "epoll" : "io_uring") +
             (how.param.tcp ? "_tcp" : "_unix");
    });

TEST_P(LibNbd, SeesTheExportAsItIs) {
  RunningServer server(GetParam(), {}, 4096);
  for (const char* name : {"nvmf0n1", "1", ""}) {
    Handle h = open_export(server, true, name);
    EXPECT_EQ(nbd_get_size(h.get()), static_cast<std::int64_t>(kDiskBytes));
    EXPECT_EQ(nbd_can_flush(h.get()), 1);
    EXPECT_EQ(nbd_can_fua(h.get()), 1);
    EXPECT_EQ(nbd_can_trim(h.get()), 1);
    EXPECT_EQ(nbd_can_zero(h.get()), 1);
    EXPECT_EQ(nbd_can_fast_zero(h.get()), 1);
    EXPECT_EQ(nbd_can_df(h.get()), 1);
    EXPECT_EQ(nbd_can_multi_conn(h.get()), 1);
    EXPECT_EQ(nbd_can_cache(h.get()), 1);
    EXPECT_EQ(nbd_is_read_only(h.get()), 0);
    EXPECT_EQ(nbd_get_block_size(h.get(), LIBNBD_SIZE_MINIMUM), 1);
    EXPECT_EQ(nbd_get_block_size(h.get(), LIBNBD_SIZE_PREFERRED), 4096);
    EXPECT_EQ(nbd_get_block_size(h.get(), LIBNBD_SIZE_MAXIMUM), 32 << 20);
    EXPECT_STREQ(nbd_get_protocol(h.get()), "newstyle-fixed");
    EXPECT_EQ(nbd_shutdown(h.get(), 0), 0);
  }
}

TEST_P(LibNbd, ListsAndAsksInOptionMode) {
  RunningServer server(GetParam());
  Handle h = make_handle();
  nbd_set_opt_mode(h.get(), true);
  nbd_set_full_info(h.get(), true);
  ASSERT_EQ(nbd_connect_uri(h.get(), server.uri().c_str()), 0) << nbd_get_error();
  std::string listed;
  const auto each = [](void* to, const char* name, const char* description) {
    *static_cast<std::string*>(to) += std::string(name) + "|" + description + ";";
    return 0;
  };
  ASSERT_EQ(nbd_opt_list(h.get(), {.callback = each, .user_data = &listed, .free = nullptr}), 1);
  EXPECT_EQ(listed, "nvmf0n1|a disk on a loop;");
  nbd_set_export_name(h.get(), "nothing");
  EXPECT_EQ(nbd_opt_info(h.get()), -1);
  EXPECT_EQ(nbd_get_errno(), ENOENT);
  nbd_set_export_name(h.get(), "1");
  ASSERT_EQ(nbd_opt_info(h.get()), 0) << nbd_get_error();
  char* name = nbd_get_canonical_export_name(h.get());
  EXPECT_STREQ(name, "nvmf0n1");
  ::free(name);
  char* description = nbd_get_export_description(h.get());
  EXPECT_STREQ(description, "a disk on a loop");
  ::free(description);
  ASSERT_EQ(nbd_opt_go(h.get()), 0) << nbd_get_error();
  Bytes b(512);
  EXPECT_EQ(nbd_pread(h.get(), b.data(), b.size(), 0, 0), 0);
  Handle aborted = make_handle();
  nbd_set_opt_mode(aborted.get(), true);
  ASSERT_EQ(nbd_connect_uri(aborted.get(), server.uri().c_str()), 0);
  EXPECT_EQ(nbd_opt_abort(aborted.get()), 0);
}

TEST_P(LibNbd, OldSpellingsOfTheHandshake) {
  RunningServer server(GetParam());
  // Without fixed newstyle: EXPORT_NAME, with and without the zeroes.
  for (const std::uint32_t flags : {0u, 1u, 2u, 3u}) {
    Handle h = make_handle();
    nbd_set_handshake_flags(h.get(), flags);
    ASSERT_EQ(nbd_connect_uri(h.get(), server.uri().c_str()), 0) << nbd_get_error();
    Bytes b(4096);
    EXPECT_EQ(nbd_pread(h.get(), b.data(), b.size(), 0, 0), 0) << nbd_get_error();
    EXPECT_EQ(nbd_get_size(h.get()), static_cast<std::int64_t>(kDiskBytes));
  }
}

TEST_P(LibNbd, EveryCommand) {
  RunningServer server(GetParam());
  for (const bool structured : {true, false}) {
    Handle h = open_export(server, structured);
    EXPECT_EQ(nbd_get_structured_replies_negotiated(h.get()), structured);
    const Bytes data = random_bytes(32u << 20, structured);
    for (const std::size_t n : {std::size_t{512}, std::size_t{70'144}, data.size()}) {
      ASSERT_EQ(nbd_pwrite(h.get(), data.data(), n, 512, LIBNBD_CMD_FLAG_FUA), 0);
      EXPECT_EQ(nbd_pwrite(h.get(), data.data(), 77, 513 + n, 0), 0) << nbd_get_error();
      Bytes back(n);
      ASSERT_EQ(nbd_pread(h.get(), back.data(), n, 512, structured ? LIBNBD_CMD_FLAG_DF : 0), 0)
          << nbd_get_error();
      EXPECT_EQ(std::memcmp(back.data(), data.data(), n), 0);
    }
    EXPECT_EQ(server.disk->fua.exchange(0), 1u + 1u + 33u);  // on every piece
    EXPECT_EQ(nbd_flush(h.get(), 0), 0);
    EXPECT_EQ(server.disk->flushes.exchange(0), 1u);
    EXPECT_EQ(nbd_trim(h.get(), 1 << 20, 1 << 20, LIBNBD_CMD_FLAG_FUA), 0);
    EXPECT_EQ(server.disk->trims.exchange(0), 1u);
    ASSERT_EQ(nbd_zero(h.get(), kDiskBytes, 0, LIBNBD_CMD_FLAG_NO_HOLE), 0);
    EXPECT_EQ(nbd_zero(h.get(), 512, 0, LIBNBD_CMD_FLAG_FAST_ZERO), 0);
    EXPECT_EQ(nbd_cache(h.get(), kDiskBytes, 0, 0), 0);
    Bytes back(4096, std::byte{1});
    EXPECT_EQ(nbd_pread(h.get(), back.data(), back.size(), 512, 0), 0);
    EXPECT_EQ(back, Bytes(4096));
    server.disk->fua = 0;
    EXPECT_EQ(nbd_shutdown(h.get(), 0), 0);
  }
}

TEST_P(LibNbd, ErrorsComeWithTheirCodesAndTheConnectionSurvives) {
  RunningServer server(GetParam());
  for (const bool structured : {true, false}) {
    Handle handle = open_export(server, structured);
    nbd_handle* h = handle.get();
    Bytes b(40u << 20);
    const auto expect = [&](int result, int error, int line) {
      EXPECT_EQ(result, -1) << "line " << line;
      EXPECT_EQ(nbd_get_errno(), error) << "line " << line << ": " << nbd_get_error();
    };
    expect(nbd_pread(h, b.data(), 512, kDiskBytes, 0), EINVAL, __LINE__);
    expect(nbd_pread(h, b.data(), 1024, kDiskBytes - 512, 0), EINVAL, __LINE__);
    expect(nbd_pwrite(h, b.data(), 1024, kDiskBytes - 512, 0), ENOSPC, __LINE__);
    expect(nbd_pread(h, b.data(), 101, kDiskBytes - 100, 0), EINVAL, __LINE__);
    expect(nbd_pwrite(h, b.data(), b.size(), 0, 0), EINVAL, __LINE__);  // drained
    expect(nbd_pread(h, b.data(), b.size(), 0, 0), EINVAL, __LINE__);
    expect(nbd_zero(h, kDiskBytes, 512, 0), ENOSPC, __LINE__);
    expect(nbd_trim(h, kDiskBytes, 512, 0), EINVAL, __LINE__);
    expect(nbd_cache(h, 512, kDiskBytes, 0), EINVAL, __LINE__);
    expect(nbd_pread(h, b.data(), 512, 0, LIBNBD_CMD_FLAG_NO_HOLE), EINVAL, __LINE__);
    server.disk->fail = EIO;
    expect(nbd_pread(h, b.data(), 512, 0, 0), EIO, __LINE__);
    expect(nbd_pwrite(h, b.data(), 512, 0, 0), EIO, __LINE__);
    server.disk->fail = 0;
    EXPECT_EQ(nbd_pread(h, b.data(), 512, 0, 0), 0);
  }
}

/// Random reads and writes, several in flight on each of several connections, checked against what
/// was written.
TEST_P(LibNbd, ManyRequestsOnManyConnections) {
  RunningServer server(GetParam());
  constexpr std::size_t kConnections = 4;
  constexpr std::size_t kDepth = 32;
  constexpr std::uint32_t kSlot =
      128 * 1024;  // each in-flight request has its own part of the disk
  std::vector<std::thread> threads;
  for (std::size_t c = 0; c < kConnections; ++c) {
    threads.emplace_back([&server, c] {
      Handle handle = open_export(server);
      nbd_handle* h = handle.get();
      std::mt19937 random(static_cast<unsigned>(c));
      struct Part {
        Bytes written, read;
        std::int64_t cookie = -1;
        bool reading = false;
        int rounds = 0;
      };
      std::vector<Part> parts(kDepth);
      const auto start = [&](std::size_t i) {
        Part& p = parts[i];
        const std::uint64_t offset = (c * kDepth + i) * kSlot;
        p.reading = !p.reading;
        if (p.reading) {
          const std::size_t n = 512 * (1 + random() % (kSlot / 512));
          p.written = random_bytes(n, static_cast<unsigned>(random()));
          p.cookie = nbd_aio_pwrite(h, p.written.data(), n, offset, kNoCallback, 0);
        } else {
          p.read.assign(p.written.size(), std::byte{0});
          p.cookie = nbd_aio_pread(h, p.read.data(), p.read.size(), offset, kNoCallback, 0);
        }
        ASSERT_NE(p.cookie, -1) << nbd_get_error();
      };
      for (std::size_t i = 0; i < kDepth; ++i) start(i);
      std::size_t left = kDepth;
      while (left > 0) {
        ASSERT_GE(nbd_poll(h, 10'000), 0) << nbd_get_error();
        for (std::size_t i = 0; i < kDepth; ++i) {
          Part& p = parts[i];
          if (p.cookie < 0) continue;
          const int done = nbd_aio_command_completed(h, static_cast<std::uint64_t>(p.cookie));
          ASSERT_GE(done, 0) << nbd_get_error();
          if (done == 0) continue;
          if (!p.reading) ASSERT_EQ(p.read, p.written);
          if (++p.rounds < 20) {
            start(i);
          } else {
            p.cookie = -1;
            --left;
          }
        }
      }
      EXPECT_EQ(nbd_shutdown(h, 0), 0);
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(server.totals().requests, kConnections * kDepth * 20);
  EXPECT_EQ(server.totals().errors, 0u);
}

TEST_P(LibNbd, AClientThatVanishesLeavesNothingBehind) {
  RunningServer server(GetParam());
  server.disk->hang = true;
  {
    Handle h = open_export(server);
    Bytes b(1 << 20);
    for (int i = 0; i < 6; ++i) {
      ASSERT_NE(nbd_aio_pwrite(h.get(), b.data(), b.size(), 0, kNoCallback, 0), -1);
    }
    while (nbd_aio_in_flight(h.get()) < 6) nbd_poll(h.get(), 100);
    while (server.totals().requests < 6) nbd_poll(h.get(), 10);
  }  // closed without a goodbye
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(server.totals().clients, 1u);  // its buffers are still the device's
  server.let_go();
  for (int i = 0; i < 6000 && server.totals().clients > 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(server.totals().clients, 0u);
  Handle h = open_export(server);
  EXPECT_EQ(nbd_flush(h.get(), 0), 0);
}

TEST_P(LibNbd, ShutdownAnswersWhatHangs) {
  RunningServer server(GetParam(), {.grace = 200ms});
  server.disk->hang = true;
  Handle h = open_export(server);
  Bytes b(4096);
  const std::int64_t cookie = nbd_aio_pread(h.get(), b.data(), b.size(), 0, kNoCallback, 0);
  ASSERT_NE(cookie, -1);
  while (server.totals().requests < 1) nbd_poll(h.get(), 10);
  auto stopped = server.begin_stop();
  int done = 0;
  // The device is let go only after that: an answer that waited for it would never come.
  while (done == 0 && nbd_poll(h.get(), 30'000) > 0) {
    done = nbd_aio_command_completed(h.get(), static_cast<std::uint64_t>(cookie));
  }
  EXPECT_EQ(done, -1);
  EXPECT_EQ(nbd_get_errno(), ESHUTDOWN) << nbd_get_error();
  server.let_go();
  EXPECT_EQ(stopped.wait_for(60s), std::future_status::ready);
}

TEST_P(LibNbd, AsksWhereThereIsData) {
  RunningServer server(GetParam());
  Handle h = make_handle();
  ASSERT_EQ(nbd_add_meta_context(h.get(), LIBNBD_CONTEXT_BASE_ALLOCATION), 0);
  ASSERT_EQ(nbd_connect_uri(h.get(), server.uri().c_str()), 0) << nbd_get_error();
  EXPECT_EQ(nbd_can_meta_context(h.get(), LIBNBD_CONTEXT_BASE_ALLOCATION), 1);
  struct Told {
    int calls = 0;
    std::vector<std::uint32_t> entries;
  } told;
  const auto ask = [&](std::uint64_t count, std::uint64_t offset, std::uint32_t flags) {
    told = {};
    const nbd_extent_callback extents{[](void* data, const char* context, std::uint64_t,
                                         std::uint32_t* entries, std::size_t n, int*) {
                                        auto& t = *static_cast<Told*>(data);
                                        EXPECT_STREQ(context, LIBNBD_CONTEXT_BASE_ALLOCATION);
                                        ++t.calls;
                                        t.entries.assign(entries, entries + n);
                                        return 0;
                                      },
                                      &told, nullptr};
    return nbd_block_status(h.get(), count, offset, extents, flags);
  };
  EXPECT_EQ(ask(65536, 4096, 0), 0) << nbd_get_error();
  EXPECT_EQ(told.calls, 1);
  EXPECT_EQ(told.entries, (std::vector<std::uint32_t>{65536, 0}));  // this device knows no more
  EXPECT_EQ(ask(65536, 4096, LIBNBD_CMD_FLAG_REQ_ONE), 0);
  for (const auto& [count, offset, flags] :
       {std::tuple{1024u, std::uint64_t{kDiskBytes - 512}, 0u},
        std::tuple{0u, std::uint64_t{0}, 0u},
        std::tuple{512u, std::uint64_t{0}, std::uint32_t{LIBNBD_CMD_FLAG_DF}}}) {
    EXPECT_EQ(ask(count, offset, flags), -1);
    EXPECT_EQ(nbd_get_errno(), EINVAL) << nbd_get_error();
    EXPECT_EQ(told.calls, 0);
  }
  EXPECT_EQ(ask(512, 0, 0), 0);  // and nothing of that was held against it
}

/// Clients that go at every byte of a session, while another one works: it does not notice.
TEST_P(LibNbd, ClientsMayGoAtAnyByte) {
  if (GetParam().tcp) return;  // it is the same Session
  RunningServer server(GetParam());
  Handle worker = open_export(server);
  std::vector<unsigned char> words{0, 0, 0, 3};
  const auto add = [&words](std::initializer_list<unsigned> bytes) {
    for (const unsigned b : bytes) words.push_back(static_cast<unsigned char>(b));
  };
  const auto option = [&](unsigned number, std::initializer_list<unsigned> data) {
    for (const char c : std::string_view("IHAVEOPT"))
      words.push_back(static_cast<unsigned char>(c));
    add({0, 0, 0, number, 0, 0, 0, static_cast<unsigned>(data.size())});
    add(data);
  };
  const auto request = [&](unsigned command, unsigned length) {
    add({0x25, 0x60, 0x95, 0x13, 0, 0, 0, command, 0, 0, 0, 0, 0, 0, 0, 9});
    add({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, length});
  };
  option(8, {});
  option(3, {});
  option(7, {0, 0, 0, 0, 0, 0});
  request(1, 16);
  words.resize(words.size() + 16);
  request(0, 64);
  request(6, 64);
  request(2, 0);
  const std::string path = server.unix_path();
  Bytes written = random_bytes(4096, 1);
  Bytes read(4096);
  for (std::size_t length = 0; length <= words.size(); ++length) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_GE(fd, 0);
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    std::memcpy(at.sun_path, path.c_str(), path.size() + 1);
    ASSERT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof(at)), 0);
    ASSERT_EQ(::send(fd, words.data(), length, MSG_NOSIGNAL), static_cast<ssize_t>(length));
    ::close(fd);
    written[0] = static_cast<std::byte>(length);
    ASSERT_EQ(nbd_pwrite(worker.get(), written.data(), written.size(), 1 << 20, 0), 0);
    ASSERT_EQ(nbd_pread(worker.get(), read.data(), read.size(), 1 << 20, 0), 0);
    ASSERT_EQ(read, written);
  }
  for (int i = 0; i < 6000 && server.totals().clients > 1; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(server.totals().clients, 1u);
}

TEST_P(LibNbd, NoMoreClientsThanAllowed) {
  RunningServer server(GetParam(), {.clients_max = 2});
  Handle a = open_export(server);
  Handle b = open_export(server);
  Handle c = make_handle();
  EXPECT_EQ(nbd_connect_uri(c.get(), server.uri().c_str()), -1);
  Bytes data(512);
  EXPECT_EQ(nbd_pread(a.get(), data.data(), 512, 0, 0), 0);
  EXPECT_EQ(nbd_pread(b.get(), data.data(), 512, 0, 0), 0);
}

}  // namespace
}  // namespace nvmf::nbd
