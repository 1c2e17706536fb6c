// I/O commands: what they do, and how they are refused.
#include "controller/test_host.h"
#include "nvme/endian.h"

namespace nvmf::controller {
namespace {

using nvme::StatusCode;
using transport::FileOp;

constexpr std::uint64_t kDiskBytes = 8 << 20;

class IoTest : public ControllerTest {
 protected:
  void SetUp() override { begin(); }
  void begin(std::uint32_t in_capsule_bytes = 8192) {
    TargetConfig config = one_subsystem({memory(kDiskBytes), file("disk.img", kDiskBytes, 4096)});
    config.in_capsule_bytes = in_capsule_bytes;
    start(std::move(config));
    h = &host();
    h->bring_up_io();
  }
  void restart(std::uint32_t in_capsule_bytes) {
    stop();
    hosts.clear();
    begin(in_capsule_bytes);
  }
  Answer send(const nvme::Sqe& sqe, Bytes data = {}) { return h->io().send(sqe, std::move(data)); }
  static void expect_refused(const Answer& answer, StatusCode code) {
    EXPECT_EQ(answer.code(), code_of(code));
    EXPECT_TRUE(answer.status.dnr);
  }
  Answer dsm(std::vector<nvme::DsmRange> ranges, std::uint32_t nsid = 1, std::size_t pad_to = 0,
             std::uint32_t attributes = nvme::kCdw11DsmDeallocate) {
    Bytes data = nvme::encode_dsm_ranges(ranges);
    data.resize(std::max(pad_to, data.size()));
    return send(nvme::dsm_command(nsid, ranges.size(), attributes), std::move(data));
  }
  /// The kinds of file operation that `act` causes.
  std::vector<FileOp::Kind> file_ops(const std::function<void()>& act) {
    std::vector<FileOp::Kind> kinds;
    loop.file_fault = [&](const std::string&, const FileOp& op) {
      kinds.push_back(op.kind);
      return 0;
    };
    act();
    loop.file_fault = nullptr;
    return kinds;
  }

  TestHost* h = nullptr;
};

TEST_F(IoTest, ReadsWhatWasWritten) {
  for (const std::uint32_t in_capsule : {0u, 16u, 8192u, 65536u}) {
    SCOPED_TRACE(in_capsule);
    restart(in_capsule);
    for (const std::uint32_t nsid : {1u, 2u}) {
      const std::uint32_t block = nsid == 1 ? 512 : 4096;
      for (const std::size_t bytes : {4096u, 8192u, 65536u, 131072u, 135168u, 1048576u}) {
        const Bytes data = random_bytes(bytes, bytes + nsid);
        ASSERT_TRUE(h->write(3, data, block, nsid).ok()) << bytes;
        const Answer back = h->read(3, static_cast<std::uint32_t>(bytes / block), block, nsid);
        ASSERT_TRUE(back.ok()) << bytes;
        EXPECT_EQ(back.received_bytes, bytes);
        EXPECT_EQ(back.data, data) << bytes;
      }
    }
  }
}

TEST_F(IoTest, ChecksRanges) {
  const std::uint64_t blocks = kDiskBytes / 512;
  EXPECT_TRUE(h->read(blocks - 1, 1).ok());
  expect_refused(h->read(blocks - 1, 2), StatusCode::lba_out_of_range);
  expect_refused(h->read(blocks, 1), StatusCode::lba_out_of_range);
  expect_refused(h->read(~0ull, 2), StatusCode::lba_out_of_range);
  expect_refused(h->read(~0ull / 512, 1), StatusCode::lba_out_of_range);
  expect_refused(h->write(blocks, Bytes(512)), StatusCode::lba_out_of_range);
  expect_refused(send(nvme::write_zeroes_command(1, blocks - 1, 2)), StatusCode::lba_out_of_range);
  expect_refused(h->io().send(nvme::compare_command(1, blocks, 1), Bytes(512)),
                 StatusCode::lba_out_of_range);
}

TEST_F(IoTest, ChecksNamespaces) {
  for (const std::uint32_t nsid : {0u, 3u, nvme::kNsidAll}) {
    expect_refused(h->read(0, 1, 512, nsid), StatusCode::invalid_namespace);
    expect_refused(h->write(0, Bytes(512), 512, nsid), StatusCode::invalid_namespace);
    if (nsid != nvme::kNsidAll) {
      expect_refused(send(nvme::flush_command(nsid)), StatusCode::invalid_namespace);
    }
  }
}

TEST_F(IoTest, ChecksLengths) {
  // MDTS first, then the SGL.
  expect_refused(h->read(0, 2049), StatusCode::invalid_field);
  expect_refused(h->io().fetch(nvme::read_command(1, 0, 8), 2048),
                 StatusCode::data_sgl_length_invalid);
  expect_refused(h->io().fetch(nvme::read_command(1, 0, 8), 8192),
                 StatusCode::data_sgl_length_invalid);
  expect_refused(send(nvme::write_command(1, 0, 8), Bytes(512)),
                 StatusCode::data_sgl_length_invalid);
  expect_refused(send(nvme::write_command(1, 0, 100), Bytes(100 * 512 - 4)),
                 StatusCode::data_sgl_length_invalid);
  expect_refused(send(nvme::read_command(1, 0, 1)), StatusCode::data_sgl_length_invalid);
  expect_refused(send(nvme::write_zeroes_command(1, 0, kWriteZeroesBytesMax / 512 + 1)),
                 StatusCode::invalid_field);
  // A read whose buffer is said to be in the capsule.
  expect_refused(send(nvme::read_command(1, 0, 1), Bytes(512)), StatusCode::sgl_type_invalid);
  EXPECT_EQ(target->buffers().free_count(), target->buffers().count());
}

TEST_F(IoTest, RefusesWhatItDoesNotKnow) {
  for (unsigned opcode = 0; opcode < 256; ++opcode) {
    if (opcode <= 2 || opcode == 5 || opcode == 8 || opcode == 9) continue;
    nvme::Sqe sqe;
    sqe.opcode = static_cast<std::uint8_t>(opcode);
    sqe.nsid = 1;
    if (opcode == nvme::kFabricsOpcode) sqe.nsid = 4;  // Property Get
    expect_refused(send(sqe), StatusCode::invalid_opcode);
  }
  nvme::Sqe fused = nvme::flush_command(1);
  fused.flags = 2;
  expect_refused(send(fused), StatusCode::invalid_field);
  nvme::Sqe directive = nvme::write_command(1, 0, 1, 1u << 20);
  expect_refused(send(directive, Bytes(512)), StatusCode::invalid_field);
}

TEST_F(IoTest, Compares) {
  const Bytes data = random_bytes(200 * 1024, 5);
  ASSERT_TRUE(h->write(8, data).ok());
  EXPECT_TRUE(send(nvme::compare_command(1, 8, 400), data).ok());
  for (const std::size_t wrong : {std::size_t{0}, std::size_t{70'000}, data.size() - 1}) {
    Bytes other = data;
    other[wrong] ^= std::byte{1};
    expect_refused(send(nvme::compare_command(1, 8, 400), other), StatusCode::compare_failure);
  }
  const Bytes small(data.begin(), data.begin() + 512);
  EXPECT_TRUE(send(nvme::compare_command(1, 8, 1), small).ok());
  EXPECT_EQ(h->read(8, 400).data, data);
}

TEST_F(IoTest, WritesZeroes) {
  for (const std::uint32_t nsid : {1u, 2u}) {
    const std::uint32_t block = nsid == 1 ? 512 : 4096;
    for (const std::uint32_t bits : {0u, nvme::kCdw12Deac}) {
      Bytes data = random_bytes(64 * block, nsid);
      ASSERT_TRUE(h->write(0, data, block, nsid).ok());
      ASSERT_TRUE(send(nvme::write_zeroes_command(nsid, 5, 40, bits)).ok());
      std::fill(data.begin() + 5 * block, data.begin() + 45 * block, std::byte{0});
      EXPECT_EQ(h->read(0, 64, block, nsid).data, data);
    }
  }
  const auto plain = file_ops([&] { send(nvme::write_zeroes_command(2, 0, 1)); });
  EXPECT_EQ(plain, (std::vector{FileOp::Kind::zero}));
  const auto hole = file_ops([&] { send(nvme::write_zeroes_command(2, 0, 1, nvme::kCdw12Deac)); });
  EXPECT_EQ(hole, (std::vector{FileOp::Kind::punch}));
}

TEST_F(IoTest, Deallocates) {
  for (const std::uint32_t nsid : {1u, 2u}) {
    const std::uint32_t block = nsid == 1 ? 512 : 4096;
    Bytes data = random_bytes(128 * block, nsid);
    ASSERT_TRUE(h->write(0, data, block, nsid).ok());
    // Linux sends a whole page however few ranges there are.
    ASSERT_TRUE(dsm({{0, 3, 1}, {0, 0, 50}, {0, 20, 100}}, nsid, 4096).ok());
    std::fill(data.begin() + block, data.begin() + 4 * block, std::byte{0});
    std::fill(data.begin() + 100 * block, data.begin() + 120 * block, std::byte{0});
    EXPECT_EQ(h->read(0, 128, block, nsid).data, data);
    // One bad range: none is touched.
    expect_refused(dsm({{0, 10, 30}, {0, 2, kDiskBytes / block - 1}}, nsid),
                   StatusCode::lba_out_of_range);
    expect_refused(dsm({{0, 0xffffffff, ~0ull}}, nsid), StatusCode::lba_out_of_range);
    EXPECT_EQ(h->read(0, 128, block, nsid).data, data);
    // Without the attribute it is a hint.
    EXPECT_TRUE(dsm({{0, 128, 0}}, nsid, 0, 0).ok());
    EXPECT_EQ(h->read(0, 128, block, nsid).data, data);
  }
  std::vector<nvme::DsmRange> many(256, {0, 1, 0});
  EXPECT_TRUE(dsm(many).ok());
  expect_refused(send(nvme::dsm_command(1, 4), Bytes(32)), StatusCode::data_sgl_length_invalid);
  EXPECT_TRUE(dsm({{0, static_cast<std::uint32_t>(kDiskBytes / 512), 0}}).ok());
}

TEST_F(IoTest, FlushesAndWritesThrough) {
  using Kinds = std::vector<FileOp::Kind>;
  EXPECT_EQ(file_ops([&] { EXPECT_TRUE(send(nvme::flush_command(2)).ok()); }),
            Kinds{FileOp::Kind::sync});
  EXPECT_EQ(file_ops([&] { EXPECT_TRUE(send(nvme::flush_command(nvme::kNsidAll)).ok()); }),
            Kinds{FileOp::Kind::sync});
  EXPECT_EQ(file_ops([&] { EXPECT_TRUE(send(nvme::flush_command(1)).ok()); }), Kinds{});
  const auto write = [&](std::uint32_t bits) {
    EXPECT_TRUE(h->write(0, Bytes(4096), 4096, 2, bits).ok());
  };
  EXPECT_EQ(file_ops([&] { write(0); }), Kinds{FileOp::Kind::write});
  EXPECT_EQ(file_ops([&] { write(nvme::kCdw12Fua); }), Kinds{FileOp::Kind::write_durable});
  EXPECT_EQ(file_ops([&] {
              EXPECT_TRUE(send(nvme::write_zeroes_command(2, 0, 1, nvme::kCdw12Fua)).ok());
            }),
            (Kinds{FileOp::Kind::zero, FileOp::Kind::sync}));
  // With the write cache switched off every write is durable.
  ASSERT_TRUE(h->admin().send(nvme::set_features(nvme::Feature::volatile_write_cache, 0)).ok());
  EXPECT_EQ(file_ops([&] { write(0); }), Kinds{FileOp::Kind::write_durable});
}

TEST_F(IoTest, ReportsDiskErrors) {
  int error = EIO;
  loop.file_fault = [&](const std::string&, const FileOp&) { return error; };
  EXPECT_EQ(h->read(0, 1, 4096, 2).code(), code_of(StatusCode::unrecovered_read_error));
  EXPECT_EQ(h->write(0, Bytes(4096), 4096, 2).code(), code_of(StatusCode::write_fault));
  EXPECT_EQ(send(nvme::flush_command(2)).code(), code_of(StatusCode::write_fault));
  EXPECT_FALSE(h->read(0, 1, 4096, 2).status.dnr);
  error = ENOSPC;
  EXPECT_EQ(h->write(0, Bytes(1 << 20), 4096, 2).code(), code_of(StatusCode::capacity_exceeded));
  error = ENODATA;
  expect_refused(h->read(0, 256, 4096, 2), StatusCode::lba_out_of_range);
  loop.file_fault = nullptr;
  EXPECT_EQ(h->smart().media_errors.low, 6u);
  EXPECT_TRUE(h->read(0, 256, 4096, 2).ok());
}

// An error in the middle of a long read must not pass for success.
TEST_F(IoTest, FailsALongReadThatFailsInTheMiddle) {
  int pieces = 0;
  loop.file_fault = [&](const std::string&, const FileOp&) { return ++pieces == 3 ? EIO : 0; };
  const Answer answer = h->read(0, 256, 4096, 2);
  EXPECT_EQ(answer.code(), code_of(StatusCode::unrecovered_read_error));
  EXPECT_EQ(pieces, 3);
}

TEST_F(IoTest, WritesNothingToWhatIsProtected) {
  const Bytes data = random_bytes(4096, 3);
  ASSERT_TRUE(h->write(0, data).ok());
  ASSERT_TRUE(h->admin().send(nvme::set_async_events(nvme::kOaesNamespaceAttributes)).ok());
  auto event = h->admin().start(nvme::async_event_request());
  ASSERT_TRUE(target->protect_namespace(kSubsystemNqn, 1, true));
  EXPECT_TRUE(h->admin().wait(*event).ok());
  const auto nsattr = [&] {
    return nvme::IdentifyNamespace::decode(h->identify(nvme::Cns::identify_namespace, 1).data)
        .nsattr;
  };
  EXPECT_EQ(nsattr(), nvme::kNsattrWriteProtected);
  expect_refused(h->write(0, Bytes(4096)), StatusCode::namespace_write_protected);
  expect_refused(send(nvme::write_zeroes_command(1, 0, 8)), StatusCode::namespace_write_protected);
  expect_refused(dsm({{.blocks = 8}}), StatusCode::namespace_write_protected);
  expect_refused(h->admin().send(nvme::FormatCommand{.nsid = 1}.to_sqe()),
                 StatusCode::namespace_write_protected);
  EXPECT_TRUE(h->write(0, data, 4096, 2).ok()) << "the other one is not";
  EXPECT_EQ(h->read(0, 8).data, data);
  ASSERT_TRUE(target->protect_namespace(kSubsystemNqn, 1, false));
  EXPECT_EQ(nsattr(), 0);
  EXPECT_TRUE(h->write(0, Bytes(4096)).ok());
  EXPECT_EQ(target->protect_namespace(kSubsystemNqn, 9, true).error().code, ENOENT);
}

TEST_F(IoTest, RunsMoreCommandsThanThereAreBuffers) {
  loop.file_latency = 10ms;
  h->options().queue_entries = 128;
  constexpr std::uint16_t kQueues = 8;
  for (std::uint16_t qid = 2; qid < 2 + kQueues; ++qid) ASSERT_TRUE(h->connect_io(qid).ok());
  std::vector<std::pair<TestQueue*, std::shared_ptr<Pending>>> reads;
  const Bytes expected = random_bytes(kDiskBytes, 99);
  loop.file_bytes("disk.img") = expected;
  for (int i = 0; i < 120; ++i) {
    for (std::uint16_t qid = 2; qid < 2 + kQueues; ++qid) {
      const auto lba = static_cast<std::uint64_t>(i);
      reads.emplace_back(&h->io(qid),
                         h->io(qid).start(nvme::read_command(2, lba, 4), Bytes(16384), true));
    }
  }
  std::size_t least = target->buffers().count();
  loop.run_until(
      [&] {
        least = std::min(least, target->buffers().free_count());
        return reads.back().second->done;
      },
      60s);
  EXPECT_EQ(least, 0u);  // 960 commands, 512 shared buffers and one for each queue
  for (std::size_t i = 0; i < reads.size(); ++i) {
    const Answer answer = reads[i].first->wait(*reads[i].second);
    ASSERT_TRUE(answer.ok());
    const auto offset = static_cast<std::ptrdiff_t>(i / kQueues * 4096);
    EXPECT_TRUE(std::equal(answer.data.begin(), answer.data.end(), expected.begin() + offset));
  }
  EXPECT_EQ(target->buffers().free_count(), target->buffers().count());
}

// A read that is no larger than a capsule's data needs no buffer but the capsule's own.
TEST_F(IoTest, ReadsLittleWithoutABuffer) {
  loop.file_latency = 10ms;
  h->options().queue_entries = 64;
  ASSERT_TRUE(h->connect_io(2).ok());
  const Bytes expected = random_bytes(kDiskBytes, 5);
  loop.file_bytes("disk.img") = expected;
  std::vector<std::shared_ptr<Pending>> reads;
  for (std::uint64_t lba = 0; lba < 60; ++lba) {
    reads.push_back(h->io(2).start(nvme::read_command(2, lba, 2), Bytes(8192), true));
  }
  loop.run_for(5ms);
  EXPECT_EQ(target->buffers().free_count(), target->buffers().count());
  for (std::size_t i = 0; i < reads.size(); ++i) {
    const Answer answer = h->io(2).wait(*reads[i]);
    ASSERT_TRUE(answer.ok());
    const auto offset = static_cast<std::ptrdiff_t>(i * 4096);
    EXPECT_TRUE(std::equal(answer.data.begin(), answer.data.end(), expected.begin() + offset));
  }
}

// Hosts that stop in the middle of their transfers do not stop the others.
TEST_F(IoTest, LeavesABufferToEachQueue) {
  h->options().queue_entries = 128;
  std::vector<std::shared_ptr<Pending>> stuck;
  std::vector<std::shared_ptr<sim::Link>> links;
  for (std::uint16_t qid = 2; qid < 7; ++qid) {
    ASSERT_TRUE(h->connect_io(qid).ok());
    links.push_back(loop.links().back());
  }
  for (const auto& link : links) {
    link->options.window_bytes = 64 * 1024;
  }
  for (std::uint16_t qid = 2; qid < 7; ++qid) {
    for (int i = 0; i < 127; ++i) {
      stuck.push_back(h->io(qid).start(nvme::write_command(1, 0, 256), Bytes(128 * 1024)));
    }
  }
  // The commands arrive, the data never does.
  loop.on_link = nullptr;
  for (const auto& link : links) link->block(sim::Side::server);
  loop.run_for(1s);
  const std::uint64_t taken = target->buffers().count() - target->buffers().free_count();
  EXPECT_GT(taken, 500u);
  const Bytes data = random_bytes(1 << 20, 4);
  EXPECT_TRUE(h->write(0, data).ok());
  EXPECT_EQ(h->read(0, 2048).data, data);
  for (std::uint16_t qid = 2; qid < 7; ++qid) h->io(qid).end();
  for (const auto& link : links) link->block(sim::Side::server, false);
  loop.run_for(1s);
}

TEST_F(IoTest, ServesManyControllersAtOnce) {
  std::vector<TestHost*> many;
  for (std::uint8_t i = 0; i < 20; ++i) {
    many.push_back(&host({.hostid = host_id(static_cast<std::uint8_t>(i + 10))}));
    many.back()->bring_up_io();
    ASSERT_TRUE(many.back()->write(i, random_bytes(512, i)).ok());
  }
  for (std::uint8_t i = 0; i < 20; ++i) {
    EXPECT_EQ(many[19 - i]->read(i, 1).data, random_bytes(512, i));
  }
}

}  // namespace
}  // namespace nvmf::controller
