// Trace files: their bytes, what is dropped, what is refused; and a tapped connection, whose bytes
// are all in the file and are what its two ends saw.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "io/trace_file.h"
#include "io/wire_trace.h"
#include "sim/byte_user.h"
#include "sim/virtual_loop.h"

namespace nvmf::test {
namespace {

namespace fs = std::filesystem;
using io::TraceFile;
using std::chrono::milliseconds;
using testing::HasSubstr;

std::vector<unsigned char> plain(const std::vector<std::byte>& bytes) {
  std::vector<unsigned char> out(bytes.size());
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "nvmf-trace-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

TEST(TraceFile, BlocksAreThoseOfTheFormat) {
  std::vector<std::byte> out;
  io::append_section_header(out, "nvmf");
  EXPECT_EQ(plain(out),
            (std::vector<unsigned char>{// section header: byte order, 1.0, no length, application
                                        0x0a, 0x0d, 0x0d, 0x0a, 40, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a,
                                        1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                        4, 0, 4, 0, 'n', 'v', 'm', 'f', 0, 0, 0, 0, 40, 0, 0, 0,
                                        // interface: raw IP, not cut, nanoseconds
                                        1, 0, 0, 0, 32, 0, 0, 0, 101, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1,
                                        0, 9, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0}));
  out.clear();
  std::array<char, 5> data = {'h', 'e', 'l', 'l', 'o'};
  const std::array<iovec, 2> pieces = {iovec{data.data(), 2}, iovec{data.data() + 2, 3}};
  io::append_packet(out, 0x1'0000'0002, pieces, 7);
  EXPECT_EQ(plain(out), (std::vector<unsigned char>{
                            6, 0, 0, 0, 56, 0, 0, 0, 0, 0,   0,   0,   1,   0,   0,  0, 2, 0, 0,
                            0, 5, 0, 0, 0,  5, 0, 0, 0, 'h', 'e', 'l', 'l', 'o', 0,  0, 0, 4, 0,
                            8, 0, 7, 0, 0,  0, 0, 0, 0, 0,   0,   0,   0,   0,   56, 0, 0, 0}));
}

TEST(TraceFile, AStalledWriterDropsAndCounts) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  auto file = TraceFile::make(io::UniqueFd(ends[1]), 256 * 1024);
  ASSERT_TRUE(file);
  std::vector<char> data(10'000);
  const iovec piece{data.data(), data.size()};
  std::uint64_t taken = 0;
  // What the pipe holds, what is being written and what waits: nobody reads, nobody waits.
  for (int i = 0; i < 200; ++i) taken += (*file)->packet({&piece, 1}) ? 1 : 0;
  const io::TraceCounts counts = (*file)->counts();
  EXPECT_EQ(counts.packets, taken);
  EXPECT_EQ(counts.dropped, 200 - taken);
  EXPECT_GT(counts.dropped, 100u);
  EXPECT_GT(taken, 20u);
  (*file)->finish();
  EXPECT_FALSE((*file)->packet({&piece, 1})) << "it has ended";
  // Read at last, the file says itself how many there were.
  io::UniqueFd reader(ends[0]);
  std::vector<std::byte> all;
  std::array<std::byte, 65536> some;
  for (ssize_t n = 0; (n = ::read(reader.get(), some.data(), some.size())) > 0;) {
    all.insert(all.end(), some.begin(), some.begin() + n);
  }
  EXPECT_TRUE((*file)->wait_written(60));
  // The last block: … received (12 bytes), dropped (12), end of options, length.
  std::uint64_t received = 0;
  std::uint64_t dropped = 0;
  std::memcpy(&received, all.data() + all.size() - 28, 8);
  std::memcpy(&dropped, all.data() + all.size() - 16, 8);
  EXPECT_EQ(received, 200u);
  EXPECT_EQ(dropped, 200 - taken);
  EXPECT_EQ((*file)->counts().bytes, all.size());
}

TEST(TraceFile, OnlyARegularFileOfOursIsWritten) {
  const Folder folder;
  const std::string fresh = folder.path / "fresh";
  ASSERT_TRUE(io::open_trace_file(fresh));
  EXPECT_EQ(fs::status(fresh).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  // One that is there is emptied, and nobody else may read it any more.
  const std::string old = folder.path / "old";
  std::ofstream(old) << "something";
  ASSERT_EQ(::chmod(old.c_str(), 0644), 0);
  ASSERT_TRUE(io::open_trace_file(old));
  EXPECT_EQ(fs::file_size(old), 0u);
  EXPECT_EQ(fs::status(old).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  std::ofstream(old) << "precious";
  fs::create_symlink(old, folder.path / "link");
  ASSERT_EQ(::mkfifo((folder.path / "pipe").c_str(), 0600), 0);
  const auto refused = [&](const char* name, const char* why) {
    const auto opened = io::open_trace_file(folder.path / name);
    ASSERT_FALSE(opened) << name;
    EXPECT_THAT(opened.error().message, HasSubstr(why));
  };
  refused("link", "symbolic link");
  refused("pipe", "no regular file");
  refused("nowhere/x", "No such file");
  refused(".", "directory");
  fs::create_hard_link(old, folder.path / "other");
  refused("other", "hard links");
  EXPECT_EQ(fs::file_size(old), 8u) << "what is refused is left alone";
}

/// Whether the block that ends a trace has been written: the writer is another thread.
bool is_whole(const std::string& path) {
  constexpr std::uint32_t kStatistics = 5;
  std::ifstream in(path, std::ios::binary);
  const std::string file((std::istreambuf_iterator<char>(in)), {});
  for (std::size_t at = 0; at + 8 <= file.size();) {
    std::uint32_t head[2] = {};
    std::memcpy(head, file.data() + at, sizeof head);
    if (head[1] < 12) return false;
    at += head[1];
    if (head[0] == kStatistics) return at == file.size();
  }
  return false;
}

/// The TCP payload of one direction, by source port, and what does not fit together.
std::vector<std::byte> payload_from(const std::string& path, std::uint16_t port) {
  std::ifstream in(path, std::ios::binary);
  std::string file((std::istreambuf_iterator<char>(in)), {});
  std::vector<std::byte> out;
  std::uint32_t next = 0;
  for (std::size_t at = 0; at < file.size();) {
    std::uint32_t head[7] = {};
    std::memcpy(head, file.data() + at, std::min<std::size_t>(sizeof head, file.size() - at));
    if (head[1] < 12) {
      ADD_FAILURE() << "a block of " << head[1];
      break;
    }
    if (head[0] == 6) {
      const auto* ip = reinterpret_cast<const unsigned char*>(file.data() + at + 28);
      const unsigned char* tcp = ip + 20;
      const std::uint32_t sequence =
          static_cast<std::uint32_t>(tcp[4]) << 24 | tcp[5] << 16 | tcp[6] << 8 | tcp[7];
      if ((tcp[0] << 8 | tcp[1]) == port) {
        if (tcp[13] & 2) next = sequence + 1;
        const std::size_t bytes = head[5] - 40;
        if (bytes != 0) {
          EXPECT_EQ(sequence, next);
        }
        next += static_cast<std::uint32_t>(bytes);
        const auto* data = reinterpret_cast<const std::byte*>(tcp + 20);
        out.insert(out.end(), data, data + bytes);
      }
    }
    at += head[1];
  }
  return out;
}

TEST(WireTrace, EveryByteOfATappedConnectionIsInTheFileInOrder) {
  const Folder folder;
  const std::string path = folder.path / "trace";
  for (const bool posted : {false, true}) {
    sim::VirtualLoop loop(5);
    loop.pipe.random_split = true;
    loop.pipe.max_chunk = 100'000;
    loop.pipe.post_receives = posted;
    sim::ByteUser server, client;
    auto listener = loop.listen({.host = "127.0.0.1", .port = 4420}, [&](auto incoming) {
      server.stream = loop.adopt(std::move(incoming), server);
    });
    ASSERT_TRUE(listener);
    io::WireTrace trace(
        {.begins = [](std::span<const std::byte>) { return false; },
         .handshake_bytes = [](std::span<const std::byte>) { return std::size_t{0}; }});
    ASSERT_TRUE(trace.start(path));
    EXPECT_FALSE(trace.start(path)) << "one at a time";
    client.outgoing = sim::pattern(300'000, 1);
    server.outgoing = sim::pattern(200'000, 2);
    client.stream = trace.connect(loop, {.host = "127.0.0.1", .port = 4420}, {}, client);
    loop.run_until_idle();
    ASSERT_EQ(server.incoming, client.outgoing);
    ASSERT_EQ(client.incoming, server.outgoing);
    const auto counts = trace.stop();
    ASSERT_TRUE(counts);
    EXPECT_EQ(counts->dropped, 0u);
    EXPECT_FALSE(trace.stop());
    for (int i = 0; i < 6000 && !is_whole(path); ++i) ::usleep(10'000);
    ASSERT_TRUE(is_whole(path));
    EXPECT_EQ(payload_from(path, 4420), server.outgoing);
    client.stream->reset(Error{"done", 0});
    loop.run_until_idle();
  }
}

}  // namespace
}  // namespace nvmf::test
